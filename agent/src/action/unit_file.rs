//! Enables, disables, masks and unmasks a unit through systemd.
//!
//! What does not come out as asked for is reported and left: the opposite verb does not restore what was there (`Also=`, links
//! that hold until the next boot, links into other directories), and could change more.

use std::collections::HashSet;

use fleetward_protocol::action::unit_file::{FileVerb, UnitFile, UnitFileReport};
use fleetward_protocol::action::{Change, Preview};
use fleetward_protocol::text::{Line, List, Text, Word};

use super::Perform;
use super::{daemon_reload, own_unit, unit_names};
use crate::journal::steps::Earlier;
use crate::perform::{Cut, Failure, Left, Problem, Steps};
use crate::platform::systemd::carries;
use crate::platform::systemd::files::{Link, Linked, Links};
use crate::platform::systemd::{Systemd, SystemdError};

/// How a unit stands that systemd knows no file of.
const NO_FILE: &str = "without a file";

impl Perform for UnitFile {
    fn rehearse(&self, steps: &mut Steps) -> Result<Preview, Failure<Preview>> {
        let Self { unit, verb } = self;
        let (_, before) = steps.look("check", unit, |steps| check(self, steps))?;
        if is_as_wanted(*verb, &before) {
            return Ok(Preview::default());
        }
        let after = match verb {
            FileVerb::Enable => "enabled",
            FileVerb::Disable | FileVerb::Unmask => "not any more",
            FileVerb::Mask => "masked",
        };
        Ok(Preview::of(vec![Change::new(format_args!("{verb} {unit}")).between(&before, after)]))
    }

    fn perform(&self, steps: &mut Steps) -> Result<UnitFileReport, Failure<UnitFileReport>> {
        let Self { unit, verb } = self;
        let (systemd, before) = steps.look("check", unit, |steps| check(self, steps))?;
        // What began before this run was cut off has changed it, or may have.
        let earlier = steps.earlier(verb.as_str());
        if is_as_wanted(*verb, &before) {
            // A boot reads all links; of a host that goes on nobody knows whether systemd has read those that were made.
            if earlier == Some(Earlier::Began) && steps.cut() == Some(Cut::Death) {
                daemon_reload::reload(&systemd, steps)?;
            }
            match earlier {
                Some(_) => {
                    let why = steps.not_again();
                    steps.unchanged(verb.as_str(), format_args!("{why}: {unit} is {before}"));
                }
                None => steps.unchanged(verb.as_str(), format_args!("unchanged: {unit} is {before}")),
            }
            return Ok(UnitFileReport {
                changed: earlier.is_some(),
                after: before.clone(),
                before,
                links: List::default(),
            });
        }
        let words = format!("{verb} {unit}");
        let linked = steps.change(
            verb.as_str(),
            words,
            // Which links were made is not known any more; systemd has read them all when the host started.
            |_, earlier| Ok((earlier == Earlier::Done).then(Linked::before_a_restart)),
            |steps| change(self, &systemd, steps),
        )?;
        let mut after = before.clone();
        let verified = steps.look("verify", unit, |steps| verify(self, &systemd, &linked, &mut after, steps));
        let links = List::of(linked.links.iter().map(shown));
        let changed = !linked.links.is_empty() || earlier.is_some();
        let report = UnitFileReport { changed, before, after, links };
        match verified {
            Ok(()) => Ok(report),
            Err(problem) => Err(Failure { problem, left: Left::AsItIs, report: Some(Box::new(report)) }),
        }
    }
}

/// How the unit stands, if anything can be done with it.
fn check(asked: &UnitFile, steps: &mut Steps) -> Result<(Systemd, Word), Problem> {
    let UnitFile { unit, verb } = asked;
    let systemd = Systemd::connect().map_err(|error| problem_of(asked, &error))?;
    if matches!(verb, FileVerb::Disable | FileVerb::Mask) {
        let kept = own_unit::ensure_kept(&systemd, unit, verb.as_str(), carries::Change::Disable);
        kept.map_err(|error| problem_of(asked, &error))??;
    }
    unit_names::ensure_allowed::<UnitFile>(&systemd, unit, steps)
        .map_err(|error| problem_of(asked, &error))??;
    if matches!(verb, FileVerb::Enable | FileVerb::Disable) {
        let allowed = unit_names::ensure_install_allowed(&systemd, unit, steps);
        allowed.map_err(|error| problem_of(asked, &error))??;
    }
    let state = systemd.read_unit(unit).map_err(|error| problem_of(asked, &error))?;
    let file = state.file.unwrap_or_else(|| Text::of(NO_FILE));
    steps.say(format_args!("{unit} is {file}"));
    match (state.load.as_str(), file.as_str()) {
        ("not-found", _) => Err(Problem::new(
            format_args!("there is no unit {unit} on this host"),
            "install what it belongs to, or find its right name with `systemctl list-unit-files`",
        )),
        (_, "masked" | "masked-runtime") if *verb == FileVerb::Enable => Err(Problem::new(
            format_args!("{unit} is masked: somebody decided that it must not start here"),
            format_args!("`fleetward unit unmask {unit}` lets it start again, if it may"),
        )),
        (_, "enabled-runtime" | "masked-runtime" | "linked-runtime") => Err(Problem::new(
            format_args!("{unit} is {file}: somebody decided that until the next boot"),
            "take it back with `systemctl disable --runtime` or `systemctl unmask --runtime` on the host, or wait for that boot",
        )),
        (_, "transient" | "generated") => Err(Problem::new(
            format_args!("{unit} is {file}: it was made by a program and not by a file that stays"),
            "change what makes it",
        )),
        _ => Ok((systemd, file)),
    }
}

