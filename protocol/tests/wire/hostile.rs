//! Hostile bytes: an error or a message, never a panic, never more memory than the caps say.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use bytes::Bytes;
use fleetward_protocol::action::{Action, ActionRequest, KINDS};
use fleetward_protocol::client_id::ClientId;
use fleetward_protocol::enrol::{EnrolReply, EnrolRequest, Token};
use fleetward_protocol::message::{
    AgentMessage, ClientIdReport, ControllerMessage, OpenQuery, QueryUp, RunDown, RunUp, StreamKind,
};
use fleetward_protocol::order::{Authority, MAX_ORDER, Order, Plan, Sealed, Step};
use fleetward_protocol::output::Records;
use fleetward_protocol::query::{QUERY_KINDS, Query, read_item};
use fleetward_protocol::text::{List, Text, Word};
use fleetward_protocol::wire::{self, DecodeError};
use proptest::prelude::*;
use serde::{Serialize, de::DeserializeOwned};
use serde_bytes::ByteBuf;

use crate::{message, round_trip};

/// Counts what this thread holds, and the most it held.
struct Counting;

thread_local! {
    static HELD: Cell<isize> = const { Cell::new(0) };
    static PEAK: Cell<isize> = const { Cell::new(0) };
}

fn count(change: isize) {
    let _ = HELD.try_with(|held| {
        held.set(held.get() + change);
        let _ = PEAK.try_with(|peak| peak.set(peak.get().max(held.get())));
    });
}

// SAFETY: every call is passed on to the system's allocator unchanged; the counters never allocate.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size().cast_signed());
        // SAFETY: as the caller promised for this call.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count(-layout.size().cast_signed());
        // SAFETY: as the caller promised for this call.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// What `body` may cost: a length prefix is believed up to the largest frame, elements up to serde's 1 MiB, and
/// every byte that is really there may become a small value.
fn allowance(body: usize) -> isize {
    (wire::MAX_RUN_FRAME + (1 << 20) + 64 * body + 4096).cast_signed()
}

fn within_allowance<T>(body: usize, decode: impl FnOnce() -> T) -> T {
    let before = HELD.get();
    PEAK.set(before);
    let result = decode();
    let peak = PEAK.get() - before;
    assert!(peak <= allowance(body), "{body} bytes made {peak} bytes of memory");
    result
}

/// Decodes the bytes as everything there is. Whatever is accepted must be written back as the same bytes: no
/// two bodies mean the same, except where a message holds text that has several forms.
fn decode_as_everything(bytes: &[u8]) {
    canonical::<AgentMessage>(bytes, wire::MAX_CONTROL_FRAME);
    canonical::<ControllerMessage>(bytes, wire::MAX_CONTROL_FRAME);
    canonical::<StreamKind>(bytes, wire::MAX_RUN_FRAME);
    canonical::<ClientIdReport>(bytes, wire::MAX_CONTROL_FRAME);
    canonical::<RunDown>(bytes, wire::MAX_RUN_FRAME);
    canonical::<RunUp>(bytes, wire::MAX_RUN_FRAME);
    in_place(bytes);
    canonical::<OpenQuery>(bytes, wire::MAX_QUERY_FRAME);
    canonical::<QueryUp>(bytes, wire::MAX_QUERY_FRAME);
    canonical::<EnrolRequest>(bytes, wire::MAX_ENROL_FRAME);
    canonical::<EnrolReply>(bytes, wire::MAX_ENROL_FRAME);
    canonical::<Sealed>(bytes, MAX_ORDER);
    canonical::<Plan>(bytes, MAX_ORDER);
    let step = within_allowance(bytes.len(), || Step::decode(bytes));
    // Parameters are JSON: they are read with the same care.
    match step.map(|step| step.authority) {
        Ok(Authority::Run(request) | Authority::Rehearse(request)) => drop(Action::parse(&request)),
        Ok(Authority::Query(request)) => drop(Query::parse(&request)),
        _ => {}
    }
    let _ = within_allowance(2 * bytes.len(), || Order::open(bytes));
    within_allowance(bytes.len(), || Records::new(bytes).take_while(Result::is_ok).count());
    if let Ok(text) = str::from_utf8(bytes) {
        let _ = text.parse::<Token>();
        let _ = format!("fwt1_{text}").parse::<Token>();
        let _ = text.parse::<ClientId>();
        let _ = text.parse().map(|text: Text<_>| read_item(&text));
        for kind in QUERY_KINDS {
            let _ = Query::parse(&ActionRequest { kind: (*kind).to_owned(), params: text.to_owned() });
        }
        for kind in KINDS {
            let _ = Action::parse(&ActionRequest { kind: (*kind).to_owned(), params: text.to_owned() });
        }
    }
}

