//! The program itself, with a log that nobody reads.

use std::os::unix::net::UnixDatagram;
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Longer than a start takes on a busy machine.
const LIMIT: Duration = Duration::from_secs(60);

#[test]
fn a_log_that_cannot_be_written_ends_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let program = |command: &str| {
        let mut program = Command::new(env!("CARGO_BIN_EXE_fleetward-controller"));
        program.arg(command).arg("--data").arg(directory.path().join("data")).env_clear();
        program.env("FLEETWARD_LINK_LISTEN", "127.0.0.1:0").env("FLEETWARD_HTTP_LISTEN", "127.0.0.1:0");
        program.env("FLEETWARD_LOG_FILTER", "debug").stdin(Stdio::null()).stdout(Stdio::null());
        program
    };
    assert!(program("init").args(["--name", "ctl.example.com"]).status().unwrap().success());
    let socket = directory.path().join("manager");
    let manager = UnixDatagram::bind(&socket).unwrap();
    manager.set_read_timeout(Some(LIMIT)).unwrap();
    let told = || {
        let mut text = [0; 64];
        let length = manager.recv(&mut text).unwrap();
        String::from_utf8_lossy(&text[..length]).into_owned()
    };
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut serving = program("serve").env("NOTIFY_SOCKET", &socket).stderr(writer).spawn().unwrap();
    assert_eq!(told(), "READY=1");
    kill(Pid::from_raw(i32::try_from(serving.id()).unwrap()), Signal::SIGTERM).unwrap();
    assert_eq!(told(), "STOPPING=1", "it was told to stop, and did not end for another reason");
    assert_eq!(serving.wait().unwrap().code(), Some(0));
}
