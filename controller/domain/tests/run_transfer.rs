//! At most one start; every byte once and in order; forgotten only after commit.
//!
//! A controller and a host carry runs from request to result while connections break, either side crashes and
//! restarts, the host loses power or is wiped, runs are cancelled and deadlines pass, in thousands of random
//! schedules. The machines are the real ones (`RunSource`, `RunSink`, both sessions, `RunState`), messages pass
//! through the real codec; the store, the journal, the spool and the processes are models of what is durable.
//!
//! After every step the world is compared with the truth that only the test knows: what was started, what each
//! script wrote, how it ended.

#![expect(clippy::panic, clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "run_transfer/controller.rs"]
mod controller;
#[path = "run_transfer/host.rs"]
mod host;
#[path = "run_transfer/link.rs"]
mod link;

use std::collections::{BTreeMap, BTreeSet};

use fleetward_domain::work::run::{Cause, Failure, RunEvent, RunState, RunStatus};
use fleetward_protocol::id::RunId;
use fleetward_protocol::run::{LostCause, Outcome, Refusal};
use fleetward_protocol::time::Timestamp;
use proptest::prelude::*;

use controller::Controller;
use host::Host;
use link::Link;

const DEADLINE: Timestamp = Timestamp::from_millis(1000);

/// What really happened to a run, known to nobody in the world.
#[derive(Debug, Default)]
struct Truth {
    starts: u32,
    /// Everything the script's output became in the spool.
    log: Vec<u8>,
    /// How its process ended by itself or was ended.
    outcome: Option<Outcome>,
    /// Something happened after which the host cannot know.
    may_be_lost: bool,
    cancel_requested: bool,
    /// The controller knew of the cancel request when the host connected, and the host could not start the run by itself.
    must_not_start: bool,
}

struct World {
    now: Timestamp,
    truth: BTreeMap<RunId, Truth>,
    controller: Controller,
    host: Host,
    link: Option<Link>,
}

fn run_id(number: usize) -> RunId {
    RunId::derived(controller::operation(number), &controller::client(), 0)
}

impl World {
    fn new(runs: usize) -> Self {
        let runs: BTreeSet<_> = (0..runs).map(run_id).collect();
        Self {
            now: Timestamp::from_millis(0),
            truth: runs.iter().map(|run| (*run, Truth::default())).collect(),
            controller: Controller::new(runs),
            host: Host::new(),
            link: None,
        }
    }

    fn happen(&mut self, kind: u8, choice: u16) {
        let run = run_id(usize::from(choice) % self.truth.len());
        let part = usize::from(choice >> 8);
        match kind {
            // The link.
            0..=3 => self.connect(),
            4 => self.host.disconnect(&mut self.link),
            5 => self.controller.disconnect(&mut self.link),
            6..=29 => self.deliver_down(usize::from(choice)),
            30..=53 => self.deliver_up(usize::from(choice)),
            // The host.
            54..=65 => self.host.transmit(&mut self.link, part),
            66..=69 => self.host.mark_started(run, self.now),
            70..=73 => self.host.spawn(run, &mut self.truth),
            74..=81 => self.host.write(run, choice, &mut self.truth),
            82..=83 | 117..=120 => self.host.end(run, choice, &mut self.truth),
            84..=86 => self.host.reap(run),
            87 => self.host.sync(run),
            88 => self.host.crash_agent(&mut self.link, &mut self.truth),
            89..=91 => self.host.start_agent(),
            92 if part % 4 == 0 => self.host.reboot(&mut self.link, choice, &mut self.truth),
            93 if part % 16 == 0 => self.host.wipe(&mut self.link, &mut self.truth),
            121 if part % 4 == 0 => self.host.has_room = !self.host.has_room,
            // The controller.
            94..=97 => self.controller.dispatch(run, self.now, &mut self.link, part % 4 == 0),
            98..=109 => self.controller.commit(1 + part % 8, self.now, &mut self.link),
            110 => self.controller.crash(&mut self.link),
            111..=113 => self.controller.start(),
            114 if part % 8 == 0 => self.cancel(run),
            115 => self.controller.apply(run, &RunEvent::Expire { deadline: DEADLINE }, self.now),
            116 if part % 16 == 0 => self.now = DEADLINE,
            _ => {}
        }
        self.check();
    }

