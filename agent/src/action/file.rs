//! Writes, makes and removes files and directories.
//!
//! Nothing is done half: a file is made whole beside its place and put there in one step; what it replaces stands beside it
//! until the new one was looked at again, so that it can be put back.

mod guard;
mod remove;
mod write;

use std::ffi::OsString;
use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;

use fleetward_protocol::action::file::{File, FileReport, FileState, MAX_CONTENT, Showing, State};
use fleetward_protocol::action::{Change, Preview};
use fleetward_protocol::file::FileMode;
use fleetward_protocol::text::{Line, List, Text};

use super::Perform;
use crate::perform::{Failure, Left, Problem, Steps};
use crate::platform::clock;
use crate::platform::confined::attributes::Attributes;
use crate::platform::confined::directory::Directory;
use crate::platform::confined::replace::Place;
use crate::platform::confined::{ConfinedError, Confines, Seen, kind_of, shown, type_of};
use crate::platform::users::{self, Names};

/// The mode of a new file that nobody asked another one for.
const NEW_FILE: u32 = 0o644;
/// The mode of a new directory, likewise.
const NEW_DIRECTORY: u32 = 0o755;

impl Perform for File {
    fn rehearse(&self, steps: &mut Steps) -> Result<Preview, Failure<Preview>> {
        let path = &self.path;
        let found = steps.look("check", path, |steps| check(self, steps))?;
        let mut changes: Vec<Change> = Vec::new();
        if found.plan != Plan::Nothing {
            let mut above = found.directory.path().to_owned();
            for name in &found.missing {
                above.push(name);
                changes.push(Change::new(format_args!("make directory {}", shown(&above))));
            }
        }
        let before = found.seen.as_ref().map_or_else(|| "nothing".to_owned(), words);
        let change =
            |what: &str, after: String| Change::new(format_args!("{what} {path}")).between(&before, after);
        match &found.plan {
            Plan::Nothing => {}
            Plan::Write { content, attributes } => {
                let after =
                    format!("a regular file of {} bytes{}", content.len(), attributes_words(*attributes));
                let lines = match self.show {
                    Showing::Nothing => Vec::new(),
                    Showing::Changes | Showing::All => {
                        let old = found.content().map_err(|error| problem(&error))?;
                        super::difference::lines(old.as_deref(), content)
                    }
                };
                changes.push(change("write", after).with_diff(lines));
            }
            Plan::Attributes(attributes) => {
                changes.push(change(
                    "set owner and mode of",
                    format!("the same{}", attributes_words(*attributes)),
                ));
            }
            Plan::Make(attributes) => {
                changes
                    .push(change("make directory", format!("a directory{}", attributes_words(*attributes))));
            }
            Plan::Remove | Plan::RemoveDirectory | Plan::RemoveTree => {
                changes.push(change("remove", "nothing".to_owned()))
            }
        }
        Ok(Preview::of(changes))
    }

    fn perform(&self, steps: &mut Steps) -> Result<FileReport, Failure<FileReport>> {
        let path = &self.path;
        let (found, left) = steps.look("check", path, |steps| {
            let left = tidy(self, steps)?;
            Ok((check(self, steps)?, left))
        })?;
        let step = found.plan.step(self.state);
        let mut report = FileReport {
            changed: false,
            before: found.seen.as_ref().map(state),
            after: found.seen.as_ref().map(state),
            backup: left,
            notes: List::default(),
        };
        if found.plan == Plan::Nothing {
            // What began before this run was cut off has changed it, or may have.
            report.changed = STEPS.iter().any(|step| steps.earlier(step).is_some());
            let is = found.seen.as_ref().map_or_else(|| "not there".to_owned(), words);
            match report.changed {
                true => steps.unchanged(step, format_args!("{}: {path} is {is}", steps.not_again())),
                false => steps.unchanged(step, format_args!("unchanged: {path} is {is}")),
            }
            return Ok(report);
        }
        match self.state {
            State::Absent => remove::perform(self, &found, report, steps),
            State::Present | State::Directory => write::perform(self, &found, report, steps),
        }
    }
}

