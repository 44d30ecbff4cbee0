//! Who plans what, until when, and what is kept of it.

use std::collections::BTreeSet;
use std::time::Duration;

use fleetward_domain::fleet::contract::Variable;
use fleetward_domain::people::permission::{Grant, Grants, Role};
use fleetward_domain::work::operation::RolloutPolicy;
use fleetward_protocol::digest::Digest;
use fleetward_protocol::id::{BootId, JournalId};
use fleetward_protocol::name::HostName;
use fleetward_protocol::text::{List, Text};
use fleetward_store::Scope;
use fleetward_store::fleet::host::Connected;
use fleetward_store::fleet::{host, script};
use fleetward_store::testing::postgres;
use serde_json::json;
use uuid::Uuid;

use super::{Asked, OperationError, create, preview};
use crate::clock::Clock;
use crate::fleet::host::{Addition, add};
use crate::fleet::target::NotEnrolledHosts;
use crate::people::access::{Caller, ManageHosts, Read, Run};
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
        shown.selected.into_iter().map(|target| target.host.name.to_string()).collect::<BTreeSet<_>>()
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

/// A digest of it would let whoever reads the log try what a secret may be.
#[tokio::test]
async fn the_audit_log_has_no_digest_of_a_plan_with_a_secret() {
    let controller = TestApp::start().await;
    controller.add_absent_host("web-1").await;
    controller.add_script("work", "#!/bin/bash\n").await;
    let mut tx = controller.app().store().write().await.unwrap();
    let scope = Scope::of(controller.tenant);
    let mut script = script::get(&mut tx, &scope, &"work".parse().unwrap()).await.unwrap();
    let description = String::new();
    script.environment =
        vec![Variable { name: "PASSWORD".to_owned(), description, required: false, secret: true }];
    script::update(&mut tx, &script).await.unwrap();
    tx.commit().await.unwrap();
    let asked = |environment: &[(&str, &str)]| {
        let environment = environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let surroundings =
            action::script::Surroundings { environment: environment.collect(), ..Default::default() };
        vec![action::script::asked("work".parse().unwrap(), Vec::new(), &surroundings)]
    };
    for (environment, has_digest) in [(&[][..], true), (&[("PASSWORD", "four")], false)] {
        controller.ask(asked(environment), "web-1", RolloutPolicy::default()).await.unwrap();
        let audited = controller.audited("operation.created").await.pop().unwrap();
        let details = &audited.event.details;
        assert_eq!(details.contains_key("plan"), has_digest, "{details:?}");
        assert!(!format!("{details:?}").contains("four"));
    }
}

/// This machine's clock is a day ahead of the database's, by which it is decided what is over.
#[tokio::test]
async fn a_deadline_is_made_by_the_clock_that_it_is_judged_by() {
    let Some(store) = postgres("deadlines").await else { return };
    let controller = TestApp::start_on(&store.url).await;
    let system = Clock::System.now();
    controller.clock.advance(Duration::from_secs(86_400));
    controller.app().deadlines().compare(controller.app().store()).await.unwrap();
    controller.add_absent_host("web-1").await;
    controller.add_script("work", "#!/bin/bash\n").await;
    let policy = RolloutPolicy::default();
    let operation = controller.run_with(&["work"], "web-1", policy).await.unwrap();
    let span = operation.deadline.since(system).as_millis() as u64;
    assert!((policy.deadline_ms..policy.deadline_ms + 3_600_000).contains(&span), "{span} ms");
    controller.stop().await;
    store.finish().await;
}

/// Agents of the fleet are of several versions: who cannot do it is named before anybody begins.
#[tokio::test]
async fn a_kind_that_an_agent_does_not_know_is_refused_with_its_hosts() {
    let controller = TestApp::start().await;
    let kinds: [&[&str]; 4] = [&["script", "unit-file"], &["script", "unit"], &[], &["unit-x"]];
    for (number, kinds) in (1..).zip(kinds) {
        let name = format!("web-{number}");
        controller.add_absent_host(&name).await;
        let mut tx = controller.app().store().write().await.unwrap();
        let scope = Scope::of(controller.tenant);
        let found = host::get(&mut tx, &scope, &name.parse().unwrap()).await.unwrap();
        let told = Connected {
            agent_version: Text::of("0.1.0"),
            boot: BootId::from_uuid(Uuid::from_u128(1)),
            journal: JournalId::from_uuid(Uuid::from_u128(1)),
            kinds: List::of(kinds.iter().map(Text::of)),
            clock_skew_ms: 0,
        };
        host::update_connected(&mut tx, found.id, &told, controller.clock.now()).await.unwrap();
        tx.commit().await.unwrap();
    }
    let refused = controller.ask(steps(), "all", RolloutPolicy::default()).await.unwrap_err();
    match &refused {
        OperationError::Ignorant { kind, hosts } => {
            let hosts: Vec<&str> = hosts.iter().map(HostName::as_str).collect();
            assert_eq!((kind.as_str(), hosts), ("unit", vec!["web-1", "web-4"]));
        }
        other => panic!("{other:?}"),
    }
    let words = refused.to_string();
    assert!(words.contains("`unit`: web-1 web-4; upgrade the package fleetward-agent"), "{words}");
    controller.ask(steps(), "web-2 | web-3", RolloutPolicy::default()).await.unwrap();
}

#[tokio::test]
async fn a_dry_run_is_another_order_and_not_for_scripts() {
    let controller = TestApp::start().await;
    controller.add_absent_host("web-1").await;
    controller.add_script("work", "#!/bin/bash\n").await;
    let dry_run = RolloutPolicy { dry_run: true, ..RolloutPolicy::default() };
    let operation = controller.ask(steps(), "web-1", dry_run).await.unwrap();
    assert_eq!(operation.summary, "dry run: restart web.service");
    assert!(operation.policy.unwrap().dry_run, "whoever reads it again knows what it was");
    let script = action::script::asked("work".parse().unwrap(), Vec::new(), &Default::default());
    let mixed = vec![steps().remove(0), script];
    let refused = controller.ask(mixed, "web-1", dry_run).await.unwrap_err();
    assert!(matches!(&refused, OperationError::NoDryRun(kind) if kind.as_str() == "script"), "{refused:?}");
}
