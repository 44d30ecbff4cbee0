//! The runs of this host: accepting, queueing, starting, watching and dropping them.
//!
//! **What it promises.** A run that [`Runs::open`] reports as held is in the journal. A run starts at most once:
//! `started` is in the journal before its supervisor is told to go, and a known id is never started again. The
//! client ID and the owner's policy are read again before each start.
//!
//! **Deliberately absent.** The network: [`crate::link`] carries what is said here.

mod again;
pub mod attach;
pub mod drain;
mod drive;
mod ending;
pub mod given;
mod kept;
mod mend;
pub mod outcome;
mod prepare;
pub mod process;
pub mod queue;
mod recover;
mod resume;
pub mod spec;
pub mod spool;
pub mod supervisor;
mod table;
pub mod told;
pub mod tree;
mod work;

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use fleetward_protocol::client_id::ClientId;
use fleetward_protocol::id::{BootId, RunId};
use fleetward_protocol::message::{ClientIdReport, Finished, OpenRun};
use fleetward_protocol::run::{CancelCause, Refusal};
use fleetward_protocol::time::Timestamp;
use tokio::process::Child;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::config::{APT, BUS, LiveSettings, NGINX, Paths, REBOOT, RunSettings};
use crate::identity;
use crate::journal::{Contents, Entry, Journal};
use crate::link::chain;
use crate::platform::cgroup::Delegated;
use crate::platform::clock;
use crate::platform::users::Account;
use attach::Attachment;
use drain::Drained;
use kept::Turn;
use table::{Held, Table};

/// A spool with so much left to tell is looked through at once, in bytes.
const AT_ONCE: u64 = 1 << 20;

/// How far a run has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stage {
    /// It is being checked and written to the journal, or began a moment ago: nobody is told yet.
    Accepting,
    /// It is in the journal, and has not started.
    Waiting,
    /// Its script runs.
    Running {
        /// Since when, by the host's clock.
        at: Timestamp,
    },
    /// It ended.
    Finished {
        /// Since when it ran.
        started: Timestamp,
        /// How it ended.
        end: Finished,
    },
    /// It will not start.
    Refused {
        /// Why.
        refusal: Refusal,
        /// Whether it had been accepted before.
        accepted: bool,
    },
}

/// What there is to know about a run now. [`Self::output`] grows without the stage changing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Progress {
    /// How far it has come.
    pub stage: Stage,
    /// The length of its output log so far, in bytes.
    pub output: u64,
}

/// The answer to a controller that opens a run.
#[derive(Debug)]
pub enum Opened {
    /// The journal holds it, or refuses it: this is how far it has come.
    Held(watch::Receiver<Progress>),
    /// The journal does not know it, and nothing came to start it with.
    Unknown,
}

/// How much there is to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Load {
    /// Runs that hold a place.
    pub running: usize,
    /// Runs that wait for one.
    pub waiting: usize,
    /// Runs that are known: these, and those that ended and are not forgotten.
    pub held: usize,
}

/// The runs of this host. Cloning shares them.
#[derive(Debug, Clone)]
pub struct Runs {
    shared: Arc<Shared>,
}

/// What the runs need of their host.
#[derive(Debug)]
pub struct Host {
    /// Where things are.
    pub paths: Paths,
    /// The program that supervises runs and looks at what a query asks for.
    pub supervisor: PathBuf,
    /// The client ID in the certificate.
    pub client: ClientId,
    /// This boot.
    pub boot: BootId,
    /// The agent's own account.
    pub account: Account,
    /// Where control groups may be made.
    pub delegated: Delegated,
    /// Where the system's message bus is, if not at its usual place.
    pub bus: Option<String>,
    /// Where apt's configuration is, if not at its usual place.
    pub apt: Option<String>,
    /// Where nginx's configuration begins, if not at its usual place.
    pub nginx: Option<String>,
    /// The file that says that the host wants to be rebooted, if not the usual one.
    pub reboot: Option<String>,
}

