//! Hosts that behave and hosts that do not, over real QUIC.

use fleetward_app::people::access::{ManageHosts, Run};
use std::time::Duration;

use fleetward_app::fleet::online::FleetEvent;
use fleetward_app::fleet::{enrolment, host as hosts};
use fleetward_app::health::Condition;
use fleetward_app::testing::has_no_room;
use fleetward_app::work::operation;

use fleetward_domain::work::operation::{OperationStatus, RolloutPolicy};
use fleetward_domain::work::run::{Cause, Failure, RunState, RunStatus};
use fleetward_protocol::client_id::ClientId;
use fleetward_protocol::enrol::{EnrolRefusal, EnrolReply, Token};
use fleetward_protocol::id::JournalId;
use fleetward_protocol::message::{
    AgentMessage, ClientIdReport, ControllerMessage, RunDown, RunUp, StreamKind,
};
use fleetward_protocol::name::HostName;
use fleetward_protocol::run::{CancelCause, LostCause, Outcome, Refusal};
use fleetward_protocol::session::HANDSHAKE_TIMEOUT;
use fleetward_protocol::text::Text;
use fleetward_protocol::time::Timestamp;
use fleetward_protocol::wire::{self, ALPN, ALPN_ENROL, MAX_CONTROL_FRAME, close};
use fleetward_store::testing::limit_growth;
use quinn::ConnectionError;
use tokio::time::timeout;
use uuid::Uuid;

use self::controller::TestController;
use self::host::{FakeHost, finished, log_of};
use super::frame;

mod authority;
mod budget;
mod controller;
mod crowd;
mod host;
mod kind;
mod lost;
mod query;
mod twins;

const SOON: Duration = Duration::from_secs(10);

fn client(number: u8) -> ClientId {
    format!("FLEET-00000000-0000-4000-8000-0000000000{number:02}").parse().unwrap()
}

fn fake(controller: &TestController, token: &Token) -> FakeHost {
    let client = token.client.clone().unwrap_or_else(|| client(99));
    let root = controller.app().authority().root().clone();
    let mut host = FakeHost::new(client, controller.address(), root);
    host.clock = controller.clock.now();
    host
}

/// A host that is added and enrolled.
async fn enrolled(controller: &TestController, name: &str) -> (HostName, FakeHost) {
    let (name, token) = controller.add_host(name).await;
    let mut host = fake(controller, &token);
    assert!(!host.enrol(&token).await);
    (name, host)
}

/// The application code with which the controller closed the connection.
async fn closed_with(connection: &quinn::Connection) -> u64 {
    match timeout(SOON, connection.closed()).await.expect("the connection is closed") {
        ConnectionError::ApplicationClosed(closed) => closed.error_code.into_inner(),
        other => panic!("{other:?}"),
    }
}

fn refusal(reply: &EnrolReply) -> EnrolRefusal {
    match reply {
        EnrolReply::Refused(refusal) => *refusal,
        EnrolReply::Issued { .. } => panic!("issued"),
    }
}

#[tokio::test]
async fn a_script_runs_on_a_host_and_its_output_is_stored() {
    let controller = TestController::start().await;
    controller.add_script("hello", "#!/bin/bash\necho hello\n").await;
    let (_, host) = enrolled(&controller, "web-1").await;
    let session = host.connect().await;
    assert!(!session.welcome.quarantined);
    let operation = controller.run(&["hello"], "web-1").await.unwrap();
    assert_eq!(operation.status, OperationStatus::Queued);
    let stream = timeout(SOON, session.accept_run()).await.unwrap();
    let dispatch = stream.open.dispatch.clone().unwrap();
    assert!(!stream.open.started);
    assert_eq!(dispatch.contents[0].as_ref(), b"#!/bin/bash\necho hello\n");
    stream.play("hello\n", Outcome::Exited(0)).await;
    let (status, runs) = controller.wait_for_end(operation.id).await;
    assert_eq!((status, &runs[0].state), (OperationStatus::Success, &RunState::Succeeded));
    assert_eq!(controller.output(&runs[0]).await, log_of("hello\n"));
    controller.stop().await;
    assert_eq!(closed_with(&session.connection).await, u64::from(close::SHUTDOWN));
}

