use std::num::NonZeroU32;

use fleetward_protocol::id::JournalId;
use uuid::Uuid;

use super::*;
use crate::work::operation::{OnFailure, Share};
use crate::work::run::{Custody, Failure, RunStatus};

mod model;

const DEADLINE: Timestamp = Timestamp::from_millis(1_000_000);
const NOW: Timestamp = Timestamp::from_millis(0);

fn host_id(host: usize) -> HostId {
    HostId::from_uuid(Uuid::from_u128(0x1000 + host as u128))
}

fn run_id(host: usize, step: usize) -> RunId {
    RunId::from_uuid(Uuid::from_u128((host as u128) << 32 | step as u128))
}

/// The host and the step of a run, from its id.
fn place(run: RunId) -> (usize, usize) {
    let number = run.as_uuid().as_u128();
    ((number >> 32) as usize, (number & 0xffff_ffff) as usize)
}

fn custody() -> Custody {
    Custody { journal: JournalId::from_uuid(Uuid::from_u128(1)), cancel: None }
}

fn failed() -> RunState {
    RunState::Failed(Failure::Exit(1))
}

fn plan(hosts: usize, steps: usize, change: impl FnOnce(&mut RolloutPolicy)) -> RolloutPlan {
    let mut policy =
        RolloutPolicy { concurrency: NonZeroU32::new(1000).unwrap(), ..RolloutPolicy::default() };
    change(&mut policy);
    let planned = |host| PlannedHost {
        host: host_id(host),
        presence: Presence::Online,
        runs: (0..steps).map(|step| (run_id(host, step), RunState::Queued)).collect(),
    };
    RolloutPlan {
        policy,
        deadline: DEADLINE,
        skip_offline_from: NOW,
        intent: Intent::Proceed,
        hosts: (0..hosts).map(planned).collect(),
    }
}

/// What starts now, as (host, step).
fn starts(rollout: &mut Rollout) -> Vec<(usize, usize)> {
    rollout.poll(NOW).start.into_iter().map(place).collect()
}

fn hosts_started(rollout: &mut Rollout) -> Vec<usize> {
    starts(rollout).into_iter().map(|(host, _)| host).collect()
}

fn end(rollout: &mut Rollout, host: usize, step: usize, state: &RunState) {
    rollout.handle_run_changed(run_id(host, step), &RunState::Dispatched(custody()));
    rollout.handle_run_changed(run_id(host, step), state);
}

#[test]
fn p18_concurrency_is_a_number_of_hosts() {
    let mut rollout = Rollout::new(plan(5, 1, |policy| policy.concurrency = NonZeroU32::new(2).unwrap()));
    assert_eq!(hosts_started(&mut rollout), [0, 1]);
    assert_eq!(hosts_started(&mut rollout), [] as [usize; 0]);
    end(&mut rollout, 1, 0, &RunState::Succeeded);
    assert_eq!(hosts_started(&mut rollout), [2]);
    rollout.handle_host_offline(host_id(0));
    assert_eq!(hosts_started(&mut rollout), [] as [usize; 0], "a run out of sight may still be running");
    assert_eq!(rollout.busy(), 2);
}

#[test]
fn steps_go_in_order_and_stop_at_the_first_failure() {
    let mut rollout = Rollout::new(plan(1, 3, |_| {}));
    assert_eq!(starts(&mut rollout), [(0, 0)]);
    end(&mut rollout, 0, 0, &RunState::Succeeded);
    assert_eq!(starts(&mut rollout), [(0, 1)]);
    end(&mut rollout, 0, 1, &failed());
    let decisions = rollout.poll(NOW);
    assert_eq!(decisions.cancel, [(run_id(0, 2), Cause::PreviousStepFailed)]);
    rollout.handle_run_changed(run_id(0, 2), &RunState::Cancelled(Cause::PreviousStepFailed));
    assert_eq!(rollout.poll(NOW).finished, Some(OperationStatus::Partial));
}

#[test]
fn steps_go_on_after_a_failure_if_told_so() {
    let mut rollout = Rollout::new(plan(1, 2, |policy| policy.on_failure = OnFailure::Continue));
    assert_eq!(starts(&mut rollout), [(0, 0)]);
    end(&mut rollout, 0, 0, &failed());
    assert_eq!(starts(&mut rollout), [(0, 1)]);
}

#[test]
fn a_host_that_has_begun_goes_on_before_others_begin() {
    let mut rollout = Rollout::new(plan(2, 2, |policy| policy.concurrency = NonZeroU32::MIN));
    assert_eq!(starts(&mut rollout), [(0, 0)]);
    end(&mut rollout, 0, 0, &RunState::Succeeded);
    assert_eq!(starts(&mut rollout), [(0, 1)]);
}

