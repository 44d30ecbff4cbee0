//! The audit log: what is kept of it, and that what is kept is still a chain.

use std::time::Duration;

use fleetward_app::people::actor::Actor;
use fleetward_app::people::audit::{self, Entry, VerifyError};
use fleetward_store::people::audit::{Checkpoint, Verifier, get_extent, list_chain};
use fleetward_store::testing;

use super::site::TestSite;

const DAY: Duration = Duration::from_secs(86_400);

async fn record(site: &TestSite, events: u32) {
    let mut tx = site.app.store().write().await.unwrap();
    for number in 0..events {
        let entry = Entry::new("test.done", Actor::System, number).with("number", number);
        audit::record(&mut tx, entry, site.app.now()).await.unwrap();
    }
    tx.commit().await.unwrap();
}

async fn verify(site: &TestSite) -> Result<audit::Whole, VerifyError> {
    let mut conn = site.app.store().read().await.unwrap();
    audit::verify(&mut conn).await
}

async fn old_events_leave(site: TestSite) {
    let before = verify(&site).await.unwrap().events;
    record(&site, 700).await;
    // Nothing is old yet.
    assert_eq!(audit::remove_old(&site.app).await.unwrap(), 0);
    site.clock.advance(DAY * 365 * 3 + DAY);
    // The newest thousand stay, however old they are.
    record(&site, 900).await;
    let removed = audit::remove_old(&site.app).await.unwrap();
    assert_eq!(removed, before + 600);
    let whole = verify(&site).await.unwrap();
    assert_eq!(whole.removed, before + 600);
    assert_eq!(whole.events, 1000 + 2, "and two tell of their removal, in batches of 500");
    assert_eq!(audit::remove_old(&site.app).await.unwrap(), 0, "once");
    // Nobody's login lasted for three years.
    let bob = site.login_as("bob", fleetward_domain::people::permission::Role::Admin).await;
    let told = site.call_as(&bob, "GET", "/api/v1/audit?action=audit.removed", None).await.json();
    assert_eq!(told["items"][0]["details"]["through"], before + 600);
    assert_eq!(told["items"][0]["details"]["first"], 501);

    // Offline: what is left is checked from the checkpoint, and the checkpoint by the event that tells of it.
    let mut conn = site.app.store().read().await.unwrap();
    let extent = get_extent(&mut conn).await.unwrap();
    let chain = list_chain(&mut conn, 1, 5000).await.unwrap();
    drop(conn);
    let check = |checkpoint: Checkpoint, events: &[fleetward_store::people::audit::Event]| {
        let mut verifier = Verifier::new(checkpoint);
        verifier.take(events)?;
        verifier.finish()
    };
    assert_eq!(check(extent.checkpoint, &chain).unwrap(), 1002);
    // Taking away more than the controller did is noticed, also with a checkpoint that fits.
    let forged = Checkpoint { number: chain[9].number, hash: chain[9].hash };
    let broken = check(forged, &chain[10..]).unwrap_err();
    assert!(broken.fault.contains("no event tells"), "{broken}");
    check(extent.checkpoint, &chain[10..]).unwrap_err();

    // Too much of it: the size follows what is written and what is removed.
    let size = extent.size;
    assert!((1002 * 320..1002 * 600).contains(&size), "{size}");
    record(&site, 200).await;
    let (before, through) = (site.app.now() - DAY * 3650, extent.last + 200 - 1000);
    let removable = audit::Removable { before, above: size * 2, through };
    assert_eq!(audit::remove_batch(&site.app, removable).await.unwrap(), 0);
    let removable = audit::Removable { above: size / 2, ..removable };
    assert_eq!(audit::remove_batch(&site.app, removable).await.unwrap(), 202);
    assert_eq!(audit::remove_batch(&site.app, removable).await.unwrap(), 0, "the newest stay");
    verify(&site).await.unwrap();

    // What was changed where something is to be removed, is not covered up.
    testing::execute(
        site.app.store(),
        "UPDATE audit SET actor = 'eve' WHERE number = (SELECT MIN(number) FROM audit)",
    )
    .await;
    record(&site, 200).await;
    assert!(matches!(verify(&site).await, Err(VerifyError::Broken(_))));
    site.clock.advance(DAY * 365 * 4);
    let refused = audit::remove_old(&site.app).await;
    assert!(matches!(refused, Err(VerifyError::Broken(_))), "{refused:?}");
}

#[tokio::test]
async fn old_events_leave_and_what_stays_is_still_a_chain() {
    old_events_leave(TestSite::new().await).await;
}

#[tokio::test]
async fn old_events_leave_and_what_stays_is_still_a_chain_on_postgres() {
    if let Some(store) = testing::postgres("old_events_leave").await {
        old_events_leave(TestSite::on(store).await).await;
    }
}

#[tokio::test]
async fn a_tail_that_was_cut_off_is_noticed() {
    let site = TestSite::new().await;
    record(&site, 5).await;
    let last = verify(&site).await.unwrap().events;
    testing::execute(site.app.store(), "DELETE FROM audit WHERE number = (SELECT MAX(number) FROM audit)")
        .await;
    match verify(&site).await {
        Err(VerifyError::Broken(broken)) => assert_eq!(broken.number, last),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn events_are_listed_by_their_time() {
    let site = TestSite::new().await;
    record(&site, 1).await;
    let noon = fleetward_api::time::Time::from(site.app.now());
    site.clock.advance(Duration::from_millis(1));
    record(&site, 2).await;
    let later = fleetward_api::time::Time::from(site.app.now());
    let count = async |query: String| {
        let found = site.get(&format!("/api/v1/audit?action=test.done&{query}")).await;
        found["items"].as_array().unwrap().len()
    };
    assert_eq!(count(format!("from={noon}")).await, 3);
    assert_eq!(count(format!("from={later}")).await, 2);
    assert_eq!(count(format!("from={noon}&to={later}")).await, 1);
    assert_eq!(count(format!("to={noon}")).await, 0);
}
