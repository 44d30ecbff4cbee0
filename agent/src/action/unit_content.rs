//! Writes, removes and brings back files of units, and has systemd use them.
//!
//! The host's own `systemd-analyze verify` has to let a file pass. It is put in its place whole, and the one that was there
//! stands beside it until the unit was seen with the new one: if that does not come up, the old one is put back, and the unit is
//! as it was.

mod place;

use fleetward_protocol::action::unit::{Unit, UnitName, UnitReport, UnitState, Verb};
use fleetward_protocol::action::unit_content::{ContentVerb, Then, UnitContent, UnitContentReport};
use fleetward_protocol::action::{Change, Preview};
use fleetward_protocol::text::{Line, Text};

use super::{Perform, daemon_reload, difference};
use crate::perform::{Failure, Left, Problem, Steps};
use crate::platform::confined::replace::Displaced;
use crate::platform::confined::shown;
use crate::platform::stop::Stop;
use crate::platform::systemd::carries::{Carries, Change as Touched};
use crate::platform::systemd::content::{Draft, Verdict};
use crate::platform::systemd::{Job, JobType, Systemd, SystemdError};

use place::{FilePlace, Wanted};

const WRITE: &str = "write";
const REMOVE: &str = "remove";

impl Perform for UnitContent {
    fn rehearse(&self, steps: &mut Steps) -> Result<Preview, Failure<Preview>> {
        let found = steps.look("check", &self.unit, |steps| check(self, steps))?;
        let Found { place, wanted, is_unread, .. } = &found;
        let (path, old) = (shown(&place.path()), place.content.as_deref());
        let mut changes = Vec::new();
        if !place.has(wanted) {
            let size = |content: Option<&[u8]>| {
                content.map_or("nothing".to_owned(), |content| format!("{} bytes", content.len()))
            };
            let change =
                |verb: &str, new| Change::new(format_args!("{verb} {path}")).between(size(old), size(new));
            changes.push(match wanted {
                Wanted::Content(content) => {
                    change(WRITE, Some(&content[..])).with_diff(difference::lines(old, content))
                }
                Wanted::Nothing => change(REMOVE, None).with_diff(difference::lines(old, b"")),
            });
        }
        if !changes.is_empty() || *is_unread {
            changes.push(Change::new("daemon-reload"));
        }
        if let Some(verb) = found.verb(self.then).filter(|_| changes.len() > 1) {
            changes.push(Change::new(format_args!("{verb} {}", self.unit)));
        }
        Ok(Preview::of(changes))
    }

    fn perform(&self, steps: &mut Steps) -> Result<UnitContentReport, Failure<UnitContentReport>> {
        let mut found = steps.look("check", &self.unit, |steps| {
            place::tidy(self, steps)?;
            check(self, steps)
        })?;
        let step = if found.wanted == Wanted::Nothing { REMOVE } else { WRITE };
        let path = Text::of(shown(&found.place.path()));
        let mut report = UnitContentReport { changed: false, path, kept: None, unit: None };
        // What began before this run was cut off has changed it, or may have.
        let earlier = steps.earlier(step);
        if found.place.has(&found.wanted) && earlier.is_none() {
            steps.unchanged(step, format_args!("unchanged: {}", found.words()));
            if found.is_unread {
                daemon_reload::reload(&found.systemd, steps)?;
            }
            return Ok(report);
        }
        if self.verb == ContentVerb::Revert {
            let name = found.place.reverted(steps)?;
            steps.remember(&name.to_string_lossy())?;
        }
        let words = format!("{step} {}", report.path);
        let is_there = found.place.has(&found.wanted);
        let displaced = found.place.look_displaced();
        let was = steps.change(
            step,
            words,
            |_, _| if is_there { displaced.map(Some) } else { Ok(None) },
            |_| found.place.put(&found.wanted),
        )?;
        report.changed = true;
        match use_it(self, &mut found, steps) {
            Ok(unit) => {
                report.unit = unit.map(|unit| *unit);
                report.kept =
                    found.place.settle(was).map_err(|problem| failed(problem, Left::AsItIs, &report))?;
                if let Some(kept) = &report.kept {
                    steps.say(format_args!("the file as it was is kept as {kept}"));
                }
                Ok(report)
            }
            Err((problem, unit)) => {
                report.unit = unit.map(|unit| *unit);
                let was_at_work = report.unit.as_ref().is_some_and(|unit| unit.job.is_some());
                let left = take_back(self, &found, was, (step, &mut report), steps);
                let is_replaced = was_at_work && report.unit.as_ref().is_some_and(|unit| unit.job.is_none());
                let problem = match is_replaced {
                    true => Problem::new(
                        problem.reason,
                        "that job is no more: the unit was brought back as it was",
                    ),
                    false => problem,
                };
                Err(failed(problem, left, &report))
            }
        }
    }
}

