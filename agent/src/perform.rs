//! The process of a typed action: `fleetward-agent perform`.
//!
//! **What for.** What a script is to bash, an action of a typed kind is to this program: it runs beside the agent, under
//! the same supervisor, in the same control group, with the same limits, and outlives the agent as a script does.
//!
//! **What it is given.** The action as JSON on standard input, which nobody else can read; nothing of it is in argv, in the
//! environment or in a file. Where it tells what it does is descriptor 3 ([`crate::run::told`]); without that, as when
//! a person starts it, words go to standard output and standard error, and so do events and the report, as JSON lines.
//!
//! **What it promises.** A changing step is in the [step journal](crate::journal::steps) before it begins. SIGTERM
//! is a request that is heard at the next point where the action can stop. Its exit codes are those of [`Done`].
//!
//! **Deliberately absent.** Policy: what may run here was decided before the process was made.

mod steps;
mod teller;

use std::io::{self, Read as _};
use std::path::Path;
use std::process::ExitCode;

use fleetward_protocol::action::{Action, ActionRequest};

pub use steps::{Done, Failure, Left, Problem, Steps};

use crate::action;
use crate::journal::steps::StepJournal;
use crate::platform::stop::Stop;
use crate::platform::{clock, files};
use teller::Teller;

/// The first argument that makes the agent's executable carry out a typed action. The second is the run's directory.
pub const PERFORM: &str = "perform";

/// The most bytes of an action in JSON: what an order may hold, with every character escaped.
const MAX_INPUT: u64 = 8 << 20;

/// Carries out the action that standard input holds.
#[must_use]
pub fn perform(directory: Option<&Path>) -> ExitCode {
    let began = clock::uptime();
    let mut teller = Teller::take();
    match prepare(directory) {
        Ok((action, journal, stop)) => {
            let mut steps = Steps::new(teller, journal, stop, began);
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

fn prepare(directory: Option<&Path>) -> Result<(Action, StepJournal, Stop), String> {
    files::ensure_private_umask();
    let stop = Stop::listen().map_err(|error| format!("listen for SIGTERM: {error}"))?;
    let directory = directory.ok_or("name the run's directory: fleetward-agent perform DIRECTORY")?;
    let mut input = Vec::new();
    let read = io::stdin().lock().take(MAX_INPUT).read_to_end(&mut input);
    read.map_err(|error| format!("read the action from standard input: {error}"))?;
    let request: ActionRequest =
        serde_json::from_slice(&input).map_err(|error| format!("standard input holds no action: {error}"))?;
    let action = Action::parse(&request).map_err(|error| error.to_string())?;
    let (journal, earlier) = StepJournal::open(directory)
        .map_err(|error| format!("open the step journal in {}: {error}", directory.display()))?;
    if !earlier.is_empty() {
        // Whether what began has happened is not known, and no kind finishes or undoes that yet.
        return Err(format!("{} holds the steps of an earlier attempt", directory.display()));
    }
    Ok((action, journal, stop))
}
