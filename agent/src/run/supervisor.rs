//! The process beside each run: owns the script's pipes, keeps its output, stops its tree, tells its end.
//!
//! **What for.** The agent may be killed, upgraded or crash; the script must not notice, and nothing it writes
//! may be lost. So one small process per run does what must not stop. It outlives the agent and is found again
//! through a socket in the run's directory.
//!
//! **What it promises.** The script starts only after [`command::GO`], which the agent sends once the journal
//! says `started`: until then its process is a copy of the supervisor that waits, and ends if the word does not come. Output is in the spool before anyone is told of it. The result is durable before anyone is
//! told of it, and is the process's last act for the run; what the script left running may need it as a
//! [drain](super::drain).
//!
//! Only the agent's own user can connect to the socket, by its mode and by what the kernel says of who connected: a script
//! that could would stop its own run as if somebody had asked for it.
//!
//! **Deliberately absent.** No threads, no async runtime, no network, no key.

use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::time::{Duration, Instant};

use fleetward_protocol::message::Finished;
use fleetward_protocol::output::Stream;
use fleetward_protocol::run::{Fate, Outcome, Refusal};
use fleetward_protocol::text::Text;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigHandler, SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

use super::again::{self, Again, Death, Source, Sources};
use super::drain::Drain;
use super::ending::{Ending, Over, Pipes};
use super::given::{Given, wait_for_assignment, wait_for_go};
use super::outcome::{End, not_prepared};
use super::process;
use super::spec::{CONTROL, Spec, Started};
use super::spool::{FULL_RECORD, Spool};
use super::told::{Frames, keep};
use super::tree::Tree;
use crate::perform::GOES_DOWN;
use crate::platform::cgroup::Group;
use crate::platform::stop::Why;
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

/// What is taken from a pipe at once: whole records of the largest round size.
const BUFFER: usize = 4 * FULL_RECORD;
/// Between two attempts at what failed for want of memory.
const RETRY: Duration = Duration::from_millis(50);
/// Between two attempts to write to a full disk.
const FULL: Duration = Duration::from_secs(1);

