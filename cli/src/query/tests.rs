//! Asking hosts: what is sent, what is shown, and how it ends.

use clap::Parser as _;
use expect_test::expect;
use serde_json::{Value, json};

use super::*;
use crate::args::Cli;
use crate::client::double::{Step, answer, serve};
use crate::kind::schema::Field;
use crate::render::Out;

fn out() -> Out {
    Out::new(&Cli::parse_from(["fleetward", "version", "--color", "never"]).globals)
}

fn kind(follows: bool) -> Value {
    json!({
        "name": "things", "family": "query", "summary": "List things.", "permission": "read", "idempotent": true,
        "timeout_s": 10, "follows": follows,
        "parameters": { "type": "object", "properties": {
            "names": { "type": "array", "items": { "type": "string" } },
        } },
        "answer": { "type": "object", "required": ["name", "state"], "properties": {
            "name": { "type": "string" }, "note": { "type": "string" }, "state": { "type": "string" },
        } },
    })
}

/// The fields of an item of `things`.
fn things() -> Vec<Field> {
    fields(kind(false)["answer"].as_object().unwrap())
}

fn item(host: &str, key: &str, item: Value) -> QueryItem {
    serde_json::from_value(json!({ "host": host, "key": key, "item": item })).unwrap()
}

/// Runs a command against a controller that knows `things` and answers with `events`; what it was asked.
async fn ask(line: &str, follows: bool, events: &[(&str, Value)]) -> (Result<Exit, Failure>, Vec<String>) {
    asks(line, follows, vec![vec![stream(events)]]).await
}

fn stream(events: &[(&str, Value)]) -> Step {
    let mut text = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n: alive\n\n".to_owned();
    for (name, data) in events {
        text.push_str(&format!("event: {name}\ndata: {data}\n\n"));
    }
    Step::Break(text)
}

/// The same, where each connection has answers of its own.
async fn asks(
    line: &str,
    follows: bool,
    mut connections: Vec<Vec<Step>>,
) -> (Result<Exit, Failure>, Vec<String>) {
    connections[0].insert(0, answer("200 OK", &json!({ "items": [kind(follows)] }).to_string()));
    let (address, mut requests) = serve(connections).await;
    let line = format!("fleetward --quiet --token secret --controller {address} {line}");
    let result = crate::dispatch(Cli::try_parse_from(line.split(' ')).unwrap()).await;
    let mut asked = Vec::new();
    while let Ok(request) = requests.try_recv() {
        asked.push(request);
    }
    (result, asked)
}

