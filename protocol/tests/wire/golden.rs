//! The golden bytes.

use std::fmt::{Debug, Write as _};

use expect_test::{expect, expect_file};
use fleetward_protocol::action::ActionRequest;
use fleetward_protocol::enrol::Token;
use fleetward_protocol::message::AgentMessage;
use fleetward_protocol::order::{Authority, Limits};
use fleetward_protocol::output::{Record, Stream};
use fleetward_protocol::time::Timestamp;
use fleetward_protocol::wire;
use serde::Serialize;

use crate::message;

#[test]
fn every_message_has_its_golden_bytes() {
    let mut text = String::new();
    section(&mut text, "AgentMessage", message::from_agent());
    section(&mut text, "ControllerMessage", message::from_controller());
    section(&mut text, "StreamKind", message::stream_kinds());
    section(&mut text, "ClientIdReport", message::client_id_reports());
    section(&mut text, "RunDown", message::run_down());
    section(&mut text, "RunUp", message::run_up());
    section(&mut text, "OpenQuery", message::open_queries());
    section(&mut text, "QueryUp", message::query_up());
    section(&mut text, "EnrolReply", message::enrol_replies());
    writeln!(text, "# EnrolRequest\n{}", bytes(&message::enrol_request())).unwrap();
    section(&mut text, "Authority", authorities());
    section(&mut text, "Limit", Limits::DEFAULT.to_list().into_vec());
    writeln!(text, "# Order\n{}", bytes(&message::order(&message::step()))).unwrap();
    writeln!(text, "# Token\n{}", message::token().reveal()).unwrap();
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/fleetward-1.txt");
    let released = std::fs::read_to_string(path).unwrap_or_default();
    let mut lines = text.lines();
    for line in released.lines() {
        assert!(
            lines.any(|now| now == line),
            "the bytes of a released message changed, and no blessing mends that: agents in the field send and \
             expect\n{line}\nAdd variants and messages at the end; change nothing."
        );
    }
    expect_file![path].assert_eq(&text);
}

/// Bytes worked out by hand from the format's definition, so that the golden file is not only the codec's word:
/// little-endian integers, enum variants as `u32`, lengths as `u64`, options as one byte, UUIDs as byte strings.
#[test]
fn the_format_is_the_one_of_bincode_1() {
    let messages = message::from_agent();
    assert_eq!(bytes(&messages[1]), "01000000 0100000000000000 0200000000000000".replace(' ', ""));
    assert_eq!(bytes(&messages[3]), "03000000 0200000000000000 c540".replace(' ', ""));
    assert_eq!(bytes(&messages[4]), "04000000 0200000000000000 c3a9".replace(' ', ""));
    assert_eq!(bytes(&messages[5]), "05000000");
    let runs = message::run_down();
    let id = "1000000000000000 01010101010101010101010101010101";
    assert_eq!(bytes(&runs[1]), format!("00000000 {id} 0000000000000000 00 00 00").replace(' ', ""));
    let dispatch = "01 0100000000000000 0d 0100000000000000 0200000000000000 2321 60ea000000000000";
    let (started, cancel) = ("01", "01 01000000");
    let open = format!("00000000 {id} 0500000000000000 {started} {cancel} {dispatch}");
    assert_eq!(bytes(&runs[0]), open.replace(' ', ""));
    let framed = wire::frame(&AgentMessage::Goodbye, wire::MAX_CONTROL_FRAME).unwrap();
    assert_eq!(framed, [4, 0, 0, 0, 5, 0, 0, 0]);
}

#[test]
fn the_output_log_has_its_golden_bytes() {
    let at = Timestamp::from_millis(0x0102_0304);
    let mut log = Vec::new();
    Record { stream: Stream::Stdout, at, payload: b"a" }.append_to(&mut log);
    Record { stream: Stream::Stderr, at, payload: b"bc" }.append_to(&mut log);
    Record { stream: Stream::Dropped, at, payload: &5u64.to_le_bytes() }.append_to(&mut log);
    Record { stream: Stream::Event, at, payload: b"{}" }.append_to(&mut log);
    Record { stream: Stream::Report, at, payload: b"{}" }.append_to(&mut log);
    expect![
        "0104030201000000000100000061020403020100000000020000006263030403020100000000080000000500000000000000040403020100000000020000007b7d050403020100000000020000007b7d"
    ]
    .assert_eq(&hex(&log));
}

#[test]
fn a_token_reads_back_and_hides_its_secret() {
    let token = message::token();
    let text = token.reveal();
    assert_eq!(text.parse::<Token>(), Ok(token.clone()));
    assert!(!format!("{token:?}").contains("7, 7"));
    for text in ["", "fwt1_", "fwt1_!", &text[1..], &text[..text.len() - 4], &format!("{text}AAAA")] {
        assert!(text.parse::<Token>().is_err(), "{text}");
    }
}

fn authorities() -> Vec<Authority> {
    let request = || ActionRequest { kind: "k".to_owned(), params: "{}".to_owned() };
    vec![
        Authority::Run(request()),
        Authority::Query(request()),
        Authority::Session(request()),
        Authority::Rehearse(request()),
    ]
}

fn section<T: Debug + Serialize>(text: &mut String, name: &str, messages: Vec<T>) {
    writeln!(text, "# {name}").unwrap();
    for message in messages {
        writeln!(text, "{message:?}\n  {}", bytes(&message)).unwrap();
    }
}

fn bytes<T: Serialize>(message: &T) -> String {
    hex(&wire::encode(message, wire::MAX_RUN_FRAME).unwrap())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
