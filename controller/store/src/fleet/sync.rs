//! The history of synchronisations of the inventory repository.

use fleetward_domain::fleet::inventory::Problem;
use fleetward_protocol::id::{SyncId, TenantId};
use fleetward_protocol::name::{HostName, ScriptName};
use fleetward_protocol::time::Timestamp;
use serde::{Deserialize, Serialize};

use crate::page::{Direction, Key, KeyKind, Page, PageRequest, cut, push_page, select_keys};
use crate::query::{Row, json, query, words};
use crate::{Connection, Reader, Scope, StoreError};

words! {
    /// How a synchronisation stands.
    SyncStatus {
        /// It is under way.
        Running = "running",
        /// The repository's inventory is in force.
        Succeeded = "succeeded",
        /// The last good inventory stays in force.
        Failed = "failed",
        /// The commit could be put in force, but takes so much away that a person has to accept it first. The last good
        /// inventory stays in force.
        Waiting = "waiting",
    }
}

/// One synchronisation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sync {
    /// Its id.
    pub id: SyncId,
    /// Whose inventory.
    pub tenant: TenantId,
    /// From where, without credentials.
    pub url: String,
    /// Which branch.
    pub branch: String,
    /// A user's name, or `interval`.
    pub triggered_by: String,
    /// How it stands.
    pub status: SyncStatus,
    /// When it began.
    pub started_at: Timestamp,
    /// When it ended.
    pub ended_at: Option<Timestamp>,
    /// The commit it read.
    pub commit: Option<String>,
    /// Why it failed, if the repository itself is the reason.
    pub failure: Option<String>,
    /// What stands against its files.
    pub problems: Vec<Problem>,
    /// What it read and changed.
    pub counts: Counts,
    /// What it would take away, while it waits.
    pub departures: Option<Departures>,
}

/// How a synchronisation ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    /// Anything but [`SyncStatus::Running`].
    pub status: SyncStatus,
    /// When.
    pub at: Timestamp,
    /// The commit it read, if it got that far.
    pub commit: Option<String>,
    /// Why it failed, if the repository itself is the reason.
    pub failure: Option<String>,
    /// What stands against its files.
    pub problems: Vec<Problem>,
    /// What it read and changed.
    pub counts: Counts,
    /// What it would take away, while it waits.
    pub departures: Option<Departures>,
}

/// What a commit takes away, if it is accepted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Departures {
    /// Hosts that are retired, or lose the identity they enrolled with.
    pub hosts: Leaving,
    /// Scripts that are retired.
    pub scripts: Leaving,
}

/// What leaves, of how many.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Leaving {
    /// The first names, in order; at most [`Leaving::MAX_NAMES`].
    pub names: Vec<String>,
    /// How many leave.
    pub count: u32,
    /// How many are in force.
    pub of: u32,
}

impl Departures {
    /// With the names in order, and how many there are in force.
    #[must_use]
    pub fn new(hosts: &[HostName], of_hosts: usize, scripts: &[ScriptName], of_scripts: usize) -> Self {
        Self { hosts: Leaving::new(hosts, of_hosts), scripts: Leaving::new(scripts, of_scripts) }
    }
}

impl Leaving {
    /// The most names that are kept; the counts are always whole.
    pub const MAX_NAMES: usize = 200;

    fn new<T: ToString>(names: &[T], of: usize) -> Self {
        let number = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        let first = names.iter().take(Self::MAX_NAMES).map(ToString::to_string).collect();
        Self { names: first, count: number(names.len()), of: number(of) }
    }
}

/// What a synchronisation read and changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Hosts in the repository.
    pub hosts: u32,
    /// Scripts in the repository.
    pub scripts: u32,
    /// What became of them.
    pub changes: Changes,
}

/// What a synchronisation changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Changes {
    /// Hosts that are new or back.
    pub hosts_added: u32,
    /// Hosts whose entry differs.
    pub hosts_changed: u32,
    /// Hosts that left.
    pub hosts_retired: u32,
    /// Scripts that are new or back.
    pub scripts_added: u32,
    /// Scripts whose entry or content differs.
    pub scripts_changed: u32,
    /// Scripts that left.
    pub scripts_retired: u32,
}

