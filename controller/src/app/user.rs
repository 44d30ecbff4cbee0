//! Users: logging in, staying logged in, passwords.

use std::hash::{BuildHasher as _, RandomState};
use std::net::IpAddr;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use fleetward_domain::lockout::{Locked, Lockout};
use fleetward_domain::permission::{Grant, Role};
use fleetward_domain::session as rule;
use fleetward_protocol::digest::Digest;
use fleetward_protocol::id::{SessionId, TenantId, UserId};
use fleetward_protocol::name::UserName;
use fleetward_protocol::time::Timestamp;
use tokio::sync::Mutex;
use uuid::Uuid;

use super::App;
use super::access::Caller;
use super::actor::Actor;
use super::audit::{self, Entry};
use super::password::{self, HashFailed, Passwords, Unacceptable};
use crate::store::session::{Session, SessionKind};
use crate::store::user::{self, User};
use crate::store::{Connection, StoreError, Tx, session};

/// How exact the time of a session's last use is.
const USE_NOTED: Duration = Duration::from_secs(60);
/// Logins of one name are looked at one after the other, so that parallel guesses meet the lock.
const STRIPES: usize = 64;
const TOKEN_PREFIX: &str = "fws_";
const MAX_CLIENT_NAME: usize = 120;

/// What logging in needs beside the store.
#[derive(Debug)]
pub struct Logins {
    passwords: Passwords,
    stripes: Vec<Mutex<()>>,
    hasher: RandomState,
}

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
    /// Too many failures.
    #[error(transparent)]
    Locked(#[from] Locked),
    /// The hash could not be computed.
    #[error(transparent)]
    Hash(#[from] HashFailed),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

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
    /// Too many failures.
    #[error(transparent)]
    Locked(#[from] Locked),
    /// The new password is not acceptable.
    #[error(transparent)]
    Unacceptable(#[from] Unacceptable),
    /// The hash could not be computed.
    #[error(transparent)]
    Hash(#[from] HashFailed),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Logins {
    pub(super) fn new() -> Self {
        let stripes = (0..STRIPES).map(|_| Mutex::new(())).collect();
        Self { passwords: Passwords::new(), stripes, hasher: RandomState::new() }
    }

    fn stripe(&self, name: &UserName) -> Option<&Mutex<()>> {
        let hash = self.hasher.hash_one(name);
        self.stripes.get(usize::try_from(hash % STRIPES as u64).unwrap_or(0))
    }
}

/// Logs in with a password. Every attempt counts (P2) and is audited.
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
    let refused = match &result {
        Ok(_) => return result.inspect(|_| app.metrics().logged_in("succeeded")),
        Err(LoginError::Wrong) => "wrong user name or password",
        Err(LoginError::Locked(_)) => "locked",
        Err(LoginError::Hash(_) | LoginError::Store(_)) => return result,
    };
    app.metrics().logged_in("refused");
    let entry = Entry::new("login.refused", Actor::Unknown { remote }, name).with("reason", refused);
    audit::record_alone(app, entry).await;
    result
}

async fn try_login(
    app: &App,
    name: &UserName,
    password: &str,
    client: &str,
    remote: Option<IpAddr>,
) -> Result<Login, LoginError> {
    let user = verify(app, name, password).await?;
    let user = user.filter(|user| user.disabled_at.is_none()).ok_or(LoginError::Wrong)?;
    let now = app.now();
    let token = secret();
    let expires_at = rule::expires_at(now);
    let session = Session {
        id: SessionId::from_uuid(Uuid::now_v7()),
        user: user.id,
        kind: SessionKind::Login,
        secret_digest: Digest::of(token.as_bytes()),
        name: client.chars().filter(|letter| !letter.is_control()).take(MAX_CLIENT_NAME).collect(),
        created_at: now,
        last_used_at: now,
        expires_at: Some(expires_at),
    };
    let mut tx = app.store().write().await?;
    session::insert(&mut tx, &session).await?;
    let caller = caller(&mut tx, user, session.id, remote).await?;
    audit::record(&mut tx, Entry::new("login.succeeded", caller.actor(), name), now).await?;
    tx.commit().await?;
    Ok(Login { token, expires_at, caller })
}

/// The user, if the password is theirs. Failures are counted, and too many of them lock.
async fn verify(app: &App, name: &UserName, password: &str) -> Result<Option<User>, LoginError> {
    let logins = app.logins();
    let _turn = match logins.stripe(name) {
        Some(stripe) => Some(stripe.lock().await),
        None => None,
    };
    let mut conn = app.store().read().await?;
    let user = user::find(&mut conn, name).await?;
    drop(conn);
    if let Some(user) = &user {
        user.lockout.check(app.now())?;
    }
    let hash = user.as_ref().and_then(|user| user.password_hash.clone());
    let is_right = logins.passwords.verify(password, hash).await?;
    let Some(user) = user else { return Ok(None) };
    let now = app.now();
    let change: fn(Lockout, Timestamp) -> Lockout =
        if is_right { |lockout, _| lockout.handle_success() } else { Lockout::handle_failure };
    let after = update_lockout(app, &user, now, change).await?;
    if !is_right && after.check(now).is_err() {
        let entry = Entry::new("login.locked", Actor::System, name);
        audit::record_alone(app, entry).await;
    }
    Ok(is_right.then_some(user))
}

/// Changes what is remembered of failures, whatever others change at the same time.
async fn update_lockout(
    app: &App,
    user: &User,
    now: Timestamp,
    change: fn(Lockout, Timestamp) -> Lockout,
) -> Result<Lockout, StoreError> {
    let mut from = user.lockout.clone();
    loop {
        let to = change(from.clone(), now);
        if to == from {
            return Ok(to);
        }
        let mut tx = app.store().write().await?;
        if user::update_lockout(&mut tx, user.id, &from, &to).await? {
            tx.commit().await?;
            return Ok(to);
        }
        from = user::get(&mut tx, user.id).await?.lockout;
    }
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
    let caller = caller(&mut conn, user, session.id, remote).await?;
    drop(conn);
    if now.since(session.last_used_at) >= USE_NOTED {
        let mut tx = app.store().write().await?;
        session::update_used(&mut tx, session.id, now - USE_NOTED, now).await?;
        tx.commit().await?;
    }
    Ok(caller)
}

/// Ends the caller's own session.
///
/// # Errors
/// If the store fails.
pub async fn logout(app: &App, caller: &Caller) -> Result<(), StoreError> {
    end_session(app, caller, caller.session).await.map(|_| ())
}

/// The caller's sessions, oldest first.
///
/// # Errors
/// If the store fails.
pub async fn list_sessions(app: &App, caller: &Caller) -> Result<Vec<Session>, StoreError> {
    let mut conn = app.store().read().await?;
    session::list(&mut conn, caller.user).await
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
    Ok(ended)
}

/// Replaces the caller's password and ends their other sessions.
///
/// # Errors
/// [`PasswordError`].
pub async fn change_password(
    app: &App,
    caller: &Caller,
    current: &str,
    new: &str,
) -> Result<(), PasswordError> {
    password::check(new, current)?;
    let user = match verify(app, &caller.name, current).await {
        Ok(Some(user)) => user,
        Ok(None) | Err(LoginError::Wrong) => return Err(PasswordError::WrongCurrent),
        Err(LoginError::Locked(locked)) => return Err(locked.into()),
        Err(LoginError::Hash(error)) => return Err(error.into()),
        Err(LoginError::Store(error)) => return Err(error.into()),
    };
    let hash = app.logins().passwords.hash(new).await?;
    let now = app.now();
    let mut tx = app.store().write().await?;
    user::update_password(&mut tx, user.id, &hash, false, now).await?;
    session::delete_all(&mut tx, user.id, Some(caller.session)).await?;
    audit::record(&mut tx, Entry::new("user.password_changed", caller.actor(), &caller.name), now).await?;
    tx.commit().await?;
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
) -> Result<String, LoginError> {
    let password = password::one_time();
    let user = User {
        id: UserId::from_uuid(Uuid::now_v7()),
        name: name.clone(),
        password_hash: Some(password::hash(&password)?),
        must_change_password: true,
        lockout: Lockout::default(),
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
) -> Result<Option<String>, LoginError> {
    let Some(user) = user::find(tx, name).await? else { return Ok(None) };
    let password = password::one_time();
    user::update_password(tx, user.id, &password::hash(&password)?, true, now).await?;
    session::delete_all(tx, user.id, None).await?;
    audit::record(tx, Entry::new("user.password_reset", Actor::System, name), now).await?;
    Ok(Some(password))
}

async fn caller(
    conn: &mut Connection,
    user: User,
    session: SessionId,
    remote: Option<IpAddr>,
) -> Result<Caller, StoreError> {
    let grants = user::list_grants(conn, user.id).await?;
    Ok(Caller {
        user: user.id,
        name: user.name,
        session,
        grants,
        must_change_password: user.must_change_password,
        remote,
    })
}

/// 256 random bits.
fn secret() -> String {
    format!("{TOKEN_PREFIX}{}", URL_SAFE_NO_PAD.encode(rand::random::<[u8; 32]>()))
}

#[cfg(test)]
mod tests;