fn canonical<T: Serialize + DeserializeOwned>(bytes: &[u8], cap: usize) {
    let result = within_allowance(bytes.len(), || wire::decode::<T>(bytes, cap));
    match result {
        Ok(value) => assert_eq!(wire::encode(&value, cap).unwrap(), bytes, "two bodies for one value"),
        Err(DecodeError::TooLong { size, .. }) => assert!(size > cap),
        Err(DecodeError::Malformed(_) | DecodeError::Surplus(_)) => assert!(bytes.len() <= cap),
    }
}

/// What is read without being copied is what is read otherwise.
fn in_place(bytes: &[u8]) {
    let body = Bytes::copy_from_slice(bytes);
    for cap in [bytes.len().saturating_sub(1), bytes.len(), wire::MAX_RUN_FRAME] {
        let result = within_allowance(bytes.len(), || RunUp::decode(body.clone(), cap));
        let copied = wire::decode::<RunUp>(bytes, cap);
        if let Ok(RunUp::Output { bytes: output, .. }) = &result {
            assert!(output.is_empty() || body.as_ptr_range().contains(&output.as_ptr()), "copied");
        }
        let in_words = |error: DecodeError| error.to_string();
        assert_eq!(result.map_err(in_words), copied.map_err(in_words));
    }
}

fn valid_bodies() -> Vec<Vec<u8>> {
    fn all<T: Serialize>(messages: Vec<T>) -> impl Iterator<Item = Vec<u8>> {
        messages.into_iter().map(|message| wire::encode(&message, wire::MAX_RUN_FRAME).unwrap())
    }
    all(message::from_agent())
        .chain(all(message::from_controller()))
        .chain(all(message::run_down()))
        .chain(all(message::run_up()))
        .chain(all(message::open_queries()))
        .chain(all(message::query_up()))
        .chain(all(message::enrol_replies()))
        .chain(all(message::client_id_reports()))
        .chain(all(vec![message::enrol_request()]))
        .chain(all(vec![message::order(&message::step())]))
        .collect()
}

#[test]
fn every_truncation_and_every_surplus_byte_is_an_error() {
    fn check<T: Serialize + DeserializeOwned>(messages: Vec<T>) {
        for message in messages {
            let body = wire::encode(&message, wire::MAX_RUN_FRAME).unwrap();
            for end in 0..body.len() {
                assert!(wire::decode::<T>(&body[..end], wire::MAX_RUN_FRAME).is_err());
            }
            let longer = [&body[..], &[0]].concat();
            let result = wire::decode::<T>(&longer, wire::MAX_RUN_FRAME);
            assert!(matches!(result, Err(DecodeError::Surplus(1))));
        }
    }
    check(message::from_agent());
    check(message::from_controller());
    check(message::run_down());
    check(message::run_up());
    check(message::open_queries());
    check(message::query_up());
    check(message::enrol_replies());
    check(message::client_id_reports());
    check(message::stream_kinds());
    check(vec![message::enrol_request()]);
    check(vec![message::order(&message::step())]);
}

