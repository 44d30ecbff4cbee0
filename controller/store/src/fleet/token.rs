//! Enrolment tokens: single-use and expiring. Only a digest of the secret is kept.

use fleetward_protocol::digest::Digest;
use fleetward_protocol::id::{HostId, TenantId, TokenId, UserId};
use fleetward_protocol::time::Timestamp;

use crate::query::{Row, query};
use crate::{Connection, Scope, StoreError};

/// An enrolment token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    /// Its id.
    pub id: TokenId,
    /// The tenant it enrols into.
    pub tenant: TenantId,
    /// The host it is bound to; a token without one enrols into quarantine.
    pub host: Option<HostId>,
    /// SHA-256 of the secret.
    pub secret_digest: Digest,
    /// Who made it.
    pub created_by: Option<UserId>,
    /// When it was made.
    pub created_at: Timestamp,
    /// Not usable from then on.
    pub expires_at: Timestamp,
    /// When it was used.
    pub used_at: Option<Timestamp>,
    /// The key (digest of its SPKI) that it enrolled.
    pub used_by: Option<Digest>,
}

const SELECT: &str = "SELECT id, tenant_id, host_id, secret_digest, created_by, created_at, expires_at, \
   used_at, used_by_key FROM token WHERE ";

/// Adds a token.
///
/// # Errors
/// [`StoreError::Conflict`] if its host or tenant does not exist.
pub async fn insert(conn: &mut Connection, token: &Token) -> Result<(), StoreError> {
    query(
        "INSERT INTO token (id, tenant_id, host_id, secret_digest, created_by, created_at, expires_at) \
         VALUES ($1, $2, $3, $4, $5, $6, $7)",
    )
    .bind(token.id)
    .bind(token.tenant)
    .bind(token.host)
    .bind(token.secret_digest)
    .bind(token.created_by)
    .bind(token.created_at)
    .bind(token.expires_at)
    .run(conn)
    .await
    .map(|_| ())
}

/// Uses a token up for a key; the same key may use it again. Whether it could be used: of any number of
/// parallel calls with different keys, one gets `true`. If the caller's transaction is not committed, the token
/// stays good.
///
/// # Errors
/// If the database fails.
pub async fn update_used(
    conn: &mut Connection,
    id: TokenId,
    key: &Digest,
    now: Timestamp,
) -> Result<bool, StoreError> {
    query(
        "UPDATE token SET used_at = COALESCE(used_at, $3), used_by_key = $2 \
         WHERE id = $1 AND (used_at IS NULL OR used_by_key = $2) AND expires_at > $3",
    )
    .bind(id)
    .bind(key)
    .bind(now)
    .took(conn)
    .await
}

/// The token with this secret, used or not, to decide by before [`update_used`]. Who enrols is not
/// known before, so there is no scope.
///
/// # Errors
/// If the database fails.
pub async fn find(conn: &mut Connection, secret_digest: &Digest) -> Result<Option<Token>, StoreError> {
    query(SELECT).push("secret_digest = ").value(secret_digest).find(conn, read).await
}

/// Tokens in scope that can still be used, newest first.
///
/// # Errors
/// If the database fails.
pub async fn list_usable(
    conn: &mut Connection,
    scope: &Scope,
    now: Timestamp,
) -> Result<Vec<Token>, StoreError> {
    query(SELECT)
        .push("used_at IS NULL AND expires_at > ")
        .value(now)
        .push(" AND ")
        .scope("tenant_id", scope)
        .push(" ORDER BY created_at DESC, id")
        .list_of(conn, read)
        .await
}

/// Withdraws the unused tokens of a host, as before a new one is made; how many.
///
/// # Errors
/// If the database fails.
pub async fn delete_unused(conn: &mut Connection, host: HostId) -> Result<u64, StoreError> {
    query("DELETE FROM token WHERE host_id = $1 AND used_at IS NULL").bind(host).run(conn).await
}

/// Removes tokens that were used or expired before `before`; how many.
///
/// # Errors
/// If the database fails.
pub async fn delete_spent(conn: &mut Connection, before: Timestamp) -> Result<u64, StoreError> {
    query("DELETE FROM token WHERE expires_at < $1 OR (used_at IS NOT NULL AND used_at < $1)")
        .bind(before)
        .run(conn)
        .await
}

fn read(row: &Row) -> Result<Token, StoreError> {
    Ok(Token {
        id: row.get("id")?,
        tenant: row.get("tenant_id")?,
        host: row.find("host_id")?,
        secret_digest: row.get("secret_digest")?,
        created_by: row.find("created_by")?,
        created_at: row.get("created_at")?,
        expires_at: row.get("expires_at")?,
        used_at: row.find("used_at")?,
        used_by: row.find("used_by_key")?,
    })
}
