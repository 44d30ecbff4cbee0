//! Looking at one unit and at timers, and whose log may be read.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt as _;
use std::sync::Arc;
use std::time::Duration;

use fleetward_agent::query::Queries;
use fleetward_protocol::message::QueryUp;
use fleetward_protocol::order::Authority;
use fleetward_protocol::query::read_item;
use fleetward_protocol::run::Refusal;
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::host::{Machine, boot, skipped};
use crate::query::{next, of};
use crate::systemd::{Bus, World, bus, play};

/// A machine whose systemd has these units.
pub(crate) fn machine(test: &str, world: World) -> Option<(Machine, Bus)> {
    let mut machine = Machine::new();
    let Some(bus) = bus(machine.directory.path()) else {
        skipped(test, "dbus-daemon is not installed");
        return None;
    };
    machine.bus = Some(bus.address.clone());
    drop(play(bus.address.clone(), Arc::new(watch::channel(world).0)));
    Some((machine, bus))
}

/// The items of an answer by their keys, or why it broke off.
pub(crate) async fn ask(
    queries: &Queries,
    kind: &str,
    params: &str,
) -> Result<BTreeMap<String, Value>, String> {
    let open = of(Authority::Query, kind, params, false, Duration::from_secs(60));
    let mut answer = queries.open(&open).await.unwrap();
    let mut items = BTreeMap::new();
    loop {
        match next(&mut answer).await.unwrap() {
            QueryUp::Items(more) => {
                for item in &more {
                    let fields = read_item(&item.item).expect("an item is what the controller takes");
                    items.insert(item.key.to_string(), Value::Object(fields));
                }
            }
            QueryUp::Failed { detail } => return Err(detail.into()),
            QueryUp::Ended => return Ok(items),
            QueryUp::Complete => {}
            other => panic!("{other:?}"),
        }
    }
}

