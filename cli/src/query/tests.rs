//! Asking hosts: what is sent, what is shown, and how it ends.

use clap::Parser as _;
use expect_test::expect;
use fleetward_api::work::kind::schema::Field;
use serde_json::{Value, json};

use super::*;
use crate::args::Cli;
use crate::client::double::{Step, answer, serve, serve_at_once};
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
    Step::Break(format!("{HEAD}{}", text(events)))
}

/// The same, where the last events come when so many requests have come.
fn stream_until(events: &[(&str, Value)], requests: usize, then: &[(&str, Value)]) -> Step {
    Step::Await(format!("{HEAD}{}", text(events)), requests, text(then))
}

const HEAD: &str = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n: alive\n\n";

fn text(events: &[(&str, Value)]) -> String {
    events.iter().map(|(name, data)| format!("event: {name}\ndata: {data}\n\n")).collect()
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
    for format in ["table", "json"] {
        let connections = vec![
            vec![stream(&[thing("on"), host("complete")])],
            vec![stopping.clone()],
            vec![stream(&[host("offline"), end(0)])],
            vec![
                hosts(&[("web-1", "enrolled", "online")]),
                stream(&[thing("off"), host("complete"), host("ended"), end(1)]),
            ],
        ];
        let line = format!("ask things --on web-1 --follow --output {format}");
        let (result, asked) = asks(&line, true, connections).await;
        assert_eq!(result.unwrap(), Exit::Success);
        let paths: Vec<&str> = asked.iter().map(|request| request.split(' ').nth(1).unwrap()).collect();
        let query = "/api/v1/queries";
        let looked_up = "/api/v1/targets/preview";
        assert_eq!(paths, ["/api/v1/kinds?limit=1000", query, query, query, looked_up, query], "{format}");
    }
    // What was never taken is not asked again.
    let (result, asked) = asks("ask things --on web-1 --follow", true, vec![vec![stopping]]).await;
    assert_eq!((result.unwrap_err().exit_code(), asked.len()), (4, 2));
}

/// Hosts that were looked up: name, enrolment, status.
fn hosts(hosts: &[(&str, &str, &str)]) -> Step {
    let host = |(name, enrolment, status): &(&str, &str, &str)| json!({ "name": name, "enrolment": enrolment, "status": status });
    let hosts: Vec<Value> = hosts.iter().map(host).collect();
    answer("200 OK", &json!({ "hosts": hosts, "online": 0, "not_enrolled": 0 }).to_string())
}

fn refused(status: &str, code: &str) -> Step {
    let at = "2026-01-02T03:04:05.000Z";
    answer(status, &json!({ "error": "no", "code": code, "timestamp": at }).to_string())
}

fn host(name: &str, state: &str) -> (&'static str, Value) {
    ("host", json!({ "host": name, "state": state }))
}

fn end(hosts: u32, answered: u32) -> (&'static str, Value) {
    ("end", json!({ "hosts": hosts, "answered": answered }))
}

/// Follows `web-*` of `things`; how it ended, what was asked, and of queries where.
async fn followed(mut connections: Vec<Vec<Step>>) -> (Result<Exit, Failure>, Vec<String>) {
    connections[0].insert(0, answer("200 OK", &json!({ "items": [kind(true)] }).to_string()));
    let (address, mut requests) = serve_at_once(connections).await;
    let line = format!(
        "fleetward --quiet --token secret --controller {address} ask things --on web-* --follow -o json"
    );
    let result = crate::dispatch(Cli::try_parse_from(line.split(' ')).unwrap()).await;
    let mut asked = Vec::new();
    while let Ok(request) = requests.try_recv() {
        let (head, body) = request.split_once("\r\n\r\n").unwrap();
        let path = head.split(' ').nth(1).unwrap().trim_start_matches("/api/v1/");
        let body: Value = serde_json::from_str(body).unwrap_or_default();
        asked.push(format!("{path} {}", body["on"].as_str().unwrap_or_default()).trim_end().to_owned());
    }
    (result, asked)
}

const KINDS: &str = "kinds?limit=1000";

/// While hosts are looked up and asked again, the others go on: their question stays open, and is not asked anew.
#[tokio::test]
async fn who_comes_back_is_asked_by_name_while_the_others_go_on() {
    let begun = [host("web-1", "complete"), host("web-2", "complete"), host("web-2", "failed")];
    let (result, asked) = followed(vec![
        vec![stream_until(&begun, 4, &[host("web-1", "ended"), end(2, 1)])],
        vec![
            hosts(&[("web-2", "enrolled", "online")]),
            stream(&[host("web-2", "complete"), host("web-2", "ended"), end(1, 1)]),
        ],
    ])
    .await;
    assert_eq!(asked, [KINDS, "queries web-*", "targets/preview name:web-2", "queries name:web-2"]);
    assert_eq!(result.unwrap(), Exit::Success);
}

