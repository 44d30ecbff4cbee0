//! Who may speak is decided when it takes effect, not some time before; and a seat never outlives its session.

use fleetward_app::people::access::ManageHosts;
use std::time::Duration;

use fleetward_app::fleet::online::{CloseReason, FleetEvent, HostCommand};
use fleetward_app::fleet::{enrolment, host as hosts};
use fleetward_app::work::connection::{self, Admitted, JoinError, NotAdmitted};

use fleetward_pki::PeerIdentity;
use fleetward_protocol::message::{AgentMessage, ControllerMessage};
use fleetward_protocol::name::HostName;
use fleetward_protocol::time::Timestamp;
use fleetward_protocol::wire::{ALPN, MAX_CONTROL_FRAME, close};
use fleetward_store::Scope;
use fleetward_store::fleet::certificate;
use tokio::time::timeout;

use super::controller::TestController;
use super::host::FakeHost;
use super::{SOON, closed_with, enrolled, fake};
use crate::frame;

fn identity(host: &FakeHost) -> PeerIdentity {
    PeerIdentity::of_verified(&host.chain[0]).unwrap()
}

async fn admitted(controller: &TestController, host: &FakeHost) -> Admitted {
    connection::admit(controller.app(), &identity(host)).await.unwrap()
}

async fn join(
    controller: &TestController,
    admitted: &Admitted,
    host: &FakeHost,
) -> Result<connection::Session, JoinError> {
    let remote = "192.0.2.1:1".parse().unwrap();
    connection::join(controller.app(), admitted, &host.hello(Vec::new()), remote).await
}

async fn revoke(controller: &TestController, name: &HostName) {
    hosts::revoke(controller.app(), &controller.permit::<ManageHosts>(), name).await.unwrap();
}

#[tokio::test]
async fn a_certificate_that_is_revoked_before_the_hello_gets_no_seat() {
    let controller = TestController::start().await;
    let (name, host) = enrolled(&controller, "web-1").await;
    let before = admitted(&controller, &host).await;
    let connection = host.dial(ALPN, Some(&host.chain)).await.unwrap();
    revoke(&controller, &name).await;
    let refused = join(&controller, &before, &host).await.unwrap_err();
    assert!(matches!(refused, JoinError::NotAdmitted(NotAdmitted::Revoked)), "{refused:?}");
    // The same on a connection that was opened before.
    if let Ok((mut send, _)) = connection.open_bi().await {
        let hello = AgentMessage::Hello(host.hello(Vec::new()));
        let _ = frame::send(&mut send, &hello, MAX_CONTROL_FRAME).await;
    }
    assert_eq!(closed_with(&connection).await, u64::from(close::REVOKED));
    assert!(controller.app().fleet().is_empty());
}

#[tokio::test]
async fn a_revocation_and_a_session_that_begins_do_not_miss_each_other() {
    let controller = TestController::start().await;
    for number in 0..20 {
        let (name, host) = enrolled(&controller, &format!("web-{number}")).await;
        let before = admitted(&controller, &host).await;
        let (joined, ()) = tokio::join!(join(&controller, &before, &host), revoke(&controller, &name));
        match joined {
            Err(JoinError::NotAdmitted(NotAdmitted::Revoked)) => {}
            Err(other) => panic!("{other:?}"),
            Ok(mut session) => {
                let told = session.commands.try_recv();
                assert!(matches!(told, Ok(HostCommand::Close(CloseReason::Revoked))), "{told:?}");
            }
        }
        assert!(controller.app().fleet().is_empty());
    }
}

