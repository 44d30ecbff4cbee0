//! Queries over HTTP: who may ask, what is streamed, and how failures are told.

use std::time::Duration;

use axum::body::{Body, BodyDataStream};
use axum::http::{Request, StatusCode};
use fleetward_app::fleet::online::{HostCommand, Joined, Look, Newcomer, Seen};
use fleetward_domain::people::permission::Role;
use fleetward_protocol::id::{BootId, JournalId, TenantId};
use fleetward_protocol::order::{Authority, Order};
use fleetward_protocol::text::Text;
use fleetward_store::Scope;
use fleetward_store::fleet::host;
use fleetward_store::people::tenant;
use futures_util::StreamExt as _;
use serde_json::{Value, json};
use uuid::Uuid;

use super::site::{Answer, TestSite};

const SOON: Duration = Duration::from_secs(10);

async fn post(site: &TestSite, token: &str, body: &Value) -> axum::response::Response {
    let request = Request::post("/api/v1/queries")
        .header("authorization", format!("Bearer {token}"))
        .header("content-type", "application/json");
    site.send(request.body(Body::from(body.to_string())).unwrap()).await
}

/// A query to one host, by its address.
async fn get(site: &TestSite, token: &str, path: &str, accept: &str) -> axum::response::Response {
    let request = Request::get(format!("/api/v1/hosts/{path}"))
        .header("authorization", format!("Bearer {token}"))
        .header("accept", accept);
    site.send(request.body(Body::empty()).unwrap()).await
}

/// The answer to a query that is taken.
async fn ask(site: &TestSite, body: Value) -> Events {
    let response = post(site, &site.token, &body).await;
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    Events { body: response.into_body().into_data_stream(), text: String::new() }
}

/// Server-sent events as they come.
struct Events {
    body: BodyDataStream,
    text: String,
}

impl Events {
    /// The next one, and its data; `None` at the end.
    async fn next(&mut self) -> Option<(String, Value)> {
        loop {
            if let Some((event, rest)) = self.text.split_once("\n\n") {
                // What goes out so that the connection is kept is no event.
                if event.starts_with(':') {
                    self.text = rest.to_owned();
                    continue;
                }
                let field = |name: &str| {
                    event.lines().find_map(|line| line.strip_prefix(name)).unwrap().trim().to_owned()
                };
                let found = (field("event:"), serde_json::from_str(&field("data:")).unwrap());
                self.text = rest.to_owned();
                return Some(found);
            }
            let piece = tokio::time::timeout(SOON, self.body.next()).await.expect("it goes on soon")?;
            self.text.push_str(str::from_utf8(&piece.unwrap()).unwrap());
        }
    }
}

/// A host that is connected, as far as the fleet knows.
async fn connected(site: &TestSite, name: &str) -> Joined {
    let mut conn = site.app.store().read().await.unwrap();
    let found = host::get(&mut conn, &Scope::Everything, &name.parse().unwrap()).await.unwrap();
    let newcomer = Newcomer {
        host: found.id,
        tenant: tenant::DEFAULT,
        journal: JournalId::from_uuid(Uuid::from_u128(7)),
        boot: BootId::from_uuid(Uuid::nil()),
        remote: "192.0.2.7:1".parse().unwrap(),
        clock_skew_ms: 0,
    };
    site.app.fleet().join(newcomer, site.app.now())
}

