//! The rollout: which runs of an operation may start now, and which never will.
//!
//! [`Rollout`] takes events with `handle_*` and gives decisions with [`Rollout::poll`]. The caller carries a
//! decision out (through [`RunState::apply`](crate::work::run::RunState::apply) and the store) and reports the run's
//! new state back with [`Rollout::handle_run_changed`]; until then the machine counts the run as under way. It
//! keeps nothing that the store does not hold: after a crash a new one is made from the runs' states.
//!
//! What it promises, for any order of events:
//! - A host is *busy* from the decision to start a run on it until that run has ended. Never more than
//!   `concurrency` hosts are busy (P18). A host that is lost from sight in mid-run stays busy: its run may go on.
//! - Steps of a host start one at a time, in order; unless told to continue, none starts after a step that did
//!   not succeed.
//! - While canaries are awaited, no other host starts. A canary that fails halts the rollout.
//! - A batch's hosts have all ended, or are offline with nothing under way, before the next batch begins.
//! - More failed hosts than `max_failures` halt the rollout (0: the first one does): nothing starts after that, and
//!   what was queued is cancelled. What is under way then goes on, and may fail too.
//! - A host that is offline holds no slot and no place in a batch; nothing starts on it.
//! - Nothing starts at or after the deadline.
//!
//! An event costs O(log hosts), a poll O(decisions); only a stop, a halt and the deadline look at every run,
//! once. Deliberately absent: randomness (hosts go in the plan's order) and retries.

mod host;

use std::collections::{BTreeSet, HashMap};

use fleetward_protocol::id::{HostId, RunId};
use fleetward_protocol::time::Timestamp;

use crate::work::operation::{Intent, Offline, OperationStatus, RolloutPolicy, RunCounts};
use crate::work::run::{Cause, RunState};
use host::{Decided, Edge, HostProgress};

/// What a rollout is made from, at the operation's request and again after a restart.
#[derive(Debug, Clone)]
pub struct RolloutPlan {
    /// How to proceed.
    pub policy: RolloutPolicy,
    /// Nothing starts from here on.
    pub deadline: Timestamp,
    /// Under [`Offline::Skip`]: hosts that are offline are skipped from here on. The request's time; after a
    /// restart a little later, so that agents have time to come back.
    pub skip_offline_from: Timestamp,
    /// Whether the operation was asked to stop.
    pub intent: Intent,
    /// The hosts, in the order in which they should start.
    pub hosts: Vec<PlannedHost>,
}

/// One host of a plan.
#[derive(Debug, Clone)]
pub struct PlannedHost {
    /// The host.
    pub host: HostId,
    /// Whether it is connected.
    pub presence: Presence,
    /// Its runs in the order of their steps, with the states the store holds.
    pub runs: Vec<(RunId, RunState)>,
}

/// Whether a host is connected and may be given runs. A host in quarantine counts as offline.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Presence {
    /// Connected.
    Online,
    /// Not connected.
    Offline,
}

/// What is to be done now. A run is named again only if something was reported about it that does not show
/// what was decided.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Decisions {
    /// Hand these to their hosts. If that is not possible, report them back as they are.
    pub start: Vec<RunId>,
    /// Cancel these: at once where they are queued, as a request where a host has them.
    pub cancel: Vec<(RunId, Cause)>,
    /// These were not started in time.
    pub expire: Vec<RunId>,
    /// Every run has ended: the operation's final status.
    pub finished: Option<OperationStatus>,
    /// When to poll again even if nothing happens.
    pub wake_at: Option<Timestamp>,
}

/// Why nothing more will start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum End {
    /// The deadline passed.
    Deadline,
    /// Too many hosts failed, or a canary did.
    Halted,
    /// It was asked to stop.
    Stopped,
}

/// The machine. See the module.
#[derive(Debug)]
pub struct Rollout {
    policy: RolloutPolicy,
    deadline: Timestamp,
    skip_offline_from: Timestamp,
    skipped_offline: bool,
    hosts: Vec<HostProgress>,
    host_index: HashMap<HostId, usize>,
    run_index: HashMap<RunId, (usize, usize)>,
    /// Hosts that could start a run now, those that have begun before the others.
    ready: BTreeSet<(Turn, usize)>,
    busy: u32,
    counts: RunCounts,
    failed_hosts: u32,
    max_failures: Option<u32>,
    canaries: Canaries,
    batch: Batch,
    end: Option<End>,
    /// Runs about which something was decided since the last poll.
    news: Vec<RunId>,
}

/// Where a ready host stands in the queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Turn {
    /// It ran an earlier step: it goes on before anyone begins.
    Begun,
    /// It waits for its turn to begin.
    Fresh,
}

#[derive(Debug, Clone, Copy)]
struct Canaries {
    wanted: u32,
    succeeded: u32,
    /// Begun, not ended, and not away.
    active: u32,
}

impl Canaries {
    const fn awaited(self) -> bool {
        self.succeeded < self.wanted
    }
}

#[derive(Debug, Clone, Copy)]
struct Batch {
    size: u32,
    begun: u32,
    /// Begun in this batch, not ended, and not away.
    active: u32,
}

