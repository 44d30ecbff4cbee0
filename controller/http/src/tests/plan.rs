//! Plans: shown, and then carried out as they were shown or not at all.

use std::time::Duration;

use axum::http::StatusCode;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use fleetward_domain::people::permission::Role;
use fleetward_protocol::digest::Digest;
use fleetward_protocol::order::{Draft, Plan, Planned, Target};
use fleetward_protocol::text::List;
use fleetward_store::testing::execute;
use serde_json::{Value, json};

use super::site::{Answer, TestSite};

const PLANS: &str = "/api/v1/plans";
const OPERATIONS: &str = "/api/v1/operations";

async fn site() -> TestSite {
    let site = TestSite::new().await;
    site.script("baseline").await;
    site.enrolled_host("web-1").await;
    site.enrolled_host("web-2").await;
    site
}

async fn planned(site: &TestSite) -> Value {
    let body = json!({ "scripts": [{ "name": "baseline", "arguments": ["--fast"] }], "on": "web-*", "rollout": { "deadline_s": 7200 },
                      "reason": "patch day" });
    let answer = site.call("POST", PLANS, Some(body)).await;
    assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
    answer.json()
}

async fn submit(site: &TestSite, plan: &Value) -> Answer {
    site.call("POST", OPERATIONS, Some(plan["operation"].clone())).await
}

fn bytes_of(plan: &Value) -> Vec<u8> {
    STANDARD.decode(plan["operation"]["plan"].as_str().unwrap()).unwrap()
}

/// With another plan's bytes in place of its own.
fn with_bytes(plan: &Value, bytes: &[u8]) -> Value {
    let mut forged = plan.clone();
    forged["operation"]["plan"] = json!(STANDARD.encode(bytes));
    forged
}

/// What whoever signs it can do: the digest follows from what is shown.
#[tokio::test]
async fn a_plans_digest_covers_every_host_and_every_step() {
    let site = site().await;
    let shown = planned(&site).await;
    let bytes = bytes_of(&shown);
    assert_eq!(shown["digest"], Digest::of(&bytes).to_string());
    let plan = Plan::decode(&bytes).unwrap();
    let steps: Vec<Digest> = shown["steps"]
        .as_array()
        .unwrap()
        .iter()
        .map(|step| step["order_digest"].as_str().unwrap().parse().unwrap())
        .collect();
    assert_eq!((steps.len(), shown["steps"][0]["subject"].as_str()), (1, Some("baseline")));
    let target = |host: &Value| Target {
        client: host["client_id"].as_str().unwrap().parse().unwrap(),
        steps: List::of(steps.clone()),
    };
    let hosts = shown["hosts"].as_array().unwrap();
    let targets: Vec<Target> = hosts.iter().map(target).collect();
    let Plan { operation, issuer, not_before, deadline, policy, .. } = plan;
    let draft = Draft { operation, issuer, not_before, deadline, policy };
    assert_eq!(Planned::new(draft, &targets).unwrap().plan, bytes);
    assert_eq!(shown["operation"]["id"], operation.to_string());
    let listed = site.get(OPERATIONS).await;
    assert_eq!(listed["items"], json!([]), "a plan is no operation");
}