#[tokio::test]
async fn a_revoked_host_is_given_no_certificate_however_the_two_meet() {
    let controller = TestController::start().await;
    for number in 0..8 {
        let (name, host) = enrolled(&controller, &format!("web-{number}")).await;
        let before = admitted(&controller, &host).await;
        let session = join(&controller, &before, &host).await.unwrap();
        let (request, identity) = (host.request(&host.client), identity(&host));
        let renew = connection::renew(controller.app(), session.seat.seat(), &identity, &request);
        tokio::join!(renew, revoke(&controller, &name));
        let mut conn = controller.app().store().read().await.unwrap();
        let all = certificate::list(&mut conn, &Scope::Everything, before.host).await.unwrap();
        assert!(all.iter().all(|certificate| certificate.revoked_at.is_some()), "{all:?}");
        drop(conn);
        let again = connection::renew(controller.app(), session.seat.seat(), &identity, &request).await;
        assert!(matches!(again, ControllerMessage::RenewRefused { .. }), "{again:?}");
    }
}

#[tokio::test]
async fn a_session_ends_with_the_certificate_that_it_was_opened_with() {
    let controller = TestController::start().await;
    let (_, host) = enrolled(&controller, "web-1").await;
    let mut session = host.connect().await;
    let clock = controller.clock.now();
    session.say(&AgentMessage::Heartbeat { seq: 1, clock }).await;
    assert_eq!(session.hear().await, ControllerMessage::Heartbeat { seq: 1 });
    controller
        .clock
        .advance(controller.app().settings().enrolment.certificate_lifetime + Duration::from_secs(60));
    session.say(&AgentMessage::Heartbeat { seq: 2, clock }).await;
    assert_eq!(closed_with(&session.connection).await, u64::from(close::SHUTDOWN));
    let (_, again) = (session, connection::admit(controller.app(), &identity(&host)).await);
    assert!(matches!(again, Err(NotAdmitted::Expired)), "{again:?}");
}

#[tokio::test]
async fn a_clock_at_the_end_of_time_harms_nobody() {
    let controller = TestController::start().await;
    for (number, millis) in [i64::MIN, i64::MAX, -1].into_iter().enumerate() {
        let (_, mut host) = enrolled(&controller, &format!("web-{number}")).await;
        host.clock = Timestamp::from_millis(millis);
        let mut session = host.connect().await;
        session.say(&AgentMessage::Heartbeat { seq: 1, clock: host.clock }).await;
        assert_eq!(session.hear().await, ControllerMessage::Heartbeat { seq: 1 });
        let mut events = controller.app().fleet().watch();
        session.say(&AgentMessage::Goodbye).await;
        assert_eq!(closed_with(&session.connection).await, u64::from(close::DONE));
        let left = timeout(SOON, events.recv()).await.unwrap().unwrap();
        assert!(matches!(left, FleetEvent::Host { .. }), "{left:?}");
        assert!(controller.app().fleet().is_empty());
    }
}

#[tokio::test]
async fn a_session_that_just_disappears_leaves_its_seat() {
    let controller = TestController::start().await;
    let (_, host) = enrolled(&controller, "web-1").await;
    let before = admitted(&controller, &host).await;
    let session = join(&controller, &before, &host).await.unwrap();
    assert_eq!(controller.app().fleet().len(), 1);
    drop(session);
    assert!(controller.app().fleet().is_empty());
    let session = join(&controller, &before, &host).await.unwrap();
    let broken = tokio::spawn(async move {
        let _held = session.seat;
        panic!("whatever it may be");
    });
    assert!(broken.await.unwrap_err().is_panic());
    assert!(controller.app().fleet().is_empty());
}

#[tokio::test]
async fn newcomers_whose_client_ids_end_alike_all_enrol() {
    let controller = TestController::start().await;
    let permit = controller.permit::<ManageHosts>();
    for prefix in ["FLEET-", "A-", "B-", "C-"] {
        let issued = enrolment::make_unbound_token(controller.app(), &permit, None).await.unwrap();
        let mut host = fake(&controller, &issued.token);
        host.client = format!("{prefix}00000000-0000-4000-8000-000000000001").parse().unwrap();
        assert!(host.enrol(&issued.token).await, "it waits for approval");
    }
}
