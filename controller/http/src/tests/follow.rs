//! Following an operation: complete, exact across reconnects, ended at the end.

use std::collections::BTreeMap;

use axum::body::Body;
use axum::http::Request;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use fleetward_domain::work::operation::OperationStatus;
use fleetward_domain::work::run::RunState;
use fleetward_protocol::id::{OperationId, RunId};
use fleetward_protocol::output::Stream;
use fleetward_store::Scope;
use fleetward_store::work::operation as rows;
use futures_util::StreamExt as _;
use proptest::prelude::*;
use serde_json::Value;

use super::site::{TestSite, custody, moved, written};

/// A client that reads events until it hangs up or the stream ends.
pub(super) struct Client {
    body: axum::body::BodyDataStream,
    buffer: String,
    last_id: Option<String>,
}

#[derive(Debug)]
pub(super) struct Event {
    pub(super) kind: String,
    pub(super) data: Value,
}

impl Client {
    pub(super) async fn connect(site: &TestSite, path: &str, last_id: Option<&str>) -> Self {
        let mut request = Request::get(path).header("authorization", format!("Bearer {}", site.token));
        if let Some(id) = last_id {
            request = request.header("last-event-id", id);
        }
        let response = site.send(request.body(Body::empty()).unwrap()).await;
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        Self {
            body: response.into_body().into_data_stream(),
            buffer: String::new(),
            last_id: last_id.map(str::to_owned),
        }
    }

    /// The next event; `None` at the end of the stream.
    pub(super) async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some((block, rest)) = self.buffer.split_once("\n\n") {
                let (block, rest) = (block.to_owned(), rest.to_owned());
                self.buffer = rest;
                let mut event = Event { kind: String::new(), data: Value::Null };
                for line in block.lines() {
                    match line.split_once(": ") {
                        Some(("event", kind)) => event.kind = kind.to_owned(),
                        Some(("data", data)) => event.data = serde_json::from_str(data).unwrap(),
                        Some(("id", id)) => self.last_id = Some(id.to_owned()),
                        _ => {}
                    }
                }
                if !event.kind.is_empty() {
                    return Some(event);
                }
                continue;
            }
            let bytes = self.body.next().await?.unwrap();
            self.buffer.push_str(std::str::from_utf8(&bytes).unwrap());
        }
    }
}

fn output(event: &Event, run: RunId) -> Vec<u8> {
    if event.kind != "output" || event.data["run"] != run.to_string() {
        return Vec::new();
    }
    let pieces = event.data["pieces"].as_array().unwrap().iter();
    pieces
        .flat_map(|piece| match (&piece["text"], &piece["base64"]) {
            (Value::String(text), _) => text.clone().into_bytes(),
            (_, Value::String(encoded)) => STANDARD.decode(encoded).unwrap(),
            _ => Vec::new(),
        })
        .collect()
}

