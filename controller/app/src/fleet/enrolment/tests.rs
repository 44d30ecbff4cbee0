//! Enrolments at the same instant, on both engines.

use crate::people::access::ManageHosts;
use std::collections::BTreeSet;

use fleetward_protocol::enrol::identity_uri;
use fleetward_protocol::text::Text;
use fleetward_store::testing;
use futures_util::future::join_all;
use rcgen::{CertificateParams, KeyPair, SanType};

use super::*;
use crate::testing::TestApp;

const NEWCOMERS: u32 = 12;

async fn request(controller: &TestApp, client: &str, hostname: &str) -> EnrolRequest {
    request_by(controller, &controller.permit::<ManageHosts>(), client, hostname).await
}

async fn request_by(
    controller: &TestApp,
    permit: &Permit<ManageHosts>,
    client: &str,
    hostname: &str,
) -> EnrolRequest {
    let issued = make_unbound_token(controller.app(), permit, None).await.unwrap();
    let mut params = CertificateParams::default();
    params.subject_alt_names = vec![SanType::URI(identity_uri(&client.parse().unwrap()).try_into().unwrap())];
    EnrolRequest {
        secret: issued.token.secret,
        csr: params.serialize_request(&KeyPair::generate().unwrap()).unwrap().der().to_vec(),
        hostname: Text::of(hostname),
        agent_version: Text::of("0.0.0"),
    }
}

async fn enrol_all(controller: &TestApp, requests: &[EnrolRequest]) -> Vec<EnrolReply> {
    let remote = "192.0.2.1:7443".parse().unwrap();
    join_all(requests.iter().map(|request| enrol(controller.app(), request, remote))).await
}

async fn newcomers_at_the_same_instant_all_enrol(database: &str) {
    let controller = TestApp::start_on(database).await;
    // While the first ones enrol, the database's connections are still being made: they come one after the other.
    for hostname in ["web", "db", "app"] {
        let mut requests = Vec::new();
        for number in 0..NEWCOMERS {
            let client = format!("{hostname}{number}-00000000-0000-4000-8000-000000000001");
            requests.push(request(&controller, &client, hostname).await);
        }
        for reply in enrol_all(&controller, &requests).await {
            assert!(matches!(reply, EnrolReply::Issued { quarantined: true, .. }), "{reply:?}");
        }
    }
    let mut conn = controller.app().store().read().await.unwrap();
    let hosts = host::all_declared(&mut conn, controller.tenant).await.unwrap();
    drop(conn);
    let names: BTreeSet<&str> = hosts.iter().map(|host| host.declared.name.as_str()).collect();
    assert_eq!(names.len(), 3 * NEWCOMERS as usize, "{names:?}");
    assert!(["web", "web-000000000001", "db", "app"].iter().all(|name| names.contains(name)), "{names:?}");
    controller.stop().await;
}

/// Machines that were copied: one of them is the host, and the others learn why they are not.
async fn of_one_client_id_at_the_same_instant_one_enrols(database: &str) {
    let controller = TestApp::start_on(database).await;
    let mut requests = Vec::new();
    for _ in 0..8 {
        requests.push(request(&controller, "FLEET-00000000-0000-4000-8000-000000000001", "web").await);
    }
    let replies = enrol_all(&controller, &requests).await;
    let (issued, refused): (Vec<_>, Vec<_>) =
        replies.iter().partition(|reply| matches!(reply, EnrolReply::Issued { .. }));
    assert_eq!(issued.len(), 1, "{refused:?}");
    for reply in refused {
        assert_eq!(*reply, EnrolReply::Refused(EnrolRefusal::NeedsBoundToken));
    }
    controller.stop().await;
}

/// An agent may call itself what it likes; where targets are named, `all` means every host.
async fn a_newcomer_is_not_called_by_a_word_of_targets(database: &str) {
    let controller = TestApp::start_on(database).await;
    let client = "FLEET-00000000-0000-4000-8000-000000000001";
    let all = request(&controller, client, "all").await;
    let replies = enrol_all(&controller, &[all]).await;
    assert!(matches!(replies[..], [EnrolReply::Issued { .. }]), "{replies:?}");
    let mut conn = controller.app().store().read().await.unwrap();
    let hosts = host::all_declared(&mut conn, controller.tenant).await.unwrap();
    drop(conn);
    assert_eq!(hosts[0].declared.name.as_str(), "host-000000000001");
    controller.stop().await;
}

async fn newest_event(
    controller: &TestApp,
    tenant: TenantId,
    kind: &str,
) -> serde_json::Map<String, serde_json::Value> {
    let mut conn = controller.app().store().search().await.unwrap();
    let filter = fleetward_store::people::audit::Filter { kind: Some(kind.to_owned()), ..Default::default() };
    let page = fleetward_store::page::PageRequest::first(1);
    let mut events = fleetward_store::people::audit::list(&mut conn, &Scope::of(tenant), &filter, &page)
        .await
        .unwrap()
        .items;
    events.pop().unwrap().event.details
}

/// Client IDs stand in git, where everybody reads them: whose token it is decides.
async fn a_token_of_another_tenant_takes_no_pending_host_over(database: &str) {
    let controller = TestApp::start_on(database).await;
    let (name, token) = controller.add_host("n-6").await;
    let client = token.client.unwrap();
    let elsewhere = controller.permit_elsewhere::<ManageHosts>("other").await;
    let foreign = request_by(&controller, &elsewhere, client.as_str(), "n-6").await;
    let replies = enrol_all(&controller, &[foreign]).await;
    assert_eq!(replies, [EnrolReply::Refused(EnrolRefusal::NeedsBoundToken)]);
    let mut conn = controller.app().store().read().await.unwrap();
    let host = host::get(&mut conn, &Scope::of(controller.tenant), &name).await.unwrap();
    drop(conn);
    assert_eq!(host.enrolment, Enrolment::Pending);
    let refused = newest_event(&controller, elsewhere.tenant(), "enrolment.refused").await;
    let made = newest_event(&controller, elsewhere.tenant(), "token.made").await;
    assert_eq!(
        (&refused["token"], &refused["token_made_by"], &refused["token_tenant"]),
        (&made["token"], &"admin-of-other".into(), &"other".into())
    );

    // A token of its own tenant puts it into quarantine, and whoever approves it sees by whose token it came.
    let own = request(&controller, client.as_str(), "n-6").await;
    let replies = enrol_all(&controller, &[own]).await;
    assert!(matches!(replies[..], [EnrolReply::Issued { quarantined: true, .. }]), "{replies:?}");
    let enrolled = newest_event(&controller, controller.tenant, "host.enrolled").await;
    let made = newest_event(&controller, controller.tenant, "token.made").await;
    assert_eq!(
        (&enrolled["token"], &enrolled["token_made_by"], &enrolled["token_bound"]),
        (&made["token"], &"admin".into(), &false.into())
    );
    controller.stop().await;
}

macro_rules! on_both_databases {
    ($($name:ident)+) => {$(
        mod $name {
            use super::*;

            #[tokio::test]
            async fn sqlite() {
                let test = testing::sqlite().await;
                super::$name(&test.url).await;
                test.finish().await;
            }

            #[tokio::test]
            async fn postgres() {
                if let Some(test) = testing::postgres(stringify!($name)).await {
                    super::$name(&test.url).await;
                    test.finish().await;
                }
            }
        }
    )+};
}

on_both_databases! {
    newcomers_at_the_same_instant_all_enrol
    of_one_client_id_at_the_same_instant_one_enrols
    a_token_of_another_tenant_takes_no_pending_host_over
    a_newcomer_is_not_called_by_a_word_of_targets
}