    fn connect(&mut self) {
        if self.host.may_connect() && self.controller.is_up {
            // The newer connection wins; what the older one still carried is gone.
            self.link = Some(Link::new());
            self.host.connect(self.link.as_mut().unwrap(), self.now);
            self.controller.connect();
        }
    }

    fn deliver_down(&mut self, which: usize) {
        let Some(link) = &mut self.link else { return };
        if let Some((stream, frame)) = link.take_down(which) {
            self.host.receive(stream, &frame, &self.controller, &mut self.truth);
        }
    }

    fn deliver_up(&mut self, which: usize) {
        let Some(link) = &mut self.link else { return };
        if let Some((stream, frame)) = link.take_up(which) {
            self.controller.receive(stream, &frame, self.now, link);
            if stream == link::CONTROL {
                self.note_stopped();
            }
        }
    }

    /// The host has said hello: what is to be stopped by now, and waits for the controller, must never start.
    fn note_stopped(&mut self) {
        for (run, truth) in &mut self.truth {
            let custody = self.controller.store[run].state.custody();
            let is_stopped = custody.is_some_and(|custody| custody.cancel.is_some());
            // What started before is another promise's: it does not start again.
            let has_not_started = truth.starts == 0;
            truth.must_not_start |= is_stopped && has_not_started && self.host.waits_for_word_of(*run);
        }
    }

    fn cancel(&mut self, run: RunId) {
        if self.controller.is_up {
            self.truth.get_mut(&run).unwrap().cancel_requested = true;
            self.controller.apply(run, &RunEvent::Cancel(Cause::Requested), self.now);
            if let Some(link) = &mut self.link {
                self.controller.send_cancel(run, link);
            }
        }
    }

    /// The promises, as far as they hold at every moment.
    fn check(&self) {
        for (run, truth) in &self.truth {
            assert!(truth.starts <= 1, "{run} was started {} times", truth.starts);
            assert!(truth.starts == 0 || !truth.must_not_start, "{run} was started after it was stopped");
            let stored = &self.controller.store[run];
            assert!(truth.log.starts_with(&stored.log), "{run}: the stored output is not what was written");
            match &stored.state {
                RunState::Succeeded | RunState::Failed(_) => {
                    let expected = match truth.outcome {
                        Some(Outcome::Exited(0)) => RunState::Succeeded,
                        Some(Outcome::Exited(code)) => RunState::Failed(Failure::Exit(code)),
                        Some(Outcome::Signalled(signal)) => RunState::Failed(Failure::Signal(signal)),
                        ref other => panic!("{run} is {} but ended as {other:?}", stored.state),
                    };
                    assert_eq!(stored.state, expected, "{run}");
                    assert!(stored.log == truth.log, "{run}: the stored output is not complete");
                }
                RunState::Cancelled(_) => {
                    assert!(truth.cancel_requested, "{run} was cancelled by nobody");
                    assert!(matches!(truth.outcome, None | Some(Outcome::Cancelled)));
                }
                RunState::Expired => {
                    assert!(self.now >= DEADLINE && truth.starts == 0, "{run} expired but was started");
                }
                RunState::Lost(cause) => {
                    assert!(truth.may_be_lost, "{run} is lost ({cause:?}) without a reason");
                    assert_ne!(*cause, LostCause::HostGone);
                }
                RunState::Refused(refusal) => {
                    assert_eq!(*refusal, Refusal::DiskFull);
                    assert_eq!(truth.starts, 0, "{run} was refused and started");
                }
                state => assert!(!state.status().is_final()),
            }
        }
    }

