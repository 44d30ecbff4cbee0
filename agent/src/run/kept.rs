//! Runs that the controller has committed and that stay for a while. A controller that was restored from a backup, or whose
//! database lost its last commits, finds them in the next hello and asks for them again.

use std::collections::BTreeMap;
use std::time::Duration;

use fleetward_protocol::id::RunId;
use tokio::sync::oneshot;

use super::{Runs, Shared};
use crate::platform::{clock, files};

/// The most runs that are kept; the oldest go.
const MOST: usize = 256;
/// The most output, in bytes, that a run may have to be kept.
const LARGEST: u64 = 4 << 20;
/// So many times the space below which no run starts must be free. With less nothing is kept.
const SPARE: u64 = 4;

/// The runs that are kept.
#[derive(Debug, Default)]
pub(super) struct Kept {
    runs: BTreeMap<RunId, oneshot::Sender<()>>,
    /// For how long the controller asks to keep them, in seconds.
    asked: u64,
}

impl Runs {
    /// Takes note of how long the controller asks to keep what it has committed.
    pub fn keep(&self, seconds: u32) {
        self.shared.table().kept.asked = u64::from(seconds);
    }

    /// The controller is gone, for now: what is kept stays until it is back and says again that it may go. Else the time
    /// in which a database is restored would be the time in which the only copies go.
    pub fn hold_kept(&self) {
        let kept = std::mem::take(&mut self.shared.table().kept.runs);
        for hold in kept.into_values() {
            // Fails only if its time ended at this moment.
            let _ = hold.send(());
        }
    }
}

impl Shared {
    /// Lets runs that are kept go, the oldest first, until so many bytes are free or none is left: what is still to do
    /// comes before what was done.
    pub(super) async fn ensure_room(&self, wanted: u64) {
        let is_short = || files::read_free_space(&self.host.paths.state).is_ok_and(|free| free < wanted);
        while is_short() {
            let (run, until) = {
                let mut table = self.table();
                let Some(run) = table.kept.pop_oldest() else { return };
                (run, table.forget(run, clock::now()))
            };
            let Some(until) = until else { continue };
            self.note_forgotten(run, until).await;
            self.remove_directory(run);
            tracing::info!(run_id = %run, "kept_run_gave_room");
        }
    }
}

impl Kept {
    /// The oldest run that is kept, which is not any longer.
    fn pop_oldest(&mut self) -> Option<RunId> {
        self.runs.pop_first().map(|(run, _)| run)
    }

    /// The run is wanted again, and stays until it may go once more.
    pub(super) fn hold(&mut self, run: RunId) {
        if let Some(hold) = self.runs.remove(&run) {
            // Fails only if its time ended at this moment.
            let _ = hold.send(());
        }
    }

    /// Keeps a run until the receiver is closed; `None` if it is kept already.
    fn insert(&mut self, run: RunId) -> Option<oneshot::Receiver<()>> {
        if self.runs.contains_key(&run) {
            return None;
        }
        let (sender, receiver) = oneshot::channel();
        self.runs.insert(run, sender);
        if self.runs.len() > MOST {
            self.runs.pop_first();
        }
        Some(receiver)
    }
}

/// What comes of a run that may be forgotten.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Turn {
    /// It goes now.
    Go,
    /// It stays: another caller waits for its time already, or it is wanted again.
    Kept,
}

/// Waits for as long as a run of `output` bytes is kept.
pub(super) async fn wait(shared: &Shared, run: RunId, output: u64) -> Turn {
    let settings = shared.settings();
    let asked = settings.as_ref().ok().and_then(|settings| settings.runs.keep_s);
    let keep = asked.unwrap_or_else(|| shared.table().kept.asked);
    if keep == 0 || output > LARGEST {
        return Turn::Go;
    }
    let wanted = settings.map_or(0, |settings| settings.runs.min_free().saturating_mul(SPARE));
    if files::read_free_space(&shared.host.paths.state).is_ok_and(|free| free < wanted) {
        shared.table().kept.runs.clear();
        return Turn::Go;
    }
    let Some(released) = shared.table().kept.insert(run) else { return Turn::Kept };
    tokio::select! {
        // Let go in the same moment in which its time ends, it goes.
        biased;
        released = released => match released {
            Ok(()) => Turn::Kept,
            // The sender was dropped: there are newer ones, or there is no room.
            Err(_) => Turn::Go,
        },
        () = tokio::time::sleep(Duration::from_secs(keep)) => match shared.table().kept.runs.remove(&run) {
            Some(_) => Turn::Go,
            // Held at this moment.
            None => Turn::Kept,
        },
    }
}
