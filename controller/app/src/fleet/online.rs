//! The hosts that are connected now: the app's only way to reach them.
//!
//! The link layer gives every session a [`Seat`] here and carries out the [`HostCommand`]s that arrive through
//! it. One host has one seat: a newer connection with the same identity takes it, and the older one is told to
//! go. Everything here is in memory and is rebuilt by the hosts connecting again.
//!
//! **Deliberately absent.** QUIC, storage, decisions.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use fleetward_protocol::id::{BootId, HostId, JournalId, OperationId, RunId, TenantId};
use fleetward_protocol::message::ClientIdReport;
use fleetward_protocol::query::{Bounds, Fields, Key};
use fleetward_protocol::run::CancelCause;
use fleetward_protocol::time::Timestamp;
use tokio::sync::{broadcast, mpsc, oneshot};

/// Something that a connected host is asked for.
#[derive(Debug)]
pub enum HostCommand {
    /// Open a stream for the run, and report to the recorder what comes.
    Attach(Attach),
    /// Tell the host to stop the run. Ignored for a run that is not attached: its stream tells it when it opens.
    Cancel {
        /// The run.
        run: RunId,
        /// Why.
        cause: CancelCause,
    },
    /// Tell the host that these runs are finished and committed.
    Forget {
        /// The runs.
        runs: Vec<RunId>,
    },
    /// Ask what the host's client-ID file says.
    ReadClientId {
        /// Where the answer goes; dropped if the host cannot answer.
        reply: oneshot::Sender<ClientIdReport>,
    },
    /// Open a stream for a query, and tell what comes.
    Look(Look),
    /// Close the connection.
    Close(CloseReason),
}

/// A query for one host. It lasts as long as somebody receives its answers.
#[derive(Debug)]
pub struct Look {
    /// The order's bytes.
    pub order: Vec<u8>,
    /// Not opened before this.
    pub not_before: Timestamp,
    /// Not opened after this.
    pub deadline: Timestamp,
    /// Whether to go on after all was told, with what changes.
    pub follow: bool,
    /// What the host may take and bring.
    pub bounds: Bounds,
    /// Where it is told. Nothing more is taken from the host while this is full.
    pub answers: mpsc::Sender<Seen>,
}

/// What a host says to a query, checked: the last is one of `Ended`, `Refused` and `Failed`, unless the session ends before.
#[derive(Debug, Clone, PartialEq)]
pub enum Seen {
    /// What it has.
    Items(Vec<(Key, Fields)>),
    /// What it has no more.
    Gone(Vec<Key>),
    /// This was all; what follows are changes.
    Complete,
    /// The answer is whole.
    Ended,
    /// The host will not answer: why, and what to do.
    Refused(String),
    /// The answer broke off: why, and what to do.
    Failed(String),
}

/// A run whose stream is to be opened.
#[derive(Debug, Clone)]
pub struct Attach {
    /// The run.
    pub run: RunId,
    /// Its operation.
    pub operation: OperationId,
    /// The life of the host's journal that has it, or is to have it.
    pub journal: JournalId,
    /// Where the committed copy of its output log ends.
    pub offset: u64,
    /// Whether the host has said that it was started.
    pub started: bool,
    /// What is needed to start it, while there is no proof that the host has accepted it.
    pub dispatch: Option<PreparedDispatch>,
    /// A cancel request that the host may not have heard.
    pub cancel: Option<CancelCause>,
}

/// What is needed to start a run.
#[derive(Debug, Clone)]
pub struct PreparedDispatch {
    /// The order's bytes.
    pub order: Vec<u8>,
    /// The contents that the order names, in its order.
    pub contents: Vec<Bytes>,
    /// Not started before this.
    pub not_before: Timestamp,
    /// Not started after this.
    pub deadline: Timestamp,
}

/// Why the controller closes a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CloseReason {
    /// The host was revoked or retired.
    Revoked,
    /// A newer connection with the same identity took over.
    Superseded,
}

