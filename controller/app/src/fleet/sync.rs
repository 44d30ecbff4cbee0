//! Synchronising a tenant's inventory with its git repository.
//!
//! **What for.** Fetch the branch, parse its files, put what they say in force.
//!
//! **What it promises.** All or nothing: hosts, scripts, history and audit event change in one transaction, or
//! only the history does and the last good inventory stays in force. Every attempt leaves a row that says how it
//! ended. Requests that come while a synchronisation of the tenant is under way share the one that follows it.
//! An attempt outlives the request that asked for it.
//!
//! **Deliberately absent.** Decisions about what an entry means: `fleetward_domain::fleet::inventory` reads the files.
//!
//! For people there are functions that take a [`Permit`]; the background task uses the [`Syncer`] itself.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use fleetward_domain::fleet::inventory::{self, Inventory, Problem, Severity};
use fleetward_protocol::id::{SyncId, TenantId};
use fleetward_repo::{self as repo, Fetched, History, Limits, Remote, Snapshot};
use fleetward_store::fleet::sync::{Counts, Departures, Ended, Sync, SyncStatus};
use fleetward_store::page::PageRequest;
use fleetward_store::{self as store, Scope, Store, StoreError};
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::App;
use crate::clock::Clock;
use crate::fleet::online::Fleet;
use crate::inbox::Dispatcher;
use crate::people::access::{ManageRepo, Need, Permit, Read};
use crate::people::actor::Actor;
use crate::secret::SecretBox;

mod apply;
mod record;
mod settings;

use apply::Acceptance;

#[cfg(test)]
mod tests;

pub use settings::{CredentialKind, SetError, Settings, SettingsChange};

/// What is tried again, how often and after how long.
#[derive(Debug, Clone, Copy)]
pub struct Retry {
    /// How often a fetch that failed on the network is tried again.
    pub times: u32,
    /// The pause before each.
    pub pause: Duration,
}

impl Retry {
    /// Twice, after five seconds each: what the systems we replace do.
    pub const DEFAULT: Self = Self { times: 2, pause: Duration::from_secs(5) };
}

/// What a syncer is made of.
#[derive(Debug)]
pub struct Parts {
    /// Where inventories and histories are.
    pub store: Store,
    /// What seals credentials.
    pub secrets: SecretBox,
    /// The directory of the mirrors, one per tenant.
    pub mirrors: PathBuf,
    /// The time.
    pub clock: Clock,
    /// The connected hosts: those that leave the inventory are cut off.
    pub fleet: Fleet,
    /// What is told of hosts that left.
    pub dispatcher: Dispatcher,
    /// What one fetch may take.
    pub limits: Limits,
    /// What is tried again.
    pub retry: Retry,
}

/// Synchronises inventories. Cheap to clone; every clone is the same one.
#[derive(Debug, Clone)]
pub struct Syncer(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    parts: Parts,
    stopping: CancellationToken,
    flights: Mutex<HashMap<TenantId, Arc<Flight>>>,
    changes: watch::Sender<u64>,
    settings_changed: Notify,
}

/// The synchronisations of one tenant: one at a time.
#[derive(Debug, Default)]
struct Flight {
    begun: AtomicU64,
    last: tokio::sync::Mutex<Option<(u64, Sync)>>,
}

/// Why a synchronisation did not even begin, or its end could not be written down.
#[derive(Debug, thiserror::Error)]
pub enum SyncError {
    /// The tenant has no repository.
    #[error("no inventory repository is set; set one with `fleetward repo set URL`")]
    NotConfigured,
    /// The store failed.
    #[error("the database did not take part")]
    Store(#[from] StoreError),
    /// A defect of this program.
    #[error("the synchronisation ended unexpectedly; the log has the reason")]
    Panicked,
}

/// Why an attempt failed: a repository that cannot be had, or files that cannot be used.
#[derive(Debug)]
enum Failure {
    Repository(String),
    Files(Vec<Problem>),
    /// Nothing is wrong; a person has to look first.
    Waits(Departures),
}

/// What an attempt learned before it ended.
#[derive(Debug, Default)]
struct Learned {
    fetched: Option<Fetched>,
    previous: Option<String>,
}

impl Learned {
    /// Whether what was fetched is the commit that a person accepted.
    fn acceptance(&self, accepted: Option<&str>) -> Acceptance {
        let fetched = self.fetched.as_ref().map(|fetched| fetched.commit.as_str());
        if accepted.is_some() && accepted == fetched { Acceptance::Given } else { Acceptance::Wanting }
    }
}

impl Syncer {
    /// Puts the parts together.
    #[must_use]
    pub fn new(parts: Parts) -> Self {
        Self(Arc::new(Inner {
            parts,
            stopping: CancellationToken::new(),
            flights: Mutex::default(),
            changes: watch::Sender::new(0),
            settings_changed: Notify::new(),
        }))
    }

