//! Groups: target expressions under a name.

use fleetward_protocol::id::TenantId;
use fleetward_protocol::name::{GroupName, UserName};
use fleetward_protocol::time::Timestamp;

use crate::query::{Row, query};
use crate::{Connection, Scope, StoreError};

/// A group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    /// Whose it is.
    pub tenant: TenantId,
    /// Its name, unique within the tenant.
    pub name: GroupName,
    /// Which hosts are in it.
    pub expression: String,
    /// What it is for; may be empty.
    pub description: String,
    /// Who set it last.
    pub updated_by: UserName,
    /// When it was first set.
    pub created_at: Timestamp,
    /// When it was last changed.
    pub updated_at: Timestamp,
}

const SELECT: &str = "SELECT tenant_id, name, expression, description, updated_by, created_at, updated_at FROM host_group WHERE ";

/// Sets a group, in the place of one of the same name, whose time of creation stays.
///
/// # Errors
/// [`StoreError::Conflict`] if there is no such tenant.
pub async fn update(conn: &mut Connection, group: &Group) -> Result<(), StoreError> {
    query(
        "INSERT INTO host_group (tenant_id, name, expression, description, updated_by, created_at, updated_at) \
         VALUES ($1, $2, $3, $4, $5, $6, $7) \
         ON CONFLICT (tenant_id, name) DO UPDATE SET expression = excluded.expression, \
           description = excluded.description, updated_by = excluded.updated_by, updated_at = excluded.updated_at",
    )
    .bind(group.tenant)
    .bind(&group.name)
    .bind(&group.expression)
    .bind(&group.description)
    .bind(&group.updated_by)
    .bind(group.created_at)
    .bind(group.updated_at)
    .run(conn)
    .await
    .map(|_| ())
}

/// The groups of this name in scope: one in each tenant at most.
///
/// # Errors
/// If the database fails.
pub async fn list_named(
    conn: &mut Connection,
    scope: &Scope,
    name: &GroupName,
) -> Result<Vec<Group>, StoreError> {
    query(SELECT)
        .push("name = ")
        .value(name)
        .push(" AND ")
        .scope("tenant_id", scope)
        .push(" ORDER BY tenant_id")
        .list_of(conn, read)
        .await
}

/// The groups in scope, by name.
///
/// # Errors
/// If the database fails.
pub async fn list(conn: &mut Connection, scope: &Scope) -> Result<Vec<Group>, StoreError> {
    query(SELECT).scope("tenant_id", scope).push(" ORDER BY name, tenant_id").list_of(conn, read).await
}

/// Removes a tenant's group. Whether there was one.
///
/// # Errors
/// If the database fails.
pub async fn delete(conn: &mut Connection, tenant: TenantId, name: &GroupName) -> Result<bool, StoreError> {
    query("DELETE FROM host_group WHERE tenant_id = $1 AND name = $2")
        .bind(tenant)
        .bind(name)
        .took(conn)
        .await
}

fn read(row: &Row) -> Result<Group, StoreError> {
    Ok(Group {
        tenant: row.get("tenant_id")?,
        name: row.get("name")?,
        expression: row.get("expression")?,
        description: row.get("description")?,
        updated_by: row.get("updated_by")?,
        created_at: row.get("created_at")?,
        updated_at: row.get("updated_at")?,
    })
}