/// A look-up that hangs holds nobody up.
#[tokio::test]
async fn what_is_told_is_taken_while_hosts_are_looked_up() {
    let begun = [host("web-1", "complete"), host("web-2", "complete"), host("web-2", "failed")];
    let back = [host("web-1", "ended"), host("web-2", "complete"), host("web-2", "ended"), end(2, 2)];
    let never = Step::Await(String::new(), usize::MAX, String::new());
    let began = std::time::Instant::now();
    let (result, asked) = followed(vec![vec![stream_until(&begun, 3, &back)], vec![never]]).await;
    assert_eq!((result.unwrap(), asked.len()), (Exit::Success, 3));
    assert!(began.elapsed() < crate::live::LOOK_UP_WITHIN, "it was waited for");
}

/// Of several hosts some may not be asked any more: that is their answer, and the others are asked by name.
#[tokio::test]
async fn a_refusal_when_asking_again_is_the_answer_of_those_whom_it_is_about() {
    for (status, code) in [
        ("403 Forbidden", "HOST_NOT_ENROLLED"),
        ("400 Bad Request", "UNKNOWN_TARGETS"),
        ("409 Conflict", "CONFLICT"),
        ("404 Not Found", "HOST_NOT_FOUND"),
    ] {
        let begun = ["web-1", "web-2", "web-3"].map(|name| host(name, "complete"));
        let (result, asked) = followed(vec![
            vec![stream(&begun)],
            vec![refused(status, code)],
            vec![
                hosts(&[("web-1", "enrolled", "online"), ("web-2", "revoked", "online")]),
                stream(&[host("web-1", "complete"), host("web-1", "ended"), end(1, 1)]),
            ],
        ])
        .await;
        assert_eq!(result.unwrap(), Exit::Failed, "web-2 and web-3 are told");
        let all = "targets/preview name:web-1 | name:web-2 | name:web-3";
        assert_eq!(asked, [KINDS, "queries web-*", "queries web-*", all, "queries name:web-1"], "{code}");
    }
    // The next time it is about a host that was left out before, or has never answered.
    let begun = ["web-1", "web-2"].map(|name| host(name, "complete"));
    let (result, asked) = followed(vec![
        vec![stream(&begun)],
        vec![refused("403 Forbidden", "HOST_NOT_ENROLLED")],
        vec![
            hosts(&[("web-1", "enrolled", "online"), ("web-2", "revoked", "online")]),
            stream(&[
                host("web-1", "complete"),
                ("end", json!({ "hosts": 1, "answered": 1, "cut": "unread" })),
            ]),
        ],
        vec![refused("403 Forbidden", "HOST_NOT_ENROLLED")],
        vec![
            hosts(&[("web-1", "enrolled", "online")]),
            stream(&[host("web-1", "complete"), host("web-1", "ended"), end(1, 1)]),
        ],
    ])
    .await;
    assert_eq!(result.unwrap(), Exit::Failed, "web-2 is told");
    assert_eq!(asked[5..], ["queries web-*", "targets/preview name:web-1", "queries name:web-1"]);
    // All are there and may be asked: it is about whoever asks.
    let begun = [host("web-1", "complete")];
    let (result, _) = followed(vec![
        vec![stream(&begun)],
        vec![refused("403 Forbidden", "FORBIDDEN")],
        vec![hosts(&[("web-1", "enrolled", "online")])],
    ])
    .await;
    assert_eq!(result.unwrap_err().exit_code(), 3);
}

/// One that left the inventory does not hide the others that are missing.
#[tokio::test]
async fn a_host_that_left_the_inventory_is_told_and_the_others_are_waited_for() {
    let begun = [
        host("web-1", "complete"),
        host("web-2", "complete"),
        host("web-1", "failed"),
        host("web-2", "failed"),
        end(2, 0),
    ];
    let (result, asked) = followed(vec![
        vec![stream(&begun)],
        vec![
            hosts(&[("web-2", "enrolled", "online")]),
            stream(&[host("web-2", "complete"), host("web-2", "ended"), end(1, 1)]),
        ],
    ])
    .await;
    assert_eq!(asked[3], "queries name:web-2");
    assert_eq!(result.unwrap(), Exit::Failed);
}

/// What is refused to one host while the others are followed is told as its answer.
#[tokio::test]
async fn who_is_refused_when_asked_by_name_is_not_asked_again() {
    let begun = [host("web-1", "complete"), host("web-2", "complete"), host("web-2", "failed")];
    let (result, asked) = followed(vec![
        vec![stream_until(&begun, 4, &[host("web-1", "ended"), end(2, 1)])],
        vec![hosts(&[("web-2", "enrolled", "online")]), refused("403 Forbidden", "HOST_NOT_ENROLLED")],
    ])
    .await;
    assert_eq!((result.unwrap(), asked.len()), (Exit::Failed, 4));
}

