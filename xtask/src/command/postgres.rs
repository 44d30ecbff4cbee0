//! A private PostgreSQL server for the store's tests: a cluster of its own, on loopback, gone with its value.

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::process;
use anyhow::{Context as _, Result};

const LIMIT: Duration = Duration::from_secs(60);

/// A running server.
#[derive(Debug)]
pub(crate) struct Postgres {
    programs: PathBuf,
    directory: tempfile::TempDir,
    port: u16,
}

impl Postgres {
    /// Whether this machine has a server's programs, and where.
    pub(crate) fn programs() -> Option<PathBuf> {
        let mut versions: Vec<PathBuf> = fs::read_dir("/usr/lib/postgresql")
            .into_iter()
            .flatten()
            .flatten()
            .map(|entry| entry.path().join("bin"))
            .collect();
        versions.sort();
        versions.retain(|bin| bin.join("initdb").exists() && bin.join("postgres").exists());
        versions.pop()
    }

    /// Starts a server on a free port.
    ///
    /// # Errors
    /// When it cannot be set up or does not start.
    pub(crate) fn start(programs: PathBuf) -> Result<Self> {
        let directory = tempfile::Builder::new().prefix("fleetward-postgres-").tempdir()?;
        if nix::unistd::geteuid().is_root() {
            let user =
                nix::unistd::User::from_name(owner())?.context("the user that PostgreSQL runs as is gone")?;
            std::os::unix::fs::chown(directory.path(), Some(user.uid.as_raw()), Some(user.gid.as_raw()))?;
        }
        // The port is free now; nobody else on this machine takes it in the next second.
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let server = Self { programs, directory, port };
        let data = server.data();
        process::succeed(
            server
                .command("initdb")
                .args(["--username=postgres", "--auth=trust", "--encoding=UTF8", "--no-sync", "-D"])
                .arg(&data),
            LIMIT,
        )?;
        // What these tests prove does not need the disk; what they cost does.
        let options = format!(
            "-c listen_addresses=127.0.0.1 -c port={port} -c unix_socket_directories= -c fsync=off -c max_connections=400"
        );
        let log = server.directory.path().join("log");
        process::succeed(
            server
                .command("pg_ctl")
                .args(["start", "--wait", "-D"])
                .arg(&data)
                .arg("-l")
                .arg(&log)
                .args(["-o", &options]),
            LIMIT,
        )
        .with_context(|| fs::read_to_string(&log).unwrap_or_default())?;
        Ok(server)
    }

    /// Where tests reach it; they may create databases in it.
    pub(crate) fn url(&self) -> String {
        format!("postgres://postgres@127.0.0.1:{}/postgres", self.port)
    }

    fn data(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    /// The server refuses to run as root, so root lends it another user.
    fn command(&self, program: &str) -> Command {
        let program = self.programs.join(program);
        let mut command = if nix::unistd::geteuid().is_root() {
            let mut command = Command::new("runuser");
            command.args(["-u", owner(), "--"]).arg(program);
            command
        } else {
            Command::new(program)
        };
        command.current_dir("/");
        command
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        // Nothing in it is worth a clean shutdown, and a test run does not fail for a server that will not stop.
        process::run(self.command("pg_ctl").args(["stop", "-m", "immediate", "-D"]).arg(self.data()), LIMIT)
            .ok();
    }
}

fn owner() -> &'static str {
    if Path::new("/var/lib/postgresql").exists() { "postgres" } else { "nobody" }
}
