//! The steps of a typed action, as it goes: told, journalled, and concluded.

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use fleetward_protocol::action::{Change, Preview};
use fleetward_protocol::event::{Event, StepName, StepState};
use fleetward_protocol::id::BootId;
use fleetward_protocol::text::{Line, Text};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::teller::Teller;
use crate::config::Allowed;
use crate::journal::steps::{self, Earlier, Step, StepJournal};
use crate::platform::stop::Stop;

/// What an action tells while it goes, and what it is told: to stop.
#[derive(Debug)]
pub struct Steps {
    teller: Teller,
    journal: StepJournal,
    stop: Stop,
    began: Duration,
    mode: Mode,
    /// What cut it off, and what was done before; `None` if nothing did.
    past: Option<(Cut, Vec<Step>)>,
}

/// What cut an action off that is taken up again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    /// The host restarted: what the boot does is done, and what was running is not.
    Restart,
    /// Its process was killed. The host goes on as it was left.
    Death,
}

impl Cut {
    /// What happened.
    pub const fn clause(self) -> &'static str {
        match self {
            Self::Restart => "the host restarted",
            Self::Death => "the process of this run was killed",
        }
    }

    /// The same, to stand behind *after*.
    pub const fn noun(self) -> &'static str {
        match self {
            Self::Restart => "the restart of the host",
            Self::Death => "the end of its process",
        }
    }
}

/// How far this goes.
#[derive(Debug)]
pub(super) struct Mode {
    /// Only as far as a look.
    pub(super) rehearsal: bool,
    /// What the owner allows to be touched.
    pub(super) allowed: Allowed,
    /// Where the agent keeps its state.
    pub(super) state: PathBuf,
    /// The boot of the host.
    pub(super) boot: BootId,
}

/// How an action ended, and the exit code of its process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Done {
    /// The host is as it was asked for. Exit code 0.
    Well,
    /// It is not. What was done before is left as it is, and told. Exit code 1.
    Failed,
    /// It is not; what was done was undone, and the host is as before. Exit code 2.
    Undone,
    /// It is not, and what was done could not be undone. Exit code 3.
    NotUndone,
    /// The host goes down, as was asked for, and the next boot goes on with it. Exit code [`GOES_DOWN`].
    GoesDown,
}

/// The exit code of an action that the next boot goes on with: its supervisor leaves it without an end.
pub const GOES_DOWN: u8 = 4;

/// Why a step did not come to its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// In a sentence without its full stop.
    pub reason: Line,
    /// What to do next.
    pub advice: Line,
}

/// Why an action did not come to its end, and what there is to report all the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure<R> {
    /// What went wrong.
    pub problem: Problem,
    /// How the host was left.
    pub left: Left,
    /// What was found and done up to then.
    pub report: Option<Box<R>>,
}

/// How an action that failed left the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Left {
    /// As it is: there was nothing to undo, or nothing that can be undone.
    AsItIs,
    /// As it was before.
    Undone,
    /// Neither as it was nor as it was asked for.
    NotUndone,
    /// It goes down, as was asked for: the next boot goes on with the action, and nothing is told now.
    GoesDown,
}

impl Problem {
    /// What went wrong, and what to do next.
    pub fn new(reason: impl fmt::Display, advice: impl fmt::Display) -> Self {
        Self { reason: Text::of(reason), advice: Text::of(advice) }
    }
}

impl<R> From<Problem> for Failure<R> {
    /// Nothing was done yet, and there is nothing to report.
    fn from(problem: Problem) -> Self {
        Self { problem, left: Left::AsItIs, report: None }
    }
}

impl Steps {
    /// Of an action that began at this time of the boot.
    pub(super) const fn new(
        teller: Teller,
        journal: StepJournal,
        stop: Stop,
        began: Duration,
        mode: Mode,
    ) -> Self {
        Self { teller, journal, stop, began, mode, past: None }
    }

    /// Whether only what would change is told.
    pub const fn is_rehearsal(&self) -> bool {
        self.mode.rehearsal
    }

    /// What the owner allows this kind to touch.
    pub const fn allowed(&self) -> &Allowed {
        &self.mode.allowed
    }

    /// Where the agent keeps its state: nobody changes that through it.
    pub fn state(&self) -> &Path {
        &self.mode.state
    }

    /// The directory of this run, with which goes what stands in it.
    pub fn directory(&self) -> &Path {
        self.journal.directory()
    }

    /// The boot that the host is in.
    pub const fn boot(&self) -> BootId {
        self.mode.boot
    }

    /// Keeps this for the case that the action is cut off; it is durable when this returns.
    ///
    /// # Errors
    /// If it cannot be written: then nothing that relies on it must begin.
    pub fn remember(&self, memory: &impl Serialize) -> Result<(), Problem> {
        let kept = serde_json::to_vec(memory).map_err(std::io::Error::other);
        kept.and_then(|kept| self.journal.remember(&kept)).map_err(|error| {
            Problem::new(
                format_args!(
                    "what is needed to go on after an interruption could not be written down: {error}"
                ),
                "nothing was done; make room on the disk that holds the agent's state, and ask again",
            )
        })
    }

