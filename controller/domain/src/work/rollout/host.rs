//! One host's progress through its steps.

use std::collections::HashSet;

use fleetward_protocol::id::RunId;

use super::{PlannedHost, Presence};
use crate::work::operation::OnFailure;
use crate::work::run::{Cause, RunState, RunStatus};

/// Whether something begins or ends to be true.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Edge {
    None,
    Begins,
    Ends,
}

#[derive(Debug)]
pub(super) struct HostProgress {
    pub(super) presence: Presence,
    /// Whether it was begun while canaries were awaited.
    pub(super) canary: bool,
    steps: Vec<Step>,
    on_failure: OnFailure,
    /// Whether a step was handed out. Not known of a run that was cancelled before a restart.
    handed_out: bool,
    busy: bool,
    active: bool,
    success_taken: bool,
}

#[derive(Debug)]
struct Step {
    run: RunId,
    status: RunStatus,
    decided: Decided,
    /// Whether a poll gave the decision out.
    given_out: bool,
}

/// What was decided about a run and not reported back yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Decided {
    Nothing,
    Start,
    Cancel(Cause),
    Expire,
}

impl HostProgress {
    pub(super) fn new(planned: PlannedHost, on_failure: OnFailure) -> Self {
        let step = |(run, state): (RunId, RunState)| Step {
            run,
            status: state.status(),
            decided: decision_of(&state),
            given_out: true,
        };
        let steps: Vec<_> = planned.runs.into_iter().map(step).collect();
        debug_assert_eq!(
            steps.iter().map(|step| step.run).collect::<HashSet<_>>().len(),
            steps.len(),
            "a run stands in a plan once"
        );
        let mut host = Self {
            presence: planned.presence,
            canary: false,
            steps,
            on_failure,
            handed_out: false,
            busy: false,
            active: false,
            success_taken: false,
        };
        host.success_taken = host.succeeded();
        host.handed_out = host.steps.iter().any(|step| shows_hand_out(step.status));
        host
    }

    /// Takes a step's state; returns the status it had.
    pub(super) fn set(&mut self, step: usize, state: &RunState) -> Option<RunStatus> {
        let step = self.steps.get_mut(step)?;
        // A state never goes back: a report that is older than what is known is no news.
        if step.status.is_final() || state.status() < step.status {
            return None;
        }
        step.decided = decision_of(state);
        step.given_out = true;
        self.handed_out |= shows_hand_out(state.status());
        Some(std::mem::replace(&mut step.status, state.status()))
    }

    /// Whether any step went wrong.
    pub(super) fn failed(&self) -> bool {
        self.steps.iter().any(|step| step.status.is_failure())
    }

    /// Whether every step went well.
    pub(super) fn succeeded(&self) -> bool {
        self.steps.iter().all(|step| step.status == RunStatus::Succeeded)
    }

    /// Whether it succeeded, told once.
    pub(super) fn take_success(&mut self) -> bool {
        let news = !self.success_taken && self.succeeded();
        self.success_taken |= news;
        news
    }

    /// Whether any step was handed out, or is about to be.
    pub(super) fn begun(&self) -> bool {
        self.handed_out || self.steps.iter().any(|step| step.decided == Decided::Start)
    }

    /// Whether a run is on the host, or about to be.
    pub(super) fn is_busy(&self) -> bool {
        self.steps.iter().any(|step| step.status.is_held() || step.decided == Decided::Start)
    }

    /// Whether the next step could start.
    pub(super) fn is_ready(&self) -> bool {
        self.presence == Presence::Online && !self.is_busy() && self.next().is_some()
    }

    /// Decides to start the next step.
    pub(super) fn start(&mut self) -> Option<RunId> {
        let next = self.next()?;
        let step = self.steps.get_mut(next)?;
        step.decided = Decided::Start;
        step.given_out = true;
        Some(step.run)
    }

    /// Whether a step ended in a way that keeps the later ones from running.
    pub(super) fn stops_at_failure(&self) -> bool {
        let ended_badly = |step: &Step| step.status.is_final() && step.status != RunStatus::Succeeded;
        self.on_failure == OnFailure::StopHost && self.steps.iter().any(ended_badly)
    }

    /// Decides that what is queued will not run; tells of each run that this is news for.
    pub(super) fn end_queued(&mut self, decided: Decided, news: &mut Vec<RunId>) {
        self.decide(decided, |status| status == RunStatus::Queued, news);
    }

    /// Takes back what was decided to expire and not given out: what was, is answered.
    pub(super) fn take_back_expiries(&mut self) {
        for step in &mut self.steps {
            if step.decided == Decided::Expire && !step.given_out {
                step.decided = Decided::Nothing;
            }
        }
    }

    /// Decides that what is on the host should stop; tells of each run that this is news for.
    pub(super) fn stop_held(&mut self, cause: Cause, news: &mut Vec<RunId>) {
        self.decide(Decided::Cancel(cause), RunStatus::is_held, news);
    }

    fn decide(&mut self, decided: Decided, about: fn(RunStatus) -> bool, news: &mut Vec<RunId>) {
        for step in self.steps.iter_mut().filter(|step| about(step.status)) {
            if step.decided == Decided::Nothing {
                step.decided = decided;
                step.given_out = false;
                news.push(step.run);
            }
        }
    }

    /// What is decided about a step, if it was not given out before.
    pub(super) fn give_out(&mut self, step: usize) -> Decided {
        let Some(step) = self.steps.get_mut(step) else { return Decided::Nothing };
        if std::mem::replace(&mut step.given_out, true) { Decided::Nothing } else { step.decided }
    }

    /// Whether it begins or ends to be busy.
    pub(super) fn update_busy(&mut self) -> Edge {
        let busy = self.is_busy();
        change(&mut self.busy, busy)
    }

    /// Whether it begins or ends to be something that others wait for: it has begun, has not ended, and is
    /// not away with nothing under way.
    pub(super) fn update_active(&mut self) -> Edge {
        let ended = self.steps.iter().all(|step| step.status.is_final());
        let away = self.presence == Presence::Offline && !self.is_busy();
        let active = self.begun() && !ended && !away;
        change(&mut self.active, active)
    }

    fn next(&self) -> Option<usize> {
        let next = self.steps.iter().position(|step| !step.status.is_final())?;
        let step = self.steps.get(next)?;
        (step.status == RunStatus::Queued && step.decided == Decided::Nothing).then_some(next)
    }
}

const fn shows_hand_out(status: RunStatus) -> bool {
    !matches!(status, RunStatus::Queued | RunStatus::Cancelled | RunStatus::Expired)
}

/// A cancel request on record is a decision that was made before.
fn decision_of(state: &RunState) -> Decided {
    state.custody().and_then(|custody| custody.cancel).map_or(Decided::Nothing, Decided::Cancel)
}

fn change(current: &mut bool, new: bool) -> Edge {
    match (std::mem::replace(current, new), new) {
        (false, true) => Edge::Begins,
        (true, false) => Edge::Ends,
        _ => Edge::None,
    }
}