#[test]
fn an_unknown_variant_is_an_error() {
    for variant in [7u32, 100, u32::MAX] {
        let body = variant.to_le_bytes();
        assert!(wire::decode::<AgentMessage>(&body, wire::MAX_CONTROL_FRAME).is_err());
        assert!(wire::decode::<RunUp>(&body, wire::MAX_RUN_FRAME).is_err());
        assert!(wire::decode::<QueryUp>(&body, wire::MAX_QUERY_FRAME).is_err());
        assert!(wire::decode::<StreamKind>(&body, wire::MAX_RUN_FRAME).is_err());
    }
}

#[test]
fn a_length_that_lies_costs_no_more_than_the_caps() {
    for length in [1u64 << 20, 1 << 21, (1 << 21) + 4096, 1 << 32, 1 << 40, u64::MAX >> 1, u64::MAX] {
        for variant in 0u32..8 {
            for gap in [0usize, 1, 8, 16, 24, 33] {
                let mut body = variant.to_le_bytes().to_vec();
                body.extend(std::iter::repeat_n(0, gap));
                body.extend(length.to_le_bytes());
                decode_as_everything(&body);
            }
        }
    }
}

#[test]
fn a_frame_above_its_cap_is_refused_before_anything_is_allocated() {
    let cap = wire::MAX_CONTROL_FRAME;
    let prefix = |size: usize| u32::try_from(size).unwrap().to_le_bytes();
    assert_eq!(wire::frame_length(prefix(cap), cap).unwrap(), cap);
    assert!(matches!(wire::frame_length(prefix(cap + 1), cap), Err(DecodeError::TooLong { .. })));
    assert!(matches!(wire::frame_length([0xff; 4], cap), Err(DecodeError::TooLong { .. })));
    let long = vec![0; cap + 1];
    let peak = |before: isize| PEAK.get() - before;
    let before = HELD.get();
    PEAK.set(before);
    let refused = wire::decode::<AgentMessage>(&long, cap);
    assert!(peak(before) < 64, "{} bytes", peak(before));
    assert!(matches!(refused, Err(DecodeError::TooLong { .. })));
    let message = AgentMessage::Renew { csr: long };
    assert!(matches!(wire::frame(&message, cap), Err(wire::EncodeError::TooLong { .. })));
}

/// The largest messages that both ends make fit into their frames.
#[test]
fn the_largest_messages_fit() {
    use fleetward_protocol::facts::{Disk, Facts, MAX_LISTED};
    use fleetward_protocol::message::{Dispatch, Hello, MAX_FEATURES, MAX_HELD, MAX_KINDS, OpenRun};
    use fleetward_protocol::order::{
        MAX_CONTENTS, MAX_CONTENTS_TOTAL, MAX_SIGNATURE, MAX_SIGNATURES, Signature,
    };

    let AgentMessage::Hello(hello) = message::from_agent().remove(0) else { panic!("the hello comes first") };
    let word = Word::of("x".repeat(1000));
    let held = List::of(vec![hello.held[0]; MAX_HELD]);
    let kinds = List::of(vec![word.clone(); MAX_KINDS]);
    let features = List::of(vec![word.clone(); MAX_FEATURES]);
    let hello = AgentMessage::Hello(Hello { agent_version: word.clone(), held, kinds, features, ..hello });
    wire::frame(&hello, wire::MAX_CONTROL_FRAME).unwrap();
    let disk = Disk { mount: word.clone(), file_system: word.clone(), total: 1, available: 1 };
    let (disks, addresses) = (List::of(vec![disk; MAX_LISTED]), List::of(vec![word; MAX_LISTED]));
    let facts = AgentMessage::Facts(Box::new(Facts { disks, addresses, ..message::facts() }));
    wire::frame(&facts, wire::MAX_CONTROL_FRAME).unwrap();
    let RunDown::Open(open) = message::run_down().remove(0) else { panic!("the open comes first") };
    let content = ByteBuf::from(vec![0; MAX_CONTENTS_TOTAL / MAX_CONTENTS]);
    let contents = List::of(vec![content; MAX_CONTENTS]);
    let dispatch = Dispatch { order: vec![0; MAX_ORDER], contents, remaining_ms: 0 };
    let open = RunDown::Open(OpenRun { dispatch: Some(dispatch), ..open });
    let body = wire::encode(&open, wire::MAX_RUN_FRAME).unwrap();
    assert_eq!(wire::decode::<RunDown>(&body, wire::MAX_RUN_FRAME).unwrap(), open);
    let piece = RunUp::Output { offset: u64::MAX, bytes: vec![0; wire::MAX_OUTPUT_PIECE].into() };
    wire::frame(&piece, wire::MAX_RUN_FRAME).unwrap();

    // A query's order has no contents, and parameters of its own bound; with every signature that there may be.
    let params = "x".repeat(fleetward_protocol::query::MAX_PARAMS);
    let asked = ActionRequest { kind: "units".to_owned(), params };
    let step = Step { authority: Authority::Query(asked), contents: List::default(), ..message::step() };
    let signature = Signature { sshsig: vec![0; MAX_SIGNATURE] };
    let sealed = Sealed { signatures: List::of(vec![signature; MAX_SIGNATURES]), ..message::order(&step) };
    let open = OpenQuery { order: sealed.encode().unwrap(), remaining_ms: 0, follow: true };
    wire::frame(&open, wire::MAX_QUERY_FRAME).unwrap();
}

