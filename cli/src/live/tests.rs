//! Following an operation over connections that break.

use clap::Parser as _;

use super::*;
use crate::args::Cli;
use crate::client::Client;
use crate::client::double::{Step, answer, header, open_gate, press_ctrl_c, serve, serve_at_once};
use crate::client::trust::Trust;
use crate::render::Out;

/// Notes what it is given.
#[derive(Debug, Default)]
struct Notes {
    events: Vec<String>,
    remarks: Vec<String>,
}

impl View for Notes {
    fn event(&mut self, event: &ServerEvent) -> Result<(), Failure> {
        self.events.push(format!("{} {}", event.name, event.data));
        Ok(())
    }

    fn flush(&mut self) -> Result<(), Failure> {
        Ok(())
    }

    fn tick(&mut self, _now: Instant) -> Result<(), Failure> {
        Ok(())
    }

    fn remark(&mut self, text: &str) -> Result<(), Failure> {
        self.remarks.push(text.to_owned());
        Ok(())
    }
}

fn stream(events: &str) -> Step {
    Step::Break(format!("HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n{events}"))
}

fn app(address: crate::client::address::Address) -> App {
    let globals = Cli::parse_from(["fleetward", "version"]).globals;
    let client = Client::new(address, Trust::System, Some("secret".to_owned())).unwrap();
    App { client, out: Out::new(&globals) }
}

fn ctrl_c(interrupt: Interrupt) -> Interrupts {
    Interrupts::listen(interrupt).unwrap()
}

fn following(until: Until) -> Following<'static> {
    Following { operation: "OP-1", host: None, until }
}

#[tokio::test]
async fn a_broken_stream_goes_on_after_the_last_whole_event() {
    let unavailable = answer(
        "503 Service Unavailable",
        r#"{"error":"stopping","code":"STOPPING","timestamp":"2026-01-02T03:04:05.000Z"}"#,
    );
    let (address, mut requests) = serve(vec![
        vec![stream(
            "event: run\nid: 1\ndata: a\n\n: alive\n\nevent: run\nid: 2.1\ndata: b\n\nevent: run\nid: 3\nda",
        )],
        vec![Step::HangUp],
        vec![unavailable],
        vec![stream("event: run\nid: 3\ndata: c\n\nevent: end\nid: 4\ndata: d\n\n")],
    ])
    .await;
    let mut notes = Notes::default();
    let ending =
        follow(&app(address), &following(Until::End), ctrl_c(Interrupt::Detach), &mut notes).await.unwrap();
    assert_eq!(ending, Ending::Ended);
    assert_eq!(notes.events, ["run a", "run b", "run c", "end d"]);
    assert_eq!(notes.remarks, ["connection lost, resuming", "resumed"]);
    let mut asked = Vec::new();
    while let Ok(request) = requests.try_recv() {
        asked.push(header(&request, "last-event-id"));
    }
    let after_b = Some("2.1".to_owned());
    assert_eq!(asked, [None, after_b.clone(), after_b.clone(), after_b]);
}

#[tokio::test]
async fn a_reader_that_has_caught_up_leaves() {
    let events = "event: run\nid: 6\ndata: a\n\nevent: output\nid: 7\ndata: b\n\n";
    let (address, _requests) = serve(vec![vec![Step::Answer(match stream(events) {
        Step::Break(text) => text,
        _ => String::new(),
    })]])
    .await;
    let mut notes = Notes::default();
    let ending = follow(&app(address), &following(Until::Sequence(7)), ctrl_c(Interrupt::Detach), &mut notes)
        .await
        .unwrap();
    assert_eq!(ending, Ending::CaughtUp);
    assert_eq!(notes.events, ["run a", "output b"]);
}

#[tokio::test]
async fn what_is_not_there_is_not_waited_for() {
    let body = r#"{"error":"no such operation","code":"NOT_FOUND","timestamp":"2026-01-02T03:04:05.000Z"}"#;
    let (address, _requests) = serve(vec![vec![answer("404 Not Found", body)]]).await;
    let failure =
        follow(&app(address), &following(Until::End), ctrl_c(Interrupt::Detach), &mut Notes::default())
            .await
            .unwrap_err();
    assert_eq!(failure.exit_code(), 2);
}

#[test]
fn a_position_passes_a_sequence_number_when_all_of_it_was_seen() {
    for (id, passed) in
        [("16", false), ("17", true), ("17.2", false), ("18.1", true), ("", false), ("x", false)]
    {
        assert_eq!(has_passed(id, 17), passed, "{id}");
    }
}

/// Ctrl-C while a connection is being opened stops the operation as at any other time, where that was asked for.
#[tokio::test]
async fn an_interrupt_while_the_stream_is_opened_is_not_lost() {
    let opened = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n".to_owned();
    let (address, mut requests) = serve_at_once(vec![
        // Opened only after Ctrl-C has come: the second request is the test's own.
        vec![Step::Await(String::new(), 2, opened)],
        vec![Step::HangUp],
        vec![answer("200 OK", "{}"), stream("event: end\nid: 4\ndata: d\n\n")],
        vec![stream("event: end\nid: 4\ndata: d\n\n")],
    ])
    .await;
    let app = app(address.clone());
    let mut heard = tokio::signal::unix::signal(SignalKind::interrupt()).unwrap();
    let mut notes = Notes::default();
    let (interrupts, until) = (ctrl_c(Interrupt::Stop), following(Until::End));
    let interrupted = async {
        assert!(requests.recv().await.unwrap().starts_with("GET /api/v1/operations/OP-1/events"));
        press_ctrl_c();
        heard.recv().await;
        // Whoever gave up does not open the gate.
        tokio::task::yield_now().await;
        open_gate(&address).await;
    };
    let (ending, ()) = tokio::join!(follow(&app, &until, interrupts, &mut notes), interrupted);
    assert_eq!(ending.unwrap(), Ending::Ended);
    assert_eq!(notes.remarks[0], "stopping; press Ctrl-C again to leave");
    let mut asked = Vec::new();
    while let Ok(request) = requests.try_recv() {
        asked.push(request);
    }
    assert!(
        asked.iter().any(|request| request.starts_with("POST /api/v1/operations/OP-1/stop")),
        "{asked:?}"
    );
}