#[tokio::test]
async fn many_hosts_run_at_once_and_each_fails_for_itself() {
    let controller = TestController::start().await;
    controller.add_script("work", "#!/bin/bash\n").await;
    let mut sessions = Vec::new();
    for number in 0..30 {
        let (_, host) = enrolled(&controller, &format!("web-{number}")).await;
        sessions.push((number, host.connect().await, host));
    }
    let operation = controller.run(&["work"], "all").await.unwrap();
    for (number, session, _) in &sessions {
        let stream = timeout(SOON, session.accept_run()).await.unwrap();
        stream.play(&format!("{number}"), Outcome::Exited(i32::from(number % 10 == 0))).await;
    }
    let (status, runs) = controller.wait_for_end(operation.id).await;
    assert_eq!(status, OperationStatus::Partial);
    let failed = runs.iter().filter(|run| run.state == RunState::Failed(Failure::Exit(1))).count();
    assert_eq!((runs.len(), failed), (30, 3));
}

#[tokio::test]
async fn an_offline_host_gets_its_run_when_it_comes_and_steps_go_in_order() {
    let controller = TestController::start().await;
    controller.add_script("one", "#!/bin/bash\n").await;
    controller.add_script("two", "#!/bin/bash\n").await;
    let (_, host) = enrolled(&controller, "web-1").await;
    let operation = controller.run(&["one", "two"], "web-1").await.unwrap();
    let session = host.connect().await;
    let first = timeout(SOON, session.accept_run()).await.unwrap();
    let second = async {
        let stream = session.accept_run().await;
        stream.play("", Outcome::Exited(0)).await;
    };
    first.play("", Outcome::Exited(0)).await;
    timeout(SOON, second).await.unwrap();
    let (status, runs) = controller.wait_for_end(operation.id).await;
    assert_eq!(status, OperationStatus::Success);
    assert_eq!(runs.iter().map(|run| run.step).collect::<Vec<_>>(), [0, 1]);
}

#[tokio::test]
async fn a_connection_cut_in_mid_run_resumes_at_the_committed_offset() {
    let controller = TestController::start().await;
    controller.add_script("long", "#!/bin/bash\n").await;
    let (_, host) = enrolled(&controller, "web-1").await;
    let session = host.connect().await;
    let operation = controller.run(&["long"], "web-1").await.unwrap();
    let mut stream = timeout(SOON, session.accept_run()).await.unwrap();
    let (log, first) = ([log_of("one"), log_of("two")].concat(), log_of("one").len());
    let run = stream.open.run;
    stream.say(&RunUp::Accepted).await;
    stream.say(&RunUp::Started { at: Timestamp::from_millis(1) }).await;
    // The second record is not whole yet: it is neither kept nor acknowledged.
    stream.say(&RunUp::Output { offset: 0, bytes: log[..first + 5].to_vec().into() }).await;
    assert_eq!(stream.hear().await, RunDown::Acknowledge { offset: first as u64 });
    session.connection.close(0u8.into(), b"cut");

    let session = host.connect_holding(vec![run]).await;
    let mut stream = timeout(SOON, session.accept_run()).await.unwrap();
    assert_eq!((stream.open.run, stream.open.offset), (run, first as u64));
    assert!(stream.open.dispatch.is_none(), "the host has it");
    assert!(stream.open.started, "and it said that it was started");
    stream.say(&RunUp::Accepted).await;
    stream.say(&RunUp::Started { at: Timestamp::from_millis(1) }).await;
    // Some of it again: a host may repeat what it does not know to be committed.
    stream.say(&RunUp::Output { offset: 8, bytes: log[8..].to_vec().into() }).await;
    stream.say(&RunUp::Finished(finished(Outcome::Exited(0), log.len() as u64))).await;
    while stream.hear().await != RunDown::Forget {}
    let (_, runs) = controller.wait_for_end(operation.id).await;
    assert_eq!(controller.output(&runs[0]).await, log);
    assert_eq!(runs[0].attached, 1, "people see that it came back");
}

#[tokio::test]
async fn a_controller_that_was_restarted_takes_everything_up_again() {
    let controller = TestController::start().await;
    controller.add_script("work", "#!/bin/bash\n").await;
    let (_, host) = enrolled(&controller, "web-1").await;
    let (_, other) = enrolled(&controller, "web-2").await;
    let session = host.connect().await;
    let operation = controller.run(&["work"], "all").await.unwrap();
    let mut stream = timeout(SOON, session.accept_run()).await.unwrap();
    stream.say(&RunUp::Accepted).await;
    controller.wait_until(operation.id, |_, runs| runs[0].state.status() == RunStatus::Accepted).await;

    let controller = controller.restart().await;
    let session = host.connect().await;
    let again = timeout(SOON, session.accept_run()).await.unwrap();
    assert_eq!(again.open.run, stream.open.run);
    again.play("x", Outcome::Exited(0)).await;
    let session = other.connect().await;
    let waited = timeout(SOON, session.accept_run()).await.unwrap();
    assert!(waited.open.dispatch.is_some(), "it was never handed out");
    waited.play("y", Outcome::Exited(0)).await;
    assert_eq!(controller.wait_for_end(operation.id).await.0, OperationStatus::Success);
}

