//! What an agent hands to a supervisor over their socket, and no file ever holds: it has secrets among it.

use std::ffi::OsString;
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStringExt as _;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;

use fleetward_protocol::wire;
use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use serde::{Deserialize, Serialize};

use super::process;
use super::supervisor::command;

/// The largest of what is handed over, encoded; what an order may bring is far less.
const MAX_GIVEN: usize = 4 << 20;

/// A process's whole environment.
pub type Environment = Vec<(String, String)>;

/// What a run's process is given.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Given {
    /// Its whole environment.
    pub environment: Environment,
    /// What it reads from its standard input, if it is one of ours: then it also tells what it does
    /// ([`told`](super::told)). A script gets an empty input, and no such pipe.
    #[serde(with = "serde_bytes")]
    pub input: Option<Vec<u8>>,
    /// Whether its process is started again when it is killed by itself (`run/again.rs`).
    pub again: bool,
}

impl Given {
    /// What travels: the length, and then so many bytes.
    ///
    /// # Errors
    /// If it is too long.
    pub fn encode(&self) -> io::Result<Vec<u8>> {
        let body = wire::encode(self, MAX_GIVEN).map_err(io::Error::other)?;
        let length = u32::try_from(body.len()).map_err(io::Error::other)?;
        Ok([&length.to_le_bytes()[..], &body].concat())
    }

    /// Blocks until the agent has handed it over; `None` if it went away without.
    ///
    /// # Errors
    /// If the socket fails, or what came is not that.
    pub(super) fn read(mut agent: &UnixStream) -> io::Result<Option<Self>> {
        let mut length = [0; 4];
        match agent.read_exact(&mut length) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
            other => other?,
        }
        let length = usize::try_from(u32::from_le_bytes(length)).unwrap_or(usize::MAX);
        if length > MAX_GIVEN {
            return Err(io::Error::other("what the run is given is too long"));
        }
        let mut bytes = vec![0; length];
        agent.read_exact(&mut bytes)?;
        wire::decode(&bytes, MAX_GIVEN).map(Some).map_err(io::Error::other)
    }

    /// The process's standard input. What is in it is in memory alone, and nobody can change it any more.
    ///
    /// # Errors
    /// If it cannot be made.
    pub(super) fn input(&self) -> io::Result<OwnedFd> {
        let Some(input) = &self.input else { return process::null_input() };
        let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
        let mut file = std::fs::File::from(memfd_create(c"fleetward-input", flags)?);
        file.write_all(input)?;
        file.rewind()?;
        let seals =
            SealFlag::F_SEAL_WRITE | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_SEAL;
        fcntl(&file, FcntlArg::F_ADD_SEALS(seals))?;
        Ok(file.into())
    }
}

/// Blocks until the agent names the run's directory; `None` if it went away without.
pub(super) fn wait_for_assignment(mut agent: &UnixStream) -> io::Result<Option<PathBuf>> {
    let mut length = [0; 2];
    match agent.read_exact(&mut length) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        other => other?,
    }
    let mut path = vec![0; usize::from(u16::from_le_bytes(length))];
    agent.read_exact(&mut path)?;
    Ok(Some(PathBuf::from(OsString::from_vec(path))))
}

/// Blocks until the agent says go; false if it went away, or wants the run not to start.
pub(super) fn wait_for_go(agent: &UnixStream) -> io::Result<bool> {
    let mut first = [0; 1];
    let go = matches!((&mut &*agent).read(&mut first), Ok(1)) && first == [command::GO];
    agent.set_nonblocking(true)?;
    Ok(go)
}
