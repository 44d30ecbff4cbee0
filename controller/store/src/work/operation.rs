//! Operations: one request each, with a number per tenant for people and a sequence for readers.
//!
//! `seq` counts the commits that touched the operation, its runs or their output; who has read up to `seq` asks
//! for what is above it. Numbers of runs are kept in the row by [`crate::work::batch`].

use std::collections::{BTreeMap, BTreeSet};

use fleetward_domain::work::operation::{OperationStatus, RolloutPolicy};
use fleetward_protocol::digest::Digest;
use fleetward_protocol::id::{OperationId, TenantId, UserId};
use fleetward_protocol::name::HostName;
use fleetward_protocol::time::Timestamp;

use crate::page::{Direction, Key, KeyKind, Page, PageRequest, cut, push_page, select_keys};
use crate::query::{Row, contains, json, query};
use crate::work::step::{self, NewStep};
use crate::{Connection, Reader, Scope, StoreError};

/// An operation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Operation {
    /// Its id.
    pub id: OperationId,
    /// Whose it is.
    pub tenant: TenantId,
    /// Its number within the tenant, from 1.
    pub number: u64,
    /// How many commits touched it so far.
    pub seq: u64,
    /// What to do, in one line for lists.
    pub summary: String,
    /// Where, as it was asked for.
    pub targets: String,
    /// How; or why this build cannot read what is stored of it, so that one row keeps no list from being read.
    pub policy: Result<RolloutPolicy, String>,
    /// How it stands.
    pub status: OperationStatus,
    /// Who asked for it; absent if the user was removed.
    pub created_by: Option<UserId>,
    /// Who asked for it, by name.
    pub created_by_name: String,
    /// When it was asked for.
    pub created_at: Timestamp,
    /// Nothing of it starts after this.
    pub deadline: Timestamp,
    /// How many hosts were left out because they are not enrolled.
    pub left_out: u32,
    /// Why, in the words of whoever asked.
    pub reason: Option<String>,
    /// When its first run was handed out.
    pub started_at: Option<Timestamp>,
    /// When its last run ended.
    pub ended_at: Option<Timestamp>,
    /// When somebody asked to stop it.
    pub stop_requested_at: Option<Timestamp>,
    /// Who asked to stop it, by name.
    pub stop_requested_by: Option<String>,
    /// When too many hosts had failed.
    pub halted_at: Option<Timestamp>,
    /// How many runs it has.
    pub runs: u64,
    /// How many of them succeeded.
    pub succeeded: u64,
    /// How many of them ended otherwise.
    pub failed: u64,
}

/// An operation to be added.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewOperation {
    /// Its id.
    pub id: OperationId,
    /// Whose it is.
    pub tenant: TenantId,
    /// The digest of what was asked.
    pub request_digest: Digest,
    /// The plan's canonical bytes.
    pub plan: Vec<u8>,
    /// What each host does.
    pub steps: Vec<NewStep>,
    /// What to do, in one line.
    pub summary: String,
    /// Where, as it was asked for.
    pub targets: String,
    /// How.
    pub policy: RolloutPolicy,
    /// Who asks.
    pub created_by: Option<UserId>,
    /// Who asks, by name.
    pub created_by_name: String,
    /// Nothing of it starts after this.
    pub deadline: Timestamp,
    /// How many hosts were left out because they are not enrolled.
    pub left_out: u32,
    /// Why, in the words of whoever asks.
    pub reason: Option<String>,
}

/// Which operations to list. What is absent does not narrow.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Filter {
    /// With one of these statuses; all if empty.
    pub statuses: Vec<OperationStatus>,
    /// With a step of this kind.
    pub kind: Option<String>,
    /// With a step in whose subject this is found, in any case.
    pub subject: Option<String>,
    /// With a run on the active host of this name, whatever it was called then; where no active host has it, with a run
    /// on a host that was called so.
    pub host: Option<HostName>,
    /// Asked for at this time or later.
    pub from: Option<Timestamp>,
    /// Asked for before this time.
    pub to: Option<Timestamp>,
}

const COLUMNS: &str = "SELECT o.id, o.tenant_id, o.number, o.seq, o.summary, o.targets, o.policy, \
   o.status, o.created_by, o.created_by_name, o.created_at, o.deadline, o.left_out, o.reason, o.started_at, o.ended_at, \
   o.stop_requested_at, o.stop_requested_by, o.halted_at, o.runs, o.succeeded, o.failed";
