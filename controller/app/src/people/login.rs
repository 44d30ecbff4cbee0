//! Logging in with a password.
//!
//! **What it promises.** A party's attempts are limited before anything is done for them, then the attempts at one name
//! and of all who are not known. Every wrong password counts for its name and party, and five within five minutes lock
//! that name for that party for five minutes (P2). Nobody locks a name for somebody else: a party from which a user has
//! logged in before is not held up by strangers, neither by their limits nor in their queue. A name that exists and one
//! that does not are answered alike, in words and in time.

use std::net::IpAddr;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use fleetward_domain::people::attempt::{Party, TooMany};
use fleetward_domain::people::lockout::Locked;
use fleetward_domain::people::session as rule;
use fleetward_protocol::digest::Digest;
use fleetward_protocol::id::SessionId;
use fleetward_protocol::name::UserName;
use fleetward_protocol::printable::to_line;
use fleetward_protocol::time::Timestamp;
use fleetward_store::StoreError;
use fleetward_store::people::session;
use fleetward_store::people::session::{Session, SessionKind};
use fleetward_store::people::user::{self, User};
use tracing::warn;
use uuid::Uuid;

use crate::App;
use crate::people::access::Caller;
use crate::people::actor::Actor;
use crate::people::attempt::{Guesser, party};
use crate::people::audit::{self, Entry};
use crate::people::password::{NotComputed, Standing};
use crate::people::user::{TOKEN_PREFIX, caller};
use crate::refusal;

const MAX_CLIENT_NAME: usize = 120;
/// Parties from which a user has logged in that are remembered, the latest.
const MAX_KNOWN: usize = 16;

/// A login that succeeded.
#[derive(Debug, Clone)]
pub struct Login {
    /// The bearer's secret; only its digest is kept.
    pub token: String,
    /// When it stops working.
    pub expires_at: Timestamp,
    /// Who it is.
    pub caller: Caller,
}

/// Why a login failed.
#[derive(Debug, thiserror::Error)]
pub enum LoginError {
    /// The name or the password is wrong, or the user is disabled.
    #[error("wrong user name or password")]
    Wrong,
    /// Too many wrong passwords for this name from there.
    #[error(transparent)]
    Locked(#[from] Locked),
    /// Too many attempts.
    #[error(transparent)]
    TooMany(#[from] TooMany),
    /// The hash was not computed.
    #[error(transparent)]
    Hash(#[from] NotComputed),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Logs in with a password. Every attempt counts (P2) and is audited, refusals in sum.
///
/// # Errors
/// [`LoginError`]; a wrong name and a wrong password are not told apart.
pub async fn login(
    app: &App,
    name: &UserName,
    password: &str,
    client: &str,
    remote: Option<IpAddr>,
) -> Result<Login, LoginError> {
    let result = try_login(app, name, password, client, remote).await;
    let reason = match &result {
        Ok(_) => return result.inspect(|_| app.metrics().logged_in("succeeded")),
        Err(LoginError::Wrong) => "wrong user name or password",
        Err(LoginError::Locked(_)) => "locked",
        Err(LoginError::TooMany(_) | LoginError::Hash(NotComputed::Busy { .. })) => "too many attempts",
        Err(LoginError::Hash(NotComputed::Failed(_)) | LoginError::Store(_)) => return result,
    };
    app.metrics().logged_in("refused");
    refuse(app, "login.refused", name, reason, remote).await;
    result
}

async fn try_login(
    app: &App,
    name: &UserName,
    password: &str,
    client: &str,
    remote: Option<IpAddr>,
) -> Result<Login, LoginError> {
    let party = party(remote);
    let user = verify(app, name, password, party, remote).await?;
    let now = app.now();
    let token = secret();
    let expires_at = rule::expires_at(now);
    let session = Session {
        id: SessionId::from_uuid(Uuid::now_v7()),
        user: user.id,
        kind: SessionKind::Login,
        secret_digest: Digest::of(token.as_bytes()),
        name: to_line(client, MAX_CLIENT_NAME),
        created_at: now,
        last_used_at: now,
        expires_at: Some(expires_at),
    };
    let mut tx = app.store().write().await?;
    // In the transaction that makes the login: the user is still enabled, and the password is still that one.
    let known = with_latest(&user.known_parties, party);
    let was = user.password_hash.as_deref().unwrap_or_default();
    if !user::update_known_parties(&mut tx, user.id, was, &known).await? {
        return Err(LoginError::Wrong);
    }
    session::insert(&mut tx, &session).await?;
    let caller = caller(&mut tx, user, &session, remote).await?;
    audit::record(&mut tx, Entry::new("login.succeeded", caller.actor(), name), now).await?;
    tx.commit().await?;
    Ok(Login { token, expires_at, caller })
}

/// The user, if the password is theirs and they may log in. Failures are counted, and too many of them lock.
async fn verify(
    app: &App,
    name: &UserName,
    password: &str,
    party: Party,
    remote: Option<IpAddr>,
) -> Result<User, LoginError> {
    let attempts = app.attempts();
    attempts.logins.admit_party(party, app.now())?;
    let mut turn = attempts.turn(Guesser::At(name.clone(), party), app.now()).await?;
    // Before anything is looked at, so that a lock tells nothing of what it locks.
    turn.check(app.now())?;
    let mut conn = app.store().read().await?;
    let user = user::find(&mut conn, name).await?;
    drop(conn);
    let standing = match &user {
        Some(user) if user.known_parties.contains(&party) => Standing::Known,
        _ => Standing::Stranger,
    };
    if standing == Standing::Stranger {
        attempts.logins.admit_stranger(Digest::of(name.as_str().as_bytes()), app.now())?;
    }
    let user = user.filter(|user| user.disabled_at.is_none());
    let hash = user.as_ref().and_then(|user| user.password_hash.clone());
    let is_right = app.passwords().verify(password, hash, standing).await?;
    let counted = std::mem::take(&mut *turn);
    if let (true, Some(user)) = (is_right, user) {
        *turn = counted.handle_success();
        return Ok(user);
    }
    let now = app.now();
    *turn = counted.handle_failure(now);
    if turn.check(now).is_err() {
        refuse(app, "login.locked", name, "five wrong passwords within five minutes", remote).await;
    }
    Err(LoginError::Wrong)
}

async fn refuse(app: &App, kind: &'static str, name: &UserName, reason: &str, remote: Option<IpAddr>) {
    let entry = || Entry::new(kind, Actor::Unknown { remote }, name).with("reason", reason);
    if refusal::record(app, kind, refusal::stranger(remote), entry).await
        == fleetward_domain::people::refusal::Telling::Now
    {
        let remote = party(remote);
        warn!(%remote, user = %name, reason, "{kind}");
    }
}

/// The parties with this one as the latest.
fn with_latest(known: &[Party], party: Party) -> Vec<Party> {
    let mut all: Vec<Party> = known.iter().copied().filter(|&other| other != party).collect();
    all.push(party);
    all.split_off(all.len().saturating_sub(MAX_KNOWN))
}

/// 256 random bits.
fn secret() -> String {
    format!("{TOKEN_PREFIX}{}", URL_SAFE_NO_PAD.encode(rand::random::<[u8; 32]>()))
}

#[cfg(test)]
mod tests;
