//! Writes a file or makes a directory, with its owner and mode.

use std::ffi::{OsStr, OsString};
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt as _;

use fleetward_protocol::action::file::{File, FileReport, MAX_KEPT, State};
use fleetward_protocol::text::{Line, List, Text};

use super::{Found, NEW_DIRECTORY, NEW_FILE, Plan, asked_attributes, failed, problem, read, stamp, state};
use crate::perform::{Failure, Left, Problem, Steps};
use crate::platform::confined::attributes::Attributes;
use crate::platform::confined::directory::Directory;
use crate::platform::confined::replace::{Displaced, Must, Place, Staged};
use crate::platform::confined::{ConfinedError, Seen, kind_of, read_link, shown};

pub(super) fn plan(asked: &File, found: &Found) -> Result<Plan, Problem> {
    let attributes = asked_attributes(asked)?;
    let Some(seen) = &found.seen else {
        return Ok(match asked.state {
            State::Directory => Plan::Make(attributes),
            _ => {
                let new = Attributes { mode: Some(NEW_FILE), ..Attributes::default() };
                Plan::Write { content: asked.wanted().unwrap_or_default(), attributes: attributes.or(new) }
            }
        });
    };
    ensure_replaceable(asked, seen)?;
    let wanted = asked.wanted().filter(|_| asked.state == State::Present);
    let is_so = match &wanted {
        None => true,
        Some(wanted) if seen.metadata.len() != wanted.len() as u64 => false,
        Some(wanted) => found.content().map_err(|error| problem(&error))?.as_ref() == Some(wanted),
    };
    let plan = match wanted {
        Some(content) if !is_so => {
            Plan::Write { content, attributes: attributes.or(Attributes::of(&seen.metadata)) }
        }
        _ if attributes.are_of(&seen.metadata) => Plan::Nothing,
        _ => Plan::Attributes(attributes),
    };
    // Another name of it may stand where nobody was asked for anything.
    if plan != Plan::Nothing && seen.metadata.is_file() && seen.metadata.nlink() > 1 {
        return Err(Problem::new(
            format_args!(
                "{} has {} names (hard links), and others would be changed or left behind",
                shown(&seen.path),
                seen.metadata.nlink()
            ),
            format_args!(
                "find them with `find / -xdev -inum {}` and remove those that are not needed",
                seen.metadata.ino()
            ),
        ));
    }
    Ok(plan)
}

/// Refuses what would be something else then.
fn ensure_replaceable(asked: &File, seen: &Seen) -> Result<(), Problem> {
    let Seen { path, handle, metadata } = seen;
    let is_fit = match asked.state {
        State::Directory => metadata.is_dir(),
        _ => metadata.is_file(),
    };
    if is_fit {
        return Ok(());
    }
    if metadata.is_symlink() {
        let target = read_link(handle).unwrap_or_default();
        return Err(Problem::new(
            format_args!("{} is a link to {}", shown(path), shown(target.as_ref())),
            "name what it leads to; or remove the link first, with the state `absent`",
        ));
    }
    Err(Problem::new(
        format_args!("{} is {}", shown(path), kind_of(metadata)),
        "remove it first, with the state `absent`, if it may go",
    ))
}

/// What was done, and what takes it back.
struct Done {
    /// The directories that were made, the uppermost first: each with where it is.
    made: Vec<(Directory, OsString)>,
    /// The last directory on the way.
    directory: Option<Directory>,
    was: Was,
    notes: Vec<Line>,
}

/// What was there before.
enum Was {
    /// A file that another one took the place of, which is this one.
    Replaced(Displaced, Metadata),
    /// The same, with these attributes.
    Same(Attributes),
    /// Nothing: a directory was made.
    Nothing,
}

