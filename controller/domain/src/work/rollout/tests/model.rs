//! Random operations in a random world: hosts that come and go, decisions that are carried out late or not at
//! all, and a controller that forgets everything but its store. After every step the promises of the module
//! are checked against the world, not against the machine.

use std::collections::HashSet;

use proptest::prelude::*;

use super::*;
use crate::work::run::RunEvent;

/// One thing that happens. `u16`s choose among what there is to choose from.
#[derive(Debug, Clone)]
enum Step {
    Poll,
    CarryOut(u16),
    GiveUp(u16),
    Advance(u16),
    End(u16, u8),
    Presence(u16),
    CancelOne(u16),
    Clock(u16),
    Stop,
    Crash,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => Just(Step::Poll),
        12 => any::<u16>().prop_map(Step::CarryOut),
        1 => any::<u16>().prop_map(Step::GiveUp),
        6 => any::<u16>().prop_map(Step::Advance),
        10 => (any::<u16>(), any::<u8>()).prop_map(|(run, how)| Step::End(run, how)),
        4 => any::<u16>().prop_map(Step::Presence),
        1 => any::<u16>().prop_map(Step::CancelOne),
        1 => (0u16..20).prop_map(Step::Clock),
        1 => prop::bool::weighted(0.1).prop_map(|stop| if stop { Step::Stop } else { Step::Poll }),
        1 => Just(Step::Crash),
    ]
}

fn policy() -> impl Strategy<Value = RolloutPolicy> {
    let share = || prop_oneof![(1u32..6).prop_map(Share::Count), (1u8..=100).prop_map(Share::Percent)];
    (
        1u32..6,
        prop::option::of(share()),
        0u32..4,
        prop::option::of(prop_oneof![share(), Just(Share::Count(0))]),
        any::<bool>(),
        any::<bool>(),
    )
        .prop_map(|(concurrency, batch, canary, max_failures, skip, goes_on)| RolloutPolicy {
            concurrency: NonZeroU32::new(concurrency).unwrap(),
            batch,
            canary,
            max_failures,
            offline: if skip { Offline::Skip } else { Offline::Wait },
            on_failure: if goes_on { OnFailure::Continue } else { OnFailure::StopHost },
            ..RolloutPolicy::default()
        })
}

/// A decision that waits to be carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Decision {
    Start(RunId),
    Cancel(RunId, Cause),
    Expire(RunId),
}

#[derive(Debug)]
struct World {
    policy: RolloutPolicy,
    states: Vec<Vec<RunState>>,
    online: Vec<bool>,
    now: Timestamp,
    stopped: bool,
    undone: Vec<Decision>,
    /// The hosts of the current batch, and whether it takes no more.
    batch: HashSet<usize>,
    batch_is_closed: bool,
    /// Begun while canaries were awaited.
    canaries: HashSet<usize>,
    /// Given something since the last crash.
    handed_out: HashSet<usize>,
}

impl World {
    fn new(policy: RolloutPolicy, hosts: usize, steps: usize, online: &[bool]) -> Self {
        Self {
            policy,
            states: vec![vec![RunState::Queued; steps]; hosts],
            online: (0..hosts).map(|host| online[host % online.len()]).collect(),
            now: NOW,
            stopped: false,
            undone: Vec::new(),
            batch: HashSet::new(),
            batch_is_closed: false,
            canaries: HashSet::new(),
            handed_out: HashSet::new(),
        }
    }

    fn plan(&self) -> RolloutPlan {
        let planned = |(host, states): (usize, &Vec<RunState>)| PlannedHost {
            host: host_id(host),
            presence: if self.online[host] { Presence::Online } else { Presence::Offline },
            runs: states
                .iter()
                .enumerate()
                .map(|(step, state)| (run_id(host, step), state.clone()))
                .collect(),
        };
        RolloutPlan {
            policy: self.policy,
            deadline: DEADLINE,
            skip_offline_from: NOW,
            intent: if self.stopped { Intent::Stop } else { Intent::Proceed },
            hosts: self.states.iter().enumerate().map(planned).collect(),
        }
    }

