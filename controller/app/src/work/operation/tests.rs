//! A person of two tenants.

use crate::people::access::{ManageHosts, Read, Run};
use std::collections::BTreeSet;

use fleetward_domain::people::permission::{Grant, Grants, Role};
use fleetward_domain::work::operation::RolloutPolicy;
use fleetward_protocol::digest::Digest;
use fleetward_protocol::name::HostName;
use serde_json::json;

use super::{Asked, create, preview};
use crate::fleet::host::{Addition, add};
use crate::fleet::target::NotEnrolledHosts;
use crate::people::access::Caller;
use crate::testing::TestApp;
use crate::work::action;

fn steps() -> Vec<action::Asked> {
    let params = json!({ "unit": "web.service", "verb": "restart" }).as_object().unwrap().clone();
    vec![action::Asked { kind: "unit".to_owned(), params }]
}

/// Who sees one tenant and works in another acts in the other, and the preview says so.
#[tokio::test]
async fn what_a_preview_shows_is_what_would_be_done() {
    let controller = TestApp::start().await;
    controller.add_absent_host("seen-1").await;
    let elsewhere = controller.permit_elsewhere::<ManageHosts>("other").await;
    let name: HostName = "mine-1".parse().unwrap();
    let (kind, provider) = ("VM".to_owned(), String::new());
    let addition = Addition { name: name.clone(), client_id: None, kind, provider, tags: Vec::new() };
    add(controller.app(), &elsewhere, addition, None).await.unwrap();
    let grants = Grants::new(vec![
        Grant { tenant: controller.tenant, role: Role::Viewer },
        Grant { tenant: elsewhere.tenant(), role: Role::Operator },
    ]);
    let caller = Caller { grants, ..elsewhere.caller().clone() };
    let reads = caller.clone().permit::<Read>().unwrap();
    assert_eq!(reads.tenant(), controller.tenant);
    let shown = async |steps| {
        let shown = preview(controller.app(), &reads, steps, "all").await.unwrap();
        shown.into_iter().map(|target| target.host.name.to_string()).collect::<BTreeSet<_>>()
    };
    assert_eq!(shown(steps()).await, BTreeSet::from(["mine-1".to_owned()]));
    assert_eq!(shown(Vec::new()).await.len(), 2, "a look at targets alone goes as far as the caller sees");
    let asked = Asked {
        id: None,
        digest: Digest::of(b""),
        plan: None,
        steps: steps(),
        on: "all".to_owned(),
        policy: RolloutPolicy::default(),
        canary: None,
        reason: None,
        not_enrolled: NotEnrolledHosts::Refuse,
    };
    // The same host, and it has not enrolled.
    let runs = caller.permit::<Run>().unwrap();
    let refused = create(controller.app(), &runs, asked).await.unwrap_err().to_string();
    assert!(refused.contains("mine-1") && !refused.contains("seen-1"), "{refused}");
}
