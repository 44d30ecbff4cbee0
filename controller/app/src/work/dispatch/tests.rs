//! What several controllers and lost commits do to a dispatcher.

use std::collections::HashSet;
use std::time::Duration;

use fleetward_domain::work::operation::{Offline, OperationStatus, RolloutPolicy};
use fleetward_domain::work::run::{Cause, RunEvent, RunState};
use fleetward_protocol::message::Finished;
use fleetward_protocol::run::Outcome;
use fleetward_protocol::session::SinkEvent;
use fleetward_protocol::time::Timestamp;
use fleetward_store::testing::{execute, postgres};
use fleetward_store::work::run::Run;
use tokio::time::timeout;

use super::{GRACE_AFTER_START, Task};
use crate::testing::TestApp;
use crate::work::operation::{Reference, stop};
use crate::work::recorder::RunTransition;

/// Longer than a few looks.
const SOON: Duration = Duration::from_secs(20);

/// On SQLite, then on PostgreSQL.
async fn on_both(test: &str, body: impl AsyncFn(TestApp)) {
    body(prepared(TestApp::start().await).await).await;
    if let Some(store) = postgres(test).await {
        body(prepared(TestApp::start_on(&store.url).await).await).await;
        store.finish().await;
    }
}

async fn prepared(controller: TestApp) -> TestApp {
    controller.add_script("work", "#!/bin/bash\n").await;
    controller.add_absent_host("web-1").await;
    controller
}

/// The loss is noticed, and the dispatcher ends.
async fn notices(controller: &TestApp) {
    timeout(SOON, controller.app().continuity().broken()).await.expect("it is noticed");
    timeout(SOON, controller.app().dispatcher().stopped()).await.expect("nothing more is decided");
}

#[tokio::test]
async fn a_store_that_is_behind_what_was_committed_is_noticed() {
    on_both("a store that is behind", async |controller: TestApp| {
        controller.handed_out("web-1").await;
        // The hand-out was committed, and a failover took it away.
        execute(controller.app().store(), "UPDATE operation SET seq = seq - 1").await;
        notices(&controller).await;
    })
    .await;
}

#[tokio::test]
async fn an_operation_that_is_no_more_is_noticed() {
    on_both("an operation that is no more", async |controller: TestApp| {
        let (id, _) = controller.handed_out("web-1").await;
        // That its stop reaches the run shows that the dispatcher has it.
        stop(controller.app(), &controller.permit(), Reference::Id(id)).await.unwrap();
        let is_told = |run: &Run| run.state.custody().is_some_and(|custody| custody.cancel.is_some());
        controller.wait_until(id, |_, runs| runs.iter().all(is_told)).await;
        execute(
            controller.app().store(),
            "DELETE FROM run; DELETE FROM operation_step; DELETE FROM operation",
        )
        .await;
        notices(&controller).await;
    })
    .await;
}

#[tokio::test]
async fn an_end_that_is_no_more_is_noticed() {
    on_both("an end that is no more", async |controller: TestApp| {
        let (operation, run) = controller.handed_out("web-1").await;
        let event = RunEvent::Finished(Outcome::Exited(0));
        let change = RunTransition { operation, run, event, known: None };
        controller.app().recorder().apply([change]).await.unwrap();
        assert_eq!(controller.wait_for_end(operation).await.0, OperationStatus::Success);
        execute(
            controller.app().store(),
            "UPDATE operation SET seq = seq - 1, status = 'running', ended_at = NULL",
        )
        .await;
        notices(&controller).await;
    })
    .await;
}

/// No look is waited for.
#[tokio::test]
async fn a_commit_that_takes_the_place_of_one_that_was_lost_is_noticed() {
    on_both("a commit in the place of another", async |controller: TestApp| {
        let (operation, run) = controller.handed_out("web-1").await;
        let recorder = controller.app().recorder();
        let feed = recorder.feed(run, operation, 0);
        execute(controller.app().store(), "UPDATE operation SET seq = seq - 1").await;
        feed.report(SinkEvent::Accepted).await.unwrap();
        recorder.settle().await.unwrap();
        assert!(controller.app().continuity().is_broken());
    })
    .await;
}

#[tokio::test]
async fn what_goes_on_is_no_loss() {
    on_both("what goes on is no loss", async |controller: TestApp| {
        let (operation, run) = controller.handed_out("web-1").await;
        let recorder = controller.app().recorder();
        let feed = recorder.feed(run, operation, 0);
        // For some looks, commits of this controller and of another are always under way.
        let busy = async {
            loop {
                feed.attached().await.unwrap();
                execute(controller.app().store(), "UPDATE operation SET seq = seq + 1").await;
            }
        };
        assert!(timeout(super::LOOK * 2 + Duration::from_secs(1), busy).await.is_err());
        feed.report(SinkEvent::Finished(Finished {
            outcome: Outcome::Exited(0),
            at: Timestamp::from_millis(2),
            duration_ms: 1,
            log_length: 0,
            left: None,
        }))
        .await
        .unwrap();
        assert_eq!(controller.wait_for_end(operation).await.0, OperationStatus::Success);
        assert!(!controller.app().continuity().is_broken());
        controller.stop().await;
    })
    .await;
}

