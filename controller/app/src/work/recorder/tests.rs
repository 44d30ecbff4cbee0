//! Acknowledged means committed: what a stream is told, everybody can read, and what failed is not told.

use std::cell::Cell;
use std::time::Duration;

use fleetward_protocol::message::Finished;
use fleetward_protocol::output::{HEADER, Record, Stream};
use fleetward_protocol::run::{LostCause, Outcome, Refusal};
use fleetward_protocol::session::SinkEvent;
use fleetward_protocol::text::Text;
use fleetward_protocol::time::Timestamp;
use fleetward_store::Scope;
use fleetward_store::testing::{allow_commits, limit_growth, refuse_commits};
use fleetward_store::work::output;
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use tokio::time::timeout;

use super::*;
use crate::testing::{Log, TestApp, has_no_room};

const SOON: Duration = Duration::from_secs(20);

async fn controller(hosts: usize) -> TestApp {
    let controller = TestApp::start().await;
    controller.add_script("work", "#!/bin/bash\n").await;
    for number in 0..hosts {
        controller.add_absent_host(&format!("web-{number}")).await;
    }
    controller
}

/// One record of a log.
fn record(payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    Record { stream: Stream::Stdout, at: Timestamp::from_millis(1), payload }.append_to(&mut bytes);
    bytes
}

fn end(log_length: usize) -> SinkEvent {
    SinkEvent::Finished(Finished {
        outcome: Outcome::Exited(0),
        at: Timestamp::from_millis(2),
        duration_ms: 1,
        log_length: log_length as u64,
        left: None,
    })
}

async fn until(feed: &Feed, wanted: impl FnMut(&Committed) -> bool) -> Committed {
    *timeout(SOON, feed.watch().wait_for(wanted)).await.expect("it is told in time").unwrap()
}

async fn stored(controller: &TestApp, run: RunId) -> Vec<u8> {
    let store = controller.app().store();
    let mut conn = store.read().await.unwrap();
    output::read(&mut conn, store.files(), &Scope::Everything, run, 0, usize::MAX).await.unwrap()
}

#[tokio::test]
async fn what_a_failed_commit_held_is_not_acknowledged() {
    let controller = controller(1).await;
    let (operation, run) = controller.handed_out("web-0").await;
    let feed = controller.app().recorder().feed(run, operation, 0);
    let log = record(b"one");
    let reports = || {
        [
            SinkEvent::Accepted,
            SinkEvent::Started { at: Timestamp::from_millis(1) },
            SinkEvent::Output { offset: 0, bytes: log.clone().into() },
            end(log.len()),
        ]
    };

    refuse_commits(controller.app().store()).await;
    for report in reports() {
        let told = format!("{report:?}");
        feed.report(report).await.unwrap();
        let committed = until(&feed, |committed| committed.impossible).await;
        let nothing = Committed { impossible: true, ..Committed::default() };
        assert_eq!(committed, nothing, "{told} was acknowledged, and is not committed");
        assert_eq!(feed.restart().await, Ok(0));
    }
    assert_eq!(stored(&controller, run).await, b"");

    allow_commits(controller.app().store()).await;
    for report in reports() {
        feed.report(report).await.unwrap();
    }
    let committed = until(&feed, |committed| committed.ended).await;
    assert_eq!((committed.offset, committed.accepted), (log.len() as u64, true));
    assert_eq!(stored(&controller, run).await, log);
}