#[tokio::test]
async fn a_host_with_another_journal_has_lost_its_runs() {
    let controller = TestController::start().await;
    controller.add_script("work", "#!/bin/bash\n").await;
    let (_, mut host) = enrolled(&controller, "web-1").await;
    let session = host.connect().await;
    let operation = controller.run(&["work"], "web-1").await.unwrap();
    let mut stream = timeout(SOON, session.accept_run()).await.unwrap();
    stream.say(&RunUp::Accepted).await;
    controller.wait_until(operation.id, |_, runs| runs[0].state.status() == RunStatus::Accepted).await;
    session.connection.close(0u8.into(), b"reinstalled");
    host.journal = JournalId::from_uuid(Uuid::new_v4());
    let _session = host.connect().await;
    let (status, runs) = controller.wait_for_end(operation.id).await;
    assert_eq!(status, OperationStatus::Failed);
    assert_eq!(runs[0].state, RunState::Lost(LostCause::JournalGone));
}

#[tokio::test]
async fn a_stop_reaches_the_host_and_what_really_happened_is_kept() {
    let controller = TestController::start().await;
    controller.add_script("work", "#!/bin/bash\n").await;
    let (_, host) = enrolled(&controller, "web-1").await;
    let (_, _offline) = enrolled(&controller, "web-2").await;
    let session = host.connect().await;
    let asked = controller.run(&["work"], "all").await.unwrap();
    let mut stream = timeout(SOON, session.accept_run()).await.unwrap();
    stream.say(&RunUp::Accepted).await;
    stream.say(&RunUp::Started { at: Timestamp::from_millis(1) }).await;
    let permit = controller.permit::<Run>();
    let reference = format!("OP-{}", asked.number).parse().unwrap();
    operation::stop(controller.app(), &permit, reference).await.unwrap();
    assert_eq!(stream.hear().await, RunDown::Cancel { cause: CancelCause::Requested });
    stream.say(&RunUp::Finished(finished(Outcome::Cancelled, 0))).await;
    let (status, runs) = controller.wait_for_end(asked.id).await;
    assert_eq!(status, OperationStatus::Stopped);
    assert!(runs.iter().all(|run| run.state == RunState::Cancelled(Cause::Requested)));
    operation::stop(controller.app(), &permit, reference).await.unwrap_err();
}

#[tokio::test]
async fn a_stop_that_races_the_hand_out_reaches_the_host_all_the_same() {
    let controller = TestController::start().await;
    controller.add_script("work", "#!/bin/bash\n").await;
    let (_, host) = enrolled(&controller, "web-1").await;
    let session = host.connect().await;
    let permit = controller.permit::<Run>();
    for _ in 0..20 {
        let asked = controller.run(&["work"], "all").await.unwrap();
        operation::stop(controller.app(), &permit, operation::Reference::Id(asked.id)).await.unwrap();
        let play = async {
            let mut stream = session.accept_run().await;
            stream.say(&RunUp::Accepted).await;
            // With the order, or after it.
            while stream.open.cancel.is_none() && !matches!(stream.hear().await, RunDown::Cancel { .. }) {}
            stream.say(&RunUp::Refused(Refusal::CancelledBeforeStart)).await;
            std::future::pending::<()>().await;
        };
        let (status, runs) = tokio::select! {
            ended = controller.wait_for_end(asked.id) => ended,
            () = play => unreachable!(),
        };
        assert_eq!(
            (status, &runs[0].state),
            (OperationStatus::Stopped, &RunState::Cancelled(Cause::Requested))
        );
    }
}

