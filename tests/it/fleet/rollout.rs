//! Where and how an operation spreads.

use serde_json::json;

use super::Fleet;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_expression_selects_and_a_preview_shows_it() {
    let fleet = Fleet::with_hosts(3).await;
    let preview =
        fleet.client.post("/targets/preview", &json!({ "on": "host-* & !host-2" })).await.expect("a preview");
    let names: Vec<&str> =
        preview["hosts"].as_array().expect("hosts").iter().filter_map(|host| host["name"].as_str()).collect();
    assert_eq!(names, ["host-1", "host-3"]);

    let refused = fleet
        .client
        .post("/targets/preview", &json!({ "on": "tag:nowhere" }))
        .await
        .expect_err("nothing matches");
    assert_eq!(refused.status, 400, "{:#}", refused.body);
    let refused = fleet
        .client
        .post("/targets/preview", &json!({ "on": "host-1 & (" }))
        .await
        .expect_err("it is broken");
    assert_eq!(refused.status, 400, "{:#}", refused.body);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p13_targets_that_are_not_enrolled_are_refused_by_name() {
    let fleet = Fleet::with_hosts(1).await;
    fleet.client.post("/hosts", &json!({ "name": "bare-1", "type": "VM" })).await.expect("it is added");

    let body = json!({ "scripts": [{ "name": "hello" }], "on": "all" });
    let refused = fleet.client.post("/operations", &body).await.expect_err("bare-1 has no agent");

    assert!(refused.body.to_string().contains("bare-1"), "{:#}", refused.body);
    assert!(!refused.code().is_empty());
    let operations = fleet.client.get("/operations").await.expect("the operations");
    assert_eq!(operations["items"].as_array().map(Vec::len), Some(0), "nothing was planned");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_failure_more_than_allowed_halts_the_rest() {
    let fleet = Fleet::with_hosts(4).await;
    let body = json!({
        "scripts": [{ "name": "leave", "arguments": ["1"] }], "on": "all",
        "rollout": { "concurrency": 1, "max_failures": "1" },
    });
    let operation = fleet.client.start_as(&body).await;
    let ended = fleet.client.ended(&operation).await;
    let mut states = ended.states();
    states.sort_unstable();
    assert_eq!(states, ["cancelled", "cancelled", "failed", "failed"]);
    assert_eq!(ended.status(), "failed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_canary_that_fails_spares_the_others() {
    let fleet = Fleet::with_hosts(3).await;
    let body = json!({
        "scripts": [{ "name": "leave", "arguments": ["1"] }], "on": "all", "rollout": { "canary": "1" },
    });
    let operation = fleet.client.start_as(&body).await;
    let ended = fleet.client.ended(&operation).await;
    assert_eq!(ended.states().iter().filter(|state| **state == "failed").count(), 1, "{:?}", ended.states());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn scripts_of_one_operation_run_in_order_and_stop_at_the_first_failure() {
    let fleet = Fleet::with_hosts(1).await;
    let body = json!({
        "scripts": [{ "name": "hello" }, { "name": "leave", "arguments": ["3"] }, { "name": "hello" }], "on": "host-1",
    });
    let operation = fleet.client.start_as(&body).await;
    let ended = fleet.client.ended(&operation).await;
    assert_eq!(ended.states(), ["succeeded", "failed", "cancelled"]);
    assert_eq!(ended.status(), "partial");
    assert_eq!(ended.runs[2]["state_detail"], "the step before it did not succeed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn scripts_of_one_operation_go_on_after_a_failure_if_told_so() {
    let fleet = Fleet::with_hosts(2).await;
    let body = json!({
        "scripts": [{ "name": "leave", "arguments": ["3"] }, { "name": "hello" }, { "name": "leave", "arguments": ["0"] }],
        "on": "all",
        "rollout": { "continue_on_failure": true, "max_failures": "100%" },
    });
    let operation = fleet.client.start_as(&body).await;
    let ended = fleet.client.ended(&operation).await;
    assert_eq!(ended.states(), ["failed", "succeeded", "succeeded"].repeat(2), "{:#?}", ended.runs);
    assert_eq!(ended.status(), "partial");
    for host in ended.runs.chunks(3) {
        let times: Vec<&str> = host.iter().map(|run| run["ended_at"].as_str().expect("a time")).collect();
        assert!(times.is_sorted(), "each in its turn: {times:?}");
    }
}
