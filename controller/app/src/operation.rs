//! Operations: asking for one, following it, stopping it.

mod plan;

use std::collections::BTreeMap;
use std::str::FromStr;
use std::time::Duration;

use fleetward_domain::fleet::contract::Breach;
use fleetward_domain::fleet::enrolment::{self, NotEnrolled};
use fleetward_domain::work::operation::{InvalidPolicy, RolloutPolicy, RunCounts, Share};
use fleetward_protocol::action::InvalidAction;
use fleetward_protocol::id::{OperationId, RunId};
use fleetward_protocol::name::{LinuxUser, ScriptName};
use fleetward_protocol::order::Order;
use fleetward_protocol::wire::EncodeError;
use fleetward_store::page::{Page, PageRequest};
use fleetward_store::work::operation::{self, Filter, NewOperation, Operation};
use fleetward_store::work::run::{self, NewRun};
use fleetward_store::{Connection, Scope, StoreError};
use tracing::info;
use uuid::Uuid;

use super::App;
use super::access::Permit;
use super::audit::{self, Entry};
use super::fleet::FleetEvent;
use super::health::NotTaken;
use super::order::{self, Request, SealedError};
use super::target::{self, SelectError, Selected};

pub use plan::check;
use plan::{Planned, PlannedStep, check_steps, plan, told};

/// The most runs of one operation.
pub const MAX_RUNS: usize = 200_000;
/// The most steps on one host.
pub const MAX_STEPS: usize = 32;
const MAX_REASON: usize = 1000;

/// What a person asks for.
#[derive(Debug, Clone)]
pub struct Asked {
    /// What.
    pub work: Work,
    /// Where: a target expression.
    pub on: String,
    /// What to do with hosts among them that are not enrolled.
    pub not_enrolled: NotEnrolledHosts,
    /// How. Its `canary` is computed from [`canary`](Self::canary).
    pub policy: RolloutPolicy,
    /// Hosts that run first and must all succeed.
    pub canary: Option<Share>,
    /// Why.
    pub reason: Option<String>,
}

/// What is done on each host.
#[derive(Debug, Clone)]
pub struct Work {
    /// What runs, in this order.
    pub scripts: Vec<Call>,
    /// Environment for every run.
    pub environment: BTreeMap<String, String>,
    /// Working directory of every run.
    pub directory: Option<String>,
    /// As whom every run runs; the script's own user when absent.
    pub user: Option<LinuxUser>,
}

/// What to do with targets that are not enrolled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotEnrolledHosts {
    /// Refuse the operation, naming them (P13).
    Refuse,
    /// Leave them out.
    LeaveOut,
}

/// One script and its arguments.
#[derive(Debug, Clone)]
pub struct Call {
    /// The script.
    pub name: ScriptName,
    /// Its arguments.
    pub arguments: Vec<String>,
}

/// How an operation is named: by its id, or by its number as people say it (`OP-17`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reference {
    /// By id.
    Id(OperationId),
    /// By number.
    Number(u64),
}

/// Text that names no operation.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` names no operation; use its number, such as OP-17, or its id")]
pub struct InvalidReference(String);

