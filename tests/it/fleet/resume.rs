//! Whatever crashes meanwhile: one start at most, and everything arrives.

use std::fs;

use serde_json::json;

use super::Fleet;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_script_outlives_its_agent() {
    let mut fleet = Fleet::with_hosts(1).await;
    let go = fleet.path("go");
    let operation =
        fleet.client.start("wait-for", "host-1", &[go.to_str().expect("UTF-8"), "after the crash"]).await;
    fleet.client.events(&operation, None).await.until(|name, _| name == "output").await;

    fleet.crash_agent("host-1").await;
    fs::write(&go, "").expect("the script goes on while no agent is there");
    fleet.start_agent("host-1").await;

    let ended = fleet.client.ended(&operation).await;
    assert_eq!(ended.states(), ["succeeded"], "{:#?}", ended.runs);
    assert_eq!(fleet.client.output(&ended.runs[0], None).await, b"waiting\ndone after the crash\n");
    assert!(ended.runs[0]["reattached"].as_u64() >= Some(1), "{:#}", ended.runs[0]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_script_outlives_its_controller() {
    let mut fleet = Fleet::with_hosts(1).await;
    let go = fleet.path("go");
    let operation = fleet.client.start("wait-for", "host-1", &[go.to_str().expect("UTF-8"), "alone"]).await;
    fleet.client.events(&operation, None).await.until(|name, _| name == "output").await;

    fleet.stop_controller().await;
    fs::write(&go, "").expect("the script goes on while no controller is there");
    fleet.start_controller().await;

    let ended = fleet.client.ended(&operation).await;
    assert_eq!(ended.states(), ["succeeded"], "{:#?}", ended.runs);
    assert_eq!(fleet.client.output(&ended.runs[0], None).await, b"waiting\ndone alone\n");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_starts_once_however_often_its_agent_crashes() {
    let mut fleet = Fleet::with_hosts(1).await;
    let (starts, go) = (fleet.path("starts"), fleet.path("go"));
    let arguments = [starts.to_str().expect("UTF-8"), go.to_str().expect("UTF-8")];
    let operation = fleet.client.start("count-start", "host-1", &arguments).await;
    fleet.client.until_run(&operation, |run| run["state"] == "running").await;

    for _ in 0..3 {
        fleet.crash_agent("host-1").await;
        fleet.start_agent("host-1").await;
    }
    fs::write(&go, "").expect("it may end");

    assert_eq!(fleet.client.ended(&operation).await.states(), ["succeeded"]);
    assert_eq!(fs::read_to_string(starts).expect("its own count"), "start\n");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_that_is_offline_starts_when_it_returns() {
    let mut fleet = Fleet::with_hosts(2).await;
    fleet.crash_agent("host-2").await;

    let operation = fleet.client.start("hello", "all", &[]).await;
    fleet.client.until_run(&operation, |run| run["host"] == "host-1" && run["state"] == "succeeded").await;
    let runs = fleet.client.get(&format!("/operations/{operation}/runs?host=host-2")).await.expect("its run");
    assert_eq!(runs["items"][0]["state"], "queued");
    assert_eq!(runs["items"][0]["state_detail"], "waiting for host");
    fleet.start_agent("host-2").await;

    assert_eq!(fleet.client.ended(&operation).await.status(), "success");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_that_is_offline_beyond_the_deadline_never_starts() {
    let mut fleet = Fleet::with_hosts(1).await;
    fleet.crash_agent("host-1").await;
    let starts = fleet.path("starts");

    let body = json!({
        "scripts": [{ "name": "count-start", "arguments": [starts.to_str(), "/"] }],
        "on": "host-1", "rollout": { "deadline_s": 1 },
    });
    let operation = fleet.client.start_as(&body).await;
    let ended = fleet.client.ended(&operation).await;
    assert_eq!(ended.states(), ["expired"]);
    fleet.start_agent("host-1").await;
    assert_eq!(fleet.client.run("hello", "host-1", &[]).await.status(), "success");

    assert!(!starts.exists(), "an expired run was started");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_that_lost_its_journal_is_not_given_the_run_again() {
    let mut fleet = Fleet::with_hosts(1).await;
    let (starts, go) = (fleet.path("starts"), fleet.path("go"));
    let arguments = [starts.to_str().expect("UTF-8"), go.to_str().expect("UTF-8")];
    let operation = fleet.client.start("count-start", "host-1", &arguments).await;
    fleet.client.until_run(&operation, |run| run["state"] == "running").await;

    fleet.crash_agent("host-1").await;
    let journal = fleet.paths("host-1").journal();
    if journal.is_dir() { fs::remove_dir_all(&journal) } else { fs::remove_file(&journal) }
        .expect("the journal goes");
    fleet.start_agent("host-1").await;

    let ended = fleet.client.ended(&operation).await;
    fs::write(&go, "").expect("the orphan may end");
    assert_eq!(ended.states(), ["lost"]);
    assert_eq!(fs::read_to_string(starts).expect("its own count"), "start\n");
}
