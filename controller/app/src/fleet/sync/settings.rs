//! Where a tenant's inventory comes from: setting, showing and removing its repository.

use std::time::Duration;

use fleetward_protocol::id::TenantId;
use fleetward_protocol::time::Timestamp;
use fleetward_repo::{Credentials, HostKeys, InvalidRemote, Reach, Remote, RemoteUrl};
use fleetward_store::fleet::repository::{Good, Repository};
use fleetward_store::fleet::sync::Sync;
use fleetward_store::page::PageRequest;
use fleetward_store::{self as store, Connection, Scope, StoreError};

use super::Syncer;
use crate::people::actor::Actor;
use crate::people::audit::{self, Entry};
use crate::secret::{SecretBox, SecretError};

/// The branch followed when none is named.
const DEFAULT_BRANCH: &str = "main";
/// The interval when none is named.
const DEFAULT_INTERVAL: Duration = Duration::from_secs(15 * 60);
/// The shortest interval: a remote is somebody else's machine.
const MIN_INTERVAL: Duration = Duration::from_secs(60);
/// The longest interval.
const MAX_INTERVAL: Duration = Duration::from_secs(30 * 24 * 3600);
/// What sealed credentials are for: they open for nothing else.
const PURPOSE: &str = "repository.credentials";

/// New settings of a repository.
#[derive(Debug, Clone)]
pub struct SettingsChange {
    /// Where it is, as a person wrote it.
    pub url: String,
    /// The branch; `main` when absent.
    pub branch: Option<String>,
    /// How often it is synchronised, zero for on demand only; 15 minutes when absent.
    pub interval: Option<Duration>,
    /// What authenticates us. When absent, what is stored stays if the server stays the same, and is dropped
    /// otherwise: one server's credentials are never sent to another.
    pub credentials: Option<Credentials>,
}

/// A repository's settings as they may be shown.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Where it is.
    pub url: String,
    /// The branch followed.
    pub branch: String,
    /// What kind of credentials are stored.
    pub credentials: CredentialKind,
    /// The SSH host keys required, if any are.
    pub host_keys: Option<HostKeys>,
    /// How often it is synchronised; zero for on demand only.
    pub interval: Duration,
    /// What is in force, and where it came from; it may be another repository than this one.
    pub good: Option<Good>,
    /// The last attempt with this URL and branch, good or not.
    pub last: Option<Sync>,
}

/// What kind of credentials a repository has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CredentialKind {
    /// None.
    None,
    /// User and password or token.
    Password,
    /// A private key.
    SshKey,
}

