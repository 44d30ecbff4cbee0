//! The process of a typed action: `fleetward-agent perform`.
//!
//! **What for.** What a script is to bash, an action of a typed kind is to this program: it runs beside the agent, under
//! the same supervisor, in the same control group, with the same limits, and outlives the agent as a script does.
//!
//! **What it is given.** The action, and what it may touch, as JSON on standard input, which nobody else can read; nothing of it is in argv, in the
//! environment or in a file. Where it tells what it does is descriptor 3 ([`crate::run::told`]); without that, as when
//! a person starts it, words go to standard output and standard error, and so do events and the report, as JSON lines.
//!
//! **What it promises.** A changing step is in the [step journal](crate::journal::steps) before it begins. SIGTERM
//! is a request that is heard at the next point where the action can stop. Its exit codes are those of [`Done`].
//!
//! **What cuts it off.** With `--resume` this process goes on with an action that a restart of the host cut off, with `--again`
//! in the place of a process that was killed while the host went on: the journal tells which changing steps began. None of them is
//! done again that was done, but for those of which twice is once; one that began is done only if a look at the host says that it
//! is still to be done.
//!
//! **Deliberately absent.** Policy: what may run here was decided before the process was made.

mod hold;
mod steps;
mod teller;

use std::ffi::OsString;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use fleetward_protocol::action::{Action, ActionRequest};
use fleetward_protocol::id::BootId;
use serde::{Deserialize, Serialize};

use steps::Mode;
pub use steps::{Cut, Done, Failure, GOES_DOWN, Left, Problem, Steps};

use crate::action;
use crate::config::Allowed;
use crate::journal::steps::{Step, StepJournal};
use crate::platform::stop::Stop;
use crate::platform::users::Identity;
use crate::platform::{clock, files};
use hold::Held;
use teller::Teller;

/// The first argument that makes the agent's executable carry out a typed action. The second is the run's directory.
pub const PERFORM: &str = "perform";

/// The argument before the directory that says that a restart of the host cut this action off.
pub const RESUME: &str = "--resume";

/// The argument in its place that says that this action's process was killed, and the host goes on.
pub const AGAIN: &str = "--again";

/// The most bytes of an action in JSON: what an order may hold, with every character escaped.
const MAX_INPUT: u64 = 8 << 20;

/// What this process is given to do.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Task {
    pub(crate) action: ActionRequest,
    /// Whether to tell only what it would change.
    pub(crate) rehearsal: bool,
    /// What the owner allows the kind to touch.
    pub(crate) allowed: Allowed,
    /// Whom it becomes before it does anything, if not the agent's own user.
    pub(crate) identity: Option<Identity>,
    /// The boot that the host is in.
    pub(crate) boot: BootId,
}

/// Whether this action was begun before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Attempt {
    First,
    /// Something cut it off.
    Again(Cut),
}

/// Carries out the action that standard input holds, with the arguments behind [`PERFORM`].
#[must_use]
pub fn perform(mut arguments: impl Iterator<Item = OsString>) -> ExitCode {
    let began = clock::uptime();
    let mut teller = Teller::take();
    let (attempt, directory) = match arguments.next() {
        Some(first) if first == RESUME => (Attempt::Again(Cut::Restart), arguments.next()),
        Some(first) if first == AGAIN => (Attempt::Again(Cut::Death), arguments.next()),
        first => (Attempt::First, first),
    };
    match prepare(attempt, directory.map(PathBuf::from).as_deref(), &mut teller) {
        Ok(Prepared { action, mode, journal, earlier, stop, _held }) => {
            let mut steps = Steps::new(teller, journal, stop, began, mode);
            if let Attempt::Again(cut) = attempt {
                steps.take_up(cut, earlier);
            }
            match action::perform(&action, &mut steps) {
                Some(done) => done.into(),
                None => {
                    steps.complain("a script is not carried out here: bash does that");
                    Done::Failed.into()
                }
            }
        }
        Err(error) => {
            teller.complain(&format!("the action was not begun: {error}"));
            Done::Failed.into()
        }
    }
}

struct Prepared {
    action: Action,
    mode: Mode,
    journal: StepJournal,
    earlier: Vec<Step>,
    stop: Stop,
    _held: Held,
}

fn prepare(attempt: Attempt, directory: Option<&Path>, teller: &mut Teller) -> Result<Prepared, String> {
    files::ensure_private_umask();
    let mut stop = Stop::listen().map_err(|error| format!("listen for SIGTERM: {error}"))?;
    let directory = directory.ok_or("name the run's directory: fleetward-agent perform DIRECTORY")?;
    let mut input = Vec::new();
    let read = io::stdin().lock().take(MAX_INPUT).read_to_end(&mut input);
    read.map_err(|error| format!("read the action from standard input: {error}"))?;
    let Task { action, rehearsal, allowed, identity, boot } =
        serde_json::from_slice(&input).map_err(|error| format!("standard input holds no action: {error}"))?;
    let action = Action::parse(&action).map_err(|error| error.to_string())?;
    let (journal, earlier) = StepJournal::open(directory)
        .map_err(|error| format!("open the step journal in {}: {error}", directory.display()))?;
    if attempt == Attempt::First && !earlier.is_empty() {
        // Whoever begins it anew would do again what was done.
        return Err(format!("{} holds the steps of an earlier attempt", directory.display()));
    }
    let state = directory.ancestors().nth(2).unwrap_or(directory).to_owned();
    // Who only looks waits for nobody.
    let resources = if rehearsal { Vec::new() } else { action.needs().resources };
    let _held = hold::hold(&state, &resources, &mut stop, teller)?;
    // Journal and locks are the agent's alone, and open by now.
    if let Some(identity) = identity {
        identity.ensure_taken().map_err(|error| format!("become the user who acts: {error}"))?;
    }
    Ok(Prepared { action, mode: Mode { rehearsal, allowed, state, boot }, journal, earlier, stop, _held })
}
