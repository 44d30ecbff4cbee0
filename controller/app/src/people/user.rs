//! Users: staying logged in, passwords. (Logging in is in `login`.)

use std::net::IpAddr;
use std::time::Duration;

use fleetward_domain::people::attempt::TooMany;
use fleetward_domain::people::lockout::Locked;
use fleetward_domain::people::permission::{Grant, Role};
use fleetward_domain::people::session as rule;
use fleetward_protocol::digest::Digest;
use fleetward_protocol::id::{SessionId, TenantId, UserId};
use fleetward_protocol::name::UserName;
use fleetward_protocol::time::Timestamp;
use fleetward_store::page::{Page, PageRequest};
use fleetward_store::people::session;
use fleetward_store::people::session::{Session, SessionKind};
use fleetward_store::people::user::{self, User};
use fleetward_store::{Connection, StoreError, Tx};
use tokio::time::timeout;
use tracing::{debug, warn};
use uuid::Uuid;

use crate::App;
use crate::people::access::Caller;
use crate::people::actor::Actor;
use crate::people::attempt::Guesser;
use crate::people::audit::{self, Entry};
use crate::people::ending::Ending;
use crate::people::password::{self, HashFailed, NotComputed, Standing, Unacceptable};
use crate::refusal;

/// How exact the time of a session's last use is.
const USE_NOTED: Duration = Duration::from_secs(60);
/// How long a request waits until its session's use is noted.
const NOTE_WITHIN: Duration = Duration::from_secs(1);
/// What a login's secret begins with.
pub(crate) const TOKEN_PREFIX: &str = "fws_";

