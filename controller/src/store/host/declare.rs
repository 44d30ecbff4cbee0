//! What the inventory says of hosts: written, and replaced.

use fleetward_protocol::id::{HostId, TenantId};
use fleetward_protocol::name::Tag;
use fleetward_protocol::time::Timestamp;

use super::{Declaration, NewHost, Source};
use crate::store::query::{json, query};
use crate::store::{Connection, StoreError};

const CONFLICTS: &[(&str, &str)] =
    &[("client", "another host has this client ID"), ("name", "another host of the tenant has this name")];

/// Adds a host.
///
/// # Errors
/// [`StoreError::Conflict`] if its name or client ID is taken.
pub async fn insert(conn: &mut Connection, host: &NewHost, now: Timestamp) -> Result<(), StoreError> {
    let declared = &host.declared;
    query(
        "INSERT INTO host (id, tenant_id, name, client_id, type, provider, source, address, port, login_user, \
           key_ref, proxy_jump, metadata, tags, enrolment_required, enrolment, lifecycle, created_at, updated_at) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, 'active', $17, $17)",
    )
    .bind(host.id)
    .bind(host.tenant)
    .bind(&declared.name)
    .bind(&declared.client_id)
    .bind(&declared.host_type)
    .bind(&declared.provider)
    .bind(host.source)
    .bind(declared.address.as_ref())
    .bind(declared.port)
    .bind(declared.login_user.as_ref())
    .bind(declared.key_ref.as_ref())
    .bind(declared.proxy_jump.as_ref())
    .bind(json(&declared.metadata)?)
    .bind(json(&declared.tags)?)
    .bind(declared.enrolment_required)
    .bind(host.enrolment)
    .bind(now)
    .run(conn)
    .await
    .map_err(|error| error.named(CONFLICTS))?;
    insert_tags(conn, host.tenant, host.id, &declared.tags).await
}

/// Replaces what the inventory says about a host, and takes it back into the inventory if it was retired;
/// whether there is such a host. Its enrolment is the caller's business ([`update_enrolment`]), also when the
/// client ID changes.
///
/// # Errors
/// [`StoreError::Conflict`] if the new name or client ID is taken.
pub async fn update(
    conn: &mut Connection,
    tenant: TenantId,
    id: HostId,
    declared: &Declaration,
    now: Timestamp,
) -> Result<bool, StoreError> {
    let took = query(
        "UPDATE host SET name = $3, client_id = $4, type = $5, provider = $6, address = $7, port = $8, \
           login_user = $9, key_ref = $10, proxy_jump = $11, metadata = $12, tags = $13, enrolment_required = $14, \
           lifecycle = 'active', retired_at = NULL, updated_at = $15 \
         WHERE id = $1 AND tenant_id = $2 AND deleted_at IS NULL",
    )
    .bind(id)
    .bind(tenant)
    .bind(&declared.name)
    .bind(&declared.client_id)
    .bind(&declared.host_type)
    .bind(&declared.provider)
    .bind(declared.address.as_ref())
    .bind(declared.port)
    .bind(declared.login_user.as_ref())
    .bind(declared.key_ref.as_ref())
    .bind(declared.proxy_jump.as_ref())
    .bind(json(&declared.metadata)?)
    .bind(json(&declared.tags)?)
    .bind(declared.enrolment_required)
    .bind(now)
    .took(conn)
    .await
    .map_err(|error| error.named(CONFLICTS))?;
    if took {
        query("DELETE FROM host_tag WHERE host_id = $1").bind(id).run(conn).await?;
        insert_tags(conn, tenant, id, &declared.tags).await?;
    }
    Ok(took)
}

/// Takes a host's name away, so that another may have it: an [`update`] must follow in the same transaction.
///
/// # Errors
/// If the database fails.
pub async fn update_nameless(conn: &mut Connection, id: HostId) -> Result<bool, StoreError> {
    // The id is nobody's name, and the column is not empty.
    query("UPDATE host SET name = id WHERE id = $1").bind(id).took(conn).await
}

/// Hands a host from one source to another; whether it was declared by the first.
///
/// # Errors
/// If the database fails.
pub async fn update_source(
    conn: &mut Connection,
    id: HostId,
    from: Source,
    to: Source,
    now: Timestamp,
) -> Result<bool, StoreError> {
    query("UPDATE host SET source = $3, updated_at = $4 WHERE id = $1 AND source = $2 AND deleted_at IS NULL")
        .bind(id)
        .bind(from)
        .bind(to)
        .bind(now)
        .took(conn)
        .await
}

async fn insert_tags(
    conn: &mut Connection,
    tenant: TenantId,
    id: HostId,
    tags: &[Tag],
) -> Result<(), StoreError> {
    for tag in tags {
        query("INSERT INTO host_tag (host_id, tenant_id, tag) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING")
            .bind(id)
            .bind(tenant)
            .bind(tag)
            .run(conn)
            .await?;
    }
    Ok(())
}
