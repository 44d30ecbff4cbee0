//! What an operation does and where, resolved for the one who asks, as it is sent and as it is shown.
//!
//! A plan follows from the request, the operation's id, the time from which it counts, and what the inventory says, for the person who asks. So a plan
//! that was shown need not be kept: who submits it sends it back, it is made again, and both must be the same bytes.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;
use std::time::Duration;

use fleetward_domain::work::operation::{InvalidPolicy, RolloutPolicy};
use fleetward_protocol::action::ActionRequest;
use fleetward_protocol::digest::Digest;
use fleetward_protocol::id::{OperationId, RunId};
use fleetward_protocol::name::HostName;
use fleetward_protocol::order::{self as wire, Authority, Draft, Limits, MAX_STEPS, Planned, Target};
use fleetward_protocol::text::{List, Text};
use fleetward_protocol::time::Timestamp;
use fleetward_store::fleet::host;
use fleetward_store::work::run::NewRun;
use fleetward_store::work::step::{NewStep, Step};
use fleetward_store::{Connection, Scope};
use serde_json::{Map, Value, json};

use super::{Asked, MAX_REASON, MAX_RUNS, OperationError, check_id, made_id};
use crate::App;
use crate::fleet::target::{self, Selected};
use crate::people::access::{Permit, Read, Run};
use crate::secret::SecretBox;
use crate::work::action::{self, Within};
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
    /// Whether something of it must not be shown.
    is_hidden: bool,
}

/// What would be done and where.
#[derive(Debug, Clone)]
pub struct Preview {
    /// The hosts.
    pub selected: Vec<Selected>,
    /// What each step is about, as the operation would show it.
    pub subjects: Vec<String>,
}

/// What would be done and where, by the same rules and in the same tenant as [`create`](super::create); without steps only
/// where, in all tenants that the caller may read.
///
/// # Errors
/// [`OperationError`]; the operation would be refused for the same reason.
pub async fn preview(
    app: &App,
    permit: &Permit<Read>,
    steps: Vec<action::Asked>,
    on: &str,
) -> Result<Preview, OperationError> {
    if steps.is_empty() {
        return Ok(Preview { selected: target::preview(app, permit, on).await?, subjects: Vec::new() });
    }
    let permit: Permit<Run> = permit.caller().clone().permit()?;
    let mut conn = app.store().read().await?;
    let steps = resolve(app, &permit, &mut conn, steps, &RolloutPolicy::default()).await?;
    drop(conn);
    let subjects = steps.into_iter().map(|step| step.shown.subject).collect();
    Ok(Preview { selected: target::select(app, &Scope::of(permit.tenant()), on).await?, subjects })
}

/// Whether there is something to do, and not too much.
pub(super) fn check_steps(steps: &[action::Asked]) -> Result<(), OperationError> {
    match steps.len() {
        1..=MAX_STEPS => Ok(()),
        _ => Err(OperationError::Steps),
    }
}

/// Whether the reason can be kept whole.
pub(super) fn check_reason(reason: Option<&str>) -> Result<(), OperationError> {
    match reason.map_or(0, |reason| reason.chars().count()) {
        0..=MAX_REASON => Ok(()),
        length => Err(OperationError::Reason(length)),
    }
}

/// All that is decided of an operation before anything is written.
pub(super) struct Decided {
    pub(super) policy: RolloutPolicy,
    pub(super) selected: Vec<Selected>,
    pub(super) left_out: u32,
    pub(super) steps: Vec<PlannedStep>,
    pub(super) planned: Planned,
    pub(super) not_before: Timestamp,
    pub(super) deadline: Timestamp,
}

impl Decided {
    /// How many hosts there are.
    pub(super) fn hosts(&self) -> u32 {
        u32::try_from(self.selected.len()).unwrap_or(u32::MAX)
    }
}

/// An operation as it would be carried out: what a person looks at, signs, and submits.
#[derive(Debug, Clone)]
pub struct OperationPlan {
    /// The operation that is planned.
    pub id: OperationId,
    /// The plan's bytes.
    pub bytes: Vec<u8>,
    /// What each host does, with the digest of the bytes that it receives.
    pub steps: Vec<(Step, Digest)>,
    /// The hosts, in the plan's order.
    pub hosts: Vec<Selected>,
    /// How many hosts were left out because they are not enrolled.
    pub left_out: u32,
    /// Nothing is started before this.
    pub not_before: Timestamp,
    /// Nothing is started after this.
    pub deadline: Timestamp,
}

/// Plans an operation, and does nothing: [`create`](super::create) with these bytes carries out exactly this.
///
/// # Errors
/// [`OperationError`]; the operation would be refused for the same reason.
pub async fn plan(app: &App, permit: &Permit<Run>, asked: Asked) -> Result<OperationPlan, OperationError> {
    check_steps(&asked.steps)?;
    check_reason(asked.reason.as_deref())?;
    let now = app.deadlines().now();
    let id = asked.id.unwrap_or_else(|| made_id(now));
    check_id(id, now)?;
    let decided = decide(app, permit, &asked, id, now).await?;
    let Decided { selected, left_out, steps, planned, not_before, deadline, .. } = decided;
    let steps = steps.into_iter().map(|step| (step.shown, Digest::of(&step.bytes))).collect();
    Ok(OperationPlan { id, bytes: planned.plan, steps, hosts: selected, left_out, not_before, deadline })
}

