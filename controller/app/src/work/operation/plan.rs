//! What an operation does, resolved for the one who asks, as it is sent and as it is shown.

use std::time::Duration;

use fleetward_domain::work::operation::RolloutPolicy;
use fleetward_protocol::digest::Digest;
use fleetward_protocol::id::OperationId;
use fleetward_protocol::order::{self as wire, Authority, Limits, MAX_STEPS};
use fleetward_protocol::text::List;
use fleetward_store::work::step::{NewStep, Step};
use fleetward_store::{Connection, Scope};
use serde_json::{Map, Value, json};

use super::OperationError;
use crate::App;
use crate::fleet::target::{self, Selected};
use crate::people::access::{Permit, Read, Run};
use crate::secret::SecretBox;
use crate::work::action::{self, Asked, Within};
use crate::work::order;

/// The most bytes of a step's parameters that the audit log keeps as they are; of more, it keeps the digest.
const MAX_AUDITED: usize = 16 << 10;

/// A step, with what its runs' rows say.
pub(super) struct PlannedStep {
    /// Its canonical bytes, with all that its runs are given.
    pub(super) bytes: Vec<u8>,
    /// As it may be shown.
    pub(super) shown: Step,
    /// What was given although nobody declared it.
    undeclared: Vec<String>,
}

/// What would be done and where, by the same rules and in the same tenant as [`create`](super::create); without steps only
/// where, in all tenants that the caller may read.
///
/// # Errors
/// [`OperationError`]; the operation would be refused for the same reason.
pub async fn preview(
    app: &App,
    permit: &Permit<Read>,
    steps: Vec<Asked>,
    on: &str,
) -> Result<Vec<Selected>, OperationError> {
    if steps.is_empty() {
        return Ok(target::preview(app, permit, on).await?);
    }
    let permit: Permit<Run> = permit.caller().clone().permit()?;
    let mut conn = app.store().read().await?;
    plan(app, &permit, &mut conn, steps, &RolloutPolicy::default()).await?;
    drop(conn);
    Ok(target::select(app, &Scope::of(permit.tenant()), on).await?)
}

/// Whether there is something to do, and not too much.
pub(super) fn check_steps(steps: &[Asked]) -> Result<(), OperationError> {
    match steps.len() {
        1..=MAX_STEPS => Ok(()),
        _ => Err(OperationError::Steps),
    }
}

/// The steps that are asked for, each resolved by its kind.
pub(super) async fn plan(
    app: &App,
    permit: &Permit<Run>,
    conn: &mut Connection,
    asked: Vec<Asked>,
    policy: &RolloutPolicy,
) -> Result<Vec<PlannedStep>, OperationError> {
    check_steps(&asked)?;
    let mut within = Within { app, permit, scope: Scope::of(permit.tenant()), conn };
    let mut resolved = Vec::with_capacity(asked.len());
    for step in asked {
        resolved.push(app.kinds().resolve(step, &mut within).await?);
    }
    hide(&mut resolved, app.secrets());
    resolved.into_iter().map(|step| planned(step, policy)).collect()
}

/// What one step must not show, no other shows either: several may be given the same.
fn hide(steps: &mut [action::Step], secrets: &SecretBox) {
    let hidden: Vec<(String, String)> = steps.iter_mut().flat_map(|step| step.hidden.drain(..)).collect();
    if hidden.is_empty() {
        return;
    }
    for step in steps {
        for (name, value) in &mut step.shown {
            hide_in(name, value, &hidden, secrets);
        }
    }
}

/// Puts a stand-in where a hidden value stands under its name, at whatever depth.
fn hide_in(name: &str, value: &mut Value, hidden: &[(String, String)], secrets: &SecretBox) {
    match value {
        Value::String(text) if hidden.iter().any(|(key, value)| key == name && value == text) => {
            *value = secrets.stand_in(text);
        }
        Value::Object(inner) => {
            inner.iter_mut().for_each(|(name, value)| hide_in(name, value, hidden, secrets));
        }
        Value::Array(items) => items.iter_mut().for_each(|value| hide_in(name, value, hidden, secrets)),
        _ => {}
    }
}

fn planned(step: action::Step, policy: &RolloutPolicy) -> Result<PlannedStep, OperationError> {
    let action::Step { action, subject, contents, shown, undeclared, timeout, hidden: _ } = step;
    let millis = |span: Duration| u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
    let timeout_ms = policy.timeout_ms.unwrap_or_else(|| millis(timeout));
    let kind = action.kind.clone();
    let ordered = wire::Step {
        authority: Authority::Run(action),
        limits: Limits { timeout_ms, ..Limits::DEFAULT }.to_list(),
        contents: List::of(contents),
    };
    let bytes = ordered.encode().map_err(OperationError::TooLarge)?;
    let params = Value::Object(shown).to_string();
    let digest = Digest::of(format!("{kind}\n{params}").as_bytes());
    let undeclared = undeclared.iter().map(ToString::to_string).collect();
    Ok(PlannedStep { bytes, shown: Step { kind, subject, digest, params }, undeclared })
}

/// The steps as the store keeps them.
pub(super) fn sealed(
    secrets: &SecretBox,
    id: OperationId,
    steps: Vec<PlannedStep>,
) -> Result<Vec<NewStep>, OperationError> {
    let seal = |(position, step): (u32, PlannedStep)| {
        let sealed = order::seal_step(secrets, id, position, &step.bytes).map_err(OperationError::Sealed)?;
        Ok(NewStep { shown: step.shown, sealed })
    };
    (0..).zip(steps).map(seal).collect()
}

/// All that was asked, as the audit log keeps it.
pub(super) fn audited(steps: &[PlannedStep]) -> Map<String, Value> {
    let step = |planned: &PlannedStep| {
        let Step { kind, subject, digest, params } = &planned.shown;
        let params = match params.len() <= MAX_AUDITED {
            true => serde_json::from_str(params).unwrap_or_default(),
            false => json!({ "bytes": params.len(), "digest": Digest::of(params.as_bytes()) }),
        };
        json!({ "kind": kind, "subject": subject, "digest": digest, "params": params })
    };
    let mut audited = Map::new();
    audited.insert("steps".to_owned(), steps.iter().map(step).collect());
    let mut undeclared: Vec<&str> =
        steps.iter().flat_map(|step| step.undeclared.iter().map(String::as_str)).collect();
    undeclared.sort_unstable();
    undeclared.dedup();
    if !undeclared.is_empty() {
        audited.insert("undeclared".to_owned(), json!(undeclared));
    }
    audited
}
