//! Every message there is, with values that are easy to recognise in bytes.

use fleetward_protocol::action::{ActionRequest, script::Script};
use fleetward_protocol::client_id::ClientId;
use fleetward_protocol::digest::Digest;
use fleetward_protocol::enrol::{EnrolRefusal, EnrolReply, EnrolRequest, Token};
use fleetward_protocol::facts::{Disk, Facts, Upkeep};
use fleetward_protocol::id::{BootId, JournalId, OperationId, RunId};
use fleetward_protocol::message::{
    AgentMessage, ClientIdReport, ControllerMessage, Dispatch, Finished, Hello, OpenQuery, OpenRun,
    QueryItem, QueryUp, RunDown, RunUp, StreamKind, Welcome,
};
use fleetward_protocol::order::{Authority, Draft, Limits, Planned, Sealed, Signature, Step, Target};
use fleetward_protocol::run::{CancelCause, Fate, Left, LostCause, Outcome, Refusal};
use fleetward_protocol::text::{List, Text};
use fleetward_protocol::time::Timestamp;
use serde_bytes::ByteBuf;
use uuid::Uuid;

fn uuid(byte: u8) -> Uuid {
    Uuid::from_bytes([byte; 16])
}

fn run(byte: u8) -> RunId {
    RunId::from_uuid(uuid(byte))
}

fn at(millis: i64) -> Timestamp {
    Timestamp::from_millis(millis)
}

pub(crate) fn client() -> ClientId {
    ClientId::issued(uuid(0x11))
}

pub(crate) fn facts() -> Facts {
    Facts {
        hostname: Text::of("web-1"),
        os: Text::of("debian"),
        os_version: Text::of("12"),
        os_name: Text::of("Debian"),
        kernel: Text::of("6.1"),
        arch: Text::of("x86_64"),
        cpu_model: Text::of("cpu"),
        cpus: 2,
        memory_total: 3,
        memory_available: 4,
        swap_total: 5,
        disks: List::of([Disk {
            mount: Text::of("/"),
            file_system: Text::of("ext4"),
            total: 6,
            available: 7,
        }]),
        addresses: List::of([Text::of("192.0.2.1")]),
        uptime_s: 8,
        virtualisation: Text::of("kvm"),
        load: [9, 10, 11],
        reboot_required: true,
    }
}

pub(crate) fn from_agent() -> Vec<AgentMessage> {
    vec![
        AgentMessage::Hello(Hello {
            agent_version: Text::of("1.2.3"),
            boot: BootId::from_uuid(uuid(0xb0)),
            journal: JournalId::from_uuid(uuid(0x10)),
            kinds: List::of([Text::of("script")]),
            features: List::of([Text::of("move")]),
            held: List::of([run(1), run(2)]),
            facts: Digest::of(b""),
            clock: at(-1),
        }),
        AgentMessage::Heartbeat { seq: 1, clock: at(2) },
        AgentMessage::Facts(Box::new(facts())),
        AgentMessage::Renew { csr: vec![0xc5, 0x40] },
        AgentMessage::Notice { text: Text::of("é") },
        AgentMessage::Goodbye,
        AgentMessage::Upkeep(Upkeep {
            time_synchronised: Some(true),
            updates: Some(7),
            security_updates: None,
        }),
    ]
}

pub(crate) fn from_controller() -> Vec<ControllerMessage> {
    vec![
        ControllerMessage::Welcome(Welcome {
            controller_version: Text::of("1.2.3"),
            clock: at(1),
            heartbeat_ms: 3000,
            silence_ms: 9000,
            quarantined: false,
            features: List::of([Text::of("move")]),
            facts_known: true,
            keep_s: 3600,
        }),
        ControllerMessage::Heartbeat { seq: 1 },
        ControllerMessage::Forget { runs: List::of([run(1)]) },
        ControllerMessage::Renewed { chain: vec![ByteBuf::from([0xde]), ByteBuf::from([0xad])] },
        ControllerMessage::RenewRefused { reason: Text::of("no") },
        ControllerMessage::Controllers { addresses: List::of([Text::of("a.example.com:7443")]) },
        ControllerMessage::Move,
    ]
}

pub(crate) fn stream_kinds() -> Vec<StreamKind> {
    vec![StreamKind::Run, StreamKind::ClientId, StreamKind::Query]
}

pub(crate) fn client_id_reports() -> Vec<ClientIdReport> {
    vec![
        ClientIdReport::Found(Text::of("FLEET")),
        ClientIdReport::Missing,
        ClientIdReport::Unreadable { detail: Text::of("EIO") },
    ]
}

pub(crate) fn run_down() -> Vec<RunDown> {
    let dispatch =
        Dispatch { order: vec![0x0d], contents: List::of([ByteBuf::from(b"#!")]), remaining_ms: 60_000 };
    let mut messages = vec![
        RunDown::Open(OpenRun {
            run: run(1),
            offset: 5,
            started: true,
            cancel: Some(CancelCause::Halted),
            dispatch: Some(dispatch),
        }),
        RunDown::Open(OpenRun { run: run(1), offset: 0, started: false, cancel: None, dispatch: None }),
        RunDown::Acknowledge { offset: 7 },
    ];
    let causes = [CancelCause::Requested, CancelCause::Halted, CancelCause::HostRevoked];
    messages.extend(causes.map(|cause| RunDown::Cancel { cause }));
    messages.push(RunDown::Forget);
    messages
}

