//! Hosts: the inventory, and what is known of each.
//!
//! A name is unique within its tenant and a client ID in the whole store, among active hosts: one that is retired
//! keeps both for its history and stands in nobody's way.
//! Labels stand twice, as JSON in the row to be shown and in `host_tag` to be searched by; one function writes
//! both.

use fleetward_domain::fleet::enrolment::Standing;
use fleetward_domain::fleet::twin::Twins;
use fleetward_protocol::client_id::ClientId;
use fleetward_protocol::facts::{Facts, Upkeep};
use fleetward_protocol::id::{BootId, HostId, JournalId, TenantId};
use fleetward_protocol::name::{HostName, Tag};
use fleetward_protocol::time::Timestamp;
use serde::{Deserialize, Serialize};

use crate::query::{OneOf, Row, query, words};
use crate::{Connection, Reader, Scope, StoreError};

mod declare;
mod departure;
mod facts;
mod list;
mod presence;

pub use declare::{insert, insert_all, update, update_all, update_nameless, update_source};
pub use departure::{delete, list_retired, update_retired};
pub use list::{Count, Declared, Filter, Sort, Target, all_declared, all_for_targets, count, list};
pub use presence::{
    Connected, Presence, has_facts, has_upkeep, list_twins, update_connected, update_facts, update_notice,
    update_offline, update_presence, update_twins, update_upkeep,
};

words! {
    /// Who declares a host.
    Source {
        /// The inventory repository.
        Git = "git",
        /// Somebody, through the API.
        Api = "api",
    }

    /// How far a host's enrolment got.
    Enrolment {
        /// No certificate was issued yet.
        Pending = "pending",
        /// It has a certificate and is trusted.
        Enrolled = "enrolled",
        /// It has a certificate and waits for approval.
        Quarantined = "quarantined",
        /// Its certificates are revoked.
        Revoked = "revoked",
    }

    /// Whether a host is part of the inventory.
    Lifecycle {
        /// It is.
        Active = "active",
        /// It was; its history stays.
        Retired = "retired",
    }

    /// Whether a host is connected, as far as it was written down.
    Status {
        /// Connected.
        Online = "online",
        /// Not connected.
        Offline = "offline",
    }
}

/// What the inventory says about a host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Declaration {
    /// Its name, unique within the tenant.
    pub name: HostName,
    /// Its identity towards the fleet.
    pub client_id: ClientId,
    /// What it is, such as `VPS`, `Proxmox` or `VM`.
    pub host_type: String,
    /// Who provides it; may be empty.
    pub provider: String,
    /// How it was reached by ssh, where the inventory says so.
    pub address: Option<String>,
    /// The ssh port.
    pub port: Option<u16>,
    /// The ssh user.
    pub login_user: Option<String>,
    /// The ssh key file's name.
    pub key_ref: Option<String>,
    /// The host to jump through.
    pub proxy_jump: Option<String>,
    /// Whether operations ask for it to be enrolled.
    pub enrolment_required: bool,
    /// Labels.
    pub tags: Vec<Tag>,
    /// Anything else.
    pub metadata: serde_json::Map<String, serde_json::Value>,
}

/// A host.
#[derive(Debug, Clone, PartialEq)]
pub struct Host {
    /// Its id.
    pub id: HostId,
    /// Whose it is.
    pub tenant: TenantId,
    /// What the inventory says.
    pub declared: Declaration,
    /// Who declares it.
    pub source: Source,
    /// How far its enrolment got.
    pub enrolment: Enrolment,
    /// Whether it is part of the inventory.
    pub lifecycle: Lifecycle,
    /// When it left the inventory.
    pub retired_at: Option<Timestamp>,
    /// Whether it is connected.
    pub status: Status,
    /// When it was last heard of.
    pub last_seen: Option<Timestamp>,
    /// Since when it is connected.
    pub connected_at: Option<Timestamp>,
    /// The round trip, in microseconds.
    pub rtt_us: Option<u64>,
    /// How far its clock is ahead of the controller's, in milliseconds.
    pub clock_skew_ms: Option<i64>,
    /// Its agent's version.
    pub agent_version: Option<String>,
    /// Its current boot.
    pub boot: Option<BootId>,
    /// Its journal's life.
    pub journal: Option<JournalId>,
    /// The kinds of action its agent knows.
    pub kinds: Vec<String>,
    /// What is true of it.
    pub facts: Option<Facts>,
    /// When that was reported.
    pub facts_at: Option<Timestamp>,
    /// What it needs, if it ever told.
    pub upkeep: Option<Upkeep>,
    /// What an operator should know, oldest first.
    pub notices: Vec<Notice>,
    /// Two machines that use its identity, or did: it is over some time after the last change.
    pub twins: Option<Twins>,
    /// When it was first declared.
    pub created_at: Timestamp,
    /// When its declaration last changed.
    pub updated_at: Timestamp,
}

