//! Stop means stopped, and the result says by what.

use std::process::Command;

use serde_json::{Value, json};

use super::Fleet;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_ends_the_whole_process_tree() {
    let fleet = Fleet::with_hosts(1).await;
    let operation = fleet.client.start("forking", "host-1", &[]).await;
    fleet.client.events(&operation, None).await.until(|name, _| name == "output").await;
    let run = fleet.client.until_run(&operation, |run| run["state"] == "running").await;
    assert!(!children(&run).is_empty(), "the script's children are there");

    fleet.client.post(&format!("/operations/{operation}/stop"), &Value::Null).await.expect("it is stopped");

    let ended = fleet.client.ended(&operation).await;
    assert_eq!(ended.status(), "stopped");
    assert_eq!(ended.states(), ["cancelled"]);
    assert_eq!(
        children(&ended.runs[0]),
        Vec::<u32>::new(),
        "children that left the session were stopped too"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_time_limit_ends_the_run_and_says_so() {
    let fleet = Fleet::with_hosts(1).await;
    let body = json!({ "scripts": [{ "name": "forever" }], "on": "host-1", "rollout": { "timeout_s": 1 } });
    let operation = fleet.client.start_as(&body).await;
    let ended = fleet.client.ended(&operation).await;
    assert_eq!(ended.states(), ["timed_out"]);
    assert_eq!(ended.status(), "failed");
    assert!(!fleet.client.output(&ended.runs[0], None).await.is_empty(), "what it wrote is kept");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_reaches_a_host_that_was_away() {
    let mut fleet = Fleet::with_hosts(1).await;
    let operation = fleet.client.start("forever", "host-1", &[]).await;
    fleet.client.events(&operation, None).await.until(|name, _| name == "output").await;
    fleet.crash_agent("host-1").await;

    fleet.client.post(&format!("/operations/{operation}/stop"), &Value::Null).await.expect("it is stopped");
    fleet.start_agent("host-1").await;

    assert_eq!(fleet.client.ended(&operation).await.states(), ["cancelled"]);
}

/// Processes that carry the run's id in their environment.
fn children(run: &Value) -> Vec<u32> {
    let id = run["id"].as_str().expect("an id");
    let listing = Command::new("grep")
        .args(["--files-with-matches", "--null-data", &format!("FLEETWARD_RUN_ID={id}")])
        .args(std::fs::read_dir("/proc").expect("/proc").filter_map(|entry| {
            let path = entry.ok()?.path();
            let pid = path.file_name()?.to_str()?.parse::<u32>().ok()?;
            Some(format!("/proc/{pid}/environ"))
        }))
        .output()
        .expect("grep runs");
    let text = String::from_utf8_lossy(&listing.stdout);
    let mut pids: Vec<u32> =
        text.split(['\n', '\0']).filter_map(|path| path.split('/').nth(2)?.parse().ok()).collect();
    pids.retain(|pid| is_alive(*pid));
    pids
}

/// A zombie's environment is empty already, but a process may become one, or be about to go, between listing and looking.
fn is_alive(pid: u32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| {
        stat.rsplit(')').next().is_some_and(|rest| !rest.trim_start().starts_with(['Z', 'X']))
    })
}
