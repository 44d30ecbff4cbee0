//! A request that is sent again with the same key is answered as it was, and not carried out again.
//!
//! The answer may hold what is shown only once (a token), so it is sealed before it is kept.
//!
//! What is kept is bounded: a user has at most [`MAX_KEYS`] living keys, and of an answer above [`MAX_KEPT`] only the
//! status is kept.
//!
//! **What it promises.** Per user and key at most one request is carried out within [`LIFETIME`]. One that the
//! controller was stopped in the middle of is not tried again by itself: nobody knows whether it took effect, and
//! the caller is told so.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use fleetward_protocol::digest::Digest;
use fleetward_store::StoreError;
use fleetward_store::people::idempotency::{self, Answer, Claim};

use crate::App;
use crate::people::access::Caller;
use crate::secret::SecretError;

/// How long a key is remembered.
pub const LIFETIME: Duration = Duration::from_secs(24 * 60 * 60);
/// The living keys that a user has at most: one who makes more is answered with 429 until the first one is forgotten.
pub const MAX_KEYS: u64 = 10_000;
/// The largest answer that is kept, in bytes.
pub const MAX_KEPT: usize = 64 << 10;
const PURPOSE: &str = "idempotency.response";

/// What is to be done with a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Carry it out, then call [`finish`] or [`abandon`].
    New,
    /// Answer with this, as before.
    Answered {
        /// The status.
        status: u16,
        /// The body.
        body: Vec<u8>,
    },
}

/// Why a request is not carried out.
#[derive(Debug, thiserror::Error)]
pub enum IdempotencyError {
    /// The key was used for another request.
    #[error("the idempotency key was used for another request; take a new key for a new request")]
    Reused,
    /// The first one has not been answered yet, or never will be.
    #[error(
        "the first request with this idempotency key has no answer: it is still under way, or the controller was stopped in the middle of it; look whether it took effect, and take a new key if it did not"
    )]
    Unanswered,
    /// The first one was carried out, and its answer was too large to be kept.
    #[error(
        "the request with this idempotency key was carried out and answered with status {status}; its answer was too large to be kept, so look up what it did"
    )]
    NotKept {
        /// The status of the first answer.
        status: u16,
    },
    /// The user has too many living keys.
    #[error(
        "you have {MAX_KEYS} idempotency keys of the last 24 hours; wait, or send requests without a key where a repetition does no harm"
    )]
    TooMany {
        /// How long until the first of them is forgotten.
        retry_after: Duration,
    },
    /// The answer is kept, and cannot be opened, or cannot be sealed.
    #[error("keep the answer to a request")]
    Secret(#[from] SecretError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Begins a request of the caller.
///
/// # Errors
/// [`IdempotencyError`].
pub async fn begin(
    app: &App,
    caller: &Caller,
    key: &str,
    request: &Digest,
) -> Result<Verdict, IdempotencyError> {
    let now = app.now();
    let mut tx = app.store().write().await?;
    let claim = idempotency::insert(&mut tx, caller.user, key, request, now + LIFETIME, now).await?;
    if claim == Claim::New {
        let (living, first_ends) = idempotency::living(&mut tx, caller.user, now).await?;
        if living > MAX_KEYS {
            let retry_after = first_ends.since(now).clamp(Duration::from_secs(1), LIFETIME);
            return Err(IdempotencyError::TooMany { retry_after });
        }
    }
    tx.commit().await?;
    match claim {
        Claim::New => Ok(Verdict::New),
        Claim::Different => Err(IdempotencyError::Reused),
        Claim::Pending => Err(IdempotencyError::Unanswered),
        Claim::Answered(Answer { status, body: None }) => Err(IdempotencyError::NotKept { status }),
        Claim::Answered(Answer { status, body: Some(body) }) => {
            let sealed = STANDARD.decode(body).map_err(|_| SecretError::NotOurs)?;
            Ok(Verdict::Answered { status, body: app.secrets().open(PURPOSE, &sealed)? })
        }
    }
}

/// Keeps the answer of a request that was begun; of a large one only that there was one.
///
/// # Errors
/// If it cannot be sealed or stored.
pub async fn finish(
    app: &App,
    caller: &Caller,
    key: &str,
    status: u16,
    body: &[u8],
) -> Result<(), IdempotencyError> {
    let sealed = match body.len() {
        0..=MAX_KEPT => Some(STANDARD.encode(app.secrets().seal(PURPOSE, body)?)),
        _ => None,
    };
    let answer = Answer { status, body: sealed };
    let mut tx = app.store().write().await?;
    idempotency::update_answered(&mut tx, caller.user, key, &answer).await?;
    Ok(tx.commit().await?)
}

/// Forgets a request that was begun and took no effect.
///
/// # Errors
/// If the store fails.
pub async fn abandon(app: &App, caller: &Caller, key: &str) -> Result<(), IdempotencyError> {
    let mut tx = app.store().write().await?;
    idempotency::delete_unanswered(&mut tx, caller.user, key).await?;
    Ok(tx.commit().await?)
}
