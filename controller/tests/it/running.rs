//! One controller on one data directory; what it takes up again; and stopping when not everything can be brought to an
//! end.

use std::time::Duration;

use fleetward_app::login::login;
use fleetward_app::testing::has_no_room;
use fleetward_controller::running::StartError;
use fleetward_protocol::name::UserName;
use fleetward_protocol::output::{Record, Stream};
use fleetward_protocol::session::SinkEvent;
use fleetward_protocol::time::Timestamp;
use fleetward_store::testing::{limit_growth, postgres};
use tokio::time::timeout;

use crate::controller::TestController;

#[tokio::test]
async fn a_second_controller_on_one_data_directory_is_refused_and_disturbs_nothing() {
    let controller = TestController::start().await;
    controller.add_absent_host("web-1").await;
    let refused = controller.start_another().await.unwrap_err();
    assert!(matches!(refused, StartError::InUse { .. }), "{refused}");
    // The first one's end, and nothing else, makes room.
    let controller = controller.restart().await;
    assert!(matches!(controller.start_another().await, Err(StartError::InUse { .. })));
    controller.stop().await;
}

#[tokio::test]
async fn a_second_controller_on_one_database_is_refused_and_disturbs_nothing() {
    let Some(store) = postgres("a second controller on one database").await else { return };
    let controller = TestController::start_on(Some(&store.url)).await;
    let elsewhere = tempfile::tempdir().unwrap();
    let refused = controller.start_elsewhere(elsewhere.path(), &store.url).await.unwrap_err();
    assert!(refused.to_string().contains("another controller works on this database"), "{refused}");
    assert!(
        !elsewhere.path().join("secret.key").exists(),
        "it made no key for secrets that are another one's"
    );
    controller.add_absent_host("web-1").await;
    controller.stop().await;
    // Who leaves in order leaves at once.
    let other = tempfile::tempdir().unwrap();
    let controller = TestController::start().await;
    let second = controller.start_elsewhere(other.path(), &store.url).await.unwrap();
    second.shutdown().await;
    controller.stop().await;
    store.finish().await;
}

/// It ends by itself, before the service manager ends it, and what is left behind was not acknowledged.
#[tokio::test]
async fn a_controller_with_a_full_disk_stops_in_time() {
    let controller = TestController::start().await;
    controller.add_script("work", "#!/bin/bash\n").await;
    controller.add_absent_host("web-1").await;
    let (operation, run) = controller.handed_out("web-1").await;
    let recorder = controller.app().recorder();
    let feed = recorder.feed(run, operation, 0);
    limit_growth(controller.app().store(), Some(4)).await;
    let mut bytes = Vec::new();
    Record { stream: Stream::Stdout, at: Timestamp::from_millis(1), payload: &[b'x'; 2 << 20] }
        .append_to(&mut bytes);
    feed.report(SinkEvent::Output { offset: 0, bytes: bytes.into() }).await.unwrap();
    timeout(Duration::from_secs(20), controller.app().health().reached(has_no_room)).await.unwrap();
    let committed = feed.watch();
    timeout(Duration::from_secs(25), controller.stop()).await.expect("it stops");
    assert_eq!(committed.borrow().offset, 0);
}

/// What nobody had time to write is written at the end.
#[tokio::test]
async fn a_controller_that_stops_writes_what_it_refused_in_sum() {
    let controller = TestController::start().await;
    let nobody: UserName = "nobody".parse().unwrap();
    for _ in 0..47 {
        let guess = login(controller.app(), &nobody, "guess", "test", Some("192.0.2.77".parse().unwrap()));
        guess.await.unwrap_err();
    }
    let controller = controller.restart().await;
    let rows = controller.audited("login.refused").await;
    assert_eq!(rows.last().unwrap().event.details["more"], 37);
    controller.stop().await;
}