/// An operation on these hosts, all of whose runs are running.
async fn running(site: &TestSite, hosts: &[&str]) -> (OperationId, Vec<RunId>) {
    site.script("baseline").await;
    for host in hosts {
        site.enrolled_host(host).await;
    }
    let created = site.operation("all").await;
    let operation: OperationId = created["id"].as_str().unwrap().parse().unwrap();
    let runs = site.get(&format!("/api/v1/operations/{operation}/runs")).await;
    let runs: Vec<RunId> = runs["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|run| run["id"].as_str().unwrap().parse().unwrap())
        .collect();
    let mut writes = Vec::new();
    for &run in &runs {
        writes.push(moved(operation, run, RunState::Queued, RunState::Dispatched(custody())));
        writes.push(moved(operation, run, RunState::Dispatched(custody()), RunState::Running(custody())));
    }
    site.commit(writes).await;
    move_to(site, operation, OperationStatus::Running).await;
    (operation, runs)
}

/// Sets an operation's status, whatever the dispatcher has made of it meanwhile.
pub(super) async fn move_to(site: &TestSite, operation: OperationId, to: OperationStatus) {
    let mut tx = site.app.store().write().await.unwrap();
    let now = rows::get(&mut tx, &Scope::Everything, operation).await.unwrap();
    if now.status == to {
        return;
    }
    let seq = rows::update_status(&mut tx, operation, now.status, to, site.app.now()).await.unwrap().unwrap();
    tx.commit().await.unwrap();
    site.app.live().announce(operation, seq);
}

#[tokio::test]
async fn a_stream_tells_the_end_once_more_to_who_asks_again() {
    let site = TestSite::new().await;
    let (operation, runs) = running(&site, &["web-1"]).await;
    let mut client = Client::connect(&site, &format!("/api/v1/operations/{operation}/events"), None).await;
    let (first, second) = (client.next().await.unwrap(), client.next().await.unwrap());
    assert_eq!((first.kind.as_str(), second.kind.as_str()), ("run", "operation"));
    assert_eq!(first.data["state"], "running");

    let (write, _) = written(operation, runs[0], 0, &[(Stream::Stdout, b"hello\n")]);
    site.commit(vec![write]).await;
    let event = client.next().await.unwrap();
    assert_eq!(output(&event, runs[0]), b"hello\n");
    assert_eq!(event.data["host"], "web-1");

    site.commit(vec![moved(operation, runs[0], RunState::Running(custody()), RunState::Succeeded)]).await;
    move_to(&site, operation, OperationStatus::Success).await;
    let mut kinds = Vec::new();
    while let Some(event) = client.next().await {
        if event.kind == "end" {
            assert_eq!(event.data["status"], "success");
            assert_eq!(event.data["counts"], serde_json::json!([{ "state": "succeeded", "count": 1 }]));
        }
        kinds.push(event.kind);
    }
    assert_eq!(kinds.first().map(String::as_str), Some("run"));
    assert_eq!(kinds.last().map(String::as_str), Some("end"));
    // Asked again from the last id there is nothing but the end; P6 of the stream's law: then it closes.
    let path = format!("/api/v1/operations/{operation}/events");
    let mut again = Client::connect(&site, &path, client.last_id.as_deref()).await;
    let mut kinds = Vec::new();
    while let Some(event) = again.next().await {
        kinds.push(event.kind);
    }
    assert_eq!(kinds, ["operation", "end"]);
}

/// What is told of an operation is of one moment: its counts are those of the runs as they were told.
#[tokio::test]
async fn the_counts_of_an_operation_are_those_of_its_runs() {
    let site = TestSite::new().await;
    let names: Vec<String> = (0..30).map(|number| format!("web-{number}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let (operation, runs) = running(&site, &names).await;
    let mut client = Client::connect(&site, &format!("/api/v1/operations/{operation}/events"), None).await;
    let commits = async {
        for &run in &runs {
            site.commit(vec![moved(operation, run, RunState::Running(custody()), RunState::Succeeded)]).await;
        }
        move_to(&site, operation, OperationStatus::Success).await;
    };
    let reads = async {
        let mut states = BTreeMap::new();
        while let Some(Event { kind, data }) = client.next().await {
            if kind == "run" {
                states.insert(data["id"].to_string(), data["state"].as_str().unwrap().to_owned());
                continue;
            }
            let mut counts = BTreeMap::<_, u64>::new();
            states.values().for_each(|state| *counts.entry(state.as_str()).or_default() += 1);
            let told = data["counts"].as_array().unwrap().iter();
            let told =
                told.map(|of| (of["state"].as_str().unwrap(), of["count"].as_u64().unwrap())).collect();
            assert_eq!(counts, told, "{kind}");
        }
    };
    tokio::join!(commits, reads);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    /// However the runs end and wherever a client comes back, the stream's last event is the end, once, and then it
    /// closes.
    #[test]
    fn p20_the_stream_closes_at_the_end_and_not_before(
        ends in prop::collection::vec((any::<bool>(), 0..4_usize), 1..4),
        returns in prop::collection::vec(any::<prop::sample::Index>(), 0..3),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let site = TestSite::new().await;
            let names: Vec<String> = (0..ends.len()).map(|number| format!("web-{number}")).collect();
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            let (operation, runs) = running(&site, &names).await;
            let path = format!("/api/v1/operations/{operation}/events");
            let mut client = Client::connect(&site, &path, None).await;
            let mut ids = vec![None];
            for (&run, &(good, pieces)) in runs.iter().zip(&ends) {
                let mut offset = 0;
                for _ in 0..pieces {
                    let (write, end) = written(operation, run, offset, &[(Stream::Stdout, b"line\n")]);
                    offset = end;
                    site.commit(vec![write]).await;
                }
                let to = if good { RunState::Succeeded } else { RunState::TimedOut };
                site.commit(vec![moved(operation, run, RunState::Running(custody()), to)]).await;
            }
            // Every run has ended, and the operation not yet: the stream is open.
            let mut ended = 0;
            while ended < runs.len() {
                let event = client.next().await.expect("the stream closed before the operation's end");
                assert_ne!(event.kind, "end");
                ended += usize::from(event.kind == "run" && event.data["state"] != "running");
                ids.push(client.last_id.clone());
            }
            move_to(&site, operation, OperationStatus::Partial).await;
            let mut last = String::new();
            while let Some(event) = client.next().await {
                assert_ne!(last, "end", "something came after the end");
                last = event.kind;
                ids.push(client.last_id.clone());
            }
            assert_eq!(last, "end");
            for index in &returns {
                let mut again = Client::connect(&site, &path, index.get(&ids).as_deref()).await;
                let mut ends = 0;
                let mut last = String::new();
                while let Some(event) = again.next().await {
                    ends += usize::from(event.kind == "end");
                    last = event.kind;
                }
                assert_eq!((ends, last.as_str()), (1, "end"));
            }
        });
    }
}

#[tokio::test]
async fn a_stream_ends_with_the_controller_and_goes_on_elsewhere() {
    let site = TestSite::new().await;
    let (operation, _) = running(&site, &["web-1"]).await;
    let path = format!("/api/v1/operations/{operation}/events");
    let mut client = Client::connect(&site, &path, None).await;
    client.next().await.unwrap();
    site.stopping.cancel();
    while let Some(event) = client.next().await {
        assert_ne!(event.kind, "end");
    }
}

/// This process's own memory, in bytes, without the files that it maps (proc_pid_status(5)).
fn own_memory() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("RssAnon:")).unwrap();
    line.split_ascii_whitespace().nth(1).unwrap().parse::<usize>().unwrap() << 10
}