/// A host can put no line of its own into the controller's log, list or terminal: where a message has text, what is not
/// printable, or too long, makes it no message.
#[test]
fn text_that_is_not_one_printable_line_is_no_message() {
    let hello = wire::encode(&message::from_agent().remove(0), wire::MAX_CONTROL_FRAME).unwrap();
    let version = hello.windows(5).position(|part| part == b"1.2.3").unwrap();
    wire::decode::<AgentMessage>(&hello, wire::MAX_CONTROL_FRAME).unwrap();
    for forged in [b"1\n2.3", b"1\x1b[3m", b"1\x00.23", b"1\xc2\x9b2J"] {
        let mut hello = hello.clone();
        hello[version..version + 5].copy_from_slice(&forged[..5]);
        let refused = wire::decode::<AgentMessage>(&hello, wire::MAX_CONTROL_FRAME);
        assert!(matches!(refused, Err(DecodeError::Malformed(_))), "{refused:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn random_bytes(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        decode_as_everything(&bytes);
    }

    /// Random bytes behind a variant that exists get further.
    #[test]
    fn random_bytes_behind_a_variant(variant in 0u32..8, bytes in prop::collection::vec(0u8..4, 0..200)) {
        decode_as_everything(&[&variant.to_le_bytes()[..], &bytes].concat());
    }

    #[test]
    fn bent_messages(
        body in prop::sample::select(valid_bodies()),
        bends in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        end in prop::option::weighted(0.3, any::<prop::sample::Index>()),
    ) {
        let mut body = body;
        for (at, byte) in bends {
            *at.get_mut(&mut body[..]) = byte;
        }
        if let Some(end) = end {
            body.truncate(end.index(body.len() + 1));
        }
        decode_as_everything(&body);
    }

    /// A message that says another thing at another end of the range is still only that message.
    #[test]
    fn messages_of_one_kind_are_not_mistaken_for_a_surplus_of_another(
        up in round_trip::run_up(), down in round_trip::run_down(), seen in round_trip::query_up(),
        agent in round_trip::from_agent(), controller in round_trip::from_controller(),
    ) {
        decode_as_everything(&wire::encode(&up, wire::MAX_RUN_FRAME).unwrap());
        decode_as_everything(&wire::encode(&down, wire::MAX_RUN_FRAME).unwrap());
        decode_as_everything(&wire::encode(&seen, wire::MAX_RUN_FRAME).unwrap());
        decode_as_everything(&wire::encode(&agent, wire::MAX_RUN_FRAME).unwrap());
        decode_as_everything(&wire::encode(&controller, wire::MAX_RUN_FRAME).unwrap());
    }

    #[test]
    fn any_text_is_a_name_a_token_a_client_id_or_none(text in any::<String>()) {
        decode_as_everything(text.as_bytes());
    }
}