#[tokio::test]
async fn hosts_that_can_move_are_told_where_to_and_when() {
    let controller = TestController::start().await;
    let (_, mut host) = enrolled(&controller, "web-1").await;
    let (_, older) = enrolled(&controller, "web-2").await;
    host.features = vec!["move"];
    let mut session = host.connect().await;
    let mut other = older.connect().await;
    let told = timeout(SOON, session.hear()).await.unwrap();
    let ControllerMessage::Controllers { addresses } = told else { panic!("{told:?}") };
    assert_eq!(addresses.len(), 2);
    assert_eq!(addresses[1].as_str(), "other.example.com:7443");
    let leave = async {
        // Before the end of its connection, so that it can leave by itself.
        assert_eq!(timeout(SOON, session.hear()).await.unwrap(), ControllerMessage::Move);
        session.connection.close(close::DONE.into(), b"moved");
        // One that cannot is not spoken to of it: the next thing is the end.
        let told = timeout(SOON, other.frames.next::<ControllerMessage>()).await.unwrap();
        assert!(told.is_err(), "{told:?}");
        assert_eq!(closed_with(&other.connection).await, u64::from(close::SHUTDOWN));
    };
    tokio::join!(leave, controller.stop());
}

/// Whoever read the order alone would start what is to be stopped.
#[tokio::test]
async fn a_host_that_comes_back_hears_of_a_stop_with_the_order() {
    let controller = TestController::start().await;
    controller.add_script("work", "#!/bin/bash\n").await;
    let (_, host) = enrolled(&controller, "web-1").await;
    let session = host.connect().await;
    let asked = controller.run(&["work"], "all").await.unwrap();
    // The order is on its way, and perhaps never arrives.
    let stream = timeout(SOON, session.accept_run()).await.unwrap();
    assert_eq!(stream.open.cancel, None);
    session.connection.close(0u8.into(), b"cut");
    let permit = controller.permit::<Run>();
    operation::stop(controller.app(), &permit, operation::Reference::Id(asked.id)).await.unwrap();

    let session = host.connect().await;
    let mut stream = timeout(SOON, session.accept_run()).await.unwrap();
    assert_eq!(stream.open.cancel, Some(CancelCause::Requested));
    assert!(stream.open.dispatch.is_some(), "a host that does not have it writes down that it never starts");
    stream.say(&RunUp::Refused(Refusal::CancelledBeforeStart)).await;
    assert_eq!(stream.hear().await, RunDown::Forget, "and it is not told twice");
    let (status, runs) = controller.wait_for_end(asked.id).await;
    assert_eq!((status, &runs[0].state), (OperationStatus::Stopped, &RunState::Cancelled(Cause::Requested)));
}

/// Also if the stop is only in the store yet, such as when another controller took it.
#[tokio::test]
async fn a_stop_that_nobody_told_of_goes_with_the_order_too() {
    let controller = TestController::start().await;
    controller.add_script("work", "#!/bin/bash\n").await;
    let (_, host) = enrolled(&controller, "web-1").await;
    for started in [false, true] {
        let session = host.connect().await;
        let asked = controller.run(&["work"], "all").await.unwrap();
        let mut stream = timeout(SOON, session.accept_run()).await.unwrap();
        let held = if started {
            stream.say(&RunUp::Accepted).await;
            controller.wait_until(asked.id, |_, runs| runs[0].state.status() == RunStatus::Accepted).await;
            vec![stream.open.run]
        } else {
            Vec::new()
        };
        session.connection.close(0u8.into(), b"cut");
        let mut tx = controller.app().store().write().await.unwrap();
        let now = controller.clock.now();
        let noted = fleetward_store::work::operation::update_stop_requested(&mut tx, asked.id, "ada", now);
        noted.await.unwrap().expect("it can be stopped");
        tx.commit().await.unwrap();

        let session = host.connect_holding(held).await;
        let mut stream = timeout(SOON, session.accept_run()).await.unwrap();
        assert_eq!(stream.open.cancel, Some(CancelCause::Requested));
        assert_eq!(stream.open.dispatch.is_some(), !started);
        stream.say(&RunUp::Refused(Refusal::CancelledBeforeStart)).await;
        assert_eq!(stream.hear().await, RunDown::Forget, "and it is not told twice");
        let (status, runs) = controller.wait_for_end(asked.id).await;
        let cancelled = RunState::Cancelled(Cause::Requested);
        assert_eq!((status, &runs[0].state), (OperationStatus::Stopped, &cancelled), "and it was a stop");
    }
}

#[tokio::test]
async fn what_is_not_started_by_the_deadline_expires() {
    let controller = TestController::start().await;
    controller.add_script("work", "#!/bin/bash\n").await;
    let (_, _offline) = enrolled(&controller, "web-1").await;
    let policy = RolloutPolicy { deadline_ms: 60_000, ..RolloutPolicy::default() };
    let operation = controller.run_with(&["work"], "all", policy).await.unwrap();
    controller.clock.advance(Duration::from_secs(61));
    let (_, runs) = controller.wait_for_end(operation.id).await;
    assert_eq!(runs[0].state, RunState::Expired);
}