/// Something an operator should know about a host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notice {
    /// When it was reported.
    pub at: Timestamp,
    /// One paragraph of plain text.
    pub text: String,
}

impl Host {
    /// How far it has come, as the domain decides by.
    #[must_use]
    pub const fn standing(&self) -> Standing {
        match (self.lifecycle, self.enrolment) {
            (Lifecycle::Retired, _) => Standing::Retired,
            (Lifecycle::Active, Enrolment::Pending) => Standing::Pending,
            (Lifecycle::Active, Enrolment::Enrolled) => Standing::Enrolled,
            (Lifecycle::Active, Enrolment::Quarantined) => Standing::Quarantined,
            (Lifecycle::Active, Enrolment::Revoked) => Standing::Revoked,
        }
    }
}

/// A host to be added.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewHost {
    /// Its id.
    pub id: HostId,
    /// Whose it is.
    pub tenant: TenantId,
    /// What the inventory says.
    pub declared: Declaration,
    /// Who declares it.
    pub source: Source,
    /// How far its enrolment is: [`Enrolment::Pending`] for one that is declared, [`Enrolment::Quarantined`]
    /// for one that enrolled by itself.
    pub enrolment: Enrolment,
}

const COLUMNS: &str = "SELECT h.id, h.tenant_id, h.name, h.client_id, h.type, h.provider, h.source, h.address, \
   h.port, h.login_user, h.key_ref, h.proxy_jump, h.metadata, h.tags, h.enrolment_required, h.enrolment, \
   h.lifecycle, h.retired_at, h.status, h.last_seen, h.connected_at, h.rtt_us, h.clock_skew_ms, \
   h.agent_version, h.boot_id, h.journal_id, h.kinds, h.facts, h.facts_at, h.upkeep, h.notices, h.twins, h.created_at, h.updated_at";
const LATEST: &str = "COALESCE(h.retired_at, 0) DESC, h.id DESC";
const FROM: &str = " FROM host h WHERE h.deleted_at IS NULL AND ";
/// The host of this name.
///
/// # Errors
/// [`StoreError::NotFound`] if there is none in scope.
pub async fn get(conn: &mut Connection, scope: &Scope, name: &HostName) -> Result<Host, StoreError> {
    find(conn, scope, name).await?.ok_or(StoreError::NotFound { what: "the host" })
}

/// The host of this name, or else of this id, if there is one in scope: the active one before those that were retired,
/// of these the latest. With several tenants in scope, the first by tenant id.
///
/// # Errors
/// If the database fails.
pub async fn find(conn: &mut Connection, scope: &Scope, name: &HostName) -> Result<Option<Host>, StoreError> {
    query(COLUMNS)
        .push(FROM)
        .push("(h.name = ")
        .value(name)
        .push(" OR h.id = ")
        .value(name)
        .push(") AND ")
        .scope("h.tenant_id", scope)
        .push(" ORDER BY CASE WHEN h.name = ")
        .value(name)
        .push(" THEN 0 ELSE 1 END, h.lifecycle, h.tenant_id, ")
        .push(LATEST)
        .push(" LIMIT 1")
        .find(conn, read)
        .await
}

/// The host of this id.
///
/// # Errors
/// [`StoreError::NotFound`] if there is none in scope.
pub async fn get_by_id(conn: &mut Connection, scope: &Scope, id: HostId) -> Result<Host, StoreError> {
    let found = query(COLUMNS)
        .push(FROM)
        .push("h.id = ")
        .value(id)
        .push(" AND ")
        .scope("h.tenant_id", scope)
        .find(conn, read)
        .await?;
    found.ok_or(StoreError::NotFound { what: "the host" })
}

/// The host with this client ID, if any: the active one before the latest that was retired. Who connects is not known
/// before, so there is no scope.
///
/// # Errors
/// If the database fails.
pub async fn find_by_client(conn: &mut Connection, client: &ClientId) -> Result<Option<Host>, StoreError> {
    query(COLUMNS)
        .push(FROM)
        .push("h.client_id = ")
        .value(client)
        .push(" ORDER BY h.lifecycle, ")
        .push(LATEST)
        .push(" LIMIT 1")
        .find(conn, read)
        .await
}