#[tokio::test]
async fn all_that_answered_is_success_and_who_did_not_is_told() {
    let found = ("item", json!({ "host": "web-1", "key": "a", "item": { "name": "a", "state": "on" } }));
    let whole = ("host", json!({ "host": "web-1", "state": "complete" }));
    let away = ("host", json!({ "host": "web-2", "state": "offline", "detail": "since yesterday" }));
    let end = |answered: u32| ("end", json!({ "hosts": 2, "answered": answered }));
    for (events, exit) in [
        (vec![found.clone(), whole.clone(), end(2)], Exit::Success),
        (vec![found.clone(), whole.clone(), away, end(1)], Exit::Failed),
        (vec![found.clone(), ("news", json!(1)), end(1)], Exit::Failed),
    ] {
        for format in ["table", "json"] {
            let line = format!("ask things names=a names=b --on web-* --output {format}");
            let (result, asked) = ask(&line, false, &events).await;
            assert_eq!(result.unwrap(), exit, "{events:?}");
            assert!(asked[1].starts_with("POST /api/v1/queries HTTP/1.1\r\n"), "{}", asked[1]);
            let body = asked[1].split("\r\n\r\n").nth(1).unwrap();
            let body: Value = serde_json::from_str(body).unwrap();
            assert_eq!(body, json!({ "kind": "things", "params": { "names": ["a", "b"] }, "on": "web-*" }));
        }
    }
    let (_, asked) = ask("ask things --on all --skip-not-enrolled", false, &[]).await;
    assert!(asked[1].contains(r#""skip_not_enrolled":true"#), "{}", asked[1]);
}

#[tokio::test]
async fn an_answer_that_breaks_off_is_a_failure() {
    let (result, _) = ask("ask things --on all", false, &[]).await;
    let failure = result.unwrap_err();
    assert_eq!(failure.exit_code(), 4);
    assert!(crate::told(&failure).contains("ask again, that is always safe"), "{}", crate::told(&failure));
}

/// A controller that restarts is asked again, and the hosts that were followed are waited for.
#[tokio::test]
async fn a_follow_goes_on_over_another_connection() {
    let thing = |state: &str| {
        ("item", json!({ "host": "web-1", "key": "a", "item": { "name": "a", "state": state } }))
    };
    let host = |state: &str| ("host", json!({ "host": "web-1", "state": state }));
    let end = |answered: u32| ("end", json!({ "hosts": 1, "answered": answered }));
    let stopping = answer(
        "503 Service Unavailable",
        r#"{"error":"stopping","code":"STOPPING","timestamp":"2026-01-02T03:04:05.000Z"}"#,
    );
    let online = json!({ "items": [{
        "id": "01890000-0000-7000-8000-000000000001", "name": "web-1", "tenant": "default",
        "client_id": "LINKOPS-00000000-0000-4000-8000-000000000007", "type": "VM", "provider": "", "tags": [],
        "source": "api", "lifecycle": "active", "enrolment": "enrolled", "status": "online",
        "created_at": "2026-01-02T03:04:05.000Z", "last_seen": null,
    }] });
    for format in ["table", "json"] {
        let connections = vec![
            vec![stream(&[thing("on"), host("complete")])],
            vec![stopping.clone()],
            vec![stream(&[host("offline"), end(0)])],
            vec![
                answer("200 OK", &online.to_string()),
                stream(&[thing("off"), host("complete"), host("ended"), end(1)]),
            ],
        ];
        let line = format!("ask things --on web-1 --follow --output {format}");
        let (result, asked) = asks(&line, true, connections).await;
        assert_eq!(result.unwrap(), Exit::Success);
        let paths: Vec<&str> = asked.iter().map(|request| request.split(' ').nth(1).unwrap()).collect();
        let query = "/api/v1/queries";
        let looked_up = "/api/v1/hosts?on=web-1&limit=1000";
        assert_eq!(paths, ["/api/v1/kinds?limit=1000", query, query, query, looked_up, query], "{format}");
    }
    // What was never taken is not asked again.
    let (result, asked) = asks("ask things --on web-1 --follow", true, vec![vec![stopping]]).await;
    assert_eq!((result.unwrap_err().exit_code(), asked.len()), (4, 2));
}

#[tokio::test]
async fn what_cannot_be_is_refused_before_anything_is_asked() {
    for (line, told) in [
        ("ask thigns --on all", "did you mean `things`?"),
        ("do things --on all --yes", "`things` is a query: use `fleetward ask things`"),
        ("ask things nmaes=a --on all", "`nmaes` is not known; did you mean `names`?"),
        ("ask things nmaes=a --on all", "Usage: fleetward ask things [names=TEXT]… --on EXPR"),
        ("ask things --on all --follow", "`things` cannot be followed"),
    ] {
        let (result, asked) = ask(line, false, &[]).await;
        let failure = result.unwrap_err();
        assert_eq!(failure.exit_code(), 2, "{line}");
        assert!(failure.to_string().contains(told), "{line}: {failure}");
        assert_eq!(asked.len(), 1, "{line}: the kinds were asked for, and nothing else");
    }
}

#[test]
fn items_are_a_table_of_what_is_filled() {
    let mut items = Items::default();
    for each in [
        item("web-2", "b", json!({ "name": "b", "state": "off", "note": "", "size": 3 })),
        item("web-1", "a", json!({ "name": "a", "state": "\u{1b}[2J" })),
        item("web-1", "gone", json!({ "name": "gone", "state": "on" })),
        item("web-1", "gone", json!(null)),
    ] {
        items.item(each).unwrap();
    }
    expect![[r#"
        HOST   NAME  STATE  SIZE
        web-1  a     ␛[2J
        web-2  b     off    3
    "#]]
    .assert_eq(&items.table(&things(), &out()).0);
    items.item(item("web-1", "x", json!({ "state": "on" }))).unwrap();
    assert!(items.table(&things(), &out()).0.starts_with("HOST   KEY  NAME  STATE  SIZE\n"));
}

#[test]
fn what_changes_is_told_line_by_line() {
    let out = out();
    let fields = things();
    let mut changes = Changes::new(&out, &fields);
    for each in [
        item("web-1", "a", json!({ "name": "a", "state": "on" })),
        item("web-1", "a", json!({ "name": "a", "state": "on" })),
        item("web-1", "a", json!({ "name": "a", "state": "off", "note": "x\ny" })),
        item("web-1", "a", json!({ "name": "a", "state": "off" })),
        item("web-1", "a", json!(null)),
    ] {
        changes.item(each).unwrap();
    }
    expect![[r#"
        web-1  a  name=a state=on
        web-1  a  state=off (was on) note=x␊y
        web-1  a  note= (was x␊y)
        web-1  a  gone
    "#]]
    .assert_eq(&changes.text);
}

/// Hosts are told as they come, and what is no more there after they were asked again is gone.
#[test]
fn what_becomes_of_hosts_is_told_among_what_changes() {
    let out = Out::new(&Cli::parse_from(["fleetward", "--quiet", "version", "--color", "never"]).globals);
    let fields = things();
    let mut changes = Changes::new(&out, &fields);
    for key in ["a", "b"] {
        changes.item(item("web-1", key, json!({ "name": key, "state": "on" }))).unwrap();
    }
    changes.item(item("web-2", "c", json!({ "name": "c" }))).unwrap();
    changes.again().unwrap();
    changes.text.clear();
    changes.item(item("web-1", "b", json!({ "name": "b", "state": "off" }))).unwrap();
    assert_eq!(changes.text, "web-1  b  state=off (was on)\n");
    changes.text.clear();
    let told = changes.settled(&News::Followed("web-1".parse().unwrap()));
    assert_eq!(changes.text, "web-1  a  gone\n");
    assert_eq!(told.1, "web-1 told all there is now (1 item); what changes follows");
    let offline = News::Trouble(
        "web-2".parse().unwrap(),
        fleetward_api::work::query::QueryState::Offline,
        "x\ny".into(),
    );
    assert_eq!(changes.settled(&offline).1, "web-2 offline: x␊y");
}

/// Times and what is nested are told in words.
#[test]
fn times_are_shown_as_all_other_times_are() {
    let schema = json!({ "properties": {
        "at": { "type": "integer", "format": "unix-ms" },
        "deep": { "type": "object", "properties": { "since": { "type": "integer", "format": "unix-ms" } } },
    } });
    let fields = fields(schema.as_object().unwrap());
    let out = Out::new(&Cli::parse_from(["fleetward", "--utc", "version", "--color", "never"]).globals);
    let mut changes = Changes::new(&out, &fields);
    let at = 1_767_323_045_000_i64;
    changes.item(item("web-1", "a", json!({ "at": at, "deep": { "since": at } }))).unwrap();
    assert_eq!(changes.text, "web-1  a  at=2026-01-02 03:04:05 UTC deep.since=2026-01-02 03:04:05 UTC\n");
    let mut items = Items::default();
    let now = jiff::Timestamp::now().as_millisecond();
    items
        .item(item("web-1", "a", json!({ "at": now - 300_000, "deep": { "since": now - 7_300_000 } })))
        .unwrap();
    let table = items.table(&fields, &out).0;
    assert!(table.contains("AT") && table.contains("DEEP.SINCE"), "{table}");
    assert!(table.contains("5 min ago") && table.contains("2 h ago"), "{table}");
}
