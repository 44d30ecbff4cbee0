//! What the inventory says of hosts: written, and replaced.

use std::slice;

use fleetward_protocol::id::{HostId, TenantId};
use fleetward_protocol::time::Timestamp;

use super::{Declaration, NewHost, Source};
use crate::query::{OneOf, Query, json, query};
use crate::search::Reader as _;
use crate::{Connection, Engine, StoreError};

const CONFLICTS: &[(&str, &str)] =
    &[("client", "another host has this client ID"), ("name", "another host of the tenant has this name")];

/// How many rows one statement writes. Its placeholders cost SQLite the square of their number.
const ROWS: usize = 50;
/// How many hosts one statement writes the tags of.
const TAGGED: usize = 1000;

/// Adds a host.
///
/// # Errors
/// [`StoreError::Conflict`] if its name or client ID is taken.
pub async fn insert(conn: &mut Connection, host: &NewHost, now: Timestamp) -> Result<(), StoreError> {
    insert_all(conn, slice::from_ref(host), now).await
}

/// Adds hosts, in few statements: while an inventory is put in force nobody else writes.
///
/// # Errors
/// [`StoreError::Conflict`] if a name or client ID is taken.
pub async fn insert_all(conn: &mut Connection, hosts: &[NewHost], now: Timestamp) -> Result<(), StoreError> {
    for rows in hosts.chunks(ROWS) {
        let mut insert = query(
            "INSERT INTO host (id, tenant_id, name, client_id, type, provider, source, address, port, login_user, \
               key_ref, proxy_jump, metadata, tags, enrolment_required, enrolment, lifecycle, created_at, updated_at) \
             VALUES ",
        );
        for (number, host) in rows.iter().enumerate() {
            insert = push_row(insert.push(if number == 0 { "(" } else { ", (" }), host, now)?.push(")");
        }
        insert.run(conn).await.map_err(|error| error.named(CONFLICTS))?;
    }
    insert_tags(conn, hosts.iter().map(|host| host.id)).await
}

fn push_row(insert: Query, host: &NewHost, now: Timestamp) -> Result<Query, StoreError> {
    let declared = &host.declared;
    let insert = insert
        .value(host.id)
        .push(", ")
        .value(host.tenant)
        .push(", ")
        .value(&declared.name)
        .push(", ")
        .value(&declared.client_id)
        .push(", ")
        .value(&declared.host_type)
        .push(", ")
        .value(&declared.provider)
        .push(", ")
        .value(host.source)
        .push(", ")
        .value(declared.address.as_ref())
        .push(", ")
        .value(declared.port)
        .push(", ")
        .value(declared.login_user.as_ref())
        .push(", ")
        .value(declared.key_ref.as_ref())
        .push(", ")
        .value(declared.proxy_jump.as_ref())
        .push(", ")
        .value(json(&declared.metadata)?)
        .push(", ")
        .value(json(&declared.tags)?)
        .push(", ")
        .value(declared.enrolment_required)
        .push(", ")
        .value(host.enrolment)
        .push(", 'active', ")
        .value(now)
        .push(", ")
        .value(now);
    Ok(insert)
}

/// Replaces what the inventory says about a host, and takes it back into the inventory if it was retired;
/// whether there is such a host. Its enrolment is the caller's business ([`super::update_enrolment`]), also when the
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
    let missing = update_all(conn, tenant, &[(id, declared)], now).await?;
    Ok(missing.is_none())
}

/// As [`update`], of several hosts; the first of them that is not there. The caller's transaction must not be
/// committed then.
///
/// # Errors
/// [`StoreError::Conflict`] if a new name or client ID is taken.
pub async fn update_all(
    conn: &mut Connection,
    tenant: TenantId,
    hosts: &[(HostId, &Declaration)],
    now: Timestamp,
) -> Result<Option<HostId>, StoreError> {
    for (id, declared) in hosts {
        let took = query(
            "UPDATE host SET name = $3, client_id = $4, type = $5, provider = $6, address = $7, port = $8, \
               login_user = $9, key_ref = $10, proxy_jump = $11, metadata = $12, tags = $13, \
               enrolment_required = $14, lifecycle = 'active', retired_at = NULL, updated_at = $15 \
             WHERE id = $1 AND tenant_id = $2 AND deleted_at IS NULL",
        )
        .bind(*id)
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
        if !took {
            return Ok(Some(*id));
        }
    }
    for some in hosts.chunks(TAGGED) {
        let ids = ids(some.iter().map(|(id, _)| *id));
        let engine = conn.engine();
        query("DELETE FROM host_tag WHERE host_id IN ").one_of(engine, OneOf::Text, &ids).run(conn).await?;
    }
    insert_tags(conn, hosts.iter().map(|(id, _)| *id)).await?;
    Ok(None)
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

/// Makes the labels in the hosts' rows ones that can be searched by. They have none of these yet.
async fn insert_tags(
    conn: &mut Connection,
    hosts: impl ExactSizeIterator<Item = HostId>,
) -> Result<(), StoreError> {
    let hosts: Vec<HostId> = hosts.collect();
    let engine = conn.engine();
    let labels = match engine {
        Engine::Sqlite => "json_each(h.tags) t WHERE h.id IN ",
        Engine::Postgres => "jsonb_array_elements_text(CAST(h.tags AS jsonb)) t WHERE h.id IN ",
    };
    for some in hosts.chunks(TAGGED) {
        query(
            "INSERT INTO host_tag (host_id, tenant_id, tag) SELECT h.id, h.tenant_id, t.value FROM host h, ",
        )
        .push(labels)
        .one_of(engine, OneOf::Text, &ids(some.iter().copied()))
        .push(" ON CONFLICT DO NOTHING")
        .run(conn)
        .await?;
    }
    Ok(())
}

fn ids(hosts: impl Iterator<Item = HostId>) -> serde_json::Value {
    hosts.map(|id| id.to_string()).collect::<Vec<_>>().into()
}
