//! Use cases: load, decide, save, notify. One file per noun.
//!
//! **What for.** Everything the controller does is a function here, called by `http` for people, by `link` for
//! hosts and by `task` for the clock. Decisions are made by `fleetward_domain`; rows are kept by `store`.
//!
//! **What it promises.** What changes something leaves an audit event, in the same transaction. A function that
//! acts for a person takes a [`Permit`](people::access::Permit), which cannot be had without the permission. What is
//! reported to the caller as done is committed.
//!
//! **Deliberately absent.** SQL, HTTP, QUIC; any state outside [`App`].

use std::sync::Arc;

use fleetward_pki::Authority;
use fleetward_protocol::time::Timestamp;
use fleetward_repo::Limits;
use fleetward_store::{Store, StoreError};

pub mod clock;
pub mod continuity;
pub mod fleet;
pub mod health;
pub mod identity;
pub mod inbox;
pub mod metrics;
pub mod people;
pub mod refusal;
pub mod secret;
pub mod settings;
pub mod table;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
pub mod vital;
pub mod work;

use clock::{Clock, DeadlineClock};
use continuity::Continuity;
use fleet::controller::{InPlace, Tenure};
use fleet::online::Fleet;
use fleet::presence::Presences;
use fleet::sync::Syncer;
use fleet::target::Selections;
use health::Health;
use inbox::Dispatcher;
use metrics::Metrics;
use people::attempt::Attempts;
use people::ending::Endings;
use people::password::Passwords;
use refusal::Refusals;
use secret::SecretBox;
use settings::Settings;
use vital::Vital;
use work::action::Kinds;
use work::connection::{HostBudgets, TwinWatches};
use work::live::Live;
use work::query::Queries;
use work::recorder::Recorder;

/// The application. Cheap to clone; every clone is the same one.
#[derive(Debug, Clone)]
pub struct App(Arc<Parts>);

#[derive(Debug)]
struct Parts {
    settings: Settings,
    clock: Clock,
    deadlines: DeadlineClock,
    kinds: Kinds,
    store: Store,
    authority: Authority,
    fleet: Fleet,
    live: Live,
    tenure: Tenure,
    health: Arc<Health>,
    metrics: Metrics,
    presences: Presences,
    queries: Queries,
    recorder: Recorder,
    dispatcher: Dispatcher,
    syncer: Syncer,
    secrets: SecretBox,
    passwords: Passwords,
    selections: Selections,
    attempts: Attempts,
    budgets: HostBudgets,
    twins: TwinWatches,
    refusals: Refusals,
    endings: Endings,
}

