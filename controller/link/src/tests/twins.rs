//! One identity on two machines.

use fleetward_app::people::access::{ManageHosts, Read};
use fleetward_protocol::id::BootId;
use fleetward_store::Scope;
use fleetward_store::fleet::host::Host;

use super::*;

impl FakeHost {
    /// The same identity on another machine.
    fn copy(&self) -> Self {
        let mut copy = FakeHost::new(self.client.clone(), self.address, self.root.clone());
        copy.key = rcgen::KeyPair::try_from(self.key.serialize_der()).unwrap();
        copy.chain.clone_from(&self.chain);
        copy.boot = BootId::from_uuid(Uuid::new_v4());
        copy.clock = self.clock;
        copy
    }
}

async fn stored(controller: &TestController, name: &HostName) -> Host {
    let mut conn = controller.app().store().read().await.unwrap();
    fleetward_store::fleet::host::get(&mut conn, &Scope::Everything, name).await.unwrap()
}

#[tokio::test]
async fn two_machines_with_one_identity_are_told_once_with_both_sides_until_one_is_enrolled_anew() {
    let controller = TestController::start().await;
    let (name, mut host) = enrolled(&controller, "web-1").await;
    let copy = host.copy();
    let permit = controller.permit::<Read>();
    let shown = async || hosts::get(controller.app(), &permit, &name).await.unwrap().twins;

    let _first = host.connect().await;
    let _second = copy.connect().await;
    assert_eq!(shown().await, None, "a reboot looks the same");
    let mut written = std::collections::HashSet::new();
    for _ in 0..10 {
        for machine in [&host, &copy] {
            controller.clock.advance(Duration::from_secs(10));
            machine.connect().await;
            written.extend(stored(&controller, &name).await.twins.map(|twins| twins.at.as_millis()));
        }
    }
    assert!((2..=5).contains(&written.len()), "once a minute: {written:?}");
    let twins = shown().await.unwrap();
    let boots: std::collections::HashSet<_> = twins.machines.iter().map(|machine| machine.boot).collect();
    assert_eq!(boots, [host.boot, copy.boot].into());
    let told = controller.audited("host.duplicate_identity").await;
    assert_eq!(told.len(), 1);
    let details = serde_json::to_string(&told[0].event.details).unwrap();
    assert!(
        details.contains(&host.boot.to_string()) && details.contains(&copy.boot.to_string()),
        "{details}"
    );
    assert!(controller.audited("host.superseded").await.len() <= 3, "the one finding tells of all");
    assert!(
        controller
            .app()
            .metrics()
            .encode(1, controller.app().twins().count_current(controller.clock.now()))
            .contains("fleetward_hosts_duplicate 1")
    );

    // The remedy for a copy that nobody can reach: the right machine is enrolled again.
    let manage = controller.permit::<ManageHosts>();
    let issued = enrolment::make_token(controller.app(), &manage, &name, None).await.unwrap();
    host.key = rcgen::KeyPair::generate().unwrap();
    assert!(!host.enrol(&issued.token).await);
    assert_eq!(shown().await, None);
    let right = host.connect().await;
    let refused = copy.dial(ALPN, Some(&copy.chain)).await.unwrap();
    assert_eq!(closed_with(&refused).await, u64::from(close::REVOKED));
    drop(right);
    host.connect().await;
    assert_eq!(shown().await, None);
}

#[tokio::test]
async fn what_is_over_is_not_shown_and_a_restart_of_the_controller_tells_nothing_twice() {
    let controller = TestController::start().await;
    let (name, host) = enrolled(&controller, "web-1").await;
    let copy = host.copy();
    for machine in [&host, &copy, &host] {
        machine.connect().await;
    }
    let controller = controller.restart().await;
    assert_eq!(controller.app().twins().count_current(controller.clock.now()), 1);
    for machine in [&host, &copy, &host] {
        controller.clock.advance(Duration::from_secs(60));
        machine.connect().await;
    }
    assert_eq!(controller.audited("host.duplicate_identity").await.len(), 1);
    let permit = controller.permit::<Read>();
    assert!(hosts::get(controller.app(), &permit, &name).await.unwrap().twins.is_some());
    controller.clock.advance(fleetward_domain::fleet::twin::OVER_AFTER);
    assert_eq!(hosts::get(controller.app(), &permit, &name).await.unwrap().twins, None);
}