/// What is there, and what is to be.
struct Found {
    systemd: Systemd,
    place: FilePlace,
    wanted: Wanted,
    /// How the unit is; `None` for a template.
    before: Option<(UnitName, UnitState)>,
    /// Whether systemd has not read what is there.
    is_unread: bool,
}

impl Found {
    /// What is to be done with the unit itself.
    fn verb(&self, then: Then) -> Option<Verb> {
        let (_, before) = self.before.as_ref()?;
        match then {
            Then::Nothing => None,
            Then::Start => Some(Verb::Start),
            Then::Restart => Some(Verb::Restart),
            Then::TryRestart => is_up(before).then_some(Verb::Restart),
            Then::ReloadOrRestart => Some(Verb::ReloadOrRestart),
        }
    }

    fn words(&self) -> String {
        let path = shown(&self.place.path());
        match &self.place.content {
            Some(content) => format!("{path} has {} bytes", content.len()),
            None => format!("{path} is not there"),
        }
    }
}

fn is_up(state: &UnitState) -> bool {
    !matches!(state.active.as_str(), "inactive" | "failed")
}

fn check(asked: &UnitContent, steps: &mut Steps) -> Result<Found, Problem> {
    let problem = |error: SystemdError| problem(asked, &error);
    let systemd = Systemd::connect().map_err(problem)?;
    let unit = asked.unit.unit();
    if let Some(unit) = &unit {
        ensure_not_ours(&systemd, unit, asked)?;
    }
    if asked.is_for_others() {
        ensure_not_for_ours(&systemd, asked)?;
    }
    let place = FilePlace::open(&systemd.read_own_directory().map_err(problem)?, asked)?;
    let wanted = place.wanted(asked, steps)?;
    let before = match unit {
        Some(unit) => {
            let state = systemd.read_unit(&unit).map_err(problem)?;
            ensure_its_own(&systemd, &unit, &state, asked)?;
            Some((unit, state))
        }
        None => None,
    };
    let is_unread = match &before {
        Some((unit, state)) if state.load.as_str() != "not-found" => {
            systemd.read_needs_reload(unit).map_err(problem)?
        }
        _ => false,
    };
    let found = Found { systemd, place, wanted, before, is_unread };
    steps.say(found.words());
    if !found.place.has(&found.wanted) {
        found.place.ensure_writable()?;
    }
    match &found.wanted {
        Wanted::Nothing => ensure_unused(asked, &found)?,
        Wanted::Content(content) if !found.place.has(&found.wanted) => verify(asked, &found, content, steps)?,
        Wanted::Content(_) => {}
    }
    Ok(found)
}

/// Refuses what systemd would read for another unit, or for none.
fn ensure_its_own(
    systemd: &Systemd,
    unit: &UnitName,
    state: &UnitState,
    asked: &UnitContent,
) -> Result<(), Problem> {
    let id = systemd.read_id(unit).map_err(|error| problem(asked, &error))?;
    if id != unit.as_str() {
        return Err(Problem::new(
            format_args!("{unit} is another name of {id}"),
            format_args!("ask for {id} if that is meant"),
        ));
    }
    if asked.drop_in.is_some() && asked.verb != ContentVerb::Remove && state.load.as_str() == "masked" {
        return Err(Problem::new(
            format_args!("{unit} is masked: systemd reads none of its files"),
            "take the mask away first, with `fleetward unit unmask`",
        ));
    }
    Ok(())
}

/// The unit of the agent, and what it cannot be without, are the owner's alone.
fn ensure_not_ours(systemd: &Systemd, unit: &UnitName, asked: &UnitContent) -> Result<(), Problem> {
    for touched in [Touched::Stop, Touched::Disable] {
        let carries = systemd.read_carries(unit, touched).map_err(|error| problem(asked, &error))?;
        if !matches!(
            carries,
            Carries::Nothing
                | Carries::Conflict { .. }
                | Carries::BusConflict { .. }
                | Carries::Missing { .. }
        ) {
            return Err(ours(asked, format_args!("this host's agent is started by it, or hangs on it")));
        }
    }
    Ok(())
}

/// The same for what systemd uses for many units.
fn ensure_not_for_ours(systemd: &Systemd, asked: &UnitContent) -> Result<(), Problem> {
    let needed = systemd.read_all_needed().map_err(|error| problem(asked, &error))?;
    let Some(needed) = needed else {
        return Err(ours(
            asked,
            format_args!("it is for many units, and what this host's agent hangs on cannot be told"),
        ));
    };
    match needed.iter().filter(|unit| asked.is_for(unit)).min() {
        Some(unit) => Err(ours(
            asked,
            format_args!(
                "it is for {unit}, too, and this host's agent is that, is started by it, or hangs on it"
            ),
        )),
        None => Ok(()),
    }
}

