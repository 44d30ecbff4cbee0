//! Operations: asking for one, following it, stopping it.

mod plan;
#[cfg(test)]
mod tests;

use std::str::FromStr;
use std::time::Duration;

use fleetward_domain::fleet::contract::Breach;
use fleetward_domain::fleet::enrolment::NotEnrolled;
use fleetward_domain::work::operation::{InvalidPolicy, RolloutPolicy, RunCounts, Share};
use fleetward_protocol::action::InvalidAction;
use fleetward_protocol::digest::Digest;
use fleetward_protocol::id::OperationId;
use fleetward_protocol::name::{HostName, ScriptName};
use fleetward_protocol::order::{MAX_STEPS, Plan};
use fleetward_protocol::printable::to_line;
use fleetward_protocol::text::Word;
use fleetward_protocol::time::Timestamp;
use fleetward_protocol::wire::{DecodeError, EncodeError};
use fleetward_store::page::{Page, PageRequest};
use fleetward_store::work::operation::{self, Filter, NewOperation, Operation};
use fleetward_store::work::run;
use fleetward_store::work::step::{self, Step};
use fleetward_store::{Connection, Reader, Scope, StoreError};
use tracing::info;
use uuid::Uuid;

use crate::App;
use crate::fleet::online::FleetEvent;
use crate::fleet::target::{NotEnrolledHosts, SelectError};
use crate::health::NotTaken;
use crate::people::access::{Denied, Need, Permit, Read, Run};
use crate::people::audit::{self, Entry};
use crate::secret::SecretError;
use crate::work::action;

use plan::{Decided, audited, check_reason, check_steps, decide, plan_runs, sealed};
pub use plan::{OperationPlan, Preview, plan, preview};

/// The most runs of one operation.
pub const MAX_RUNS: usize = 200_000;
const MAX_REASON: usize = 1000;
/// How far an operation's id may be from now: it says when it was made, and lists are in its order.
const MAX_APART: Duration = Duration::from_secs(24 * 60 * 60);

/// What a person asks for.
#[derive(Debug, Clone)]
pub struct Asked {
    /// The operation's id, if whoever asks has made it: then asking again is the same operation, whatever became of the
    /// first answer.
    pub id: Option<OperationId>,
    /// The digest of what is asked, by which a repetition is known.
    pub digest: Digest,
    /// The bytes of the plan that is submitted; without them it is planned and carried out in one.
    pub plan: Option<Vec<u8>>,
    /// What each host does, in this order.
    pub steps: Vec<action::Asked>,
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

/// An operation, with what is shown beside it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Overview {
    /// The operation.
    pub operation: Operation,
    /// What each host does, in this order.
    pub steps: Vec<Step>,
    /// Its runs, counted.
    pub counts: RunCounts,
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
    /// Nothing to do.
    #[error("an operation has at least one step, and {MAX_STEPS} at most")]
    Steps,
    /// The reason has this many characters.
    #[error("a reason has {MAX_REASON} characters at most; this one has {0}")]
    Reason(usize),
    /// There is no such kind of action.
    #[error("there is no kind of action `{kind}`{}", meant(.nearest.as_deref()))]
    NoKind {
        /// The kind asked for.
        kind: Word,
        /// One that was perhaps meant.
        nearest: Option<String>,
    },
    /// The kind cannot tell what it would do.
    #[error(
        "the kind `{0}` has no dry run: what it would do is not known before it is done; leave `dry_run` out, or ask for kinds that have one"
    )]
    NoDryRun(Word),
    /// Agents do not know the kind.
    #[error("{}", ignorant(.kind, .hosts))]
    Ignorant {
        /// The kind.
        kind: Word,
        /// Their hosts.
        hosts: Vec<HostName>,
    },
    /// The kind takes a permission that the caller does not have.
    #[error(transparent)]
    Denied(#[from] Denied),
    /// There is no such script.
    #[error("there is no script `{0}`")]
    NoScript(ScriptName),
    /// A script is given what it does not take.
    #[error(transparent)]
    Contract(Box<Breach>),
    /// The parameters are not acceptable.
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
    /// The parameters are too large for an order.
    #[error("the order for each host would be too large")]
    TooLarge(#[source] EncodeError),
    /// What the runs are given cannot be sealed.
    #[error("seal what was planned")]
    Sealed(#[source] SecretError),
    /// The id is none that a client can make.
    #[error("`{0}` is no id for an operation; make a UUID of version 7")]
    NoId(OperationId),
    /// The id was made at another time than now.
    #[error(
        "the id {id} is {} h away from the controller's time; set the clock of the machine that made it",
        .apart.as_secs() / 3600
    )]
    Clock {
        /// The id.
        id: OperationId,
        /// How far away.
        apart: Duration,
    },
    /// Another operation has the id.
    #[error("another operation has the id {0}; make a new one for a new request")]
    IdTaken(OperationId),
    /// The bytes are no plan.
    #[error("`plan` is no plan; send what the controller planned as it is")]
    NoPlan(#[source] DecodeError),
    /// The plan is for another operation.
    #[error(
        "the plan is for the operation {plan}, and the request says {asked}; send both as they were planned"
    )]
    PlanOfAnother {
        /// The plan's.
        plan: OperationId,
        /// The request's.
        asked: OperationId,
    },
    /// The plan was made on behalf of somebody else.
    #[error("the plan was made for {0}, who alone may submit it; plan it again")]
    PlanOfSomebodyElse(Word),
    /// The plan's time is over, or has not come.
    #[error(
        "the plan's time has passed, or has not come yet (its deadline, and the clock of whoever made its id); plan it again"
    )]
    PlanNotNow {
        /// From when.
        not_before: Timestamp,
        /// Until when.
        deadline: Timestamp,
    },
    /// What would be done now is not what was planned.
    #[error(
        "what would be done now is not what was planned: hosts ({then} then, {now} now), scripts, settings or the \
         request have changed; plan it again"
    )]
    PlanChanged {
        /// Hosts of the plan.
        then: u32,
        /// Hosts now.
        now: u32,
    },
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

