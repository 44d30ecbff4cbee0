//! The agent's program as a person types it.

use std::process::Command;

use fleetward_protocol::digest::Digest;
use fleetward_protocol::enrol::Token;

#[test]
fn a_failed_command_answers_in_a_sentence_and_not_in_a_log_line() {
    let directory = tempfile::tempdir().unwrap();
    let token = Token { root: Digest::of(b"root"), secret: [7; 32], client: None }.reveal();
    let state = directory.path().to_str().unwrap();
    let config = directory.path().join("agent.toml");
    let program = Command::new(env!("CARGO_BIN_EXE_fleetward-agent"))
        .args(["--state", state, "--config", config.to_str().unwrap(), "--client-id-file"])
        .arg(directory.path().join("client_id"))
        .args(["enrol", "--token", &token])
        .output()
        .unwrap();
    let said = String::from_utf8(program.stderr).unwrap();
    assert_eq!(said, "error: no controller is known; give one with --controller HOST:PORT\n");
    assert_eq!(program.status.code(), Some(1));
}

/// A panic would end it with 101.
#[test]
fn a_program_that_nobody_listens_to_ends_as_it_would() {
    let directory = tempfile::tempdir().unwrap();
    let program = |arguments: &[&str]| {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let mut program = Command::new(env!("CARGO_BIN_EXE_fleetward-agent"));
        program.args(arguments).env("FLEETWARD_LOG", "what").stdin(std::process::Stdio::null());
        program.stderr(writer).status().unwrap().code()
    };
    let state = directory.path().to_str().unwrap();
    let token = Token { root: Digest::of(b"root"), secret: [7; 32], client: None }.reveal();
    assert_eq!(program(&["supervise", state]), Some(1));
    assert_eq!(program(&["look"]), Some(1));
    assert_eq!(program(&["perform", "unit"]), Some(1));
    assert_eq!(program(&["--state", state, "--config", state, "enrol", "--token", &token]), Some(1));
}

/// As with `| head`: who has read enough is no error.
#[test]
fn what_nobody_reads_to_its_end_is_no_error() {
    let directory = tempfile::tempdir().unwrap();
    let state = directory.path().to_str().unwrap();
    let config = directory.path().join("agent.toml");
    for command in ["doctor", "status"] {
        let ended = |stdout: std::process::Stdio| {
            let mut program = Command::new(env!("CARGO_BIN_EXE_fleetward-agent"));
            program.args(["--state", state, "--config", config.to_str().unwrap(), command]);
            program.stdin(std::process::Stdio::null()).stdout(stdout).output().unwrap()
        };
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let (unread, read) = (ended(writer.into()), ended(std::process::Stdio::piped()));
        assert_eq!(unread.status.code(), read.status.code(), "{command}");
        assert_eq!(
            String::from_utf8(unread.stderr).unwrap(),
            String::from_utf8(read.stderr).unwrap(),
            "{command}"
        );
    }
}