/// The controller's own ends: after twelve hours it is enough, and whoever read nothing asks again.
#[tokio::test]
async fn an_end_before_the_hosts_own_says_what_it_is() {
    let cut = |cut: &str, answered: u32| {
        ("end", json!({ "hosts": 2, "answered": answered, "cut": cut, "detail": "ask again" }))
    };
    let begun = [host("web-1", "complete"), host("web-2", "complete")];
    let with = |last| [begun.as_slice(), &[last]].concat();
    let (result, asked) = followed(vec![vec![stream(&with(cut("limit", 2)))]]).await;
    assert_eq!((result.unwrap(), asked.len()), (Exit::Success, 2));
    let missed = [host("web-1", "complete"), cut("limit", 1)];
    let (result, _) = followed(vec![vec![stream(&missed)]]).await;
    assert_eq!(result.unwrap(), Exit::Failed, "web-2 told nothing");
    let whole = [begun.as_slice(), &[host("web-1", "ended"), host("web-2", "ended"), end(2, 2)]].concat();
    let (result, asked) = followed(vec![vec![stream(&with(cut("unread", 2)))], vec![stream(&whole)]]).await;
    assert_eq!(asked, [KINDS, "queries web-*", "queries web-*"]);
    assert_eq!(result.unwrap(), Exit::Success);
    // Whoever does not follow has only a part.
    let (result, _) = ask("ask things --on all --output json", false, &with(cut("unread", 2))).await;
    assert_eq!(result.unwrap(), Exit::Failed);
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
    changes.again(None).unwrap();
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

/// Hosts that are asked again tell their last entries once more: what was told is not told twice.
#[test]
fn entries_are_told_once_and_as_they_come() {
    let out = out();
    let fields = things();
    let mut entries = Entries::new(&out, flat_lines(&fields, &out));
    let followed = |entries: &mut Entries<'_, _>| entries.settled(&News::Followed("web-1".parse().unwrap()));
    for key in ["b", "a"] {
        entries.item(item("web-1", key, json!({ "name": key, "state": "x\ny" }))).unwrap();
    }
    // The same once more is another entry, unless its host was asked again.
    entries.item(item("web-2", "c", json!({ "name": "c" }))).unwrap();
    assert_eq!(
        entries.text,
        "web-1  name=b state=x\u{240a}y\nweb-1  name=a state=x\u{240a}y\nweb-2  name=c\n"
    );
    assert!(followed(&mut entries).is_none());
    entries.text.clear();
    entries.again(Some(&["web-1".parse().unwrap()].into())).unwrap();
    for key in ["b", "a", "d"] {
        entries.item(item("web-1", key, json!({ "name": key }))).unwrap();
    }
    assert_eq!(entries.text, "web-1  name=d\n");
    assert!(followed(&mut entries).is_none(), "nothing is missing");
    // More was written meanwhile than is told.
    entries.again(None).unwrap();
    entries.item(item("web-1", "z", json!({ "name": "z" }))).unwrap();
    let told = followed(&mut entries).unwrap().1;
    assert!(told.contains("web-1 is back; of what was written meanwhile only the last is told"), "{told}");
}

/// As many as a host may tell at once, and as many again when it is asked again: what was told is not told twice.
#[test]
fn the_longest_log_is_told_once() {
    let out = out();
    let mut told = Vec::new();
    {
        let write =
            |_: &HostName, item: &Map<String, Value>, _: &mut String| told.push(item["n"].as_u64().unwrap());
        let mut entries = Entries::new(&out, write);
        assert!(entries::RECENT >= fleetward_protocol::query::unit_log::MAX_LINES as usize);
        let most = entries::RECENT as u64;
        let tell = |entries: &mut Entries<'_, _>, from: u64| {
            for n in from..from + most {
                entries.item(item("web-1", &n.to_string(), json!({ "n": n }))).unwrap();
            }
        };
        tell(&mut entries, 0);
        for from in [100, 5000] {
            entries.again(None).unwrap();
            tell(&mut entries, from);
            assert!(entries.settled(&News::Followed("web-1".parse().unwrap())).is_none());
        }
    }
    let all: Vec<u64> = (0..entries::RECENT as u64 + 5000).collect();
    assert!(told == all, "{} entries of {}", told.len(), all.len());
}

/// What a kind shows decides how it is told.
#[tokio::test]
async fn entries_are_asked_for_like_everything_else() {
    let mut entries = kind(true);
    entries["shows"] = json!("entries");
    let events = [
        ("item", json!({ "host": "web-1", "key": "a", "item": { "name": "a" } })),
        host("web-1", "complete"),
        host("web-1", "ended"),
        end(1, 1),
    ];
    for follow in ["", " --follow"] {
        let kinds = answer("200 OK", &json!({ "items": [entries] }).to_string());
        let (address, _requests) = serve(vec![vec![kinds, stream(&events)]]).await;
        let line =
            format!("fleetward --quiet --token secret --controller {address} ask things --on web-1{follow}");
        let result = crate::dispatch(Cli::try_parse_from(line.split(' ')).unwrap()).await;
        assert_eq!(result.unwrap(), Exit::Success);
    }
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
    let one = items.table(&fields, &out).0;
    assert!(one.starts_with("host        web-1\nat          5 min ago\ndeep.since  2 h ago\n"), "{one}");
    items.item(item("web-2", "a", json!({ "at": now }))).unwrap();
    let table = items.table(&fields, &out).0;
    assert!(table.contains("AT") && table.contains("DEEP.SINCE"), "{table}");
    assert!(table.contains("5 min ago") && table.contains("2 h ago"), "{table}");
}