/// Whether there is nothing to do.
fn is_as_wanted(verb: FileVerb, file: &Word) -> bool {
    match verb {
        FileVerb::Enable => file.as_str() == "enabled",
        FileVerb::Disable => matches!(file.as_str(), "disabled" | "static" | "indirect" | "masked" | NO_FILE),
        FileVerb::Mask => file.as_str() == "masked",
        FileVerb::Unmask => file.as_str() != "masked",
    }
}

fn change(asked: &UnitFile, systemd: &Systemd, steps: &mut Steps) -> Result<Linked, Problem> {
    let set = || {
        let keep = match asked.verb {
            FileVerb::Enable => systemd.read_names_to_keep()?,
            FileVerb::Disable | FileVerb::Mask | FileVerb::Unmask => HashSet::new(),
        };
        systemd.set_links(&asked.unit, links_of(asked.verb), &keep)
    };
    let linked = set().map_err(|error| problem_of(asked, &error))?;
    for link in &linked.links {
        steps.say(shown(link));
    }
    // It is done: which unit it would be is told by its links alone.
    if asked.verb == FileVerb::Enable
        && let Ok(Some(own)) = systemd.read_own_name()
        && linked.links.iter().any(|link| is_needed_by(&own, &link.path))
    {
        let unit = &asked.unit;
        steps.complain(format_args!(
            "{own}, the unit of this host's agent, needs {unit} from now on (`RequiredBy=` in its file): should {unit} not start in a \
             later boot, no controller could reach the host; `disable` takes that back"
        ));
    }
    Ok(linked)
}

/// Whether a link at this path has the unit need another one (`a.service.requires/b.service`, systemd.unit(5)).
fn is_needed_by(unit: &str, path: &str) -> bool {
    path.rsplit('/').nth(1).and_then(|directory| directory.strip_suffix(".requires")) == Some(unit)
}

/// Whether the unit stands as it was asked for now, and how it stands.
fn verify(
    asked: &UnitFile,
    systemd: &Systemd,
    linked: &Linked,
    after: &mut Word,
    steps: &mut Steps,
) -> Result<(), Problem> {
    let UnitFile { unit, verb } = asked;
    if let Some(error) = &linked.not_reloaded {
        return Err(Problem::new(
            format_args!(
                "the links of {unit} were changed, and systemd did not read its files again: {error}"
            ),
            "run `systemctl daemon-reload` on the host",
        ));
    }
    let state = systemd.read_unit(unit).map_err(|error| problem_of(asked, &error))?;
    *after = state.file.unwrap_or_else(|| Text::of(NO_FILE));
    steps.say(format_args!("{unit} is {after}"));
    // A unit whose `[Install]` section only names others is `indirect` when those are enabled.
    let is_indirect = *verb == FileVerb::Enable && linked.says_where && after.as_str() == "indirect";
    if is_indirect || is_as_wanted(*verb, after) {
        return Ok(());
    }
    if !linked.says_where {
        return Err(Problem::new(
            format_args!("{unit} has no [Install] section: it does not say where in the boot it belongs"),
            "it is started by other units, or by hand; give its file such a section, or enable what starts it",
        ));
    }
    Err(Problem::new(
        format_args!("`{verb} {unit}` was done, and the unit is {after}"),
        format_args!(
            "run `systemctl cat {unit}` on the host: another file or link may be stronger; the report names the links"
        ),
    ))
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
        SystemdError::Replaces { undone: true, .. } => {
            format!(
                "its links were removed again; take that `Alias=` out of its file, see `systemctl cat {unit}`"
            )
        }
        SystemdError::Replaces { undone: false, .. } => {
            format!("remove its links before the host restarts: `systemctl disable {unit}` on the host")
        }
        SystemdError::Refused { .. } if *verb == FileVerb::Mask => format!(
            "a unit whose own file is in /etc/systemd/system cannot be masked, for the link would stand in its place: move the file \
             away, or disable the unit. Else see `systemctl cat {unit}` on the host, and whether that directory can be written to"
        ),
        SystemdError::Refused { .. } => {
            format!(
                "see `systemctl cat {unit}` on the host, and whether /etc/systemd/system can be written to"
            )
        }
    };
    Problem::new(format_args!("`{verb} {unit}` failed: {error}"), advice)
}