const COLUMNS: &str = "SELECT id, tenant_id, url, branch, triggered_by, status, started_at, ended_at, commit_id, \
   failure, problems, hosts, scripts, changes, departures";

const KEYS: [Key; 2] = [
    Key { expression: "number", kind: KeyKind::Integer, direction: Direction::Descending },
    Key { expression: "id", kind: KeyKind::Text, direction: Direction::Descending },
];

/// Notes the beginning of a synchronisation.
///
/// # Errors
/// [`StoreError::Conflict`] if there is no such tenant.
pub async fn insert(conn: &mut Connection, sync: &Sync) -> Result<(), StoreError> {
    query(
        "INSERT INTO sync (id, tenant_id, url, branch, triggered_by, status, started_at, number) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, (SELECT COALESCE(MAX(number), 0) + 1 FROM sync))",
    )
    .bind(sync.id)
    .bind(sync.tenant)
    .bind(&sync.url)
    .bind(&sync.branch)
    .bind(&sync.triggered_by)
    .bind(sync.status)
    .bind(sync.started_at)
    .run(conn)
    .await
    .map(|_| ())
}

/// Notes its end; whether it was still running.
///
/// # Errors
/// If the database fails.
pub async fn update_ended(conn: &mut Connection, id: SyncId, ended: &Ended) -> Result<bool, StoreError> {
    query(
        "UPDATE sync SET status = $2, ended_at = $3, commit_id = $4, problems = $5, hosts = $6, scripts = $7, \
         changes = $8, failure = $9, departures = $10 WHERE id = $1 AND status = 'running'",
    )
    .bind(id)
    .bind(ended.status)
    .bind(ended.at)
    .bind(ended.commit.as_ref())
    .bind(json(&ended.problems)?)
    .bind(ended.counts.hosts)
    .bind(ended.counts.scripts)
    .bind(json(&ended.counts.changes)?)
    .bind(ended.failure.as_ref())
    .bind(ended.departures.as_ref().map(json).transpose()?)
    .took(conn)
    .await
}

/// Ends what a controller that crashed left running; how many.
///
/// # Errors
/// If the database fails.
pub async fn update_abandoned(conn: &mut Connection, now: Timestamp) -> Result<u64, StoreError> {
    query("UPDATE sync SET status = 'failed', ended_at = $1, failure = $2 WHERE status = 'running'")
        .bind(now)
        .bind("the controller stopped during the synchronisation; nothing was changed")
        .run(conn)
        .await
}

/// The synchronisation of this id.
///
/// # Errors
/// [`StoreError::NotFound`] if there is none in scope.
pub async fn get(conn: &mut Connection, scope: &Scope, id: SyncId) -> Result<Sync, StoreError> {
    let found = query(COLUMNS)
        .push(" FROM sync WHERE id = ")
        .value(id)
        .push(" AND ")
        .scope("tenant_id", scope)
        .find(conn, read)
        .await?;
    found.ok_or(StoreError::NotFound { what: "the synchronisation" })
}

/// Synchronisations in scope, the last begun first, whatever the clock showed then.
///
/// # Errors
/// [`StoreError::InvalidCursor`] if the page's cursor is not from this list.
pub async fn list(
    conn: &mut impl Reader,
    scope: &Scope,
    page: &PageRequest,
) -> Result<Page<Sync>, StoreError> {
    let select = select_keys(query(COLUMNS), &KEYS).push(" FROM sync WHERE ").scope("tenant_id", scope);
    let rows = conn.rows(push_page(select, &KEYS, page)?).await?;
    cut(rows, &KEYS, page, read)
}

fn read(row: &Row) -> Result<Sync, StoreError> {
    Ok(Sync {
        id: row.get("id")?,
        tenant: row.get("tenant_id")?,
        url: row.get("url")?,
        branch: row.get("branch")?,
        triggered_by: row.get("triggered_by")?,
        status: row.get("status")?,
        started_at: row.get("started_at")?,
        ended_at: row.find("ended_at")?,
        commit: row.find("commit_id")?,
        failure: row.find("failure")?,
        problems: row.json("problems")?,
        counts: Counts {
            hosts: row.get("hosts")?,
            scripts: row.get("scripts")?,
            changes: row.json("changes")?,
        },
        departures: row.find_json("departures")?,
    })
}
