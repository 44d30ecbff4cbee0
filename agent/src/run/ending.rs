//! When a run is over: a function of what happened and of the time, without any process.
//!
//! A script's own end is its outcome. The run is over when its output is, too: whoever the script left running may
//! hold that open, and would hold the run's place, its resources and its rollout. So this wait has ends of its own:
//! silence, an absolute limit, and the run's time limit, which goes on. What was left running goes on after them; only
//! a stop ends it.

use std::time::{Duration, Instant};

use fleetward_protocol::run::{Fate, Left, Outcome};

/// After the script's end, how long its pipes may stay quiet before whoever still holds them is left alone.
const QUIET: Duration = Duration::from_secs(5);
/// After the script's end, how long its pipes may be held at all.
const HELD: Duration = Duration::from_secs(30);
/// After the first SIGKILL, how long the rest of a tree may take to end. What waits for a disk or a file server that
/// is gone cannot be ended by anybody.
const STUBBORN: Duration = Duration::from_secs(30);
/// Between two attempts to kill what is left of a tree.
const RETRY: Duration = Duration::from_millis(50);
/// An output that ends so much later than its script is not spoken of: `> >(tee log)` ends a moment later.
const UNREMARKABLE: Duration = Duration::from_millis(100);

/// What is known of a run's end so far.
#[derive(Debug)]
pub(super) struct Ending {
    deadline: Option<Instant>,
    grace: Duration,
    /// How the script itself ended, and when.
    exit: Option<(Outcome, Instant)>,
    /// The last output after that.
    last_output: Option<Instant>,
    stop: Option<Stop>,
}

/// The tree is being stopped.
#[derive(Debug)]
struct Stop {
    outcome: Outcome,
    /// From when on it is killed.
    kill_at: Instant,
    /// How many processes were asked to end.
    asked: u32,
}

/// Why there is nothing left to wait for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Over {
    /// Nobody holds the output any more.
    Closed,
    /// Somebody still does, and was waited for long enough.
    Held,
    /// Everything was stopped.
    Stopped,
    /// Not everything could be stopped.
    Unstoppable,
}

impl Ending {
    pub(super) const fn new(deadline: Option<Instant>, grace: Duration) -> Self {
        Self { deadline, grace, exit: None, last_output: None, stop: None }
    }

    /// The script itself ended. What it was stopped for is what ended it; a stop that comes later is not.
    pub(super) fn exited(&mut self, outcome: Outcome, now: Instant) {
        let outcome = self.stop.as_ref().map_or(outcome, |stop| stop.outcome.clone());
        self.exit.get_or_insert((outcome, now));
    }

    /// There was output.
    pub(super) const fn wrote(&mut self, now: Instant) {
        if self.exit.is_some() {
            self.last_output = Some(now);
        }
    }

    /// Begins to stop the tree: `terminate` asks each of its processes to end and counts them. The first cause counts.
    pub(super) fn stop(&mut self, outcome: Outcome, now: Instant, terminate: impl FnOnce() -> u32) {
        if self.stop.is_none() {
            self.stop = Some(Stop { outcome, kill_at: now + self.grace, asked: terminate() });
        }
    }

    /// Whether the script has taken all its time, and is to be stopped for that.
    pub(super) fn is_timed_out(&self, now: Instant) -> bool {
        self.exit.is_none() && self.stop.is_none() && self.deadline.is_some_and(|deadline| now >= deadline)
    }

    /// Whether everything is being stopped, or has to be by now.
    pub(super) fn is_stopped(&self, now: Instant) -> bool {
        self.stop.is_some() || self.is_timed_out(now)
    }

    /// Whether the tree had its time to end, and is to be killed.
    pub(super) fn is_to_be_killed(&self, now: Instant) -> bool {
        self.stop.as_ref().is_some_and(|stop| now >= stop.kill_at)
    }

    /// Whether the run is over.
    pub(super) fn over(
        &self,
        now: Instant,
        pipes: Pipes,
        is_tree_empty: impl FnOnce() -> bool,
    ) -> Option<Over> {
        let (_, ended) = self.exit.as_ref()?;
        match &self.stop {
            Some(_) if is_tree_empty() => Some(Over::Stopped),
            Some(stop) => (now >= stop.kill_at.max(*ended) + STUBBORN).then_some(Over::Unstoppable),
            None if pipes == Pipes::Closed => Some(Over::Closed),
            None => (now >= self.patience(*ended)).then_some(Over::Held),
        }
    }

    /// Until when whoever holds the output of an ended script is waited for.
    fn patience(&self, ended: Instant) -> Instant {
        let quiet = self.last_output.unwrap_or(ended) + QUIET;
        let until = quiet.min(ended + HELD);
        self.deadline.map_or(until, |deadline| until.min(deadline))
    }

    /// When to look again if nothing happens until then.
    pub(super) fn next(&self, now: Instant) -> Option<Instant> {
        match (&self.stop, &self.exit) {
            (Some(stop), exit) if exit.is_some() || now >= stop.kill_at => Some(now + RETRY),
            (Some(stop), _) => Some(stop.kill_at),
            (None, Some((_, ended))) => Some(self.patience(*ended)),
            (None, None) => self.deadline,
        }
    }

    /// How the script ended, and when.
    pub(super) const fn exit(&self) -> Option<&(Outcome, Instant)> {
        self.exit.as_ref()
    }

