//! Where a tenant's inventory comes from: its git repository.

use std::time::Duration;

use fleetward_protocol::id::TenantId;
use fleetward_protocol::time::Timestamp;

use crate::query::{Row, query};
use crate::{Connection, Scope, StoreError};

/// A tenant's inventory repository.
#[derive(Clone, PartialEq, Eq)]
pub struct Repository {
    /// Whose it is; a tenant has one at most.
    pub tenant: TenantId,
    /// An https, ssh or file URL, without credentials.
    pub url: String,
    /// The branch that is the truth.
    pub branch: String,
    /// Credentials, encrypted by the caller with a key that is not in the database.
    pub credentials: Option<Vec<u8>>,
    /// How often it is synchronised.
    pub interval: Duration,
    /// What is in force.
    pub good: Option<Good>,
    /// When the repository was first set.
    pub created_at: Timestamp,
    /// When its settings were last changed.
    pub updated_at: Timestamp,
}

/// The inventory in force: where it came from, which may not be where the next one is looked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Good {
    /// The repository's URL, without credentials.
    pub url: String,
    /// Its branch.
    pub branch: String,
    /// The commit.
    pub commit: String,
    /// Since when it is in force.
    pub at: Timestamp,
}

impl Repository {
    /// The commit in force, if it is one of this repository's and branch's.
    #[must_use]
    pub fn good_commit(&self) -> Option<&str> {
        let good = self.good.as_ref()?;
        (good.url == self.url && good.branch == self.branch).then_some(good.commit.as_str())
    }
}

impl std::fmt::Debug for Repository {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Repository")
            .field("tenant", &self.tenant)
            .field("url", &self.url)
            .field("branch", &self.branch)
            .field("good", &self.good)
            .finish_non_exhaustive()
    }
}

const SELECT: &str = "SELECT tenant_id, url, branch, credentials, interval_ms, good_url, good_branch, good_commit, good_at, \
   created_at, updated_at FROM repository WHERE ";

/// Sets a tenant's repository. What is in force stays, wherever it came from.
///
/// # Errors
/// [`StoreError::Conflict`] if there is no such tenant.
pub async fn update(conn: &mut Connection, repository: &Repository) -> Result<(), StoreError> {
    query(
        "INSERT INTO repository (tenant_id, url, branch, credentials, interval_ms, created_at, updated_at) \
         VALUES ($1, $2, $3, $4, $5, $6, $6) \
         ON CONFLICT (tenant_id) DO UPDATE SET url = excluded.url, branch = excluded.branch, credentials = excluded.credentials, \
           interval_ms = excluded.interval_ms, updated_at = excluded.updated_at",
    )
    .bind(repository.tenant)
    .bind(&repository.url)
    .bind(&repository.branch)
    .bind(repository.credentials.as_deref())
    .bind(u64::try_from(repository.interval.as_millis()).unwrap_or(u64::MAX))
    .bind(repository.updated_at)
    .run(conn)
    .await
    .map(|_| ())
}

/// The tenant's repository, if it has one in scope.
///
/// # Errors
/// If the database fails.
pub async fn find(
    conn: &mut Connection,
    scope: &Scope,
    tenant: TenantId,
) -> Result<Option<Repository>, StoreError> {
    query(SELECT)
        .push("tenant_id = ")
        .value(tenant)
        .push(" AND ")
        .scope("tenant_id", scope)
        .find(conn, read)
        .await
}

/// Every repository in scope.
///
/// # Errors
/// If the database fails.
pub async fn list(conn: &mut Connection, scope: &Scope) -> Result<Vec<Repository>, StoreError> {
    query(SELECT).scope("tenant_id", scope).push(" ORDER BY tenant_id").list_of(conn, read).await
}

/// Notes that the inventory of `commit` of the repository as it is set is in force, since `now` unless it was already;
/// whether the tenant has a repository.
///
/// # Errors
/// If the database fails.
pub async fn update_good(
    conn: &mut Connection,
    tenant: TenantId,
    commit: &str,
    now: Timestamp,
) -> Result<bool, StoreError> {
    query(
        "UPDATE repository SET \
           good_at = CASE WHEN good_url = url AND good_branch = branch AND good_commit = $2 THEN good_at ELSE $3 END, \
           good_commit = $2, good_url = url, good_branch = branch WHERE tenant_id = $1",
    )
        .bind(tenant)
        .bind(commit)
        .bind(now)
        .took(conn)
        .await
}

/// Removes a tenant's repository; hosts and scripts that came from it stay. Whether there was one.
///
/// # Errors
/// If the database fails.
pub async fn delete(conn: &mut Connection, tenant: TenantId) -> Result<bool, StoreError> {
    query("DELETE FROM repository WHERE tenant_id = $1").bind(tenant).took(conn).await
}

fn read(row: &Row) -> Result<Repository, StoreError> {
    Ok(Repository {
        tenant: row.get("tenant_id")?,
        url: row.get("url")?,
        branch: row.get("branch")?,
        credentials: row.find("credentials")?,
        interval: Duration::from_millis(row.get("interval_ms")?),
        good: read_good(row)?,
        created_at: row.get("created_at")?,
        updated_at: row.get("updated_at")?,
    })
}

fn read_good(row: &Row) -> Result<Option<Good>, StoreError> {
    let (url, branch) = (row.find("good_url")?, row.find("good_branch")?);
    let (commit, at) = (row.find("good_commit")?, row.find("good_at")?);
    Ok(match (url, branch, commit, at) {
        (Some(url), Some(branch), Some(commit), Some(at)) => Some(Good { url, branch, commit, at }),
        _ => None,
    })
}