const FROM: &str = " FROM operation o WHERE ";

// P32: newest first. Ids are made by clients: of the same millisecond, the number tells which came first.
const KEYS: [Key; 3] = [
    Key { expression: "o.created_at", kind: KeyKind::Integer, direction: Direction::Descending },
    Key { expression: "o.number", kind: KeyKind::Integer, direction: Direction::Descending },
    Key { expression: "o.id", kind: KeyKind::Text, direction: Direction::Descending },
];

/// Adds an operation, `queued`, and returns its number. Its runs follow in the same transaction
/// ([`crate::work::run::insert`]).
///
/// # Errors
/// [`StoreError::NotFound`] if there is no such tenant.
pub async fn insert(
    conn: &mut Connection,
    operation: &NewOperation,
    now: Timestamp,
) -> Result<u64, StoreError> {
    let row =
        query("UPDATE tenant SET next_operation = next_operation + 1 WHERE id = $1 RETURNING next_operation")
            .bind(operation.tenant)
            .first(conn)
            .await?
            .ok_or(StoreError::NotFound { what: "the tenant" })?;
    let number = row.get::<u64>("next_operation")?.saturating_sub(1);
    query(
        "INSERT INTO operation (id, tenant_id, number, seq, summary, targets, policy, status, created_by, \
         created_by_name, created_at, deadline, request_digest, plan, left_out, reason) \
         VALUES ($1, $2, $3, 1, $4, $5, $6, 'queued', $7, $8, $9, $10, $11, $12, $13, $14)",
    )
    .bind(operation.id)
    .bind(operation.tenant)
    .bind(number)
    .bind(&operation.summary)
    .bind(&operation.targets)
    .bind(json(&operation.policy)?)
    .bind(operation.created_by)
    .bind(&operation.created_by_name)
    .bind(now)
    .bind(operation.deadline)
    .bind(operation.request_digest)
    .bind(operation.plan.as_slice())
    .bind(operation.left_out)
    .bind(operation.reason.as_deref())
    .run(conn)
    .await?;
    step::insert(conn, operation.id, &operation.steps).await?;
    Ok(number)
}

/// The operation of this id.
///
/// # Errors
/// [`StoreError::NotFound`] if there is none in scope.
pub async fn get(conn: &mut Connection, scope: &Scope, id: OperationId) -> Result<Operation, StoreError> {
    let found = query(COLUMNS)
        .push(FROM)
        .push("o.id = ")
        .value(id)
        .push(" AND ")
        .scope("o.tenant_id", scope)
        .find(conn, read)
        .await?;
    found.ok_or(StoreError::NotFound { what: "the operation" })
}

/// The canonical bytes of an operation's plan.
///
/// # Errors
/// [`StoreError::NotFound`] if there is no such operation.
pub async fn get_plan(conn: &mut Connection, id: OperationId) -> Result<Vec<u8>, StoreError> {
    let plan = query("SELECT plan FROM operation WHERE id = $1").bind(id).find(conn, |row| row.get("plan"));
    plan.await?.ok_or(StoreError::NotFound { what: "the operation" })
}

/// An operation of this id, whosever it is: whose, who asked for it, and the digest of what was asked.
///
/// # Errors
/// If the database fails.
pub async fn find_request(
    conn: &mut Connection,
    id: OperationId,
) -> Result<Option<(TenantId, Option<UserId>, Digest)>, StoreError> {
    query("SELECT tenant_id, created_by, request_digest FROM operation WHERE id = $1")
        .bind(id)
        .find(conn, |row| Ok((row.get("tenant_id")?, row.find("created_by")?, row.get("request_digest")?)))
        .await
}

/// The operation of this number, if there is one in scope. With several tenants in scope, the first by
/// tenant id.
///
/// # Errors
/// If the database fails.
pub async fn find_by_number(
    conn: &mut Connection,
    scope: &Scope,
    number: u64,
) -> Result<Option<Operation>, StoreError> {
    query(COLUMNS)
        .push(FROM)
        .push("o.number = ")
        .value(number)
        .push(" AND ")
        .scope("o.tenant_id", scope)
        .push(" ORDER BY o.tenant_id LIMIT 1")
        .find(conn, read)
        .await
}