/// Which agents do not know a kind, and what to do about it.
fn ignorant(kind: &str, hosts: &[HostName]) -> String {
    const NAMED: usize = 5;
    let mut named: Vec<&str> = hosts.iter().take(NAMED).map(HostName::as_str).collect();
    let more = hosts.len().saturating_sub(NAMED).to_string();
    if hosts.len() > NAMED {
        named.extend(["and", &more, "more"]);
    }
    let agents =
        if hosts.len() == 1 { "the agent of this host does" } else { "the agents of these hosts do" };
    format!(
        "{agents} not know the kind `{kind}`: {}; upgrade the package fleetward-agent there, or leave them out",
        named.join(" ")
    )
}

/// Plans an operation, or takes the plan that is submitted: one run per step and host, all committed when this returns (P14).
///
/// # Errors
/// [`OperationError`]; nothing was planned then.
pub async fn create(app: &App, permit: &Permit<Run>, asked: Asked) -> Result<Operation, OperationError> {
    app.health().check()?;
    check_steps(&asked.steps)?;
    check_reason(asked.reason.as_deref())?;
    // What is over is over by the database's clock, so it begins by that, too.
    let now = app.deadlines().now();
    let submitted = asked.plan.as_deref().map(Plan::decode).transpose().map_err(OperationError::NoPlan)?;
    let id = id_of(&asked, submitted.as_ref(), now)?;
    check_id(id, now)?;
    if asked.id.is_some() || submitted.is_some() {
        // Before anything is decided: what was planned the first time counts, whatever has changed since.
        let mut conn = app.store().read().await?;
        if let Some(known) = repeated(&mut conn, permit, id, &asked.digest).await? {
            // If the answer to its commit was lost, nobody has told the dispatcher.
            app.dispatcher().created(id);
            return Ok(known);
        }
    }
    let not_before = match &submitted {
        Some(plan) => check_plan(plan, permit, now)?,
        None => now,
    };
    let decided = decide(app, permit, &asked, id, not_before).await?;
    if let Some(plan) = submitted.filter(|_| asked.plan.as_ref() != Some(&decided.planned.plan)) {
        return Err(OperationError::PlanChanged { then: plan.targets, now: decided.hosts() });
    }
    let scope = Scope::of(permit.tenant());
    let rows = plan_runs(id, &decided)?;
    let (total, left_out) = (decided.hosts(), decided.left_out);
    let Decided { policy, steps, planned, deadline, .. } = decided;
    let subjects: Vec<&str> = steps.iter().map(|step| step.shown.subject.as_str()).collect();
    let summary = subjects.join(", ");
    let audited = audited(&steps, &planned.plan);
    let reason = asked.reason.map(|reason| to_line(&reason, MAX_REASON));
    let new = NewOperation {
        id,
        tenant: permit.tenant(),
        request_digest: asked.digest,
        plan: planned.plan,
        steps: sealed(app.secrets(), id, steps)?,
        summary,
        targets: asked.on.clone(),
        policy,
        created_by: Some(permit.caller().user),
        created_by_name: permit.caller().name.to_string(),
        deadline,
        left_out,
        reason,
    };
    let mut tx = app.store().write().await?;
    if let Some(known) = repeated(&mut tx, permit, id, &asked.digest).await? {
        return Ok(known);
    }
    let number = match operation::insert(&mut tx, &new, now).await {
        Err(error @ StoreError::Conflict { .. }) => {
            // The same request, at the same moment, was faster.
            drop(tx);
            let mut conn = app.store().read().await?;
            return repeated(&mut conn, permit, id, &asked.digest).await?.ok_or(error.into());
        }
        number => number?,
    };
    run::insert(&mut tx, permit.tenant(), id, &rows, now).await?;
    let entry = Entry::new("operation.created", permit.actor(), format!("OP-{number}"))
        .tenant(permit.tenant())
        .with("id", id.to_string())
        .with("on", asked.on)
        .with("hosts", total)
        .with("left_out", left_out)
        .with("rollout", serde_json::to_value(policy).unwrap_or_default())
        .with("reason", new.reason)
        .with_all(audited);
    audit::record(&mut tx, entry, app.now()).await?;
    let created = operation::get(&mut tx, &scope, id).await?;
    tx.commit().await?;
    info!(operation = %id, number, hosts = total, runs = rows.len(), "operation.created");
    app.dispatcher().created(id);
    app.fleet().announce(FleetEvent::Operation { tenant: permit.tenant(), operation: id });
    Ok(created)
}

