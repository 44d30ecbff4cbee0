//! Looking at a host itself: its sockets, its mounts, its logins, and how it is.

use std::net::{TcpListener, UdpSocket};

use fleetward_agent::query::Queries;
use serde_json::{Value, json};

use crate::host::{Machine, boot};
use crate::query_units::{ask, machine};
use crate::systemd::World;

#[tokio::test]
async fn sockets_that_listen_are_told_with_their_processes() {
    let (tcp, udp) = (TcpListener::bind("127.0.0.1:0").unwrap(), UdpSocket::bind("[::1]:0").ok());
    let port = tcp.local_addr().unwrap().port();
    let connected = std::net::TcpStream::connect(("127.0.0.1", port)).unwrap();
    let machine = Machine::new();
    let queries = Queries::new(machine.start(boot(1)).runs);
    let items = ask(&queries, "sockets", &format!(r#"{{"port":{port}}}"#)).await.unwrap();
    let of_tcp: Vec<_> = items.values().filter(|item| item["protocol"] == "tcp").collect();
    assert_eq!(of_tcp.len(), 1, "what is connected does not listen: {items:?}");
    let socket = of_tcp[0];
    assert_eq!((&socket["address"], &socket["port"]), (&json!("127.0.0.1"), &json!(port)));
    assert_eq!((&socket["pid"], &socket["processes"]), (&json!(std::process::id()), &json!(1)));
    let name = std::fs::read_to_string("/proc/self/comm").unwrap();
    assert_eq!(socket["process"], name.trim_end());
    if nix::unistd::getuid().is_root() {
        assert_eq!(socket["user"], "root");
    }
    if let Some(udp) = &udp {
        let port = udp.local_addr().unwrap().port();
        let params = format!(r#"{{"protocol":"udp","port":{port}}}"#);
        let items = ask(&queries, "sockets", &params).await.unwrap();
        let keys: Vec<_> =
            items.keys().filter(|key| key.starts_with(&format!("udp [::1]:{port} "))).collect();
        assert_eq!(keys.len(), 1, "{items:?}");
        let params = format!(r#"{{"protocol":"tcp","port":{port}}}"#);
        let other = ask(&queries, "sockets", &params).await.unwrap();
        assert!(other.values().all(|item| item["protocol"] == "tcp"), "{other:?}");
    }
    drop(connected);
}

#[tokio::test]
async fn mounts_are_told_with_how_full_they_are() {
    let machine = Machine::new();
    let queries = Queries::new(machine.start(boot(1)).runs);
    let items = ask(&queries, "mounts", "{}").await.unwrap();
    let root = &items["/"];
    let number = |name: &str| root[name].as_u64().unwrap();
    assert!(number("size") > 0 && number("used") <= number("size"), "{root}");
    assert!(number("percent") <= 100 && root.get("unresponsive").is_none(), "{root}");
    let views = |items: &std::collections::BTreeMap<String, Value>| {
        items.values().filter(|item| item["file_system"] == "proc").count()
    };
    assert_eq!(views(&items), 0);
    let all = ask(&queries, "mounts", r#"{"all":true}"#).await.unwrap();
    assert!(views(&all) > 0 && all.len() > items.len());
    assert!(items.keys().all(|mount| all.contains_key(mount)));
    let view = all.values().find(|item| item["file_system"] == "proc").unwrap();
    assert!(view.get("size").is_none() && view.get("unresponsive").is_none(), "{view}");
}

#[tokio::test]
async fn logins_are_told_as_far_as_the_owner_allows() {
    let sessions = vec![("4", "user", "root"), ("5", "manager", "root"), ("6", "user", "deploy")];
    let world = World { sessions, ..World::default() };
    let Some((machine, _bus)) = machine("listing logins", world) else { return };
    let queries = Queries::new(machine.start(boot(1)).runs);
    let items = ask(&queries, "logins", "{}").await.unwrap();
    let root = &items["user root"];
    assert_eq!((&root["uid"], root["part"].as_str()), (&json!(0), Some("user")));
    assert!(root["groups"].as_array().unwrap().contains(&json!("root")), "{root}");
    assert!(root["shell"].as_str().unwrap().starts_with('/'), "{root}");
    assert!(!items.contains_key("user nobody"), "it has no shell to log in with");
    let sessions: Vec<_> = items.keys().filter(|key| key.starts_with("session")).collect();
    assert_eq!(sessions, ["session 4 root", "session 6 deploy"]);
    let session = &items["session 6 deploy"];
    assert_eq!((&session["from"], &session["terminal"]), (&json!("192.0.2.10"), &json!("pts/0")));
    assert_eq!((&session["since"], &session["pid"]), (&json!(1_700_000_000_000_i64), &json!(4711)));
    assert!(session.get("password").is_none() && session.get("groups").is_none(), "{session}");

    let only = ask(&queries, "logins", r#"{"parts":["session"]}"#).await.unwrap();
    assert_eq!(only.keys().collect::<Vec<_>>(), ["session 4 root", "session 6 deploy"]);
    std::fs::write(machine.paths().config, "[policy.rules.logins]\nusers = ['dep*']\n").unwrap();
    let allowed = ask(&queries, "logins", "{}").await.unwrap();
    assert_eq!(allowed.keys().collect::<Vec<_>>(), ["session 6 deploy"]);
}

/// No password, nor anything made of one, leaves the host.
#[tokio::test]
async fn no_hash_of_a_password_is_told() {
    let machine = Machine::new();
    let queries = Queries::new(machine.start(boot(1)).runs);
    let items = ask(&queries, "logins", r#"{"parts":["user"]}"#).await.unwrap();
    for item in items.values() {
        let told = item.get("password").and_then(Value::as_str);
        assert!(told.is_none_or(|told| ["set", "locked", "empty"].contains(&told)), "{item}");
    }
}

#[tokio::test]
async fn the_status_of_a_host_is_one_item() {
    let mut world = World::default();
    world.units.insert("web.service".into(), ("loaded", "active".into(), 40));
    world.units.insert("broken.service".into(), ("loaded", "failed".into(), 0));
    let Some((machine, _bus)) = machine("showing how a host is", world) else { return };
    let queries = Queries::new(machine.start(boot(1)).runs);
    let items = ask(&queries, "host-status", "{}").await.unwrap();
    assert_eq!(items.keys().collect::<Vec<_>>(), ["host"]);
    let status = &items["host"];
    assert_eq!((&status["system"], &status["failed_units"]), (&json!("running"), &json!(1)));
    let number = |name: &str| status[name].as_u64().unwrap_or_else(|| panic!("{name} in {status}"));
    assert!(
        number("uptime_s") > 0 && number("cpus") > 0 && number("memory_total") > number("memory_available")
    );
    assert!(
        number("agent_memory") > 0 && number("agent_free") > 0 && number("agent_journal") > 0,
        "{status}"
    );
    assert_eq!(status["agent_version"], fleetward_agent::VERSION);
    assert!(status["load"].as_array().unwrap().len() == 3 && status["reboot_required"].is_boolean());
    assert!(status.get("agent_controller").is_none(), "it is connected to none");
}

/// A host without systemd, and without apt, says the rest.
#[tokio::test]
async fn what_a_host_has_not_is_left_out() {
    let mut machine = Machine::new();
    machine.bus = Some(format!("unix:path={}", machine.directory.path().join("no-bus").display()));
    let queries = Queries::new(machine.start(boot(1)).runs);
    let status = &ask(&queries, "host-status", "{}").await.unwrap()["host"];
    assert!(status.get("system").is_none() && status.get("failed_units").is_none(), "{status}");
    assert!(status["uptime_s"].as_u64().is_some_and(|seconds| seconds > 0));
    let items = ask(&queries, "logins", r#"{"parts":["session"]}"#).await;
    assert!(items.is_ok(), "{items:?}");
}