fn units(units: &[(&str, &'static str, &str, u32)]) -> World {
    let mut world = World::default();
    for (name, load, active, pid) in units {
        world.units.insert((*name).to_owned(), (load, (*active).to_owned(), *pid));
    }
    world
}

#[tokio::test]
async fn a_unit_is_shown_with_its_files_as_far_as_everybody_may_read_them() {
    let files = tempfile::tempdir_in("/tmp").unwrap();
    let mode = |path: &std::path::Path, mode| {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    };
    mode(files.path(), 0o755);
    let path = |name: &str| files.path().join(name);
    let long = "X=\"".to_owned() + &"y".repeat(3000);
    std::fs::write(path("web.service"), format!("[Unit]\nDescription=\tThe web\u{1b}[2J\n\n{long}\n"))
        .unwrap();
    std::fs::write(path("big.conf"), "# a line\n".repeat(2000)).unwrap();
    std::fs::write(path("secret.conf"), "[Service]\nEnvironment=TOKEN=hunter2\n").unwrap();
    mode(&path("secret.conf"), 0o600);
    let text = |name: &str| path(name).display().to_string();
    let mut world =
        units(&[("web.service", "loaded", "active", 40), ("gone.service", "not-found", "inactive", 0)]);
    let drop_ins = ["big.conf", "secret.conf", "missing.conf"].map(text).to_vec();
    world.paths.insert("web.service", (text("web.service"), drop_ins));
    world.dependencies.insert(("web.service", "After"), vec!["network.target", "db.service"]);
    let Some((machine, _bus)) = machine("showing a unit", world) else { return };
    let queries = Queries::new(machine.start(boot(1)).runs);

    let items = ask(&queries, "unit-show", r#"{"unit":"web"}"#).await.unwrap();
    assert_eq!(items["about active"]["value"], "active");
    assert_eq!(items["about main_pid"]["value"], 40);
    assert_eq!(items["about since"]["at"], 1_700_000_000_000_i64);
    assert!(!items.contains_key("about tasks"), "it is not counted");
    assert_eq!(items["dependency After 000001"]["units"], json!(["network.target", "db.service"]));
    let own = &items["file 01 000001"];
    assert_eq!(own["name"], text("web.service"));
    let lines = own["lines"].as_array().unwrap();
    assert_eq!(lines[..3], [json!("[Unit]"), json!("Description= The web\u{fffd}[2J"), json!("")]);
    assert_eq!((own["truncated"].as_bool(), lines[3].as_str().unwrap().len()), (Some(true), 2400));
    let of_big = items.iter().filter(|(key, _)| key.starts_with("file 02"));
    let lines: Vec<&Value> = of_big.flat_map(|(_, item)| item["lines"].as_array().unwrap()).collect();
    assert!(lines.len() == 2000 && lines.iter().all(|line| **line == "# a line"), "{}", lines.len());
    let secret = &items["file 03 000000"];
    assert_eq!((secret["name"].as_str().unwrap(), secret.get("lines")), (text("secret.conf").as_str(), None));
    assert!(
        secret["value"].as_str().unwrap().contains("not everybody on the host may read it (mode 0600)"),
        "{secret}"
    );
    assert!(items["file 04 000000"]["value"].as_str().unwrap().contains("No such file"));
    assert!(!format!("{items:?}").contains("hunter2"));
    assert_eq!(items["property FragmentPath"]["value"], text("web.service"));

    let items = ask(&queries, "unit-show", r#"{"unit":"web","parts":["dependency"]}"#).await.unwrap();
    assert_eq!(items.keys().collect::<Vec<_>>(), ["dependency After 000001"]);
    let refused = ask(&queries, "unit-show", r#"{"unit":"gone"}"#).await.unwrap_err();
    assert!(refused.contains("this host has no unit `gone.service`"), "{refused}");
}

/// What the owner keeps to himself is named nowhere.
#[tokio::test]
async fn the_owner_decides_which_unit_is_shown_and_whose_log() {
    let mut world = units(&[("web.service", "loaded", "active", 40), ("db.service", "loaded", "active", 41)]);
    world.dependencies.insert(("web.service", "After"), vec!["db.service", "web-1.service"]);
    world.aliases.insert("web-alias.service", "db.service");
    let Some((machine, _bus)) = machine("the owner's rules for one unit", world) else { return };
    let rules = "[policy.rules.unit-show]\nunits = ['web*']\n[policy.rules.unit-log]\nunits = ['web*']\n";
    std::fs::write(machine.paths().config, rules).unwrap();
    let queries = Queries::new(machine.start(boot(1)).runs);
    let items = ask(&queries, "unit-show", r#"{"unit":"web"}"#).await.unwrap();
    assert_eq!(items["dependency After 000001"]["units"], json!(["web-1.service"]));
    let refused = ask(&queries, "unit-show", r#"{"unit":"web-alias"}"#).await.unwrap_err();
    assert!(refused.contains("another name of `db.service`"), "{refused}");
    for (kind, params) in [
        ("unit-show", r#"{"unit":"db"}"#),
        ("unit-log", r#"{"units":["db"]}"#),
        ("unit-log", r#"{"units":["web","db"]}"#),
        ("unit-log", "{}"),
    ] {
        let open = of(Authority::Query, kind, params, false, Duration::from_secs(60));
        match queries.open(&open).await {
            Err(Refusal::NotAllowed { rule }) => assert!(rule.contains(kind), "{rule}"),
            other => panic!("{kind} {params}: {other:?}"),
        }
    }
    let open = of(Authority::Query, "unit-log", r#"{"units":["web"]}"#, false, Duration::from_secs(60));
    drop(queries.open(&open).await.unwrap());
}

#[tokio::test]
async fn timers_are_told_with_what_they_start() {
    let mut world = units(&[
        ("backup.timer", "loaded", "active", 0),
        ("backup.service", "loaded", "failed", 0),
        ("idle.timer", "loaded", "inactive", 0),
        ("spoken-of.timer", "not-found", "inactive", 0),
    ]);
    world.due.insert("backup.timer", [1_700_000_000_000_000, 1_900_000_000_000_000, u64::MAX]);
    world.due.insert("idle.timer", [0, 0, 0]);
    let Some((machine, _bus)) = machine("listing timers", world) else { return };
    let queries = Queries::new(machine.start(boot(1)).runs);
    let items = ask(&queries, "timers", "{}").await.unwrap();
    assert_eq!(items.keys().collect::<Vec<_>>(), ["backup.timer", "idle.timer"]);
    let backup = &items["backup.timer"];
    assert_eq!(
        (&backup["last"], &backup["next"]),
        (&json!(1_700_000_000_000_i64), &json!(1_900_000_000_000_i64))
    );
    assert_eq!((&backup["starts"], &backup["starts_active"]), (&json!("backup.service"), &json!("failed")));
    assert_eq!((&backup["result"], &backup["file"]), (&json!("exit-code"), &json!("enabled")));
    let idle = &items["idle.timer"];
    assert_eq!((idle.get("last"), idle.get("next"), idle.get("result")), (None, None, None));
    assert!(ask(&queries, "timers", r#"{"pattern":"nothing"}"#).await.unwrap().is_empty());
}
