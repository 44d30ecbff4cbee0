//! What an operation does, checked against what its scripts declare.

use std::time::Duration;

use fleetward_domain::fleet::contract::{Contract, Given, Latitude, Undeclared};
use fleetward_domain::people::permission::Permission;
use fleetward_domain::work::operation::RolloutPolicy;
use fleetward_protocol::action::script::Script as Params;
use fleetward_protocol::action::{ActionRequest, Contract as _, InvalidAction};
use fleetward_protocol::digest::Digest;
use fleetward_protocol::order::{self as wire, Authority, Limits, MAX_STEPS};
use fleetward_protocol::text::List;
use fleetward_store::work::script::{self, Script};
use fleetward_store::{Connection, Scope};
use serde_json::{Map, Value, json};

use super::{OperationError, Work};
use crate::App;
use crate::access::Permit;
use crate::order::{self, Openness, ShownVariable, Step};

/// The most bytes of arguments that the audit log keeps as they are; of more, it keeps the digest.
const MAX_AUDITED: usize = 16 << 10;

/// A step, with what its runs' rows say.
pub(super) struct PlannedStep {
    /// Its canonical bytes, with all that its runs are given.
    pub(super) bytes: Vec<u8>,
    pub(super) step: Step,
    pub(super) params: Params,
}

impl PlannedStep {
    /// As it is stored: the environment is kept apart.
    pub(super) fn without_environment(mut self) -> Result<Step, InvalidAction> {
        if !self.params.environment.is_empty() {
            self.params.environment.clear();
            self.step.action = ActionRequest::new(&self.params)?;
        }
        Ok(self.step)
    }
}

/// What an operation does, checked.
pub(super) struct Checked {
    pub(super) steps: Vec<PlannedStep>,
    /// What was given although some script does not declare it.
    pub(super) undeclared: Vec<Undeclared>,
    pub(super) environment: Vec<ShownVariable>,
}

/// Checks what would be done, as [`create`](super::create) does: for a preview.
///
/// # Errors
/// [`OperationError`]; the operation would be refused for the same reason.
pub async fn check(app: &App, permit: &Permit, work: &Work) -> Result<(), OperationError> {
    let mut conn = app.store().read().await?;
    plan(app, permit, &mut conn, work, &RolloutPolicy::default()).await.map(|_| ())
}

/// Whether there is something to do, and not too much.
pub(super) fn check_steps(work: &Work) -> Result<(), OperationError> {
    match work.scripts.len() {
        1..=MAX_STEPS => Ok(()),
        _ => Err(OperationError::Steps),
    }
}

/// The steps of the work, each held against its script.
pub(super) async fn plan(
    app: &App,
    permit: &Permit,
    conn: &mut Connection,
    work: &Work,
    policy: &RolloutPolicy,
) -> Result<Checked, OperationError> {
    check_steps(work)?;
    let scope = Scope::of(permit.tenant());
    let latitude = match permit.caller().grants.allow(permit.tenant(), Permission::Override) {
        true => Latitude::Override,
        false => Latitude::Declared,
    };
    let mut steps = Vec::with_capacity(work.scripts.len());
    let mut scripts = Vec::with_capacity(work.scripts.len());
    let mut undeclared = Vec::new();
    for call in &work.scripts {
        let found = script::find(conn, &scope, &call.name).await?;
        let found = found
            .filter(|script| script.retired_at.is_none())
            .ok_or_else(|| OperationError::NoScript(call.name.clone()))?;
        let params = Params {
            name: found.name.clone(),
            digest: found.digest,
            arguments: call.arguments.clone(),
            environment: work.environment.clone(),
            directory: work.directory.clone(),
            user: work.user.clone().or_else(|| found.user.clone()),
            resources: found.resources.clone(),
        };
        // What nobody may give is told before what this caller may not.
        let action = ActionRequest::new(&params)?;
        let given =
            Given { arguments: &call.arguments, environment: &work.environment, user: work.user.as_ref() };
        let more = contract(&found).check(given, latitude);
        undeclared.extend(more.map_err(|breach| OperationError::Contract(Box::new(breach)))?);
        let millis = |span: Duration| u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
        let timeout_ms = policy
            .timeout_ms
            .or_else(|| found.timeout.map(millis))
            .unwrap_or_else(|| millis(Params::DEFAULT_TIMEOUT));
        let limits = Limits { timeout_ms, ..Limits::DEFAULT };
        let ordered = wire::Step {
            authority: Authority::Run(action.clone()),
            limits: limits.to_list(),
            contents: List::of([found.digest]),
        };
        let bytes = ordered.encode().map_err(OperationError::TooLarge)?;
        steps.push(PlannedStep { bytes, step: Step { action, limits }, params });
        scripts.push(found);
    }
    undeclared.sort();
    undeclared.dedup();
    let shown = |(name, value): (&String, &String)| {
        order::shown(app.secrets(), name, value, openness(&scripts, name))
    };
    let environment = work.environment.iter().map(shown).collect();
    Ok(Checked { steps, undeclared, environment })
}

fn contract(script: &Script) -> Contract<'_> {
    Contract {
        script: &script.name,
        flags: &script.flags,
        free: script.free_arguments,
        variables: &script.environment,
        user: script.user.as_ref(),
        users: &script.users,
    }
}

fn openness(scripts: &[Script], name: &str) -> Openness {
    let declared =
        |script: &Script| script.environment.iter().find(|variable| variable.name == name).map(|v| v.secret);
    let all: Option<Vec<bool>> = scripts.iter().map(declared).collect();
    match all {
        None => Openness::Undeclared,
        Some(secret) if secret.contains(&true) => Openness::Secret,
        Some(_) => Openness::Public,
    }
}

/// All that was asked, as the audit log keeps it.
pub(super) fn told(
    work: &Work,
    steps: &[PlannedStep],
    environment: &[ShownVariable],
    undeclared: &[Undeclared],
) -> Map<String, Value> {
    let script = |planned: &PlannedStep| {
        let Params { name, digest, arguments, user, .. } = &planned.params;
        let bytes: usize = arguments.iter().map(String::len).sum();
        let arguments = match bytes <= MAX_AUDITED {
            true => json!(arguments),
            false => {
                json!({ "count": arguments.len(), "digest": Digest::of(arguments.join("\0").as_bytes()) })
            }
        };
        json!({ "name": name, "digest": digest, "arguments": arguments, "user": user })
    };
    let mut told = Map::new();
    told.insert("scripts".to_owned(), steps.iter().map(script).collect());
    if !environment.is_empty() {
        told.insert("environment".to_owned(), json!(environment));
    }
    if let Some(directory) = &work.directory {
        told.insert("directory".to_owned(), directory.chars().take(4096).collect::<String>().into());
    }
    if let Some(user) = &work.user {
        told.insert("user".to_owned(), user.as_str().into());
    }
    if !undeclared.is_empty() {
        let names: Vec<String> = undeclared.iter().map(ToString::to_string).collect();
        told.insert("undeclared".to_owned(), names.into());
    }
    told
}