/// Operations in scope that pass the filter (P34), newest first (P32).
///
/// # Errors
/// [`StoreError::InvalidCursor`] if the page's cursor is not from this list.
pub async fn list(
    conn: &mut impl Reader,
    scope: &Scope,
    filter: &Filter,
    page: &PageRequest,
) -> Result<Page<Operation>, StoreError> {
    let mut select = select_keys(query(COLUMNS), &KEYS).push(FROM).scope("o.tenant_id", scope);
    if !filter.statuses.is_empty() {
        select = select.push(" AND o.status IN ").list(filter.statuses.iter());
    }
    if filter.kind.is_some() || filter.subject.is_some() {
        select = select.push(" AND EXISTS (SELECT 1 FROM operation_step s WHERE s.operation_id = o.id");
        if let Some(kind) = &filter.kind {
            select = select.push(" AND s.kind = ").value(kind);
        }
        if let Some(subject) = &filter.subject {
            select = select.push(" AND lower(s.subject) LIKE ").value(contains(subject)).push(" ESCAPE '!'");
        }
        select = select.push(")");
    }
    if let Some(host) = &filter.host {
        let named = "(SELECT h.id FROM host h WHERE h.tenant_id = o.tenant_id AND h.lifecycle = 'active' \
                      AND h.deleted_at IS NULL AND h.name = ";
        select = select
            .push(" AND EXISTS (SELECT 1 FROM run r WHERE r.operation_id = o.id AND (r.host_id IN ")
            .push(named)
            .value(host)
            .push(") OR r.host_name = ")
            .value(host)
            .push(" AND NOT EXISTS ")
            .push(named)
            .value(host)
            .push(")))");
    }
    if let Some(from) = filter.from {
        select = select.push(" AND o.created_at >= ").value(from);
    }
    if let Some(to) = filter.to {
        select = select.push(" AND o.created_at < ").value(to);
    }
    let rows = conn.rows(push_page(select, &KEYS, page)?).await?;
    cut(rows, &KEYS, page, read)
}

/// What is looked at of an operation that has not ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unfinished {
    /// Its id.
    pub id: OperationId,
    /// How many commits touched it so far.
    pub seq: u64,
    /// Whether somebody asked to stop it.
    pub stop_requested: bool,
}

/// The operations that have not ended, oldest first: what a controller takes up when it starts, and looks at as long as it lives.
///
/// # Errors
/// If the database fails.
pub async fn list_unfinished_ids(conn: &mut Connection) -> Result<Vec<Unfinished>, StoreError> {
    let unfinished = query(
        "SELECT id, seq, stop_requested_at FROM operation WHERE status IN ('queued', 'running') ORDER BY created_at, id",
    );
    let read = |row: &Row| {
        let stop_requested = row.find::<Timestamp>("stop_requested_at")?.is_some();
        Ok(Unfinished { id: row.get("id")?, seq: row.get("seq")?, stop_requested })
    };
    unfinished.list_of(conn, read).await
}

/// The seqs of these operations, whatever their status; those that are not there have none.
///
/// # Errors
/// If the database fails.
pub async fn list_seqs(
    conn: &mut Connection,
    ids: &[OperationId],
) -> Result<BTreeMap<OperationId, u64>, StoreError> {
    let mut seqs = BTreeMap::new();
    for batch in ids.chunks(500) {
        let found = query("SELECT id, seq FROM operation WHERE id IN ").list(batch.iter()).once();
        let read = |row: &Row| Ok((row.get::<OperationId>("id")?, row.get::<u64>("seq")?));
        seqs.extend(found.list_of(conn, read).await?);
    }
    Ok(seqs)
}

/// Moves an operation from one status to another and takes the next seq; `None` if it was not in the first. A final status is
/// taken from any that is not: whoever decides the end may have missed that it began.
/// `started_at` and `ended_at` are set when it leaves `queued` and when it reaches a final status.
///
/// # Errors
/// If the database fails.
pub async fn update_status(
    conn: &mut Connection,
    id: OperationId,
    from: OperationStatus,
    to: OperationStatus,
    now: Timestamp,
) -> Result<Option<u64>, StoreError> {
    let started = (to != OperationStatus::Queued).then_some(now);
    let other = match (to.is_final(), from) {
        (true, OperationStatus::Queued) => OperationStatus::Running,
        (true, OperationStatus::Running) => OperationStatus::Queued,
        _ => from,
    };
    query(
        "UPDATE operation SET status = $3, seq = seq + 1, started_at = COALESCE(started_at, $4), \
         ended_at = $5 WHERE id = $1 AND status IN ($2, $6) RETURNING seq",
    )
    .bind(id)
    .bind(from)
    .bind(to)
    .bind(started)
    .bind(to.is_final().then_some(now))
    .bind(other)
    .find(conn, |row| row.get("seq"))
    .await
}

