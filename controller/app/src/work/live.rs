//! Tells the readers of an operation that there is something new to read.
//!
//! A reader keeps the last `seq` it has seen, waits here until the operation's `seq` is above it, and reads the
//! rows after it from the store. Nothing is queued for readers: a slow one slows only itself.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use fleetward_protocol::id::OperationId;
use tokio::sync::watch;

/// The latest `seq` of each operation that somebody reads. Cheap to clone; all clones are one.
#[derive(Debug, Clone, Default)]
pub struct Live(Arc<Mutex<HashMap<OperationId, watch::Sender<u64>>>>);

impl Live {
    /// Nobody reads.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The operation's `seq` from now on. The first value is 0 until something is committed; a reader that
    /// begins reads the store once without waiting.
    #[must_use]
    pub fn watch(&self, operation: OperationId) -> watch::Receiver<u64> {
        let mut watched = self.watched();
        // Operations that nobody reads any more are forgotten when somebody begins to read another.
        watched.retain(|_, sender| sender.receiver_count() > 0);
        watched.entry(operation).or_insert_with(|| watch::channel(0).0).subscribe()
    }

    /// The operation's `seq` is at least this now, and its rows are committed.
    pub fn announce(&self, operation: OperationId, seq: u64) {
        if let Some(sender) = self.watched().get(&operation) {
            sender.send_if_modified(|latest| {
                let is_newer = seq > *latest;
                *latest = seq.max(*latest);
                is_newer
            });
        }
    }

    fn watched(&self) -> MutexGuard<'_, HashMap<OperationId, watch::Sender<u64>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
