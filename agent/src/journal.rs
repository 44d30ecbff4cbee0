//! What was accepted, started, refused and forgotten: written, durably, before it is done.
//!
//! **What it promises.** An append has reached the disk when its future resolves. After a crash at any point
//! the journal opens with every resolved append and a prefix of the unresolved ones. Appends that come
//! together share one write and one fdatasync(2). The order of a run, with all that the run is given, is sealed there
//! with a key in a file of its own: a copy of the journal tells nothing of it.
//!
//! **Deliberately absent.** Output and results: those are in the run's own directory, written by its
//! supervisor. What a run is allowed to do: the journal keeps the order's bytes and does not look inside.

mod entry;
mod index;
mod log;
mod seal;
pub mod steps;

pub use entry::Entry;
pub use index::{Known, Phase};
pub use log::{JournalError, Recovery};

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, mpsc};

use fleetward_protocol::id::{JournalId, RunId};
use fleetward_protocol::time::Timestamp;
use serde_bytes::ByteBuf;
use tokio::sync::oneshot;

use crate::platform::files;
use crate::platform::trust::Secrecy;
use log::Log;
use seal::Seal;

/// Requests that are written together at most.
const BATCH: usize = 256;

/// The journal's thread, shared by whoever writes to it.
#[derive(Debug, Clone)]
pub struct Journal {
    requests: mpsc::Sender<Request>,
    seal: Arc<Seal>,
    key: PathBuf,
}

/// What a journal held when it was opened.
#[derive(Debug)]
pub struct Contents {
    /// This life of the journal.
    pub id: JournalId,
    /// Every run that is not forgotten.
    pub runs: BTreeMap<RunId, Known>,
    /// Runs that are forgotten, and until when their ids must be known.
    pub forgotten: BTreeMap<RunId, Timestamp>,
    /// What opening it took.
    pub recovery: Recovery,
}

/// The bytes a run was accepted with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Accepted {
    /// The bytes of the order.
    pub order: Vec<u8>,
    /// The contents it names.
    pub contents: Vec<ByteBuf>,
}

enum Request {
    Append { entries: Vec<Entry>, now: Timestamp, done: oneshot::Sender<Result<(), JournalError>> },
    Read { run: RunId, done: oneshot::Sender<Result<Accepted, JournalError>> },
}

impl Journal {
    /// Opens the journal at `path`, or starts one with the id `fresh` where there is none, or none that can be
    /// read. `now` decides which forgotten runs need not be remembered any longer. The key of what it seals is beside it,
    /// as `.key`.
    ///
    /// # Errors
    /// If a file cannot be read or written, if others could have written it, or the thread cannot be started.
    pub fn open(path: &Path, fresh: JournalId, now: Timestamp) -> Result<(Self, Contents), JournalError> {
        match files::read_trust(path, Secrecy::Private) {
            Err(error) if error.is_absent() => {}
            // What it says is carried out.
            other => other.map_err(JournalError::File)?,
        }
        let key = path.with_extension("key");
        let seal = Arc::new(Seal::load_or_create(&key).map_err(JournalError::File)?);
        let (log, recovery) = Log::open(path, fresh, now)?;
        let contents = Contents {
            id: log.id(),
            runs: log.index().runs().clone(),
            forgotten: log.index().forgotten().clone(),
            recovery,
        };
        let (requests, queue) = mpsc::channel();
        std::thread::Builder::new()
            .name("journal".into())
            .stack_size(256 << 10)
            .spawn(move || serve(log, &queue))
            .map_err(|source| JournalError::Io { act: "start the journal's thread", source })?;
        Ok((Self { requests, seal, key }, contents))
    }

    /// Appends the entries, in the order given, and seals the orders among them; after a crash a prefix of them may be
    /// there. The write begins at once, whether or not the future is polled.
    ///
    /// # Errors
    /// If they could not be made durable; they are not in the journal then.
    pub fn append(
        &self,
        mut entries: Vec<Entry>,
        now: Timestamp,
    ) -> impl Future<Output = Result<(), JournalError>> + Send + use<> {
        let (done, written) = oneshot::channel();
        let sent = self.seal_orders(&mut entries).and_then(|()| {
            let request = Request::Append { entries, now, done };
            self.requests.send(request).map_err(|_| JournalError::Closed)
        });
        async move {
            sent?;
            written.await.map_err(|_| JournalError::Closed)?
        }
    }

    fn seal_orders(&self, entries: &mut [Entry]) -> Result<(), JournalError> {
        for entry in entries {
            if let Entry::Accepted { run, order, .. } = entry
                && !order.is_empty()
            {
                *order = self.seal.seal(*run, order).map_err(|_| JournalError::NotSealed)?;
            }
        }
        Ok(())
    }

    /// Reads back what an accepted run was accepted with: one that is not started yet, or that can be taken up.
    ///
    /// # Errors
    /// If the journal does not hold it any more, if it was sealed with another key, or the file cannot be read.
    pub async fn read(&self, run: RunId) -> Result<Accepted, JournalError> {
        let (done, read) = oneshot::channel();
        self.requests.send(Request::Read { run, done }).map_err(|_| JournalError::Closed)?;
        let Accepted { order, contents } = read.await.map_err(|_| JournalError::Closed)??;
        let order = self.seal.open(run, &order).ok_or_else(|| JournalError::Sealed(self.key.clone()))?;
        Ok(Accepted { order, contents })
    }
}

fn serve(mut log: Log, queue: &mpsc::Receiver<Request>) {
    loop {
        // While nobody waits for it.
        log.ensure_room();
        let Ok(first) = queue.recv() else { return };
        let mut appended = Vec::new();
        let mut waiting = Vec::new();
        let mut latest = None;
        for request in std::iter::once(first).chain(queue.try_iter()).take(BATCH) {
            match request {
                Request::Append { entries, now, done } => {
                    appended.extend(entries);
                    waiting.push(done);
                    latest = Some(now);
                }
                // Its asker already waited for the acceptance, so nothing in this batch can matter to it.
                Request::Read { run, done } => drop(done.send(log.read(run))),
            }
        }
        let Some(now) = latest else { continue };
        let result = log.append(&appended);
        for done in waiting {
            drop(done.send(result.as_ref().copied().map_err(JournalError::repeat)));
        }
        if let Err(error) = log.compact_if_due(now) {
            tracing::warn!(error = &error as &dyn std::error::Error, "journal_compaction_failed");
        }
    }
}

#[cfg(test)]
mod tests;