/// Operations that the caller may see, newest first.
///
/// # Errors
/// If the cursor is not from this list, or the store fails.
pub async fn list(
    app: &App,
    permit: &Permit<Read>,
    filter: &Filter,
    page: &PageRequest,
) -> Result<Page<Overview>, StoreError> {
    let (mut conn, scope) = (app.store().search().await?, permit.scope());
    let Page { items, next } = operation::list(&mut conn, &scope, filter, page).await?;
    Ok(Page { items: overviews(&mut conn, &scope, items).await?, next })
}

/// What is shown beside an operation that the caller may see.
///
/// # Errors
/// If the store fails.
pub async fn overview(
    app: &App,
    permit: &Permit<impl Need>,
    operation: Operation,
) -> Result<Overview, StoreError> {
    let (mut conn, scope) = (app.store().read().await?, permit.scope());
    let steps = step::list(&mut *conn, &scope, operation.id).await?;
    let counts = run::count(&mut *conn, &scope, operation.id).await?;
    Ok(Overview { operation, steps, counts })
}

async fn overviews(
    conn: &mut impl Reader,
    scope: &Scope,
    operations: Vec<Operation>,
) -> Result<Vec<Overview>, StoreError> {
    if operations.is_empty() {
        return Ok(Vec::new());
    }
    let ids: Vec<OperationId> = operations.iter().map(|operation| operation.id).collect();
    let mut counts = run::count_each(conn, scope, &ids).await?;
    let mut steps = step::list_each(conn, scope, &ids).await?;
    let overview = |operation: Operation| Overview {
        steps: steps.remove(&operation.id).unwrap_or_default(),
        counts: counts.remove(&operation.id).unwrap_or_default(),
        operation,
    };
    Ok(operations.into_iter().map(overview).collect())
}

/// One operation.
///
/// # Errors
/// [`OperationError::NotFound`] if the caller may see none so named.
pub async fn get(
    app: &App,
    permit: &Permit<impl Need>,
    reference: Reference,
) -> Result<Operation, OperationError> {
    let mut conn = app.store().read().await?;
    find(&mut conn, &permit.scope(), reference).await
}

