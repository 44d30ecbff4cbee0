//! Runs: one execution of one action on one host each.
//!
//! The state is the domain's; here it stands as its status (to filter and count by) and as its whole value. It
//! changes by compare-and-set only, through [`crate::work::batch`], which also gives the change its seq.

use std::collections::HashMap;
use std::sync::Arc;

use fleetward_domain::work::operation::RunCounts;
use fleetward_domain::work::run::{Failure, RunState, RunStatus};
use fleetward_protocol::client_id::ClientId;
use fleetward_protocol::id::{HostId, OperationId, RunId, TenantId};
use fleetward_protocol::name::HostName;
use fleetward_protocol::run::Left;
use fleetward_protocol::time::Timestamp;

use crate::page::{Direction, Key, KeyKind, Page, PageRequest, cut, push_page, select_keys};
use crate::query::{Row, query};
use crate::work::state;
use crate::{Connection, Reader, Scope, StoreError};

/// A run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    /// Its id.
    pub id: RunId,
    /// Whose it is.
    pub tenant: TenantId,
    /// The operation it belongs to.
    pub operation: OperationId,
    /// The host.
    pub host: HostId,
    /// The host's name when the operation was planned.
    pub host_name: HostName,
    /// The host's client ID when the operation was planned.
    pub client_id: ClientId,
    /// The host's place in the operation's order, from 0.
    pub position: u32,
    /// Which of the operation's steps, from 0.
    pub step: u32,
    /// Where it stands.
    pub state: RunState,
    /// When it was planned.
    pub queued_at: Timestamp,
    /// When it was handed to its host.
    pub dispatched_at: Option<Timestamp>,
    /// When the host had it durably.
    pub accepted_at: Option<Timestamp>,
    /// When it started.
    pub started_at: Option<Timestamp>,
    /// When it ended.
    pub ended_at: Option<Timestamp>,
    /// How long it took on the host's clock, in milliseconds.
    pub duration_ms: Option<u64>,
    /// What its process left running, if that held its output open.
    pub left: Option<Left>,
    /// How often a stream was opened for it again, after the first.
    pub attached: u32,
    /// Where its output log ends, in bytes.
    pub output_end: u64,
    /// How many bytes of output are kept, both streams together.
    pub output_bytes: u64,
    /// How many bytes of output are known to be missing.
    pub output_lost: u64,
    /// The operation's seq at its last change of state.
    pub seq: u64,
}

/// A run to be added, `queued`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewRun {
    /// Its id.
    pub id: RunId,
    /// The host.
    pub host: HostId,
    /// The host's name.
    pub host_name: HostName,
    /// The host's client ID.
    pub client_id: ClientId,
    /// The host's place in the operation's order, from 0.
    pub position: u32,
    /// Which of the operation's steps, from 0.
    pub step: u32,
    /// Why the plan means this host, encoded.
    pub proof: Arc<[u8]>,
}

const COLUMNS: &str = "SELECT r.id, r.tenant_id, r.operation_id, r.host_id, r.host_name, r.client_id, r.position, \
   r.step, r.detail, r.queued_at, r.dispatched_at, r.accepted_at, r.started_at, r.ended_at, \
   r.duration_ms, r.left_running, r.attached, r.output_end, r.output_bytes, r.output_lost, r.seq";
const FROM: &str = " FROM run r WHERE ";

const KEYS: [Key; 3] = [
    Key { expression: "r.position", kind: KeyKind::Integer, direction: Direction::Ascending },
    Key { expression: "r.step", kind: KeyKind::Integer, direction: Direction::Ascending },
    Key { expression: "r.id", kind: KeyKind::Text, direction: Direction::Ascending },
];

// 13 columns: far below SQLite's 32,766 parameters, and the text of a full batch is always the same.
const INSERT_BATCH: usize = 200;

/// Adds an operation's runs, all `queued`, in the transaction that added the operation.
///
/// # Errors
/// [`StoreError::Conflict`] if the operation or a host does not exist.
pub async fn insert(
    conn: &mut Connection,
    tenant: TenantId,
    operation: OperationId,
    runs: &[NewRun],
    now: Timestamp,
) -> Result<(), StoreError> {
    let queued = state::write(&RunState::Queued);
    for batch in runs.chunks(INSERT_BATCH) {
        let mut insert = query(
            "INSERT INTO run (id, tenant_id, operation_id, host_id, host_name, client_id, position, step, proof, \
             state, detail, queued_at, seq) VALUES ",
        );
        for (at, run) in batch.iter().enumerate() {
            insert = insert
                .push(if at == 0 { "" } else { ", " })
                .push("(")
                .value(run.id)
                .push(", ")
                .value(tenant)
                .push(", ")
                .value(operation)
                .push(", ")
                .value(run.host)
                .push(", ")
                .value(&run.host_name)
                .push(", ")
                .value(&run.client_id)
                .push(", ")
                .value(run.position)
                .push(", ")
                .value(run.step)
                .push(", ")
                .value(&*run.proof)
                .push(", 'queued', ")
                .value(&queued)
                .push(", ")
                .value(now)
                .push(", 1)");
        }
        if batch.len() < INSERT_BATCH {
            insert = insert.once();
        }
        insert.run(conn).await?;
    }
    query("UPDATE operation SET runs = runs + $2 WHERE id = $1")
        .bind(operation)
        .bind(runs.len() as u64)
        .run(conn)
        .await
        .map(|_| ())
}

