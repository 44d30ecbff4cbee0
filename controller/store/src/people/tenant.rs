//! Tenants: customers or teams, the owners of everything else.

use fleetward_protocol::id::TenantId;
use fleetward_protocol::name::TenantName;
use fleetward_protocol::time::Timestamp;
use uuid::Uuid;

use crate::query::{Row, query};
use crate::{Connection, Scope, StoreError};

/// The tenant that every store has from its first migration.
pub const DEFAULT: TenantId = TenantId::from_uuid(Uuid::from_u128(0x0000_0000_0000_7000_8000_0000_0000_0001));

/// A tenant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tenant {
    /// Its id.
    pub id: TenantId,
    /// Its short name, unique.
    pub name: TenantName,
    /// Its name for people.
    pub title: String,
    /// When it was made.
    pub created_at: Timestamp,
}

const SELECT: &str = "SELECT id, name, title, created_at FROM tenant WHERE ";

/// Adds a tenant.
///
/// # Errors
/// [`StoreError::Conflict`] if the name is taken.
pub async fn insert(conn: &mut Connection, tenant: &Tenant) -> Result<(), StoreError> {
    query("INSERT INTO tenant (id, name, title, created_at) VALUES ($1, $2, $3, $4)")
        .bind(tenant.id)
        .bind(&tenant.name)
        .bind(&tenant.title)
        .bind(tenant.created_at)
        .run(conn)
        .await
        .map(|_| ())
        .map_err(|error| error.named(&[("name", "a tenant of this name exists")]))
}

/// Keeps others who do this with the tenant waiting until the caller's transaction ends: for what is counted of a tenant before
/// more is added.
///
/// # Errors
/// If the database fails.
pub async fn lock(conn: &mut Connection, id: TenantId) -> Result<(), StoreError> {
    // A write that changes nothing is the lock that both engines know.
    query("UPDATE tenant SET title = title WHERE id = $1").bind(id).run(conn).await.map(|_| ())
}

/// The tenant of this id.
///
/// # Errors
/// [`StoreError::NotFound`] if there is none in scope.
pub async fn get(conn: &mut Connection, scope: &Scope, id: TenantId) -> Result<Tenant, StoreError> {
    let found =
        query(SELECT).push("id = ").value(id).push(" AND ").scope("id", scope).find(conn, read).await?;
    found.ok_or(StoreError::NotFound { what: "the tenant" })
}

/// The tenant of this name, if there is one in scope.
///
/// # Errors
/// If the database fails.
pub async fn find(
    conn: &mut Connection,
    scope: &Scope,
    name: &TenantName,
) -> Result<Option<Tenant>, StoreError> {
    query(SELECT).push("name = ").value(name).push(" AND ").scope("id", scope).find(conn, read).await
}

/// The tenants in scope, by name.
///
/// # Errors
/// If the database fails.
pub async fn list(conn: &mut Connection, scope: &Scope) -> Result<Vec<Tenant>, StoreError> {
    query(SELECT).scope("id", scope).push(" ORDER BY name").list_of(conn, read).await
}

fn read(row: &Row) -> Result<Tenant, StoreError> {
    Ok(Tenant {
        id: row.get("id")?,
        name: row.get("name")?,
        title: row.get("title")?,
        created_at: row.get("created_at")?,
    })
}
