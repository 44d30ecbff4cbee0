//! Asking hosts: what is sent, what is shown, and how it ends.

use clap::Parser as _;
use expect_test::expect;
use serde_json::json;

use super::*;
use crate::args::Cli;
use crate::client::double::{Step, answer, serve};

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

fn item(host: &str, key: &str, item: Value) -> QueryItem {
    serde_json::from_value(json!({ "host": host, "key": key, "item": item })).unwrap()
}

/// Runs a command against a controller that knows `things` and answers with `events`; what it was asked.
async fn ask(line: &str, follows: bool, events: &[(&str, Value)]) -> (Result<Exit, Failure>, Vec<String>) {
    let kinds = answer("200 OK", &json!({ "items": [kind(follows)] }).to_string());
    let mut text = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n: alive\n\n".to_owned();
    for (name, data) in events {
        text.push_str(&format!("event: {name}\ndata: {data}\n\n"));
    }
    let (address, mut requests) = serve(vec![vec![kinds, Step::Break(text)]]).await;
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
}

#[tokio::test]
async fn an_answer_that_breaks_off_is_a_failure() {
    let (result, _) = ask("ask things --on all", false, &[]).await;
    assert_eq!(result.unwrap_err().exit_code(), 4);
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
    let kind: Kind = serde_json::from_value(kind(false)).unwrap();
    expect![[r#"
        HOST   NAME  STATE  SIZE
        web-1  a     ␛[2J
        web-2  b     off    3
    "#]]
    .assert_eq(&items.table(&kind, &out()));
    items.item(item("web-1", "x", json!({ "state": "on" }))).unwrap();
    assert!(items.table(&kind, &out()).starts_with("HOST   KEY  NAME  STATE  SIZE\n"));
}

#[test]
fn what_changes_is_told_line_by_line() {
    let out = out();
    let mut changes = Changes::new(&out);
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
        web-1  a  note=x␊y state=off (was on)
        web-1  a  note= (was x␊y)
        web-1  a  gone
    "#]]
    .assert_eq(&changes.text);
}
