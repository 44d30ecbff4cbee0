//! What is asked, and how what comes is laid out.

use clap::Parser as _;
use expect_test::expect;
use fleetward_api::work::query::QueryItem;
use serde_json::{Value, json};

use super::log::{Names, Sorted};
use crate::args::Cli;
use crate::client::double::{Step, answer, serve};
use crate::failure::Exit;
use crate::query::{Items, Sink as _};
use crate::render::Out;

fn out() -> Out {
    Out::new(&Cli::parse_from(["fleetward", "version", "--color", "never", "--utc"]).globals)
}

fn item(host: &str, key: &str, item: &Value) -> QueryItem {
    serde_json::from_value(json!({ "host": host, "key": key, "item": item })).unwrap()
}

fn items(all: &[(&str, &str, Value)]) -> Items {
    let mut items = Items::default();
    for (host, key, value) in all {
        items.item(item(host, key, value)).unwrap();
    }
    items
}

/// What the controller is asked by a command.
async fn asked(line: &str) -> Value {
    let kind = |name: &str| {
        json!({
            "name": name, "family": "query", "summary": "Look.", "permission": "read", "idempotent": true, "timeout_s": 10,
            "follows": true, "shows": "table", "parameters": { "type": "object" }, "answer": { "type": "object" },
        })
    };
    let known = ["units", "unit-show", "timers"].map(kind);
    let kinds = answer("200 OK", &json!({ "items": known }).to_string());
    let end = Step::Break(
        "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\nevent: end\ndata: {\"hosts\":0,\"answered\":0}\n\n".to_owned(),
    );
    let steps = if line.contains("unit log") { vec![end] } else { vec![kinds, end] };
    let (address, mut requests) = serve(vec![steps]).await;
    let line = format!("fleetward --quiet --token secret --controller {address} {line}");
    let exit = crate::dispatch(Cli::try_parse_from(line.split(' ')).unwrap()).await.unwrap();
    assert_eq!(exit, Exit::Success, "{line}");
    let mut last = String::new();
    while let Ok(request) = requests.try_recv() {
        last = request;
    }
    serde_json::from_str(last.split("\r\n\r\n").nth(1).unwrap()).unwrap()
}

#[tokio::test]
async fn options_become_parameters() {
    let failing = json!(["service", "socket", "mount", "automount", "swap", "timer", "path", "scope"]);
    for (line, kind, params) in [
        ("unit list --on all", "units", json!({})),
        (
            "unit list ng* --type timer --state active --state failed --on all",
            "units",
            json!({ "pattern": "ng*", "types": ["timer"], "states": ["active", "failed"] }),
        ),
        ("unit failed --on all", "units", json!({ "types": failing, "states": ["failed"] })),
        ("unit timers --on all", "timers", json!({})),
        (
            "unit show nginx --on all",
            "unit-show",
            json!({ "unit": "nginx", "parts": ["about", "file", "dependency"] }),
        ),
        ("unit show nginx --properties --on all", "unit-show", json!({ "unit": "nginx" })),
        ("unit log --on all", "unit-log", json!({})),
        (
            "unit log a b --on all --since 2026-01-02T03:04:05Z -n 5 -p err --grep x --boot -1",
            "unit-log",
            json!({
                "units": ["a", "b"], "since": "2026-01-02T03:04:05.000Z", "lines": 5, "priority": "err", "grep": "x", "boot": -1,
            }),
        ),
    ] {
        let body = asked(line).await;
        assert_eq!(
            (&body["kind"], &body["params"], &body["on"]),
            (&json!(kind), &params, &json!("all")),
            "{line}"
        );
    }
    assert_eq!(asked("unit log nginx --on web-1 --follow").await["follow"], true);
}