    /// From here on nothing breaks: everything must come to its end.
    fn heal(&mut self) {
        self.controller.start();
        self.host.has_room = true;
        self.host.start_agent();
        self.host.disconnect(&mut self.link);
        self.connect();
        for round in 0..200 {
            for run in 0..self.truth.len() {
                let run = run_id(run);
                self.controller.dispatch(run, self.now, &mut self.link, false);
                self.controller.apply(run, &RunEvent::Expire { deadline: DEADLINE }, self.now);
                self.host.mark_started(run, self.now);
                self.host.spawn(run, &mut self.truth);
                self.host.end(run, 0, &mut self.truth);
                self.host.reap(run);
            }
            for _ in 0..50 {
                for stream in 0..=self.truth.len() {
                    self.host.transmit(&mut self.link, stream);
                    self.deliver_up(stream);
                    self.deliver_down(stream);
                }
            }
            self.controller.commit(usize::MAX, self.now, &mut self.link);
            self.check();
            let ended = self.controller.store.values().all(|run| run.state.status().is_final());
            if ended && self.host.is_clean() {
                return;
            }
            assert!(round < 199, "did not end: {:?}", self.statuses());
        }
    }

    fn statuses(&self) -> Vec<RunStatus> {
        self.controller.store.values().map(|run| run.state.status()).collect()
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3000, max_shrink_iters: 50_000, ..ProptestConfig::default() })]

    #[test]
    fn runs_start_once_and_arrive_whole_for_any_schedule(
        runs in 1usize..5,
        schedule in prop::collection::vec((0u8..122, any::<u16>()), 0..600),
    ) {
        let mut world = World::new(runs);
        for (kind, choice) in schedule {
            world.happen(kind, choice);
        }
        world.heal();
    }
}

/// The host sends unsynced output, loses it with the power and announces the shorter log, all before the
/// controller commits what it received: its copy is the one that counts.
#[test]
fn output_received_but_not_committed_outlives_the_hosts_copy() {
    let (run, mut world) = (run_id(0), World::new(1));
    world.connect();
    (0..4).for_each(|_| world.deliver_up(0));
    (0..4).for_each(|_| world.deliver_down(0));
    world.controller.dispatch(run, world.now, &mut world.link, false);
    world.deliver_down(0);
    world.host.mark_started(run, world.now);
    world.host.spawn(run, &mut world.truth);
    world.host.write(run, 1880, &mut world.truth);
    for _ in 0..8 {
        world.host.transmit(&mut world.link, 0);
        world.deliver_up(0);
    }
    world.host.reboot(&mut world.link, 0, &mut world.truth);
    world.heal();
    assert_eq!(world.controller.store[&run].state, RunState::Lost(LostCause::Reboot));
    assert!(!world.truth[&run].log.is_empty());
    assert!(world.controller.store[&run].log == world.truth[&run].log);
}

/// That the schedules above do what they are meant to: runs of every fate are among them.
#[test]
fn the_schedules_reach_every_fate() {
    use proptest::strategy::ValueTree;
    use proptest::test_runner::TestRunner;

    let mut runner = TestRunner::deterministic();
    let schedules = prop::collection::vec((0u8..122, any::<u16>()), 600);
    let (mut fates, mut restarted_mid_run) = (BTreeMap::<&str, u32>::new(), 0);
    for _ in 0..400 {
        let mut world = World::new(3);
        for (kind, choice) in schedules.new_tree(&mut runner).unwrap().current() {
            world.happen(kind, choice);
            restarted_mid_run += u32::from(kind == 88 && !world.host.processes.is_empty());
        }
        world.heal();
        for run in world.controller.store.values() {
            *fates.entry(run.state.status().as_str()).or_default() += 1;
        }
    }
    for fate in ["succeeded", "failed", "cancelled", "refused", "expired", "lost"] {
        assert!(fates.get(fate).is_some_and(|&runs| runs >= 20), "{fate}: {fates:?}");
    }
    assert!(restarted_mid_run >= 20, "{restarted_mid_run} agents were killed in mid-run");
}