#[tokio::test]
async fn what_waits_for_room_on_the_disk_is_not_acknowledged_before_there_is_some() {
    let controller = controller(1).await;
    let (operation, run) = controller.handed_out("web-0").await;
    let feed = controller.app().recorder().feed(run, operation, 0);
    let log = record(&[b'x'; 2 << 20]);
    limit_growth(controller.app().store(), Some(4)).await;
    feed.report(SinkEvent::Accepted).await.unwrap();
    feed.report(SinkEvent::Output { offset: 0, bytes: log.clone().into() }).await.unwrap();
    let health = controller.app().health();
    timeout(SOON, health.reached(has_no_room)).await.unwrap();
    assert_eq!(feed.committed().offset, 0);
    limit_growth(controller.app().store(), None).await;
    until(&feed, |committed| committed.offset == log.len() as u64).await;
    let found = stored(&controller, run).await;
    assert!(found == log, "{} of {} bytes can be read", found.len(), log.len());
}

/// What a host sends while the disk is full stays with the host: the recorder takes so much and no more.
#[tokio::test]
async fn what_waits_for_its_commit_is_bounded() {
    const PIECE: usize = 64 << 10;
    let controller = controller(1).await;
    let (operation, run) = controller.handed_out("web-0").await;
    let feed = controller.app().recorder().feed(run, operation, 0);
    let log: Vec<u8> =
        std::iter::repeat_with(|| record(&[b'x'; PIECE - HEADER])).take(4 * ROOM / PIECE).flatten().collect();
    let taken = std::cell::Cell::new(0);
    limit_growth(controller.app().store(), Some(4)).await;
    let reports = async {
        for (at, piece) in log.chunks(PIECE).enumerate() {
            let report = SinkEvent::Output { offset: (at * PIECE) as u64, bytes: piece.to_vec().into() };
            feed.report(report).await.unwrap();
            taken.set(taken.get() + piece.len());
        }
    };
    let health = controller.app().health();
    let full = async {
        health.reached(has_no_room).await;
        // The queue is full, too, when its room is: nobody gets any further.
        let room = &controller.app().recorder().room;
        while room.available_permits() > PIECE + ENTRY && taken.get() <= ROOM {
            tokio::task::yield_now().await;
        }
        for _ in 0..1000 {
            tokio::task::yield_now().await;
        }
        assert!(taken.get() <= ROOM, "{} bytes were taken, and cannot be committed", taken.get());
        assert_eq!(feed.committed().offset, 0);
        limit_growth(controller.app().store(), None).await;
    };
    timeout(SOON, async { tokio::join!(reports, full) }).await.expect("it goes on by itself");
    until(&feed, |committed| committed.offset == log.len() as u64).await;
    assert!(stored(&controller, run).await == log);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_acknowledged_can_be_read_at_that_moment() {
    let controller = controller(3).await;
    let mut watchers = Vec::new();
    let mut feeds = Vec::new();
    for number in 0..3 {
        let (operation, run) = controller.handed_out(&format!("web-{number}")).await;
        let feed = controller.app().recorder().feed(run, operation, 0);
        let (mut told, store) = (feed.watch(), controller.app().store().clone());
        watchers.push(tokio::spawn(async move {
            let mut seen = 0;
            loop {
                let committed = *told.borrow_and_update();
                let mut conn = store.read().await.unwrap();
                let length = fleetward_store::work::run::get(&mut conn, &Scope::Everything, run)
                    .await
                    .unwrap()
                    .output_end;
                assert!(length >= committed.offset, "{} was told, {length} can be read", committed.offset);
                drop(conn);
                seen += 1;
                if committed.ended {
                    return seen;
                }
                told.changed().await.unwrap();
            }
        }));
        feeds.push(feed);
    }
    let mut offsets = [0_usize; 3];
    for round in 0..150 {
        for (feed, offset) in feeds.iter().zip(&mut offsets) {
            let bytes = record(&vec![b'x'; 1 + (round * 37) % 5000]);
            let report = SinkEvent::Output { offset: *offset as u64, bytes: bytes.clone().into() };
            feed.report(report).await.unwrap();
            *offset += bytes.len();
        }
    }
    for (feed, offset) in feeds.iter().zip(offsets) {
        feed.report(end(offset)).await.unwrap();
    }
    for watcher in watchers {
        assert!(timeout(SOON, watcher).await.unwrap().unwrap() > 1);
    }
}

/// What a run ends with, and what the log says of it; nothing, if there is nothing to look at.
fn ends() -> impl Strategy<Value = (RunEvent, Option<String>)> {
    let lost = prop::sample::select(vec![
        (LostCause::Reboot, "lost: the host was rebooted or lost power"),
        (LostCause::SupervisorGone, "lost: the run's supervisor disappeared"),
    ]);
    prop_oneof![
        1 => Just((RunEvent::Finished(Outcome::Exited(0)), None)),
        1 => Just((RunEvent::Finished(Outcome::TimedOut), Some("timed out".to_owned()))),
        4 => (1..256_i32).prop_map(|code| {
            (RunEvent::Finished(Outcome::Exited(code)), Some(format!("failed with exit code {code}")))
        }),
        4 => (1..65_i32).prop_map(|signal| {
            (RunEvent::Finished(Outcome::Signalled(signal)), Some(format!("failed by signal {signal}")))
        }),
        4 => "[a-z]{1,20}".prop_map(|rule| {
            let told = format!("refused: the host's own policy does not allow it: {rule}");
            (RunEvent::Refused(Refusal::NotAllowed { rule: Text::of(&rule) }), Some(told))
        }),
        2 => lost.prop_map(|(cause, told)| (RunEvent::Finished(Outcome::Lost(cause)), Some(told.to_owned()))),
    ]
}

/// Of every run that failed, and of no other, the log says when, in which operation, on which host and why.
#[test]
fn p35_failed_runs_are_logged_with_operation_target_and_reason() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let log = Log::default();
    let _guard = tracing::subscriber::set_default(log.subscriber());
    let controller = runtime.block_on(async {
        let controller = TestApp::start().await;
        controller.add_script("work", "#!/bin/bash\n").await;
        controller.add_absent_host("web-1").await;
        controller
    });
    let failures = Cell::new(0);
    TestRunner::new(ProptestConfig::with_cases(150))
        .run(&ends(), |(event, told)| {
            let (operation, run, client) = runtime.block_on(async {
                let (operation, run) = controller.handed_out("web-1").await;
                let change = RunTransition { operation, run, event, known: None };
                controller.app().recorder().apply([change]).await.unwrap();
                controller.app().recorder().settle().await.unwrap();
                let (_, runs) = controller.wait_for_end(operation).await;
                (operation, run, runs[0].client_id.clone())
            });
            let logged = log.take("run.failed");
            let Some(told) = told else {
                prop_assert_eq!(logged.len(), 0);
                return Ok(());
            };
            failures.set(failures.get() + 1);
            prop_assert_eq!(logged.len(), 1);
            let fields = &logged[0]["fields"];
            prop_assert_eq!(&fields["operation"], &operation.to_string());
            prop_assert_eq!(&fields["run"], &run.to_string());
            prop_assert_eq!(fields["client"].as_str(), Some(client.as_str()));
            prop_assert_eq!(fields["reason"].as_str(), Some(told.as_str()));
            Ok(())
        })
        .unwrap();
    assert!(failures.get() >= 100, "{failures:?}");
}

/// Of two who say the same of an operation one is first, and one line is enough.
#[tokio::test]
async fn a_status_that_an_operation_has_already_is_not_told_again() {
    let log = Log::default();
    let _guard = tracing::subscriber::set_default(log.subscriber());
    let controller = controller(1).await;
    let operation = controller.run(&["work"], "web-0").await.unwrap();
    let change = StatusChange {
        tenant: controller.tenant,
        operation: operation.id,
        from: OperationStatus::Queued,
        to: OperationStatus::Running,
        halted: Halted::No,
    };
    for _ in 0..2 {
        controller.app().recorder().apply_status(change).await.unwrap();
        controller.app().recorder().settle().await.unwrap();
    }
    assert_eq!(log.take("operation.moved").len(), 1);
}