    /// What the script left running, as far as it is worth a word. `processes` are those that still run; `unkept` is
    /// what becomes of those that were waited for long enough.
    pub(super) fn left(&self, over: Over, now: Instant, processes: u32, unkept: Fate) -> Option<Left> {
        let (outcome, ended) = self.exit.as_ref()?;
        let held = now.saturating_duration_since(*ended);
        let held_ms = u64::try_from(held.as_millis()).unwrap_or(u64::MAX);
        let left = |processes, fate| Some(Left { processes, held_ms, fate });
        match (over, &self.stop) {
            (Over::Closed, _) if held < UNREMARKABLE => None,
            (Over::Closed, _) => left(0, Fate::LetGo),
            (Over::Held, _) => left(processes, unkept),
            (Over::Unstoppable, _) => left(processes, Fate::Unstoppable),
            // The outcome itself says that everything was stopped, unless the script had ended before.
            (Over::Stopped, Some(stop)) if stop.outcome != *outcome => left(stop.asked, Fate::Stopped),
            (Over::Stopped, _) => None,
        }
    }
}

/// Whether anybody may still write output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pipes {
    Open,
    Closed,
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SECOND: Duration = Duration::from_secs(1);
    const DONE: Outcome = Outcome::Exited(0);

    fn over(ending: &Ending, now: Instant) -> Option<Over> {
        ending.over(now, Pipes::Open, || false)
    }

    #[test]
    fn whoever_writes_on_is_waited_for_no_longer_than_the_time_limit() {
        let start = Instant::now();
        for (limit, end) in [(Some(5), 5), (Some(300), 31), (None, 31)] {
            let mut ending = Ending::new(limit.map(|limit| start + limit * SECOND), SECOND);
            ending.exited(DONE, start + SECOND);
            for second in 1..end {
                let now = start + second * SECOND;
                ending.wrote(now);
                assert_eq!(over(&ending, now), None, "{limit:?}, {second} s");
                assert!(!ending.is_timed_out(now));
            }
            let now = start + end * SECOND;
            assert_eq!(over(&ending, now), Some(Over::Held), "{limit:?}");
            let left = ending.left(Over::Held, now, 1, Fate::Unkept).unwrap();
            assert_eq!((left.held_ms, left.fate), (u64::from(end - 1) * 1000, Fate::Unkept));
        }
    }

    #[test]
    fn a_stop_after_the_scripts_end_ends_what_is_left_and_changes_no_outcome() {
        let start = Instant::now();
        let mut ending = Ending::new(None, SECOND);
        ending.exited(DONE, start);
        ending.stop(Outcome::Cancelled, start + SECOND, || 2);
        assert!(!ending.is_to_be_killed(start + SECOND) && ending.is_to_be_killed(start + 2 * SECOND));
        let now = start + 2 * SECOND;
        assert_eq!(ending.over(now, Pipes::Closed, || true), Some(Over::Stopped));
        assert_eq!(ending.exit().unwrap().0, DONE);
        let left = Left { processes: 2, held_ms: 2000, fate: Fate::Stopped };
        assert_eq!(ending.left(Over::Stopped, now, 0, Fate::Unkept), Some(left));
    }

    #[test]
    fn what_cannot_be_killed_does_not_hold_the_run_for_ever() {
        let start = Instant::now();
        let mut ending = Ending::new(Some(start + SECOND), SECOND);
        assert!(ending.is_timed_out(start + SECOND));
        ending.stop(Outcome::TimedOut, start + SECOND, || 2);
        ending.exited(Outcome::Signalled(9), start + 2 * SECOND);
        assert_eq!(over(&ending, start + 31 * SECOND), None);
        assert_eq!(over(&ending, start + 32 * SECOND), Some(Over::Unstoppable));
        assert_eq!(ending.exit().unwrap().0, Outcome::TimedOut);
        let left = ending.left(Over::Unstoppable, start + 32 * SECOND, 1, Fate::Unkept).unwrap();
        assert_eq!((left.processes, left.fate), (1, Fate::Unstoppable));
    }

    proptest! {
        /// Whatever happens and whenever: once the script has ended, the run does so within a bound that is known
        /// beforehand, and whoever waits for [`Ending::next`] does not miss it.
        #[test]
        fn every_end_has_a_bound(
            limit in prop::option::of(0..120_u32),
            exit in 0..60_u32,
            outputs in prop::collection::vec(0..200_u32, 0..40),
            stop in prop::option::of(0..100_u32),
        ) {
            let start = Instant::now();
            let deadline = limit.map(|limit| start + limit * SECOND);
            let mut ending = Ending::new(deadline, 3 * SECOND);
            let mut began = None;
            for second in 0..300_u32 {
                let now = start + second * SECOND;
                if second == exit {
                    ending.exited(DONE, now);
                }
                if outputs.contains(&second) {
                    ending.wrote(now);
                }
                if stop == Some(second) || ending.is_timed_out(now) {
                    began.get_or_insert(now);
                    ending.stop(Outcome::Cancelled, now, || 1);
                }
                if let Some(over) = over(&ending, now) {
                    let ended = ending.exit().unwrap().1;
                    let bound = match began {
                        None => deadline.map_or(ended + HELD, |limit| limit.max(ended).min(ended + HELD)),
                        Some(began) => (began + 3 * SECOND).max(ended) + STUBBORN,
                    };
                    prop_assert!(now <= bound, "{over:?} after {:?}", now - bound);
                    return Ok(());
                }
                prop_assert!(ending.next(now).is_none_or(|next| next > now));
            }
            prop_assert!(false, "it never ended");
        }
    }
}