/// The run of this id.
///
/// # Errors
/// [`StoreError::NotFound`] if there is none in scope.
pub async fn get(conn: &mut Connection, scope: &Scope, id: RunId) -> Result<Run, StoreError> {
    let found = query(COLUMNS)
        .push(FROM)
        .push("r.id = ")
        .value(id)
        .push(" AND ")
        .scope("r.tenant_id", scope)
        .find(conn, read)
        .await?;
    found.ok_or(StoreError::NotFound { what: "the run" })
}

/// An operation's runs in its own order; all states if `states` is empty.
///
/// # Errors
/// [`StoreError::InvalidCursor`] if the page's cursor is not from this list.
pub async fn list(
    conn: &mut impl Reader,
    scope: &Scope,
    operation: OperationId,
    states: &[RunStatus],
    host: Option<&HostName>,
    page: &PageRequest,
) -> Result<Page<Run>, StoreError> {
    let mut select = select_keys(query(COLUMNS), &KEYS)
        .push(FROM)
        .push("r.operation_id = ")
        .value(operation)
        .push(" AND ")
        .scope("r.tenant_id", scope);
    if !states.is_empty() {
        select = select.push(" AND r.state IN ").list(states.iter());
    }
    if let Some(host) = host {
        select = select.push(" AND r.host_name = ").value(host);
    }
    let rows = conn.rows(push_page(select, &KEYS, page)?).await?;
    cut(rows, &KEYS, page, read)
}

/// Every run of an operation in its own order: what its rollout is made of.
///
/// # Errors
/// If the database fails.
pub async fn list_all(conn: &mut Connection, operation: OperationId) -> Result<Vec<Run>, StoreError> {
    query(COLUMNS)
        .push(FROM)
        .push("r.operation_id = ")
        .value(operation)
        .push(" ORDER BY r.position, r.step")
        .list_of(conn, read)
        .await
}

/// The operation's runs that changed after `since`, in the order of their change: what a live view shows. At
/// most `limit`, but never only some of one seq.
///
/// # Errors
/// If the database fails.
pub async fn list_since(
    conn: &mut Connection,
    scope: &Scope,
    operation: OperationId,
    since: u64,
    limit: u32,
) -> Result<Vec<Run>, StoreError> {
    query(COLUMNS)
        .push(FROM)
        .push("r.operation_id = ")
        .value(operation)
        .push(" AND r.seq > ")
        .value(since)
        .push(" AND r.seq <= COALESCE((SELECT b.seq FROM run b WHERE b.operation_id = ")
        .value(operation)
        .push(" AND b.seq > ")
        .value(since)
        .push(" ORDER BY b.seq LIMIT 1 OFFSET ")
        .value(limit.saturating_sub(1))
        .push("), 9223372036854775807) AND ")
        .scope("r.tenant_id", scope)
        .push(" ORDER BY r.seq, r.position, r.step")
        .list_of(conn, read)
        .await
}

/// The operation's runs that ended after `since`, and how: what its dispatcher may have missed.
///
/// # Errors
/// If the database fails.
pub async fn list_ended_since(
    conn: &mut Connection,
    operation: OperationId,
    since: u64,
) -> Result<Vec<(RunId, RunState)>, StoreError> {
    query(
        "SELECT id, detail FROM run WHERE operation_id = $1 AND seq > $2 \
         AND state NOT IN ('queued', 'dispatched', 'accepted', 'running')",
    )
    .bind(operation)
    .bind(since)
    .list_of(conn, |row| Ok((row.get("id")?, read_state(row)?)))
    .await
}

/// A run that a host may have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// The run.
    pub run: Run,
    /// Whether somebody asked to stop its operation.
    pub stop_requested: bool,
}

/// The runs that a host may have: handed out, and not ended. What a controller opens streams for when the host
/// connects.
///
/// # Errors
/// If the database fails.
pub async fn list_held(conn: &mut Connection, host: HostId) -> Result<Vec<Held>, StoreError> {
    query(COLUMNS)
        .push(", o.stop_requested_at FROM run r JOIN operation o ON o.id = r.operation_id WHERE r.host_id = ")
        .value(host)
        .push(" AND r.state IN ('dispatched', 'accepted', 'running') ORDER BY r.queued_at, r.position, r.step, r.id")
        .list_of(conn, |row| {
            let stop_requested = row.find::<Timestamp>("stop_requested_at")?.is_some();
            Ok(Held { run: read(row)?, stop_requested })
        })
        .await
}

