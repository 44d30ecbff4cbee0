//! Reads to nowhere what a script left running still writes, when its run is over.
//!
//! **What for.** A pipe without a reader ends whoever writes to it. `nohup program &` without a redirection would die
//! of its next line, seconds after its run succeeded and without a word. So the run's supervisor, its work done, goes
//! on as the reader of its pipes, with nothing else in its hands.
//!
//! **What it promises.** The run is over for everybody else: its result is durable, its directory may go, its place is
//! free. Each drain has a file of its own, locked as long as it lives, so that whoever counts drains is never wrong
//! after a crash. There are no more than the owner allows, for no longer than the owner allows (`drains` and `drain_s`
//! in agent.toml).
//!
//! **Deliberately absent.** Keeping what is read. It is counted, and gone.

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Write as _};
use std::os::fd::{AsFd as _, AsRawFd as _, FromRawFd as _, OwnedFd};
use std::os::unix::fs::{DirBuilderExt as _, FileExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use fleetward_protocol::id::RunId;
use fleetward_protocol::time::Timestamp;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigHandler, SigSet, Signal, signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

use super::spec::Drains;
use crate::platform::clock;

/// What is taken from a pipe at once.
const BUFFER: usize = 16 << 10;
/// Ends a drain. Supervisors block it.
const END: Signal = Signal::SIGUSR1;
const MAX_FILE: usize = 128;

/// This process's right to go on as a drain.
#[derive(Debug)]
pub(super) struct Drain {
    run: RunId,
    path: PathBuf,
    file: File,
    since: Timestamp,
    until: Option<Instant>,
}

/// A drain of this host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Drained {
    /// The run whose output it reads.
    pub run: RunId,
    /// Its process; zero while it begins.
    pub pid: i32,
    /// Since when.
    pub since: Timestamp,
    /// What it has read so far.
    pub bytes: u64,
}

impl Drain {
    /// Makes this process known as the drain of the run.
    ///
    /// # Errors
    /// If its file cannot be made: then nobody could count it, and it must not be one.
    pub(super) fn begin(drains: &Drains, run: RunId) -> io::Result<Self> {
        let directory = Path::new(&drains.directory);
        match DirBuilder::new().mode(0o700).create(directory) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        let path = directory.join(run.to_string());
        let file = loop {
            let file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&path)?;
            file.lock()?;
            // Before it was locked it was nobody's, and whoever clears up may have taken it away.
            if file.metadata()?.nlink() > 0 {
                break file;
            }
        };
        let until =
            (drains.seconds > 0).then(|| Instant::now().checked_add(Duration::from_secs(drains.seconds)));
        let drain = Self { run, path, file, since: clock::now(), until: until.flatten() };
        drain.note(0)?;
        Ok(drain)
    }

    /// Reads until nobody holds the pipes any more, the time is over, or the agent says so.
    pub(super) fn read_out(self, mut pipes: Vec<OwnedFd>) {
        // The run's directory is the agent's to remove.
        let _ = std::env::set_current_dir("/");
        // What was adopted from the script is collected by the kernel from now on.
        // SAFETY: no handler is installed.
        let _ = unsafe { signal(Signal::SIGCHLD, SigHandler::SigIgn) };
        // SAFETY: waits for our own children that have ended already; a null status pointer is allowed.
        while unsafe { libc::waitpid(-1, std::ptr::null_mut(), libc::WNOHANG) } > 0 {}
        // SAFETY: takes an integer. Whoever writes without end must not slow down what the host is for.
        let _ = unsafe { libc::nice(19) };
        let mut end = SigSet::empty();
        end.add(END);
        let Ok(told) = SignalFd::with_flags(&end, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC) else {
            return;
        };
        let mut buffer = vec![0; BUFFER];
        let mut bytes = 0_u64;
        while !pipes.is_empty() {
            let mut fds = vec![PollFd::new(told.as_fd(), PollFlags::POLLIN)];
            fds.extend(pipes.iter().map(|pipe| PollFd::new(pipe.as_fd(), PollFlags::POLLIN)));
            let span = self.until.map(|until| until.saturating_duration_since(Instant::now()));
            if span.is_some_and(|span| span.is_zero()) {
                self.tell("its time as set by runs.drain_s in agent.toml is over", bytes);
                break;
            }
            let timeout = span.map_or(PollTimeout::NONE, |span| {
                PollTimeout::try_from(span + Duration::from_millis(1)).unwrap_or(PollTimeout::MAX)
            });
            match poll(&mut fds, timeout) {
                Ok(_) | Err(nix::errno::Errno::EINTR) => {}
                Err(_) => break,
            }
            let mut ready = fds.iter().map(|fd| fd.any().unwrap_or(true)).collect::<Vec<_>>().into_iter();
            if ready.next() == Some(true) {
                break;
            }
            pipes.retain(|pipe| {
                if ready.next() != Some(true) {
                    return true;
                }
                match nix::unistd::read(pipe, &mut buffer) {
                    Ok(0) => false,
                    Ok(length) => {
                        bytes = bytes.saturating_add(length as u64);
                        true
                    }
                    Err(error) => error == nix::errno::Errno::EINTR,
                }
            });
            // What cannot be noted, on a full disk, is noted with what comes next.
            let _ = self.note(bytes);
        }
    }

    /// Written in place: it only grows.
    fn note(&self, bytes: u64) -> io::Result<()> {
        let text = format!("{} {} {bytes}\n", std::process::id(), self.since.as_millis());
        self.file.write_all_at(text.as_bytes(), 0)
    }

    /// To where the agent's own log goes.
    fn tell(&self, why: &str, bytes: u64) {
        let told = format!(
            "fleetward-agent: run {}: what its script left running is no longer read ({bytes} bytes so far): {why}\n",
            self.run
        );
        let _ = io::stderr().write_all(told.as_bytes());
    }
}