#[tokio::test]
async fn what_is_submitted_is_what_was_planned_and_is_submitted_once() {
    let site = site().await;
    let plan = planned(&site).await;
    site.clock.advance(Duration::from_secs(3600));
    let created = submit(&site, &plan).await;
    assert_eq!(created.status, StatusCode::CREATED, "{created:?}");
    let created = created.json();
    assert_eq!(created["id"], plan["operation"]["id"]);
    assert_eq!((&created["deadline"], &created["reason"]), (&plan["deadline"], &json!("patch day")));
    assert_eq!(created["steps"][0]["digest"], plan["steps"][0]["digest"]);
    let audited = site.get("/api/v1/audit?limit=1").await;
    assert_eq!(audited["items"][0]["details"]["plan"], plan["digest"]);
    let again = submit(&site, &plan).await;
    assert_eq!((again.status, &again.json()["number"]), (StatusCode::CREATED, &created["number"]));
    assert_eq!(site.get(OPERATIONS).await["items"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn what_changed_since_is_not_done() {
    let changes: [(&str, &str); 3] = [
        ("a host is retired", "UPDATE host SET lifecycle = 'retired' WHERE name = 'web-2'"),
        (
            "a host gets another identity",
            "UPDATE host SET client_id = 'FLEET-00000000-0000-4000-8000-000000000009' WHERE name = 'web-2'",
        ),
        ("the script changes", "UPDATE script SET timeout_ms = 1000"),
    ];
    for (what, sql) in changes {
        let site = site().await;
        let plan = planned(&site).await;
        execute(site.app.store(), sql).await;
        let refused = submit(&site, &plan).await;
        assert_eq!(
            (refused.status, refused.code().as_str()),
            (StatusCode::CONFLICT, "PLAN_CHANGED"),
            "{what}"
        );
        assert_eq!(site.get(OPERATIONS).await["items"], json!([]), "{what}");
    }
    // The request beside the plan says something else.
    let site = site().await;
    let mut plan = planned(&site).await;
    for (field, value) in [
        ("on", json!("web-1")),
        ("rollout", json!({ "deadline_s": 7200, "concurrency": 1 })),
        ("scripts", json!([{ "name": "baseline", "arguments": ["--slow"] }])),
    ] {
        let whole = plan["operation"][field].clone();
        plan["operation"][field] = value;
        assert_eq!(submit(&site, &plan).await.code(), "PLAN_CHANGED", "{field}");
        plan["operation"][field] = whole;
    }
    assert_eq!(submit(&site, &plan).await.status, StatusCode::CREATED);
}

#[tokio::test]
async fn a_plan_is_good_for_one_person_one_operation_and_its_time() {
    let site = site().await;
    let plan = planned(&site).await;
    let other = site.login_as("olga", Role::Operator).await;
    let refused = site.call_as(&other, "POST", OPERATIONS, Some(plan["operation"].clone())).await;
    assert_eq!(refused.code(), "PLAN_OF_ANOTHER");
    let mut moved = plan.clone();
    moved["operation"]["id"] = planned(&site).await["operation"]["id"].clone();
    assert_eq!(submit(&site, &moved).await.code(), "PLAN_OF_ANOTHER");
    for forged in [&b""[..], b"plan", &[0xff; 8 << 10], &bytes_of(&plan)[1..]] {
        assert_eq!(submit(&site, &with_bytes(&plan, forged)).await.code(), "INVALID_PLAN");
    }
    let mut text = plan.clone();
    text["operation"]["plan"] = json!("no Base64!");
    assert_eq!(submit(&site, &text).await.code(), "INVALID_FIELD");
    // Times that nobody planned.
    let Plan { operation, issuer, not_before, deadline, policy, .. } =
        Plan::decode(&bytes_of(&plan)).unwrap();
    let later =
        Draft { operation, issuer, not_before: not_before + Duration::from_secs(60), deadline, policy };
    let forged = Planned::new(later, &[]).unwrap().plan;
    assert_eq!(submit(&site, &with_bytes(&plan, &forged)).await.code(), "PLAN_NOT_NOW");
    site.clock.advance(Duration::from_secs(7200));
    assert_eq!(submit(&site, &plan).await.code(), "PLAN_NOT_NOW", "its deadline is over");
    // And who may not run may not plan.
    let viewer = site.login_as("vera", Role::Viewer).await;
    let body = json!({ "scripts": [{ "name": "baseline" }], "on": "all" });
    assert_eq!(site.call_as(&viewer, "POST", PLANS, Some(body)).await.code(), "FORBIDDEN");
    assert_eq!(site.call("POST", PLANS, Some(plan["operation"].clone())).await.code(), "INVALID_PLAN");
    assert_eq!(site.get(OPERATIONS).await["items"], json!([]));
}