#[test]
fn a_batch_ends_before_the_next_begins() {
    let mut rollout = Rollout::new(plan(5, 1, |policy| policy.batch = Some(Share::Percent(40))));
    assert_eq!(hosts_started(&mut rollout), [0, 1]);
    end(&mut rollout, 0, 0, &RunState::Succeeded);
    assert_eq!(hosts_started(&mut rollout), [] as [usize; 0]);
    end(&mut rollout, 1, 0, &failed());
    assert_eq!(hosts_started(&mut rollout), [2, 3]);
}

#[test]
fn an_offline_host_blocks_no_batch() {
    let mut plan = plan(4, 1, |policy| policy.batch = Some(Share::Count(2)));
    plan.hosts[0].presence = Presence::Offline;
    let mut rollout = Rollout::new(plan);
    assert_eq!(hosts_started(&mut rollout), [1, 2]);
    end(&mut rollout, 1, 0, &RunState::Succeeded);
    end(&mut rollout, 2, 0, &RunState::Succeeded);
    assert_eq!(hosts_started(&mut rollout), [3]);
    rollout.handle_host_online(host_id(0));
    assert_eq!(hosts_started(&mut rollout), [0], "there is still a place in the batch");
}

#[test]
fn canaries_go_first_and_alone() {
    let mut rollout = Rollout::new(plan(4, 1, |policy| policy.canary = 2));
    assert_eq!(hosts_started(&mut rollout), [0, 1]);
    end(&mut rollout, 0, 0, &RunState::Succeeded);
    assert_eq!(hosts_started(&mut rollout), [] as [usize; 0]);
    end(&mut rollout, 1, 0, &RunState::Succeeded);
    assert_eq!(hosts_started(&mut rollout), [2, 3]);
}

#[test]
fn a_canary_that_fails_halts_everything() {
    let mut rollout = Rollout::new(plan(3, 1, |policy| policy.canary = 1));
    assert_eq!(hosts_started(&mut rollout), [0]);
    end(&mut rollout, 0, 0, &RunState::TimedOut);
    let decisions = rollout.poll(NOW);
    assert_eq!(decisions.start, []);
    assert_eq!(decisions.cancel, [(run_id(1, 0), Cause::Halted), (run_id(2, 0), Cause::Halted)]);
    assert!(rollout.is_halted());
}

#[test]
fn an_offline_host_is_no_canary() {
    let mut plan = plan(3, 1, |policy| policy.canary = 1);
    plan.hosts[0].presence = Presence::Offline;
    let mut rollout = Rollout::new(plan);
    assert_eq!(hosts_started(&mut rollout), [1]);
    end(&mut rollout, 1, 0, &RunState::Succeeded);
    rollout.handle_host_online(host_id(0));
    assert_eq!(hosts_started(&mut rollout), [0, 2]);
}

#[test]
fn one_failed_host_more_than_allowed_halts() {
    let mut rollout = Rollout::new(plan(5, 1, |policy| {
        policy.max_failures = Some(Share::Count(1));
        policy.concurrency = NonZeroU32::MIN;
    }));
    assert_eq!(hosts_started(&mut rollout), [0]);
    end(&mut rollout, 0, 0, &failed());
    assert_eq!(hosts_started(&mut rollout), [1]);
    end(&mut rollout, 1, 0, &failed());
    let decisions = rollout.poll(NOW);
    assert_eq!((decisions.start.len(), decisions.cancel.len()), (0, 3));
}

#[test]
fn no_failure_allowed_halts_at_the_first() {
    let mut rollout = Rollout::new(plan(5, 1, |policy| {
        policy.max_failures = Some(Share::Count(0));
        policy.concurrency = NonZeroU32::MIN.saturating_add(1);
    }));
    assert_eq!(hosts_started(&mut rollout), [0, 1]);
    end(&mut rollout, 0, 0, &failed());
    // The other host is under way: it is not stopped, and may fail too.
    let decisions = rollout.poll(NOW);
    assert_eq!((decisions.start.len(), decisions.cancel.len()), (0, 3));
    end(&mut rollout, 1, 0, &failed());
    assert_eq!(rollout.poll(NOW).start, []);
}

#[test]
fn the_deadline_expires_what_never_started() {
    let mut plan = plan(2, 1, |_| {});
    plan.hosts[1].presence = Presence::Offline;
    let mut rollout = Rollout::new(plan);
    let decisions = rollout.poll(NOW);
    assert_eq!(decisions.wake_at, Some(DEADLINE));
    end(&mut rollout, 0, 0, &RunState::Succeeded);
    assert_eq!(rollout.poll(DEADLINE).expire, [run_id(1, 0)]);
    rollout.handle_run_changed(run_id(1, 0), &RunState::Expired);
    assert_eq!(rollout.poll(DEADLINE).finished, Some(OperationStatus::Partial));
}