    fn state(&mut self, run: RunId) -> &mut RunState {
        let (host, step) = place(run);
        &mut self.states[host][step]
    }

    fn starting(&self, host: usize) -> bool {
        self.undone.iter().any(|decision| matches!(decision, Decision::Start(run) if place(*run).0 == host))
    }

    fn busy(&self, host: usize) -> bool {
        self.starting(host) || self.states[host].iter().any(|state| state.status().is_held())
    }

    fn ended(&self, host: usize) -> bool {
        self.states[host].iter().all(|state| state.status().is_final())
    }

    fn begun(&self, host: usize) -> bool {
        let started = |state: &RunState| {
            !matches!(state.status(), RunStatus::Queued | RunStatus::Cancelled | RunStatus::Expired)
        };
        self.starting(host) || self.handed_out.contains(&host) || self.states[host].iter().any(started)
    }

    /// Others wait for it.
    fn active(&self, host: usize) -> bool {
        self.begun(host) && !self.ended(host) && (self.online[host] || self.busy(host))
    }

    fn failed(&self, host: usize) -> bool {
        self.states[host].iter().any(|state| state.status().is_failure())
    }

    fn succeeded(&self) -> usize {
        self.states.iter().filter(|host| host.iter().all(|state| *state == RunState::Succeeded)).count()
    }

    fn canaries_awaited(&self) -> bool {
        self.succeeded() < (self.policy.canary as usize).min(self.states.len())
    }

    fn too_many_failed(&self) -> bool {
        let total = u32::try_from(self.states.len()).unwrap();
        let failed = (0..self.states.len()).filter(|&host| self.failed(host)).count();
        let over = self.policy.max_failures.is_some_and(|share| failed > share.of_at_most(total) as usize);
        over || (self.canaries_awaited() && failed > 0)
    }

    /// Checks one decision to start, and takes note of it.
    fn note_start(&mut self, run: RunId) {
        let (host, step) = place(run);
        assert_eq!(self.states[host][step], RunState::Queued, "started twice");
        assert!(!self.busy(host), "two steps of a host at once");
        assert!(self.online[host], "started on a host that is offline");
        assert!(self.now < DEADLINE, "started after the deadline");
        assert!(!self.stopped, "started after the stop");
        assert!(!self.too_many_failed(), "started after the halt");
        for earlier in &self.states[host][..step] {
            assert!(earlier.status().is_final(), "started before the step before it had ended");
            let may_go_on = self.policy.on_failure == OnFailure::Continue || *earlier == RunState::Succeeded;
            assert!(may_go_on, "started after a step that did not succeed");
        }
        if !self.begun(host) {
            self.note_begin(host);
        }
        self.undone.push(Decision::Start(run));
        let busy = (0..self.states.len()).filter(|&host| self.busy(host)).count();
        assert!(busy <= self.policy.concurrency.get() as usize, "P18: {busy} hosts at once");
    }

    fn note_begin(&mut self, host: usize) {
        if self.canaries_awaited() {
            self.canaries.insert(host);
            let active = self.canaries.iter().filter(|&&other| other == host || self.active(other)).count();
            assert!(self.succeeded() + active <= self.policy.canary as usize, "too many canaries");
            let others = (0..self.states.len()).filter(|other| !self.canaries.contains(other));
            assert_eq!(others.filter(|&other| self.active(other)).count(), 0, "begun beside the canaries");
            return;
        }
        let size = self.policy.batch.map_or(self.states.len(), |share| {
            share.of_at_least(u32::try_from(self.states.len()).unwrap()) as usize
        });
        if self.batch_is_closed || self.batch.len() >= size {
            assert!(!self.batch.iter().any(|&other| self.active(other)), "the batch before has not ended");
            self.batch.clear();
            self.batch_is_closed = false;
        }
        self.batch.insert(host);
    }

