//! One run's stream, as the recorder sees it.

use std::sync::Arc;

use fleetward_domain::work::run::RunEvent;
use fleetward_protocol::id::{OperationId, RunId};
use fleetward_protocol::session::SinkEvent;
use tokio::sync::{Semaphore, mpsc, oneshot, watch};

use super::{Entry, RecorderStopped, Report, Request, submit};

/// What is committed of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Committed {
    /// Where the output log ends.
    pub offset: u64,
    /// Whether the host is known to have it.
    pub accepted: bool,
    /// Whether it has ended: nothing more is taken.
    pub ended: bool,
    /// Whether the host reported what cannot have happened; the stream should be opened again.
    pub impossible: bool,
}

/// Where one run's stream reports to, and what it hears of the commits.
#[derive(Debug)]
pub struct Feed {
    queue: mpsc::Sender<Entry>,
    room: Arc<Semaphore>,
    run: RunId,
    operation: OperationId,
    committed: Arc<watch::Sender<Committed>>,
}

impl Feed {
    pub(super) fn new(
        queue: mpsc::Sender<Entry>,
        room: Arc<Semaphore>,
        run: RunId,
        operation: OperationId,
        offset: u64,
    ) -> Self {
        let (committed, _) = watch::channel(Committed { offset, ..Committed::default() });
        Self { queue, room, run, operation, committed: Arc::new(committed) }
    }

    /// Reports what the host said. Waits while the store is behind: this is the back-pressure.
    ///
    /// # Errors
    /// If the controller is stopping.
    pub async fn report(&self, event: SinkEvent) -> Result<(), RecorderStopped> {
        let happened = |event| Report::Happened { event, duration_ms: None, left: None };
        let report = match event {
            SinkEvent::Nothing => return Ok(()),
            SinkEvent::Accepted => happened(RunEvent::Accepted),
            SinkEvent::Refused(refusal) => happened(RunEvent::Refused(refusal)),
            SinkEvent::Started { .. } => happened(RunEvent::Started),
            SinkEvent::Unknown => happened(RunEvent::Unknown),
            SinkEvent::Output { offset, bytes } => Report::Output { offset, bytes },
            SinkEvent::Finished(finished) => Report::Happened {
                event: RunEvent::Finished(finished.outcome),
                duration_ms: Some(finished.duration_ms),
                left: finished.left,
            },
        };
        self.submit(report).await
    }

    /// A stream was opened for the run.
    ///
    /// # Errors
    /// If the controller is stopping.
    pub async fn attached(&self) -> Result<(), RecorderStopped> {
        self.submit(Report::Attached).await
    }

    /// Begins again after a stream broke: waits for what it had reported, and returns where the next one goes on.
    ///
    /// # Errors
    /// If the controller is stopping.
    pub async fn restart(&self) -> Result<u64, RecorderStopped> {
        let (reply, settled) = oneshot::channel();
        submit(&self.queue, &self.room, Request::Barrier(reply), 0).await?;
        settled.await.map_err(|_| RecorderStopped)?;
        self.committed.send_modify(|committed| committed.impossible = false);
        Ok(self.committed().offset)
    }

    /// What is committed now.
    #[must_use]
    pub fn committed(&self) -> Committed {
        *self.committed.borrow()
    }

    /// What is committed, from now on.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<Committed> {
        self.committed.subscribe()
    }

    async fn submit(&self, report: Report) -> Result<(), RecorderStopped> {
        let bytes = match &report {
            Report::Output { bytes, .. } => bytes.len(),
            Report::Attached | Report::Happened { .. } => 0,
        };
        let feed = Arc::clone(&self.committed);
        let what = Request::Report { run: self.run, operation: self.operation, report, feed };
        submit(&self.queue, &self.room, what, bytes).await
    }
}
