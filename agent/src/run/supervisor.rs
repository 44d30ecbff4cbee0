//! The process beside each run: owns the script's pipes, keeps its output, stops its tree, tells its end.
//!
//! **What for.** The agent may be killed, upgraded or crash; the script must not notice, and nothing it writes
//! may be lost. So one small process per run does what must not stop. It outlives the agent and is found again
//! through a socket in the run's directory.
//!
//! **What it promises.** The script starts only after [`command::GO`], which the agent sends once the journal
//! says `started`: until then its process is a copy of the supervisor that waits, and ends if the word does not come. Output is in the spool before anyone is told of it. The result is durable before anyone is
//! told of it, and is the process's last act.
//!
//! Only the agent's own user can connect to the socket, by its mode and by what the kernel says of who connected: a script
//! that could would stop its own run as if somebody had asked for it.
//!
//! **Deliberately absent.** No threads, no async runtime, no network, no key.

use std::ffi::OsString;
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::ffi::OsStringExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use fleetward_protocol::message::Finished;
use fleetward_protocol::output::Stream;
use fleetward_protocol::run::{Outcome, Refusal};
use fleetward_protocol::wire;
use nix::fcntl::{FcntlArg, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

use super::outcome::{End, not_prepared};
use super::process::{self, Streams};
use super::spec::{CONTROL, Environment, MAX_ENVIRONMENT, Spec};
use super::spool::{FULL_RECORD, Spool};
use super::tree::Tree;
use crate::platform::cgroup::Group;
use crate::platform::{clock, files, socket};

/// The first argument that makes the agent's executable a supervisor. The second is the run's directory; without
/// it the supervisor is a spare one, which is told through its socket.
pub const SUPERVISE: &str = "supervise";

/// What the agent tells a supervisor, one byte each.
pub mod command {
    /// Start the script: the journal says that it was started.
    pub const GO: u8 = b'g';
    /// Stop the script.
    pub const CANCEL: u8 = b'c';
}

/// What a supervisor tells the agent, one byte each.
pub mod signal {
    /// The script was started.
    pub const STARTED: u8 = b's';
    /// There is new output in the spool.
    pub const OUTPUT: u8 = b'o';
    /// The result is there.
    pub const ENDED: u8 = b'e';
}

/// After the script's own end, how long its pipes may stay quiet before whoever still holds them is left alone.
const LINGER: Duration = Duration::from_secs(5);
/// What is taken from a pipe at once: whole records of the largest round size.
const BUFFER: usize = 4 * FULL_RECORD;
/// What the script may write ahead of its supervisor, in bytes.
const PIPE: i32 = 256 << 10;
/// Between two attempts to kill what is left of a tree, or to write to a full disk.
const RETRY: Duration = Duration::from_millis(50);

/// Supervises the run in `directory`, or the one that the agent assigns, to its end. The agent's end of the first
/// connection is standard input.
///
/// # Errors
/// If the run could not be prepared: it was not started then, and its result says so wherever one can be written. Or if
/// its directory is gone at the end.
pub fn supervise(directory: Option<&Path>) -> io::Result<()> {
    let agent = UnixStream::from(process::take_standard_input()?);
    agent.set_nonblocking(false)?;
    nix::sys::prctl::set_child_subreaper(true)?;
    // The script gets a usual one of its own.
    files::ensure_private_umask();
    let signals = block_signals()?;
    match directory {
        Some(directory) => std::env::set_current_dir(directory)?,
        None => match wait_for_assignment(&agent)? {
            Some(directory) => std::env::set_current_dir(directory)?,
            None => return Ok(()),
        },
    }
    let directory = Path::new(".");
    let Prepared { spec, listener, spool, tree, pipes, standing_by } = match prepare(directory, &agent) {
        Ok(Some(prepared)) => prepared,
        Ok(None) => return never_told_to_go(directory),
        Err(error) => {
            End::Refused(not_prepared(&error)).write(directory)?;
            return Err(error);
        }
    };
    if !wait_for_go(&agent)? {
        drop(standing_by);
        tree.ensure_groups_absent();
        return never_told_to_go(directory);
    }
    let started = Instant::now();
    let child = match standing_by.and_then(|waiting| waiting.go().map_err(|error| error.in_full(&spec))) {
        Ok(child) => child,
        Err(detail) => {
            tree.ensure_groups_absent();
            End::Refused(Refusal::SpawnFailed { detail }).write(directory)?;
            drop((&agent).write(&[signal::ENDED]));
            return Ok(());
        }
    };
    let mut supervisor = Supervisor {
        deadline: (spec.timeout_ms > 0).then(|| started + Duration::from_millis(spec.timeout_ms)),
        grace: Duration::from_millis(spec.grace_ms),
        child,
        exit: None,
        stop: None,
        pipes: pipes.map(Some),
        last_output: started,
        tree,
        spool,
        signals,
        listener,
        agent: Some(agent),
        buffer: vec![0; BUFFER],
    };
    supervisor.tell(signal::STARTED);
    while !supervisor.is_over() {
        supervisor.turn();
    }
    supervisor.conclude(directory, started)
}

/// Everything that the script needs but the word to go.
struct Prepared {
    spec: Spec,
    listener: UnixListener,
    spool: Spool,
    tree: Tree,
    pipes: [(OwnedFd, Stream); 2],
    /// The script's process, or in words why there is none.
    standing_by: Result<process::Waiting, String>,
}

/// Gets everything ready; `None` if the agent went away before it said what the script is given.
fn prepare(directory: &Path, agent: &UnixStream) -> io::Result<Option<Prepared>> {
    let spec = Spec::read(directory)?;
    let listener = socket::ensure_private_listener(Path::new(CONTROL))?;
    listener.set_nonblocking(true)?;
    let spool = Spool::create(directory, spec.output, spec.min_free)?;
    let Some(environment) = read_environment(agent)? else { return Ok(None) };
    let limited = spec.groups.iter().try_for_each(Group::ensure);
    let tree = Tree::new(spec.groups.iter().map(|group| group.directory.clone().into()).collect());
    let (stdout, stdout_end) = io::pipe()?;
    let (stderr, stderr_end) = io::pipe()?;
    // A script that writes much runs on while the spool is written. Where it is not allowed, the usual size does.
    let _ = fcntl(&stdout, FcntlArg::F_SETPIPE_SZ(PIPE));
    let streams =
        Streams { stdin: process::null_input()?, stdout: stdout_end.into(), stderr: stderr_end.into() };
    let standing_by = limited.map_err(|error| format!("enforce the run's limits: {error}")).and_then(|()| {
        process::stand_by(&spec, &environment, &streams).map_err(|error| error.in_full(&spec))
    });
    let pipes = [(stdout.into(), Stream::Stdout), (stderr.into(), Stream::Stderr)];
    Ok(Some(Prepared { spec, listener, spool, tree, pipes, standing_by }))
}

fn never_told_to_go(directory: &Path) -> io::Result<()> {
    let detail = "the agent stopped before it could start the run".to_owned();
    End::Refused(Refusal::SpawnFailed { detail }).write(directory)
}

struct Supervisor {
    child: i32,
    /// How the script itself ended, and when.
    exit: Option<(Outcome, Instant)>,
    stop: Option<Stop>,
    pipes: [Option<(OwnedFd, Stream)>; 2],
    last_output: Instant,
    deadline: Option<Instant>,
    grace: Duration,
    tree: Tree,
    spool: Spool,
    signals: SignalFd,
    listener: UnixListener,
    agent: Option<UnixStream>,
    buffer: Vec<u8>,
}

/// The tree is being stopped.
struct Stop {
    outcome: Outcome,
    /// From when on it is killed.
    kill_at: Instant,
}

impl Supervisor {
    /// Whether there is nothing left to wait for.
    fn is_over(&self) -> bool {
        let Some((_, ended)) = &self.exit else { return false };
        match &self.stop {
            Some(_) => self.tree.is_empty(),
            None => {
                let quiet = self.last_output.max(*ended).elapsed() >= LINGER;
                quiet || self.pipes.iter().all(Option::is_none)
            }
        }
    }

    /// Waits for something to happen, and deals with it. Nothing that fails here ends the supervisor: its script would
    /// go on, and nobody would hear of it.
    fn turn(&mut self) {
        let ready = self.wait();
        if ready.signals {
            while matches!(self.signals.read_signal(), Ok(Some(_))) {}
        }
        let mut output = false;
        for (at, readable) in ready.pipes.into_iter().enumerate() {
            output |= readable && self.read_pipe(at);
        }
        if output {
            self.tell(signal::OUTPUT);
        }
        if ready.listener
            && let Ok((agent, _)) = self.listener.accept()
            && socket::read_is_own(&agent).unwrap_or(false)
            && agent.set_nonblocking(true).is_ok()
        {
            // Only one agent speaks for the host: the newest.
            self.agent = Some(agent);
            self.tell(signal::STARTED);
        }
        // Children are looked after before commands, so that a cancel that came too late changes nothing.
        self.reap();
        if ready.agent {
            self.hear();
        }
        self.act_on_time();
    }

    fn wait(&self) -> Ready {
        let mut fds = vec![
            PollFd::new(self.signals.as_fd(), PollFlags::POLLIN),
            PollFd::new(self.listener.as_fd(), PollFlags::POLLIN),
        ];
        fds.extend(self.agent.as_ref().map(|agent| PollFd::new(agent.as_fd(), PollFlags::POLLIN)));
        fds.extend(self.pipes.iter().flatten().map(|(pipe, _)| PollFd::new(pipe.as_fd(), PollFlags::POLLIN)));
        if let Err(error) = poll(&mut fds, self.timeout())
            && error != nix::errno::Errno::EINTR
        {
            // No memory for it, at the moment (poll(2)).
            pause(RETRY);
        }
        let mut ready = fds.iter().map(|fd| fd.any().unwrap_or(true));
        let mut next = || ready.next().unwrap_or(false);
        Ready {
            signals: next(),
            listener: next(),
            agent: self.agent.is_some() && next(),
            pipes: [self.pipes[0].is_some() && next(), self.pipes[1].is_some() && next()],
        }
    }

    fn timeout(&self) -> PollTimeout {
        let now = Instant::now();
        let next = match (&self.stop, &self.exit) {
            (Some(stop), _) if now >= stop.kill_at || self.exit.is_some() => Some(now + RETRY),
            (Some(stop), _) => Some(stop.kill_at),
            (None, Some((_, ended))) => Some(self.last_output.max(*ended) + LINGER),
            (None, None) => self.deadline,
        };
        let Some(next) = next else { return PollTimeout::NONE };
        // A millisecond more: waking early would only wait again.
        let span = next.saturating_duration_since(now) + Duration::from_millis(1);
        PollTimeout::try_from(span).unwrap_or(PollTimeout::MAX)
    }

    /// Moves what is in a pipe to the spool; returns whether there was anything.
    fn read_pipe(&mut self, at: usize) -> bool {
        let Some((pipe, stream)) = &self.pipes[at] else { return false };
        match nix::unistd::read(pipe, &mut self.buffer) {
            Ok(0) => self.pipes[at] = None,
            Ok(length) => {
                let now = clock::now();
                self.spool.append(*stream, now, &self.buffer[..length]);
                if self.exit.is_some() {
                    self.last_output = Instant::now();
                }
                return true;
            }
            Err(nix::errno::Errno::EINTR | nix::errno::Errno::EAGAIN) => {}
            Err(_) => self.pipes[at] = None,
        }
        false
    }

    /// Collects every child that ended: the script, and orphans that were ours to adopt.
    fn reap(&mut self) {
        loop {
            let mut status = 0;
            // SAFETY: `status` outlives the call. Raw, because nix knows no real-time signals.
            let pid = unsafe { libc::waitpid(-1, &raw mut status, libc::WNOHANG) };
            if pid <= 0 {
                return;
            }
            if pid != self.child {
                continue;
            }
            let outcome = if libc::WIFEXITED(status) {
                Outcome::Exited(libc::WEXITSTATUS(status))
            } else {
                Outcome::Signalled(libc::WTERMSIG(status))
            };
            let outcome = self.stop.as_ref().map_or(outcome, |stop| stop.outcome.clone());
            self.exit = Some((outcome, Instant::now()));
        }
    }

    fn hear(&mut self) {
        let mut commands = [0; 64];
        let Some(mut agent) = self.agent.as_ref() else { return };
        match agent.read(&mut commands) {
            Ok(0) => self.agent = None,
            Ok(length) if commands[..length].contains(&command::CANCEL) => self.stop(Outcome::Cancelled),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(_) => self.agent = None,
        }
    }

    fn act_on_time(&mut self) {
        let now = Instant::now();
        if self.exit.is_none() && self.deadline.is_some_and(|deadline| now >= deadline) {
            self.stop(Outcome::TimedOut);
        }
        if self.stop.as_ref().is_some_and(|stop| now >= stop.kill_at) {
            self.tree.kill();
        }
    }

    /// Begins to stop the tree. The first cause counts.
    fn stop(&mut self, outcome: Outcome) {
        if self.stop.is_none() {
            self.tree.terminate();
            self.stop = Some(Stop { outcome, kill_at: Instant::now() + self.grace });
        }
    }

    /// A lost signal costs nothing: whoever hears the next one looks at everything.
    fn tell(&mut self, signal: u8) {
        let Some(mut agent) = self.agent.as_ref() else { return };
        match agent.write(&[signal]) {
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => self.agent = None,
            _ => {}
        }
    }

    /// Takes what is left in the pipes, makes output and result durable, and tells the agent.
    fn conclude(mut self, directory: &Path, started: Instant) -> io::Result<()> {
        for at in 0..self.pipes.len() {
            self.drain(at);
        }
        let Some((outcome, ended)) = self.exit.clone() else { return Ok(()) };
        let at = clock::now();
        let duration_ms = u64::try_from((ended - started).as_millis()).unwrap_or(u64::MAX);
        // A full disk delays the end of the run, and does not falsify it.
        loop {
            let write = |spool: &mut Spool| {
                let log_length = spool.finish(at)?;
                let outcome = outcome.clone();
                End::Finished(Finished { outcome, at, duration_ms, log_length }).write(directory)
            };
            match write(&mut self.spool) {
                Ok(()) => break,
                // The directory was removed: nobody will ever ask.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    self.tree.ensure_groups_absent();
                    return Err(error);
                }
                Err(_) => {}
            }
            pause(RETRY * 20);
        }
        self.tell(signal::ENDED);
        // Else the agent, woken on this processor, may have to wait for the end of this process.
        std::thread::yield_now();
        self.tree.ensure_groups_absent();
        Ok(())
    }

    /// Reads a pipe until it is empty for the moment.
    fn drain(&mut self, at: usize) {
        while let Some((pipe, _)) = &self.pipes[at] {
            let mut fds = [PollFd::new(pipe.as_fd(), PollFlags::POLLIN)];
            if !matches!(poll(&mut fds, PollTimeout::ZERO), Ok(1..)) || !self.read_pipe(at) {
                return;
            }
        }
    }
}