#[tokio::test]
async fn targets_that_are_not_enrolled_are_listed_and_nothing_is_planned() {
    let controller = TestController::start().await;
    controller.add_script("work", "#!/bin/bash\n").await;
    enrolled(&controller, "web-1").await;
    controller.add_host("web-2").await;
    let refused = controller.run(&["work"], "all").await.unwrap_err().to_string();
    assert!(refused.contains("web-2 (pending)") && !refused.contains("web-1"), "{refused}");
    let refused = controller.run(&["work"], "web-3").await.unwrap_err().to_string();
    assert!(refused.contains("web-3"), "{refused}");
}

#[tokio::test]
async fn a_token_enrols_one_key_of_one_host_once() {
    let controller = TestController::start().await;
    let (_, token) = controller.add_host("web-1").await;
    let host = fake(&controller, &token);
    let stranger = Token { secret: [7; 32], ..token.clone() };
    let reply = host.try_enrol(&stranger, host.request(&host.client)).await;
    assert_eq!(refusal(&reply), EnrolRefusal::UnknownToken);
    let reply = host.try_enrol(&token, host.request(&client(42))).await;
    assert_eq!(refusal(&reply), EnrolRefusal::WrongClient);
    let mut forged = host.request(&host.client);
    *forged.last_mut().unwrap() ^= 1;
    assert_eq!(refusal(&host.try_enrol(&token, forged).await), EnrolRefusal::BadRequest);
    assert_eq!(refusal(&host.try_enrol(&token, vec![0; 100]).await), EnrolRefusal::BadRequest);
    // None of this used it up, and a reply that was lost on its way strands nobody.
    for _ in 0..2 {
        let reply = host.try_enrol(&token, host.request(&host.client)).await;
        assert!(matches!(reply, EnrolReply::Issued { quarantined: false, .. }));
    }
    let thief = fake(&controller, &token);
    let reply = thief.try_enrol(&token, thief.request(&thief.client)).await;
    assert_eq!(refusal(&reply), EnrolRefusal::UsedToken);
    assert!(controller.has_audited("enrolment.refused").await);
    assert!(controller.has_audited("host.enrolled").await);

    let (_, token) = controller.add_host("web-2").await;
    controller.clock.advance(Duration::from_secs(86_400));
    let late = fake(&controller, &token);
    let reply = late.try_enrol(&token, late.request(&late.client)).await;
    assert_eq!(refusal(&reply), EnrolRefusal::ExpiredToken);
}

#[tokio::test]
async fn guessing_tokens_is_limited() {
    let controller = TestController::start().await;
    let (_, token) = controller.add_host("web-1").await;
    let host = fake(&controller, &token);
    let guess = Token { secret: [1; 32], ..token };
    let mut refusals = Vec::new();
    for _ in 0..40 {
        refusals.push(refusal(&host.try_enrol(&guess, Vec::new()).await));
    }
    assert_eq!(refusals[0], EnrolRefusal::UnknownToken);
    assert_eq!(refusals[39], EnrolRefusal::RateLimited);
}

#[tokio::test]
async fn a_host_nobody_declared_waits_for_approval() {
    let controller = TestController::start().await;
    controller.add_script("work", "#!/bin/bash\n").await;
    let permit = controller.permit::<ManageHosts>();
    let issued = enrolment::make_unbound_token(controller.app(), &permit, None).await.unwrap();
    let mut host = fake(&controller, &issued.token);
    assert!(host.enrol(&issued.token).await, "quarantined");
    let session = host.connect().await;
    assert!(session.welcome.quarantined);
    let name: HostName = "fake.example.com".parse().unwrap();
    controller.run(&["work"], "all").await.unwrap_err();
    hosts::approve(controller.app(), &permit, &name).await.unwrap();
    let operation = controller.run(&["work"], "all").await.unwrap();
    timeout(SOON, session.accept_run()).await.unwrap().play("", Outcome::Exited(0)).await;
    controller.wait_for_end(operation.id).await;
    hosts::approve(controller.app(), &permit, &name).await.unwrap_err();
}

