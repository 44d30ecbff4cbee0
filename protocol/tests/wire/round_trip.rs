//! Every message reads back, whatever it holds.

use std::collections::BTreeMap;

use fleetward_protocol::action::{Action, ActionRequest, script::Script};
use fleetward_protocol::client_id::ClientId;
use fleetward_protocol::digest::Digest;
use fleetward_protocol::enrol::{EnrolReply, Token, client_of_uri, identity_uri};
use fleetward_protocol::facts::{Disk, Facts, Upkeep};
use fleetward_protocol::id::{BootId, JournalId, RunId};
use fleetward_protocol::message::{
    AgentMessage, ClientIdReport, ControllerMessage, Dispatch, Finished, Hello, OpenRun, QueryItem, QueryUp,
    RunDown, RunUp, Welcome,
};
use fleetward_protocol::order::{Authority, MAX_ORDER, Order, Sealed, Step};
use fleetward_protocol::output::{MAX_RECORD, Record, Records, Stream};
use fleetward_protocol::run::{CancelCause, Fate, Left};
use fleetward_protocol::text::{List, Text};
use fleetward_protocol::time::Timestamp;
use fleetward_protocol::wire;
use proptest::prelude::*;
use serde::{Serialize, de::DeserializeOwned};
use serde_bytes::ByteBuf;
use uuid::Uuid;

use crate::message;

fn uuid() -> impl Strategy<Value = Uuid> {
    any::<u128>().prop_map(Uuid::from_u128)
}

fn run() -> impl Strategy<Value = RunId> {
    uuid().prop_map(RunId::from_uuid)
}

fn at() -> impl Strategy<Value = Timestamp> {
    any::<i64>().prop_map(Timestamp::from_millis)
}

fn bytes() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(any::<u8>(), 0..300)
}

fn client() -> impl Strategy<Value = ClientId> {
    ("[A-Za-z0-9_-]{0,32}", uuid()).prop_map(|(prefix, uuid)| format!("{prefix}{uuid}").parse().unwrap())
}

fn facts() -> impl Strategy<Value = Facts> {
    let text = || ".{0,20}";
    let disk =
        (text(), text(), any::<u64>(), any::<u64>()).prop_map(|(mount, file_system, total, available)| {
            Disk { mount: Text::of(&mount), file_system: Text::of(&file_system), total, available }
        });
    let texts = (text(), text(), text(), text(), text(), text());
    let numbers = (any::<u32>(), any::<u64>(), any::<u64>(), any::<u64>(), any::<u64>());
    let rest = (
        text(),
        text(),
        prop::collection::vec(disk, 0..4),
        prop::collection::vec(text(), 0..4),
        any::<[u32; 3]>(),
        any::<bool>(),
    );
    (texts, numbers, rest).prop_map(|(texts, numbers, rest)| Facts {
        hostname: Text::of(&texts.0),
        os: Text::of(&texts.1),
        os_version: Text::of(&texts.2),
        os_name: Text::of(&texts.3),
        kernel: Text::of(&texts.4),
        arch: Text::of(&texts.5),
        cpus: numbers.0,
        memory_total: numbers.1,
        memory_available: numbers.2,
        swap_total: numbers.3,
        uptime_s: numbers.4,
        cpu_model: Text::of(&rest.0),
        virtualisation: Text::of(&rest.1),
        disks: List::of(rest.2),
        addresses: List::of(rest.3.iter().map(Text::of)),
        load: rest.4,
        reboot_required: rest.5,
    })
}

pub(crate) fn from_agent() -> impl Strategy<Value = AgentMessage> {
    let hello = (
        ".{0,20}",
        (uuid(), uuid()),
        prop::collection::vec(".{0,12}", 0..4),
        prop::collection::vec(run(), 0..20),
        bytes(),
        at(),
    );
    prop_oneof![
        hello.prop_map(|(agent_version, (boot, journal), kinds, held, facts, clock)| {
            let (boot, journal) = (BootId::from_uuid(boot), JournalId::from_uuid(journal));
            AgentMessage::Hello(Hello {
                agent_version: Text::of(&agent_version),
                boot,
                journal,
                kinds: List::of(kinds.iter().map(Text::of)),
                features: List::of(kinds.iter().map(Text::of)),
                held: List::of(held),
                facts: Digest::of(&facts),
                clock,
            })
        }),
        (any::<u64>(), at()).prop_map(|(seq, clock)| AgentMessage::Heartbeat { seq, clock }),
        facts().prop_map(|facts| AgentMessage::Facts(Box::new(facts))),
        bytes().prop_map(|csr| AgentMessage::Renew { csr }),
        ".{0,40}".prop_map(|text| AgentMessage::Notice { text: Text::of(&text) }),
        Just(AgentMessage::Goodbye),
        any::<(Option<bool>, Option<u32>, Option<u32>)>().prop_map(
            |(time_synchronised, updates, security_updates)| {
                AgentMessage::Upkeep(Upkeep { time_synchronised, updates, security_updates })
            }
        ),
    ]
}

