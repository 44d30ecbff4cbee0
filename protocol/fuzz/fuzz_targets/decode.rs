//! Bytes of any kind, decoded as every message, as an order, as an output log, as a token and as parameters.
#![no_main]

use fleetward_protocol::action::{Action, ActionRequest, KINDS};
use fleetward_protocol::client_id::ClientId;
use fleetward_protocol::enrol::{EnrolReply, EnrolRequest, Token};
use fleetward_protocol::message::{
    AgentMessage, ClientIdReport, ControllerMessage, OpenQuery, QueryUp, RunDown, RunUp, StreamKind,
};
use fleetward_protocol::event::{Event, check_report};
use fleetward_protocol::order::{Authority, MAX_ORDER, Order, Plan, Sealed, Step};
use fleetward_protocol::output::Records;
use fleetward_protocol::query::{QUERY_KINDS, Query, read_item};
use fleetward_protocol::wire;
use libfuzzer_sys::fuzz_target;

macro_rules! canonical {
    ($bytes:expr, $($message:ty: $cap:expr),* $(,)?) => {$(
        if let Ok(value) = wire::decode::<$message>($bytes, $cap) {
            let again = wire::encode(&value, $cap).expect("what was read can be written");
            assert_eq!(again, $bytes, "two bodies for one value");
        }
    )*};
}

fuzz_target!(|bytes: &[u8]| {
    canonical!(bytes,
        AgentMessage: wire::MAX_CONTROL_FRAME,
        ControllerMessage: wire::MAX_CONTROL_FRAME,
        StreamKind: wire::MAX_RUN_FRAME,
        ClientIdReport: wire::MAX_CONTROL_FRAME,
        RunDown: wire::MAX_RUN_FRAME,
        RunUp: wire::MAX_RUN_FRAME,
        OpenQuery: wire::MAX_QUERY_FRAME,
        QueryUp: wire::MAX_QUERY_FRAME,
        EnrolRequest: wire::MAX_ENROL_FRAME,
        EnrolReply: wire::MAX_ENROL_FRAME,
        Sealed: MAX_ORDER,
        Plan: MAX_ORDER,
    );
    match Step::decode(bytes).map(|step| step.authority) {
        Ok(Authority::Run(request) | Authority::Rehearse(request)) => drop(Action::parse(&request)),
        Ok(Authority::Query(request)) => drop(Query::parse(&request)),
        _ => {}
    }
    let _ = Order::open(bytes);
    let mut records = Records::new(bytes);
    while let Some(Ok(record)) = records.next() {
        let _ = record.dropped();
        let _ = (Event::decode(record.payload), check_report(record.payload));
    }
    assert!(records.consumed() <= bytes.len());
    if let Some((prefix, _)) = bytes.split_first_chunk::<4>() {
        let _ = wire::frame_length(*prefix, wire::MAX_CONTROL_FRAME);
    }
    if let Ok(text) = std::str::from_utf8(bytes) {
        let _ = text.parse::<Token>();
        let _ = text.parse::<ClientId>();
        let _ = text.parse().map(|text| read_item(&text));
        for kind in QUERY_KINDS {
            let _ = Query::parse(&ActionRequest { kind: (*kind).to_owned(), params: text.to_owned() });
        }
        for kind in KINDS {
            let _ = Action::parse(&ActionRequest { kind: (*kind).to_owned(), params: text.to_owned() });
        }
    }
});