/// Readers that stop reading: the recorder goes on, others read on to the end, and what is kept for those who do not
/// read is bounded, however much there is for them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_that_stops_reading_slows_nobody_and_costs_little() {
    const PIECE: usize = 64 << 10;
    const PIECES: usize = 512;
    const READERS: usize = 32;
    let site = TestSite::new().await;
    let (operation, runs) = running(&site, &["web-1"]).await;
    let path = format!("/api/v1/operations/{operation}/events");
    let feed = site.app.recorder().feed(runs[0], operation, 0);
    let mut offset = 0;
    let mut write = async |pieces: usize| {
        for _ in 0..pieces {
            let mut bytes = Vec::new();
            let at = fleetward_store::testing::NOW;
            let payload = vec![b'x'; PIECE];
            fleetward_protocol::output::Record { stream: Stream::Stdout, at, payload: &payload }
                .append_to(&mut bytes);
            let length = bytes.len() as u64;
            feed.report(fleetward_protocol::session::SinkEvent::Output { offset, bytes: bytes.into() })
                .await
                .unwrap();
            offset += length;
        }
        let mut told = feed.watch();
        let committed = told.wait_for(|committed| committed.offset == offset);
        drop(
            tokio::time::timeout(std::time::Duration::from_secs(60), committed)
                .await
                .expect("it is committed"),
        );
    };
    // Half of it is there when they come: each would like to have all of that at once.
    write(PIECES / 2).await;
    let mut reader = Client::connect(&site, &path, None).await;
    let mut read = 0;
    while read < PIECE * PIECES / 2 {
        read += output(&reader.next().await.unwrap(), runs[0]).len();
    }
    let before = own_memory();
    let mut stuck = Vec::new();
    for _ in 0..READERS {
        let mut client = Client::connect(&site, &path, None).await;
        client.next().await.unwrap();
        stuck.push(client);
    }
    write(PIECES / 2).await;
    while read < PIECE * PIECES {
        read += output(&reader.next().await.unwrap(), runs[0]).len();
    }
    let grown = own_memory().saturating_sub(before);
    // The database's caches and the allocator's reserves are in it; what there is for the readers would be far more.
    let there = READERS * PIECES / 2 * PIECE;
    assert!(grown < there / 3, "{} of {} MiB for readers that do not read", grown >> 20, there >> 20);
    // One that reads again has missed nothing.
    let mut late = 0;
    while late < PIECE * PIECES {
        late += output(&stuck[0].next().await.unwrap(), runs[0]).len();
    }
}

