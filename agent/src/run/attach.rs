//! The agent's end of the connection to a run's supervisor.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::process::Stdio;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::process::{Child, Command};

use super::given::Given;
use super::spec::CONTROL;
use super::supervisor::{SUPERVISE, signal};
use crate::platform::socket;

/// A connection to a supervisor.
#[derive(Debug)]
pub struct Attachment {
    stream: UnixStream,
}

/// What a supervisor said since it was last heard.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SupervisorSigns {
    /// The script was started.
    pub started: bool,
    /// The result is there, or the supervisor is gone: look for the result, nothing more will come.
    pub over: bool,
}

impl Attachment {
    /// Starts a supervisor for the run in `directory`. It does nothing until it is told to go.
    ///
    /// # Errors
    /// If the process cannot be started.
    pub fn start(program: &Path, directory: &Path) -> io::Result<(Self, Child)> {
        Self::spawn(program, Some(directory))
    }

    /// Starts a supervisor for a run that is not known yet: [`Self::assign`] tells it. Nearly all the time that
    /// a supervisor takes is its start.
    ///
    /// # Errors
    /// If the process cannot be started.
    pub fn start_spare(program: &Path) -> io::Result<(Self, Child)> {
        Self::spawn(program, None)
    }

    /// Gives a spare supervisor the run in `directory`.
    ///
    /// # Errors
    /// If it is gone.
    pub fn assign(&self, directory: &Path) -> io::Result<()> {
        let path = directory.as_os_str().as_bytes();
        let length = u16::try_from(path.len()).map_err(io::Error::other)?;
        let message = [&length.to_le_bytes()[..], path].concat();
        // The first bytes on a fresh socket: they fit, or nobody is there.
        match self.stream.try_write(&message)? {
            written if written == message.len() => Ok(()),
            _ => Err(io::ErrorKind::WriteZero.into()),
        }
    }

    /// Hands over what the run's process is given, once the supervisor has its directory.
    ///
    /// # Errors
    /// If the supervisor is gone, or it is too much for one.
    pub async fn hand_over(&mut self, given: &Given) -> io::Result<()> {
        self.stream.write_all(&given.encode()?).await
    }

    fn spawn(program: &Path, directory: Option<&Path>) -> io::Result<(Self, Child)> {
        let (ours, theirs) = std::os::unix::net::UnixStream::pair()?;
        ours.set_nonblocking(true)?;
        let child = Command::new(program)
            .arg0("fleetward-agent")
            .arg(SUPERVISE)
            .args(directory)
            .env_clear()
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(Stdio::null())
            // A terminal that stops the agent must not stop the run.
            .process_group(0)
            .spawn()?;
        Ok((Self { stream: UnixStream::from_std(ours)? }, child))
    }

    /// Finds the supervisor of the run in `directory` again.
    ///
    /// # Errors
    /// If nobody listens there.
    pub fn connect(directory: &Path) -> io::Result<Self> {
        // A socket's path may have 108 bytes; through the descriptor it is short wherever the directory is.
        let directory = File::open(directory)?;
        let path = format!("/proc/self/fd/{}/{CONTROL}", directory.as_raw_fd());
        let stream = std::os::unix::net::UnixStream::connect(path)?;
        if !socket::read_is_own(&stream)? {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        stream.set_nonblocking(true)?;
        Ok(Self { stream: UnixStream::from_std(stream)? })
    }

    /// Sends one of [`command`](super::supervisor::command).
    ///
    /// # Errors
    /// If the supervisor is gone.
    pub async fn send(&mut self, command: u8) -> io::Result<()> {
        self.stream.write_all(&[command]).await
    }

    /// Waits for the supervisor to say something. Cancel-safe.
    pub async fn hear(&mut self) -> SupervisorSigns {
        let mut signals = [0; 256];
        match self.stream.read(&mut signals).await {
            Ok(0) | Err(_) => SupervisorSigns { started: false, over: true },
            Ok(length) => {
                let heard = &signals[..length];
                SupervisorSigns {
                    started: heard.contains(&signal::STARTED),
                    over: heard.contains(&signal::ENDED),
                }
            }
        }
    }
}