/// A change in the fleet that people watch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FleetEvent {
    /// A host connected, disconnected or changed in the inventory.
    Host {
        /// Whose.
        tenant: TenantId,
        /// Which.
        host: HostId,
    },
    /// An operation was created, moved on or ended.
    Operation {
        /// Whose.
        tenant: TenantId,
        /// Which.
        operation: OperationId,
    },
}

/// A connected host, as of now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Presence {
    /// Since when.
    pub since: Timestamp,
    /// When something was last heard of it.
    pub last_seen: Timestamp,
    /// Its connection's round-trip time; `None` until it is known.
    pub round_trip: Option<Duration>,
    /// How far its clock is ahead of ours, in milliseconds.
    pub clock_skew_ms: i64,
    /// From where it is connected.
    pub remote: SocketAddr,
    /// The life of its journal.
    pub journal: JournalId,
}

/// The connected hosts. Cheap to clone; all clones are one fleet.
#[derive(Debug, Clone)]
pub struct Fleet(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    connected: Mutex<HashMap<HostId, Connected>>,
    next_connection: AtomicU64,
    events: broadcast::Sender<FleetEvent>,
}

#[derive(Debug, Clone)]
struct Connected {
    seat: Arc<Seat>,
    // Not bounded by itself: what is queued here is bounded by the runs that the store says this host holds.
    commands: mpsc::UnboundedSender<HostCommand>,
}

/// One session's place in the fleet.
#[derive(Debug)]
pub struct Seat {
    connection: u64,
    /// The host.
    pub host: HostId,
    /// Whose it is.
    pub tenant: TenantId,
    /// The life of its journal.
    pub journal: JournalId,
    /// This boot of it.
    pub boot: BootId,
    /// From where it is connected.
    pub remote: SocketAddr,
    /// Since when.
    pub since: Timestamp,
    last_seen: AtomicI64,
    round_trip_us: AtomicU64,
    clock_skew_ms: AtomicI64,
}

/// Why a host cannot be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotSent {
    /// It is not connected.
    #[error("the host is offline")]
    Offline,
    /// It is connected with another journal than the run was handed to, so it cannot know the run.
    #[error("the host's journal is another one")]
    OtherJournal(JournalId),
}

/// Who takes a seat.
#[derive(Debug, Clone, Copy)]
pub struct Newcomer {
    /// The host.
    pub host: HostId,
    /// Whose it is.
    pub tenant: TenantId,
    /// The life of its journal.
    pub journal: JournalId,
    /// This boot of it.
    pub boot: BootId,
    /// From where it is connected.
    pub remote: SocketAddr,
    /// How far its clock is ahead of ours, in milliseconds.
    pub clock_skew_ms: i64,
}

/// What came of taking a seat.
#[derive(Debug)]
pub struct Joined {
    /// The seat.
    pub seat: Arc<Seat>,
    /// What the host will be asked for.
    pub commands: mpsc::UnboundedReceiver<HostCommand>,
    /// The connection that had to go, if there was one.
    pub superseded: Option<Presence>,
}

/// Events that a slow listener may lag behind before it is told to load everything again.
const EVENT_BACKLOG: usize = 1024;

impl Fleet {
    /// A fleet without hosts.
    #[must_use]
    pub fn new() -> Self {
        let (events, _) = broadcast::channel(EVENT_BACKLOG);
        Self(Arc::new(Shared { connected: Mutex::default(), next_connection: AtomicU64::new(1), events }))
    }