/// Supervises the run in `directory`, or the one that the agent assigns, to its end. The agent's end of the first
/// connection is standard input.
///
/// # Errors
/// If the run could not be prepared: it was not started then, and its result says so wherever one can be written. Or if
/// its directory is gone at the end.
pub fn supervise(directory: Option<&Path>) -> io::Result<()> {
    process::reset_signals();
    // An agent that is gone is an error to be handled, and no end.
    // SAFETY: no handler is installed.
    unsafe { nix::sys::signal::signal(Signal::SIGPIPE, SigHandler::SigIgn) }?;
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
    let Prepared { spec, listener, spool, tree, sources, standing_by, again } =
        match prepare(directory, &agent) {
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
    // Should the journal be damaged one day, this still tells that the script must not be started again. Where it cannot
    // be made, the journal alone does.
    let started = Started::mark(directory);
    let child = match standing_by.and_then(|waiting| waiting.go().map_err(|error| error.in_full(&spec))) {
        Ok(child) => child,
        Err(detail) => {
            tree.ensure_groups_absent();
            End::Refused(Refusal::SpawnFailed { detail: Text::of(&detail) }).write(directory)?;
            drop((&agent).write(&[signal::ENDED]));
            return Ok(());
        }
    };
    let deadline =
        (spec.timeout_ms > 0).then(|| started.at.checked_add(Duration::from_millis(spec.timeout_ms)));
    let mut supervisor = Supervisor {
        child,
        is_typed: sources.iter().any(|(_, source)| *source == Source::Told),
        again,
        ending: Ending::new(deadline.flatten(), Duration::from_millis(spec.grace_ms)),
        pipes: sources.into_iter().map(Some).collect(),
        told: Frames::default(),
        tree,
        spool,
        signals,
        listener,
        agent: Some(agent),
        buffer: vec![0; BUFFER],
    };
    supervisor.tell(signal::STARTED);
    let over = loop {
        if let Some(over) = supervisor.over() {
            break over;
        }
        supervisor.turn();
    };
    supervisor.conclude(directory, started, over, &spec)
}

/// Everything that the script needs but the word to go.
struct Prepared {
    spec: Spec,
    listener: UnixListener,
    spool: Spool,
    tree: Tree,
    sources: Sources,
    /// The script's process, or in words why there is none.
    standing_by: Result<process::Waiting, String>,
    again: Option<Again>,
}

/// Gets everything ready; `None` if the agent went away before it said what the script is given.
fn prepare(directory: &Path, agent: &UnixStream) -> io::Result<Option<Prepared>> {
    let spec = Spec::read(directory)?;
    let listener = socket::ensure_private_listener(Path::new(CONTROL))?;
    listener.set_nonblocking(true)?;
    let spool = if spec.resumed { Spool::resume } else { Spool::create };
    let spool = spool(directory, spec.output, spec.min_free)?;
    let Some(given) = Given::read(agent)? else { return Ok(None) };
    let limited = spec.groups.iter().try_for_each(Group::ensure);
    let tree = Tree::new(spec.groups.iter().map(|group| group.directory.clone().into()).collect());
    let (sources, waiting) = again::stand_by(&spec, &given)?;
    let standing_by = limited.map_err(|error| format!("enforce the run's limits: {error}")).and(waiting);
    let again = Again::of(&spec, given);
    Ok(Some(Prepared { spec, listener, spool, tree, sources, standing_by, again }))
}

fn never_told_to_go(directory: &Path) -> io::Result<()> {
    let detail = "the agent stopped before it could start the run".to_owned();
    End::Refused(Refusal::SpawnFailed { detail: Text::of(&detail) }).write(directory)
}

struct Supervisor {
    child: i32,
    /// Whether it is one of ours.
    is_typed: bool,
    again: Option<Again>,
    ending: Ending,
    pipes: Vec<Option<(OwnedFd, Source)>>,
    told: Frames,
    tree: Tree,
    spool: Spool,
    signals: SignalFd,
    listener: UnixListener,
    agent: Option<UnixStream>,
    buffer: Vec<u8>,
}

impl Supervisor {
    /// Why there is nothing left to wait for, if so.
    fn over(&self) -> Option<Over> {
        self.ending.over(Instant::now(), self.pipes(), || self.tree.is_empty())
    }

    fn pipes(&self) -> Pipes {
        if self.pipes.iter().all(Option::is_none) { Pipes::Closed } else { Pipes::Open }
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
            output |= readable && self.read_pipe(at) > 0;
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
            pipes: self.pipes.iter().map(|pipe| pipe.is_some() && next()).collect(),
        }
    }

    fn timeout(&self) -> PollTimeout {
        let now = Instant::now();
        let next = self.ending.next(now);
        let Some(next) = next else { return PollTimeout::NONE };
        // A millisecond more: waking early would only wait again.
        let span = next.saturating_duration_since(now) + Duration::from_millis(1);
        PollTimeout::try_from(span).unwrap_or(PollTimeout::MAX)
    }

    /// Moves what is in a pipe to the spool; returns how much there was.
    fn read_pipe(&mut self, at: usize) -> usize {
        let Some((pipe, source)) = &self.pipes[at] else { return 0 };
        match nix::unistd::read(pipe, &mut self.buffer) {
            Ok(0) => {
                let Self { told, spool, .. } = self;
                if *source == Source::Told {
                    told.end(|told| keep(spool, told));
                }
                self.pipes[at] = None;
            }
            Ok(length) => {
                let Self { told, spool, buffer, .. } = self;
                let bytes = &buffer[..length];
                match source {
                    Source::Output(stream) => spool.append(*stream, clock::now(), bytes),
                    Source::Told => told.take(bytes, |told| keep(spool, told)),
                }
                self.ending.wrote(Instant::now());
                return length;
            }
            Err(nix::errno::Errno::EINTR | nix::errno::Errno::EAGAIN) => {}
            Err(_) => self.pipes[at] = None,
        }
        0
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
            if let Outcome::Signalled(signal) = outcome
                && self.is_typed
                && self.go_on_without(signal)
            {
                continue;
            }
            self.ending.exited(outcome, Instant::now());
        }
    }

    /// Whether another process goes on in the place of one of ours that this signal ended.
    fn go_on_without(&mut self, death: i32) -> bool {
        // What it told comes first. Nobody else holds that pipe, and what stands torn at its end will not be whole.
        for at in 0..self.pipes.len() {
            self.empty(at);
        }
        let Self { told, spool, pipes, .. } = self;
        told.end(|told| keep(spool, told));
        *told = Frames::default();
        pipes.retain(|pipe| pipe.as_ref().is_some_and(|(_, source)| *source != Source::Told));
        let is_stopped = self.ending.is_stopped(Instant::now());
        let Death { again, line } = again::after(death, self.again.as_mut(), is_stopped, Path::new("."));
        self.spool.append(Stream::Stderr, clock::now(), line.as_bytes());
        self.tell(signal::OUTPUT);
        let Some((child, sources)) = again else { return false };
        self.child = child;
        self.pipes.extend(sources.into_iter().map(Some));
        true
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
        if self.ending.is_timed_out(now) {
            self.stop(Outcome::TimedOut);
        }
        if self.ending.is_to_be_killed(now) {
            self.tree.kill();
        }
    }

    fn stop(&mut self, outcome: Outcome) {
        let why = if outcome == Outcome::TimedOut { Why::TimeLimit } else { Why::Requested };
        self.ending.stop(outcome, Instant::now(), || self.tree.terminate(why));
    }

    /// A lost signal costs nothing: whoever hears the next one looks at everything.
    fn tell(&mut self, signal: u8) {
        let Some(mut agent) = self.agent.as_ref() else { return };
        match agent.write(&[signal]) {
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => self.agent = None,
            _ => {}
        }
    }

    /// Makes the output durable and says nothing of an end: the host goes down, as the run asked for, and the next boot finds the
    /// run as one that was cut off. Nobody who stays would be anything but waited for.
    fn leave_to_the_next_boot(mut self) -> io::Result<()> {
        while let Err(error) = self.spool.finish(clock::now()) {
            if error.kind() == io::ErrorKind::NotFound {
                return Err(error);
            }
            pause(FULL);
        }
        self.tree.ensure_groups_absent();
        Ok(())
    }

    /// Takes what is left in the pipes, makes output and result durable, and tells the agent. Then the run is over; what
    /// its script left running is read to nowhere.
    fn conclude(mut self, directory: &Path, started: Started, over: Over, spec: &Spec) -> io::Result<()> {
        for at in 0..self.pipes.len() {
            self.empty(at);
        }
        let Some((outcome, ended)) = self.ending.exit().cloned() else { return Ok(()) };
        if self.is_typed && outcome == Outcome::Exited(i32::from(GOES_DOWN)) {
            return self.leave_to_the_next_boot();
        }
        let (over, drain) = match (over, self.pipes()) {
            // The last word was in the pipe, and then its end.
            (Over::Held, Pipes::Closed) => (Over::Closed, None),
            // Who cannot be counted among the drains must not be one.
            (Over::Held, Pipes::Open) => {
                (over, spec.drains.as_ref().and_then(|drains| Drain::begin(drains, spec.run).ok()))
            }
            (over, _) => (over, None),
        };
        let processes = if matches!(over, Over::Held | Over::Unstoppable) { self.tree.count() } else { 0 };
        let unkept = if drain.is_some() { Fate::Unkept } else { Fate::CutOff };
        let left = self.ending.left(over, Instant::now(), processes, unkept);
        let at = clock::now();
        let duration_ms = started.took_ms(ended);
        // A full disk delays the end of the run, and does not falsify it.
        let written = loop {
            let write = |spool: &mut Spool| {
                let log_length = spool.finish(at)?;
                let outcome = outcome.clone();
                End::Finished(Finished { outcome, at, duration_ms, log_length, left }).write(directory)
            };
            match write(&mut self.spool) {
                // The directory was removed: nobody will ever ask.
                Err(error) if error.kind() != io::ErrorKind::NotFound => {}
                written => break written,
            }
            pause(FULL);
        };
        if written.is_ok() {
            self.tell(signal::ENDED);
            // Else the agent, woken on this processor, may have to wait for the end of this process.
            std::thread::yield_now();
        }
        let Self { tree, pipes, .. } = self;
        if let Some(drain) = drain {
            drain.read_out(pipes.into_iter().flatten().map(|(pipe, _)| pipe).collect());
        }
        tree.ensure_groups_absent();
        written
    }

    /// Takes what is in a pipe at this moment: whoever holds it may write faster than it is read.
    fn empty(&mut self, at: usize) {
        let Some((pipe, _)) = &self.pipes[at] else { return };
        let mut left: libc::c_int = 0;
        // SAFETY: the descriptor is open, and the kernel writes one integer.
        if unsafe { libc::ioctl(pipe.as_raw_fd(), libc::FIONREAD, &raw mut left) } < 0 {
            return;
        }
        let mut left = usize::try_from(left).unwrap_or(0);
        while let Some((pipe, _)) = &self.pipes[at] {
            let mut fds = [PollFd::new(pipe.as_fd(), PollFlags::POLLIN)];
            let ready = poll(&mut fds, PollTimeout::ZERO).map(|_| fds[0].revents());
            match ready {
                Ok(Some(events)) if events.contains(PollFlags::POLLIN) && left > 0 => {
                    left = left.saturating_sub(self.read_pipe(at));
                }
                // Empty, and nobody is left who could write.
                Ok(Some(PollFlags::POLLHUP)) => self.pipes[at] = None,
                _ => return,
            }
        }
    }
}

struct Ready {
    signals: bool,
    listener: bool,
    agent: bool,
    pipes: Vec<bool>,
}

/// Waits for nothing but time: what failed may do better later.
fn pause(span: Duration) {
    let _ = poll(&mut [], PollTimeout::try_from(span).unwrap_or(PollTimeout::MAX));
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