    /// Synchronises a tenant's inventory now; the finished attempt, good or not. [`Actor::System`] is the
    /// interval. `accepted` is a commit of which a person has seen what it takes away: if that is what is found, it is
    /// put in force all the same.
    ///
    /// # Errors
    /// [`SyncError`]; an attempt that failed is not an error but a [`Sync`] that says so.
    pub async fn sync(
        &self,
        tenant: TenantId,
        by: &Actor,
        accepted: Option<String>,
    ) -> Result<Sync, SyncError> {
        let flight = Arc::clone(
            self.0.flights.lock().unwrap_or_else(PoisonError::into_inner).entry(tenant).or_default(),
        );
        let seen = flight.begun.load(Ordering::SeqCst);
        let (syncer, by) = (self.clone(), by.clone());
        // A task of its own: the caller may go away, the attempt ends as it should.
        let attempt = tokio::spawn(async move {
            let mut last = flight.last.lock().await;
            // What began after this request was made saw everything that this request could want.
            if let Some((number, sync)) = &*last
                && *number > seen
                && (accepted.is_none() || sync.status == SyncStatus::Succeeded)
            {
                return Ok(sync.clone());
            }
            let number = flight.begun.fetch_add(1, Ordering::SeqCst) + 1;
            let sync = syncer.attempt(tenant, &by, accepted.as_deref()).await?;
            *last = Some((number, sync.clone()));
            Ok(sync)
        });
        attempt.await.map_err(|_| SyncError::Panicked)?
    }

    /// The tenant's last attempts, newest first.
    ///
    /// # Errors
    /// If the store fails.
    pub async fn history(
        &self,
        scope: &Scope,
        page: &PageRequest,
    ) -> Result<store::page::Page<Sync>, StoreError> {
        let mut conn = self.0.parts.store.read().await?;
        store::fleet::sync::list(&mut conn, scope, page).await
    }

    /// Counts the synchronisations that changed hosts or scripts; a receiver is woken by each.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.0.changes.subscribe()
    }

    /// Ends a fetch that is under way at its next sign of life, and begins no other.
    pub fn stop(&self) {
        self.0.stopping.cancel();
    }

    /// Synchronises every tenant whose interval has passed since its last attempt, one after the other; how long
    /// until the next is due, if any has an interval.
    ///
    /// # Errors
    /// If the store fails; a failed attempt is no error.
    pub async fn sync_due(&self) -> Result<Option<Duration>, SyncError> {
        let mut next: Option<Duration> = None;
        let repositories = {
            let mut conn = self.0.parts.store.read().await?;
            store::fleet::repository::list(&mut conn, &Scope::Everything).await?
        };
        for repository in repositories.into_iter().filter(|repository| !repository.interval.is_zero()) {
            let last = {
                let mut conn = self.0.parts.store.read().await?;
                let scope = Scope::of(repository.tenant);
                store::fleet::sync::list(&mut conn, &scope, &PageRequest::first(1)).await?.items.pop()
            };
            let now = self.0.parts.clock.now();
            // An attempt of the future was made before the clock was set back. Nobody knows when that was: it is due.
            let passed = last.filter(|last| last.started_at <= now).map(|last| now.since(last.started_at));
            let wait = match passed {
                Some(passed) if passed < repository.interval => repository.interval - passed,
                _ => {
                    self.sync(repository.tenant, &Actor::System, None).await?;
                    repository.interval
                }
            };
            next = Some(next.map_or(wait, |next| next.min(wait)));
        }
        Ok(next)
    }

    /// Returns when a repository was set or removed since the last call.
    pub async fn settings_changed(&self) {
        self.0.settings_changed.notified().await;
    }

    async fn attempt(&self, tenant: TenantId, by: &Actor, accepted: Option<&str>) -> Result<Sync, SyncError> {
        let parts = &self.0.parts;
        let mut tx = parts.store.write().await?;
        let repository = store::fleet::repository::find(&mut tx, &Scope::of(tenant), tenant)
            .await?
            .ok_or(SyncError::NotConfigured)?;
        let before = settings::last_attempt(&mut tx, &repository).await?;
        let mut sync = Sync {
            id: SyncId::from_uuid(Uuid::now_v7()),
            tenant,
            url: repository.url.clone(),
            branch: repository.branch.clone(),
            triggered_by: triggered_by(by),
            status: SyncStatus::Running,
            started_at: parts.clock.now(),
            ended_at: None,
            commit: None,
            failure: None,
            problems: Vec::new(),
            counts: Counts::default(),
            departures: None,
        };
        store::fleet::sync::insert(&mut tx, &sync).await?;
        tx.commit().await?;
        let mut learned = Learned { fetched: None, previous: repository.good_commit().map(str::to_owned) };
        let result = match self.bring(&repository, &mut learned).await {
            Ok(inventory) => {
                let acceptance = learned.acceptance(accepted);
                self.put_in_force(&mut sync, by, &repository, &learned, inventory, acceptance).await?
            }
            Err(failure) => Err(failure),
        };
        if let Err(failure) = result {
            sync.commit = learned.fetched.map(|fetched| fetched.commit);
            self.note_refusal(&mut sync, by, before.as_ref(), failure).await?;
        }
        Ok(sync)
    }

