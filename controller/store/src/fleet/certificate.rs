//! Certificates that the controller issued to hosts.

use fleetward_protocol::digest::Digest;
use fleetward_protocol::id::{HostId, TenantId};
use fleetward_protocol::time::Timestamp;

use crate::query::{Row, query};
use crate::{Connection, Scope, StoreError};

/// An issued certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certificate {
    /// The serial number in lower-case hexadecimal.
    pub serial: String,
    /// The tenant of its host.
    pub tenant: TenantId,
    /// The host it identifies.
    pub host: HostId,
    /// SHA-256 of its DER.
    pub fingerprint: Digest,
    /// Valid from.
    pub not_before: Timestamp,
    /// Valid until.
    pub not_after: Timestamp,
    /// When it was issued.
    pub issued_at: Timestamp,
    /// When it was revoked.
    pub revoked_at: Option<Timestamp>,
    /// Why it was revoked.
    pub revoke_reason: Option<String>,
}

const SELECT: &str = "SELECT serial, tenant_id, host_id, fingerprint, not_before, not_after, issued_at, \
   revoked_at, revoke_reason FROM certificate WHERE ";

/// Adds a certificate.
///
/// # Errors
/// [`StoreError::Conflict`] if the serial or the fingerprint exists, or the host does not.
pub async fn insert(conn: &mut Connection, certificate: &Certificate) -> Result<(), StoreError> {
    query(
        "INSERT INTO certificate (serial, tenant_id, host_id, fingerprint, not_before, not_after, issued_at, \
         revoked_at, revoke_reason) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
    )
    .bind(&certificate.serial)
    .bind(certificate.tenant)
    .bind(certificate.host)
    .bind(certificate.fingerprint)
    .bind(certificate.not_before)
    .bind(certificate.not_after)
    .bind(certificate.issued_at)
    .bind(certificate.revoked_at)
    .bind(certificate.revoke_reason.as_ref())
    .run(conn)
    .await
    .map(|_| ())
}

/// The certificate with this fingerprint, if this controller issued it. Who connects is not known before, so
/// there is no scope.
///
/// # Errors
/// If the database fails.
pub async fn find(conn: &mut Connection, fingerprint: &Digest) -> Result<Option<Certificate>, StoreError> {
    query(SELECT).push("fingerprint = ").value(fingerprint).find(conn, read).await
}

/// A host's certificates, newest first.
///
/// # Errors
/// If the database fails.
pub async fn list(
    conn: &mut Connection,
    scope: &Scope,
    host: HostId,
) -> Result<Vec<Certificate>, StoreError> {
    query(SELECT)
        .push("host_id = ")
        .value(host)
        .push(" AND ")
        .scope("tenant_id", scope)
        .push(" ORDER BY issued_at DESC, serial")
        .list_of(conn, read)
        .await
}

/// Revokes every certificate of a host that is not revoked yet, but `keep`; how many.
///
/// # Errors
/// If the database fails.
pub async fn update_revoked(
    conn: &mut Connection,
    host: HostId,
    keep: Option<&Digest>,
    reason: &str,
    now: Timestamp,
) -> Result<u64, StoreError> {
    query(
        "UPDATE certificate SET revoked_at = $2, revoke_reason = $3 \
         WHERE host_id = $1 AND revoked_at IS NULL AND fingerprint <> COALESCE($4, '')",
    )
    .bind(host)
    .bind(now)
    .bind(reason)
    .bind(keep)
    .run(conn)
    .await
}

/// Removes certificates that ended before `before`; how many.
///
/// # Errors
/// If the database fails.
pub async fn delete_expired(conn: &mut Connection, before: Timestamp) -> Result<u64, StoreError> {
    query("DELETE FROM certificate WHERE not_after < $1").bind(before).run(conn).await
}

fn read(row: &Row) -> Result<Certificate, StoreError> {
    Ok(Certificate {
        serial: row.get("serial")?,
        tenant: row.get("tenant_id")?,
        host: row.get("host_id")?,
        fingerprint: row.get("fingerprint")?,
        not_before: row.get("not_before")?,
        not_after: row.get("not_after")?,
        issued_at: row.get("issued_at")?,
        revoked_at: row.find("revoked_at")?,
        revoke_reason: row.find("revoke_reason")?,
    })
}