    /// What was kept before the action was cut off; `None` if nothing was, or nothing that can be read.
    pub fn recall<T: DeserializeOwned>(&self) -> Option<T> {
        let kept = self.journal.recall().ok().flatten()?;
        serde_json::from_slice(&kept).ok()
    }

    /// Goes on with an action that was cut off, after these steps, and says so.
    pub(super) fn take_up(&mut self, cut: Cut, past: Vec<Step>) {
        let words = format!("{}; taken up again {}", cut.clause(), steps::place(&past));
        self.say(&words);
        self.event("take-up", StepState::Done, words);
        self.past = Some((cut, past));
    }

    /// What cut this action off before, if anything did.
    pub fn cut(&self) -> Option<Cut> {
        self.past.as_ref().map(|(cut, _)| *cut)
    }

    /// What cut this action off, as a clause: *before* that something may have been done.
    pub fn cut_clause(&self) -> &'static str {
        self.cut().map_or("it was cut off", Cut::clause)
    }

    /// Why a step that began before is not needed any more.
    pub fn not_again(&self) -> String {
        format!("not done again after {}", self.cut().map_or("an interruption", Cut::noun))
    }

    /// How far a changing step had come before this action was cut off.
    pub fn earlier(&self, step: &str) -> Option<Earlier> {
        let (_, past) = self.past.as_ref()?;
        steps::earlier(past, step)
    }

    /// When this action began, as time of the boot ([`clock::uptime`](crate::platform::clock::uptime)).
    pub const fn began(&self) -> Duration {
        self.began
    }

    /// Tells people a line.
    pub fn say(&mut self, words: impl fmt::Display) {
        self.teller.say(&line(words));
    }

    /// Tells people a line about what is wrong.
    pub fn complain(&mut self, words: impl fmt::Display) {
        self.teller.complain(&line(words));
    }

    /// What asks this action to stop.
    pub const fn stop(&mut self) -> &mut Stop {
        &mut self.stop
    }

    /// A step that changes nothing: looks, waits, verifies.
    ///
    /// # Errors
    /// What `work` failed with.
    pub fn look<T>(
        &mut self,
        step: &str,
        words: impl fmt::Display,
        work: impl FnOnce(&mut Self) -> Result<T, Problem>,
    ) -> Result<T, Problem> {
        self.event(step, StepState::Began, words);
        let done = work(self);
        self.ended(step, &done);
        done
    }

    /// A step that changes the host. It is in the journal before it begins, and there again when it is done.
    ///
    /// If it had begun before the action was cut off, `past` looks at the host first. With what it returns the step is not done
    /// again; with `None` it is, unless it had been done: nothing is done twice.
    ///
    /// # Errors
    /// What `past` or `work` failed with; that the host is no longer as a step left it that was done; or that the journal
    /// cannot be written: then nothing was done.
    pub fn change<T>(
        &mut self,
        step: &str,
        words: impl fmt::Display,
        past: impl FnOnce(&mut Self, Earlier) -> Result<Option<T>, Problem>,
        work: impl FnOnce(&mut Self) -> Result<T, Problem>,
    ) -> Result<T, Problem> {
        let words = line(words);
        if let Some(earlier) = self.earlier(step) {
            let clause = self.cut_clause();
            match past(self, earlier).and_then(|past| not_twice(past, earlier, &words, clause)) {
                Ok(None) => {}
                Ok(Some(done)) => {
                    if earlier == Earlier::Began
                        && let Err(error) = self.journal.append(&Step::Done(Text::of(step)))
                    {
                        self.complain(format_args!(
                            "that `{step}` is done could not be written down: {error}"
                        ));
                    }
                    self.unchanged(step, format_args!("{}: {words}", self.not_again()));
                    return Ok(done);
                }
                Err(problem) => {
                    self.event(step, StepState::Failed, &problem.reason);
                    return Err(problem);
                }
            }
        }
        self.repeat(step, words, work)
    }

    /// A step that changes the host, and for which twice is once: it is done whatever was done before. It is in the journal as
    /// others are.
    ///
    /// # Errors
    /// What `work` failed with; or that the journal cannot be written: then nothing was done.
    pub fn repeat<T>(
        &mut self,
        step: &str,
        words: impl fmt::Display,
        work: impl FnOnce(&mut Self) -> Result<T, Problem>,
    ) -> Result<T, Problem> {
        let words = line(words);
        if self.mode.rehearsal {
            return Err(Problem::new(
                format_args!("`{words}` was about to be done in a dry run, which changes nothing"),
                "nothing was done; this is a defect of the agent: report it",
            ));
        }
        let name: StepName = Text::of(step);
        self.event(step, StepState::Began, &words);
        self.say(&words);
        let wanted = match self.stop.requested() {
            Some(why) => Err(Problem::new(why.words(), "nothing was done")),
            None => Ok(()),
        };
        let begun = wanted.and_then(|()| {
            self.journal.append(&Step::Began(name.clone())).map_err(|error| {
                Problem::new(
                    format_args!("the step `{name}` could not be written down: {error}"),
                    "nothing was done; make room on the disk that holds the agent's state, and ask again",
                )
            })
        });
        let done = begun.and_then(|()| work(self));
        if done.is_ok()
            && let Err(error) = self.journal.append(&Step::Done(name))
        {
            // It is done all the same. Only whoever took the run up again would not know.
            self.complain(format_args!("the end of the step `{step}` could not be written down: {error}"));
        }
        self.ended(step, &done);
        done
    }

    /// What a step had changed was put back.
    pub fn undone(&mut self, step: &str, words: impl fmt::Display) {
        let words = line(words);
        if let Err(error) = self.journal.append(&Step::Undone(Text::of(step))) {
            self.complain(format_args!("that `{step}` was put back could not be written down: {error}"));
        }
        self.event(step, StepState::Undone, &words);
        self.say(words);
    }

    /// Something of a step that goes on.
    pub fn going(&mut self, step: &str, words: impl fmt::Display) {
        let words = line(words);
        self.event(step, StepState::Going, &words);
        self.say(words);
    }

    /// A step that was not needed.
    pub fn unchanged(&mut self, step: &str, words: impl fmt::Display) {
        let words = line(words);
        self.event(step, StepState::Unchanged, &words);
        self.say(words);
    }

    /// Tells people what would change.
    pub(crate) fn preview(&mut self, preview: &Preview) {
        let Preview { changes, left_out } = preview;
        if changes.is_empty() {
            self.say("unchanged: nothing would be done");
        }
        for Change { what, before, after, diff } in changes.iter() {
            match (before, after) {
                (Some(before), Some(after)) => self.say(format_args!("would {what}: {before} -> {after}")),
                _ => self.say(format_args!("would {what}")),
            }
            diff.iter().for_each(|line| self.say(format_args!("  {line}")));
        }
        if *left_out > 0 {
            self.say(format_args!("and {left_out} changes more"));
        }
    }

    /// Carries an action out with these steps, and tells how it ended: its report, and what went wrong.
    pub(crate) fn conclude<R: Serialize>(
        &mut self,
        action: impl FnOnce(&mut Self) -> Result<R, Failure<R>>,
    ) -> Done {
        let (report, mut done) = match action(self) {
            Ok(report) => (Some(Box::new(report)), Done::Well),
            Err(Failure { left: Left::GoesDown, .. }) => return Done::GoesDown,
            Err(Failure { problem, left, report }) => {
                self.complain(&problem.reason);
                self.complain(&problem.advice);
                (report, left.into())
            }
        };
        let encoded = report.map(|report| serde_json::to_vec(&report)).transpose();
        let told = encoded.is_ok_and(|report| report.is_none_or(|report| self.teller.report(&report)));
        if !told {
            self.complain("the report is too long to be kept");
            done = if done == Done::Well { Done::Failed } else { done };
        }
        done
    }

    fn ended<T>(&mut self, step: &str, done: &Result<T, Problem>) {
        match done {
            Ok(_) => self.event(step, StepState::Done, ""),
            Err(problem) => self.event(step, StepState::Failed, &problem.reason),
        }
    }

    fn event(&mut self, step: &str, state: StepState, words: impl fmt::Display) {
        let event = Event { step: Text::of(step), state, percent: None, words: Text::of(words) };
        self.teller.event(&event);
    }
}

/// What was done is not done a second time, whatever the host is like now.
fn not_twice<T>(past: Option<T>, earlier: Earlier, words: &str, clause: &str) -> Result<Option<T>, Problem> {
    if past.is_none() && earlier == Earlier::Done {
        return Err(Problem::new(
            format_args!("`{words}` was done before {clause}, and the host is not so any more"),
            "it is not done a second time by itself: see what else changed it, and ask again",
        ));
    }
    Ok(past)
}

/// One line, whatever is in it.
fn line(words: impl fmt::Display) -> String {
    let line: Line = Text::of(words);
    line.into()
}

impl From<Left> for Done {
    fn from(left: Left) -> Self {
        match left {
            Left::AsItIs => Self::Failed,
            Left::Undone => Self::Undone,
            Left::NotUndone => Self::NotUndone,
            Left::GoesDown => Self::GoesDown,
        }
    }
}

impl From<Done> for ExitCode {
    fn from(done: Done) -> Self {
        match done {
            Done::Well => Self::SUCCESS,
            Done::Failed => Self::from(1),
            Done::Undone => Self::from(2),
            Done::NotUndone => Self::from(3),
            Done::GoesDown => Self::from(GOES_DOWN),
        }
    }
}
