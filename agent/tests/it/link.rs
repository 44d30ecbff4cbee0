//! A whole agent against a controller's side of the wire.

use std::sync::Arc;
use std::time::Duration;

use fleetward_agent::config::AgentConfig;
use fleetward_agent::enrol::{self, Again, EnrolError};
use fleetward_agent::identity::Identity;
use fleetward_agent::{Agent, AgentHandle};
use fleetward_protocol::action::KINDS;
use fleetward_protocol::message::{
    AgentMessage, ClientIdReport, ControllerMessage, OpenRun, RunDown, StreamKind,
};
use fleetward_protocol::output::Records;
use fleetward_protocol::query::QUERY_KINDS;
use fleetward_protocol::run::{CancelCause, Outcome};
use fleetward_protocol::session::SinkEvent;
use fleetward_protocol::text::{List, Text};
use fleetward_protocol::wire::{MAX_RUN_FRAME, close};
use quinn::{Connection, ConnectionError};

use crate::controller::{Authority, Controller, read, write};
use crate::host::{Machine, dispatch, script};

pub(crate) const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);

pub(crate) async fn enrolled(life: Duration) -> (Machine, Controller) {
    let machine = Machine::new();
    let controller = Controller::start(&Arc::new(Authority::new()), "127.0.0.1:0");
    let token = controller.authority.token(Some(machine.client.clone()));
    let addresses = [controller.address().to_string().parse().unwrap()];
    let paths = machine.paths();
    let (enrolled, _) =
        tokio::join!(enrol::enrol(&paths, &addresses, &token, Again::Refuse), controller.enrol(life));
    assert_eq!(enrolled.unwrap().client, machine.client);
    (machine, controller)
}

pub(crate) fn start(machine: &Machine) -> AgentHandle {
    let mut config = AgentConfig::new(machine.paths());
    config.supervisor = env!("CARGO_BIN_EXE_fleetward-agent").into();
    config.bus = machine.bus.clone();
    Agent::start(config).unwrap()
}

fn text(log: &[u8]) -> String {
    let payloads: Vec<u8> = Records::new(log).flat_map(|record| record.unwrap().payload.to_vec()).collect();
    String::from_utf8(payloads).unwrap()
}

async fn ask_client_id(connection: &Connection) -> ClientIdReport {
    let (mut send, mut receive) = connection.open_bi().await.unwrap();
    write(&mut send, &StreamKind::ClientId, MAX_RUN_FRAME).await;
    read(&mut receive, MAX_RUN_FRAME).await.unwrap()
}

#[tokio::test]
async fn a_host_enrols_connects_runs_and_leaves() {
    let (machine, controller) = enrolled(YEAR).await;
    let agent = start(&machine);
    let mut session = controller.session().await;
    assert_eq!(
        session.hello.kinds[..],
        KINDS.iter().chain(QUERY_KINDS).copied().map(Text::of).collect::<Vec<_>>()
    );
    assert!(matches!(session.message().await, Some(AgentMessage::Facts(_))));

    let request = script("echo out; echo err >&2; exit 3");
    let mut stream = session.open(dispatch(&machine.client, &request)).await;
    assert_eq!(stream.event().await, Some(SinkEvent::Accepted));
    assert!(matches!(stream.event().await, Some(SinkEvent::Started { .. })));
    let finished = stream.finished().await;
    assert_eq!((finished.outcome, text(&stream.log).len()), (Outcome::Exited(3), 8));
    stream.say(&RunDown::Forget).await;
    stream.ended().await;

    let open = OpenRun { run: request.run, offset: 0, started: false, cancel: None, dispatch: None };
    assert_eq!(session.open(open).await.event().await, Some(SinkEvent::Unknown));
    let (said, ()) = tokio::join!(session.message(), agent.shutdown());
    assert_eq!(said, Some(AgentMessage::Goodbye));
}