pub(super) fn perform(
    asked: &File,
    found: &Found,
    mut report: FileReport,
    steps: &mut Steps,
) -> Result<FileReport, Failure<FileReport>> {
    let step = found.plan.step(asked.state);
    let words = match &found.plan {
        Plan::Write { content, .. } => format!("write {}: {} bytes", asked.path, content.len()),
        Plan::Make(_) => format!("make directory {}", asked.path),
        _ => format!("set owner and mode of {}", asked.path),
    };
    let done = steps.change(step, words, |_, _| Ok(None), |_| change(asked, found))?;
    let directory = done.directory.as_ref().unwrap_or(&found.directory);
    report.changed = true;
    report.notes = List::of(done.notes.iter().cloned());
    done.notes.iter().for_each(|note| steps.say(note));
    let verified = steps.look("verify", &asked.path, |steps| {
        let seen = verify(found, &done, directory)?;
        steps.say(format_args!("{} is {}", asked.path, super::words(&seen)));
        Ok(seen)
    });
    match verified {
        Ok(seen) => report.after = Some(state(&seen)),
        Err(problem) => return Err(take_back(found, done, problem, (step, report), steps)),
    }
    let place = Place { directory, name: &found.name };
    match settle(asked, &place) {
        Ok(kept) => {
            if let Some(kept) = &kept {
                steps.say(format_args!("the file as it was is kept as {kept}"));
            }
            report.backup = kept.or(report.backup);
            Ok(report)
        }
        Err(error) => Err(failed(problem(&error), Left::AsItIs, report)),
    }
}

/// Keeps or removes what was there before; where it is kept.
fn settle(asked: &File, place: &Place<'_>) -> Result<Option<Line>, ConfinedError> {
    let kept = place.settle(asked.backup.then(stamp).as_deref())?;
    if asked.backup {
        place.ensure_few_kept(MAX_KEPT)?;
    }
    Ok(kept.map(|name| Text::of(shown(&place.directory.path().join(name)))))
}

fn change(asked: &File, found: &Found) -> Result<Done, Problem> {
    let mut made = Vec::new();
    let done = match make_parents(found, &mut made) {
        Ok(directory) => {
            let done = change_in(asked, found, directory.as_ref().unwrap_or(&found.directory));
            done.map(|(was, notes)| (directory, was, notes))
        }
        Err(error) => Err(error),
    };
    match done {
        Ok((directory, was, notes)) => Ok(Done { made, directory, was, notes }),
        Err(error) => {
            let left = match remove_made(made) {
                Ok(()) => "nothing was changed".to_owned(),
                Err(error) => format!("directories that were made are left ({error})"),
            };
            Err(Problem::new(format_args!("{error}; {left}"), error.advice()))
        }
    }
}

fn change_in(asked: &File, found: &Found, directory: &Directory) -> Result<(Was, Vec<Line>), ConfinedError> {
    let (name, seen) = (&found.name, found.seen.as_ref());
    match (&found.plan, seen) {
        (Plan::Write { content, attributes }, seen) => {
            let place = Place { directory, name };
            let Staged { metadata, lost } = place.stage(content, *attributes, seen)?;
            let must = if asked.backup { Must::Keep } else { Must::Replace };
            let was = place.put(seen, must)?;
            let note = |name: &String| Text::of(format_args!("the attribute {name} could not be kept"));
            Ok((Was::Replaced(was, metadata), lost.iter().map(note).collect()))
        }
        (Plan::Attributes(attributes), Some(seen)) => {
            let before = Attributes::of(&seen.metadata);
            if let Err(error) = attributes.ensure(&seen.handle) {
                // What of it was set is put back; that this may fail for the same reason is told with it.
                let _ = before.ensure(&seen.handle);
                return Err(ConfinedError::new("setting owner and mode of", &seen.path, error));
            }
            Ok((Was::Same(before), Vec::new()))
        }
        (Plan::Make(attributes), None) => {
            make(directory, name, *attributes)?;
            Ok((Was::Nothing, Vec::new()))
        }
        _ => Err(ConfinedError::Meanwhile(found.path())),
    }
}