/// Why settings were not taken.
#[derive(Debug, thiserror::Error)]
pub enum SetError {
    /// They do not fit together.
    #[error(transparent)]
    Invalid(#[from] InvalidRemote),
    /// The interval is out of bounds.
    #[error("an interval is 0 for on demand only, or from 1 minute to 30 days")]
    Interval,
    /// Credentials could not be sealed, or those stored not opened.
    #[error("keep the credentials")]
    Secret(#[from] SecretError),
    /// The store failed.
    #[error("the database did not take part")]
    Store(#[from] StoreError),
}

impl Syncer {
    /// Sets a tenant's repository, and wakes the background task, which synchronises it if it has an interval.
    ///
    /// # Errors
    /// [`SetError`]; nothing is changed then.
    pub async fn set(
        &self,
        tenant: TenantId,
        change: SettingsChange,
        by: &Actor,
    ) -> Result<Settings, SetError> {
        let parts = &self.0.parts;
        let url: RemoteUrl = change.url.parse()?;
        if url.is_local() && parts.limits.reach == Reach::Others {
            return Err(InvalidRemote::Local(url.as_str().to_owned()).into());
        }
        let interval = change.interval.unwrap_or(DEFAULT_INTERVAL);
        if !interval.is_zero() && !(MIN_INTERVAL..=MAX_INTERVAL).contains(&interval) {
            return Err(SetError::Interval);
        }
        let mut tx = parts.store.write().await?;
        let now = parts.clock.now();
        let before = store::fleet::repository::find(&mut tx, &Scope::of(tenant), tenant).await?;
        let credentials = match (change.credentials, &before) {
            (Some(credentials), _) => credentials,
            (None, Some(before)) if before.url.parse().is_ok_and(|stored| url.same_server(&stored)) => {
                open(&parts.secrets, before)?
            }
            (None, _) => Credentials::None,
        };
        let branch = change.branch.as_deref().unwrap_or(DEFAULT_BRANCH);
        let remote = Remote::new(url, branch, credentials)?;
        let repository = Repository {
            tenant,
            url: remote.url().as_str().to_owned(),
            branch: remote.branch().to_owned(),
            credentials: seal(&parts.secrets, remote.credentials())?,
            interval,
            good: before.as_ref().and_then(|before| before.good.clone()),
            created_at: now,
            updated_at: now,
        };
        store::fleet::repository::update(&mut tx, &repository).await?;
        audit::record(&mut tx, entry("repository.set", by, &repository), now).await?;
        tx.commit().await?;
        self.0.settings_changed.notify_one();
        let shown = self.settings(tenant).await?;
        Ok(shown.unwrap_or_else(|| show(&repository, remote.credentials(), None)))
    }

    /// A tenant's repository, if it has one.
    ///
    /// # Errors
    /// If the store fails.
    pub async fn settings(&self, tenant: TenantId) -> Result<Option<Settings>, StoreError> {
        let parts = &self.0.parts;
        let scope = Scope::of(tenant);
        let mut conn = parts.store.read().await?;
        let Some(repository) = store::fleet::repository::find(&mut conn, &scope, tenant).await? else {
            return Ok(None);
        };
        let last = last_attempt(&mut conn, &repository).await?;
        // What cannot be opened is told by the next attempt, in words; here it only has no kind.
        let credentials = open(&parts.secrets, &repository).unwrap_or_default();
        Ok(Some(show(&repository, &credentials, last)))
    }

    /// Removes a tenant's repository; whether it had one. What came from it stays as it is.
    ///
    /// # Errors
    /// If the store fails.
    pub async fn remove(&self, tenant: TenantId, by: &Actor) -> Result<bool, StoreError> {
        let mut tx = self.0.parts.store.write().await?;
        let Some(repository) = store::fleet::repository::find(&mut tx, &Scope::of(tenant), tenant).await?
        else {
            return Ok(false);
        };
        store::fleet::repository::delete(&mut tx, tenant).await?;
        audit::record(&mut tx, entry("repository.removed", by, &repository), self.0.parts.clock.now())
            .await?;
        tx.commit().await?;
        self.0.settings_changed.notify_one();
        Ok(true)
    }
}

/// The last attempt with the repository as it is set: what another one answered says nothing about it.
pub(super) async fn last_attempt(
    conn: &mut Connection,
    repository: &Repository,
) -> Result<Option<Sync>, StoreError> {
    let scope = Scope::of(repository.tenant);
    let last = store::fleet::sync::list(conn, &scope, &PageRequest::first(1)).await?.items.pop();
    Ok(last.filter(|last| (&last.url, &last.branch) == (&repository.url, &repository.branch)))
}

/// The remote that a stored repository stands for, or why it stands for none.
pub(super) fn remote(secrets: &SecretBox, repository: &Repository) -> Result<Remote, String> {
    let credentials = open(secrets, repository).map_err(|error| error.to_string())?;
    let url = repository.url.parse().map_err(|error: InvalidRemote| error.to_string())?;
    Remote::new(url, &repository.branch, credentials).map_err(|error| error.to_string())
}

/// Stores the first key that an SSH server showed, unless the settings were changed meanwhile; whether it did.
pub(super) async fn record_host_key(
    conn: &mut Connection,
    secrets: &SecretBox,
    fetched_with: &Repository,
    host_key: &HostKeys,
    now: Timestamp,
) -> Result<bool, StoreError> {
    let tenant = fetched_with.tenant;
    let current = store::fleet::repository::find(conn, &Scope::of(tenant), tenant).await?;
    let Some(current) = current.filter(|current| current.credentials == fetched_with.credentials) else {
        return Ok(false);
    };
    let Ok(Credentials::SshKey { private_key, passphrase, host_keys: None }) = open(secrets, &current) else {
        return Ok(false);
    };
    let host_keys = Some(host_key.clone());
    let Ok(sealed) = seal(secrets, &Credentials::SshKey { private_key, passphrase, host_keys }) else {
        return Ok(false);
    };
    store::fleet::repository::update(conn, &Repository { credentials: sealed, updated_at: now, ..current })
        .await?;
    Ok(true)
}

fn open(secrets: &SecretBox, repository: &Repository) -> Result<Credentials, SecretError> {
    let Some(sealed) = &repository.credentials else { return Ok(Credentials::None) };
    let plain = secrets.open(PURPOSE, sealed)?;
    serde_json::from_slice(&plain).map_err(|_| SecretError::NotOurs)
}

fn seal(secrets: &SecretBox, credentials: &Credentials) -> Result<Option<Vec<u8>>, SecretError> {
    if matches!(credentials, Credentials::None) {
        return Ok(None);
    }
    let plain = serde_json::to_vec(credentials).map_err(|_| SecretError::NotSealed)?;
    secrets.seal(PURPOSE, &plain).map(Some)
}

fn show(repository: &Repository, credentials: &Credentials, last: Option<Sync>) -> Settings {
    let (kind, host_keys) = match credentials {
        Credentials::None => (CredentialKind::None, None),
        Credentials::Password { .. } => (CredentialKind::Password, None),
        Credentials::SshKey { host_keys, .. } => (CredentialKind::SshKey, host_keys.clone()),
    };
    Settings {
        url: repository.url.clone(),
        branch: repository.branch.clone(),
        credentials: kind,
        host_keys,
        interval: repository.interval,
        good: repository.good.clone(),
        last,
    }
}

fn entry(kind: &'static str, by: &Actor, repository: &Repository) -> Entry {
    Entry::new(kind, by.clone(), &repository.url)
        .tenant(repository.tenant)
        .with("branch", repository.branch.clone())
}
