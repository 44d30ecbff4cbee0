//! A query goes all the way: from a request to a process on the host, and back.

use std::fs;

use serde_json::{Value, json};

use super::Fleet;

/// How far the host came, and why no further.
async fn asked(fleet: &Fleet) -> (String, String) {
    let mut events = fleet.client.ask(&json!({ "kind": "units", "on": "host-1" })).await;
    let host = events.until(|name, _| name == "host").await;
    let end = events.until(|name, _| name == "end").await;
    assert_eq!(end, json!({ "hosts": 1, "answered": 0, "left_out": 0 }));
    assert!(events.next().await.is_none());
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    (text(&host["state"]), text(&host["detail"]))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_is_asked_by_its_own_process_and_its_owner_may_forbid_it() {
    let mut fleet = Fleet::with_hosts(1).await;
    // There is no message bus: the process that looks says so itself.
    let (state, detail) = asked(&fleet).await;
    assert!(state == "failed" && detail.contains("systemctl status dbus"), "{state} {detail}");

    let config = fleet.paths("host-1").config;
    let before = fs::read_to_string(&config).expect("the policy");
    fs::write(&config, format!("{before}\n[policy]\nkinds = ['script']\n")).expect("the policy is written");
    let (state, detail) = asked(&fleet).await;
    assert!(state == "refused" && detail.contains("does not name `units`"), "{state} {detail}");

    fleet.crash_agent("host-1").await;
    assert_eq!(asked(&fleet).await.0, "offline");
}