#[tokio::test]
async fn certificates_that_are_not_good_are_turned_away() {
    let controller = TestController::start().await;
    let foreign = TestController::start().await;
    let (_, host) = enrolled(&controller, "web-1").await;
    let (_, stranger) = enrolled(&foreign, "web-1").await;

    // Another authority's: TLS refuses it.
    let root = controller.app().authority().root().clone();
    let mut intruder = FakeHost::new(stranger.client.clone(), host.address, root);
    intruder.key = stranger.key;
    let refused = match intruder.dial(ALPN, Some(&stranger.chain)).await {
        Err(error) => error,
        Ok(connection) => timeout(SOON, connection.closed()).await.unwrap(),
    };
    assert!(matches!(refused, ConnectionError::ConnectionClosed(_)), "{refused:?}");

    // None at all: it may enrol, and nothing else.
    let connection = host.dial(ALPN, None).await.unwrap();
    assert_eq!(closed_with(&connection).await, u64::from(close::UNAUTHENTICATED));

    // Revoked: cut off at once, and never let in again.
    let session = host.connect().await;
    let permit = controller.permit::<ManageHosts>();
    hosts::revoke(controller.app(), &permit, &"web-1".parse().unwrap()).await.unwrap();
    assert_eq!(closed_with(&session.connection).await, u64::from(close::REVOKED));
    let connection = host.dial(ALPN, Some(&host.chain)).await.unwrap();
    assert_eq!(closed_with(&connection).await, u64::from(close::REVOKED));
    assert!(controller.has_audited("link.refused").await);
}

#[tokio::test]
async fn revoking_a_host_ends_its_runs() {
    let controller = TestController::start().await;
    controller.add_script("work", "#!/bin/bash\n").await;
    let (name, host) = enrolled(&controller, "web-1").await;
    let session = host.connect().await;
    let operation = controller.run(&["work", "work"], "all").await.unwrap();
    let mut stream = timeout(SOON, session.accept_run()).await.unwrap();
    stream.say(&RunUp::Accepted).await;
    controller.wait_until(operation.id, |_, runs| runs[0].state.status() == RunStatus::Accepted).await;
    hosts::revoke(controller.app(), &controller.permit::<ManageHosts>(), &name).await.unwrap();
    let (_, runs) = controller.wait_for_end(operation.id).await;
    assert_eq!(runs[0].state, RunState::Lost(LostCause::HostGone));
    assert_eq!(runs[1].state, RunState::Cancelled(Cause::HostRevoked));
}

#[tokio::test]
async fn garbage_ends_the_connection_and_nothing_else() {
    let controller = TestController::start().await;
    let (_, host) = enrolled(&controller, "web-1").await;
    let garbage: [&[u8]; 4] =
        [b"GET / HTTP/1.1\r\n\r\n", &[0xff; 64], &[4, 0, 0, 0, 9, 9, 9, 9], &[1, 0, 0, 0, 0, 7]];
    for bytes in garbage {
        for (alpn, chain) in [(ALPN, Some(host.chain.as_slice())), (ALPN_ENROL, None)] {
            let connection = host.dial(alpn, chain).await.unwrap();
            let (mut send, _receive) = connection.open_bi().await.unwrap();
            send.write_all(bytes).await.unwrap();
            send.finish().unwrap();
            assert_eq!(closed_with(&connection).await, u64::from(close::PROTOCOL), "{bytes:?}");
        }
        let mut session = host.connect().await;
        session.send.write_all(bytes).await.unwrap();
        session.send.finish().unwrap();
        assert_eq!(closed_with(&session.connection).await, u64::from(close::PROTOCOL), "{bytes:?}");
    }
    // An over-long frame is refused by its length alone.
    let mut session = host.connect().await;
    let length = u32::try_from(MAX_CONTROL_FRAME + 1).unwrap();
    session.send.write_all(&length.to_le_bytes()).await.unwrap();
    assert_eq!(closed_with(&session.connection).await, u64::from(close::PROTOCOL));
    assert!(controller.has_audited("link.refused").await);
    host.connect().await;
}

#[tokio::test]
async fn garbage_on_a_runs_stream_opens_it_again_from_what_is_committed() {
    let controller = TestController::start().await;
    controller.add_script("work", "#!/bin/bash\n").await;
    let (_, host) = enrolled(&controller, "web-1").await;
    let session = host.connect().await;
    let operation = controller.run(&["work"], "web-1").await.unwrap();
    let mut stream = timeout(SOON, session.accept_run()).await.unwrap();
    let (log, first) = ([log_of("one"), log_of("two")].concat(), log_of("one").len());
    stream.say(&RunUp::Accepted).await;
    stream.say(&RunUp::Output { offset: 0, bytes: log[..first].to_vec().into() }).await;
    assert_eq!(stream.hear().await, RunDown::Acknowledge { offset: first as u64 });
    stream.say(&RunUp::Output { offset: first as u64 + 5, bytes: log[first + 5..].to_vec().into() }).await;
    let mut again = timeout(SOON, session.accept_run()).await.unwrap();
    assert_eq!(again.open.offset, first as u64);
    again.send.write_all(&[0xff; 8]).await.unwrap();
    let mut again = timeout(SOON, session.accept_run()).await.unwrap();
    again.say(&RunUp::Accepted).await;
    again.say(&RunUp::Started { at: Timestamp::from_millis(1) }).await;
    again.say(&RunUp::Output { offset: first as u64, bytes: log[first..].to_vec().into() }).await;
    again.say(&RunUp::Finished(finished(Outcome::Exited(0), log.len() as u64))).await;
    let (_, runs) = controller.wait_for_end(operation.id).await;
    assert_eq!(controller.output(&runs[0]).await, log);
}