    /// Gives the newcomer its host's seat. An older connection of the host is told to close.
    #[must_use]
    pub fn join(&self, newcomer: Newcomer, now: Timestamp) -> Joined {
        let (sender, commands) = mpsc::unbounded_channel();
        let seat = Arc::new(Seat {
            connection: self.0.next_connection.fetch_add(1, Ordering::Relaxed),
            host: newcomer.host,
            tenant: newcomer.tenant,
            journal: newcomer.journal,
            boot: newcomer.boot,
            remote: newcomer.remote,
            since: now,
            last_seen: AtomicI64::new(now.as_millis()),
            round_trip_us: AtomicU64::new(0),
            clock_skew_ms: AtomicI64::new(newcomer.clock_skew_ms),
        });
        let connected = Connected { seat: Arc::clone(&seat), commands: sender };
        let older = self.connected().insert(newcomer.host, connected);
        let superseded = older.map(|older| {
            // Fails only if that session has ended already.
            let _ = older.commands.send(HostCommand::Close(CloseReason::Superseded));
            older.seat.presence()
        });
        Joined { seat, commands, superseded }
    }

    /// Gives the seat back. Whether the host is offline now; not so if a newer connection holds its seat.
    #[must_use]
    pub fn leave(&self, seat: &Seat) -> bool {
        let mut connected = self.connected();
        let is_current =
            connected.get(&seat.host).is_some_and(|current| current.seat.connection == seat.connection);
        if is_current {
            connected.remove(&seat.host);
        }
        is_current
    }

    /// Asks the host for something.
    ///
    /// # Errors
    /// If it is not connected, or not with the journal that a run was handed to. A command that was taken may
    /// still be lost with the connection.
    pub fn send(&self, host: HostId, command: HostCommand) -> Result<(), NotSent> {
        let connected = self.connected().get(&host).cloned().ok_or(NotSent::Offline)?;
        if let HostCommand::Attach(attach) = &command
            && attach.journal != connected.seat.journal
        {
            return Err(NotSent::OtherJournal(connected.seat.journal));
        }
        connected.commands.send(command).map_err(|_| NotSent::Offline)
    }

    /// How the host is connected, if it is.
    #[must_use]
    pub fn presence(&self, host: HostId) -> Option<Presence> {
        self.connected().get(&host).map(|connected| connected.seat.presence())
    }

    /// All connected hosts.
    #[must_use]
    pub fn presences(&self) -> HashMap<HostId, Presence> {
        self.connected().iter().map(|(host, connected)| (*host, connected.seat.presence())).collect()
    }

    /// How many hosts are connected.
    #[must_use]
    pub fn len(&self) -> usize {
        self.connected().len()
    }

    /// Whether no host is connected.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Tells those who watch. Nobody watching is no error.
    pub fn announce(&self, event: FleetEvent) {
        let _ = self.0.events.send(event);
    }

    /// Changes from now on.
    #[must_use]
    pub fn watch(&self) -> broadcast::Receiver<FleetEvent> {
        self.0.events.subscribe()
    }

    fn connected(&self) -> MutexGuard<'_, HashMap<HostId, Connected>> {
        self.0.connected.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for Fleet {
    fn default() -> Self {
        Self::new()
    }
}

impl Seat {
    /// Something was heard of the host.
    pub fn heard(&self, now: Timestamp, round_trip: Duration) {
        self.last_seen.store(now.as_millis(), Ordering::Relaxed);
        let micros = u64::try_from(round_trip.as_micros()).unwrap_or(u64::MAX);
        self.round_trip_us.store(micros, Ordering::Relaxed);
    }

    /// The host told its clock.
    pub fn heard_clock(&self, clock: Timestamp, now: Timestamp) {
        self.clock_skew_ms.store(clock.as_millis().saturating_sub(now.as_millis()), Ordering::Relaxed);
    }

    /// What is known of the host's connection.
    #[must_use]
    pub fn presence(&self) -> Presence {
        let micros = self.round_trip_us.load(Ordering::Relaxed);
        Presence {
            since: self.since,
            last_seen: Timestamp::from_millis(self.last_seen.load(Ordering::Relaxed)),
            round_trip: (micros > 0).then(|| Duration::from_micros(micros)),
            clock_skew_ms: self.clock_skew_ms.load(Ordering::Relaxed),
            remote: self.remote,
            journal: self.journal,
        }
    }
}

#[cfg(test)]
mod tests;