/// What the host is asked next.
async fn look(host: &mut Joined) -> Look {
    match tokio::time::timeout(SOON, host.commands.recv()).await.expect("it is asked soon") {
        Some(HostCommand::Look(look)) => look,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn what_hosts_tell_is_streamed_and_the_rest_is_told() {
    let site = TestSite::new().await;
    site.enrolled_host("web-1").await;
    site.enrolled_host("web-2").await;
    let mut host = connected(&site, "web-1").await;
    let params = json!({ "states": ["failed"] });
    let mut events =
        ask(&site, json!({ "kind": "units", "on": "all", "params": params, "follow": true })).await;
    let Look { order, answers, follow, .. } = look(&mut host).await;
    assert!(follow && Order::open(&order).is_ok());
    // The test's clock stands still: this controller has just started.
    let (event, away) = events.next().await.unwrap();
    assert_eq!((event.as_str(), &away["host"], &away["state"]), ("host", &json!("web-2"), &json!("offline")));
    assert!(away["detail"].as_str().unwrap().contains("hosts are coming back; ask again"), "{away}");
    let fields = json!({ "active": "failed" }).as_object().cloned().unwrap();
    answers.send(Seen::Items(vec![(Text::of("a.service"), fields)])).await.unwrap();
    answers.send(Seen::Complete).await.unwrap();
    answers.send(Seen::Gone(vec![Text::of("a.service")])).await.unwrap();
    answers.send(Seen::Failed("it went away; ask again".into())).await.unwrap();
    let expected = [
        ("item", json!({ "host": "web-1", "key": "a.service", "item": { "active": "failed" } })),
        ("host", json!({ "host": "web-1", "state": "complete" })),
        ("item", json!({ "host": "web-1", "key": "a.service" })),
        ("host", json!({ "host": "web-1", "state": "failed", "detail": "it went away; ask again" })),
        ("end", json!({ "hosts": 2, "left_out": 0, "answered": 0 })),
    ];
    for (event, data) in expected {
        assert_eq!(events.next().await, Some((event.to_owned(), data)));
    }
    assert_eq!(events.next().await, None);
}

/// As an operation treats them: with the same words, and the same way to leave them out.
#[tokio::test]
async fn hosts_that_are_not_enrolled_can_be_left_out() {
    let site = TestSite::new().await;
    site.enrolled_host("web-1").await;
    site.call("POST", "/api/v1/hosts", Some(json!({ "name": "new-1", "type": "VM" }))).await;
    site.clock.advance(Duration::from_secs(60));
    for body in [
        json!({ "kind": "units", "on": "all" }),
        json!({ "kind": "units", "on": "new-1", "skip_not_enrolled": true }),
    ] {
        let refused = Answer::read(post(&site, &site.token, &body).await).await;
        assert_eq!((refused.status, refused.code().as_str()), (StatusCode::FORBIDDEN, "HOST_NOT_ENROLLED"));
        let message = refused.json()["error"].as_str().unwrap().to_owned();
        assert!(message.contains("new-1 (pending)") && message.contains("--skip-not-enrolled"), "{message}");
        assert!(message.contains("`fleetward host token new-1`"), "{message}");
    }
    let mut events = ask(&site, json!({ "kind": "units", "on": "all", "skip_not_enrolled": true })).await;
    let away = json!({ "host": "web-1", "state": "offline" });
    assert_eq!(events.next().await, Some(("host".to_owned(), away)));
    let end = json!({ "hosts": 1, "left_out": 1, "answered": 0 });
    assert_eq!(events.next().await, Some(("end".to_owned(), end)));
}

#[tokio::test]
async fn who_asks_too_often_is_told_how_often_one_may() {
    let site = TestSite::new().await;
    site.enrolled_host("web-1").await;
    let body = json!({ "kind": "units", "on": "web-1" });
    // However it is asked, it counts.
    for _ in 0..60 {
        assert_eq!(post(&site, &site.token, &body).await.status(), StatusCode::OK);
        let got = get(&site, &site.token, "web-1/queries/units", "*/*").await;
        assert_eq!(got.status(), StatusCode::OK);
    }
    let refused = Answer::read(get(&site, &site.token, "web-1/queries/units", "*/*").await).await;
    assert_eq!(refused.code(), "TOO_MANY_QUERIES");
    let refused = Answer::read(post(&site, &site.token, &body).await).await;
    assert_eq!(refused.code(), "TOO_MANY_QUERIES");
    let message = refused.json()["error"].as_str().unwrap().to_owned();
    assert!(message.contains("120 queries within a minute") && message.contains("again in 1 s"), "{message}");
}

/// The host is let go as soon as nobody listens: when the client hangs up, and when its login ends.
#[tokio::test]
async fn a_query_ends_with_its_request_and_with_its_login() {
    let site = TestSite::new().await;
    site.enrolled_host("web-1").await;
    let mut host = connected(&site, "web-1").await;
    let body = json!({ "kind": "units", "on": "web-1", "follow": true });
    let events = ask(&site, body.clone()).await;
    let looked = look(&mut host).await;
    drop(events);
    tokio::time::timeout(SOON, looked.answers.closed()).await.expect("nobody listens");

    let bob = site.login_as("bob", Role::Viewer).await;
    let response = post(&site, &bob, &body).await;
    assert_eq!(response.status(), StatusCode::OK, "a viewer may look");
    let looked = look(&mut host).await;
    assert_eq!(site.call_as(&bob, "POST", "/api/v1/auth/logout", None).await.status, StatusCode::NO_CONTENT);
    tokio::time::timeout(SOON, looked.answers.closed()).await.expect("nobody may listen");
    let mut events = Events { body: response.into_body().into_data_stream(), text: String::new() };
    assert_eq!(events.next().await, None, "without an `end` it was cut off");
}

/// The clock jumps this far, and what is due is done.
async fn pass(time: Duration) {
    tokio::time::pause();
    tokio::time::advance(time).await;
    tokio::time::resume();
    for _ in 0..50 {
        tokio::task::yield_now().await;
    }
}

/// A tab that sleeps keeps no places of hosts from others, and is told why it ended when it wakes up.
#[tokio::test]
async fn a_reader_that_stalls_lets_the_hosts_go() {
    let site = TestSite::new().await;
    site.enrolled_host("web-1").await;
    let mut host = connected(&site, "web-1").await;
    let mut events = ask(&site, json!({ "kind": "units", "on": "web-1", "follow": true })).await;
    let Look { answers, .. } = look(&mut host).await;
    answers.send(Seen::Complete).await.unwrap();
    assert_eq!(events.next().await.unwrap().1["state"], "complete");
    // Quiet hosts are no reader's fault.
    for _ in 0..25 {
        pass(Duration::from_secs(30)).await;
    }
    assert!(!answers.is_closed(), "nothing waits");
    // As much as goes anywhere.
    let gone = || Seen::Gone(vec![Text::of("a.service")]);
    while tokio::time::timeout(Duration::from_millis(300), answers.send(gone())).await.is_ok() {}
    let mut looks = 0;
    while !answers.is_closed() && looks < 20 {
        // A little more than from one look to the next: that one begins a moment after the clock's jump.
        pass(Duration::from_secs(31)).await;
        looks += 1;
    }
    assert!((9..=12).contains(&looks), "let go after {looks} half minutes");
    let (mut told, mut end) = (0, None);
    while let Some((event, data)) = events.next().await {
        told += u32::from(event == "item");
        end = Some((event, data));
    }
    let (event, end) = end.unwrap();
    assert!(event == "end" && told > 4, "{told} {end}");
    assert_eq!((&end["cut"], &end["answered"]), (&json!("unread"), &json!(1)));
    assert!(
        end["detail"].as_str().unwrap().contains("about 5 minutes, so the hosts were let go; ask again"),
        "{end}"
    );
}

/// That is as it should be: the host told all there was.
#[tokio::test]
async fn a_query_that_follows_for_as_long_as_it_may_says_so() {
    let site = TestSite::new().await;
    site.enrolled_host("web-1").await;
    site.enrolled_host("web-2").await;
    let (mut host, mut silent) = (connected(&site, "web-1").await, connected(&site, "web-2").await);
    let mut events = ask(&site, json!({ "kind": "units", "on": "all", "follow": true })).await;
    let (looked, _asked) = (look(&mut host).await, look(&mut silent).await);
    looked.answers.send(Seen::Complete).await.unwrap();
    assert_eq!(events.next().await.unwrap().1["state"], "complete");
    pass(Duration::from_secs(12 * 60 * 60)).await;
    tokio::time::timeout(SOON, looked.answers.closed()).await.expect("the hosts are let go");
    let (event, end) = events.next().await.unwrap();
    assert_eq!((event.as_str(), &end["cut"]), ("end", &json!("limit")));
    assert_eq!((&end["hosts"], &end["answered"]), (&json!(2), &json!(1)), "who told all is counted");
    assert!(end["detail"].as_str().unwrap().contains("12 hours at the most; ask again to go on"), "{end}");
    assert_eq!(events.next().await, None);
}

#[tokio::test]
async fn what_cannot_be_asked_is_refused_before_anything_is() {
    let site = TestSite::new().await;
    site.enrolled_host("web-1").await;
    let reporter = site.login_as("rita", Role::Reporter).await;
    let refused = async |token: &str, body: Value| {
        let answer = Answer::read(post(&site, token, &body).await).await;
        (answer.status, answer.code(), answer.json()["error"].as_str().unwrap().to_owned())
    };
    let units = json!({ "kind": "units", "on": "all" });
    let (status, code, _) = refused(&reporter, units.clone()).await;
    assert_eq!((status, code.as_str()), (StatusCode::FORBIDDEN, "FORBIDDEN"));
    for (body, status, code, told) in [
        (json!({ "kind": "unts", "on": "all" }), 404, "KIND_NOT_FOUND", "did you mean `units`?"),
        (json!({ "kind": "unit", "on": "all" }), 400, "NOT_A_QUERY", "`fleetward do`"),
        (
            json!({ "kind": "units", "on": "all", "params": { "types": ["x"] } }),
            400,
            "INVALID_QUERY",
            "unknown variant `x`",
        ),
        (json!({ "kind": "units", "on": "web-7" }), 400, "UNKNOWN_TARGETS", "web-7"),
        (json!({ "kind": "units", "on": "(" }), 400, "INVALID_TARGETS", "cannot be read"),
    ] {
        let (found, named, text) = refused(&site.token, body).await;
        assert_eq!((found.as_u16(), named.as_str()), (status, code), "{text}");
        assert!(text.contains(told), "{text}");
    }
}

/// What a host is asked by its address is what a `POST` asks of it, to the last byte, and so is what the audit log has of it.
#[tokio::test]
async fn a_query_string_asks_what_a_body_asks() {
    let site = TestSite::new().await;
    site.enrolled_host("web-1").await;
    let mut host = connected(&site, "web-1").await;
    for (query, body) in [
        (
            "units?states=failed&states=active&types=timer&pattern=ngin%3F*",
            json!({ "kind": "units", "params": { "states": ["failed", "active"], "types": ["timer"], "pattern": "ngin?*" } }),
        ),
        (
            "units?follow=true&types:=[%22socket%22]",
            json!({ "kind": "units", "params": { "types": ["socket"] }, "follow": true }),
        ),
        (
            "unit-log?lines=7&boot=-1&grep=a%2Bb+c%26",
            json!({ "kind": "unit-log", "params": { "lines": 7, "boot": -1, "grep": "a+b c&" } }),
        ),
        ("mounts?all=true&follow=false", json!({ "kind": "mounts", "params": { "all": true } })),
        ("host-status", json!({ "kind": "host-status" })),
    ] {
        let mut asked = Vec::new();
        for is_get in [true, false] {
            let response = if is_get {
                get(&site, &site.token, &format!("web-1/queries/{query}"), "*/*").await
            } else {
                let mut body = body.clone();
                body["on"] = json!("web-1");
                post(&site, &site.token, &body).await
            };
            if response.status() != StatusCode::OK {
                panic!("{query}: {:?}", Answer::read(response).await);
            }
            assert_eq!(response.headers()["content-type"], "text/event-stream");
            let look = look(&mut host).await;
            let Authority::Query(request) = Order::open(&look.order).unwrap().authority else {
                panic!("{query} is no query")
            };
            let mut event = site.get("/api/v1/audit?limit=1").await["items"][0].clone();
            for own in ["id", "seq", "at", "hash"] {
                event.as_object_mut().unwrap().remove(own);
            }
            asked.push((request, look.follow, event));
        }
        assert_eq!(asked[0], asked[1], "{query}");
        assert_eq!(asked[0].2["action"], "query.asked");
    }
}

#[tokio::test]
async fn answers_come_as_lines_where_those_are_asked_for() {
    let site = TestSite::new().await;
    site.enrolled_host("web-1").await;
    for is_get in [true, false] {
        let mut host = connected(&site, "web-1").await;
        let response = if is_get {
            get(&site, &site.token, "web-1/queries/units", "application/x-ndjson").await
        } else {
            let request = Request::post("/api/v1/queries")
                .header("authorization", format!("Bearer {}", site.token))
                .header("content-type", "application/json")
                .header("accept", "application/jsonl, text/event-stream;q=0.5");
            let body = json!({ "kind": "units", "on": "web-1" });
            site.send(request.body(Body::from(body.to_string())).unwrap()).await
        };
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(response.headers()["content-type"], "application/x-ndjson");
        assert_eq!(response.headers()["x-accel-buffering"], "no");
        let Look { answers, .. } = look(&mut host).await;
        let fields = json!({ "active": "failed\nb" }).as_object().cloned().unwrap();
        answers.send(Seen::Items(vec![(Text::of("a.service"), fields)])).await.unwrap();
        answers.send(Seen::Complete).await.unwrap();
        answers.send(Seen::Ended).await.unwrap();
        let text = String::from_utf8(Answer::read(response).await.bytes).unwrap();
        let told: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(
            told,
            [
                json!({ "event": "item", "data": { "host": "web-1", "key": "a.service", "item": { "active": "failed\nb" } } }),
                json!({ "event": "host", "data": { "host": "web-1", "state": "ended" } }),
                json!({ "event": "end", "data": { "hosts": 1, "left_out": 0, "answered": 1 } }),
            ]
        );
        assert!(text.ends_with('\n'));
    }
}

/// Lines have no `end` that a program has to look for: the body itself says that it was cut off.
#[tokio::test]
async fn lines_that_are_cut_off_end_as_a_broken_body() {
    let site = TestSite::new().await;
    site.enrolled_host("web-1").await;
    let mut host = connected(&site, "web-1").await;
    let bob = site.login_as("bob", Role::Viewer).await;
    let response = get(&site, &bob, "web-1/queries/units?follow=true", "application/x-ndjson").await;
    assert_eq!(response.status(), StatusCode::OK, "a viewer may look");
    let Look { answers, .. } = look(&mut host).await;
    answers.send(Seen::Complete).await.unwrap();
    let mut body = response.into_body().into_data_stream();
    let first = tokio::time::timeout(SOON, body.next()).await.expect("it comes soon").unwrap().unwrap();
    assert!(first.ends_with(b"\"state\":\"complete\"}}\n"), "{first:?}");
    assert_eq!(site.call_as(&bob, "POST", "/api/v1/auth/logout", None).await.status, StatusCode::NO_CONTENT);
    tokio::time::timeout(SOON, answers.closed()).await.expect("nobody may listen");
    let end = tokio::time::timeout(SOON, body.next()).await.expect("it ends soon");
    assert!(end.unwrap().is_err(), "a part is no whole");
}

#[tokio::test]
async fn what_cannot_be_asked_of_a_host_is_refused_before_anything_is() {
    let site = TestSite::new().await;
    site.enrolled_host("web-1").await;
    site.call("POST", "/api/v1/hosts", Some(json!({ "name": "new-1", "type": "VM" }))).await;
    let mut host = connected(&site, "web-1").await;
    let reporter = site.login_as("rita", Role::Reporter).await;
    let viewer = site.login_as("vera", Role::Viewer).await;
    for (token, path, status, code, told) in [
        (&reporter, "web-1/queries/units", 403, "FORBIDDEN", ""),
        (&viewer, "web-1/queries/file-read?path=/etc/shadow", 403, "FORBIDDEN", "ManageHosts"),
        (&site.token, "web-1/queries/unts?states=failed", 404, "KIND_NOT_FOUND", "did you mean `units`?"),
        (&site.token, "web-1/queries/unit?verb=stop", 400, "NOT_A_QUERY", "`fleetward do`"),
        (&site.token, "web-7/queries/units", 404, "HOST_NOT_FOUND", "web-7"),
        (&site.token, "all/queries/units", 404, "HOST_NOT_FOUND", "all"),
        (&site.token, "new-1/queries/units", 403, "HOST_NOT_ENROLLED", "new-1 (pending)"),
        (
            &site.token,
            "web-1/queries/units?state=failed",
            400,
            "UNKNOWN_PARAMETER",
            "`state` here; this address takes pattern, states, types, follow",
        ),
        (&site.token, "web-1/queries/units?on=all", 400, "UNKNOWN_PARAMETER", "`on`"),
        (&site.token, "web-1/queries/units?states.x=1", 400, "INVALID_QUERY", "`states` has no names in it"),
        (&site.token, "web-1/queries/units?states=faild", 400, "INVALID_QUERY", "did you mean `failed`?"),
        (&site.token, "web-1/queries/units?states:=[", 400, "INVALID_QUERY", "is no JSON"),
        (
            &site.token,
            "web-1/queries/units?pattern=a&pattern=b",
            400,
            "INVALID_QUERY",
            "`pattern` is given twice",
        ),
        (
            &site.token,
            "web-1/queries/units?follow=yes",
            400,
            "INVALID_QUERY",
            "`follow` is true or false, not `yes`",
        ),
        (&site.token, "web-1/queries/unit-log?lines=0", 400, "INVALID_QUERY", "lines"),
        (&site.token, "web-1/queries/unit-log?lines=many", 400, "INVALID_QUERY", "whole number"),
        (&site.token, "web-1/queries/unit-show", 400, "INVALID_QUERY", "`unit` is missing: text"),
        (&site.token, "web-1/queries/sites?follow=true", 400, "NOT_FOLLOWED", "ask without following"),
    ] {
        let answer = Answer::read(get(&site, token, path, "application/x-ndjson").await).await;
        assert_eq!((answer.status.as_u16(), answer.code().as_str()), (status, code), "{path}: {answer:?}");
        let text = answer.json()["error"].as_str().unwrap().to_owned();
        assert!(text.contains(told), "{path}: {text}");
    }
    assert!(host.commands.try_recv().is_err(), "nobody was asked");
}

#[tokio::test]
async fn hosts_of_another_tenant_are_not_there() {
    let site = TestSite::new().await;
    site.enrolled_host("web-1").await;
    let mut host = connected(&site, "web-1").await;
    let other = tenant::Tenant {
        id: TenantId::from_uuid(Uuid::now_v7()),
        name: "other".parse().unwrap(),
        title: "Other".to_owned(),
        created_at: site.app.now(),
    };
    let mut tx = site.app.store().write().await.unwrap();
    tenant::insert(&mut tx, &other).await.unwrap();
    tx.commit().await.unwrap();
    let stranger = site.login_in(other.id, "eve", Role::Admin).await;
    let answer = Answer::read(get(&site, &stranger, "web-1/queries/units", "*/*").await).await;
    assert_eq!((answer.status, answer.code().as_str()), (StatusCode::NOT_FOUND, "HOST_NOT_FOUND"));
    assert!(host.commands.try_recv().is_err(), "nobody was asked");
}

/// In a query string that name is taken.
#[tokio::test]
async fn no_kind_of_query_has_a_parameter_of_the_addresss_own() {
    let site = TestSite::new().await;
    for kind in site.app.queries().kinds() {
        let names: Vec<&String> =
            kind.parameters["properties"].as_object().into_iter().flatten().map(|(name, _)| name).collect();
        assert!(names.iter().all(|name| *name != "follow"), "{}: {names:?}", kind.name);
    }
}

/// A kind that nobody wrote a page for can be asked for with what this tells.
#[tokio::test]
async fn kinds_of_query_are_listed_with_those_of_action() {
    let site = TestSite::new().await;
    let kinds = site.get("/api/v1/kinds").await;
    let units = kinds["items"].as_array().unwrap().iter().find(|kind| kind["name"] == "units").unwrap();
    assert_eq!((&units["family"], &units["follows"]), (&json!("query"), &json!(true)));
    assert_eq!((&units["permission"], &units["timeout_s"]), (&json!("read_output"), &json!(30)));
    assert_eq!(units["answer"]["properties"]["active"]["type"], "string");
    assert!(units["parameters"]["properties"]["types"]["items"]["oneOf"].as_array().unwrap().len() == 11);
}