#[tokio::test]
async fn the_newer_of_two_connections_wins() {
    let controller = TestController::start().await;
    controller.add_script("work", "#!/bin/bash\n").await;
    let (_, host) = enrolled(&controller, "web-1").await;
    let older = host.connect().await;
    let newer = host.connect().await;
    assert_eq!(closed_with(&older.connection).await, u64::from(close::SUPERSEDED));
    let operation = controller.run(&["work"], "web-1").await.unwrap();
    timeout(SOON, newer.accept_run()).await.unwrap().play("", Outcome::Exited(0)).await;
    controller.wait_for_end(operation.id).await;
    assert!(controller.has_audited("host.superseded").await);
}

#[tokio::test]
async fn a_full_disk_holds_everything_and_goes_on_by_itself() {
    let controller = TestController::start().await;
    controller.add_script("work", "#!/bin/bash\n").await;
    let (_, host) = enrolled(&controller, "web-1").await;
    let session = host.connect().await;
    let operation = controller.run(&["work"], "web-1").await.unwrap();
    let mut stream = timeout(SOON, session.accept_run()).await.unwrap();
    stream.say(&RunUp::Accepted).await;
    stream.say(&RunUp::Started { at: Timestamp::from_millis(1) }).await;
    controller.wait_until(operation.id, |_, runs| runs[0].state.status() == RunStatus::Running).await;

    let health = controller.app().health();
    limit_growth(controller.app().store(), Some(4)).await;
    let log = log_of(&"x".repeat(2 << 20));
    for (offset, piece) in (0..).step_by(100_000).zip(log.chunks(100_000)) {
        stream.say(&RunUp::Output { offset, bytes: piece.to_vec().into() }).await;
    }
    stream.say(&RunUp::Finished(finished(Outcome::Exited(0), log.len() as u64))).await;
    timeout(SOON, health.reached(has_no_room)).await.unwrap();
    let refused = controller.run(&["work"], "web-1").await.unwrap_err().to_string();
    assert!(refused.contains("disk is full"), "{refused}");

    limit_growth(controller.app().store(), None).await;
    timeout(SOON, health.reached(|now| now == Condition::Healthy)).await.unwrap();
    let (status, runs) = controller.wait_for_end(operation.id).await;
    assert_eq!(status, OperationStatus::Success);
    assert_eq!(controller.output(&runs[0]).await, log);
    controller.run(&["work"], "web-1").await.unwrap();
}

/// Whatever is turned away at the port, the log says when, from where and why.
#[test]
fn p35_refused_peers_are_logged_with_address_and_reason() {
    use proptest::prelude::*;

    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let log = fleetward_app::testing::Log::default();
    let _guard = tracing::subscriber::set_default(log.subscriber());
    let controller = runtime.block_on(TestController::start());
    let port = super::port::Port::new(controller.app().clone(), tokio_util::sync::CancellationToken::new());
    proptest::test_runner::TestRunner::new(ProptestConfig::with_cases(100))
        .run(&(any::<std::net::SocketAddr>(), "[ -~]{1,80}"), |(remote, reason)| {
            // The first of a minute are told one by one, the others in sum.
            controller.clock.advance(Duration::from_secs(60));
            runtime.block_on(port.refused(remote, &reason));
            let logged = log.take("link.refused");
            prop_assert_eq!(logged.len(), 1);
            let fields = &logged[0]["fields"];
            prop_assert_eq!(&fields["remote"], &remote.to_string());
            prop_assert_eq!(fields["reason"].as_str(), Some(reason.as_str()));
            Ok(())
        })
        .unwrap();
}