/// What is there, and what has to be done with it.
struct Found {
    directory: Directory,
    /// The directories that are missing on the way.
    missing: Vec<OsString>,
    name: OsString,
    seen: Option<Seen>,
    plan: Plan,
}

impl Found {
    fn place(&self) -> Place<'_> {
        Place { directory: &self.directory, name: &self.name }
    }

    /// Where it is, or will be.
    fn path(&self) -> PathBuf {
        self.missing
            .iter()
            .chain([&self.name])
            .fold(self.directory.path().to_owned(), |path, name| path.join(name))
    }

    /// What is in the file that is there, up to one byte more than could be wanted; `None` where there is none.
    fn content(&self) -> Result<Option<Vec<u8>>, ConfinedError> {
        match &self.seen {
            Some(seen) if seen.metadata.is_file() => read(&self.directory, &self.name).map(Some),
            _ => Ok(None),
        }
    }
}

/// What has to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Plan {
    Nothing,
    Write { content: Vec<u8>, attributes: Attributes },
    Attributes(Attributes),
    Make(Attributes),
    Remove,
    RemoveDirectory,
    RemoveTree,
}

/// The steps that change something.
const STEPS: [&str; 4] = ["write", "attributes", "make", "remove"];

impl Plan {
    const fn step(&self, state: State) -> &'static str {
        match (self, state) {
            (Self::Attributes(_), _) => "attributes",
            (Self::Make(_), _) | (_, State::Directory) => "make",
            (Self::Write { .. }, _) | (_, State::Present) => "write",
            (_, State::Absent) => "remove",
        }
    }
}

fn confines(steps: &Steps) -> Confines {
    match steps.allowed().roots() {
        None => Confines::everywhere(),
        Some(roots) => Confines::beneath(&roots.map(std::borrow::ToOwned::to_owned).collect::<Vec<_>>()),
    }
}

fn place_of(asked: &File, steps: &Steps) -> Result<(Directory, Vec<OsString>, OsString), Problem> {
    let path = asked.path.as_path();
    let name = path.file_name().ok_or_else(|| Problem::new("`/` has no name", "name something in it"))?;
    let (directory, missing) = confines(steps).open_parent(path).map_err(|error| problem(&error))?;
    Ok((directory, missing, name.to_owned()))
}

/// Removes what an attempt left that came to no end; where the file as it was is kept, if that was wanted.
fn tidy(asked: &File, steps: &mut Steps) -> Result<Option<Line>, Problem> {
    let (directory, missing, name) = place_of(asked, steps)?;
    // What takes no changes by now keeps what an attempt has left; whoever wants to change something is told.
    if !missing.is_empty() || directory.ensure_writable().is_err() {
        return Ok(None);
    }
    let place = Place { directory: &directory, name: &name };
    let kept = place.settle(asked.backup.then(stamp).as_deref()).map_err(|error| problem(&error))?;
    Ok(kept.map(|name| Text::of(shown(&directory.path().join(name)))))
}

/// What is there, if what is asked for can be done with it.
fn check(asked: &File, steps: &mut Steps) -> Result<Found, Problem> {
    let (directory, missing, name) = place_of(asked, steps)?;
    let mut found = Found { directory, missing, name, seen: None, plan: Plan::Nothing };
    let path = found.path();
    guard::ensure_not_ours(&path, &found.directory, asked.state, steps.state())?;
    if found.missing.is_empty() {
        found.seen = found.directory.look(&found.name).map_err(|error| problem(&error))?;
    }
    match &found.seen {
        Some(seen) => steps.say(format_args!("{} is {}", shown(&path), words(seen))),
        None => steps.say(format_args!("{} is not there", shown(&path))),
    }
    found.plan = match asked.state {
        State::Absent => remove::plan(asked, &found)?,
        State::Present | State::Directory => {
            if !found.missing.is_empty() && !asked.create_parents {
                return Err(Problem::new(
                    format_args!("the directory {} is not there", shown(path.parent().unwrap_or(&path))),
                    "make it first, or ask with `create_parents`",
                ));
            }
            write::plan(asked, &found)?
        }
    };
    if found.plan != Plan::Nothing {
        found.directory.ensure_writable().map_err(|error| problem(&error))?;
    }
    if let (Plan::Attributes(attributes), Some(seen)) = (&found.plan, &found.seen) {
        guard::ensure_way_kept(&path, &seen.metadata, *attributes, steps.state())?;
    }
    Ok(found)
}

