//! What a typed action's process may tell its supervisor, and what becomes of it when it tells nonsense.

use std::path::Path;

use fleetward_agent::run::attach::Attachment;
use fleetward_agent::run::given::Given;
use fleetward_agent::run::outcome::End;
use fleetward_agent::run::spec::{SPEC, Spec};
use fleetward_agent::run::spool::SPOOL;
use fleetward_agent::run::supervisor::command;
use fleetward_agent::run::told::{Kind, frame};
use fleetward_protocol::event::{Event, StepState};
use fleetward_protocol::id::OperationId;
use fleetward_protocol::output::{MAX_RECORD, Records, Stream};
use fleetward_protocol::run::Outcome;
use fleetward_protocol::text::Text;

use crate::host::{Machine, boot, run_id, script};

/// Supervises bash in the place of our own executable: what it tells is what the test wants.
async fn supervise(directory: &Path, lines: &str, output: u64, input: &[u8]) -> Vec<(Stream, Vec<u8>)> {
    let spec = Spec {
        run: run_id(),
        operation: OperationId::from_uuid(uuid::Uuid::now_v7()),
        resources: vec![],
        program: "/bin/bash".into(),
        arguments: vec!["bash".into(), "-c".into(), lines.into()],
        script: None,
        directory: directory.display().to_string(),
        user: None,
        timeout_ms: 30_000,
        grace_ms: 300,
        output,
        min_free: 0,
        groups: vec![],
        resumed: false,
        drains: None,
    };
    std::fs::write(directory.join(SPEC), spec.encode().unwrap()).unwrap();
    let program = env!("CARGO_BIN_EXE_fleetward-agent");
    let (mut attachment, mut child) = Attachment::start(program.as_ref(), directory).unwrap();
    let given = Given {
        environment: vec![("PATH".into(), "/usr/bin:/bin".into())],
        input: Some(input.to_vec()),
        again: false,
    };
    attachment.hand_over(&given).await.unwrap();
    attachment.send(command::GO).await.unwrap();
    while !attachment.hear().await.over {}
    assert!(child.wait().await.unwrap().success());
    let Some(End::Finished(finished)) = End::read(directory).unwrap() else { panic!("it did not end") };
    assert_eq!(finished.outcome, Outcome::Exited(0), "nothing that is told ends a run");
    let log = std::fs::read(directory.join(SPOOL)).unwrap();
    assert_eq!(finished.log_length, log.len() as u64);
    Records::new(&log)
        .map(|record| record.map(|record| (record.stream, record.payload.to_vec())).unwrap())
        .collect()
}

fn event(step: &str) -> Vec<u8> {
    let event = Event { step: Text::of(step), state: StepState::Done, percent: None, words: Text::of("") };
    event.encode().unwrap()
}

fn joined(records: &[(Stream, Vec<u8>)], wanted: Stream) -> String {
    let payloads =
        records.iter().filter(|(stream, _)| *stream == wanted).flat_map(|(_, payload)| payload.clone());
    String::from_utf8(payloads.collect()).unwrap()
}

#[tokio::test]
async fn nonsense_is_left_out_and_told_and_the_rest_arrives_in_its_order() {
    let machine = Machine::new();
    let told = [
        frame(Kind::Words, b"one\n"),
        frame(Kind::Event, &event("first")),
        frame(Kind::Event, b"{\"step\":\"\\u001b[2J\",\"state\":\"done\"}"),
        frame(Kind::Report, &vec![b'x'; MAX_RECORD + 1]),
        frame(Kind::Report, b"[]"),
        frame(Kind::Report, b"{\"attempt\":1}"),
        frame(Kind::Words, b"two\n"),
        frame(Kind::Event, &event("second")),
        frame(Kind::Report, b"{\"attempt\":2}"),
        frame(Kind::Trouble, b"three\n"),
        vec![77, 1, 2, 3, 4, 5, 6],
        frame(Kind::Words, b"never understood\n"),
    ]
    .concat();
    // What it is given is its standard input, and cannot be written to.
    let lines = "cat >&3; echo x 2>/dev/null >/proc/self/fd/0 || echo sealed";
    let records = supervise(machine.directory.path(), lines, 0, &told).await;
    // Between two pipes there is no order.
    let stdout = joined(&records, Stream::Stdout);
    assert!(stdout.contains("sealed\n"), "{stdout}");
    assert_eq!(stdout.replace("sealed\n", ""), "one\ntwo\n");
    let stderr = joined(&records, Stream::Stderr);
    let faults: Vec<_> = stderr.lines().filter(|line| line.starts_with("fleetward: ")).collect();
    for (fault, part) in faults.iter().zip(["an event", "65537 bytes", "no JSON object", "no known kind"]) {
        assert!(fault.contains(part), "{stderr}");
    }
    assert_eq!((faults.len(), stderr.lines().filter(|line| *line == "three").count()), (4, 1));
    let events: Vec<_> = records.iter().filter(|(stream, _)| *stream == Stream::Event).collect();
    assert_eq!(events, [&(Stream::Event, event("first")), &(Stream::Event, event("second"))]);
    assert_eq!(records.last().unwrap(), &(Stream::Report, b"{\"attempt\":2}".to_vec()));
    assert_eq!(records.iter().filter(|(stream, _)| *stream == Stream::Report).count(), 1);
    let place = |wanted: &[u8]| records.iter().position(|(_, payload)| payload == wanted);
    assert!(place(b"one\n") < place(&event("first")) && place(b"two\n") < place(&event("second")));
}

#[tokio::test]
async fn a_report_survives_an_output_that_is_far_beyond_its_limit() {
    let machine = Machine::new();
    let told = [frame(Kind::Report, b"{\"kept\":true}"), frame(Kind::Event, &event("told"))].concat();
    let lines = "cat >&3; head -c 1000000 /dev/zero";
    let records = supervise(machine.directory.path(), lines, 1000, &told).await;
    assert_eq!(joined(&records, Stream::Stdout).len(), 1000);
    assert_eq!(records.iter().filter(|(stream, _)| *stream == Stream::Event).count(), 1);
    assert_eq!(records.last().unwrap(), &(Stream::Report, b"{\"kept\":true}".to_vec()));
}

#[tokio::test]
async fn a_script_has_no_such_pipe() {
    let machine = Machine::new();
    let life = machine.start(boot(1));
    let request = script("{ : >&3; } 2>/dev/null && echo 'the pipe is open'; wc -c");
    assert_eq!(life.stdout(&request).await, "0\n", "and its input is empty");
}