    fn carry_out(&mut self, decision: Decision, rollout: &mut Rollout) {
        let (run, event) = match decision {
            Decision::Start(run) => {
                (run, RunEvent::Dispatched { journal: custody().journal, deadline: DEADLINE })
            }
            Decision::Cancel(run, cause) => (run, RunEvent::Cancel(cause)),
            Decision::Expire(run) => (run, RunEvent::Expire { deadline: DEADLINE }),
        };
        self.apply(run, &event, rollout);
        self.return_place(run);
    }

    /// A start that came to nothing takes no place in the batch and makes no canary.
    fn return_place(&mut self, run: RunId) {
        let (host, _) = place(run);
        if !self.begun(host) {
            self.batch.remove(&host);
            self.canaries.remove(&host);
        }
    }

    fn apply(&mut self, run: RunId, event: &RunEvent, rollout: &mut Rollout) {
        let now = self.now;
        let state = self.state(run);
        if let Ok(next) = state.clone().apply(event, now) {
            if next.status().is_held() {
                self.handed_out.insert(place(run).0);
            }
            *self.state(run) = next;
        }
        let state = self.state(run);
        rollout.handle_run_changed(run, &state.clone());
    }

    fn poll(&mut self, rollout: &mut Rollout) -> Option<OperationStatus> {
        let decisions = rollout.poll(self.now);
        for run in decisions.start {
            self.note_start(run);
        }
        for (run, cause) in decisions.cancel {
            let state = self.state(run).clone();
            assert!(!state.status().is_final(), "cancelled what had ended");
            if state.status().is_held() {
                assert!(self.stopped && cause == Cause::Requested, "{cause} stopped what was running");
            }
            let decision = Decision::Cancel(run, cause);
            // A cancel request may be repeated when the run goes on before it is on record.
            if !(state.status().is_held() && self.undone.contains(&decision)) {
                self.undone.push(decision);
            }
        }
        for run in decisions.expire {
            assert!(self.now >= DEADLINE);
            self.undone.push(Decision::Expire(run));
        }
        let unique: HashSet<_> = self.undone.iter().collect();
        assert_eq!(unique.len(), self.undone.len(), "decided twice");
        let runs = || self.states.iter().flatten();
        let all_ended = runs().all(|state| state.status().is_final());
        assert_eq!(decisions.finished.is_some(), all_ended);
        if let Some(status) = decisions.finished {
            let counts: RunCounts = runs().map(RunState::status).collect();
            let intent = if self.stopped { Intent::Stop } else { Intent::Proceed };
            assert_eq!(status, counts.aggregate(intent), "P17");
        }
        decisions.finished
    }

    fn held(&self) -> Vec<RunId> {
        let runs = self.states.iter().enumerate().flat_map(|(host, states)| {
            states.iter().enumerate().map(move |(step, state)| (run_id(host, step), state.status()))
        });
        runs.filter(|(_, status)| status.is_held()).map(|(run, _)| run).collect()
    }

