//! One agent, put together: identity, journal, runs, link.

use std::sync::{Arc, Mutex};

use fleetward_protocol::client_id::ClientId;
use fleetward_protocol::id::JournalId;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::config::AgentConfig;
use crate::identity::{Identity, IdentityError};
use crate::journal::{Journal, JournalError, Recovery};
use crate::link::takeover::Takeovers;
use crate::link::{Link, LinkState, upkeep};
use crate::platform::files::{self, FileError};
use crate::platform::trust::Secrecy;
use crate::platform::{cgroup, clock, users};
use crate::query::Queries;
use crate::run::{Host, Load, Runs};
use crate::status;

/// Starts agents.
#[derive(Debug)]
pub struct Agent;

/// An agent could not be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// It has no identity.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// Its directories cannot be made, or others can write to them.
    #[error(transparent)]
    File(#[from] FileError),
    /// Another agent uses the state directory.
    #[error("another agent uses {0}; stop it first")]
    InUse(String),
    /// Its journal cannot be used.
    #[error("open the journal")]
    Journal(#[source] JournalError),
    /// The boot cannot be told.
    #[error("read the boot id")]
    Boot(#[source] std::io::Error),
}

/// A running agent. Dropping it leaves it running; [`AgentHandle::shutdown`] stops it.
#[derive(Debug)]
pub struct AgentHandle {
    client: ClientId,
    shutdown: watch::Sender<bool>,
    state: watch::Receiver<LinkState>,
    runs: Runs,
    task: JoinHandle<()>,
}

impl Agent {
    /// Starts an enrolled agent on the current tokio runtime: takes up what its journal holds and connects.
    ///
    /// # Errors
    /// If it is not enrolled, another agent uses its state, or the journal cannot be used.
    pub fn start(config: AgentConfig) -> Result<AgentHandle, StartError> {
        let AgentConfig { paths, supervisor, notify_socket, bus, apt, nginx, reboot } = config;
        let identity = Identity::load(&paths)?;
        files::ensure_directory(&paths.runs(), 0o711)?;
        // What the journal and a run's directory say is carried out: nobody else may be able to write it.
        for directory in [&paths.state, &paths.runs()] {
            files::read_trust(directory, Secrecy::Public)?;
        }
        let lock = files::lock_exclusively(&paths.state.join("lock"))?
            .ok_or_else(|| StartError::InUse(paths.state.display().to_string()))?;
        let boot = clock::read_boot().map_err(StartError::Boot)?;
        let fresh = JournalId::from_uuid(clock::fresh_uuid());
        let (journal, contents) =
            Journal::open(&paths.journal(), fresh, clock::now()).map_err(StartError::Journal)?;
        let client = identity.client.clone();
        let host = Host {
            paths: paths.clone(),
            supervisor,
            client: client.clone(),
            boot,
            account: users::read_own_account(),
            delegated: cgroup::read_delegated(),
            bus,
            apt,
            nginx,
            reboot,
        };
        tracing::info!(
            client_id = %client,
            version = crate::VERSION,
            journal_id = %contents.id,
            held = contents.runs.len(),
            cgroups = host.delegated.has_groups(),
            "agent_started"
        );
        let (runs, mut notices) = Runs::recover(host, journal, &contents);
        notices.extend(notice(&contents.recovery));
        let (state, watched) = watch::channel(LinkState::Connecting { last_error: None });
        let (takeovers, taken) = watch::channel(Takeovers::default());
        let queries = Queries::new(runs.clone());
        let (counted, updates) = watch::channel(None);
        let link = Arc::new(Link {
            paths: paths.clone(),
            identity: Mutex::new(Arc::new(identity)),
            runs: runs.clone(),
            queries: queries.clone(),
            boot,
            journal: contents.id,
            notices: Mutex::new(notices),
            left: Mutex::default(),
            state,
            takeovers,
            updates,
        });
        let (shutdown, stopping) = watch::channel(false);
        let reporter = status::report(paths, notify_socket, watched.clone(), taken, stopping.clone());
        let counter = upkeep::count(queries, counted, stopping.clone());
        let held = runs.clone();
        let task = tokio::spawn(async move {
            tokio::join!(link.run(stopping), reporter, counter);
            held.release().await;
            // Last: whoever takes it next takes up the runs.
            drop(lock);
        });
        Ok(AgentHandle { client, shutdown, state: watched, runs, task })
    }
}

impl AgentHandle {
    /// Who the host is.
    #[must_use]
    pub const fn client(&self) -> &ClientId {
        &self.client
    }

    /// How the link is doing, now and from now on.
    #[must_use]
    pub fn state(&self) -> watch::Receiver<LinkState> {
        self.state.clone()
    }

    /// Waits until the session is established.
    pub async fn connected(&self) {
        let mut state = self.state.clone();
        drop(state.wait_for(|state| matches!(state, LinkState::Connected { .. })).await);
    }

    /// How much the host has to do.
    #[must_use]
    pub fn load(&self) -> Load {
        self.runs.load()
    }

    /// Says goodbye and stops. Runs go on, and a next agent finds them.
    pub async fn shutdown(self) {
        self.shutdown.send_replace(true);
        drop(self.task.await);
    }

    /// Stops without a goodbye, as a crash would.
    pub async fn abort(self) {
        self.task.abort();
        drop(self.task.await);
        self.runs.release().await;
    }
}

fn notice(recovery: &Recovery) -> Option<String> {
    match recovery {
        Recovery::Created | Recovery::Clean => None,
        Recovery::Truncated { bytes } => {
            tracing::warn!(bytes, "journal_truncated");
            None
        }
        Recovery::Replaced { damaged } => {
            tracing::error!(damaged = %damaged.display(), "journal_replaced");
            Some(format!(
                "the journal could not be read and was put aside as {}; runs it knew are lost",
                damaged.display()
            ))
        }
    }
}
