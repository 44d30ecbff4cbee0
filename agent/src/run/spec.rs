//! What a supervisor is told about its run, as a file in the run's directory.

use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use fleetward_protocol::id::{OperationId, RunId};
use fleetward_protocol::name::ResourceName;
use fleetward_protocol::wire;
use serde::{Deserialize, Serialize};

use crate::platform::cgroup::Group;
use crate::platform::files;

/// The file's name in the run's directory.
pub const SPEC: &str = "spec";
/// The script's name in the run's directory.
pub const SCRIPT: &str = "script";
/// The supervisor's socket in the run's directory.
pub const CONTROL: &str = "control";
/// A file in the run's directory that its supervisor makes between the word to go and the start.
pub const STARTED: &str = "started";
const MAX_SPEC: usize = 2 << 20;

/// One process, and how it is kept. Its environment is not here, but [on its way](super::given::Given).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spec {
    /// The run.
    pub run: RunId,
    /// Its operation, for the log.
    pub operation: OperationId,
    /// Resources it holds, so that a restarted agent knows them.
    pub resources: Vec<ResourceName>,
    /// The executable, by absolute path.
    pub program: String,
    /// Its argv.
    pub arguments: Vec<String>,
    /// The script's file, which the process must be able to read; `None` if it needs none.
    pub script: Option<String>,
    /// Where it starts.
    pub directory: String,
    /// The account to become, if any.
    pub user: Option<User>,
    /// Wall-clock time until it is stopped; zero for no limit.
    pub timeout_ms: u64,
    /// Between SIGTERM and SIGKILL.
    pub grace_ms: u64,
    /// Payload bytes of output to keep; zero for all.
    pub output: u64,
    /// Bytes of the file system that output must leave alone.
    pub min_free: u64,
    /// Its control groups, with its limits.
    pub groups: Vec<Group>,
    /// Whether it goes on with what a restart of the host cut off: with its spool, too.
    pub resumed: bool,
    /// Whether, and for how long, what the script leaves running may write to nowhere.
    pub drains: Option<Drains>,
}

/// How a supervisor goes on as a drain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Drains {
    /// Where every drain of this host has a file.
    pub directory: String,
    /// For how long; zero for as long as somebody holds the output.
    pub seconds: u64,
}

/// An account, as the kernel knows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct User {
    /// Its name, for messages.
    pub name: String,
    /// User id.
    pub uid: u32,
    /// Primary group.
    pub gid: u32,
    /// All groups.
    pub groups: Vec<u32>,
}

/// When the process of a run was started.
#[derive(Debug, Clone, Copy)]
pub(super) struct Started {
    /// In this boot.
    pub(super) at: Instant,
    /// What had passed by then since it was started first, if it goes on behind a restart of the host.
    before: Duration,
}

impl Started {
    /// Now; and makes the file that says so. No clock but that of the file's time goes on behind a restart of the host; where it
    /// does not tell, nothing had passed.
    pub(super) fn mark(directory: &Path) -> Self {
        let path = directory.join(STARTED);
        let made = std::fs::metadata(&path).and_then(|file| file.modified());
        let before = made.ok().and_then(|made| made.elapsed().ok()).unwrap_or_default();
        // Its time stays that of the first start.
        drop(std::fs::File::options().create(true).append(true).open(path));
        Self { at: Instant::now(), before }
    }

    /// How long it took to its end, in milliseconds.
    pub(super) fn took_ms(self, ended: Instant) -> u64 {
        u64::try_from((self.before + (ended - self.at)).as_millis()).unwrap_or(u64::MAX)
    }
}

impl Spec {
    /// The file's bytes.
    ///
    /// # Errors
    /// If they would exceed the cap.
    pub fn encode(&self) -> io::Result<Vec<u8>> {
        wire::encode(self, MAX_SPEC).map_err(io::Error::other)
    }

    /// Reads the file in a run's directory.
    ///
    /// # Errors
    /// If it is not there, or not a spec.
    pub fn read(directory: &Path) -> io::Result<Self> {
        let bytes = files::read_file(&directory.join(SPEC), MAX_SPEC as u64).map_err(io::Error::other)?;
        wire::decode(&bytes, MAX_SPEC).map_err(io::Error::other)
    }
}