pub(crate) fn refusals() -> Vec<Refusal> {
    vec![
        Refusal::ClientIdMissing,
        Refusal::ClientIdMismatch { found: Text::of("x") },
        Refusal::Unsupported { kind: Text::of("x") },
        Refusal::Malformed { detail: Text::of("x") },
        Refusal::DigestMismatch,
        Refusal::NotAllowed { rule: Text::of("x") },
        Refusal::NoSuchUser { user: Text::of("x") },
        Refusal::NoSuchDirectory { path: Text::of("/x") },
        Refusal::NotBash,
        Refusal::DeadlinePassed,
        Refusal::DiskFull,
        Refusal::SpawnFailed { detail: Text::of("x") },
        Refusal::CancelledBeforeStart,
        Refusal::NotYet,
        Refusal::NotARun,
        Refusal::NotOrdered { detail: Text::of("x") },
        Refusal::Busy { detail: Text::of("x") },
    ]
}

pub(crate) fn outcomes() -> Vec<Outcome> {
    let mut outcomes = vec![Outcome::Exited(3), Outcome::Signalled(9), Outcome::TimedOut, Outcome::Cancelled];
    let causes = [
        LostCause::Reboot,
        LostCause::SupervisorGone,
        LostCause::JournalGone,
        LostCause::SpoolUnreadable,
        LostCause::HostGone,
        LostCause::Unknown,
    ];
    outcomes.extend(causes.map(Outcome::Lost));
    outcomes
}

pub(crate) fn run_up() -> Vec<RunUp> {
    let mut messages = vec![
        RunUp::Accepted,
        RunUp::Started { at: at(1) },
        RunUp::Output { offset: 5, bytes: vec![0, 0xff].into() },
        RunUp::Unknown,
    ];
    messages.extend(refusals().into_iter().map(RunUp::Refused));
    let finished = |outcome| Finished { outcome, at: at(2), duration_ms: 3, log_length: 4, left: None };
    messages.extend(outcomes().into_iter().map(|outcome| RunUp::Finished(finished(outcome))));
    let fates = [Fate::LetGo, Fate::Unkept, Fate::CutOff, Fate::Stopped, Fate::Unstoppable];
    messages.extend(fates.map(|fate| {
        let left = Some(Left { processes: 5, held_ms: 6, fate });
        RunUp::Finished(Finished { left, ..finished(Outcome::Exited(0)) })
    }));
    messages
}

pub(crate) fn open_queries() -> Vec<OpenQuery> {
    vec![OpenQuery { order: vec![0x0d], remaining_ms: 60_000, follow: true }]
}

pub(crate) fn query_up() -> Vec<QueryUp> {
    let item = QueryItem { key: Text::of("a.service"), item: Text::of("{\"active\":\"failed\"}") };
    vec![
        QueryUp::Refused(Refusal::Busy { detail: Text::of("x") }),
        QueryUp::Items(List::of([item])),
        QueryUp::Gone(List::of([Text::of("a.service")])),
        QueryUp::Complete,
        QueryUp::Failed { detail: Text::of("x") },
        QueryUp::Ended,
    ]
}

pub(crate) fn script() -> Script {
    Script {
        name: "baseline".parse().unwrap(),
        digest: Digest::of(b""),
        arguments: vec!["--dry-run".to_owned()],
        environment: [("A".to_owned(), "b".to_owned())].into(),
        directory: Some("/srv".to_owned()),
        user: Some("www-data".parse().unwrap()),
        resources: vec!["apt".parse().unwrap()],
    }
}

pub(crate) fn step() -> Step {
    Step {
        authority: Authority::Run(ActionRequest::new(&script()).unwrap()),
        limits: Limits::DEFAULT.to_list(),
        contents: List::of([Digest::of(b"")]),
    }
}

/// The order of one step for the second of three hosts.
pub(crate) fn order(step: &Step) -> Sealed {
    let step = step.encode().unwrap();
    let clients = [0x10, 0x11, 0x12].map(|byte| ClientId::issued(uuid(byte)));
    let targets = clients.map(|client| Target { client, steps: List::of([Digest::of(&step)]) });
    let draft = Draft {
        operation: OperationId::from_uuid(uuid(2)),
        issuer: Text::of("ada"),
        not_before: at(2),
        deadline: at(3),
        policy: Digest::of(b""),
    };
    let planned = Planned::new(draft, &targets).unwrap();
    let [_, target, _] = targets;
    Sealed {
        proof: planned.proof(1),
        plan: planned.plan,
        signatures: List::of([Signature { sshsig: vec![0x51] }]),
        target,
        position: 0,
        step,
    }
}

pub(crate) fn token() -> Token {
    Token { secret: [7; 32], root: Digest::of(b""), client: Some(client()) }
}

pub(crate) fn enrol_request() -> EnrolRequest {
    EnrolRequest {
        secret: [7; 32],
        csr: vec![0xc5, 0x40],
        hostname: Text::of("web-1"),
        agent_version: Text::of("1.2.3"),
    }
}

pub(crate) fn enrol_replies() -> Vec<EnrolReply> {
    let mut replies = vec![EnrolReply::Issued { chain: vec![ByteBuf::from([0xde])], quarantined: true }];
    let refusals = [
        EnrolRefusal::UnknownToken,
        EnrolRefusal::ExpiredToken,
        EnrolRefusal::UsedToken,
        EnrolRefusal::BadRequest,
        EnrolRefusal::WrongClient,
        EnrolRefusal::Retired,
        EnrolRefusal::RateLimited,
        EnrolRefusal::Unavailable,
        EnrolRefusal::NeedsBoundToken,
    ];
    replies.extend(refusals.map(EnrolReply::Refused));
    replies
}
