//! One controller on one data directory; what it takes up again; and stopping when not everything can be brought to an
//! end.

use std::time::Duration;

use fleetward_app::fleet::controller::{self, Patience, Tenure};
use fleetward_app::identity::IdentityError;
use fleetward_app::people::login::login;
use fleetward_app::testing::has_no_room;
use fleetward_controller::running::StartError;
use fleetward_domain::work::operation::OperationStatus;
use fleetward_domain::work::run::RunState;
use fleetward_protocol::id::ControllerId;
use fleetward_protocol::name::UserName;
use fleetward_protocol::output::{Record, Stream};
use fleetward_protocol::session::SinkEvent;
use fleetward_protocol::time::Timestamp;
use fleetward_store::fleet::controller::{Controller, list_living};
use fleetward_store::testing::{blank_postgres, execute, limit_growth, postgres};
use fleetward_store::work::batch::{self, RunChange, Write};
use fleetward_store::work::run;
use fleetward_store::{Scope, Store, StoreError};
use tokio::time::timeout;
use uuid::Uuid;

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
    // Who leaves in order leaves at once.
    let controller = controller.restart().await;
    controller.stop().await;
    // And when nobody lives, one with keys of its own is no successor.
    let controller = TestController::start().await;
    let other = tempfile::tempdir().unwrap();
    let refused = controller.start_elsewhere(other.path(), &store.url).await.unwrap_err();
    assert!(matches!(refused, StartError::Identity(IdentityError::KeyMissing(_))), "{refused}");
    assert!(!other.path().join("secret.key").exists());
    // Nor does it keep away who comes next, or change a schema on its way out.
    let living = async || list_living(&mut store.store.read().await.unwrap()).await.unwrap();
    assert_eq!(living().await, []);
    execute(&store.store, "DELETE FROM schema_step").await;
    let third = tempfile::tempdir().unwrap();
    let refused = controller.start_elsewhere(third.path(), &store.url).await.unwrap_err();
    assert!(matches!(refused, StartError::Identity(IdentityError::KeyMissing(_))), "{refused}");
    assert_eq!(living().await, []);
    controller.stop().await;
    store.finish().await;
}

/// What the controller wrote into its own row is gone, as after a failover to a standby that was behind.
#[tokio::test]
async fn a_controller_whose_commits_were_lost_ends_in_order_and_starts_anew() {
    let Some(store) = postgres("a controller whose commits were lost").await else { return };
    let controller = TestController::start_on(Some(&store.url)).await;
    let failovers = async {
        loop {
            execute(&store.store, "UPDATE controller SET beat = 0").await;
            tokio::task::yield_now().await;
        }
    };
    let noticed = async {
        tokio::select! {
            () = controller.commits_lost() => {}
            () = failovers => unreachable!(),
        }
    };
    timeout(Duration::from_secs(20), noticed).await.expect("it is noticed");
    let controller =
        timeout(Duration::from_secs(9), controller.restart()).await.expect("nobody is waited for");
    assert!(!controller.app().continuity().is_broken());
    controller.stop().await;
    store.finish().await;
}

/// What a controller of a newer package meets that starts while an older one works.
#[tokio::test]
async fn a_refused_newcomer_leaves_the_schema_of_the_living_one_as_it_is() {
    let Some(blank) = blank_postgres("a refused newcomer").await else { return };
    // Older than every schema.
    let database = Store::connect(&blank.url).await.unwrap();
    let older = Controller {
        id: ControllerId::from_uuid(Uuid::now_v7()),
        name: "older".to_owned(),
        version: "0.0.1".to_owned(),
        beat: 0,
        started_at: Timestamp::from_millis(1),
    };
    controller::admit(database.controllers(), &older, Patience::DEFAULT).await.unwrap();
    let tenure = Tenure { place: Some(older.id), ..Tenure::default() };
    let beats = async {
        loop {
            tenure.beat(database.controllers()).await.unwrap();
            tokio::task::yield_now().await;
        }
    };
    let newer = TestController::start().await;
    let elsewhere = tempfile::tempdir().unwrap();
    let refused = tokio::select! {
        started = newer.start_elsewhere(elsewhere.path(), &blank.url) => started.unwrap_err(),
        () = beats => unreachable!(),
    };
    assert!(refused.to_string().contains("older (version 0.0.1)"), "{refused}");
    let untouched = Store::open_existing(&blank.url).await;
    assert!(matches!(untouched, Err(StoreError::Missing(_))), "{untouched:?}");
    newer.stop().await;
    drop(database);
    blank.finish().await;
}

/// The last commit of a controller whose place this one took: nobody tells this one's dispatcher of it.
#[tokio::test]
async fn an_end_that_another_controller_committed_ends_the_operation() {
    let controller = TestController::start().await;
    controller.add_script("work", "#!/bin/bash\n").await;
    controller.add_absent_host("web-1").await;
    let (operation, run) = controller.handed_out("web-1").await;
    let store = controller.app().store();
    let mut tx = store.write().await.unwrap();
    let from = run::get(&mut tx, &Scope::Everything, run).await.unwrap().state;
    let (to, at) = (RunState::Succeeded, Timestamp::from_millis(1));
    let change = RunChange { operation, run, from, to, at, duration_ms: None, left: None, attached: 0 };
    batch::write(&mut tx, store.files(), vec![Write::Run(change)]).await.unwrap();
    tx.commit().await.unwrap();
    let ended = timeout(Duration::from_secs(20), controller.wait_for_end(operation)).await;
    assert_eq!(ended.unwrap().0, OperationStatus::Success);
    controller.stop().await;
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