impl Rollout {
    /// The rollout of a plan.
    #[must_use]
    pub fn new(plan: RolloutPlan) -> Self {
        let total = u32::try_from(plan.hosts.len()).unwrap_or(u32::MAX);
        let size = plan.policy.batch.map_or(total, |share| share.of_at_least(total)).max(1);
        let mut rollout = Self {
            policy: plan.policy,
            deadline: plan.deadline,
            skip_offline_from: plan.skip_offline_from,
            skipped_offline: false,
            hosts: Vec::with_capacity(plan.hosts.len()),
            host_index: HashMap::with_capacity(plan.hosts.len()),
            run_index: HashMap::new(),
            ready: BTreeSet::new(),
            busy: 0,
            counts: RunCounts::default(),
            failed_hosts: 0,
            max_failures: plan.policy.max_failures.map(|share| share.of_at_most(total)),
            canaries: Canaries { wanted: plan.policy.canary.min(total), succeeded: 0, active: 0 },
            batch: Batch { size, begun: 0, active: 0 },
            end: None,
            news: Vec::new(),
        };
        let mut hosts = Vec::with_capacity(plan.hosts.len());
        for planned in plan.hosts {
            let index = hosts.len();
            rollout.host_index.insert(planned.host, index);
            for (step, (run, state)) in planned.runs.iter().enumerate() {
                rollout.run_index.insert(*run, (index, step));
                rollout.counts.add(state.status(), 1);
            }
            hosts.push(HostProgress::new(planned, plan.policy.on_failure));
        }
        rollout.hosts = hosts;
        rollout.recover();
        if plan.intent == Intent::Stop {
            rollout.handle_stop();
        }
        rollout
    }

    /// A run has this state now: one that was decided here, or one that came about otherwise. Unknown runs are
    /// ignored.
    pub fn handle_run_changed(&mut self, run: RunId, state: &RunState) {
        let Some(&(index, step)) = self.run_index.get(&run) else { return };
        let Some(host) = self.hosts.get_mut(index) else { return };
        let was_failed = host.failed();
        if let Some(from) = host.set(step, state) {
            self.counts.handle_moved(from, state.status());
        }
        if host.failed() && !was_failed {
            self.failed_hosts += 1;
            let canary_failed = host.canary && self.canaries.awaited();
            if canary_failed || self.max_failures.is_some_and(|max| self.failed_hosts > max) {
                self.begin_end(End::Halted);
            }
        }
        self.settle(index);
    }

    /// The host is connected.
    pub fn handle_host_online(&mut self, host: HostId) {
        self.handle_presence(host, Presence::Online);
    }

    /// The host is not connected.
    pub fn handle_host_offline(&mut self, host: HostId) {
        self.handle_presence(host, Presence::Offline);
    }

    /// Somebody asked for the operation to be stopped.
    pub fn handle_stop(&mut self) {
        self.begin_end(End::Stopped);
    }

    /// What is to be done now.
    #[must_use]
    pub fn poll(&mut self, now: Timestamp) -> Decisions {
        if now >= self.deadline {
            self.begin_end(End::Deadline);
        } else if self.end == Some(End::Deadline) {
            // The clock that said so was ahead, and was set right. Whoever commits an expiry looks at the time once more
            // and would refuse each of them until the deadline comes.
            self.end = None;
            self.hosts.iter_mut().for_each(HostProgress::take_back_expiries);
            for index in 0..self.hosts.len() {
                self.settle(index);
            }
        }
        let skips = self.policy.offline == Offline::Skip && now >= self.skip_offline_from;
        if skips && !self.skipped_offline {
            self.skipped_offline = true;
            for index in 0..self.hosts.len() {
                self.settle(index);
            }
        }
        let mut decisions = Decisions::default();
        while let Some(run) = self.start_next() {
            decisions.start.push(run);
        }
        for run in std::mem::take(&mut self.news) {
            match self.give_out(run) {
                Decided::Cancel(cause) => decisions.cancel.push((run, cause)),
                Decided::Expire => decisions.expire.push(run),
                // Something else happened to the run meanwhile.
                Decided::Nothing | Decided::Start => {}
            }
        }
        let all_ended = self.counts.ended() == self.counts.total();
        decisions.finished = all_ended.then(|| self.status());
        decisions.wake_at = self.wake_at();
        decisions
    }

    /// The operation's status.
    #[must_use]
    pub fn status(&self) -> OperationStatus {
        let stopped = self.end == Some(End::Stopped);
        self.counts.aggregate(if stopped { Intent::Stop } else { Intent::Proceed })
    }

    /// How many runs are in each status.
    #[must_use]
    pub const fn counts(&self) -> &RunCounts {
        &self.counts
    }

    /// How many hosts are busy.
    #[must_use]
    pub const fn busy(&self) -> u32 {
        self.busy
    }

    /// Whether too many hosts failed, or a canary did.
    #[must_use]
    pub fn is_halted(&self) -> bool {
        self.end == Some(End::Halted)
    }