    fn happen(&mut self, step: &Step, rollout: &mut Rollout) {
        match *step {
            Step::Poll => {
                self.poll(rollout);
            }
            Step::CarryOut(which) if !self.undone.is_empty() => {
                let decision = self.undone.swap_remove(usize::from(which) % self.undone.len());
                self.carry_out(decision, rollout);
            }
            Step::GiveUp(which) if !self.undone.is_empty() => {
                let decision = self.undone.swap_remove(usize::from(which) % self.undone.len());
                let (Decision::Start(run) | Decision::Cancel(run, _) | Decision::Expire(run)) = decision;
                let state = self.state(run).clone();
                rollout.handle_run_changed(run, &state);
                self.return_place(run);
            }
            Step::Advance(which) => {
                if let Some(&run) = pick(&self.held(), which) {
                    let event = match self.state(run) {
                        RunState::Dispatched(_) => RunEvent::Accepted,
                        _ => RunEvent::Started,
                    };
                    self.apply(run, &event, rollout);
                }
            }
            Step::End(which, how) => {
                if let Some(&run) = pick(&self.held(), which) {
                    self.apply(run, &ending(how), rollout);
                }
            }
            Step::Presence(which) => {
                let host = usize::from(which) % self.online.len();
                self.online[host] = !self.online[host];
                if self.online[host] {
                    rollout.handle_host_online(host_id(host));
                } else {
                    rollout.handle_host_offline(host_id(host));
                }
            }
            Step::CancelOne(which) => {
                let (hosts, steps) = (self.states.len(), self.states[0].len());
                let at = usize::from(which) % (hosts * steps);
                let run = run_id(at / steps, at % steps);
                if !self.undone.contains(&Decision::Start(run)) {
                    self.apply(run, &RunEvent::Cancel(Cause::Requested), rollout);
                }
            }
            Step::Clock(share) => {
                self.now = self.now + std::time::Duration::from_millis(u64::from(share) * 50_000);
            }
            Step::Stop => {
                self.stopped = true;
                rollout.handle_stop();
            }
            Step::Crash => {
                // What was decided and not carried out is forgotten.
                self.undone.clear();
                self.handed_out.clear();
                self.handed_out = (0..self.states.len()).filter(|&host| self.begun(host)).collect();
                // Who was a canary is known only while canaries are awaited: everyone who has begun.
                let awaited = self.canaries_awaited();
                let (begun, active): (Vec<_>, Vec<_>) =
                    (0..self.states.len()).partition(|&host| awaited && self.begun(host));
                self.canaries = begun.into_iter().collect();
                self.batch = active.into_iter().filter(|&host| self.active(host)).collect();
                self.batch_is_closed = self.policy.batch.is_some() && !self.batch.is_empty();
                *rollout = Rollout::new(self.plan());
            }
            Step::CarryOut(_) | Step::GiveUp(_) => {}
        }
    }
}

fn pick<T>(from: &[T], which: u16) -> Option<&T> {
    from.get(usize::from(which).checked_rem(from.len())?)
}

fn ending(how: u8) -> RunEvent {
    use fleetward_protocol::run::{LostCause, Outcome, Refusal};
    match how % 16 {
        0 => RunEvent::Finished(Outcome::Exited(1)),
        1 => RunEvent::Finished(Outcome::TimedOut),
        2 => RunEvent::Finished(Outcome::Lost(LostCause::Reboot)),
        3 => RunEvent::Refused(Refusal::NotBash),
        4 => RunEvent::Finished(Outcome::Cancelled),
        5 => RunEvent::Refused(Refusal::DeadlinePassed),
        _ => RunEvent::Finished(Outcome::Exited(0)),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, max_shrink_iters: 20_000, ..ProptestConfig::default() })]

    #[test]
    fn p18_never_more_hosts_at_once_for_any_schedule(
        policy in policy(),
        (hosts, steps) in (1usize..12, 1usize..4),
        online in prop::collection::vec(prop::bool::weighted(0.8), 1..8),
        schedule in prop::collection::vec(step(), 0..150),
    ) {
        let mut world = World::new(policy, hosts, steps, &online);
        let mut rollout = Rollout::new(world.plan());
        for step in &schedule {
            world.happen(step, &mut rollout);
        }
        // From here on everything goes well: every operation comes to its end, and not by its deadline.
        for host in 0..hosts {
            if !world.online[host] {
                world.happen(&Step::Presence(u16::try_from(host).unwrap()), &mut rollout);
            }
        }
        for _ in 0..=hosts * steps * 3 {
            if world.poll(&mut rollout).is_some() {
                break;
            }
            prop_assert!(!world.undone.is_empty() || !world.held().is_empty(), "stuck: {:?}", rollout);
            while let Some(decision) = world.undone.pop() {
                world.carry_out(decision, &mut rollout);
            }
            for run in world.held() {
                world.apply(run, &ending(15), &mut rollout);
            }
        }
        prop_assert!(world.poll(&mut rollout).is_some(), "did not end");
    }
}
