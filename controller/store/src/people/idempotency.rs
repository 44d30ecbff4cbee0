//! Idempotency keys: a write that is sent again with the same key gets the first answer and does nothing.

use fleetward_protocol::digest::Digest;
use fleetward_protocol::id::UserId;
use fleetward_protocol::time::Timestamp;

use crate::query::{Row, query};
use crate::{Connection, StoreError};

/// What came of claiming a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Claim {
    /// The key is new: do the work and record the answer ([`update_answered`]).
    New,
    /// The work was done before; this was the answer.
    Answered(Answer),
    /// The work is being done by an earlier request, or that was cut off before it had an answer.
    Pending,
    /// The key was used before for another request.
    Different,
}

/// The answer to a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// The body; `None` if it was too large to be kept.
    pub body: Option<String>,
}

/// Claims a key for a request: of any number of parallel calls, one gets [`Claim::New`]. A key that expired is
/// as good as new.
///
/// # Errors
/// If the database fails.
pub async fn insert(
    conn: &mut Connection,
    user: UserId,
    key: &str,
    request: &Digest,
    expires_at: Timestamp,
    now: Timestamp,
) -> Result<Claim, StoreError> {
    query("DELETE FROM idempotency WHERE user_id = $1 AND idempotency_key = $2 AND expires_at <= $3")
        .bind(user)
        .bind(key)
        .bind(now)
        .run(conn)
        .await?;
    let took = query(
        "INSERT INTO idempotency (user_id, idempotency_key, request_digest, created_at, expires_at) \
         VALUES ($1, $2, $3, $4, $5) ON CONFLICT DO NOTHING",
    )
    .bind(user)
    .bind(key)
    .bind(request)
    .bind(now)
    .bind(expires_at)
    .took(conn)
    .await?;
    if took {
        return Ok(Claim::New);
    }
    let known = query(
        "SELECT request_digest, status, response FROM idempotency WHERE user_id = $1 AND idempotency_key = $2",
    )
    .bind(user)
    .bind(key)
    .find(conn, |row| Ok((row.get::<Digest>("request_digest")?, answer(row)?)))
    .await?;
    Ok(match known {
        Some((digest, _)) if digest != *request => Claim::Different,
        Some((_, Some(answer))) => Claim::Answered(answer),
        _ => Claim::Pending,
    })
}

/// Records the answer, in the transaction of the work itself; whether the key was claimed and unanswered.
///
/// # Errors
/// If the database fails.
pub async fn update_answered(
    conn: &mut Connection,
    user: UserId,
    key: &str,
    answer: &Answer,
) -> Result<bool, StoreError> {
    query(
        "UPDATE idempotency SET status = $3, response = $4 \
         WHERE user_id = $1 AND idempotency_key = $2 AND status IS NULL",
    )
    .bind(user)
    .bind(key)
    .bind(answer.status)
    .bind(answer.body.as_ref())
    .took(conn)
    .await
}

/// Gives a claimed key back, as after work that failed and may be tried again; whether it was unanswered.
///
/// # Errors
/// If the database fails.
pub async fn delete_unanswered(conn: &mut Connection, user: UserId, key: &str) -> Result<bool, StoreError> {
    query("DELETE FROM idempotency WHERE user_id = $1 AND idempotency_key = $2 AND status IS NULL")
        .bind(user)
        .bind(key)
        .took(conn)
        .await
}

/// How many keys of a user are remembered at `now`, and when the first of them ends; `now` if there are none.
///
/// # Errors
/// If the database fails.
pub async fn living(
    conn: &mut Connection,
    user: UserId,
    now: Timestamp,
) -> Result<(u64, Timestamp), StoreError> {
    let found = query(
        "SELECT COUNT(*) AS living, COALESCE(MIN(expires_at), $2) AS first_ends FROM idempotency \
         WHERE user_id = $1 AND expires_at > $2",
    )
    .bind(user)
    .bind(now)
    .find(conn, |row| Ok((row.get::<u64>("living")?, row.get::<Timestamp>("first_ends")?)))
    .await?;
    Ok(found.unwrap_or((0, now)))
}

/// Removes keys that expired; how many.
///
/// # Errors
/// If the database fails.
pub async fn delete_expired(conn: &mut Connection, now: Timestamp) -> Result<u64, StoreError> {
    query("DELETE FROM idempotency WHERE expires_at <= $1").bind(now).run(conn).await
}

fn answer(row: &Row) -> Result<Option<Answer>, StoreError> {
    let status = row.find("status")?;
    let body = row.find("response")?;
    Ok(status.map(|status| Answer { status, body }))
}