impl Host {
    /// The variables that tell each process of our own executable where this host has its things.
    pub(crate) fn places(&self) -> BTreeMap<String, String> {
        let places = [(BUS, &self.bus), (APT, &self.apt), (NGINX, &self.nginx), (REBOOT, &self.reboot)];
        let given = places.into_iter().filter_map(|(name, place)| Some((name.to_owned(), place.clone()?)));
        given.collect()
    }
}

#[derive(Debug)]
struct Shared {
    host: Host,
    journal: Journal,
    settings: Mutex<LiveSettings>,
    /// Held while a long spool is looked through.
    looking: tokio::sync::Mutex<()>,
    table: Mutex<Table>,
    /// One per run that has not ended. They end with the agent, wherever they are; the journal knows.
    tasks: Mutex<JoinSet<()>>,
    /// A supervisor that waits for a run. There is none before the first run was committed: an idle host needs none.
    spare: Mutex<Option<(Attachment, Child)>>,
}

impl Runs {
    /// The runs that a journal holds. Those that were waiting wait again, those whose supervisors live are
    /// attached to, and of those that a crash ended the truth is told. Must be called within a runtime.
    #[must_use]
    pub fn recover(host: Host, journal: Journal, contents: &Contents) -> (Self, Vec<String>) {
        let mut settings = LiveSettings::new(host.paths.config.clone());
        let capacity = match settings.current() {
            Ok(settings) => settings.runs.concurrent,
            Err(error) => {
                // Each run will be refused with it; whoever reads the log first need not wait for one.
                tracing::error!(error = chain(&error), "policy_unusable");
                RunSettings::default().concurrent
            }
        };
        let shared = Shared {
            host,
            journal,
            settings: Mutex::new(settings),
            looking: tokio::sync::Mutex::default(),
            table: Mutex::new(Table::new(capacity, contents.forgotten.clone())),
            spare: Mutex::new(None),
            tasks: Mutex::default(),
        };
        let runs = Self { shared: Arc::new(shared) };
        let notices = recover::recover(&runs.shared, contents);
        (runs, notices)
    }

    /// Finds a run, or accepts it if it comes with a dispatch. Returns when the journal has it; when it starts at once, also
    /// when it has been given a moment to end, which most do.
    ///
    /// A run that an earlier life of the agent accepted waits for this, unless the controller knows better than to start it.
    /// One that comes with a cancel request is not started by this, whatever else is known of it.
    pub async fn open(&self, open: OpenRun) -> Opened {
        if open.started || open.offset > 0 {
            self.disown(open.run).await;
        }
        if let Some(cause) = open.cancel {
            // Before everything that may start it.
            self.cancel(open.run, cause);
        }
        self.shared.table().kept.hold(open.run);
        if let Some(word) = self.shared.table().unconfirmed.remove(&open.run) {
            // The task may have ended by a cancel meanwhile.
            let _ = word.send(());
        }
        if let Some(word) = self.shared.table().cut_off.remove(&open.run) {
            // Nobody else can have ended the task.
            let _ = word.send(open.offset);
        }
        let held = self.shared.table().runs.get(&open.run).map(|held| held.progress.subscribe());
        let mut progress = match (held, open.dispatch) {
            (Some(progress), _) => {
                self.ensure_readable(open.run, open.offset).await;
                progress
            }
            (None, None) => return Opened::Unknown,
            // It was here, ended, and was committed: whoever dispatches it again has lost its memory.
            (None, Some(_)) if self.shared.table().forgotten.contains_key(&open.run) => {
                return Opened::Unknown;
            }
            (None, Some(dispatch)) => drive::accept(&self.shared, open.run, dispatch, open.cancel),
        };
        // The sender lives in the table or in the task that accepts; it never leaves without a last word.
        drop(progress.wait_for(|progress| progress.stage != Stage::Accepting).await);
        Opened::Held(progress)
    }

    /// Drops a run that this journal holds as not started, and that was started for all the controller knows: the journal is
    /// an older one, of a snapshot or a backup.
    async fn disown(&self, run: RunId) {
        let known = {
            let mut table = self.shared.table();
            let known = table.unconfirmed.remove(&run).is_some();
            known.then(|| table.forget(run, clock::now())).flatten()
        };
        if let Some(until) = known {
            tracing::error!(run_id = %run, "journal_is_older_than_the_run");
            self.shared.note_forgotten(run, until).await;
        }
    }

