//! Hosts obey their owners, and only who proved who they are is talked to.

use std::fs;

use fleetward_agent::enrol::EnrolError;
use fleetward_protocol::enrol::{EnrolRefusal, Token};
use serde_json::json;

use super::Fleet;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_works_once() {
    let fleet = Fleet::with_hosts(0).await;
    let created =
        fleet.client.post("/hosts", &json!({ "name": "web-1", "type": "VM" })).await.expect("it is added");
    let token = created["token"].as_str().expect("a token");

    fleet.enrol("web-1", token).await.expect("the first use");
    let error = fleet.enrol("web-2", token).await.expect_err("the second use");

    assert!(matches!(error, EnrolError::Refused(EnrolRefusal::UsedToken)), "{error}");
    let audit = fleet.client.get("/audit").await.expect("the audit").to_string();
    assert!(audit.contains("enrol"), "{audit}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_of_another_fleet_is_refused_by_the_agent_itself() {
    let (ours, theirs) = (Fleet::empty().await, Fleet::empty().await);
    let created =
        theirs.client.post("/hosts", &json!({ "name": "web-1", "type": "VM" })).await.expect("it is added");
    let token = created["token"].as_str().expect("a token");

    let error = ours.enrol("web-1", token).await.expect_err("this controller cannot prove that root");

    assert!(matches!(error, EnrolError::Unreachable(_)), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_invented_token_is_refused() {
    let fleet = Fleet::empty().await;
    let created =
        fleet.client.post("/hosts", &json!({ "name": "web-1", "type": "VM" })).await.expect("it is added");
    let real: Token = created["token"].as_str().expect("a token").parse().expect("a token");
    let invented = Token { secret: [7; 32], ..real };

    let error = fleet.enrol("web-1", &invented.reveal()).await.expect_err("nobody made it");

    assert!(matches!(error, EnrolError::Refused(EnrolRefusal::UnknownToken)), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_nobody_listed_waits_for_approval() {
    let fleet = Fleet::with_hosts(0).await;
    let token = fleet.client.post("/enrolment-tokens", &json!({})).await.expect("an unbound token");
    let enrolled =
        fleet.enrol("stranger", token["token"].as_str().expect("a token")).await.expect("it may enrol");
    assert!(enrolled.quarantined);
    let hosts = fleet.client.get("/hosts?enrolment=quarantined").await.expect("the hosts");
    let name = hosts["items"][0]["name"].as_str().expect("a name").to_owned();

    let body = json!({ "scripts": [{ "name": "hello" }], "on": name });
    assert!(
        fleet.client.post("/operations", &body).await.is_err(),
        "nothing runs there before a person approved"
    );
    fleet.client.post(&format!("/hosts/{name}/approve"), &json!({})).await.expect("it is approved");
    let agent = fleet.launch_agent("stranger");
    agent.handle.connected().await;
    fleet.client.until_host(&name, |host| host["status"] == "online").await;

    assert_eq!(fleet.client.run("hello", &name, &[]).await.status(), "success");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_whose_file_says_otherwise_runs_nothing() {
    let fleet = Fleet::with_hosts(1).await;
    let file = fleet.paths("host-1").client_id;
    fs::write(&file, "FLEET-00000000-0000-4000-8000-000000000009\n").expect("the file changes");

    let ended = fleet.client.run("hello", "host-1", &[]).await;
    assert_eq!(ended.states(), ["refused"], "{:#?}", ended.runs);
    fs::remove_file(&file).expect("the file goes");
    let ended = fleet.client.run("hello", "host-1", &[]).await;
    assert_eq!(ended.states(), ["refused"], "{:#?}", ended.runs);
    let verified = fleet.client.post("/hosts/host-1/verify", &json!({})).await.expect("a verification");
    assert_eq!(verified["enrolled"], false);
    assert!(verified["error"].is_string(), "{verified:#}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_owners_policy_wins_over_the_controller() {
    let fleet = Fleet::with_hosts(1).await;
    fs::write(fleet.paths("host-1").config, "[policy]\nkinds = []\n").expect("the policy changes");
    let ended = fleet.client.run("hello", "host-1", &[]).await;
    assert_eq!(ended.states(), ["refused"], "{:#?}", ended.runs);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revoked_host_is_cut_off_at_once() {
    let fleet = Fleet::with_hosts(1).await;
    fleet.client.post("/hosts/host-1/revoke", &json!({})).await.expect("it is revoked");
    let host = fleet.client.until_host("host-1", |host| host["status"] == "offline").await;
    assert_eq!(host["enrolment"], "revoked");
    let body = json!({ "scripts": [{ "name": "hello" }], "on": "host-1" });
    assert!(fleet.client.post("/operations", &body).await.is_err());
}
