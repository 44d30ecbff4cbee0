//! A controller in a process: started from its settings, stopped in order.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions, TryLockError};
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use fleetward_app::App;
use fleetward_app::clock::Clock;
use fleetward_app::fleet::controller::{self, AdmissionError, Patience, Tenure};
use fleetward_app::identity::{self, IdentityError};
use fleetward_app::settings::{AuditRetention, Settings};
use fleetward_app::work::action::Kinds;
use fleetward_http as http;
use fleetward_link::{LinkError, LinkServer};
use fleetward_pki::{Authority, PkiError, Rotating, ServerCertificate, ServerPurpose};
use fleetward_protocol::id::ControllerId;
use fleetward_protocol::time::Timestamp;
use fleetward_repo::Reach;
use fleetward_store::fleet::controller::Controller;
use fleetward_store::fleet::{host, sync};
use fleetward_store::people::user;
use fleetward_store::{Connected, Engine, Store, StoreError};
use rustls::crypto::ring::default_provider;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{info, warn};
use uuid::Uuid;

use crate::config::{Config, Transport};
use crate::task::{self, Certificates, beat};

/// How long a store that takes nothing is waited for at the end. With the longest end of the two ports it is less than
/// the unit's `TimeoutStopSec`.
const SETTLE: Duration = Duration::from_secs(10);

/// A controller that is running.
#[derive(Debug)]
pub struct Running {
    app: App,
    link: LinkServer,
    http: JoinHandle<()>,
    http_address: SocketAddr,
    http_stopping: CancellationToken,
    tasks: TaskTracker,
    stopping: CancellationToken,
    place: Option<Place>,
    found_dead: CancellationToken,
    /// Held until the process or this ends.
    _lock: File,
}