    /// Makes sure that what is left to tell of a run that ended can be read back.
    async fn ensure_readable(&self, run: RunId, offset: u64) {
        let progress = self.shared.table().runs.get(&run).map(|held| held.progress.clone());
        let Some(progress) = progress else { return };
        let Stage::Finished { started, end } = progress.borrow().stage.clone() else { return };
        let directory = self.shared.directory(run);
        let look = move || mend::ensure_readable(&directory, offset, &end);
        let mended = if progress.borrow().output.saturating_sub(offset) <= AT_ONCE {
            look()
        } else {
            // Aside, so that the session goes on meanwhile; one at a time, so that a host with many has one thread for it.
            let _turn = self.shared.looking.lock().await;
            tokio::task::spawn_blocking(look).await.ok().flatten()
        };
        if let Some(end) = mended {
            let output = end.log_length;
            progress.send_replace(Progress { stage: Stage::Finished { started, end }, output });
        }
    }

    /// Stops a run, or keeps it from starting. Repeating it changes nothing.
    pub fn cancel(&self, run: RunId, cause: CancelCause) {
        if let Some(held) = self.shared.table().runs.get(&run) {
            held.cancel.send_if_modified(|cancel| cancel.is_none() && cancel.replace(cause).is_none());
        }
    }

    /// Drops a run that the controller has committed. One that has not ended stays, unless it was accepted or cut off in an
    /// earlier life of the agent and only waits: the controller knows its end from a later state of this host.
    pub async fn forget(&self, run: RunId) {
        let ended = self.shared.table().runs.get(&run).map(|held| held.progress.borrow().clone());
        if let Some(Progress { output, .. }) = ended.filter(|progress| progress.stage.is_final()) {
            // Not as soon as the run ends: starting a process takes as long as the result's way to the controller.
            self.shared.ensure_spare();
            if kept::wait(&self.shared, run, output).await == Turn::Kept {
                return;
            }
        }
        let until = {
            let mut table = self.shared.table();
            let waits = table.unconfirmed.remove(&run).is_some() | table.cut_off.remove(&run).is_some();
            let ended = table.runs.get(&run).is_some_and(|held| held.progress.borrow().stage.is_final());
            let Some(until) = (ended || waits).then(|| table.forget(run, clock::now())).flatten() else {
                return;
            };
            until
        };
        self.shared.note_forgotten(run, until).await;
        self.shared.remove_directory(run);
        tracing::debug!(%run, "run_forgotten");
    }

    /// Lets go of every run, without a word to anybody: they go on, and the next agent takes them up.
    pub async fn release(&self) {
        let mut tasks =
            std::mem::take(&mut *self.shared.tasks.lock().unwrap_or_else(PoisonError::into_inner));
        tasks.shutdown().await;
        drop(self.shared.spare().take());
    }

    /// The runs that are held, oldest first.
    #[must_use]
    pub fn held(&self) -> Vec<RunId> {
        let mut held: Vec<_> = self.shared.table().runs.keys().copied().collect();
        held.sort_unstable();
        held
    }

    /// How much there is to do.
    #[must_use]
    pub fn load(&self) -> Load {
        let table = self.shared.table();
        let waiting = table.queue.waiting() + table.unconfirmed.len();
        Load { running: table.queue.holding(), waiting, held: table.runs.len() }
    }

    /// What the host's client-ID file says now.
    #[must_use]
    pub fn read_client_id_report(&self) -> ClientIdReport {
        identity::read_client_id_report(&self.shared.host.paths.client_id)
    }

    /// A piece of a run's output log, behind what is in `bytes` already. What is before [`Progress::output`] never
    /// changes.
    ///
    /// # Errors
    /// If the spool cannot be read, or is shorter.
    pub fn read_output(&self, run: RunId, offset: u64, length: usize, bytes: Vec<u8>) -> io::Result<Vec<u8>> {
        spool::read(&self.shared.directory(run).join(spool::SPOOL), offset, length, bytes)
    }
}