struct Ready {
    signals: bool,
    listener: bool,
    agent: bool,
    pipes: [bool; 2],
}

/// Waits for nothing but time: what failed may do better later.
fn pause(span: Duration) {
    let _ = poll(&mut [], PollTimeout::try_from(span).unwrap_or(PollTimeout::MAX));
}

/// Blocks until the agent names the run's directory; `None` if it went away without.
fn wait_for_assignment(mut agent: &UnixStream) -> io::Result<Option<PathBuf>> {
    let mut length = [0; 2];
    match agent.read_exact(&mut length) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        other => other?,
    }
    let mut path = vec![0; usize::from(u16::from_le_bytes(length))];
    agent.read_exact(&mut path)?;
    Ok(Some(PathBuf::from(OsString::from_vec(path))))
}

/// Blocks until the agent has handed over the script's environment; `None` if it went away without.
fn read_environment(mut agent: &UnixStream) -> io::Result<Option<Environment>> {
    let mut length = [0; 4];
    match agent.read_exact(&mut length) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        other => other?,
    }
    let length = usize::try_from(u32::from_le_bytes(length)).unwrap_or(usize::MAX);
    if length > MAX_ENVIRONMENT {
        return Err(io::Error::other("the environment is too long"));
    }
    let mut bytes = vec![0; length];
    agent.read_exact(&mut bytes)?;
    wire::decode(&bytes, MAX_ENVIRONMENT).map(Some).map_err(io::Error::other)
}

/// Blocks until the agent says go; false if it went away, or wants the run not to start.
fn wait_for_go(agent: &UnixStream) -> io::Result<bool> {
    let mut first = [0; 1];
    let go = matches!((&mut &*agent).read(&mut first), Ok(1)) && first == [command::GO];
    agent.set_nonblocking(true)?;
    Ok(go)
}

/// The supervisor dies of nothing but its own end: whoever stops a service or closes a terminal means others.
fn block_signals() -> io::Result<SignalFd> {
    let mut child = SigSet::empty();
    child.add(Signal::SIGCHLD);
    let mut blocked = child;
    for signal in
        [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGQUIT, Signal::SIGUSR1, Signal::SIGUSR2]
    {
        blocked.add(signal);
    }
    blocked.thread_block()?;
    Ok(SignalFd::with_flags(&child, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)?)
}