/// A clock that was ahead is set back; whoever commits the expiry has looked at the right one, and refused it.
#[test]
fn a_deadline_that_a_clock_was_ahead_of_is_taken_back() {
    let mut plan = plan(2, 1, |_| {});
    plan.hosts[1].presence = Presence::Offline;
    let mut rollout = Rollout::new(plan);
    assert_eq!(rollout.poll(NOW).start, [run_id(0, 0)]);
    assert_eq!(rollout.poll(DEADLINE).expire, [run_id(1, 0)]);
    rollout.handle_run_changed(run_id(1, 0), &RunState::Queued);
    let decisions = rollout.poll(NOW);
    assert_eq!((decisions.expire, decisions.wake_at), (vec![], Some(DEADLINE)));
    rollout.handle_host_online(host_id(1));
    assert_eq!(rollout.poll(NOW).start, [run_id(1, 0)]);
}

#[test]
fn offline_hosts_are_skipped_if_told_so() {
    let mut plan = plan(2, 1, |policy| policy.offline = Offline::Skip);
    plan.hosts[1].presence = Presence::Offline;
    plan.skip_offline_from = Timestamp::from_millis(30);
    let mut rollout = Rollout::new(plan);
    let decisions = rollout.poll(NOW);
    assert_eq!((decisions.cancel, decisions.wake_at), (vec![], Some(Timestamp::from_millis(30))));
    assert_eq!(rollout.poll(Timestamp::from_millis(30)).cancel, [(run_id(1, 0), Cause::HostOffline)]);
}

#[test]
fn a_stop_cancels_what_is_queued_and_asks_for_the_rest() {
    let mut rollout = Rollout::new(plan(3, 1, |policy| policy.concurrency = NonZeroU32::new(2).unwrap()));
    assert_eq!(hosts_started(&mut rollout), [0, 1]);
    rollout.handle_run_changed(run_id(0, 0), &RunState::Running(custody()));
    rollout.handle_stop();
    let decisions = rollout.poll(NOW);
    assert_eq!(decisions.cancel, [(run_id(0, 0), Cause::Requested), (run_id(2, 0), Cause::Requested)]);
    assert_eq!(decisions.start, []);
    // The start of host 1 was under way when the stop came.
    rollout.handle_run_changed(run_id(1, 0), &RunState::Dispatched(custody()));
    assert_eq!(rollout.poll(NOW).cancel, [(run_id(1, 0), Cause::Requested)]);
    let cancelled = Custody { cancel: Some(Cause::Requested), ..custody() };
    rollout.handle_run_changed(run_id(1, 0), &RunState::Dispatched(cancelled));
    assert_eq!(rollout.poll(NOW).cancel, []);
    rollout.handle_run_changed(run_id(0, 0), &RunState::Succeeded);
    rollout.handle_run_changed(run_id(1, 0), &RunState::Cancelled(Cause::Requested));
    rollout.handle_run_changed(run_id(2, 0), &RunState::Cancelled(Cause::Requested));
    assert_eq!(rollout.poll(NOW).finished, Some(OperationStatus::Stopped));
}

#[test]
fn a_start_that_could_not_be_carried_out_gives_its_place_back() {
    let mut rollout = Rollout::new(plan(3, 1, |policy| policy.batch = Some(Share::Count(1))));
    assert_eq!(hosts_started(&mut rollout), [0]);
    rollout.handle_host_offline(host_id(0));
    rollout.handle_run_changed(run_id(0, 0), &RunState::Queued);
    assert_eq!(hosts_started(&mut rollout), [1]);
}

/// Events cost what they change: 30,000 runs on 10,000 hosts, each going through its whole life.
#[test]
fn ten_thousand_hosts_take_no_time() {
    let mut rollout = Rollout::new(plan(10_000, 3, |policy| {
        policy.concurrency = NonZeroU32::new(500).unwrap();
        policy.batch = Some(Share::Percent(10));
        policy.max_failures = Some(Share::Percent(50));
    }));
    let (mut polls, mut ended) = (0_u32, 0_u32);
    loop {
        let decisions = rollout.poll(NOW);
        polls += 1;
        if decisions.finished.is_some() {
            break;
        }
        assert!(!decisions.start.is_empty(), "nothing starts and nothing is under way");
        for run in decisions.start {
            rollout.handle_run_changed(run, &RunState::Dispatched(custody()));
            rollout.handle_run_changed(run, &RunState::Running(custody()));
            rollout.handle_run_changed(run, &RunState::Succeeded);
            ended += 1;
        }
    }
    assert_eq!(ended, 30_000);
    assert!(polls <= 70, "{polls} polls");
    assert_eq!(rollout.counts().get(RunStatus::Succeeded), 30_000);
}