impl Runs {
    /// What there is to know of this host.
    pub(crate) fn host(&self) -> &Host {
        &self.shared.host
    }

    /// The owner's settings as they are now.
    pub(crate) fn settings(&self) -> Result<crate::config::Settings, crate::config::SettingsError> {
        self.shared.settings()
    }
}

impl Stage {
    /// Whether nothing will happen any more.
    #[must_use]
    pub const fn is_final(&self) -> bool {
        matches!(self, Self::Finished { .. } | Self::Refused { .. })
    }
}

impl Shared {
    fn table(&self) -> MutexGuard<'_, Table> {
        // Nothing that holds the lock can panic half-way through a change.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A copy of the settings in force.
    fn settings(&self) -> Result<crate::config::Settings, crate::config::SettingsError> {
        self.settings.lock().unwrap_or_else(PoisonError::into_inner).current().cloned()
    }

    /// The run's own directory. Its name is an id, never text from elsewhere.
    fn directory(&self, run: RunId) -> PathBuf {
        self.host.paths.runs().join(run.to_string())
    }

    async fn note_forgotten(&self, run: RunId, until: Timestamp) {
        let forgotten = Entry::Forgotten { run, until };
        if let Err(error) = self.journal.append(vec![forgotten], clock::now()).await {
            // The controller will be asked again after the next start, and say so again.
            tracing::warn!(%run, error = &error as &dyn std::error::Error, "forget_not_journalled");
        }
    }

    fn remove_directory(&self, run: RunId) {
        match std::fs::remove_dir_all(self.directory(run)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(%run, %error, "run_directory_not_removed");
            }
            _ => {}
        }
    }

    /// Lets go of what the oldest runs left running, if more is read to nowhere than the owner allows.
    fn ensure_drains_within_limits(&self) {
        // Whose policy cannot be read is not guessed at.
        let Ok(settings) = self.settings() else { return };
        for Drained { run, bytes, .. } in
            drain::ensure_at_most(&self.host.paths.drains(), settings.runs.drains)
        {
            tracing::warn!(run_id = %run, bytes, limit = settings.runs.drains, "drain_ended_for_a_newer_one");
        }
    }

    /// Puts a run into the table, with what its order came with to stop it.
    fn hold(
        &self,
        run: RunId,
        stage: Stage,
        output: u64,
        deadline: Timestamp,
        cancel: Option<CancelCause>,
    ) -> Watched {
        let (progress, watched) = watch::channel(Progress { stage, output });
        let (cancel, cancelled) = watch::channel(cancel);
        self.table().runs.insert(run, Held { progress: progress.clone(), cancel, deadline });
        Watched { progress, watched, cancelled }
    }

    /// Runs a task until it is done or the agent stops.
    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        while tasks.try_join_next().is_some() {}
        tasks.spawn(task);
    }

    /// The spare supervisor if there is one, else a new one.
    fn start_supervisor(&self, directory: &Path) -> io::Result<(Attachment, Child)> {
        let spare = self.spare().take();
        match spare {
            Some((attachment, child)) if attachment.assign(directory).is_ok() => Ok((attachment, child)),
            _ => Attachment::start(&self.host.supervisor, directory),
        }
    }

    /// Makes sure that a supervisor is ready for the next run.
    fn ensure_spare(&self) {
        let mut spare = self.spare();
        if spare.is_none() {
            // Without one the next run only starts a little later.
            *spare = Attachment::start_spare(&self.host.supervisor).ok();
        }
    }

    fn spare(&self) -> MutexGuard<'_, Option<(Attachment, Child)>> {
        self.spare.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives the run's place to whoever is next.
    fn release(&self, run: RunId) {
        let mut table = self.table();
        let next = table.queue.release(run);
        table.give_turns(next);
    }
}

/// A run that was put into the table, for the task that drives it.
struct Watched {
    progress: watch::Sender<Progress>,
    watched: watch::Receiver<Progress>,
    cancelled: watch::Receiver<Option<CancelCause>>,
}
