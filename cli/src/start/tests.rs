//! Ctrl-C while an operation is being asked for.

use clap::Parser as _;
use fleetward_protocol::time::Timestamp;
use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

use super::*;
use crate::args::Cli;
use crate::client::Client;
use crate::client::double::{Step, answer, open_gate, press_ctrl_c, serve_at_once};
use crate::client::trust::Trust;

fn operation(status: &str) -> String {
    let at = fleetward_api::time::Time::from(Timestamp::from_millis(0));
    json!({
        "id": OperationId::from_uuid(Uuid::nil()), "number": "OP-1", "on": "web-1", "left_out": 0, "dry_run": false,
        "rollout": {}, "steps": [], "status": status, "counts": [], "hosts": 1, "created_by": "ann",
        "created_at": at, "deadline": at, "seq": 1,
    })
    .to_string()
}

/// How it ends when Ctrl-C comes before the controller has answered, and what it was asked.
async fn interrupted(stop_on_interrupt: bool) -> (Result<Exit, Failure>, Vec<String>) {
    let body = operation("queued");
    let created = format!(
        "HTTP/1.1 201 Created\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    let end = format!("event: end\nid: 4\ndata: {}\n\n", operation("stopped"));
    let events = || Step::Break(format!("HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n{end}"));
    let open = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n".to_owned();
    let (address, mut requests) = serve_at_once(vec![
        // Answered only after Ctrl-C has come: the second request is the test's own.
        vec![Step::Await(String::new(), 2, created)],
        vec![Step::HangUp],
        // The events come when it is to be stopped.
        vec![Step::Await(open, 4, end.clone())],
        vec![answer("200 OK", &operation("running")), events()],
    ])
    .await;
    let globals = Cli::parse_from(["fleetward", "version", "--quiet"]).globals;
    let client = Client::new(address.clone(), Trust::System, Some("secret".to_owned())).unwrap();
    let app = App { client, out: Out::new(&globals) };
    let asked: OperationCreate = serde_json::from_value(json!({
        "id": OperationId::from_uuid(Uuid::nil()), "scripts": [{ "name": "work" }], "on": "web-1",
    }))
    .unwrap();
    let manner = Manner { yes: true, detach: false, stop_on_interrupt };
    let mut heard = signal(SignalKind::interrupt()).unwrap();
    let (told, mut answered) = mpsc::channel(1);
    let creates = async {
        let result = create(&app, &asked, vec!["web-1".to_owned()], "It", &manner, Instant::now()).await;
        told.send(()).await.unwrap();
        result
    };
    let mut all = Vec::new();
    let interrupts = async {
        all.push(requests.recv().await.unwrap());
        press_ctrl_c();
        heard.recv().await;
        if stop_on_interrupt {
            open_gate(&address).await;
        }
        answered.recv().await;
    };
    let (result, ()) = tokio::join!(creates, interrupts);
    while let Ok(request) = requests.try_recv() {
        all.push(request);
    }
    (result, all)
}

fn asks_for(requests: &[String], what: &str) -> bool {
    requests.iter().any(|request| request.starts_with(what))
}

#[tokio::test]
async fn an_interrupt_while_an_operation_is_asked_for_stops_it_when_it_is_there() {
    let (result, requests) = interrupted(true).await;
    assert!(
        asks_for(&requests, "POST /api/v1/operations/00000000-0000-0000-0000-000000000000/stop"),
        "{requests:?}"
    );
    assert_eq!(result.unwrap(), Exit::Stopped);
}

#[tokio::test]
async fn an_interrupt_while_an_operation_is_asked_for_leaves_and_says_so() {
    let (result, requests) = interrupted(false).await;
    assert_eq!(result.unwrap(), Exit::Interrupted);
    assert!(!asks_for(&requests, "POST /api/v1/operations/00000000-0000-0000-0000-000000000000/stop"));
}
