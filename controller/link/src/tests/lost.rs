//! What a controller has forgotten or cannot use: a restored backup, a failover, a lost key.

use fleetward_protocol::id::{OperationId, RunId};
use fleetward_store::testing::execute;

use super::*;

fn operation_of(age: Duration, now: Timestamp) -> OperationId {
    let millis = u64::try_from(now.as_millis()).unwrap() - u64::try_from(age.as_millis()).unwrap();
    let random = *Uuid::new_v4().as_bytes();
    let random = random.last_chunk().unwrap();
    OperationId::from_uuid(uuid::Builder::from_unix_timestamp_millis(millis, random).into_uuid())
}

/// A host may drop what has ended here. What is not known here may be what a backup that was restored has forgotten, and
/// the host's the only copy; but not if it is older than anything that is kept.
#[tokio::test]
async fn what_the_controller_does_not_know_stays_on_its_host() {
    let controller = TestController::start().await;
    controller.add_script("work", "#!/bin/bash\n").await;
    let (_, host) = enrolled(&controller, "web-1").await;
    let (_, other) = enrolled(&controller, "web-2").await;
    let session = host.connect().await;
    let elsewhere = other.connect().await;
    let operation = controller.run(&["work"], "all").await.unwrap();
    for session in [&session, &elsewhere] {
        let stream = timeout(SOON, session.accept_run()).await.unwrap();
        stream.play("", Outcome::Exited(0)).await;
    }
    let (_, runs) = controller.wait_for_end(operation.id).await;
    let ended = runs[0].id;
    let of = |days: u64| {
        let age = Duration::from_secs(days * 86_400);
        RunId::derived(operation_of(age, controller.clock.now()), &host.client, 0)
    };
    let (young, old) = (of(1), of(400));
    session.connection.close(0u8.into(), b"restart");
    let mut session = host.connect_holding(vec![young, ended, old]).await;
    match timeout(SOON, session.hear()).await.unwrap() {
        ControllerMessage::Forget { runs } => assert_eq!(runs[..], [ended, old]),
        other => panic!("{other:?}"),
    }
}

/// The commit that said that a run was handed out was lost: the host has it, and it is not said that it never started.
#[tokio::test]
async fn a_run_that_its_host_has_is_taken_up_though_its_hand_out_is_forgotten() {
    let controller = TestController::start().await;
    controller.add_script("work", "#!/bin/bash\n").await;
    let (_, host) = enrolled(&controller, "web-1").await;
    // Nobody hands it out again meanwhile.
    controller.app().dispatcher().shutdown();
    controller.app().dispatcher().stopped().await;
    let operation = controller.run(&["work"], "web-1").await.unwrap();
    let (_, runs) = controller.wait_until(operation.id, |_, runs| !runs.is_empty()).await;
    assert_eq!(runs[0].state, RunState::Queued);
    let session = host.connect_holding(vec![runs[0].id]).await;
    let stream = timeout(SOON, session.accept_run()).await.unwrap();
    assert_eq!(stream.open.run, runs[0].id);
    assert!(!stream.open.started, "nobody here knows that it was");
    stream.play("done", Outcome::Exited(3)).await;
    let (_, runs) = controller.wait_until(operation.id, |_, runs| runs[0].state.status().is_final()).await;
    assert_eq!(runs[0].state, RunState::Failed(Failure::Exit(3)));
}

/// What was planned can no longer be opened: whatever waits for it ends with the reason, what a host may have is asked
/// for, and the host stays in touch.
#[tokio::test]
async fn an_order_that_cannot_be_made_holds_nobody_up() {
    let controller = TestController::start().await;
    controller.add_script("work", "#!/bin/bash\n").await;
    let (_, host) = enrolled(&controller, "web-1").await;
    let (_, other) = enrolled(&controller, "web-2").await;
    let session = host.connect().await;
    let handed_out = controller.run(&["work"], "web-1").await.unwrap();
    timeout(SOON, session.accept_run()).await.unwrap();
    controller.wait_until(handed_out.id, |_, runs| runs[0].state.status() == RunStatus::Dispatched).await;
    let waiting = controller.run(&["work"], "web-2").await.unwrap();
    execute(controller.app().store(), "UPDATE operation_step SET sealed = x'00'").await;

    let controller = controller.restart().await;
    let session = host.connect().await;
    let mut stream = timeout(SOON, session.accept_run()).await.unwrap();
    assert!(stream.open.dispatch.is_none());
    stream.say(&RunUp::Unknown).await;
    let (_, runs) = controller.wait_for_end(handed_out.id).await;
    assert_eq!(runs[0].state, RunState::Lost(LostCause::JournalGone));

    let session = other.connect().await;
    let (status, runs) = controller.wait_for_end(waiting.id).await;
    assert_eq!(status, OperationStatus::Failed);
    match &runs[0].state {
        RunState::Refused(Refusal::NotOrdered { detail }) => {
            assert!(detail.contains("step 0") && detail.contains("secret.key"), "{detail}");
        }
        other => panic!("{other:?}"),
    }
    // The next one goes on as usual.
    let next = controller.run(&["work"], "web-2").await.unwrap();
    let stream = timeout(SOON, session.accept_run()).await.unwrap();
    stream.play("", Outcome::Exited(0)).await;
    assert_eq!(controller.wait_for_end(next.id).await.0, OperationStatus::Success);
}

/// A controller whose clock was set back since it planned gives no order for later: hosts would refuse it for good.
#[tokio::test]
async fn a_clock_that_is_set_back_makes_no_order_for_later() {
    let controller = TestController::start().await;
    controller.add_script("work", "#!/bin/bash\n").await;
    let (_, host) = enrolled(&controller, "web-1").await;
    controller.run(&["work"], "web-1").await.unwrap();
    controller.clock.set(Timestamp::from_millis(controller.clock.now().as_millis() - 600_000));
    let session = host.connect().await;
    let stream = timeout(SOON, session.accept_run()).await.unwrap();
    let dispatch = stream.open.dispatch.unwrap();
    let order = fleetward_protocol::order::Order::open(&dispatch.order).unwrap();
    assert!(order.wait(Duration::from_millis(dispatch.remaining_ms)).is_some());
}

/// A host that comes back at the same moment as ten thousand others has nothing new to say.
#[tokio::test]
async fn facts_that_are_known_are_not_asked_for_again() {
    let controller = TestController::start().await;
    let (_, mut host) = enrolled(&controller, "web-1").await;
    let facts = budget::facts_of(1);
    let session = host.connect().await;
    assert!(!session.welcome.facts_known);
    let mut session = session;
    let mut events = controller.app().fleet().watch();
    session.say(&AgentMessage::Facts(Box::new(facts.clone()))).await;
    timeout(SOON, async { while !matches!(events.recv().await, Ok(FleetEvent::Host { .. })) {} })
        .await
        .unwrap();
    session.connection.close(0u8.into(), b"restart");
    host.facts = facts.digest(host.boot);
    assert!(host.connect().await.welcome.facts_known);
    host.facts = facts.digest(fleetward_protocol::id::BootId::from_uuid(Uuid::new_v4()));
    assert!(!host.connect().await.welcome.facts_known, "it was rebooted");
}
