//! Lists of hosts: pages for people, counts, and the light rows that targets are chosen from.

use fleetward_protocol::client_id::ClientId;
use fleetward_protocol::facts::{Facts, Upkeep};
use fleetward_protocol::id::{HostId, TenantId};
use fleetward_protocol::name::{HostName, Tag};

use super::{COLUMNS, Declaration, Enrolment, FROM, Host, Lifecycle, Source, Status, read, read_declaration};
use crate::page::{Direction, Key, KeyKind, Page, PageRequest, cut, push_page, select_keys};
use crate::query::{Query, Row, contains, query, words};
use crate::{Connection, Reader, Scope, StoreError};

words! {
    /// What a list of hosts is sorted by.
    Sort {
        /// The name.
        Name = "name",
        /// The type.
        Type = "type",
        /// The provider.
        Provider = "provider",
        /// Connected or not.
        Status = "status",
        /// The enrolment.
        Enrolment = "enrolment",
        /// The time it was last heard of; never is earliest.
        LastSeen = "last-seen",
        /// The round trip; unknown is shortest.
        Latency = "latency",
        /// The operating system.
        Os = "os",
        /// The agent's version.
        AgentVersion = "agent-version",
        /// The time it was first declared.
        Created = "created",
    }
}

/// Which hosts to list. What is absent does not narrow.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Filter {
    /// Of this type.
    pub host_type: Option<String>,
    /// Connected or not.
    pub status: Option<Status>,
    /// With this enrolment.
    pub enrolment: Option<Enrolment>,
    /// Active or retired; both if absent.
    pub lifecycle: Option<Lifecycle>,
    /// With all of these labels.
    pub tags: Vec<Tag>,
    /// With this text in name, provider, address or operating system, whatever its case (ASCII).
    pub text: Option<String>,
}

/// How many hosts are what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Count {
    /// Their lifecycle.
    pub lifecycle: Lifecycle,
    /// Their enrolment.
    pub enrolment: Enrolment,
    /// Connected or not.
    pub status: Status,
    /// How many.
    pub hosts: u64,
}

/// What targets are chosen by.
#[derive(Debug, Clone, PartialEq)]
pub struct Target {
    /// The host.
    pub id: HostId,
    /// Whose it is.
    pub tenant: TenantId,
    /// Its name.
    pub name: HostName,
    /// Its identity towards the fleet.
    pub client_id: ClientId,
    /// What it is.
    pub host_type: String,
    /// Who provides it.
    pub provider: String,
    /// Labels.
    pub tags: Vec<Tag>,
    /// Connected or not.
    pub status: Status,
    /// Whether it is part of the inventory.
    pub lifecycle: Lifecycle,
    /// How far its enrolment got.
    pub enrolment: Enrolment,
    /// Whether operations ask for it to be enrolled.
    pub enrolment_required: bool,
    /// What is true of it, if it ever reported.
    pub facts: Option<Facts>,
    /// What it needs, if it ever told.
    pub upkeep: Option<Upkeep>,
}

/// What the inventory says of a host, and how it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Declared {
    /// The host.
    pub id: HostId,
    /// What the inventory says.
    pub declared: Declaration,
    /// Who declares it.
    pub source: Source,
    /// How far its enrolment got.
    pub enrolment: Enrolment,
    /// Whether it is part of the inventory.
    pub lifecycle: Lifecycle,
}

/// Hosts in scope that pass the filter (P9), sorted, ties broken by id (P10).
///
/// # Errors
/// [`StoreError::InvalidCursor`] if the page's cursor is not from a list sorted so.
pub async fn list(
    conn: &mut impl Reader,
    scope: &Scope,
    filter: &Filter,
    sort: (Sort, Direction),
    page: &PageRequest,
) -> Result<Page<Host>, StoreError> {
    let keys = keys(sort);
    let select = select_keys(query(COLUMNS), &keys).push(FROM).scope("h.tenant_id", scope);
    let rows = conn.rows(push_page(narrow(select, filter), &keys, page)?).await?;
    cut(rows, &keys, page, read)
}

/// How many hosts in scope are what.
///
/// # Errors
/// If the database fails.
pub async fn count(conn: &mut Connection, scope: &Scope) -> Result<Vec<Count>, StoreError> {
    query("SELECT h.lifecycle, h.enrolment, h.status, COUNT(*) AS hosts")
        .push(FROM)
        .scope("h.tenant_id", scope)
        .push(" GROUP BY h.lifecycle, h.enrolment, h.status")
        .list_of(conn, |row| {
            Ok(Count {
                lifecycle: row.get("lifecycle")?,
                enrolment: row.get("enrolment")?,
                status: row.get("status")?,
                hosts: row.get("hosts")?,
            })
        })
        .await
}