impl Drop for Drain {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

/// The drains that live, oldest first.
#[must_use]
pub fn read_all(directory: &Path) -> Vec<Drained> {
    let mut all: Vec<_> =
        entries(directory).filter_map(|(run, path)| read(run, &path).ok().flatten()).collect();
    all.sort_unstable_by_key(|drain| (drain.since, drain.run));
    all
}

/// Ends the oldest drains until no more than `most` are left, and clears up after those that were killed. Returns
/// those that were told to end.
pub fn ensure_at_most(directory: &Path, most: usize) -> Vec<Drained> {
    for (run, path) in entries(directory) {
        if matches!(read(run, &path), Ok(None)) {
            let _ = std::fs::remove_file(path);
        }
    }
    let mut all = read_all(directory);
    all.truncate(all.len().saturating_sub(most));
    all.retain(|drain| end(directory, drain).is_ok());
    all
}

fn entries(directory: &Path) -> impl Iterator<Item = (RunId, PathBuf)> {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    entries.filter_map(|entry| Some((entry.file_name().to_str()?.parse().ok()?, entry.path())))
}

/// What the run's drain has noted; `None` if it is gone.
fn read(run: RunId, path: &Path) -> io::Result<Option<Drained>> {
    let file = File::open(path)?;
    match file.try_lock_shared() {
        Ok(()) => return Ok(None),
        Err(TryLockError::WouldBlock) => {}
        Err(TryLockError::Error(error)) => return Err(error),
    }
    let mut text = [0; MAX_FILE];
    let length = file.read_at(&mut text, 0)?;
    let text = String::from_utf8_lossy(&text[..length]);
    let mut fields = text.split_ascii_whitespace();
    let pid = fields.next().and_then(|field| field.parse().ok()).unwrap_or(0);
    let since = fields.next().and_then(|field| field.parse().ok()).unwrap_or(i64::MAX);
    let bytes = fields.next().and_then(|field| field.parse().ok()).unwrap_or(0);
    Ok(Some(Drained { run, pid, since: Timestamp::from_millis(since), bytes }))
}

fn end(directory: &Path, drain: &Drained) -> io::Result<()> {
    if drain.pid <= 0 {
        return Err(io::ErrorKind::NotFound.into());
    }
    // SAFETY: pidfd_open(2) takes integers.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, drain.pid, 0) };
    let fd = i32::try_from(fd).ok().filter(|fd| *fd >= 0).ok_or_else(io::Error::last_os_error)?;
    // SAFETY: the kernel just made it.
    let process = unsafe { OwnedFd::from_raw_fd(fd) };
    // Held still, so that the number has not become somebody else's before it was opened.
    if read(drain.run, &directory.join(drain.run.to_string()))?.is_none_or(|now| now.pid != drain.pid) {
        return Err(io::ErrorKind::NotFound.into());
    }
    let nothing = std::ptr::null::<libc::siginfo_t>();
    // SAFETY: a descriptor of our own, integers and a null pointer, which is allowed.
    let sent = unsafe {
        libc::syscall(libc::SYS_pidfd_send_signal, process.as_raw_fd(), END as libc::c_int, nothing, 0)
    };
    if sent == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