/// Why a controller did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Another one has the data directory.
    #[error(
        "another fleetward-controller runs on {}: stop it first, or give this one a data directory of its own",
        directory.display()
    )]
    InUse {
        /// The data directory.
        directory: PathBuf,
    },
    /// The lock of the data directory.
    #[error("lock {}", file.display())]
    Lock {
        /// The lock's file.
        file: PathBuf,
        /// What is wrong with it.
        #[source]
        source: std::io::Error,
    },
    /// Keys or certificates.
    #[error(transparent)]
    Pki(#[from] PkiError),
    /// The keys are not the database's.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The database.
    #[error("open the database")]
    Store(#[from] StoreError),
    /// The database is another controller's.
    #[error(transparent)]
    Admission(#[from] AdmissionError),
    /// The agents' port.
    #[error(transparent)]
    Link(#[from] LinkError),
    /// The people's port.
    #[error(transparent)]
    Http(#[from] http::ListenError),
    /// The monitoring's token cannot be used.
    #[error("read the token of `http.metrics_token_file`, {}", file.display())]
    MetricsToken {
        /// Where it should be.
        file: PathBuf,
        /// What is wrong with it.
        #[source]
        source: std::io::Error,
    },
    /// A certificate that cannot be used.
    #[error("use the server certificate")]
    Tls(#[source] rustls::Error),
}

impl Running {
    /// Starts a controller. Needs what `init` has made.
    ///
    /// # Errors
    /// [`StartError`]; nothing is left running then.
    pub async fn start(config: Config, clock: Clock) -> Result<Self, StartError> {
        info!(version = env!("CARGO_PKG_VERSION"), data = %config.data.display(), "controller.starting");
        let now = clock.now();
        let authority = Authority::load(&config.pki_directory())?;
        // Before anything is written: the other one may be in the middle of it.
        let lock = lock(&config.lock(), &config.data)?;
        let provider = Arc::new(default_provider());
        let rotating = |purpose| {
            let certificate = authority.ensure_server(purpose, &config.name, now)?;
            Rotating::new(Arc::clone(&provider), certificate).map(Arc::new).map_err(StartError::Tls)
        };
        let link_certificate = rotating(ServerPurpose::Link)?;
        let web = match &config.http.transport {
            Transport::OwnCertificate => Some(rotating(ServerPurpose::Web)?),
            Transport::Certificate { certificate, key } => {
                let certificate = ServerCertificate::read(certificate, key)?;
                let rotating = Rotating::new(Arc::clone(&provider), certificate).map_err(StartError::Tls)?;
                Some(Arc::new(rotating))
            }
            Transport::PlainLoopback => None,
        };
        let security = match &web {
            Some(certificate) => http::Security::Tls(Arc::<Rotating>::clone(certificate)),
            None => http::Security::PlainLoopback,
        };
        let metrics_token = match &config.http.metrics_token_file {
            Some(file) => Some(
                http::MetricsToken::read(file)
                    .map_err(|source| StartError::MetricsToken { file: file.clone(), source })?,
            ),
            None => None,
        };
        let listener = http::Listener::bind(config.http.listen, security).await?;
        let database = Store::connect(&config.database).await?;
        // Before the schema is touched: an older controller that lives works with it as it is.
        let place = Place::take(&database, &config.name, now).await?;
        let (tasks, stopping, found_dead) =
            (TaskTracker::new(), CancellationToken::new(), CancellationToken::new());
        let tenure = Tenure { place: place.map(|place| place.0), ..Tenure::default() };
        // What follows may take longer than others wait; and if it fails, nothing may go on.
        let failing = stopping.clone().drop_guard();
        let controllers = database.controllers().clone();
        if place.is_some() {
            let beats = beat::run(controllers.clone(), tenure.clone(), found_dead.clone(), stopping.clone());
            let (stopping, found_dead) = (stopping.clone(), found_dead.clone());
            let may_end = move || stopping.is_cancelled() || found_dead.is_cancelled();
            tasks.spawn(tenure.vital.watch("beat", may_end, beats));
        }
        let ready = async {
            let key = config.secret_key();
            let check =
                |settings: &BTreeMap<String, String>| Ok(identity::check(settings, &authority, &key)?);
            let store = database.migrate::<StartError>(now, tenure.place, check).await?;
            let secrets = identity::unlock(&store, &tenure, &authority, &key, now).await?;
            begin(&store, &tenure, now).await?;
            let kinds = Kinds::all();
            let app = App::start(settings(&config), clock, kinds, store, authority, secrets, tenure).await?;
            match LinkServer::start(&app, config.link.listen, Arc::clone(&link_certificate)) {
                Ok(link) => Ok((app, link)),
                Err(error) => {
                    settle(&app).await;
                    Err(StartError::Link(error))
                }
            }
        };
        let (app, link) = match ready.await {
            Ok(ready) => ready,
            Err(error) => {
                stopping.cancel();
                leave(place, &controllers, &tasks).await;
                return Err(error);
            }
        };
        let certificates = Certificates { link: link_certificate, web };
        task::start(&app, &config, certificates, &tasks, &stopping);
        let http_address = listener.address();
        let http_stopping = CancellationToken::new();
        let serving = http::serve(listener, app.clone(), http_stopping.clone(), metrics_token);
        let may_end = http_stopping.clone();
        let http = tokio::spawn(app.vital().watch("http", move || may_end.is_cancelled(), serving));
        info!(version = env!("CARGO_PKG_VERSION"), link = %link.local_address(), http = %http_address, "controller.started");
        failing.disarm();
        Ok(Self {
            app,
            link,
            http,
            http_address,
            http_stopping,
            tasks,
            stopping,
            place,
            found_dead,
            _lock: lock,
        })
    }

    /// The application.
    #[must_use]
    pub const fn app(&self) -> &App {
        &self.app
    }

    /// Where agents connect.
    #[must_use]
    pub const fn link_address(&self) -> SocketAddr {
        self.link.local_address()
    }

    /// Where people connect.
    #[must_use]
    pub const fn http_address(&self) -> SocketAddr {
        self.http_address
    }

    /// Returns when another controller found this one dead and took its database: it must stop.
    pub async fn found_dead(&self) {
        self.found_dead.cancelled().await;
    }

    /// Returns when the database is known to have lost what was committed to it: the controller must end, and start anew with
    /// what is there.
    pub async fn commits_lost(&self) {
        self.app.continuity().broken().await;
    }

    /// Returns when a part of the controller has failed for a defect: the controller must end, and start anew.
    pub async fn part_failed(&self) {
        self.app.vital().failed().await;
    }

    /// Stops in order: takes nothing new, tells the agents, commits what has arrived, closes the store. What cannot
    /// be committed within ten seconds is left to the hosts, which still have it.
    pub async fn shutdown(self) {
        info!("controller.stopping");
        self.app.health().note_stopping();
        self.http_stopping.cancel();
        if let Err(error) = self.http.await {
            warn!(%error, "http.ended_unexpectedly");
        }
        self.link.shutdown().await;
        settle(&self.app).await;
        self.stopping.cancel();
        leave(self.place, self.app.store(), &self.tasks).await;
        if let Err(error) = self.app.store().clone().close().await {
            warn!(%error, "controller.store_not_closed");
        }
        info!("controller.stopped");
    }
}

/// This controller's place on a database that others can reach as well.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place(pub(crate) ControllerId);

impl Place {
    /// Takes it; `None` on SQLite, whose file is guarded by the lock of the data directory.
    pub(crate) async fn take(
        database: &Connected,
        name: &str,
        now: Timestamp,
    ) -> Result<Option<Self>, AdmissionError> {
        let store = database.controllers();
        if store.engine() == Engine::Sqlite {
            return Ok(None);
        }
        let id = ControllerId::from_uuid(Uuid::now_v7());
        let version = env!("CARGO_PKG_VERSION").to_owned();
        let newcomer = Controller { id, name: name.to_owned(), version, beat: 0, started_at: now };
        controller::admit(store, &newcomer, Patience::DEFAULT).await?;
        Ok(Some(Self(id)))
    }

    /// Leaves it to others at once.
    pub(crate) async fn leave(self, store: &Store) {
        if !matches!(timeout(SETTLE, controller::leave(store, self.0)).await, Ok(Ok(()))) {
            // Others wait as for one that died.
            warn!("controller.place_not_left");
        }
    }
}

/// What a start writes first: nobody is connected yet, and no synchronisation goes on. Bound to the controller's place, for it would
/// be wrong of one that was found dead meanwhile.
async fn begin(store: &Store, tenure: &Tenure, now: Timestamp) -> Result<(), StoreError> {
    let mut tx = tenure.write(store).await?;
    host::update_offline(&mut tx).await?;
    sync::update_abandoned(&mut tx, now).await?;
    if user::list(&mut tx).await?.is_empty() {
        warn!(
            remedy = "if this is the right database, make a user with `fleetward-controller user add admin`",
            "controller.has_no_user"
        );
    }
    tx.commit().await
}

/// Ends the dispatcher, and commits what has arrived.
async fn settle(app: &App) {
    let settled = async {
        app.dispatcher().shutdown();
        app.dispatcher().stopped().await;
        app.recorder().stop().await;
    };
    if timeout(SETTLE, settled).await.is_err() {
        // On a full disk, say. Nothing of it was acknowledged: the hosts have it, and tell it again.
        warn!(after_s = SETTLE.as_secs(), "controller.reports_not_committed");
    }
}

/// Waits for tasks that were told to stop, and leaves the database to others.
async fn leave(place: Option<Place>, store: &Store, tasks: &TaskTracker) {
    tasks.close();
    if timeout(SETTLE, tasks.wait()).await.is_err() {
        warn!(after_s = SETTLE.as_secs(), "controller.tasks_not_ended");
    }
    if let Some(place) = place {
        place.leave(store).await;
    }
}

/// What of the settings the use cases go by.
fn settings(config: &Config) -> Settings {
    let (enrolment, retention) = (&config.enrolment, &config.retention);
    Settings {
        advertise: config.link.advertise.clone(),
        controllers: config.link.controllers.clone(),
        logins_per_minute: config.http.logins_per_minute,
        enrolment: enrolment.clone(),
        audit: AuditRetention { age: retention.audit, size: retention.audit_size },
        operations_kept: retention.operations,
        kept_on_hosts: retention.on_hosts,
        mirrors: config.repo_directory(),
        reach: if config.inventory.local_remotes { Reach::Anywhere } else { Reach::Others },
    }
}

/// Takes the data directory for this controller alone. Two of them would each tell all hosts to be offline, end each
/// other's synchronisations, and take turns with every agent. The kernel lets go of it however the process ends (flock(2)).
fn lock(file: &Path, directory: &Path) -> Result<File, StartError> {
    let failed = |source| StartError::Lock { file: file.to_owned(), source };
    let open =
        OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(file).map_err(failed)?;
    match open.try_lock() {
        Ok(()) => Ok(open),
        Err(TryLockError::WouldBlock) => Err(StartError::InUse { directory: directory.to_owned() }),
        Err(TryLockError::Error(source)) => Err(failed(source)),
    }
}

#[cfg(test)]
mod tests {
    use fleetward_store::on_both_engines;
    use fleetward_store::testing::NOW;

    use super::*;

    on_both_engines! {
        async fn who_was_found_dead_before_its_first_writes_writes_nothing(store: Store) {
            let place = Some(ControllerId::from_uuid(Uuid::now_v7()));
            let dead = Tenure { place, ..Tenure::default() };
            assert!(matches!(begin(&store, &dead, NOW).await, Err(StoreError::TakenOver)));
            begin(&store, &Tenure::default(), NOW).await.unwrap();
        }
    }
}