#[test]
fn units_are_a_table_with_what_they_use() {
    let items = items(&[
        (
            "web-1",
            "nginx.service",
            json!({
                "name": "nginx.service", "load": "loaded", "active": "active", "sub": "running", "file": "enabled", "memory": 12_582_912,
                "cpu_ms": 61_000, "tasks": 3, "restarts": 0, "description": "The web\u{1b}[2J", "result": "success",
            }),
        ),
        (
            "web-2",
            "x.service",
            json!({ "name": "x.service", "load": "loaded", "active": "failed", "sub": "failed", "result": "exit-code", "restarts": 5 }),
        ),
        (
            "web-2",
            "y.service",
            json!({ "name": "y.service", "load": "masked", "active": "inactive", "sub": "dead" }),
        ),
    ]);
    expect![[r#"
        HOST   UNIT           ACTIVE              SUB      MEMORY  CPU         TASKS  RESTARTS  SINCE  BOOT     DESCRIPTION
        web-1  nginx.service  active              running  12 MiB  1 min 01 s  3                       enabled  The web␛[2J
        web-2  x.service      failed (exit-code)  failed                              5
        web-2  y.service      inactive (masked)   dead
    "#]]
    .assert_eq(&super::list::table(&items, &out()).0);
}

#[test]
fn a_unit_that_is_followed_is_a_line_and_then_what_has_changed() {
    let unit = |active: &str, sub: &str, more: Value| {
        let mut unit = json!({
            "name": "a.service", "load": "loaded", "active": active, "sub": sub, "file": "enabled", "since": 1, "memory": 1,
            "result": "success", "description": "The \u{1b}web",
        });
        for (name, value) in more.as_object().unwrap() {
            unit[name] = value.clone();
        }
        unit.as_object().unwrap().clone()
    };
    let told = |before, after| super::list::line(before, &after, &out());
    let first = unit("active", "running", json!({}));
    assert_eq!(told(None, first.clone()).as_deref(), Some("active, running  The ␛web"));
    assert_eq!(told(Some(&first), unit("active", "running", json!({ "memory": 2 }))), None);
    for (after, line) in [
        (
            unit("failed", "failed", json!({ "result": "exit-code", "since": 2 })),
            "failed (exit-code) (was active, running)",
        ),
        (
            unit("active", "running", json!({ "since": 2, "restarts": 1 })),
            "active, running once more; restarted by systemd, 1 in all",
        ),
        (unit("active", "running", json!({ "file": "disabled" })), "at boot: disabled (was enabled)"),
    ] {
        assert_eq!(told(Some(&first), after).as_deref(), Some(line));
    }
}

#[test]
fn timers_are_a_table_with_what_they_start() {
    let items = items(&[
        (
            "db-1",
            "a.timer",
            json!({ "name": "a.timer", "active": "active", "starts": "a.service", "starts_active": "failed", "result": "timeout" }),
        ),
        (
            "db-1",
            "b.timer",
            json!({ "name": "b.timer", "active": "active", "starts": "b.service", "starts_active": "active", "result": "success" }),
        ),
    ]);
    expect![[r#"
        HOST  TIMER    ACTIVE  NEXT  LAST  STARTS     RESULT   BOOT  DESCRIPTION
        db-1  a.timer  active              a.service  timeout
        db-1  b.timer  active              b.service  running
    "#]]
    .assert_eq(&super::timers::table(&items, &out()).0);
}

#[test]
fn a_unit_is_shown_in_sections() {
    let about = |name: &str, value: Value| {
        ("web-1", format!("about {name}"), json!({ "part": "about", "name": name, "value": value }))
    };
    let parts = [
        about("name", json!("nginx.service")),
        about("description", json!("The web")),
        about("load", json!("loaded")),
        about("file", json!("enabled")),
        about("active", json!("active")),
        about("sub", json!("running")),
        about("memory", json!(4096)),
        ("web-1", "about since".to_owned(), json!({ "part": "about", "name": "since", "at": 0 })),
        (
            "web-1",
            "file 01 000001".to_owned(),
            json!({ "part": "file", "name": "/etc/a", "file": 1, "from": 1, "lines": ["[Unit]", "X=\u{1b}c"] }),
        ),
        (
            "web-1",
            "file 01 000003".to_owned(),
            json!({ "part": "file", "name": "/etc/a", "file": 1, "from": 3, "lines": ["Y=1"] }),
        ),
        (
            "web-1",
            "file 02 000000".to_owned(),
            json!({ "part": "file", "name": "/etc/b", "file": 2, "value": "not shown: secret" }),
        ),
        (
            "web-1",
            "dependency After 000001".to_owned(),
            json!({ "part": "dependency", "name": "After", "from": 1, "units": ["a", "b"] }),
        ),
        (
            "web-1",
            "dependency After 000003".to_owned(),
            json!({ "part": "dependency", "name": "After", "from": 3, "units": ["c"] }),
        ),
        ("web-1", "property Nice".to_owned(), json!({ "part": "property", "name": "Nice", "value": -5 })),
    ];
    let parts: Vec<(&str, &str, Value)> =
        parts.iter().map(|(host, key, item)| (*host, key.as_str(), item.clone())).collect();
    let shown = super::show::sections(&items(&parts), &out());
    // How long ago it was changes.
    let shown: Vec<&str> = shown.lines().map(|line| line.split(" UTC (").next().unwrap()).collect();
    expect![[r#"
        web-1: nginx.service - The web
          Loaded  loaded (enabled)
          Active  active (running)
          Since   1970-01-01 00:00:00
          Memory  4.0 KiB

        # /etc/a
        [Unit]
        X=␛c
        Y=1

        # /etc/b
        (not shown: secret)

        Dependencies:
          After  a b c

        Properties:
          Nice  -5
    "#]]
    .assert_eq(&(shown.join("\n") + "\n"));
}

#[test]
fn a_log_reads_like_the_journals_own_and_hosts_are_sorted_by_time() {
    let entry = |at: i64, priority: &str, message: Value| json!({ "time": 1_767_323_045_000_i64 + at, "identifier": "web", "pid": 7, "priority": priority, "message": message });
    let mut sorted = Sorted::default();
    for (host, key, value) in [
        ("web-1", "1", entry(0, "info", json!(["first"]))),
        ("web-1", "2", entry(2000, "err", json!(["third", "has \u{1b}[2J", ""]))),
        ("web-2", "1", entry(1000, "info", json!(["second"]))),
        ("web-2", "2", json!({ "time": 1_767_323_048_000_i64, "message": [], "truncated": true })),
    ] {
        sorted.item(item(host, key, &value)).unwrap();
    }
    let mut text = String::new();
    for (number, (host, item)) in sorted.finish().into_iter().enumerate() {
        let names = if number == 0 { Names::Hidden } else { Names::Shown };
        super::log::line(&host, &item, names, &out(), &mut text);
    }
    expect![[r#"
        Jan 02 03:04:05 web[7]: first
        Jan 02 03:04:06 web-2 web[7]: second
        Jan 02 03:04:07 web-1 web[7]: third
                                      has ␛[2J

        Jan 02 03:04:08 web-2 ?: …
    "#]]
    .assert_eq(&text);
}