/// A fleet that comes back at one moment writes nothing down that is known already.
#[tokio::test]
async fn a_controller_that_has_the_facts_is_not_sent_them_again() {
    let (machine, controller) = enrolled(YEAR).await;
    let agent = start(&machine);
    let mut session = controller.session().await;
    let Some(AgentMessage::Facts(facts)) = session.message().await else { panic!("no facts") };
    assert_eq!(session.hello.facts, facts.digest(session.hello.boot));
    session.connection.close(close::SHUTDOWN.into(), b"restart");

    let mut session = controller.session_of(true).await;
    let (said, ()) = tokio::join!(session.message(), agent.shutdown());
    assert_eq!(said, Some(AgentMessage::Goodbye), "and nothing before it");
}

/// A controller of before would take the message for a breach of the protocol: the host that connects without the feature, as
/// elsewhere here, says nothing of it.
#[tokio::test]
async fn what_a_host_needs_is_told_to_those_who_take_it_once() {
    let (machine, controller) = enrolled(YEAR).await;
    let agent = start(&machine);
    let mut session = controller.session_with_features().await;
    assert!(matches!(session.message().await, Some(AgentMessage::Facts(_))));
    let Some(AgentMessage::Upkeep(upkeep)) = session.message().await else { panic!("no upkeep") };
    assert_eq!((upkeep.updates, upkeep.security_updates), (None, None), "they are not counted yet");
    let (said, ()) = tokio::join!(session.message(), agent.shutdown());
    assert_eq!(said, Some(AgentMessage::Goodbye));
}

#[tokio::test]
async fn a_host_learns_of_other_controllers_and_moves_to_them() {
    let (machine, first) = enrolled(YEAR).await;
    let second = Controller::start(&first.authority, "127.0.0.1:0");
    let agent = start(&machine);
    let addresses = [&first, &second].map(|controller| Text::of(controller.address()));
    let mut session = first.session().await;
    session.say(&ControllerMessage::Controllers { addresses: List::of([Text::of("no address")]) }).await;
    session.say(&ControllerMessage::Controllers { addresses: List::of(addresses) }).await;
    session.say(&ControllerMessage::Move).await;
    let mut session = second.session().await;
    session.say(&ControllerMessage::Move).await;
    let mut session = first.session().await;

    // What its owner says comes first.
    std::fs::write(machine.paths().config, format!("controllers = ['{}']", first.address())).unwrap();
    session.say(&ControllerMessage::Move).await;
    first.session().await;
    agent.shutdown().await;
}

#[tokio::test]
async fn output_continues_where_the_controller_has_it_after_a_lost_connection() {
    let (machine, controller) = enrolled(YEAR).await;
    let agent = start(&machine);
    let session = controller.session().await;
    let gate = machine.path("gate");
    let request =
        script(&format!("mkfifo {0}; echo first; read < {0}; seq 1 50000; sleep 1000", gate.display()));
    let open = dispatch(&machine.client, &request);
    let mut stream = session.open(open.clone()).await;
    while stream.log.is_empty() {
        stream.event().await.unwrap();
    }
    session.connection.close(close::SHUTDOWN.into(), b"restart");
    let mut log = stream.log;
    tokio::fs::write(gate, "go\n").await.unwrap();

    let session = controller.session().await;
    assert_eq!(session.hello.held[..], [request.run]);
    // The acceptance may not have been committed: the dispatch comes again, and nothing starts twice.
    let mut stream = session.open(OpenRun { offset: log.len() as u64, ..open }).await;
    let expected: String =
        std::iter::once("first\n".to_owned()).chain((1..=50_000).map(|n| format!("{n}\n"))).collect();
    while text(&log).len() + text(&stream.log).len() < expected.len() {
        stream.event().await.unwrap();
    }
    stream.say(&RunDown::Cancel { cause: CancelCause::Requested }).await;
    assert_eq!(stream.finished().await.outcome, Outcome::Cancelled);
    log.extend(&stream.log);
    assert_eq!(text(&log), expected);
    agent.shutdown().await;
}