/// Asks for an operation to be stopped: what has not started never will, what runs is told to stop.
///
/// # Errors
/// [`OperationError::NotStoppable`] if it has ended or was asked before.
pub async fn stop(
    app: &App,
    permit: &Permit<Run>,
    reference: Reference,
) -> Result<Operation, OperationError> {
    let now = app.now();
    let mut tx = app.store().write().await?;
    let found = find(&mut tx, &permit.scope(), reference).await?;
    let by = permit.caller().name.as_str();
    let seq = operation::update_stop_requested(&mut tx, found.id, by, now).await?;
    let Some(seq) = seq else {
        // Whoever asked before may not have heard that it was committed, and then nobody has told the dispatcher.
        if !found.status.is_final() {
            app.dispatcher().stop(found.id);
        }
        return Err(OperationError::NotStoppable);
    };
    let entry = Entry::new("operation.stopped", permit.actor(), format!("OP-{}", found.number))
        .tenant(found.tenant)
        .with("id", found.id.to_string());
    audit::record(&mut tx, entry, now).await?;
    let stopped = operation::get(&mut tx, &permit.scope(), found.id).await?;
    tx.commit().await?;
    app.continuity().note_committed(found.id, seq);
    app.live().announce(found.id, seq);
    app.dispatcher().stop(found.id);
    Ok(stopped)
}

fn meant(nearest: Option<&str>) -> String {
    nearest.map(|name| format!("; did you mean `{name}`?")).unwrap_or_default()
}

/// An id for whoever brings none.
pub(crate) fn made_id(now: Timestamp) -> OperationId {
    let millis = u64::try_from(now.as_millis()).unwrap_or(0);
    let random: [u8; 16] = *Uuid::new_v4().as_bytes();
    let [random @ .., _, _, _, _, _, _] = random;
    OperationId::from_uuid(uuid::Builder::from_unix_timestamp_millis(millis, &random).into_uuid())
}

/// The id that is asked for, or the plan's, or a new one.
fn id_of(asked: &Asked, submitted: Option<&Plan>, now: Timestamp) -> Result<OperationId, OperationError> {
    match (submitted, asked.id) {
        (Some(plan), Some(id)) if plan.operation != id => {
            Err(OperationError::PlanOfAnother { plan: plan.operation, asked: id })
        }
        (Some(plan), _) => Ok(plan.operation),
        (None, Some(id)) => Ok(id),
        (None, None) => Ok(made_id(now)),
    }
}

/// That a plan may be submitted now, by this person; since when it counts. Its bytes come from outside: all else is decided
/// again and compared.
fn check_plan(plan: &Plan, permit: &Permit<Run>, now: Timestamp) -> Result<Timestamp, OperationError> {
    let Plan { not_before, deadline, .. } = *plan;
    if plan.issuer.as_str() != permit.caller().name.as_str() {
        return Err(OperationError::PlanOfSomebodyElse(plan.issuer.clone()));
    }
    let is_now = now >= not_before && now < deadline && now.since(not_before) <= MAX_APART;
    if is_now { Ok(not_before) } else { Err(OperationError::PlanNotNow { not_before, deadline }) }
}

/// The id that an operation is to have.
fn check_id(id: OperationId, now: Timestamp) -> Result<(), OperationError> {
    let made = id.made_at().ok_or(OperationError::NoId(id))?;
    let apart = made.since(now).max(now.since(made));
    if apart > MAX_APART { Err(OperationError::Clock { id, apart }) } else { Ok(()) }
}

/// The operation that has this id already, if the same was asked for by the same person.
async fn repeated(
    conn: &mut Connection,
    permit: &Permit<Run>,
    id: OperationId,
    digest: &Digest,
) -> Result<Option<Operation>, OperationError> {
    let Some((tenant, by, asked)) = operation::find_request(conn, id).await? else { return Ok(None) };
    if tenant != permit.tenant() || by != Some(permit.caller().user) || asked != *digest {
        return Err(OperationError::IdTaken(id));
    }
    Ok(Some(operation::get(conn, &Scope::of(tenant), id).await?))
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