fn ours(asked: &UnitContent, why: std::fmt::Arguments<'_>) -> Problem {
    Problem::new(
        format_args!("`{} {}` is refused: {why}", asked.verb, asked.unit),
        "change its file on the host itself: only its owner decides about what reaches this host",
    )
}

/// Whether nobody needs the file that is to be removed.
fn ensure_unused(asked: &UnitContent, found: &Found) -> Result<(), Problem> {
    if asked.drop_in.is_some() || found.place.content.is_none() {
        return Ok(());
    }
    let directories = found.systemd.read_directories().map_err(|error| problem(asked, &error))?;
    let own = found.place.path();
    let has_another = directories
        .iter()
        .map(|directory| directory.join(asked.unit.as_str()))
        .any(|path| path != own && path.exists());
    if has_another {
        return Ok(());
    }
    let Some((unit, state)) = &found.before else {
        let active = found.systemd.read_active_instances(asked.unit.as_str());
        let active = active.map_err(|error| problem(asked, &error))?;
        return match active.first() {
            None => Ok(()),
            Some(unit) => Err(Problem::new(
                format_args!("{unit} is active, and {} is its only file", asked.unit),
                format_args!("stop it first: `fleetward unit stop {unit}`"),
            )),
        };
    };
    if is_up(state) {
        return Err(Problem::new(
            format_args!("{unit} is {}, and has no other file", state.active),
            format_args!("stop it first: `fleetward unit stop {unit}`"),
        ));
    }
    if state.file.as_ref().is_some_and(|file| file.starts_with("enabled")) {
        return Err(Problem::new(
            format_args!("{unit} is started at boot, and has no other file"),
            format_args!("disable it first: `fleetward unit disable {unit}`"),
        ));
    }
    Ok(())
}

/// Whether the host's own systemd lets the new file pass.
fn verify(asked: &UnitContent, found: &Found, content: &[u8], steps: &mut Steps) -> Result<(), Problem> {
    let name = asked.unit.as_str();
    let drop_in = asked.drop_in.as_ref().map(|drop_in| format!("{drop_in}.conf"));
    let file = match &drop_in {
        None => Some(content.to_vec()),
        Some(_) => found.read_fragment(asked)?,
    };
    if file.is_none() {
        steps.complain(format_args!(
            "there is no unit {name} on this host yet: the drop-in could not be checked with it"
        ));
        return Ok(());
    }
    let drop_in = drop_in.as_ref().map(|name| (name.as_str(), content));
    match found.systemd.verify(&Draft { unit: name, file: file.as_deref(), drop_in }, steps.directory()) {
        Verdict::Usable(warnings) => {
            warnings.iter().for_each(|line| steps.complain(line));
            Ok(())
        }
        Verdict::Unknown(why) => {
            steps.complain(format_args!("the file could not be checked before: {why}"));
            Ok(())
        }
        Verdict::Unusable(lines) => {
            lines.iter().for_each(|line| steps.complain(line));
            Err(Problem::new(
                format_args!("systemd would not take this file of {name}"),
                "nothing was written; see the lines above, correct the text, and ask again",
            ))
        }
    }
}

impl Found {
    /// The unit's own file, for a drop-in.
    fn read_fragment(&self, asked: &UnitContent) -> Result<Option<Vec<u8>>, Problem> {
        let path = match &self.before {
            Some((unit, _)) => self.systemd.read_fragment(unit).map_err(|error| problem(asked, &error))?,
            None => {
                let directories = self.systemd.read_directories().map_err(|error| problem(asked, &error))?;
                directories
                    .iter()
                    .map(|directory| directory.join(asked.unit.as_str()))
                    .find(|path| path.exists())
            }
        };
        // Without it the drop-in is checked by systemd when it reads it.
        Ok(path.and_then(|path| place::read(&path).ok()))
    }
}

type Unusable = (Problem, Option<Box<UnitReport>>);