    /// Finds out from the runs' states how far it had come.
    fn recover(&mut self) {
        let ended_well = self.hosts.iter().filter(|host| host.succeeded()).count();
        self.canaries.succeeded = u32::try_from(ended_well).unwrap_or(u32::MAX);
        // While canaries are awaited nobody else has begun: those that have are the canaries.
        let awaited = self.canaries.awaited();
        let failed = self.hosts.iter().filter(|host| host.failed()).count();
        self.failed_hosts = u32::try_from(failed).unwrap_or(u32::MAX);
        for host in &mut self.hosts {
            host.canary = awaited && host.begun();
        }
        let canary_failed = awaited && failed > 0;
        if canary_failed || self.max_failures.is_some_and(|max| self.failed_hosts > max) {
            self.begin_end(End::Halted);
        }
        for index in 0..self.hosts.len() {
            self.settle(index);
        }
        // How many had begun in the current batch is not known: let it end before anyone else begins.
        if self.policy.batch.is_some() && self.batch.active > 0 {
            self.batch.begun = self.batch.size;
        }
    }

    fn handle_presence(&mut self, host: HostId, presence: Presence) {
        let Some(&index) = self.host_index.get(&host) else { return };
        let Some(host) = self.hosts.get_mut(index) else { return };
        host.presence = presence;
        self.settle(index);
    }

    /// Brings everything that depends on one host up to date with it.
    fn settle(&mut self, index: usize) {
        let Some(host) = self.hosts.get_mut(index) else { return };
        if let Some(end) = self.end {
            decide_end(host, end, &mut self.news);
        } else {
            if host.stops_at_failure() {
                host.end_queued(Decided::Cancel(Cause::PreviousStepFailed), &mut self.news);
            }
            if self.skipped_offline && host.presence == Presence::Offline && !host.is_busy() {
                host.end_queued(Decided::Cancel(Cause::HostOffline), &mut self.news);
            }
        }
        match host.update_busy() {
            Edge::Begins => self.busy += 1,
            Edge::Ends => self.busy = self.busy.saturating_sub(1),
            Edge::None => {}
        }
        let active = if host.canary { &mut self.canaries.active } else { &mut self.batch.active };
        match host.update_active() {
            Edge::Begins => *active += 1,
            Edge::Ends => {
                *active = active.saturating_sub(1);
                if !host.begun() {
                    // The start could not be carried out: its place goes to another host.
                    if !std::mem::take(&mut host.canary) {
                        self.batch.begun = self.batch.begun.saturating_sub(1);
                    }
                }
            }
            Edge::None => {}
        }
        if host.canary && host.take_success() {
            self.canaries.succeeded += 1;
        }
        let turn = if host.begun() { Turn::Begun } else { Turn::Fresh };
        let ready = self.end.is_none() && host.is_ready();
        for entry in [(Turn::Begun, index), (Turn::Fresh, index)] {
            if ready && entry.0 == turn {
                self.ready.insert(entry);
            } else {
                self.ready.remove(&entry);
            }
        }
    }

    /// Takes the next run that may start, if any.
    fn start_next(&mut self) -> Option<RunId> {
        if self.end.is_some() || self.busy >= self.policy.concurrency.get() {
            return None;
        }
        let (turn, index) = *self.ready.first()?;
        let is_canary = turn == Turn::Fresh && self.canaries.awaited();
        if is_canary {
            if self.canaries.succeeded + self.canaries.active >= self.canaries.wanted {
                return None;
            }
        } else if turn == Turn::Fresh {
            if self.batch.begun >= self.batch.size {
                if self.batch.active > 0 {
                    return None;
                }
                self.batch.begun = 0;
            }
            self.batch.begun += 1;
        }
        let host = self.hosts.get_mut(index)?;
        host.canary |= is_canary;
        let run = host.start()?;
        self.settle(index);
        Some(run)
    }

    /// Nothing starts any more. A stronger reason may follow a weaker one; each looks at every run once.
    fn begin_end(&mut self, end: End) {
        if self.end.is_some_and(|current| current >= end) {
            return;
        }
        self.end = Some(end);
        for index in 0..self.hosts.len() {
            self.settle(index);
        }
    }

    fn give_out(&mut self, run: RunId) -> Decided {
        let Some(&(index, step)) = self.run_index.get(&run) else { return Decided::Nothing };
        self.hosts.get_mut(index).map_or(Decided::Nothing, |host| host.give_out(step))
    }

    fn wake_at(&self) -> Option<Timestamp> {
        if self.end.is_some() || self.counts.get(crate::work::run::RunStatus::Queued) == 0 {
            return None;
        }
        let skips = self.policy.offline == Offline::Skip && !self.skipped_offline;
        Some(if skips { self.deadline.min(self.skip_offline_from) } else { self.deadline })
    }
}

/// What the end of the rollout means for one host's runs.
fn decide_end(host: &mut HostProgress, end: End, news: &mut Vec<RunId>) {
    match end {
        End::Deadline => host.end_queued(Decided::Expire, news),
        End::Halted => host.end_queued(Decided::Cancel(Cause::Halted), news),
        End::Stopped => {
            host.end_queued(Decided::Cancel(Cause::Requested), news);
            host.stop_held(Cause::Requested, news);
        }
    }
}

#[cfg(test)]
mod tests;