    /// Fetches and parses; off the runtime's threads, as git blocks.
    async fn bring(
        &self,
        repository: &store::fleet::repository::Repository,
        learned: &mut Learned,
    ) -> Result<Inventory, Failure> {
        let parts = &self.0.parts;
        let remote = settings::remote(&parts.secrets, repository).map_err(Failure::Repository)?;
        let mirror = parts.mirrors.join(format!("{}.git", repository.tenant));
        let fetched = self.fetch(&mirror, &remote, learned.previous.clone()).await?;
        let commit = fetched.commit.clone();
        learned.fetched = Some(fetched);
        let parsed = tokio::task::spawn_blocking(move || {
            let snapshot =
                Snapshot::open(&mirror, &commit).map_err(|error| Failure::Repository(error.to_string()))?;
            inventory::parse(&|path, limit| snapshot.find(path, limit)).map_err(Failure::Files)
        });
        parsed.await.unwrap_or_else(|_| Err(unexpected()))
    }

    async fn fetch(
        &self,
        mirror: &std::path::Path,
        remote: &Remote,
        previous: Option<String>,
    ) -> Result<Fetched, Failure> {
        let parts = &self.0.parts;
        let mut tries = 0;
        loop {
            let (mirror, remote, previous) = (mirror.to_owned(), remote.clone(), previous.clone());
            let (limits, stopping) = (parts.limits, self.0.stopping.clone());
            let fetched = tokio::task::spawn_blocking(move || {
                repo::fetch(&mirror, &remote, previous.as_deref(), &limits, &|| stopping.is_cancelled())
            });
            match fetched.await {
                Ok(Ok(fetched)) => return Ok(fetched),
                Ok(Err(error)) if error.is_transient() && tries < parts.retry.times => {
                    tries += 1;
                    tracing::warn!(attempt = tries, %error, "sync.fetch_retried");
                    tokio::select! {
                        () = tokio::time::sleep(parts.retry.pause) => {}
                        () = self.0.stopping.cancelled() => {}
                    }
                }
                Ok(Err(error)) => return Err(Failure::Repository(error.to_string())),
                Err(_) => return Err(unexpected()),
            }
        }
    }
}

/// Sets the repository of the caller's tenant.
///
/// # Errors
/// [`SetError`]; nothing is changed then.
pub async fn set(
    app: &App,
    permit: &Permit<ManageRepo>,
    change: SettingsChange,
) -> Result<Settings, SetError> {
    app.syncer().set(permit.tenant(), change, &permit.actor()).await
}

/// The repository of the caller's tenant, if it has one.
///
/// # Errors
/// If the store fails.
pub async fn settings(app: &App, permit: &Permit<impl Need>) -> Result<Option<Settings>, StoreError> {
    app.syncer().settings(permit.tenant()).await
}

/// Removes the repository of the caller's tenant; whether it had one. What came from it stays as it is.
///
/// # Errors
/// If the store fails.
pub async fn remove(app: &App, permit: &Permit<ManageRepo>) -> Result<bool, StoreError> {
    app.syncer().remove(permit.tenant(), &permit.actor()).await
}

/// Synchronises the inventory of the caller's tenant now; the finished attempt, good or not. `accepted` as in
/// [`Syncer::sync`].
///
/// # Errors
/// [`SyncError`] if it did not even begin.
pub async fn run(
    app: &App,
    permit: &Permit<ManageRepo>,
    accepted: Option<String>,
) -> Result<Sync, SyncError> {
    app.syncer().sync(permit.tenant(), &permit.actor(), accepted).await
}

/// Attempts that the caller may see, newest first.
///
/// # Errors
/// If the cursor is not from this list, or the store fails.
pub async fn history(
    app: &App,
    permit: &Permit<Read>,
    page: &PageRequest,
) -> Result<store::page::Page<Sync>, StoreError> {
    app.syncer().history(&permit.scope(), page).await
}

/// How the history names who asked: a user's name, or `interval`.
fn triggered_by(by: &Actor) -> String {
    match by {
        Actor::System => "interval".to_owned(),
        person => person.to_string(),
    }
}

fn unexpected() -> Failure {
    Failure::Repository("reading the repository ended unexpectedly; the log has the reason".to_owned())
}

/// What is odd but stands in nobody's way, for the history.
fn warnings(branch: &str, learned: &Learned, inventory: &Inventory) -> Vec<Problem> {
    let rewritten = learned.fetched.as_ref().is_some_and(|fetched| fetched.history == History::Rewritten);
    let mut warnings = Vec::new();
    if rewritten && let Some(previous) = &learned.previous {
        warnings.push(Problem {
            severity: Severity::Warning,
            file: String::new(),
            line: 0,
            column: 0,
            field: format!("refs/heads/{branch}"),
            message: format!(
                "the history was rewritten: {previous}, which was in force before, is not part of it any more"
            ),
        });
    }
    warnings.extend(inventory.warnings.iter().cloned());
    warnings
}