/// Why the plan means the host of this run, encoded.
///
/// # Errors
/// [`StoreError::NotFound`] if there is no such run.
pub async fn get_proof(conn: &mut Connection, run: RunId) -> Result<Vec<u8>, StoreError> {
    let found = query("SELECT proof FROM run WHERE id = $1").bind(run).find(conn, |row| row.get("proof"));
    found.await?.ok_or(StoreError::NotFound { what: "the run" })
}

/// The proofs of an operation's runs that were not handed out.
///
/// # Errors
/// If the database fails.
pub async fn list_proofs(
    conn: &mut Connection,
    operation: OperationId,
) -> Result<HashMap<RunId, Vec<u8>>, StoreError> {
    let found = query("SELECT id, proof FROM run WHERE operation_id = $1 AND state = 'queued'")
        .bind(operation)
        .list_of(conn, |row| Ok((row.get("id")?, row.get("proof")?)));
    Ok(found.await?.into_iter().collect())
}

/// What is known of a run that a host says it has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Known {
    /// The run.
    pub run: RunId,
    /// Its operation.
    pub operation: OperationId,
    /// Its host.
    pub host: HostId,
    /// Where it stands.
    pub status: RunStatus,
    /// Whether it was ever handed to its host.
    pub handed_out: bool,
}

/// Those of `runs` that are known, of whatever tenant and host.
///
/// # Errors
/// If the database fails.
pub async fn list_known(conn: &mut Connection, runs: &[RunId]) -> Result<HashMap<RunId, Known>, StoreError> {
    let mut known = HashMap::with_capacity(runs.len());
    for batch in runs.chunks(500) {
        let found = query("SELECT id, operation_id, host_id, state, dispatched_at FROM run WHERE id IN ")
            .list(batch.iter())
            .once()
            .list_of(conn, |row| {
                let (run, operation) = (row.get("id")?, row.get("operation_id")?);
                let handed_out = row.find::<Timestamp>("dispatched_at")?.is_some();
                Ok(Known { run, operation, host: row.get("host_id")?, status: read_status(row)?, handed_out })
            });
        known.extend(found.await?.into_iter().map(|known| (known.run, known)));
    }
    Ok(known)
}

/// How many runs an operation has in each state.
///
/// # Errors
/// If the database fails.
pub async fn count(
    conn: &mut impl Reader,
    scope: &Scope,
    operation: OperationId,
) -> Result<RunCounts, StoreError> {
    Ok(count_each(conn, scope, &[operation]).await?.remove(&operation).unwrap_or_default())
}

/// How many runs each of these operations has in each state; those without runs in scope are left out.
///
/// # Errors
/// If the database fails.
pub async fn count_each(
    conn: &mut impl Reader,
    scope: &Scope,
    operations: &[OperationId],
) -> Result<HashMap<OperationId, RunCounts>, StoreError> {
    let mut counts: HashMap<OperationId, RunCounts> = HashMap::new();
    let select =
        query("SELECT r.operation_id, r.state, COUNT(*) AS runs FROM run r WHERE r.operation_id IN ")
            .list(operations.iter())
            .push(" AND ")
            .scope("r.tenant_id", scope)
            .push(" GROUP BY r.operation_id, r.state");
    // The text for one operation comes again and again; it need not be parsed each time.
    let select = if operations.len() == 1 { select } else { select.once() };
    for row in conn.rows(select).await? {
        counts.entry(row.get("operation_id")?).or_default().add(read_status(&row)?, row.get("runs")?);
    }
    Ok(counts)
}

/// The exit code that a state tells of, for the column that is filtered by.
pub(crate) const fn exit_code(state: &RunState) -> Option<i32> {
    match state {
        RunState::Succeeded => Some(0),
        RunState::Failed(Failure::Exit(code)) => Some(*code),
        _ => None,
    }
}

fn read_status(row: &Row) -> Result<RunStatus, StoreError> {
    Ok(state::read_status(&row.get::<String>("state")?))
}

pub(crate) fn read_state(row: &Row) -> Result<RunState, StoreError> {
    Ok(state::read(&row.get::<String>("detail")?))
}

fn read(row: &Row) -> Result<Run, StoreError> {
    Ok(Run {
        id: row.get("id")?,
        tenant: row.get("tenant_id")?,
        operation: row.get("operation_id")?,
        host: row.get("host_id")?,
        host_name: row.get("host_name")?,
        client_id: row.get("client_id")?,
        position: row.get("position")?,
        step: row.get("step")?,
        state: read_state(row)?,
        queued_at: row.get("queued_at")?,
        dispatched_at: row.find("dispatched_at")?,
        accepted_at: row.find("accepted_at")?,
        started_at: row.find("started_at")?,
        ended_at: row.find("ended_at")?,
        duration_ms: row.find("duration_ms")?,
        left: row.find::<String>("left_running")?.as_deref().and_then(state::read_left),
        attached: row.get("attached")?,
        output_end: row.get("output_end")?,
        output_bytes: row.get("output_bytes")?,
        output_lost: row.get("output_lost")?,
        seq: row.get("seq")?,
    })
}
