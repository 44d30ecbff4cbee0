//! Users: people and programs that log in, and the roles they were granted.
//!
//! A user belongs to no tenant; grants say which tenants they see. Passwords come as argon2 hashes, never in
//! the clear. Wrong ones are not written down here: nothing is, for somebody who did not log in.

use fleetward_domain::people::attempt::Party;
use fleetward_domain::people::permission::{Grant, Grants};
use fleetward_protocol::id::UserId;
use fleetward_protocol::name::UserName;
use fleetward_protocol::time::Timestamp;

use crate::query::{Row, json, query};
use crate::{Connection, StoreError};

/// A user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// The id.
    pub id: UserId,
    /// The login name, unique.
    pub name: UserName,
    /// The argon2id hash in PHC format; absent if this user cannot log in with a password.
    pub password_hash: Option<String>,
    /// Whether the password is one-time and must be replaced before anything else.
    pub must_change_password: bool,
    /// From where the user logged in, the latest last; a few.
    pub known_parties: Vec<Party>,
    /// Since when the user is disabled.
    pub disabled_at: Option<Timestamp>,
    /// When the user was made.
    pub created_at: Timestamp,
}

const SELECT: &str = "SELECT id, name, password_hash, must_change_password, known_parties, \
   disabled_at, created_at FROM \"user\" WHERE ";

/// Adds a user.
///
/// # Errors
/// [`StoreError::Conflict`] if the name is taken.
pub async fn insert(conn: &mut Connection, user: &User) -> Result<(), StoreError> {
    query(
        "INSERT INTO \"user\" (id, name, password_hash, must_change_password, known_parties, disabled_at, \
         created_at, updated_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $7)",
    )
    .bind(user.id)
    .bind(&user.name)
    .bind(user.password_hash.as_ref())
    .bind(user.must_change_password)
    .bind(json(&user.known_parties)?)
    .bind(user.disabled_at)
    .bind(user.created_at)
    .run(conn)
    .await
    .map(|_| ())
    .map_err(|error| error.named(&[("name", "a user of this name exists")]))
}

/// The user of this id.
///
/// # Errors
/// [`StoreError::NotFound`] if there is none.
pub async fn get(conn: &mut Connection, id: UserId) -> Result<User, StoreError> {
    let found = query(SELECT).push("id = ").value(id).find(conn, read).await?;
    found.ok_or(StoreError::NotFound { what: "the user" })
}

/// The user of this name, if any.
///
/// # Errors
/// If the database fails.
pub async fn find(conn: &mut Connection, name: &UserName) -> Result<Option<User>, StoreError> {
    query(SELECT).push("name = ").value(name).find(conn, read).await
}

/// Every user, by name.
///
/// # Errors
/// If the database fails.
pub async fn list(conn: &mut Connection) -> Result<Vec<User>, StoreError> {
    query(SELECT).push("1 = 1 ORDER BY name").list_of(conn, read).await
}

/// Sets the password hash and forgets from where the user logged in; whether the user exists.
///
/// # Errors
/// If the database fails.
pub async fn update_password(
    conn: &mut Connection,
    id: UserId,
    hash: &str,
    must_change: bool,
    now: Timestamp,
) -> Result<bool, StoreError> {
    query(
        "UPDATE \"user\" SET password_hash = $2, must_change_password = $3, updated_at = $4, known_parties = '[]' \
         WHERE id = $1",
    )
    .bind(id)
    .bind(hash)
    .bind(must_change)
    .bind(now)
    .took(conn)
    .await
}

/// Replaces the password hash `was` by one of the user's own choice, if the user is not disabled; whether it was
/// replaced.
///
/// # Errors
/// If the database fails.
pub async fn update_own_password(
    conn: &mut Connection,
    id: UserId,
    was: &str,
    hash: &str,
    now: Timestamp,
) -> Result<bool, StoreError> {
    query(
        "UPDATE \"user\" SET password_hash = $3, must_change_password = 0, updated_at = $4 \
         WHERE id = $1 AND password_hash = $2 AND disabled_at IS NULL",
    )
    .bind(id)
    .bind(was)
    .bind(hash)
    .bind(now)
    .took(conn)
    .await
}

/// Notes from where the user logged in, if the password hash still is `was` and the user is not disabled; whether
/// that is so. A login is made in the same transaction: it waits for whoever changes the password.
///
/// # Errors
/// If the database fails.
pub async fn update_known_parties(
    conn: &mut Connection,
    id: UserId,
    was: &str,
    known: &[Party],
) -> Result<bool, StoreError> {
    query(
        "UPDATE \"user\" SET known_parties = $3 WHERE id = $1 AND password_hash = $2 AND disabled_at IS NULL",
    )
    .bind(id)
    .bind(was)
    .bind(json(&known)?)
    .took(conn)
    .await
}

/// Disables the user (`Some`) or enables them again (`None`); whether the user exists.
///
/// # Errors
/// If the database fails.
pub async fn update_disabled(
    conn: &mut Connection,
    id: UserId,
    since: Option<Timestamp>,
    now: Timestamp,
) -> Result<bool, StoreError> {
    query("UPDATE \"user\" SET disabled_at = $2, updated_at = $3 WHERE id = $1")
        .bind(id)
        .bind(since)
        .bind(now)
        .took(conn)
        .await
}

/// Grants a role; granting it again changes nothing.
///
/// # Errors
/// [`StoreError::Conflict`] if there is no such user or tenant.
pub async fn insert_grant(
    conn: &mut Connection,
    user: UserId,
    grant: Grant,
    now: Timestamp,
) -> Result<(), StoreError> {
    query(
        "INSERT INTO role_grant (user_id, tenant_id, role, created_at) VALUES ($1, $2, $3, $4) \
         ON CONFLICT DO NOTHING",
    )
    .bind(user)
    .bind(grant.tenant)
    .bind(grant.role)
    .bind(now)
    .run(conn)
    .await
    .map(|_| ())
}

/// Takes a role away; whether it was granted.
///
/// # Errors
/// If the database fails.
pub async fn delete_grant(conn: &mut Connection, user: UserId, grant: Grant) -> Result<bool, StoreError> {
    query("DELETE FROM role_grant WHERE user_id = $1 AND tenant_id = $2 AND role = $3")
        .bind(user)
        .bind(grant.tenant)
        .bind(grant.role)
        .took(conn)
        .await
}

/// What the user was granted, by tenant.
///
/// # Errors
/// If the database fails.
pub async fn list_grants(conn: &mut Connection, user: UserId) -> Result<Grants, StoreError> {
    let grants = query("SELECT tenant_id, role FROM role_grant WHERE user_id = $1 ORDER BY tenant_id, role")
        .bind(user)
        .list_of(conn, |row| Ok(Grant { tenant: row.get("tenant_id")?, role: row.get("role")? }))
        .await?;
    Ok(Grants::new(grants))
}

fn read(row: &Row) -> Result<User, StoreError> {
    Ok(User {
        id: row.get("id")?,
        name: row.get("name")?,
        password_hash: row.find("password_hash")?,
        must_change_password: row.get("must_change_password")?,
        known_parties: row.json("known_parties")?,
        disabled_at: row.find("disabled_at")?,
        created_at: row.get("created_at")?,
    })
}