/// Owner, group and mode that are asked for, by number.
fn asked_attributes(asked: &File) -> Result<Attributes, Problem> {
    let unknown = |what: &str, name: &dyn std::fmt::Display| {
        Problem::new(
            format_args!("there is no {what} {name} on this host"),
            "make it first, or give its number",
        )
    };
    let owner =
        asked.owner.as_ref().map(|name| users::read_uid(name.as_str()).ok_or_else(|| unknown("user", name)));
    let group =
        asked.group.as_ref().map(|name| users::read_gid(name.as_str()).ok_or_else(|| unknown("group", name)));
    let mode = asked.mode.map(FileMode::bits);
    Ok(Attributes { owner: owner.transpose()?, group: group.transpose()?, mode })
}

fn read(directory: &Directory, name: &std::ffi::OsStr) -> Result<Vec<u8>, ConfinedError> {
    let (file, _) = directory.open_file(name)?;
    let mut content = Vec::new();
    let read = file.take(MAX_CONTENT as u64 + 1).read_to_end(&mut content);
    read.map_err(|error| ConfinedError::new("reading", &directory.path().join(name), error))?;
    Ok(content)
}

fn state(seen: &Seen) -> FileState {
    let (metadata, mut names) = (&seen.metadata, Names::default());
    FileState {
        kind: type_of(metadata),
        size: metadata.len(),
        mode: FileMode::of(metadata.mode()),
        owner: Text::of(names.user(metadata.uid())),
        group: Text::of(names.group(metadata.gid())),
    }
}

/// What something is, in words.
fn words(seen: &Seen) -> String {
    let FileState { size, mode, owner, group, .. } = state(seen);
    let kind = kind_of(&seen.metadata);
    let size = if seen.metadata.is_file() { format!(" of {size} bytes") } else { String::new() };
    format!("{kind}{size}, mode {mode}, of {owner}:{group}")
}

fn attributes_words(attributes: Attributes) -> String {
    let mut names = Names::default();
    let mode = attributes.mode.map(|mode| format!(", mode {}", FileMode::of(mode)));
    let owner = attributes.owner.map(|owner| format!(", owner {}", names.user(owner)));
    let group = attributes.group.map(|group| format!(", group {}", names.group(group)));
    [mode, owner, group].into_iter().flatten().collect()
}

fn problem(error: &ConfinedError) -> Problem {
    Problem::new(error, error.advice())
}

/// Done, and not as it should be.
fn failed(problem: Problem, left: Left, report: FileReport) -> Failure<FileReport> {
    Failure { problem, left, report: Some(Box::new(report)) }
}

/// Now, for the name of a file that is kept: in an order that is that of time.
pub(super) fn stamp() -> String {
    let seconds = clock::now().as_millis().div_euclid(1000);
    let at = time::OffsetDateTime::from_unix_timestamp(seconds).unwrap_or(time::OffsetDateTime::UNIX_EPOCH);
    let (date, time) = (at.date(), at.time());
    format!(
        "{:04}{:02}{:02}T{:02}{:02}{:02}Z",
        date.year(),
        u8::from(date.month()),
        date.day(),
        time.hour(),
        time.minute(),
        time.second()
    )
}
