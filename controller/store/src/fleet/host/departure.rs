//! Hosts that leave: retired, with everything known of them, and deleted at last.

use fleetward_protocol::id::HostId;
use fleetward_protocol::name::HostName;
use fleetward_protocol::time::Timestamp;

use super::{COLUMNS, FROM, Host, LATEST, read};
use crate::query::query;
use crate::{Connection, Scope, StoreError};

/// Retires an active host: it stays with its history, and nothing runs on it. Whether it was active.
///
/// # Errors
/// If the database fails.
pub async fn update_retired(conn: &mut Connection, id: HostId, now: Timestamp) -> Result<bool, StoreError> {
    query(
        "UPDATE host SET lifecycle = 'retired', retired_at = $2, updated_at = $2 \
         WHERE id = $1 AND lifecycle = 'active' AND deleted_at IS NULL",
    )
    .bind(id)
    .bind(now)
    .took(conn)
    .await
}

/// The retired hosts of this name, or else the one of this id, the latest first.
///
/// # Errors
/// If the database fails.
pub async fn list_retired(
    conn: &mut Connection,
    scope: &Scope,
    name: &HostName,
) -> Result<Vec<Host>, StoreError> {
    let mut found = query(COLUMNS)
        .push(FROM)
        .push("h.lifecycle = 'retired' AND (h.name = ")
        .value(name)
        .push(" OR h.id = ")
        .value(name)
        .push(") AND ")
        .scope("h.tenant_id", scope)
        .push(" ORDER BY ")
        .push(LATEST)
        .list_of(conn, read)
        .await?;
    // An id is nobody's name but by intent; then the name is what is meant.
    if found.iter().any(|host| host.declared.name == *name) {
        found.retain(|host| host.declared.name == *name);
    }
    Ok(found)
}

/// Deletes a retired host, with what it said of itself and what the inventory said of it. The row itself stays, out of
/// sight, as its runs and certificates refer to it; they keep its name. Whether there was one in scope.
///
/// # Errors
/// If the database fails.
pub async fn delete(
    conn: &mut Connection,
    scope: &Scope,
    id: HostId,
    now: Timestamp,
) -> Result<bool, StoreError> {
    let took = query(
        "UPDATE host SET deleted_at = $2, status = 'offline', updated_at = $2, provider = '', address = NULL, \
         port = NULL, login_user = NULL, key_ref = NULL, proxy_jump = NULL, metadata = '{}', tags = '[]', \
         facts = NULL, facts_digest = NULL, facts_at = NULL, upkeep = NULL, os = '', os_version = '', kernel = '', arch = '', virtualisation = '', \
         notices = '[]', twins = NULL WHERE id = $1 AND lifecycle = 'retired' AND deleted_at IS NULL AND ",
    )
    .bind(id)
    .bind(now)
    .scope("tenant_id", scope)
    .took(conn)
    .await?;
    if took {
        query("DELETE FROM host_tag WHERE host_id = $1").bind(id).run(conn).await?;
    }
    Ok(took)
}