/// Makes a directory with these attributes, or none.
fn make(parent: &Directory, name: &OsStr, attributes: Attributes) -> Result<Directory, ConfinedError> {
    let directory = parent.create_directory(name)?;
    // In a directory with set-group-ID a new one has it, too (mkdir(2)), unless somebody says otherwise.
    let inherited = directory.metadata()?.mode() & 0o2000;
    let new = Attributes { mode: Some(NEW_DIRECTORY | inherited), ..Attributes::default() };
    let ready = attributes.or(new).ensure(directory.handle());
    let ready =
        ready.map_err(|error| ConfinedError::new("setting owner and mode of", directory.path(), error));
    if let Err(error) = ready.and_then(|()| parent.sync()) {
        let _ = parent.remove_directory(name);
        return Err(error);
    }
    Ok(directory)
}

/// Makes the directories that are missing on the way; the last of them, if there are any.
fn make_parents(
    found: &Found,
    made: &mut Vec<(Directory, OsString)>,
) -> Result<Option<Directory>, ConfinedError> {
    let mut here: Option<Directory> = None;
    for name in &found.missing {
        let parent = here.as_ref().unwrap_or(&found.directory);
        let above = parent.again()?;
        let next = make(parent, name, Attributes::default())?;
        made.push((above, name.clone()));
        here = Some(next);
    }
    Ok(here)
}

fn remove_made(made: Vec<(Directory, OsString)>) -> Result<(), ConfinedError> {
    made.into_iter().rev().try_for_each(|(parent, name)| parent.remove_directory(&name).map(drop))
}

/// Whether it is as it was asked for now; what it is.
fn verify(found: &Found, done: &Done, directory: &Directory) -> Result<Seen, Problem> {
    let look = || -> Result<Option<Seen>, ConfinedError> {
        let Some(seen) = directory.look(&found.name)? else { return Ok(None) };
        let is_so = match (&found.plan, &done.was) {
            (Plan::Write { content, attributes }, Was::Replaced(_, metadata)) => {
                (seen.metadata.dev(), seen.metadata.ino()) == (metadata.dev(), metadata.ino())
                    && attributes.are_of(&seen.metadata)
                    && read(directory, &found.name)? == *content
            }
            (Plan::Attributes(attributes) | Plan::Make(attributes), _) => attributes.are_of(&seen.metadata),
            _ => false,
        };
        Ok(is_so.then_some(seen))
    };
    look().map_err(|error| problem(&error))?.ok_or_else(|| {
        Problem::new(
            format_args!("{} is not as it was written", shown(&found.path())),
            "see which program changes it as well, or what its file system cannot hold, and ask again",
        )
    })
}

/// Whether something stands in the place by now that was not put there by this run.
fn is_anothers(found: &Found, was: &Was, directory: &Directory) -> bool {
    let Was::Replaced(_, own) = was else { return false };
    match directory.look(&found.name) {
        Ok(Some(now)) => (now.metadata.dev(), now.metadata.ino()) != (own.dev(), own.ino()),
        Ok(None) | Err(_) => false,
    }
}

/// Puts everything back, and says how it was left.
fn take_back(
    found: &Found,
    done: Done,
    problem: Problem,
    (step, mut report): (&str, FileReport),
    steps: &mut Steps,
) -> Failure<FileReport> {
    let Done { made, directory, was, .. } = done;
    let directory = directory.as_ref().unwrap_or(&found.directory);
    if is_anothers(found, &was, directory) {
        // Whoever put it there means it so: the file as it was stays beside it, and the next run keeps or removes it.
        return failed(problem, Left::NotUndone, report);
    }
    let put_back = match was {
        Was::Replaced(displaced, _) => Place { directory, name: &found.name }.put_back(displaced),
        Was::Same(before) => match &found.seen {
            Some(seen) => before
                .ensure(&seen.handle)
                .map_err(|error| ConfinedError::new("putting back", &seen.path, error)),
            None => Ok(()),
        },
        Was::Nothing => directory.remove_directory(&found.name).map(drop),
    };
    match put_back.and_then(|()| remove_made(made)) {
        Ok(()) => {
            steps.undone(step, format_args!("{} is as it was before", shown(&found.path())));
            report.changed = false;
            report.after = report.before.clone();
            failed(problem, Left::Undone, report)
        }
        Err(error) => {
            steps.complain(format_args!("it could not be put back: {error}"));
            failed(problem, Left::NotUndone, report)
        }
    }
}
