//! The recorder: the only writer of runs' states and output.
//!
//! Everything that happens to runs comes through one bounded queue and is committed in groups: whatever has
//! gathered while one transaction was being written goes into the next. Only then is it acknowledged to the
//! host, announced to readers and reported to the dispatcher.
//!
//! **What it promises.** Acknowledged means committed. Order within a run is kept. Bytes that were reported
//! twice are written once. While the store cannot take anything (disk full, database away) everything waits:
//! the queue fills, streams are not read any further, hosts keep their output; it goes on by itself when the
//! store does.
//!
//! **Deliberately absent.** Decisions about what to start: that is the dispatcher's.

mod batch;
mod failure;
mod feed;

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use fleetward_domain::work::operation::OperationStatus;
use fleetward_domain::work::run::{RunEvent, RunState};
use fleetward_protocol::id::{OperationId, RunId, TenantId};
use fleetward_protocol::run::Left;
use fleetward_store::Store;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot, watch};
use tokio::task::JoinHandle;

use crate::clock::{Clock, DeadlineClock};
use crate::continuity::Continuity;
use crate::fleet::online::Fleet;
use crate::health::Health;
use crate::inbox::Dispatcher;
use crate::metrics::Metrics;
use crate::vital::Vital;
use crate::work::live::Live;

pub use feed::{Committed, Feed};

/// Bytes of output that may wait for their commit, of all hosts together.
const ROOM: usize = 8 << 20;
/// Entries that may wait; what they weigh is limited by [`ROOM`].
const QUEUE: usize = 4096;
/// What an entry weighs beside its bytes.
const ENTRY: usize = 256;

/// The recorder has stopped; the controller is shutting down.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the controller is stopping")]
pub struct RecorderStopped;

/// The way into the recorder. All clones lead to one recorder.
#[derive(Debug)]
pub struct Recorder {
    queue: mpsc::Sender<Entry>,
    room: Arc<Semaphore>,
    task: Mutex<Option<JoinHandle<()>>>,
    stop: watch::Sender<bool>,
}

/// What the recorder works with.
pub(crate) struct Parts {
    pub(crate) store: Store,
    pub(crate) clock: Clock,
    pub(crate) deadlines: DeadlineClock,
    pub(crate) live: Live,
    pub(crate) continuity: Continuity,
    pub(crate) vital: Vital,
    pub(crate) fleet: Fleet,
    pub(crate) health: Arc<Health>,
    pub(crate) metrics: Metrics,
    pub(crate) dispatcher: Dispatcher,
}

/// An event for a run that did not come from its host's stream.
#[derive(Debug, Clone)]
pub struct RunTransition {
    /// The operation.
    pub operation: OperationId,
    /// The run.
    pub run: RunId,
    /// What happened, or is wanted.
    pub event: RunEvent,
    /// The run's state, if the caller has just read or been told it.
    pub known: Option<RunState>,
}

/// An operation's step from one status to another.
#[derive(Debug, Clone, Copy)]
pub struct StatusChange {
    /// Whose operation.
    pub tenant: TenantId,
    /// The operation.
    pub operation: OperationId,
    /// The status it is in.
    pub from: OperationStatus,
    /// The status it should be in; the same, if only the halt is to be noted.
    pub to: OperationStatus,
    /// Whether the rollout was halted just now.
    pub halted: Halted,
}

/// Whether a rollout was halted just now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Halted {
    /// It was.
    Now,
    /// It was not, or earlier.
    No,
}

/// One thing to record, with its share of the room.
#[derive(Debug)]
struct Entry {
    what: Request,
    _room: OwnedSemaphorePermit,
}

#[derive(Debug)]
enum Request {
    RunTransition(RunTransition),
    Report {
        run: RunId,
        operation: OperationId,
        report: Report,
        feed: Arc<watch::Sender<Committed>>,
    },
    Status(StatusChange),
    /// Answered when everything before it is committed.
    Barrier(oneshot::Sender<()>),
}

/// What a host's stream reported.
#[derive(Debug)]
enum Report {
    /// A stream was opened.
    Attached,
    /// Something happened to the run.
    Happened { event: RunEvent, duration_ms: Option<u64>, left: Option<Left> },
    /// Its output log grew.
    Output { offset: u64, bytes: Bytes },
}

/// Starts the recorder.
pub(crate) fn start(parts: Parts) -> Recorder {
    let (queue, receiver) = mpsc::channel(QUEUE);
    let (stop, stopped) = watch::channel(false);
    let vital = parts.vital.clone();
    // It ends only where it is told to, or nobody is left to tell it.
    let task =
        tokio::spawn(vital.watch("recorder", || true, batch::Writer::new(parts).run(receiver, stopped)));
    Recorder { queue, room: Arc::new(Semaphore::new(ROOM)), task: Mutex::new(Some(task)), stop }
}

impl Recorder {
    /// A stream's way into the recorder. `offset` is where the committed copy of the run's log ends.
    #[must_use]
    pub fn feed(&self, run: RunId, operation: OperationId, offset: u64) -> Feed {
        Feed::new(self.queue.clone(), Arc::clone(&self.room), run, operation, offset)
    }

    /// Records events of runs, in order. Returns when they are queued; what comes of them the dispatcher is told.
    ///
    /// # Errors
    /// If the controller is stopping.
    pub async fn apply(
        &self,
        changes: impl IntoIterator<Item = RunTransition>,
    ) -> Result<(), RecorderStopped> {
        for change in changes {
            self.submit(Request::RunTransition(change)).await?;
        }
        Ok(())
    }

    /// Records a change of an operation's status.
    ///
    /// # Errors
    /// If the controller is stopping.
    pub async fn apply_status(&self, change: StatusChange) -> Result<(), RecorderStopped> {
        self.submit(Request::Status(change)).await
    }

    /// Returns when everything that was submitted before is committed.
    ///
    /// # Errors
    /// If the controller is stopping.
    pub async fn settle(&self) -> Result<(), RecorderStopped> {
        let (reply, settled) = oneshot::channel();
        self.submit(Request::Barrier(reply)).await?;
        settled.await.map_err(|_| RecorderStopped)
    }

    /// Commits what is queued and takes nothing more.
    pub async fn stop(&self) {
        self.stop.send_replace(true);
        let task = self.task.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(task) = task {
            // A panic of the writer has been reported by the runtime already.
            let _ = task.await;
        }
    }

    async fn submit(&self, what: Request) -> Result<(), RecorderStopped> {
        submit(&self.queue, &self.room, what, 0).await
    }
}

async fn submit(
    queue: &mpsc::Sender<Entry>,
    room: &Arc<Semaphore>,
    what: Request,
    bytes: usize,
) -> Result<(), RecorderStopped> {
    let weight = u32::try_from((bytes + ENTRY).min(ROOM)).unwrap_or(u32::MAX);
    let permit = Arc::clone(room).acquire_many_owned(weight).await.map_err(|_| RecorderStopped)?;
    queue.send(Entry { what, _room: permit }).await.map_err(|_| RecorderStopped)
}

#[cfg(test)]
mod tests;
