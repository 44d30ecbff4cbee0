//! Where an operation's runs stand, counted as their events come.

use std::collections::HashMap;

use fleetward_api::work::run::{Run, RunState};
use fleetward_protocol::id::RunId;

use crate::render::words;

/// The latest state of every run, without its report: of ten thousand dry runs that would be hundreds of megabytes.
#[derive(Debug, Default)]
pub(super) struct Tally {
    runs: HashMap<RunId, Run>,
    succeeded: usize,
    failed: usize,
    cancelled: usize,
    running: usize,
    waiting: usize,
    queued: usize,
}

impl Tally {
    /// Takes a run's latest state and gives back the one before.
    pub(super) fn take(&mut self, mut run: Run) -> Option<Run> {
        run.report = None;
        *self.counter(&run) += 1;
        let before = self.runs.insert(run.id, run);
        if let Some(before) = &before {
            *self.counter(before) -= 1;
        }
        before
    }

    /// A run as it was last heard of.
    pub(super) fn get(&self, id: RunId) -> Option<&Run> {
        self.runs.get(&id)
    }

    /// Runs that have ended.
    pub(super) const fn ended(&self) -> usize {
        self.succeeded + self.failed + self.cancelled
    }

    /// Runs that are known.
    pub(super) fn known(&self) -> usize {
        self.runs.len()
    }

    /// Runs that succeeded.
    pub(super) const fn succeeded(&self) -> usize {
        self.succeeded
    }

    /// The runs that have not ended, by host and step; none where there are more hosts than `most`.
    pub(super) fn open(&self, most: usize) -> Vec<&Run> {
        if self.known() - self.ended() > most {
            return Vec::new();
        }
        let mut open: Vec<&Run> = self.runs.values().filter(|run| !words::run_ended(run.state)).collect();
        open.sort_by(|a, b| (&a.host, a.step).cmp(&(&b.host, b.step)));
        open
    }

    /// Where the runs stand, in words.
    pub(super) fn words(&self) -> String {
        let counts = [
            (self.succeeded, "succeeded"),
            (self.failed, "failed"),
            (self.cancelled, "cancelled"),
            (self.running, "running"),
            (self.waiting, words::WAITING),
            (self.queued, "queued"),
        ];
        let some: Vec<String> = counts
            .iter()
            .filter(|(count, _)| *count > 0)
            .map(|(count, what)| format!("{count} {what}"))
            .collect();
        some.join(" · ")
    }

    /// Runs that ended without success, by host and step.
    pub(super) fn failures(&self) -> Vec<&Run> {
        let mut failures: Vec<&Run> = self
            .runs
            .values()
            .filter(|run| words::run_ended(run.state) && run.state != RunState::Succeeded)
            .collect();
        failures.sort_by(|a, b| (&a.host, a.step).cmp(&(&b.host, b.step)));
        failures
    }

    fn counter(&mut self, run: &Run) -> &mut usize {
        match run.state {
            RunState::Succeeded => &mut self.succeeded,
            RunState::Cancelled => &mut self.cancelled,
            RunState::Failed
            | RunState::TimedOut
            | RunState::Refused
            | RunState::Expired
            | RunState::Lost => &mut self.failed,
            RunState::Queued if run.state_detail.as_deref() == Some(words::WAITING) => &mut self.waiting,
            RunState::Queued => &mut self.queued,
            RunState::Dispatched | RunState::Accepted | RunState::Running => &mut self.running,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn nothing_is_kept_of_what_runs_reported() {
        let mut tally = Tally::default();
        let run = json!({
            "id": "01890000-0000-7000-8000-000000000001", "operation": "01890000-0000-7000-8000-00000000000a",
            "host": "web-1", "step": 0, "kind": "k", "subject": "s", "digest": "0".repeat(64), "state": "failed",
            "report": { "changes": [] }, "output_bytes": 0, "output_dropped": 0, "reattached": 0, "seq": 1,
        });
        let run: Run = serde_json::from_value(run).unwrap();
        let id = run.id;
        assert!(run.report.is_some() && tally.take(run).is_none());
        assert!(tally.get(id).unwrap().report.is_none());
    }
}
