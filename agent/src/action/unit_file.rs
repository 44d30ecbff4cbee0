//! Enables, disables, masks and unmasks a unit through systemd; what does not come out as asked for is put back.

use fleetward_protocol::action::unit_file::{FileVerb, UnitFile, UnitFileReport};
use fleetward_protocol::text::{Line, List, Text, Word};

use super::Perform;
use crate::perform::{Failure, Left, Problem, Steps};
use crate::platform::systemd::files::{Link, Linked, Links};
use crate::platform::systemd::{Systemd, SystemdError};

impl Perform for UnitFile {
    fn perform(&self, steps: &mut Steps) -> Result<UnitFileReport, Failure<UnitFileReport>> {
        let Self { unit, verb } = self;
        let (systemd, before) = steps.look("check", unit, |steps| check(self, steps))?;
        if is_as_wanted(*verb, &before) {
            steps.unchanged(verb.as_str(), format_args!("unchanged: {unit} is {before}"));
            return Ok(UnitFileReport {
                changed: false,
                after: before.clone(),
                before,
                links: List::default(),
            });
        }
        let words = format!("{verb} {unit}");
        let linked = steps.change(verb.as_str(), words, |steps| change(self, &systemd, steps))?;
        let verified = steps.look("verify", unit, |steps| verify(self, &systemd, &linked, steps));
        let links = linked.links.iter().map(shown);
        match verified {
            Ok(after) => Ok(UnitFileReport { changed: true, before, after, links: List::of(links) }),
            Err(problem) => {
                let undone = steps.change("undo", format_args!("{} {unit}", back(*verb)), |_| {
                    let undone = systemd.set_links(unit, links_of(back(*verb)));
                    undone.map(drop).map_err(|error| problem_of(self, &error))
                });
                let left = if undone.is_ok() { Left::Undone } else { Left::NotUndone };
                Err(Failure { problem, left, report: None })
            }
        }
    }
}

/// How the unit stands, if anything can be done with it.
fn check(asked: &UnitFile, steps: &mut Steps) -> Result<(Systemd, Word), Problem> {
    let UnitFile { unit, verb } = asked;
    let systemd = Systemd::connect().map_err(|error| problem_of(asked, &error))?;
    let state = systemd.read_unit(unit).map_err(|error| problem_of(asked, &error))?;
    let file = state.file.unwrap_or_else(|| Text::of("without a file"));
    steps.say(format_args!("{unit} is {file}"));
    match (state.load.as_str(), file.as_str()) {
        ("not-found", _) => Err(Problem::new(
            format_args!("there is no unit {unit} on this host"),
            "install what it belongs to, or find its right name with `systemctl list-unit-files`",
        )),
        (_, "masked" | "masked-runtime") if *verb == FileVerb::Enable => Err(Problem::new(
            format_args!("{unit} is masked: somebody decided that it must not start here"),
            "ask for `unmask` first if it may",
        )),
        (_, "transient" | "generated") => Err(Problem::new(
            format_args!("{unit} is {file}: it was made by a program and not by a file that stays"),
            "change what makes it",
        )),
        _ => Ok((systemd, file)),
    }
}

/// Whether there is nothing to do. What holds until the next boot only is not what was asked for.
fn is_as_wanted(verb: FileVerb, file: &Word) -> bool {
    match verb {
        FileVerb::Enable => file.as_str() == "enabled",
        FileVerb::Disable => matches!(file.as_str(), "disabled" | "static" | "indirect" | "masked"),
        FileVerb::Mask => file.as_str() == "masked",
        FileVerb::Unmask => !file.as_str().starts_with("masked"),
    }
}

fn change(asked: &UnitFile, systemd: &Systemd, steps: &mut Steps) -> Result<Linked, Problem> {
    let linked = systemd.set_links(&asked.unit, links_of(asked.verb));
    let linked = linked.map_err(|error| problem_of(asked, &error))?;
    for link in &linked.links {
        steps.say(shown(link));
    }
    Ok(linked)
}

/// How the unit stands now, if that is what was asked for.
fn verify(asked: &UnitFile, systemd: &Systemd, linked: &Linked, steps: &mut Steps) -> Result<Word, Problem> {
    let UnitFile { unit, verb } = asked;
    let state = systemd.read_unit(unit).map_err(|error| problem_of(asked, &error))?;
    let file = state.file.unwrap_or_else(|| Text::of("without a file"));
    steps.say(format_args!("{unit} is {file}"));
    if is_as_wanted(*verb, &file) {
        return Ok(file);
    }
    if !linked.says_where {
        return Err(Problem::new(
            format_args!("{unit} has no [Install] section: it does not say where in the boot it belongs"),
            "it is started by other units, or by hand; give its file such a section, or enable what starts it",
        ));
    }
    Err(Problem::new(
        format_args!("`{verb} {unit}` was done, and the unit is {file}"),
        format_args!("run `systemctl cat {unit}` on the host: another file or link may be stronger"),
    ))
}

/// What takes a change back.
const fn back(verb: FileVerb) -> FileVerb {
    match verb {
        FileVerb::Enable => FileVerb::Disable,
        FileVerb::Disable => FileVerb::Enable,
        FileVerb::Mask => FileVerb::Unmask,
        FileVerb::Unmask => FileVerb::Mask,
    }
}

const fn links_of(verb: FileVerb) -> Links {
    match verb {
        FileVerb::Enable => Links::Enable,
        FileVerb::Disable => Links::Disable,
        FileVerb::Mask => Links::Mask,
        FileVerb::Unmask => Links::Unmask,
    }
}

fn shown(link: &Link) -> Line {
    match link.target.is_empty() {
        true => Text::of(format_args!("{} {}", link.change, link.path)),
        false => Text::of(format_args!("{} {} -> {}", link.change, link.path, link.target)),
    }
}

fn problem_of(asked: &UnitFile, error: &SystemdError) -> Problem {
    let UnitFile { unit, verb } = asked;
    let advice = match error {
        SystemdError::Bus(_) | SystemdError::Runtime(_) => {
            "this kind needs a host that runs systemd and the D-Bus message bus: see `systemctl status dbus`"
                .to_owned()
        }
        SystemdError::Ended | SystemdError::Silent | SystemdError::Strange(_) => {
            format!("what became of it is not known here: see `systemctl is-enabled {unit}` on the host")
        }
        SystemdError::Refused { .. } => {
            format!(
                "see `systemctl cat {unit}` on the host, and whether /etc/systemd/system can be written to"
            )
        }
    };
    Problem::new(format_args!("`{verb} {unit}` failed: {error}"), advice)
}