/// Why an operation was not taken, or not found.
#[derive(Debug, thiserror::Error)]
pub enum OperationError {
    /// Nothing new is taken now.
    #[error(transparent)]
    NotTaken(#[from] NotTaken),
    /// Nothing to run.
    #[error("an operation runs at least one script, and {MAX_STEPS} at most")]
    Steps,
    /// There is no such script.
    #[error("there is no script `{0}`")]
    NoScript(ScriptName),
    /// A script is given what it does not take.
    #[error(transparent)]
    Contract(Box<Breach>),
    /// The arguments, environment or directory are not acceptable.
    #[error(transparent)]
    Action(#[from] InvalidAction),
    /// The rollout's policy makes no sense.
    #[error(transparent)]
    Policy(#[from] InvalidPolicy),
    /// The targets mean no hosts.
    #[error(transparent)]
    Select(#[from] SelectError),
    /// Some targets are not enrolled (P13).
    #[error(transparent)]
    NotEnrolled(#[from] NotEnrolled),
    /// Too many runs.
    #[error("{0} runs are more than the {MAX_RUNS} of one operation")]
    TooManyRuns(usize),
    /// Arguments and environment are too large for an order.
    #[error("the order for each host would be too large")]
    TooLarge(#[source] EncodeError),
    /// The environment cannot be sealed.
    #[error("keep the environment")]
    Environment(#[source] SealedError),
    /// There is no such operation.
    #[error("there is no such operation")]
    NotFound,
    /// It has ended, or is being stopped already.
    #[error("the operation has ended, or is being stopped already")]
    NotStoppable,
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Plans an operation: one run per script and host, all committed when this returns (P14).
///
/// # Errors
/// [`OperationError`]; nothing was planned then.
pub async fn create(app: &App, permit: &Permit, asked: Asked) -> Result<Operation, OperationError> {
    app.health().check()?;
    check_steps(&asked.work)?;
    let scope = Scope::of(permit.tenant());
    let mut selected = target::select(app, &scope, &asked.on).await?;
    let matched = selected.len();
    if asked.not_enrolled == NotEnrolledHosts::LeaveOut
        && selected.iter().any(|target| target.standing.may_run())
    {
        selected.retain(|target| target.standing.may_run());
    }
    enrolment::require_enrolled(selected.iter().map(|target| (&target.host.name, target.standing)))?;
    let runs = selected.len().saturating_mul(asked.work.scripts.len());
    if runs > MAX_RUNS {
        return Err(OperationError::TooManyRuns(runs));
    }
    let total = u32::try_from(selected.len()).unwrap_or(u32::MAX);
    if let Some(canary) = asked.canary.filter(|canary| canary.is_empty()) {
        return Err(InvalidPolicy::EmptyCanary(canary).into());
    }
    let canary = asked.canary.map_or(0, |share| share.of_at_least(total));
    let policy = RolloutPolicy { canary, ..asked.policy };
    policy.validate()?;
    let mut conn = app.store().read().await?;
    let Planned { steps, undeclared, environment } =
        plan(app, permit, &mut conn, &asked.work, &policy).await?;
    drop(conn);

    let now = app.now();
    let id = OperationId::from_uuid(Uuid::now_v7());
    let deadline = now + Duration::from_millis(policy.deadline_ms);
    let rows = plan_runs(&selected, &steps);
    check_size(id, &rows, &steps)?;
    let names: Vec<&str> = asked.work.scripts.iter().map(|call| call.name.as_str()).collect();
    let reason = asked.reason.map(|reason| reason.chars().take(MAX_REASON).collect::<String>());
    let left_out = u32::try_from(matched - selected.len()).unwrap_or(u32::MAX);
    let told = told(&asked.work, &steps, &environment, &undeclared);
    let request = Request {
        steps: steps.into_iter().map(PlannedStep::without_environment).collect::<Result<_, _>>()?,
        environment,
        left_out,
        reason,
    };
    let sealed = order::seal_environment(app.secrets(), id, &asked.work.environment);
    let new = NewOperation {
        id,
        tenant: permit.tenant(),
        request: request.to_stored(),
        environment: sealed.map_err(OperationError::Environment)?,
        summary: names.join(", "),
        targets: asked.on.clone(),
        policy,
        created_by: Some(permit.caller().user),
        created_by_name: permit.caller().name.to_string(),
        deadline,
    };
    let mut tx = app.store().write().await?;
    let number = operation::insert(&mut tx, &new, now).await?;
    run::insert(&mut tx, permit.tenant(), id, &rows, now).await?;
    let entry = Entry::new("operation.created", permit.actor(), format!("OP-{number}"))
        .tenant(permit.tenant())
        .with("id", id.to_string())
        .with("on", asked.on)
        .with("hosts", total)
        .with("left_out", left_out)
        .with("rollout", serde_json::to_value(policy).unwrap_or_default())
        .with("reason", request.reason)
        .with_all(told);
    audit::record(&mut tx, entry, now).await?;
    let created = operation::get(&mut tx, &scope, id).await?;
    tx.commit().await?;
    info!(operation = %id, number, hosts = total, runs = rows.len(), "operation.created");
    app.dispatcher().created(id);
    app.fleet().announce(FleetEvent::Operation { tenant: permit.tenant(), operation: id });
    Ok(created)
}

/// Operations that the caller may see, newest first, each with its runs counted.
///
/// # Errors
/// If the cursor is not from this list, or the store fails.
pub async fn list(
    app: &App,
    permit: &Permit,
    filter: &Filter,
    page: &PageRequest,
) -> Result<Page<(Operation, RunCounts)>, StoreError> {
    let (mut conn, scope) = (app.store().search().await?, permit.scope());
    let Page { items, next } = operation::list(&mut conn, &scope, filter, page).await?;
    let ids: Vec<OperationId> = items.iter().map(|operation| operation.id).collect();
    let mut counts = run::count_each(&mut conn, &scope, &ids).await?;
    let counted = |operation: Operation| {
        let counts = counts.remove(&operation.id).unwrap_or_default();
        (operation, counts)
    };
    Ok(Page { items: items.into_iter().map(counted).collect(), next })
}

/// One operation.
///
/// # Errors
/// [`OperationError::NotFound`] if the caller may see none so named.
pub async fn get(app: &App, permit: &Permit, reference: Reference) -> Result<Operation, OperationError> {
    let mut conn = app.store().read().await?;
    find(&mut conn, &permit.scope(), reference).await
}

/// Asks for an operation to be stopped: what has not started never will, what runs is told to stop.
///
/// # Errors
/// [`OperationError::NotStoppable`] if it has ended or was asked before.
pub async fn stop(app: &App, permit: &Permit, reference: Reference) -> Result<Operation, OperationError> {
    let now = app.now();
    let mut tx = app.store().write().await?;
    let found = find(&mut tx, &permit.scope(), reference).await?;
    let by = permit.caller().name.as_str();
    let seq = operation::update_stop_requested(&mut tx, found.id, by, now).await?;
    let seq = seq.ok_or(OperationError::NotStoppable)?;
    let entry = Entry::new("operation.stopped", permit.actor(), format!("OP-{}", found.number))
        .tenant(found.tenant)
        .with("id", found.id.to_string());
    audit::record(&mut tx, entry, now).await?;
    let stopped = operation::get(&mut tx, &permit.scope(), found.id).await?;
    tx.commit().await?;
    app.live().announce(found.id, seq);
    app.dispatcher().stop(found.id);
    Ok(stopped)
}

fn plan_runs(selected: &[Selected], steps: &[PlannedStep]) -> Vec<NewRun> {
    let mut rows = Vec::with_capacity(selected.len() * steps.len());
    for (position, target) in (0..).zip(selected) {
        for (step, planned) in (0..).zip(steps) {
            rows.push(NewRun {
                id: RunId::from_uuid(Uuid::now_v7()),
                host: target.host.id,
                host_name: target.host.name.clone(),
                client_id: target.host.client_id.clone(),
                position,
                step,
                script: planned.params.name.clone(),
                digest: planned.params.digest,
            });
        }
    }
    rows
}

/// Every order can be made: better to say so now than when it is to be sent.
fn check_size(id: OperationId, rows: &[NewRun], steps: &[PlannedStep]) -> Result<(), OperationError> {
    for (row, planned) in rows.iter().zip(steps) {
        let order = Order {
            run: row.id,
            operation: id,
            client: row.client_id.clone(),
            action: planned.step.action.clone(),
            deadline: fleetward_protocol::time::Timestamp::from_millis(0),
            limits: planned.step.limits,
        };
        order.encode().map_err(OperationError::TooLarge)?;
    }
    Ok(())
}

async fn find(
    conn: &mut Connection,
    scope: &Scope,
    reference: Reference,
) -> Result<Operation, OperationError> {
    match reference {
        Reference::Number(number) => {
            operation::find_by_number(conn, scope, number).await?.ok_or(OperationError::NotFound)
        }
        Reference::Id(id) => operation::get(conn, scope, id).await.map_err(|error| match error {
            StoreError::NotFound { .. } => OperationError::NotFound,
            error => OperationError::Store(error),
        }),
    }
}

impl FromStr for Reference {
    type Err = InvalidReference;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let invalid = || InvalidReference(text.chars().take(64).collect());
        let number = text.strip_prefix("OP-").or_else(|| text.strip_prefix("op-"));
        match number {
            Some(number) => number.parse().map(Self::Number).map_err(|_| invalid()),
            None => text.parse().map(Self::Id).map_err(|_| invalid()),
        }
    }
}
