//! What a script writes arrives, all of it and as it is.

use std::fs;

use serde_json::Value;

use super::Fleet;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_script_runs_and_its_output_code_and_time_are_kept() {
    let fleet = Fleet::with_hosts(1).await;

    let ended = fleet.client.run("hello", "host-1", &["--name", "two words"]).await;

    assert_eq!(ended.status(), "success");
    let run = &ended.runs[0];
    assert_eq!(run["exit_code"], 0);
    assert!(
        run["duration_ms"].is_u64() && run["started_at"].is_string() && run["ended_at"].is_string(),
        "{run:#}"
    );
    assert_eq!(fleet.client.output(run, Some("stdout")).await, b"hello two words\n");
    let stderr = format!("from {}\n", run["id"].as_str().expect("an id"));
    assert_eq!(fleet.client.output(run, Some("stderr")).await, stderr.as_bytes());
}

/// Once everything is committed, nothing of a run stays on its host, and nothing is asked for again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_acknowledged_leaves_the_host() {
    let mut fleet = Fleet::with_hosts(1).await;
    let ended = fleet.client.run("hello", "host-1", &["there"]).await;
    assert_eq!(ended.states(), ["succeeded"]);
    let runs = fleet.paths("host-1").runs();
    let held = || std::fs::read_dir(&runs).expect("the runs' directory").count();
    let emptied = async {
        while held() > 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(20), emptied).await.expect("the run leaves the host");

    fleet.crash_agent("host-1").await;
    fleet.start_agent("host-1").await;
    assert_eq!(fleet.client.run("hello", "host-1", &["again"]).await.states(), ["succeeded"]);
    let run = &ended.runs[0];
    let again =
        fleet.client.get(&format!("/runs/{}", run["id"].as_str().expect("an id"))).await.expect("the run");
    assert_eq!(&again, run, "nothing about it has changed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn arguments_are_an_array_and_never_a_shell_line() {
    let fleet = Fleet::with_hosts(1).await;
    let hostile = ["$(touch /tmp/pwned)", "; rm -rf /", "a b", "", "'\"`", "--", "ä\n\t"];

    let ended = fleet.client.run("arguments", "host-1", &hostile).await;

    let expected: String = hostile.iter().map(|argument| format!("{argument}\0")).collect();
    assert_eq!(fleet.client.output(&ended.runs[0], None).await, expected.as_bytes());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_of_the_agents_environment_reaches_a_script() {
    let fleet = Fleet::with_hosts(1).await;
    let operation = fleet
        .client
        .start_as(&serde_json::json!({
            "scripts": [{ "name": "environment" }], "on": "host-1",
            "environment": { "GREETING": "good day" }, "directory": "/usr",
        }))
        .await;
    let ended = fleet.client.ended(&operation).await;
    let output = String::from_utf8(fleet.client.output(&ended.runs[0], None).await).expect("UTF-8");
    assert!(output.contains("GREETING=good day\0"), "{output}");
    assert!(output.contains("/usr\n"), "{output}");
    assert!(!output.contains("CARGO"), "{output}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_end_is_told_apart() {
    let fleet = Fleet::with_hosts(1).await;
    for (script, argument, state, field, value) in [
        ("leave", "0", "succeeded", "exit_code", 0),
        ("leave", "7", "failed", "exit_code", 7),
        ("leave", "255", "failed", "exit_code", 255),
        ("die", "KILL", "failed", "signal", 9),
        ("die", "TERM", "failed", "signal", 15),
    ] {
        let ended = fleet.client.run(script, "host-1", &[argument]).await;
        assert_eq!(ended.states(), [state], "{script} {argument}");
        assert_eq!(ended.runs[0][field], value, "{script} {argument}");
        assert_eq!(ended.status(), if state == "succeeded" { "success" } else { "failed" });
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn odd_output_arrives_as_it_is() {
    let fleet = Fleet::with_hosts(1).await;

    let ended = fleet.client.run("binary", "host-1", &[]).await;
    assert_eq!(fleet.client.output(&ended.runs[0], None).await, b"\xff\x00\xfe\xc3(\n");
    let ended = fleet.client.run("silent", "host-1", &[]).await;
    assert_eq!(ended.status(), "success");
    assert_eq!(fleet.client.output(&ended.runs[0], None).await, b"");
    let ended = fleet.client.run("line", "host-1", &["50000000"]).await;
    let line = fleet.client.output(&ended.runs[0], None).await;
    assert!(line.len() == 50_000_000 && line.iter().all(|&byte| byte == b'x'));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_mebibytes_arrive_byte_for_byte() {
    let fleet = Fleet::with_hosts(1).await;
    let copy = fleet.path("copy");

    let ended = fleet.client.run("bytes", "host-1", &["104857600", copy.to_str().expect("UTF-8")]).await;

    assert_eq!(ended.status(), "success");
    assert_eq!(ended.runs[0]["output_bytes"], 104_857_600);
    assert_eq!(ended.runs[0]["output_dropped"], 0);
    assert!(
        fleet.client.output(&ended.runs[0], None).await == fs::read(copy).expect("the script's own copy")
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn output_is_live_and_a_reader_that_returns_misses_and_repeats_nothing() {
    let fleet = Fleet::with_hosts(1).await;
    let operation = fleet.client.start("forever", "host-1", &[]).await;

    // Reads three ticks, goes away, comes back after more were written.
    let mut seen = String::new();
    let mut events = fleet.client.events(&operation, None).await;
    while seen.lines().count() < 3 {
        let data = events.until(|name, _| name == "output").await;
        seen.push_str(&text(&data));
    }
    let last = events.last_id.clone().expect("events have ids");
    drop(events);
    fleet
        .client
        .events(&operation, None)
        .await
        .until(|name, data| name == "output" && text(data).contains("tick 8"))
        .await;
    fleet.client.post(&format!("/operations/{operation}/stop"), &Value::Null).await.expect("it is stopped");
    let mut events = fleet.client.events(&operation, Some(&last)).await;
    while let Some((name, data)) = events.next().await {
        match name.as_str() {
            "output" => seen.push_str(&text(&data)),
            "end" => break,
            _ => {}
        }
    }

    let ended = fleet.client.ended(&operation).await;
    let whole = String::from_utf8(fleet.client.output(&ended.runs[0], None).await).expect("UTF-8");
    assert_eq!(seen, whole);
    assert!(whole.lines().count() >= 8);
}

fn text(output: &Value) -> String {
    let pieces = output["pieces"].as_array().expect("pieces");
    pieces.iter().filter_map(|piece| piece["text"].as_str()).collect()
}