/// It was committed by a controller that died before it told its dispatcher, and whose place this one had taken by then.
#[tokio::test]
async fn a_stop_that_another_controller_took_is_carried_out() {
    on_both("a stop of another controller", async |controller: TestApp| {
        let operation = controller.run(&["work"], "web-1").await.unwrap();
        controller.wait_until(operation.id, |_, runs| !runs.is_empty()).await;
        execute(
            controller.app().store(),
            "UPDATE operation SET seq = seq + 1, stop_requested_at = 1, stop_requested_by = 'ada'",
        )
        .await;
        let (status, runs) = controller.wait_for_end(operation.id).await;
        assert_eq!(
            (status, &runs[0].state),
            (OperationStatus::Stopped, &RunState::Cancelled(Cause::Requested))
        );
        controller.stop().await;
    })
    .await;
}

/// It could not be read at the start, or was committed after that by a controller whose place this one took.
#[tokio::test]
async fn what_is_found_after_the_start_skips_no_host_before_all_had_time_to_come_back() {
    on_both("hosts that are yet to come back", async |controller: TestApp| {
        // Its own dispatcher is out of the way.
        controller.app().dispatcher().shutdown();
        controller.app().dispatcher().stopped().await;
        let policy = RolloutPolicy { offline: Offline::Skip, ..RolloutPolicy::default() };
        let operation = controller.run_with(&["work"], "web-1", policy).await.unwrap().id;
        let mut task = Task::new(controller.app().clone());
        let mut due = HashSet::new();
        task.look(&mut due).await;
        assert!(due.contains(&operation));
        let mut changes = Vec::new();
        task.poll(operation, &mut changes, &mut due);
        assert!(changes.is_empty(), "{changes:?}");
        controller.clock.advance(GRACE_AFTER_START);
        task.poll(operation, &mut changes, &mut due);
        assert!(
            matches!(changes[..], [RunTransition { event: RunEvent::Cancel(Cause::HostOffline), .. }]),
            "{changes:?}"
        );
    })
    .await;
}

/// Nothing of it is started by a policy that is guessed; to end it needs none.
#[tokio::test]
async fn an_operation_whose_policy_cannot_be_read_is_found_and_can_be_stopped() {
    on_both("a policy that cannot be read", async |controller: TestApp| {
        let operation = controller.run(&["work"], "web-1").await.unwrap();
        execute(controller.app().store(), "UPDATE operation SET policy = '{'").await;
        let controller = controller.restart().await;
        let permit = controller.permit::<crate::people::access::Read>();
        let found = crate::work::operation::get(controller.app(), &permit, Reference::Id(operation.id)).await;
        assert_eq!(
            (found.as_ref().unwrap().policy.is_err(), found.unwrap().status),
            (true, OperationStatus::Queued)
        );
        stop(controller.app(), &controller.permit(), Reference::Id(operation.id)).await.unwrap();
        let (status, runs) = controller.wait_for_end(operation.id).await;
        assert_eq!(
            (status, &runs[0].state),
            (OperationStatus::Stopped, &RunState::Cancelled(Cause::Requested))
        );
        controller.stop().await;
    })
    .await;
}

#[tokio::test]
async fn what_cannot_be_read_of_one_operation_holds_up_no_other() {
    on_both("what cannot be read", async |controller: TestApp| {
        controller.add_absent_host("web-2").await;
        let (_, odd) = controller.handed_out("web-1").await;
        let (operation, _) = controller.handed_out("web-2").await;
        let store = controller.app().store();
        // A state of another build, a policy that is none, and an end that another controller committed.
        execute(
            store,
            "UPDATE run SET seq = 9, state = 'failed', detail = '{\"status\":\"failed\",\"exit\":{\"code\":3}}'
               WHERE host_name = 'web-1';
             UPDATE operation SET seq = 9, policy = '{\"concurrency\":\"many\"}'
               WHERE id IN (SELECT operation_id FROM run WHERE host_name = 'web-1');
             UPDATE run SET seq = 9, state = 'succeeded', detail = '{\"status\":\"succeeded\"}', ended_at = 1
               WHERE host_name = 'web-2';
             UPDATE operation SET seq = 9, succeeded = 1
               WHERE id IN (SELECT operation_id FROM run WHERE host_name = 'web-2')",
        )
        .await;
        let status = async |controller: &TestApp| controller.wait_for_end(operation).await.0;
        assert_eq!(status(&controller).await, OperationStatus::Success);
        let mut conn = store.read().await.unwrap();
        let run = fleetward_store::work::run::get(&mut conn, &fleetward_store::Scope::Everything, odd).await;
        assert!(run.unwrap().state.to_string().contains("lost"));
        drop(conn);
        // Nor does it keep a controller from starting.
        let controller = controller.restart().await;
        assert_eq!(status(&controller).await, OperationStatus::Success);
        let another = controller.run(&["work"], "web-2").await.unwrap();
        controller.wait_until(another.id, |_, runs| !runs.is_empty()).await;
        controller.stop().await;
    })
    .await;
}