impl App {
    /// Puts the parts together and starts the recorder and the dispatcher, which take up the operations that
    /// have not ended; identities that two machines used before are still watched. Needs a tokio runtime.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub async fn start(
        settings: Settings,
        clock: Clock,
        kinds: Kinds,
        store: Store,
        authority: Authority,
        secrets: SecretBox,
        tenure: Tenure,
    ) -> Result<Self, StoreError> {
        let fleet = Fleet::new();
        let live = Live::new();
        let health = Arc::new(Health::new());
        let metrics = Metrics::new();
        let (dispatcher, inbox) = Dispatcher::new();
        let deadlines = DeadlineClock::new(clock.clone());
        deadlines.read(&store).await?;
        let recorder = work::recorder::start(work::recorder::Parts {
            store: store.clone(),
            clock: clock.clone(),
            deadlines: deadlines.clone(),
            live: live.clone(),
            continuity: tenure.continuity.clone(),
            vital: tenure.vital.clone(),
            fleet: fleet.clone(),
            health: Arc::clone(&health),
            metrics: metrics.clone(),
            dispatcher: dispatcher.clone(),
        });
        let syncer = Syncer::new(fleet::sync::Parts {
            store: store.clone(),
            secrets: secrets.clone(),
            mirrors: settings.mirrors.clone(),
            clock: clock.clone(),
            fleet: fleet.clone(),
            dispatcher: dispatcher.clone(),
            limits: Limits { reach: settings.reach, ..Limits::DEFAULT },
            retry: fleet::sync::Retry::DEFAULT,
        });
        let (enrolments, logins) = (settings.enrolment.attempts_per_minute, settings.logins_per_minute);
        let attempts = Attempts::new(enrolments, logins, clock.now());
        let queries = Queries::new(clock.now());
        let app = Self(Arc::new(Parts {
            settings,
            clock,
            deadlines,
            kinds,
            store,
            authority,
            fleet,
            live,
            tenure,
            health,
            metrics,
            presences: Presences::new(),
            queries,
            recorder,
            dispatcher,
            syncer,
            secrets,
            passwords: Passwords::new(),
            selections: Selections::new(),
            attempts,
            budgets: HostBudgets::default(),
            twins: TwinWatches::default(),
            refusals: Refusals::default(),
            endings: Endings::new(),
        }));
        app.twins().resume(&mut *app.store().read().await?, app.now()).await?;
        // Last, for it holds the application and lives until it is told to end. The recorder ends when nobody can tell it anything.
        work::dispatch::start(&app, inbox).await?;
        Ok(app)
    }

    /// The settings.
    #[must_use]
    pub fn settings(&self) -> &Settings {
        &self.0.settings
    }

    /// The time.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.0.clock.now()
    }

    /// The clock that deadlines are decided by.
    #[must_use]
    pub fn deadlines(&self) -> &DeadlineClock {
        &self.0.deadlines
    }

    /// What may be asked of hosts.
    #[must_use]
    pub fn kinds(&self) -> &Kinds {
        &self.0.kinds
    }

    /// The database.
    #[must_use]
    pub fn store(&self) -> &Store {
        &self.0.store
    }

    /// A transaction for what the controller may write only while the database is its own.
    ///
    /// # Errors
    /// [`StoreError::TakenOver`] if another controller has taken its place.
    pub async fn write_in_place(&self) -> Result<InPlace, StoreError> {
        self.0.tenure.write(self.store()).await
    }

    /// The certificate authority.
    #[must_use]
    pub fn authority(&self) -> &Authority {
        &self.0.authority
    }

    /// The connected hosts.
    #[must_use]
    pub fn fleet(&self) -> &Fleet {
        &self.0.fleet
    }

    /// What tells the readers of operations that there is something new.
    #[must_use]
    pub fn live(&self) -> &Live {
        &self.0.live
    }

    /// Whether the store still has what was seen committed.
    #[must_use]
    pub fn continuity(&self) -> &Continuity {
        &self.0.tenure.continuity
    }

    /// Whether all parts of the controller work.
    #[must_use]
    pub fn vital(&self) -> &Vital {
        &self.0.tenure.vital
    }

    /// How the controller is.
    #[must_use]
    pub fn health(&self) -> &Health {
        &self.0.health
    }

    /// What is counted.
    #[must_use]
    pub fn metrics(&self) -> &Metrics {
        &self.0.metrics
    }

    /// Presences that are yet to be written down.
    #[must_use]
    pub fn presences(&self) -> &Presences {
        &self.0.presences
    }

    /// What commits changes of runs.
    #[must_use]
    pub fn recorder(&self) -> &Recorder {
        &self.0.recorder
    }

    /// What hands runs to hosts.
    #[must_use]
    pub fn dispatcher(&self) -> &Dispatcher {
        &self.0.dispatcher
    }

    /// What keeps inventories in step with their repositories.
    #[must_use]
    pub fn syncer(&self) -> &Syncer {
        &self.0.syncer
    }

    /// What seals secrets at rest.
    #[must_use]
    pub fn secrets(&self) -> &SecretBox {
        &self.0.secrets
    }

    /// Limits and locks of those who have not proved who they are.
    #[must_use]
    pub fn attempts(&self) -> &Attempts {
        &self.0.attempts
    }

    /// What each host may make the controller write.
    #[must_use]
    pub fn budgets(&self) -> &HostBudgets {
        &self.0.budgets
    }

    /// Identities that two machines use.
    #[must_use]
    pub fn twins(&self) -> &TwinWatches {
        &self.0.twins
    }

    /// What was refused lately.
    #[must_use]
    pub fn refusals(&self) -> &Refusals {
        &self.0.refusals
    }

    /// Where ends of logins are announced.
    #[must_use]
    pub fn endings(&self) -> &Endings {
        &self.0.endings
    }

    /// What may be looked at on hosts.
    #[must_use]
    pub fn queries(&self) -> &Queries {
        &self.0.queries
    }

    fn selections(&self) -> &Selections {
        &self.0.selections
    }

    pub(crate) fn passwords(&self) -> &Passwords {
        &self.0.passwords
    }
}