/// Notes that somebody asked to stop an operation, and takes the next seq; `None` if it has ended, or somebody
/// asked before.
///
/// # Errors
/// If the database fails.
pub async fn update_stop_requested(
    conn: &mut Connection,
    id: OperationId,
    by: &str,
    now: Timestamp,
) -> Result<Option<u64>, StoreError> {
    query(
        "UPDATE operation SET stop_requested_at = $2, stop_requested_by = $3, seq = seq + 1 \
         WHERE id = $1 AND stop_requested_at IS NULL AND status IN ('queued', 'running') RETURNING seq",
    )
    .bind(id)
    .bind(now)
    .bind(by)
    .find(conn, |row| row.get("seq"))
    .await
}

/// Notes that too many hosts failed, and takes the next seq; `None` if that was noted before.
///
/// # Errors
/// If the database fails.
pub async fn update_halted(
    conn: &mut Connection,
    id: OperationId,
    now: Timestamp,
) -> Result<Option<u64>, StoreError> {
    query("UPDATE operation SET halted_at = $2, seq = seq + 1 WHERE id = $1 AND halted_at IS NULL RETURNING seq")
        .bind(id)
        .bind(now)
        .find(conn, |row| row.get("seq"))
        .await
}

/// Ended operations that ended before `before`, oldest first: what retention may remove.
///
/// # Errors
/// If the database fails.
pub async fn list_ended_before(
    conn: &mut Connection,
    before: Timestamp,
    limit: u32,
) -> Result<Vec<OperationId>, StoreError> {
    query("SELECT id FROM operation WHERE ended_at IS NOT NULL AND ended_at < $1 ORDER BY ended_at, id LIMIT $2")
        .bind(before)
        .bind(limit)
        .list_of(conn, |row| row.get("id"))
        .await
}

/// Removes an ended operation and its runs. Its output goes first, in small batches
/// ([`crate::work::output::delete`]). Whether it was removed.
///
/// # Errors
/// If the database fails.
pub async fn delete(conn: &mut Connection, id: OperationId) -> Result<bool, StoreError> {
    query(
        "DELETE FROM run WHERE operation_id = $1 AND EXISTS \
         (SELECT 1 FROM operation o WHERE o.id = $1 AND o.ended_at IS NOT NULL)",
    )
    .bind(id)
    .run(conn)
    .await?;
    query("DELETE FROM operation WHERE id = $1 AND ended_at IS NOT NULL").bind(id).took(conn).await
}

/// Which of these operations there are, of whatever tenant: for what is kept of operations elsewhere.
///
/// # Errors
/// If the database fails.
pub(crate) async fn list_known(
    conn: &mut Connection,
    ids: &[OperationId],
) -> Result<BTreeSet<OperationId>, StoreError> {
    let found = query("SELECT id FROM operation WHERE id IN ")
        .list(ids.iter())
        .once()
        .list_of(conn, |row| row.get("id"));
    Ok(found.await?.into_iter().collect())
}

fn read(row: &Row) -> Result<Operation, StoreError> {
    Ok(Operation {
        id: row.get("id")?,
        tenant: row.get("tenant_id")?,
        number: row.get("number")?,
        seq: row.get("seq")?,
        summary: row.get("summary")?,
        targets: row.get("targets")?,
        policy: serde_json::from_str(&row.get::<String>("policy")?).map_err(|error| error.to_string()),
        status: row.get("status")?,
        created_by: row.find("created_by")?,
        created_by_name: row.get("created_by_name")?,
        created_at: row.get("created_at")?,
        deadline: row.get("deadline")?,
        left_out: row.get("left_out")?,
        reason: row.find("reason")?,
        started_at: row.find("started_at")?,
        ended_at: row.find("ended_at")?,
        stop_requested_at: row.find("stop_requested_at")?,
        stop_requested_by: row.find("stop_requested_by")?,
        halted_at: row.find("halted_at")?,
        runs: row.get("runs")?,
        succeeded: row.get("succeeded")?,
        failed: row.get("failed")?,
    })
}