/// Has systemd read the file, and the unit be as it is asked for with it.
fn use_it(
    asked: &UnitContent,
    found: &mut Found,
    steps: &mut Steps,
) -> Result<Option<Box<UnitReport>>, Unusable> {
    daemon_reload::reload(&found.systemd, steps).map_err(|problem| (problem, None))?;
    let verb = found.verb(asked.then);
    let Some((unit, _)) = &found.before else { return Ok(None) };
    let loaded = steps.look("load", unit, |steps| {
        let state = found.systemd.read_unit(unit).map_err(|error| problem(asked, &error))?;
        steps.say(format_args!("{unit} is {}, {}", state.load, state.active));
        // Without its file nobody finds it any more, but among what failed.
        if found.wanted == Wanted::Nothing
            && (state.load.as_str(), state.active.as_str()) == ("not-found", "failed")
        {
            found.systemd.reset_failed(unit).map_err(|error| problem(asked, &error))?;
            steps.say(format_args!("systemd has forgotten that {unit} failed"));
        }
        match state.load.as_str() {
            "bad-setting" | "error" => Err(Problem::new(
                format_args!("systemd cannot use the file of {unit} ({})", state.load),
                format_args!("see `journalctl --boot _PID=1 UNIT={unit}` on the host: it names the line"),
            )),
            _ => Ok(()),
        }
    });
    loaded.map_err(|problem| (problem, None))?;
    let Some(verb) = verb else { return Ok(None) };
    let then = Unit { settle_s: asked.settle_s, ..Unit::new(unit.clone(), verb) };
    match then.perform(steps) {
        Ok(report) => Ok(Some(Box::new(report))),
        Err(Failure { problem, report, .. }) => Err((problem, report)),
    }
}

/// Puts the old file back, and the unit as it was; how the host was left.
fn take_back(
    asked: &UnitContent,
    found: &Found,
    was: Displaced,
    (step, report): (&str, &mut UnitContentReport),
    steps: &mut Steps,
) -> Left {
    if let Err(problem) = found.place.put_back(&found.wanted, was) {
        steps.complain(problem.reason);
        steps.complain(problem.advice);
        return Left::NotUndone;
    }
    steps.undone(step, format_args!("{} is as it was before", report.path));
    report.changed = false;
    if let Err(error) = found.systemd.reload() {
        steps.complain(format_args!(
            "systemd did not read its files again: {error}; run `systemctl daemon-reload` on the host"
        ));
        return Left::NotUndone;
    }
    match (&found.before, &mut report.unit) {
        // Stopped before anything was done to it, it goes on as it was.
        (Some((unit, before)), Some(report)) if report.changed => {
            bring_back(asked, unit, (before, report), steps)
        }
        _ => Left::Undone,
    }
}

/// Brings the unit back to how it was; the report says what it is then.
fn bring_back(
    asked: &UnitContent,
    unit: &UnitName,
    (before, report): (&UnitState, &mut UnitReport),
    steps: &mut Steps,
) -> Left {
    let brought = steps.look("bring-back", unit, |steps| {
        let problem = |error: SystemdError| problem(asked, &error);
        let mut systemd = Systemd::connect().map_err(problem)?;
        let mut never = Stop::never().map_err(|error| problem(SystemdError::Runtime(error)))?;
        let does = if is_up(before) {
            // It may have failed so often that systemd starts it no more (StartLimitBurst= in systemd.unit(5)). Where that cannot be
            // forgotten, the start says so.
            drop(systemd.reset_failed(unit));
            JobType::Restart
        } else {
            JobType::Stop
        };
        let ended = match systemd.run_job(unit, does, &mut never) {
            // Its file is gone again and it is not active: there is nothing to stop.
            Err(error) if does == JobType::Stop && error.is_not_loaded() => Job::Missed,
            ended => ended.map_err(problem)?,
        };
        // It took the place of whatever systemd was about to do to it.
        report.job = None;
        let mut now = systemd.read_unit(unit).map_err(problem)?;
        if now.active.as_str() == "failed" && !is_up(before) && before.active.as_str() != "failed" {
            systemd.reset_failed(unit).map_err(problem)?;
            now = systemd.read_unit(unit).map_err(problem)?;
        }
        steps.say(format_args!("{unit} is {}", now.active));
        report.after = now.clone();
        match ended {
            Job::Ended(_) | Job::Missed if is_up(&now) == is_up(before) => Ok(()),
            _ => Err(Problem::new(
                format_args!("{unit} was {} before, and is {} now", before.active, now.active),
                format_args!("see `systemctl status {unit}` on the host"),
            )),
        }
    });
    match brought {
        Ok(()) => Left::Undone,
        Err(problem) => {
            steps.complain(problem.reason);
            steps.complain(problem.advice);
            Left::NotUndone
        }
    }
}

fn failed(problem: Problem, left: Left, report: &UnitContentReport) -> Failure<UnitContentReport> {
    Failure { problem, left, report: Some(Box::new(report.clone())) }
}

fn problem(asked: &UnitContent, error: &SystemdError) -> Problem {
    let UnitContent { unit, verb, .. } = asked;
    let advice: Line = match error {
        SystemdError::Bus(_) | SystemdError::Runtime(_) => Text::of(
            "this kind needs a host that runs systemd and the D-Bus message bus: see `systemctl status dbus`",
        ),
        _ => Text::of(format_args!("see `systemctl status {unit}` on the host")),
    };
    Problem::new(format_args!("`{verb} {unit}` failed: {error}"), advice)
}