/// Where, what and how, decided by what the inventory says now; counted from `not_before`.
pub(super) async fn decide(
    app: &App,
    permit: &Permit<Run>,
    asked: &Asked,
    id: OperationId,
    not_before: Timestamp,
) -> Result<Decided, OperationError> {
    let scope = Scope::of(permit.tenant());
    let selected = target::select(app, &scope, &asked.on).await?;
    let (selected, left_out) = target::enrolled(selected, asked.not_enrolled)?;
    let runs = selected.len().saturating_mul(asked.steps.len());
    if runs > MAX_RUNS {
        return Err(OperationError::TooManyRuns(runs));
    }
    if let Some(canary) = asked.canary.filter(|canary| canary.is_empty()) {
        return Err(InvalidPolicy::EmptyCanary(canary).into());
    }
    let total = u32::try_from(selected.len()).unwrap_or(u32::MAX);
    let canary = asked.canary.map_or(0, |share| share.of_at_least(total));
    let policy = RolloutPolicy { canary, ..asked.policy };
    policy.validate()?;
    let mut conn = app.store().read().await?;
    let steps = resolve(app, permit, &mut conn, asked.steps.clone(), &policy).await?;
    check_known(&mut conn, &scope, &steps, &selected).await?;
    drop(conn);
    let deadline = not_before + Duration::from_millis(policy.deadline_ms);
    let digests: List<Digest, MAX_STEPS> = List::of(steps.iter().map(|step| Digest::of(&step.bytes)));
    let target = |host: &Selected| Target { client: host.host.client_id.clone(), steps: digests.clone() };
    let targets: Vec<Target> = selected.iter().map(target).collect();
    let draft = Draft {
        operation: id,
        issuer: Text::of(&permit.caller().name),
        not_before,
        deadline,
        policy: Digest::of(&serde_json::to_vec(&policy).unwrap_or_default()),
    };
    let planned = Planned::new(draft, &targets).map_err(OperationError::TooLarge)?;
    Ok(Decided { policy, selected, left_out, steps, planned, not_before, deadline })
}

/// Whether the agents of all hosts know what is asked of them, as far as they have told.
async fn check_known(
    conn: &mut Connection,
    scope: &Scope,
    steps: &[PlannedStep],
    selected: &[Selected],
) -> Result<(), OperationError> {
    let kinds: BTreeSet<&str> = steps.iter().map(|step| step.shown.kind.as_str()).collect();
    for kind in kinds {
        let ignorant: HashSet<HostName> = host::ignorant_of(conn, scope, kind).await?.into_iter().collect();
        let hosts =
            selected.iter().map(|selected| &selected.host.name).filter(|name| ignorant.contains(*name));
        let hosts: Vec<HostName> = hosts.cloned().collect();
        if !hosts.is_empty() {
            return Err(OperationError::Ignorant { kind: Text::of(kind), hosts });
        }
    }
    Ok(())
}

/// A run for each host and step.
pub(super) fn plan_runs(id: OperationId, decided: &Decided) -> Result<Vec<NewRun>, OperationError> {
    let Decided { selected, steps, planned, .. } = decided;
    let mut rows = Vec::with_capacity(selected.len() * steps.len());
    for (position, target) in (0..).zip(selected) {
        let proof: Arc<[u8]> = planned.proof(position).encode().map_err(OperationError::TooLarge)?.into();
        for (step, _) in (0..).zip(steps) {
            rows.push(NewRun {
                id: RunId::derived(id, &target.host.client_id, step),
                host: target.host.id,
                host_name: target.host.name.clone(),
                client_id: target.host.client_id.clone(),
                position,
                step,
                proof: Arc::clone(&proof),
            });
        }
    }
    Ok(rows)
}

/// The steps that are asked for, each resolved by its kind.
async fn resolve(
    app: &App,
    permit: &Permit<Run>,
    conn: &mut Connection,
    asked: Vec<action::Asked>,
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
    let hidden: Vec<(String, String)> = steps.iter().flat_map(|step| step.hidden.iter().cloned()).collect();
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
    let action::Step { action, subject, contents, shown, undeclared, timeout, hidden, rehearses } = step;
    if policy.dry_run && !rehearses {
        return Err(OperationError::NoDryRun(Text::of(action.kind)));
    }
    let (authority, subject): (fn(ActionRequest) -> Authority, String) = match policy.dry_run {
        true => (Authority::Rehearse, format!("dry run: {subject}")),
        false => (Authority::Run, subject),
    };
    let millis = |span: Duration| u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
    let timeout_ms = policy.timeout_ms.unwrap_or_else(|| millis(timeout));
    let kind = action.kind.clone();
    let ordered = wire::Step {
        authority: authority(action),
        limits: Limits { timeout_ms, ..Limits::DEFAULT }.to_list(),
        contents: List::of(contents),
    };
    let bytes = ordered.encode().map_err(OperationError::TooLarge)?;
    let params = Value::Object(shown).to_string();
    let digest = Digest::of(format!("{kind}\n{params}").as_bytes());
    let undeclared = undeclared.iter().map(ToString::to_string).collect();
    let is_hidden = !hidden.is_empty();
    Ok(PlannedStep { bytes, shown: Step { kind, subject, digest, params }, undeclared, is_hidden })
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

/// All that was asked, as the audit log keeps it, with the digest of the plan; without it where the plan holds what must not be shown:
/// whoever reads the log could try what that may be until the digest fits.
pub(super) fn audited(steps: &[PlannedStep], plan: &[u8]) -> Map<String, Value> {
    let step = |planned: &PlannedStep| {
        let Step { kind, subject, digest, params } = &planned.shown;
        let params = match params.len() <= MAX_AUDITED {
            true => serde_json::from_str(params).unwrap_or_default(),
            false => json!({ "bytes": params.len(), "digest": Digest::of(params.as_bytes()) }),
        };
        json!({ "kind": kind, "subject": subject, "digest": digest, "params": params })
    };
    let mut audited = Map::new();
    if !steps.iter().any(|step| step.is_hidden) {
        audited.insert("plan".to_owned(), Digest::of(plan).to_string().into());
    }
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
