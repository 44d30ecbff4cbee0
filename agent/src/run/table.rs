//! What is known of each run in memory, and who waits for what.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use fleetward_protocol::id::RunId;
use fleetward_protocol::run::CancelCause;
use fleetward_protocol::time::Timestamp;
use tokio::sync::{oneshot, watch};

use super::Progress;
use super::kept::Kept;
use super::queue::Queue;

/// How long a forgotten run's id is remembered after its deadline: hosts' clocks may step.
const REMEMBER: Duration = Duration::from_secs(24 * 3600);

#[derive(Debug)]
pub(super) struct Table {
    pub(super) runs: HashMap<RunId, Held>,
    pub(super) forgotten: BTreeMap<RunId, Timestamp>,
    pub(super) queue: Queue,
    pub(super) turns: HashMap<RunId, oneshot::Sender<()>>,
    /// Runs that an earlier life of the agent accepted, and that wait for the controller's word before they start.
    pub(super) unconfirmed: HashMap<RunId, oneshot::Sender<()>>,
    /// Runs that a restart of the host cut off and that can go on: each waits for how much of its output the controller has.
    pub(super) cut_off: HashMap<RunId, oneshot::Sender<u64>>,
    pub(super) kept: Kept,
}

#[derive(Debug)]
pub(super) struct Held {
    pub(super) progress: watch::Sender<Progress>,
    pub(super) cancel: watch::Sender<Option<CancelCause>>,
    pub(super) deadline: Timestamp,
}

impl Table {
    /// A table without runs.
    pub(super) fn new(capacity: usize, forgotten: BTreeMap<RunId, Timestamp>) -> Self {
        Self {
            runs: HashMap::new(),
            forgotten,
            queue: Queue::new(capacity),
            turns: HashMap::new(),
            unconfirmed: HashMap::new(),
            cut_off: HashMap::new(),
            kept: Kept::default(),
        }
    }

    /// Takes a run out; until when its id is remembered, if it was there.
    pub(super) fn forget(&mut self, run: RunId, now: Timestamp) -> Option<Timestamp> {
        let held = self.runs.remove(&run)?;
        let until = held.deadline.max(now) + REMEMBER;
        self.forgotten.retain(|_, until| *until > now);
        self.forgotten.insert(run, until);
        Some(until)
    }

    /// Tells these runs that they hold a place now.
    pub(super) fn give_turns(&mut self, mut next: Vec<RunId>) {
        while let Some(run) = next.pop() {
            match self.turns.remove(&run) {
                Some(turn) => drop(turn.send(())),
                // It gave up waiting in the meantime.
                None => next.extend(self.queue.release(run)),
            }
        }
    }
}