/// Those of these client IDs that active hosts of other tenants have.
///
/// # Errors
/// If the database fails.
pub async fn clients_elsewhere(
    conn: &mut Connection,
    tenant: TenantId,
    clients: &[&ClientId],
) -> Result<Vec<ClientId>, StoreError> {
    let engine = conn.engine();
    let mut found = Vec::new();
    for some in clients.chunks(1000) {
        let some: Vec<String> = some.iter().map(ToString::to_string).collect();
        let mut elsewhere = query("SELECT client_id FROM host WHERE deleted_at IS NULL AND lifecycle = 'active' AND tenant_id <> $1 AND client_id IN ")
            .bind(tenant)
            .one_of(engine, OneOf::Text, &some.into())
            .list_of(conn, |row| row.get("client_id"))
            .await?;
        found.append(&mut elsewhere);
    }
    Ok(found)
}

/// The active hosts whose agent has told which kinds it knows, and not this one.
///
/// # Errors
/// If the database fails.
pub async fn ignorant_of(
    conn: &mut impl Reader,
    scope: &Scope,
    kind: &str,
) -> Result<Vec<HostName>, StoreError> {
    // The names of kinds are plain words: there is nothing to escape, neither in JSON nor in a pattern.
    let quoted = format!("%\"{kind}\"%");
    let select = query("SELECT h.name FROM host h WHERE h.deleted_at IS NULL AND h.lifecycle = 'active' AND h.kinds <> '[]' AND h.kinds NOT LIKE ")
        .value(quoted)
        .push(" AND ")
        .scope("h.tenant_id", scope);
    conn.rows(select).await?.iter().map(|row| row.get("name")).collect()
}

/// Keeps a host as it is until the caller's transaction ends: what decides by its row, and by its certificates,
/// looks at them after this. Whether there is such a host.
///
/// # Errors
/// If the database fails.
pub async fn lock(conn: &mut Connection, id: HostId) -> Result<bool, StoreError> {
    // A write that changes nothing is the lock that both engines know.
    query("UPDATE host SET updated_at = updated_at WHERE id = $1 AND deleted_at IS NULL")
        .bind(id)
        .took(conn)
        .await
}

/// Moves a host's enrolment from one state to another; whether it was in the first. What was known of two machines
/// with its identity is over by it.
///
/// # Errors
/// If the database fails.
pub async fn update_enrolment(
    conn: &mut Connection,
    id: HostId,
    from: Enrolment,
    to: Enrolment,
    now: Timestamp,
) -> Result<bool, StoreError> {
    query(
        "UPDATE host SET enrolment = $3, updated_at = $4, twins = NULL \
         WHERE id = $1 AND enrolment = $2 AND deleted_at IS NULL",
    )
    .bind(id)
    .bind(from)
    .bind(to)
    .bind(now)
    .took(conn)
    .await
}

pub(crate) fn read(row: &Row) -> Result<Host, StoreError> {
    Ok(Host {
        id: row.get("id")?,
        tenant: row.get("tenant_id")?,
        declared: read_declaration(row)?,
        source: row.get("source")?,
        enrolment: row.get("enrolment")?,
        lifecycle: row.get("lifecycle")?,
        retired_at: row.find("retired_at")?,
        status: row.get("status")?,
        last_seen: row.find("last_seen")?,
        connected_at: row.find("connected_at")?,
        rtt_us: row.find("rtt_us")?,
        clock_skew_ms: row.find("clock_skew_ms")?,
        agent_version: row.find("agent_version")?,
        boot: row.find("boot_id")?,
        journal: row.find("journal_id")?,
        kinds: row.json("kinds")?,
        facts: row.find::<String>("facts")?.as_deref().and_then(facts::read),
        facts_at: row.find("facts_at")?,
        upkeep: row.find::<String>("upkeep")?.as_deref().and_then(facts::read_upkeep),
        notices: row.json("notices")?,
        twins: row.find_json("twins")?,
        created_at: row.get("created_at")?,
        updated_at: row.get("updated_at")?,
    })
}

fn read_declaration(row: &Row) -> Result<Declaration, StoreError> {
    Ok(Declaration {
        name: row.get("name")?,
        client_id: row.get("client_id")?,
        host_type: row.get("type")?,
        provider: row.get("provider")?,
        address: row.find("address")?,
        port: row.find("port")?,
        login_user: row.find("login_user")?,
        key_ref: row.find("key_ref")?,
        proxy_jump: row.find("proxy_jump")?,
        enrolment_required: row.get("enrolment_required")?,
        tags: row.json("tags")?,
        metadata: row.json("metadata")?,
    })
}