#[tokio::test]
async fn what_is_no_event_id_is_refused() {
    let site = TestSite::new().await;
    let (operation, _) = running(&site, &["web-1"]).await;
    for text in ["x", "1-", "-1", "1-2-3", "99999999999999999999", "99999", "99999-2", "18446744073709551615"]
    {
        let answer =
            site.call("GET", &format!("/api/v1/operations/{operation}/events?after={text}"), None).await;
        assert_eq!(answer.code(), "INVALID_EVENT_ID", "{text}");
    }
}

#[tokio::test]
async fn the_fleet_is_followed() {
    let site = TestSite::new().await;
    let mut client = Client::connect(&site, "/api/v1/events", None).await;
    site.enrolled_host("web-1").await;
    let event = client.next().await.unwrap();
    assert_eq!((event.kind.as_str(), &event.data["name"]), ("host", &serde_json::json!("web-1")));
}

/// One append of a schedule: to which run, what, and whether it shares a commit with the one before.
type Append = (usize, Vec<u8>, bool);

fn schedule() -> impl Strategy<Value = (Vec<Append>, Vec<prop::sample::Index>)> {
    let bytes = prop_oneof![
        "[a-zäß€\n]{1,30}".prop_map(String::into_bytes),
        prop::collection::vec(any::<u8>(), 1..40),
    ];
    let appends = prop::collection::vec((0usize..3, bytes, any::<bool>()), 1..24);
    (appends, prop::collection::vec(any::<prop::sample::Index>(), 0..6))
}

#[test]
fn p19_output_is_complete_and_comes_once_whatever_connections_break() {
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig::with_cases(128));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let site = runtime.block_on(TestSite::new());
    let (_, runs) = runtime.block_on(running(&site, &["web-1", "web-2", "web-3"]));
    assert_eq!(runs.len(), 3);
    runner
        .run(&schedule(), |(appends, breaks)| {
            runtime.block_on(async {
                let created = site.operation("all").await;
                let operation: OperationId = created["id"].as_str().unwrap().parse().unwrap();
                let path = format!("/api/v1/operations/{operation}");
                let runs = site.get(&format!("{path}/runs")).await;
                let runs: Vec<RunId> = runs["items"]
                    .as_array()
                    .unwrap()
                    .iter()
                    .map(|run| run["id"].as_str().unwrap().parse().unwrap())
                    .collect();
                let mut writes = Vec::new();
                for &run in &runs {
                    writes.push(moved(operation, run, RunState::Queued, RunState::Dispatched(custody())));
                    writes.push(moved(
                        operation,
                        run,
                        RunState::Dispatched(custody()),
                        RunState::Running(custody()),
                    ));
                }
                site.commit(writes).await;
                let mut wanted = vec![Vec::new(); runs.len()];
                let mut ends = vec![0; runs.len()];
                let mut batch = Vec::new();
                for (at, bytes, joined) in appends {
                    wanted[at].extend_from_slice(&bytes);
                    let (write, end) = written(operation, runs[at], ends[at], &[(Stream::Stdout, &bytes)]);
                    ends[at] = end;
                    if !joined && !batch.is_empty() {
                        site.commit(std::mem::take(&mut batch)).await;
                    }
                    batch.push(write);
                }
                site.commit(batch).await;
                site.commit(
                    runs.iter()
                        .map(|&run| moved(operation, run, RunState::Running(custody()), RunState::Succeeded))
                        .collect(),
                )
                .await;
                move_to(&site, operation, OperationStatus::Success).await;

                let mut got = vec![Vec::new(); runs.len()];
                let mut last_id: Option<String> = None;
                let mut ended = false;
                for patience in breaks.iter().map(|index| index.index(12)).chain([usize::MAX]) {
                    let mut client =
                        Client::connect(&site, &format!("{path}/events"), last_id.as_deref()).await;
                    let mut taken = 0;
                    while taken < patience {
                        let Some(event) = client.next().await else { break };
                        taken += 1;
                        for (at, run) in runs.iter().enumerate() {
                            got[at].extend(output(&event, *run));
                        }
                        if event.kind == "run" && event.data["state"] == "succeeded" {
                            let at = runs.iter().position(|run| event.data["id"] == run.to_string()).unwrap();
                            assert_eq!(got[at], wanted[at], "the end came before the output");
                        }
                        ended |= event.kind == "end";
                    }
                    last_id = client.last_id.clone();
                }
                prop_assert!(ended);
                prop_assert_eq!(got, wanted);
                Ok(())
            })
        })
        .unwrap();
}