fn chain() -> impl Strategy<Value = Vec<ByteBuf>> {
    prop::collection::vec(bytes().prop_map(ByteBuf::from), 0..4)
}

pub(crate) fn from_controller() -> impl Strategy<Value = ControllerMessage> {
    let welcome = (".{0,20}", at(), any::<u32>(), any::<u32>(), any::<[bool; 2]>(), any::<u32>());
    prop_oneof![
        welcome.prop_map(
            |(controller_version, clock, heartbeat_ms, silence_ms, [quarantined, facts_known], keep_s)| {
                ControllerMessage::Welcome(Welcome {
                    controller_version: Text::of(&controller_version),
                    clock,
                    heartbeat_ms,
                    silence_ms,
                    quarantined,
                    features: List::of([Text::of(&controller_version)]),
                    facts_known,
                    keep_s,
                })
            }
        ),
        any::<u64>().prop_map(|seq| ControllerMessage::Heartbeat { seq }),
        prop::collection::vec(run(), 0..20)
            .prop_map(|runs| ControllerMessage::Forget { runs: List::of(runs) }),
        chain().prop_map(|chain| ControllerMessage::Renewed { chain }),
        ".{0,40}".prop_map(|reason| ControllerMessage::RenewRefused { reason: Text::of(&reason) }),
        prop::collection::vec(".{0,20}", 0..4).prop_map(|addresses| ControllerMessage::Controllers {
            addresses: List::of(addresses.iter().map(Text::of)),
        }),
        Just(ControllerMessage::Move),
    ]
}

pub(crate) fn run_down() -> impl Strategy<Value = RunDown> {
    let dispatch = (bytes(), chain(), any::<u64>()).prop_map(|(order, contents, remaining_ms)| Dispatch {
        order,
        contents: List::of(contents),
        remaining_ms,
    });
    let causes = [CancelCause::Requested, CancelCause::Halted, CancelCause::HostRevoked];
    let cancel = prop::option::of(prop::sample::select(causes.to_vec()));
    prop_oneof![
        (run(), any::<u64>(), any::<bool>(), cancel, prop::option::of(dispatch)).prop_map(
            |(run, offset, started, cancel, dispatch)| {
                RunDown::Open(OpenRun { run, offset, started, cancel, dispatch })
            }
        ),
        any::<u64>().prop_map(|offset| RunDown::Acknowledge { offset }),
        prop::sample::select(message::run_down()),
    ]
}

pub(crate) fn run_up() -> impl Strategy<Value = RunUp> {
    let left = prop::option::of((any::<u32>(), any::<u64>()).prop_map(|(processes, held_ms)| Left {
        processes,
        held_ms,
        fate: Fate::Unkept,
    }));
    let finished = (prop::sample::select(message::outcomes()), at(), any::<u64>(), any::<u64>(), left);
    prop_oneof![
        (any::<u64>(), bytes()).prop_map(|(offset, bytes)| RunUp::Output { offset, bytes: bytes.into() }),
        finished.prop_map(|(outcome, at, duration_ms, log_length, left)| {
            RunUp::Finished(Finished { outcome, at, duration_ms, log_length, left })
        }),
        at().prop_map(|at| RunUp::Started { at }),
        prop::sample::select(message::run_up()),
    ]
}

pub(crate) fn query_up() -> impl Strategy<Value = QueryUp> {
    let items = prop::collection::vec((".{0,20}", ".{0,60}"), 0..8).prop_map(|items| {
        let item = |(key, item): &(String, String)| QueryItem { key: Text::of(key), item: Text::of(item) };
        QueryUp::Items(List::of(items.iter().map(item)))
    });
    let gone = prop::collection::vec(".{0,20}", 0..8)
        .prop_map(|keys| QueryUp::Gone(List::of(keys.iter().map(Text::of))));
    prop_oneof![items, gone, prop::sample::select(message::query_up())]
}

