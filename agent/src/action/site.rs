//! Writes, enables, disables and removes sites of nginx.
//!
//! nginx itself has to take the whole configuration with the change in it, beside the real one, before anything is put in place;
//! then the change is, nginx reads it, and its new workers have to answer. Where one of these does not come about, what was
//! there is put back, and nginx serves what it served.

mod ground;
mod pieces;
mod render;
mod turn;

use fleetward_protocol::action::site::{Site, SiteReport};
use fleetward_protocol::action::{Change, Preview};
use fleetward_protocol::text::{List, Text};

use super::{Perform, difference};
use crate::perform::{Failure, Left, Problem, Steps};
use crate::platform::nginx::piece::{Piece, Thing};

use ground::{Found, Memory, PutBack};

const SWITCH: &str = "switch";
const RELOAD: &str = "reload";
const START: &str = "start";
const TIDY: &str = "remove-users";

impl Perform for Site {
    fn rehearse(&self, steps: &mut Steps) -> Result<Preview, Failure<Preview>> {
        let mut put_back = PutBack::default();
        let found = steps.look("check", &self.name, |steps| Found::check(self, steps, &mut put_back))?;
        let mut changes: Vec<Change> =
            found.pieces.iter().filter(|piece| !piece.is_as_wanted()).map(change).collect();
        if !changes.is_empty() {
            steps.look("test", &self.name, |steps| found.test_beside(steps))?;
        }
        match found.master {
            Some(_) if !changes.is_empty() || found.is_unread() => changes.push(Change::new("reload nginx")),
            None if self.start => changes.push(Change::new("start nginx.service")),
            _ => {}
        }
        Ok(Preview::of(changes))
    }

    fn perform(&self, steps: &mut Steps) -> Result<SiteReport, Failure<SiteReport>> {
        let mut put_back = PutBack::default();
        let checked = steps.look("check", &self.name, |steps| Found::check(self, steps, &mut put_back));
        let PutBack { left, report } = put_back;
        let mut found = checked.map_err(|problem| Failure { problem, left, report })?;
        let mut report = found.report(self);
        // What began before this run was cut off has changed it, or may have.
        let earlier = steps.earlier(SWITCH);
        let is_switched = found.early().all(Piece::is_as_wanted);
        let is_there = is_switched && found.late().is_none_or(Piece::is_as_wanted);
        if is_there && earlier.is_none() && !found.is_unread() && (found.master.is_some() || !self.start) {
            steps.unchanged(SWITCH, format_args!("unchanged: {}", found.words(self)));
            return Ok(report);
        }
        if !is_switched {
            steps.look("test", &self.name, |steps| found.test_beside(steps))?;
        }
        match steps.recall::<Memory>().filter(|_| earlier.is_some()) {
            // What was there before this run was cut off is what may have to be put back.
            Some(memory) => found.remember_as(memory),
            None => steps.remember(&found.memory())?,
        }
        let words = format!("{} {}", self.verb, found.place.file.display());
        if is_switched && earlier.is_none() {
            let file = found.place.file.display();
            steps.unchanged(SWITCH, format_args!("{file} is there already"));
        } else {
            let past = |_: &mut Steps, _| Ok(is_switched.then_some(()));
            let mut is_begun = earlier.is_some();
            let switched = steps.change(SWITCH, words, past, |_| {
                pieces::ensure_as_seen(found.early(), earlier)?;
                is_begun = true;
                pieces::switch(found.early())
            });
            if let Err(problem) = switched {
                let left = if is_begun { found.take_back(steps, false) } else { Left::AsItIs };
                found.tell(&mut report);
                return Err(failed(problem, left, report));
            }
        }
        report.changed = true;
        report.after = Text::of(found.after(self));
        match turn::use_it(self, &mut found, &mut report, steps) {
            Ok(()) => match tidy(&found, steps) {
                Ok(()) => Ok(report),
                // nginx works with the change: what is left is in nobody's way.
                Err(problem) => Err(failed(problem, Left::AsItIs, report)),
            },
            Err((problem, is_read)) => {
                let left = found.take_back(steps, is_read);
                found.tell(&mut report);
                if left == Left::Undone {
                    report.reloaded = false;
                }
                Err(failed(problem, left, report))
            }
        }
    }
}

/// Removes the file of users that nginx does not need any more.
fn tidy(found: &Found, steps: &mut Steps) -> Result<(), Problem> {
    let Some(piece) = found.late() else { return Ok(()) };
    if Thing::read(&piece.path).is_ok_and(|there| there == Thing::Nothing) {
        return Ok(());
    }
    let words = format!("remove {}", piece.path.display());
    steps.change(
        TIDY,
        words,
        |_, _| Ok(None),
        |_| {
            pieces::ensure_as_seen(std::iter::once(piece), None)?;
            pieces::switch(std::iter::once(piece))
        },
    )
}

fn failed(problem: Problem, left: Left, report: SiteReport) -> Failure<SiteReport> {
    Failure { problem, left, report: Some(Box::new(report)) }
}

/// A piece, as a dry run tells it.
fn change(piece: &Piece) -> Change {
    let Piece { path, was, wanted } = piece;
    let verb = match (was, wanted) {
        (_, Thing::Nothing) => "remove",
        (_, Thing::Link(_)) => "link",
        _ => "write",
    };
    let change = Change::new(format_args!("{verb} {}", path.display())).between(was.words(), wanted.words());
    // Hashes of passwords are nobody's to read.
    if path.extension().is_some_and(|ending| ending == "htpasswd") {
        return change;
    }
    let content = |thing: &Thing| match thing {
        Thing::File { content, .. } => Some(content.clone()),
        _ => None,
    };
    match (content(was), content(wanted)) {
        (None, None) => change,
        (old, new) => change.with_diff(difference::lines(old.as_deref(), &new.unwrap_or_default())),
    }
}

/// The first of these that a report has room for.
fn warnings(
    found: &[String],
) -> List<fleetward_protocol::text::Line, { fleetward_protocol::action::site::MAX_WARNINGS }> {
    List::of(found.iter().map(Text::of))
}