/// Why a bearer is nobody.
#[derive(Debug, thiserror::Error)]
pub enum NotAuthenticated {
    /// No such session, or it has ended (P3).
    #[error("the login is not valid any more; log in again")]
    Invalid,
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Why a password was not changed.
#[derive(Debug, thiserror::Error)]
pub enum PasswordError {
    /// The current password is not the one given.
    #[error("the current password is wrong")]
    WrongCurrent,
    /// This login gave too many wrong ones.
    #[error(transparent)]
    Locked(#[from] Locked),
    /// Too many of this login at once.
    #[error(transparent)]
    TooMany(#[from] TooMany),
    /// The new password is not acceptable.
    #[error(transparent)]
    Unacceptable(#[from] Unacceptable),
    /// The login, or the current password, ended while it was looked at.
    #[error("the login is not valid any more; log in again")]
    Ended,
    /// The hash was not computed.
    #[error(transparent)]
    Hash(#[from] NotComputed),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Why a user was not given a one-time password.
#[derive(Debug, thiserror::Error)]
pub enum GivePasswordError {
    /// The hash could not be computed.
    #[error(transparent)]
    Hash(#[from] HashFailed),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Who a bearer is.
///
/// # Errors
/// [`NotAuthenticated::Invalid`] for anything but a live session of an enabled user.
pub async fn authenticate(
    app: &App,
    token: &str,
    remote: Option<IpAddr>,
) -> Result<Caller, NotAuthenticated> {
    if !token.starts_with(TOKEN_PREFIX) || token.len() > 128 {
        return Err(NotAuthenticated::Invalid);
    }
    let now = app.now();
    let mut conn = app.store().read().await?;
    let session = session::find_live(&mut conn, &Digest::of(token.as_bytes()), now)
        .await?
        .ok_or(NotAuthenticated::Invalid)?;
    if session.kind == SessionKind::Login && rule::check(session.created_at, now).is_err() {
        return Err(NotAuthenticated::Invalid);
    }
    let user = user::get(&mut conn, session.user).await?;
    if user.disabled_at.is_some() {
        return Err(NotAuthenticated::Invalid);
    }
    let caller = caller(&mut conn, user, &session, remote).await?;
    drop(conn);
    if now.since(session.last_used_at) >= USE_NOTED {
        // Only told to people. While the disk is full or the database busy, everything can still be looked at.
        match timeout(NOTE_WITHIN, note_used(app, session.id, now)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => warn!(%error, "login.use_not_noted"),
            Err(_) => debug!("login.use_not_noted"),
        }
    }
    Ok(caller)
}

async fn note_used(app: &App, session: SessionId, now: Timestamp) -> Result<(), StoreError> {
    let mut tx = app.store().write().await?;
    session::update_used(&mut tx, session, now - USE_NOTED, now).await?;
    tx.commit().await
}

/// Ends the caller's own session.
///
/// # Errors
/// If the store fails.
pub async fn logout(app: &App, caller: &Caller) -> Result<(), StoreError> {
    end_session(app, caller, caller.session).await.map(|_| ())
}

/// The caller's sessions, the latest first.
///
/// # Errors
/// If the cursor is not from this list, or the store fails.
pub async fn list_sessions(
    app: &App,
    caller: &Caller,
    page: &PageRequest,
) -> Result<Page<Session>, StoreError> {
    let mut conn = app.store().read().await?;
    session::list(&mut conn, caller.user, page).await
}

/// Ends one of the caller's sessions; whether there was such a one.
///
/// # Errors
/// If the store fails.
pub async fn end_session(app: &App, caller: &Caller, id: SessionId) -> Result<bool, StoreError> {
    let mut tx = app.store().write().await?;
    let ended = session::delete(&mut tx, caller.user, id).await?;
    if ended {
        audit::record(&mut tx, Entry::new("session.ended", caller.actor(), id), app.now()).await?;
    }
    tx.commit().await?;
    if ended {
        app.endings().announce(Ending::Session(id));
    }
    Ok(ended)
}

/// Replaces the caller's password and ends their other sessions. What others guess from elsewhere does not lock it;
/// wrong ones of this login do.
///
/// # Errors
/// [`PasswordError`].
pub async fn change_password(
    app: &App,
    caller: &Caller,
    current: &str,
    new: &str,
) -> Result<(), PasswordError> {
    let result = try_change_password(app, caller, current, new).await;
    let reason = match &result {
        Err(PasswordError::WrongCurrent) => "wrong password",
        Err(PasswordError::Locked(_)) => "locked",
        _ => return result,
    };
    const KIND: &str = "user.password_refused";
    let entry = || Entry::new(KIND, caller.actor(), &caller.name).with("reason", reason);
    let _ = refusal::record(app, KIND, refusal::stranger(caller.remote), entry).await;
    result
}

async fn try_change_password(
    app: &App,
    caller: &Caller,
    current: &str,
    new: &str,
) -> Result<(), PasswordError> {
    password::check(new, current)?;
    let mut turn = app.attempts().turn(Guesser::Within(caller.session), app.now()).await?;
    turn.check(app.now())?;
    let mut conn = app.store().read().await?;
    let user = user::get(&mut conn, caller.user).await?;
    drop(conn);
    let is_right = app.passwords().verify(current, user.password_hash.clone(), Standing::Known).await?;
    let counted = std::mem::take(&mut *turn);
    *turn = if is_right { counted.handle_success() } else { counted.handle_failure(app.now()) };
    if !is_right {
        return Err(PasswordError::WrongCurrent);
    }
    let hash = app.passwords().hash(new, Standing::Known).await?;
    let now = app.now();
    let mut tx = app.store().write().await?;
    // What was verified must still be so: the login goes on, and the password is still that one.
    let is_live = session::is_of(&mut tx, user.id, caller.session).await?;
    let was = user.password_hash.as_deref().unwrap_or_default();
    if !is_live || !user::update_own_password(&mut tx, user.id, was, &hash, now).await? {
        return Err(PasswordError::Ended);
    }
    session::delete_all(&mut tx, user.id, Some(caller.session)).await?;
    audit::record(&mut tx, Entry::new("user.password_changed", caller.actor(), &caller.name), now).await?;
    tx.commit().await?;
    app.endings().announce(Ending::AllBut(user.id, Some(caller.session)));
    Ok(())
}

/// Adds an administrator with a one-time password, which is returned: for `init`.
///
/// # Errors
/// If the name is taken or the store fails.
pub async fn insert_admin(
    tx: &mut Tx,
    name: &UserName,
    tenant: TenantId,
    now: Timestamp,
) -> Result<String, GivePasswordError> {
    let password = password::one_time();
    let user = User {
        id: UserId::from_uuid(Uuid::now_v7()),
        name: name.clone(),
        password_hash: Some(password::hash(&password)?),
        must_change_password: true,
        known_parties: Vec::new(),
        disabled_at: None,
        created_at: now,
    };
    user::insert(tx, &user).await?;
    user::insert_grant(tx, user.id, Grant { tenant, role: Role::Admin }, now).await?;
    audit::record(tx, Entry::new("user.added", Actor::System, name).with("role", "admin"), now).await?;
    Ok(password)
}

/// Gives a user a one-time password, which is returned, and ends their sessions: for an administrator on the
/// controller's own machine. `None` if there is no such user.
///
/// # Errors
/// If the store fails.
pub async fn reset_password(
    tx: &mut Tx,
    name: &UserName,
    now: Timestamp,
) -> Result<Option<String>, GivePasswordError> {
    let Some(user) = user::find(tx, name).await? else { return Ok(None) };
    let password = password::one_time();
    user::update_password(tx, user.id, &password::hash(&password)?, true, now).await?;
    session::delete_all(tx, user.id, None).await?;
    audit::record(tx, Entry::new("user.password_reset", Actor::System, name), now).await?;
    Ok(Some(password))
}

/// The user, as who uses this session.
pub(crate) async fn caller(
    conn: &mut Connection,
    user: User,
    session: &Session,
    remote: Option<IpAddr>,
) -> Result<Caller, StoreError> {
    let grants = user::list_grants(conn, user.id).await?;
    Ok(Caller {
        user: user.id,
        name: user.name,
        session: session.id,
        ends_at: session.expires_at,
        grants,
        must_change_password: user.must_change_password,
        remote,
    })
}

#[cfg(test)]
mod tests;