#[tokio::test]
async fn a_certificate_is_renewed_with_a_new_key_before_it_expires() {
    // The certificate lives for eight seconds from two seconds ago: two thirds are over soon.
    let (machine, controller) = enrolled(Duration::from_secs(8)).await;
    let old = std::fs::read(machine.paths().key()).unwrap();
    let agent = start(&machine);
    let mut session = controller.session().await;
    let csr = loop {
        if let Some(AgentMessage::Renew { csr }) = session.message().await {
            break csr;
        }
    };
    let chain = controller.authority.sign(&csr, YEAR);
    session.say(&ControllerMessage::Renewed { chain }).await;
    while machine.paths().next_key().exists() {
        // Each answer is a turn of the agent's loop.
        ask_client_id(&session.connection).await;
    }
    session.connection.close(close::SHUTDOWN.into(), b"restart");
    // The next connection proves the new key.
    let session = controller.session().await;
    assert_ne!(std::fs::read(machine.paths().key()).unwrap(), old);
    assert!(!machine.paths().next_key().exists());
    assert!(Identity::load(&machine.paths()).unwrap().validity.until.as_millis() > 0);
    drop(session);
    agent.shutdown().await;
}

#[tokio::test]
async fn hostile_frames_close_the_connection_and_the_agent_comes_back() {
    let (machine, controller) = enrolled(YEAR).await;
    let agent = start(&machine);
    // On the control stream, before anything is established.
    let connection = controller.accept().await;
    let (mut send, _receive) = connection.accept_bi().await.unwrap();
    send.write_all(&[0xff; 64]).await.unwrap();
    let ConnectionError::ApplicationClosed(closed) = connection.closed().await else {
        panic!("not closed by it")
    };
    assert_eq!(closed.error_code, close::PROTOCOL.into());
    agent.shutdown().await;

    for bytes in [&[0xff, 0xff, 0xff, 0x7f, 1][..], &[4, 0, 0, 0, 9, 9, 9, 9], &[1, 0, 0]] {
        let agent = start(&machine);
        let session = controller.session().await;
        let (mut send, _receive) = session.connection.open_bi().await.unwrap();
        write(&mut send, &StreamKind::Run, MAX_RUN_FRAME).await;
        send.write_all(bytes).await.unwrap();
        send.finish().unwrap();
        let ConnectionError::ApplicationClosed(closed) = session.connection.closed().await else {
            panic!("not closed by it")
        };
        assert_eq!(closed.error_code, close::PROTOCOL.into(), "{bytes:?}");
        agent.shutdown().await;
    }
}

#[tokio::test]
async fn a_stream_of_an_unknown_kind_is_refused_and_the_session_goes_on() {
    let (machine, controller) = enrolled(YEAR).await;
    let agent = start(&machine);
    let session = controller.session().await;
    let (mut send, mut receive) = session.connection.open_bi().await.unwrap();
    send.write_all(&[4, 0, 0, 0, 250, 0, 0, 0]).await.unwrap();
    let reset = receive.read_to_end(10).await.unwrap_err();
    assert!(
        matches!(reset, quinn::ReadToEndError::Read(quinn::ReadError::Reset(code)) if code == close::UNSUPPORTED.into())
    );
    assert_eq!(ask_client_id(&session.connection).await, ClientIdReport::Found(Text::of(machine.client)));
    agent.shutdown().await;
}

