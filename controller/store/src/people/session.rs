//! Sessions: logins and API tokens. Only a digest of the bearer's secret is kept.

use fleetward_protocol::digest::Digest;
use fleetward_protocol::id::{SessionId, UserId};
use fleetward_protocol::time::Timestamp;

use crate::page::{Direction, Key, KeyKind, Page, PageRequest, cut, push_page, select_keys};
use crate::query::{Row, query, words};
use crate::{Connection, Reader, StoreError};

words! {
    /// What a session was made for.
    SessionKind {
        /// A login with a password.
        Login = "login",
        /// A token that a program keeps.
        ApiToken = "api_token",
    }
}

/// A session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Session {
    /// Its id.
    pub id: SessionId,
    /// Whose it is.
    pub user: UserId,
    /// What it was made for.
    pub kind: SessionKind,
    /// SHA-256 of the bearer's secret.
    pub secret_digest: Digest,
    /// A name for people: a token's purpose, a login's client.
    pub name: String,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it was last used, to about a minute.
    pub last_used_at: Timestamp,
    /// When it ends; a token may have no end.
    pub expires_at: Option<Timestamp>,
}

const COLUMNS: &str = "SELECT id, user_id, kind, secret_digest, name, created_at, last_used_at, expires_at";

const KEYS: [Key; 2] = [
    Key { expression: "created_at", kind: KeyKind::Integer, direction: Direction::Descending },
    Key { expression: "id", kind: KeyKind::Text, direction: Direction::Descending },
];

/// Adds a session.
///
/// # Errors
/// [`StoreError::Conflict`] if there is no such user.
pub async fn insert(conn: &mut Connection, session: &Session) -> Result<(), StoreError> {
    query(
        "INSERT INTO session (id, user_id, kind, secret_digest, name, created_at, last_used_at, expires_at) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
    )
    .bind(session.id)
    .bind(session.user)
    .bind(session.kind)
    .bind(session.secret_digest)
    .bind(&session.name)
    .bind(session.created_at)
    .bind(session.last_used_at)
    .bind(session.expires_at)
    .run(conn)
    .await
    .map(|_| ())
}

/// The session whose secret has this digest and that has not ended by `now`.
///
/// # Errors
/// If the database fails.
pub async fn find_live(
    conn: &mut Connection,
    secret_digest: &Digest,
    now: Timestamp,
) -> Result<Option<Session>, StoreError> {
    query(COLUMNS)
        .push(" FROM session WHERE secret_digest = ")
        .value(secret_digest)
        .push(" AND (expires_at IS NULL OR expires_at > ")
        .value(now)
        .push(")")
        .find(conn, read)
        .await
}

/// Whether a user has this session.
///
/// # Errors
/// If the database fails.
pub async fn is_of(conn: &mut Connection, user: UserId, id: SessionId) -> Result<bool, StoreError> {
    let found = query("SELECT id FROM session WHERE id = $1 AND user_id = $2")
        .bind(id)
        .bind(user)
        .find(conn, |row| row.get::<SessionId>("id"))
        .await?;
    Ok(found.is_some())
}

/// A user's sessions, the latest first.
///
/// # Errors
/// [`StoreError::InvalidCursor`] if the page's cursor is not from this list.
pub async fn list(
    conn: &mut impl Reader,
    user: UserId,
    page: &PageRequest,
) -> Result<Page<Session>, StoreError> {
    let select = select_keys(query(COLUMNS), &KEYS).push(" FROM session WHERE user_id = ").value(user);
    let rows = conn.rows(push_page(select, &KEYS, page)?).await?;
    cut(rows, &KEYS, page, read)
}

/// Notes a use, if the last one was noted before `before`; whether it was written. Asking for a minute or so
/// between the two keeps reads from becoming writes.
///
/// # Errors
/// If the database fails.
pub async fn update_used(
    conn: &mut Connection,
    id: SessionId,
    before: Timestamp,
    now: Timestamp,
) -> Result<bool, StoreError> {
    query("UPDATE session SET last_used_at = $2 WHERE id = $1 AND last_used_at < $3")
        .bind(id)
        .bind(now)
        .bind(before)
        .took(conn)
        .await
}

/// Ends a session of this user; whether it existed.
///
/// # Errors
/// If the database fails.
pub async fn delete(conn: &mut Connection, user: UserId, id: SessionId) -> Result<bool, StoreError> {
    query("DELETE FROM session WHERE id = $1 AND user_id = $2").bind(id).bind(user).took(conn).await
}

/// Ends every session of a user but `keep`, as after a change of password; how many.
///
/// # Errors
/// If the database fails.
pub async fn delete_all(
    conn: &mut Connection,
    user: UserId,
    keep: Option<SessionId>,
) -> Result<u64, StoreError> {
    query("DELETE FROM session WHERE user_id = $1 AND id <> COALESCE($2, '')")
        .bind(user)
        .bind(keep)
        .run(conn)
        .await
}

/// Removes sessions that ended before `now`; how many.
///
/// # Errors
/// If the database fails.
pub async fn delete_expired(conn: &mut Connection, now: Timestamp) -> Result<u64, StoreError> {
    query("DELETE FROM session WHERE expires_at IS NOT NULL AND expires_at <= $1").bind(now).run(conn).await
}

fn read(row: &Row) -> Result<Session, StoreError> {
    Ok(Session {
        id: row.get("id")?,
        user: row.get("user_id")?,
        kind: row.get("kind")?,
        secret_digest: row.get("secret_digest")?,
        name: row.get("name")?,
        created_at: row.get("created_at")?,
        last_used_at: row.get("last_used_at")?,
        expires_at: row.find("expires_at")?,
    })
}
