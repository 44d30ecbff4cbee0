//! The run's process and its pipes: made ready, and, if it is one of ours that was killed by itself, started again.
//!
//! **What for.** A typed action's process that dies in the middle of a step (by SIGKILL, by the kernel for want of memory, of a
//! defect of its own) leaves that step half done, and its run would end so. Started again, it finds in the step journal where it
//! was, as after a restart of the host, and comes to an end: the step is finished, or undone, before the run's resources are free.
//!
//! **What it promises.** No more than [`TIMES`]; never for what is being stopped, and never for a kind that cannot tell by a look
//! what is still to be done. Each death is told in the run's output, with what may be half done.

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use fleetward_protocol::output::Stream;
use nix::fcntl::{FcntlArg, fcntl};
use nix::sys::signal::Signal;

use super::given::Given;
use super::process::{self, Streams, Waiting};
use super::spec::Spec;
use crate::journal::steps;
use crate::perform::{AGAIN, RESUME};

/// So often a process is started again at most.
const TIMES: u8 = 2;
/// What the process may write ahead of its supervisor, in bytes.
const PIPE: i32 = 256 << 10;

/// What comes out of a pipe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Source {
    /// What the process writes.
    Output(Stream),
    /// What it tells, if it is one of ours.
    Told,
}

/// The ends of a process's pipes that its supervisor reads.
pub(super) type Sources = Vec<(OwnedFd, Source)>;

/// Makes the process ready, up to the word to go, with pipes of its own; or says in words why there is none.
///
/// # Errors
/// If there are no pipes to be had.
pub(super) fn stand_by(spec: &Spec, given: &Given) -> io::Result<(Sources, Result<Waiting, String>)> {
    let (stdout, stdout_end) = io::pipe()?;
    let (stderr, stderr_end) = io::pipe()?;
    // A script that writes much runs on while the spool is written. Where it is not allowed, the usual size does.
    let _ = fcntl(&stdout, FcntlArg::F_SETPIPE_SZ(PIPE));
    let mut sources = vec![
        (stdout.into(), Source::Output(Stream::Stdout)),
        (stderr.into(), Source::Output(Stream::Stderr)),
    ];
    let mut streams =
        Streams { stdin: given.input()?, stdout: stdout_end.into(), stderr: stderr_end.into(), told: None };
    if given.input.is_some() {
        let (told, told_end) = io::pipe()?;
        streams.told = Some(told_end.into());
        sources.push((told.into(), Source::Told));
    }
    let waiting = process::stand_by(spec, &given.environment, &streams).map_err(|error| error.in_full(spec));
    Ok((sources, waiting))
}

/// What a process is started again with.
#[derive(Debug)]
pub(super) struct Again {
    spec: Spec,
    given: Given,
    begun: u8,
}

/// What becomes of a run whose process was killed, and the words for it.
pub(super) struct Death {
    /// The process that goes on in its place, and its pipes.
    pub(super) again: Option<(i32, Sources)>,
    /// A line for the run's standard error.
    pub(super) line: String,
}

impl Again {
    /// For a run that is begun with this; `None` if its process is not one to be started again.
    pub(super) fn of(spec: &Spec, given: Given) -> Option<Self> {
        if !given.again {
            return None;
        }
        let mut spec = spec.clone();
        spec.arguments.retain(|argument| argument != RESUME);
        // Before the directory, which is the last one.
        spec.arguments.insert(spec.arguments.len().saturating_sub(1), AGAIN.to_owned());
        Some(Self { spec, given, begun: 0 })
    }

    fn start(&mut self) -> Result<(i32, Sources), String> {
        self.begun += 1;
        let (sources, waiting) = stand_by(&self.spec, &self.given).map_err(|error| error.to_string())?;
        let pid = waiting?.go().map_err(|error| error.in_full(&self.spec))?;
        Ok((pid, sources))
    }
}

/// Goes on without a process of ours that this signal ended, of the run in `directory`. One that is being stopped does not.
pub(super) fn after(death: i32, again: Option<&mut Again>, is_stopped: bool, directory: &Path) -> Death {
    let signal =
        Signal::try_from(death).map_or_else(|_| format!("signal {death}"), |signal| signal.to_string());
    let (again, then) = match again {
        _ if is_stopped => (None, "the run was being stopped, and does not go on".to_owned()),
        None => (None, "an action of its kind is not taken up".to_owned()),
        Some(again) if again.begun >= TIMES => {
            (None, format!("it was started again {TIMES} times, and is not once more"))
        }
        Some(again) => match again.start() {
            Ok(started) => {
                let times = again.begun;
                (Some(started), format!("it is started again, to come to an end ({times} of {TIMES})"))
            }
            Err(error) => (None, format!("it could not be started again: {error}")),
        },
    };
    let place = steps::read_place(directory);
    let left =
        if again.is_some() { "" } else { "; what it had begun may be half done: look at it on the host" };
    let line = format!("fleetward: the process of this run was killed ({signal}) {place}; {then}{left}\n");
    Death { again, line }
}