/// Every active host in scope, by name, with what targets are chosen by.
///
/// # Errors
/// If the database fails.
pub async fn all_for_targets(conn: &mut impl Reader, scope: &Scope) -> Result<Vec<Target>, StoreError> {
    let select = query(
        "SELECT h.id, h.tenant_id, h.name, h.client_id, h.type, h.provider, h.tags, h.status, h.lifecycle, h.enrolment, \
         h.enrolment_required, h.facts, h.upkeep",
    )
    .push(FROM)
    .push("h.lifecycle = 'active' AND ")
    .scope("h.tenant_id", scope)
    .push(" ORDER BY h.name, h.id");
    let read = |row: &Row| {
        Ok(Target {
            id: row.get("id")?,
            tenant: row.get("tenant_id")?,
            name: row.get("name")?,
            client_id: row.get("client_id")?,
            host_type: row.get("type")?,
            provider: row.get("provider")?,
            tags: row.json("tags")?,
            status: row.get("status")?,
            lifecycle: row.get("lifecycle")?,
            enrolment: row.get("enrolment")?,
            enrolment_required: row.get("enrolment_required")?,
            facts: row.find::<String>("facts")?.as_deref().and_then(super::facts::read),
            upkeep: row.find::<String>("upkeep")?.as_deref().and_then(super::facts::read_upkeep),
        })
    };
    conn.rows(select).await?.iter().map(read).collect()
}

/// Every host of a tenant that is not deleted, retired ones included, with what a new inventory is compared with.
///
/// # Errors
/// If the database fails.
pub async fn all_declared(conn: &mut Connection, tenant: TenantId) -> Result<Vec<Declared>, StoreError> {
    query(
        "SELECT h.id, h.name, h.client_id, h.type, h.provider, h.address, h.port, h.login_user, h.key_ref, \
         h.proxy_jump, h.enrolment_required, h.tags, h.metadata, h.source, h.enrolment, h.lifecycle",
    )
    .push(FROM)
    .push("h.tenant_id = ")
    .value(tenant)
    .push(" ORDER BY h.id")
    .list_of(conn, |row| {
        Ok(Declared {
            id: row.get("id")?,
            declared: read_declaration(row)?,
            source: row.get("source")?,
            enrolment: row.get("enrolment")?,
            lifecycle: row.get("lifecycle")?,
        })
    })
    .await
}

fn keys((sort, direction): (Sort, Direction)) -> [Key; 2] {
    let (expression, kind) = match sort {
        Sort::Name => ("h.name", KeyKind::Text),
        Sort::Type => ("h.type", KeyKind::Text),
        Sort::Provider => ("h.provider", KeyKind::Text),
        Sort::Status => ("h.status", KeyKind::Text),
        Sort::Enrolment => ("h.enrolment", KeyKind::Text),
        Sort::LastSeen => ("COALESCE(h.last_seen, -1)", KeyKind::Integer),
        Sort::Latency => ("COALESCE(h.rtt_us, -1)", KeyKind::Integer),
        Sort::Os => ("h.os", KeyKind::Text),
        Sort::AgentVersion => ("COALESCE(h.agent_version, '')", KeyKind::Text),
        Sort::Created => ("h.created_at", KeyKind::Integer),
    };
    let id = Key { expression: "h.id", kind: KeyKind::Text, direction: Direction::Ascending };
    [Key { expression, kind, direction }, id]
}

fn narrow(mut select: Query, filter: &Filter) -> Query {
    if let Some(host_type) = &filter.host_type {
        select = select.push(" AND h.type = ").value(host_type);
    }
    if let Some(status) = filter.status {
        select = select.push(" AND h.status = ").value(status);
    }
    if let Some(enrolment) = filter.enrolment {
        select = select.push(" AND h.enrolment = ").value(enrolment);
    }
    if let Some(lifecycle) = filter.lifecycle {
        select = select.push(" AND h.lifecycle = ").value(lifecycle);
    }
    for tag in &filter.tags {
        select = select
            .push(" AND EXISTS (SELECT 1 FROM host_tag t WHERE t.host_id = h.id AND t.tag = ")
            .value(tag)
            .push(")");
    }
    if let Some(text) = &filter.text {
        let pattern = contains(text);
        select = select.push(" AND (");
        for (at, column) in
            ["h.name", "h.provider", "COALESCE(h.address, '')", "h.os"].into_iter().enumerate()
        {
            select = select.push(if at == 0 { "lower(" } else { " OR lower(" });
            select = select.push(column).push(") LIKE ").value(&pattern).push(" ESCAPE '!'");
        }
        select = select.push(")");
    }
    select
}