/// Through a whole frame and back.
fn through<T: Serialize + DeserializeOwned>(message: &T, cap: usize) -> T {
    let frame = wire::frame(message, cap).unwrap();
    let (prefix, body) = frame.split_first_chunk::<4>().unwrap();
    assert_eq!(wire::frame_length(*prefix, cap).unwrap(), body.len());
    wire::decode(body, cap).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn agent_messages(message in from_agent()) {
        prop_assert_eq!(through(&message, wire::MAX_CONTROL_FRAME), message);
    }

    #[test]
    fn controller_messages(message in from_controller()) {
        prop_assert_eq!(through(&message, wire::MAX_CONTROL_FRAME), message);
    }

    #[test]
    fn run_messages(down in run_down(), up in run_up()) {
        prop_assert_eq!(through(&down, wire::MAX_RUN_FRAME), down);
        prop_assert_eq!(through(&up, wire::MAX_RUN_FRAME), up);
    }

    #[test]
    fn query_messages(up in query_up()) {
        prop_assert_eq!(through(&up, wire::MAX_QUERY_FRAME), up);
    }

    #[test]
    fn enrolment(secret in any::<[u8; 32]>(), root in bytes(), client in prop::option::of(client()), chain in chain()) {
        let token = Token { secret, root: Digest::of(&root), client: client.clone() };
        prop_assert_eq!(token.reveal().parse(), Ok(token));
        let reply = EnrolReply::Issued { chain, quarantined: client.is_some() };
        prop_assert_eq!(through(&reply, wire::MAX_ENROL_FRAME), reply);
        if let Some(client) = client {
            prop_assert_eq!(client_of_uri(&identity_uri(&client)), Some(client));
        }
    }

    #[test]
    fn a_client_id_report(line in ".{0,100}") {
        let report = ClientIdReport::Found(Text::of(&line));
        prop_assert_eq!(through(&report, wire::MAX_CONTROL_FRAME), report);
    }

    /// A step's bytes are canonical: they read back to the same step, that writes the same bytes, and so does its order.
    #[test]
    fn orders_are_canonical(
        arguments in prop::collection::vec("[^\0]{0,40}", 0..8),
        environment in prop::collection::btree_map("W[A-Z0-9_]{0,8}", "[^\0]{0,20}", 0..4),
    ) {
        let environment: BTreeMap<_, _> = environment;
        let script = Script { arguments, environment, ..message::script() };
        let authority = Authority::Run(ActionRequest::new(&script).unwrap());
        let step = Step { authority, ..message::step() };
        let bytes = step.encode().unwrap();
        prop_assert_eq!(&Step::decode(&bytes).unwrap(), &step);
        let sealed = message::order(&step);
        let order = Order::open(&sealed.encode().unwrap()).unwrap();
        prop_assert_eq!(&order.client, &message::client());
        let Authority::Run(request) = &order.authority else { panic!("{order:?}") };
        prop_assert_eq!(Action::parse(request), Ok(Action::Script(script)));
        prop_assert_eq!(wire::decode::<Sealed>(&sealed.encode().unwrap(), MAX_ORDER).unwrap(), sealed);
    }

    #[test]
    fn output_logs(
        records in prop::collection::vec((0..4_usize, at(), bytes()), 0..20),
        cut in any::<prop::sample::Index>(),
    ) {
        let stream = |kind| [Stream::Stdout, Stream::Stderr, Stream::Event, Stream::Report][kind];
        let mut log = Vec::new();
        for (kind, at, payload) in &records {
            Record { stream: stream(*kind), at: *at, payload }.append_to(&mut log);
        }
        let written: Vec<_> = records.iter().filter(|(_, _, payload)| !payload.is_empty()).collect();
        let read: Vec<_> = Records::new(&log).map(Result::unwrap).collect();
        prop_assert_eq!(read.len(), written.len());
        for (record, (kind, at, payload)) in read.iter().zip(written) {
            prop_assert_eq!(*record, Record { stream: stream(*kind), at: *at, payload });
        }
        // A log that is cut anywhere gives the whole records before the cut.
        let cut = &log[..cut.index(log.len() + 1)];
        let mut records = Records::new(cut);
        for (before, after) in records.by_ref().zip(&read) {
            prop_assert_eq!(&before.unwrap(), after);
        }
        prop_assert!(records.consumed() <= cut.len());
    }
}

#[test]
fn a_long_payload_is_split_into_records_that_readers_accept() {
    let payload = vec![b'x'; 3 * MAX_RECORD + 1];
    let mut log = Vec::new();
    Record { stream: Stream::Stdout, at: Timestamp::from_millis(0), payload: &payload }.append_to(&mut log);
    let lengths: Vec<_> = Records::new(&log).map(|record| record.unwrap().payload.len()).collect();
    assert_eq!(lengths, [MAX_RECORD, MAX_RECORD, MAX_RECORD, 1]);
}