#[tokio::test]
async fn what_a_host_notices_is_kept_with_it() {
    let controller = TestController::start().await;
    let (name, host) = enrolled(&controller, "web-1").await;
    let mut session = host.connect().await;
    let mut events = controller.app().fleet().watch();
    session.say(&AgentMessage::Notice { text: Text::of("a supervisor that nobody knows") }).await;
    timeout(SOON, events.recv()).await.unwrap().unwrap();
    let mut conn = controller.app().store().read().await.unwrap();
    let kept = fleetward_store::fleet::host::get(&mut conn, &fleetward_store::Scope::Everything, &name)
        .await
        .unwrap();
    assert_eq!(kept.notices.len(), 1, "{:?}", kept.notices);
    assert_eq!(kept.notices[0].text, "a supervisor that nobody knows");
}

/// Whose hello would put a line into the log, or steer the terminal of whoever lists the hosts, gets no session.
#[tokio::test]
async fn a_hello_that_is_not_printable_is_none() {
    let controller = TestController::start().await;
    let (name, host) = enrolled(&controller, "web-1").await;
    for forged in [b"0\n2.0", b"\x1b[31m"] {
        let connection = host.dial(ALPN, Some(&host.chain)).await.unwrap();
        let (mut send, _receive) = connection.open_bi().await.unwrap();
        let mut hello = wire::frame(&AgentMessage::Hello(host.hello(vec![])), MAX_CONTROL_FRAME).unwrap();
        let version = hello.windows(5).position(|part| part == b"0.0.0").unwrap();
        hello[version..version + 5].copy_from_slice(forged);
        send.write_all(&hello).await.unwrap();
        assert_eq!(closed_with(&connection).await, u64::from(close::PROTOCOL));
    }
    let mut conn = controller.app().store().read().await.unwrap();
    let host = fleetward_store::fleet::host::get(&mut conn, &fleetward_store::Scope::Everything, &name)
        .await
        .unwrap();
    assert_eq!(host.agent_version, None);
}

#[tokio::test]
async fn silence_before_the_hello_is_not_waited_for_long() {
    let controller = TestController::start().await;
    let (_, host) = enrolled(&controller, "web-1").await;
    let connection = host.dial(ALPN, Some(&host.chain)).await.unwrap();
    let closed = timeout(HANDSHAKE_TIMEOUT * 2, connection.closed()).await.unwrap();
    assert!(matches!(closed, ConnectionError::ApplicationClosed(_)), "{closed:?}");
}

#[tokio::test]
async fn heartbeats_are_answered_and_certificates_renewed() {
    let controller = TestController::start().await;
    let mut events = controller.app().fleet().watch();
    let (_, host) = enrolled(&controller, "web-1").await;
    let mut session = host.connect().await;
    let clock = controller.clock.now() + Duration::from_secs(5);
    session.say(&AgentMessage::Heartbeat { seq: 1, clock }).await;
    assert_eq!(session.hear().await, ControllerMessage::Heartbeat { seq: 1 });
    let presence = controller.app().fleet().presences().into_values().next().unwrap();
    assert_eq!(presence.clock_skew_ms, 5000);
    assert!(matches!(events.recv().await, Ok(FleetEvent::Host { .. })));

    session.say(&AgentMessage::Renew { csr: host.request(&client(42)) }).await;
    assert!(matches!(session.hear().await, ControllerMessage::RenewRefused { .. }));
    session.say(&AgentMessage::Renew { csr: host.request(&host.client) }).await;
    match session.hear().await {
        ControllerMessage::Renewed { chain } => assert_ne!(chain[0], host.chain[0].as_ref()),
        other => panic!("{other:?}"),
    }
    session.say(&AgentMessage::Goodbye).await;
    assert_eq!(closed_with(&session.connection).await, u64::from(close::DONE));
}

#[tokio::test]
async fn verifying_compares_the_hosts_own_file() {
    let controller = TestController::start().await;
    let (name, host) = enrolled(&controller, "web-1").await;
    let permit = controller.permit();
    hosts::verify(controller.app(), &permit, &name).await.unwrap_err();
    let session = host.connect().await;
    for (file, matches) in [(host.client.to_string(), true), (client(42).to_string(), false)] {
        let answer = async {
            let (mut send, _) = session.accept_stream(StreamKind::ClientId).await;
            frame::send(&mut send, &ClientIdReport::Found(Text::of(&file)), MAX_CONTROL_FRAME).await.unwrap();
            send.finish().unwrap();
            send.stopped().await.unwrap();
        };
        let (verified, ()) = tokio::join!(hosts::verify(controller.app(), &permit, &name), answer);
        assert_eq!(verified.unwrap().verification.is_enrolled(), matches);
    }
}