#[tokio::test]
async fn more_runs_than_idle_streams_are_served_at_once() {
    let (machine, controller) = enrolled(YEAR).await;
    std::fs::write(machine.paths().config, "[runs]\nconcurrent = 40").unwrap();
    let agent = start(&machine);
    let session = controller.session().await;
    let gate = machine.path("gate");
    nix::unistd::mkfifo(&gate, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let mut keys = std::fs::OpenOptions::new().read(true).write(true).open(&gate).unwrap();
    let body = format!("echo ready; read < {}", gate.display());
    let mut streams = Vec::new();
    for _ in 0..40 {
        streams.push(session.open(dispatch(&machine.client, &script(&body))).await);
    }
    // All forty run before one of them may end.
    for stream in &mut streams {
        while stream.log.is_empty() {
            stream.event().await.unwrap();
        }
    }
    std::io::Write::write_all(&mut keys, &[b'\n'; 40]).unwrap();
    for stream in &mut streams {
        assert_eq!(stream.finished().await.outcome, Outcome::Exited(0));
    }
    agent.shutdown().await;
}

#[tokio::test]
async fn a_controller_that_cannot_prove_the_root_is_not_told_the_secret() {
    let machine = Machine::new();
    let controller = Controller::start(&Arc::new(Authority::new()), "127.0.0.1:0");
    let token = Authority::new().token(None);
    let addresses = [controller.address().to_string().parse().unwrap()];
    let accepted = tokio::spawn(async move { controller.accept_raw().await });
    let error = enrol::enrol(&machine.paths(), &addresses, &token, Again::Refuse).await.unwrap_err();
    assert!(matches!(error, EnrolError::Unreachable(_)), "{error}");
    assert!(accepted.await.unwrap().is_err(), "the handshake must fail");
    assert!(!machine.paths().certificate().exists());
}

#[tokio::test]
async fn a_token_for_another_host_changes_nothing() {
    let machine = Machine::new();
    let other = "FLEET-00000000-0000-4000-8000-000000000001".parse().unwrap();
    let token = Authority::new().token(Some(other));
    let error = enrol::enrol(&machine.paths(), &["192.0.2.1".parse().unwrap()], &token, Again::Refuse).await;
    assert!(matches!(error, Err(EnrolError::OtherClient { .. })), "{error:?}");
}

#[tokio::test]
async fn the_second_address_serves_when_the_first_does_not() {
    let (machine, controller) = enrolled(YEAR).await;
    let dead = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let config = format!("controllers = ['{}', '{}']", dead.local_addr().unwrap(), controller.address());
    std::fs::write(machine.paths().config, config).unwrap();
    let agent = start(&machine);
    let _session = controller.session().await;
    agent.connected().await;
    agent.shutdown().await;
}

#[tokio::test]
async fn two_agents_do_not_share_a_state_directory() {
    let (machine, _controller) = enrolled(YEAR).await;
    let agent = start(&machine);
    let error = Agent::start(AgentConfig::new(machine.paths())).unwrap_err();
    assert!(error.to_string().contains("another agent"));
    agent.shutdown().await;
    start(&machine).shutdown().await;
}

/// What nobody's journal knows and still runs is told to the controller, by name and with where its output is.
#[tokio::test]
async fn an_orphan_supervisor_is_reported_to_the_controller() {
    let (machine, controller) = enrolled(YEAR).await;
    let agent = start(&machine);
    let session = controller.session().await;
    let gate = machine.path("gate");
    let request = script(&format!("mkfifo {0}; echo first; read < {0}", gate.display()));
    let mut stream = session.open(dispatch(&machine.client, &request)).await;
    while stream.log.is_empty() {
        stream.event().await.unwrap();
    }
    agent.shutdown().await;
    std::fs::remove_file(machine.paths().journal()).unwrap();
    let agent = start(&machine);
    let mut session = controller.session().await;
    assert!(session.hello.held.is_empty());
    let notice = loop {
        match session.message().await {
            Some(AgentMessage::Notice { text }) if text.contains(&request.run.to_string()) => break text,
            Some(_) => {}
            None => panic!("the session ended without a word about the orphan"),
        }
    };
    let spool = machine.paths().runs().join(request.run.to_string());
    assert!(notice.contains(spool.to_str().unwrap()), "{notice}");
    tokio::fs::write(gate, "go\n").await.unwrap();
    agent.shutdown().await;
}

#[tokio::test]
async fn an_agent_that_stops_lets_go_of_its_runs_and_the_next_takes_them_up() {
    let (machine, controller) = enrolled(YEAR).await;
    let agent = start(&machine);
    let session = controller.session().await;
    let gate = machine.path("gate");
    let request = script(&format!("mkfifo {0}; echo first; read < {0}; echo second", gate.display()));
    let open = dispatch(&machine.client, &request);
    let mut stream = session.open(open).await;
    while stream.log.is_empty() {
        stream.event().await.unwrap();
    }
    agent.shutdown().await;
    let agent = start(&machine);
    let session = controller.session().await;
    tokio::fs::write(gate, "go\n").await.unwrap();
    let mut stream = session
        .open(OpenRun { run: request.run, offset: 0, started: false, cancel: None, dispatch: None })
        .await;
    assert_eq!(stream.finished().await.outcome, Outcome::Exited(0));
    assert_eq!(text(&stream.log), "first\nsecond\n");
    agent.abort().await;
}
