//! Starts, stops, restarts and reloads a unit through systemd, watches for a while whether it stays so, and says what became
//! of it.

mod started;

use std::time::Duration;

use fleetward_protocol::action::unit::{MAX_LOG, Unit, UnitJob, UnitName, UnitReport, UnitState, Verb};
use fleetward_protocol::action::{Change, Preview};
use fleetward_protocol::text::{List, Text};

use super::Perform;
use super::{daemon_reload, own_unit, unit_names};
use crate::journal::steps::Earlier;
use crate::perform::{Cut, Failure, Left, Problem, Steps};
use crate::platform::systemd::carries;
use crate::platform::systemd::{Job, JobType, Lasting, Settled, Systemd, SystemdError};

/// So many lines of a unit's log are shown at most when it failed.
const LINES: u8 = 50;

impl Perform for Unit {
    fn rehearse(&self, steps: &mut Steps) -> Result<Preview, Failure<Preview>> {
        let Self { unit, verb, daemon_reload, settle_s: _ } = self;
        let Checked { before, .. } = steps.look("check", unit, |steps| check(self, None, steps))?;
        let reload = daemon_reload.then(|| Change::new("daemon-reload"));
        let change = (!is_as_wanted(*verb, &before)).then(|| {
            let after = match verb {
                Verb::Start => "active",
                Verb::Stop => "inactive",
                Verb::Restart => "active, started anew",
                Verb::Reload => "active, with its configuration read again",
                Verb::ReloadOrRestart => "active, with its configuration read again or started anew",
                Verb::ResetFailed => "inactive",
            };
            Change::new(format_args!("{verb} {unit}")).between(shown(&before), after)
        });
        Ok(Preview::of(reload.into_iter().chain(change).collect()))
    }

    fn perform(&self, steps: &mut Steps) -> Result<UnitReport, Failure<UnitReport>> {
        let unit = &self.unit;
        let systemd = match self.daemon_reload {
            true => Some(reload(self, steps)?),
            false => None,
        };
        let Checked { mut systemd, before, needs_daemon_reload, lasting } =
            steps.look("check", unit, |steps| check(self, systemd, steps))?;
        // What began before this run was cut off has changed the unit, or may have.
        let earlier = steps.earlier(self.verb.as_str());
        let has_the_boot_done_it =
            steps.cut() == Some(Cut::Restart) && does_the_boot_do_it(self.verb, &before, lasting);
        let is_done_before = steps.cut() == Some(Cut::Death)
            && earlier.is_some_and(|earlier| was_it_done(self.verb, earlier, &before, lasting));
        if is_as_wanted(self.verb, &before) || has_the_boot_done_it || is_done_before {
            let why = match earlier {
                // It was started by the restart of the host, with the files and settings of now.
                _ if has_the_boot_done_it => "started anew with the host, and not by this run".to_owned(),
                Some(_) => steps.not_again(),
                None => "unchanged".to_owned(),
            };
            steps.unchanged(self.verb.as_str(), format_args!("{why}: {unit} is {}", shown(&before)));
            let (changed, after) = (earlier.is_some(), before.clone());
            let log = List::default();
            return Ok(UnitReport { changed, before, after, needs_daemon_reload, job: None, log });
        }
        let words = format!("{} {unit}", self.verb);
        let mut goes_on = None;
        let changed = steps.change(
            self.verb.as_str(),
            words,
            |steps, earlier| match (lasting, earlier) {
                // It may have been started anew, and looks the same in both cases.
                (Lasting::Lasts, Earlier::Began)
                    if steps.cut() == Some(Cut::Death) && starts_anew(self.verb) && is_active(&before) =>
                {
                    Err(Problem::new(
                        format_args!(
                            "`{} {unit}` had begun before {}, and whether it was done cannot be told: {unit} is {}",
                            self.verb,
                            steps.cut_clause(),
                            shown(&before)
                        ),
                        format_args!("see since when with `systemctl status {unit}` on the host, and ask again if it is still to be done"),
                    ))
                }
                // It is not as it should be: that was looked at.
                (Lasting::Lasts, _) | (Lasting::StaysActive, Earlier::Done) => Ok(None),
                // systemd is at the work. Asked to start it, systemd adds nothing to that, and its end is waited for.
                (Lasting::StaysActive, Earlier::Began) if is_being_started(&before) => Ok(None),
                (Lasting::Ends, Earlier::Done) => Ok(Some(())),
                // Its work takes as long as its start does, and may be done: of that its state tells nothing.
                (Lasting::StaysActive | Lasting::Ends, Earlier::Began) => Err(Problem::new(
                    format_args!(
                        "`{} {unit}` had begun before {}, and whether {unit} had done its work cannot be told: it is a \
                         service that does its work once",
                        self.verb,
                        steps.cut_clause()
                    ),
                    format_args!(
                        "see `journalctl --unit={unit} --boot={}` on the host, and ask again if it is still to be done",
                        if steps.cut() == Some(Cut::Death) { 0 } else { -1 }
                    ),
                )),
            },
            |steps| change(self, &mut systemd, &mut goes_on, steps),
        );
        let mut after = None;
        let verified = steps.look("verify", unit, |steps| {
            let now = systemd.read_unit(unit).map_err(|error| problem(self, &error))?;
            steps.say(format_args!("{unit} is {}", shown(&now)));
            // What systemd goes on with is not at its end.
            let verified = match goes_on {
                Some(_) => Ok(()),
                None => verify(self, &now),
            };
            // It did its work before the host restarted: of that systemd knows nothing any more.
            let was_before = earlier == Some(Earlier::Done) && lasting == Lasting::Ends;
            let verified = match (&verified, &changed) {
                (Ok(()), Ok(())) if goes_on.is_none() && !was_before => {
                    started::ensure(self, &systemd, &now, steps)
                }
                _ => verified,
            };
            after = Some(now);
            verified
        });
        let verified = verified
            .and_then(|()| settle(self, &systemd, &mut after, goes_on.is_some(), changed.is_ok(), steps));
        let is_done = changed.is_ok() || goes_on.is_some() || earlier.is_some();
        let report = |changed, after, log| UnitReport {
            changed,
            before: before.clone(),
            after,
            needs_daemon_reload,
            job: goes_on.clone(),
            log,
        };
        match (changed.and(verified), after) {
            (Ok(()), after) => Ok(report(true, after.unwrap_or_else(|| before.clone()), List::default())),
            (Err(problem), after) => {
                // What was stopped has not failed.
                let log = match steps.stop().requested() {
                    None => tell_log(&systemd, unit, steps),
                    Some(_) => List::default(),
                };
                let report = after.map(|after| Box::new(report(is_done || after != before, after, log)));
                Err(Failure { problem, left: Left::AsItIs, report })
            }
        }
    }
}

/// What is known of a unit before anything is done to it.
struct Checked {
    systemd: Systemd,
    before: UnitState,
    needs_daemon_reload: bool,
    /// Whether it does its work once; looked at for a start of a run that was cut off only.
    lasting: Lasting,
}

/// Connects to systemd, if this may be asked of it.
fn connect(asked: &Unit) -> Result<Systemd, Problem> {
    let systemd = Systemd::connect().map_err(|error| problem(asked, &error))?;
    ensure_agent_kept(asked, &systemd)?;
    Ok(systemd)
}

fn ensure_agent_kept(asked: &Unit, systemd: &Systemd) -> Result<(), Problem> {
    let Unit { unit, verb, .. } = asked;
    let change = match verb {
        Verb::Stop => carries::Change::Stop,
        Verb::Start => carries::Change::Start,
        Verb::Restart | Verb::ReloadOrRestart => carries::Change::Restart,
        Verb::Reload | Verb::ResetFailed => return Ok(()),
    };
    let kept = own_unit::ensure_kept(systemd, unit, verb.as_str(), change);
    kept.map_err(|error| problem(asked, &error))?
}

/// Has systemd read its files again.
fn reload(asked: &Unit, steps: &mut Steps) -> Result<Systemd, Problem> {
    let systemd = steps.look("connect", &asked.unit, |_| connect(asked))?;
    daemon_reload::reload(&systemd, steps)?;
    Ok(systemd)
}

/// Whether a start of the unit has all that this verb is asked for.
const fn starts_anew(verb: Verb) -> bool {
    matches!(verb, Verb::Restart | Verb::Reload | Verb::ReloadOrRestart)
}

/// Whether the boot has done all that this verb is asked for, or is at it with a service that would be inactive afterwards: asked
/// to start that in the moment of its end, systemd would do its work again.
fn does_the_boot_do_it(verb: Verb, state: &UnitState, lasting: Lasting) -> bool {
    (starts_anew(verb) && is_active(state))
        || (!matches!(verb, Verb::Stop | Verb::ResetFailed)
            && lasting == Lasting::Ends
            && is_being_started(state))
}

/// Whether what had come so far before its process was killed is done, or systemd is at it with a service that would be inactive
/// afterwards: asked to start that in the moment of its end, it would do its work again.
fn was_it_done(verb: Verb, earlier: Earlier, state: &UnitState, lasting: Lasting) -> bool {
    (starts_anew(verb) && earlier == Earlier::Done && is_active(state))
        || (!matches!(verb, Verb::Stop | Verb::ResetFailed)
            && lasting == Lasting::Ends
            && is_being_started(state))
}

/// What the unit is, if anything can be done with it.
fn check(asked: &Unit, systemd: Option<Systemd>, steps: &mut Steps) -> Result<Checked, Problem> {
    let Unit { unit, verb, .. } = asked;
    let systemd = match systemd {
        Some(systemd) => {
            // Files that were read again may have changed what needs what.
            ensure_agent_kept(asked, &systemd)?;
            systemd
        }
        None => connect(asked)?,
    };
    unit_names::ensure_allowed::<Unit>(&systemd, unit, steps).map_err(|error| problem(asked, &error))??;
    let before = systemd.read_unit(unit).map_err(|error| problem(asked, &error))?;
    steps.say(format_args!("{unit} is {}", shown(&before)));
    let needs_daemon_reload = systemd.read_needs_reload(unit).map_err(|error| problem(asked, &error))?;
    if needs_daemon_reload {
        steps.complain(format_args!(
            "the file of {unit} was changed since systemd read it, and the old one is used: ask with `daemon_reload=true`, or run \
             `systemctl daemon-reload` on the host before"
        ));
    }
    let lasting = if steps.cut().is_some() && !matches!(verb, Verb::Stop | Verb::ResetFailed) {
        systemd.read_lasting(unit).map_err(|error| problem(asked, &error))?
    } else {
        Lasting::Lasts
    };
    match before.load.as_str() {
        // systemd remembers that it failed, though its file is gone.
        "not-found" if *verb == Verb::ResetFailed && before.active.as_str() == "failed" => {
            Ok(Checked { systemd, before, needs_daemon_reload, lasting })
        }
        "not-found" => Err(Problem::new(
            format_args!("there is no unit {unit} on this host"),
            "install what it belongs to, or find its right name with `systemctl list-unit-files`",
        )),
        "masked" if !matches!(verb, Verb::Stop | Verb::ResetFailed) => Err(Problem::new(
            format_args!("{unit} is masked: somebody decided that it must not start here"),
            format_args!("`fleetward unit unmask {unit}` lets it start again, if it may"),
        )),
        "bad-setting" | "error" if *verb != Verb::ResetFailed => Err(Problem::new(
            format_args!("the file of {unit} cannot be used ({})", before.load),
            format_args!("run `systemd-analyze verify {unit}` on the host: it names the line"),
        )),
        // Once it is started, it has loaded what is there.
        _ if steps.cut() == Some(Cut::Restart) && is_being_started(&before) => {
            Ok(Checked { systemd, before, needs_daemon_reload, lasting })
        }
        _ if *verb == Verb::Reload && !is_active(&before) => Err(Problem::new(
            format_args!("{unit} is {}, and only an active unit can reload", before.active),
            format_args!("start it, or reload it with `--or restart` (the verb `reload-or-restart`)"),
        )),
        _ => Ok(Checked { systemd, before, needs_daemon_reload, lasting }),
    }
}

/// Watches for a while whether a service that was started stays so.
fn settle(
    asked: &Unit,
    systemd: &Systemd,
    after: &mut Option<UnitState>,
    goes_on: bool,
    changed: bool,
    steps: &mut Steps,
) -> Result<(), Problem> {
    let Unit { unit, verb, settle_s, .. } = asked;
    let runs = after.as_ref().is_some_and(|state| state.sub.as_str() == "running");
    let is_started = matches!(verb, Verb::Start | Verb::Restart | Verb::Reload | Verb::ReloadOrRestart);
    if *settle_s == 0 || goes_on || !changed || !runs || !is_started {
        return Ok(());
    }
    steps.look("settle", format_args!("{unit}, {settle_s} s"), |steps| {
        let span = Duration::from_secs((*settle_s).into());
        let settled = systemd.watch(unit, span, steps.stop()).map_err(|error| problem(asked, &error))?;
        let now = systemd.read_unit(unit).map_err(|error| problem(asked, &error))?;
        match settled {
            Settled::Stayed => Ok(()),
            // That it was started is so all the same; whether it would have stayed nobody asks any more.
            Settled::Left(why) => {
                steps.say(format_args!("{} before {unit} was up for {settle_s} s", why.words()));
                Ok(())
            }
            Settled::Died => {
                steps.say(format_args!("{unit} is {}", shown(&now)));
                let is_well = now.result.as_deref().is_none_or(|result| result == "success");
                let result = now.result.as_deref().filter(|_| !is_well).map(why);
                let has_ended = is_well && now.active.as_str() == "inactive";
                *after = Some(now);
                if has_ended {
                    return Err(started::ended(asked));
                }
                let why = result.map(|why| format!(": {why}")).unwrap_or_default();
                Err(look_into_it(asked, &format!("it started, and did not stay up for {settle_s} s{why}")))
            }
        }
    })
}

/// Tells what the unit has logged since this run began; of a run that was cut off, since the boot.
fn tell_log(systemd: &Systemd, unit: &UnitName, steps: &mut Steps) -> List<Text<512>, MAX_LOG> {
    let (since, when) = match steps.cut() {
        Some(Cut::Restart) => (Duration::ZERO, "the host restarted"),
        Some(Cut::Death) => (Duration::ZERO, "the host started"),
        None => (steps.began(), "this run began"),
    };
    let lines = systemd.read_log(unit, since, LINES);
    match &lines {
        None => steps.complain(format_args!(
            "the journal could not be read: `journalctl --unit={unit}` on the host shows what {unit} has logged"
        )),
        Some(lines) if lines.is_empty() => {
            steps.complain(format_args!("the journal has nothing of {unit} since {when}"));
        }
        Some(lines) => lines.iter().for_each(|line| steps.complain(line)),
    }
    List::of(lines.into_iter().flatten().map(Text::of))
}

/// Whether there is nothing to do.
fn is_as_wanted(verb: Verb, state: &UnitState) -> bool {
    match verb {
        Verb::Start => is_active(state),
        Verb::Stop => matches!(state.active.as_str(), "inactive" | "failed"),
        Verb::ResetFailed => state.active.as_str() != "failed",
        Verb::Restart | Verb::Reload | Verb::ReloadOrRestart => false,
    }
}

fn is_being_started(state: &UnitState) -> bool {
    state.active.as_str() == "activating"
}

fn is_active(state: &UnitState) -> bool {
    matches!(state.active.as_str(), "active" | "reloading")
}

/// Has systemd do it, to its end; `goes_on` is the job that it is left with.
fn change(
    asked: &Unit,
    systemd: &mut Systemd,
    goes_on: &mut Option<UnitJob>,
    steps: &mut Steps,
) -> Result<(), Problem> {
    let Unit { unit, verb, .. } = asked;
    // After a restart of the host it is not active, or is being started: a start is all that is left to do, and joins that.
    let does = match verb {
        Verb::ResetFailed => return systemd.reset_failed(unit).map_err(|error| problem(asked, &error)),
        Verb::Start => JobType::Start,
        Verb::Stop => JobType::Stop,
        _ if steps.cut() == Some(Cut::Restart) => JobType::Start,
        Verb::Restart => JobType::Restart,
        Verb::Reload => JobType::Reload,
        Verb::ReloadOrRestart => JobType::ReloadOrRestart,
    };
    let ended = systemd.run_job(unit, does, steps.stop()).map_err(|error| problem(asked, &error))?;
    let result = match ended {
        // What the unit is now tells the rest.
        Job::Missed => return Ok(()),
        Job::Left(why, job) => {
            let UnitJob { id, does, state } = goes_on.insert(job);
            return Err(Problem::new(
                format_args!("{} before systemd had come to the end of `{verb} {unit}`", why.words()),
                format_args!(
                    "systemd goes on with job {id} ({does} {unit}, {state}): see `systemctl list-jobs` and \
                     `systemctl status {unit}` on the host"
                ),
            ));
        }
        Job::TakenBack(why) => {
            return Err(Problem::new(
                format_args!("{} before systemd had begun with `{verb} {unit}`", why.words()),
                "its job was taken back; what systemd has begun for it goes on, such as units that it needs",
            ));
        }
        Job::Ended(result) => result,
    };
    match result.as_str() {
        // What did not apply to the unit as it was is skipped.
        "done" | "skipped" => Ok(()),
        "dependency" => Err(Problem::new(
            format_args!("a unit that {unit} needs failed"),
            format_args!("run `systemctl list-dependencies {unit}` on the host: it shows which"),
        )),
        "canceled" if systemd.is_shutting_down() => Err(Problem::new(
            format_args!("`{verb} {unit}` was cancelled: the host is shutting down"),
            "ask again when the host is back, if it is still to be done",
        )),
        "canceled" => Err(Problem::new(
            format_args!(
                "`{verb} {unit}` was cancelled: somebody asked systemd for something else meanwhile"
            ),
            "ask again when nobody else works on this unit",
        )),
        "timeout" => Err(look_into_it(asked, "the job took too long (timeout)")),
        "assert" => {
            let unmet = systemd.read_unmet(unit).map_err(|error| problem(asked, &error))?;
            Err(started::not_started(asked, &unmet))
        }
        // The unit knows more of it than the job.
        "failed" => {
            let result = systemd.read_unit(unit).ok().and_then(|state| state.result);
            let result = result.filter(|result| result.as_str() != "success");
            Err(look_into_it(asked, &why(result.as_deref().unwrap_or("failed"))))
        }
        other => Err(look_into_it(asked, other)),
    }
}

/// Whether the unit is what it should be now.
fn verify(asked: &Unit, state: &UnitState) -> Result<(), Problem> {
    match (asked.verb, state.active.as_str()) {
        (Verb::Stop, "active") => Err(look_into_it(asked, "it is active again")),
        (Verb::ResetFailed, "failed") => Err(look_into_it(asked, "it is failed again")),
        (Verb::Stop | Verb::ResetFailed, _) => Ok(()),
        (_, "failed") => Err(look_into_it(asked, &why(state.result.as_deref().unwrap_or("failed")))),
        // It died at once, and systemd will try again in a moment.
        _ if state.sub.starts_with("auto-restart") => {
            Err(look_into_it(asked, &why(state.result.as_deref().unwrap_or("failed"))))
        }
        _ => Ok(()),
    }
}

/// What a unit's result means (org.freedesktop.systemd1(5)), with its own word.
fn why(result: &str) -> String {
    let words = match result {
        "exit-code" => "its process ended with an error",
        "signal" | "core-dump" => "its process was ended by a signal",
        "timeout" => "it took longer than its unit file allows",
        "start-limit-hit" => "it was started too often; `systemctl reset-failed` lets it start again",
        "oom-kill" => "the kernel ended it for want of memory",
        "resources" => "the host lacks something that it needs",
        "protocol" => "it did not tell systemd what its type promises",
        // Of what is failed, or about to be started again, that is no reason.
        "success" => return "it ended at once, though without an error".to_owned(),
        "watchdog" => "it stopped telling systemd that it is alive",
        other => return other.to_owned(),
    };
    format!("{words} ({result})")
}

fn look_into_it(asked: &Unit, what: &str) -> Problem {
    let Unit { unit, verb, .. } = asked;
    Problem::new(
        format_args!("`{verb} {unit}` failed: {what}"),
        format_args!("see `journalctl --unit={unit}` on the host"),
    )
}

fn problem(asked: &Unit, error: &SystemdError) -> Problem {
    let Unit { unit, verb, .. } = asked;
    let advice = match error {
        SystemdError::Bus(_) | SystemdError::Runtime(_) => {
            "this kind needs a host that runs systemd and the D-Bus message bus: see `systemctl status dbus`"
                .to_owned()
        }
        SystemdError::Ended | SystemdError::Silent | SystemdError::Strange(_) => {
            format!("what became of it is not known here: see `systemctl status {unit}` on the host")
        }
        SystemdError::Refused { name, .. } if name.ends_with("UnitMasked") => {
            format!("`fleetward unit unmask {unit}` lets it start again, if it may")
        }
        SystemdError::Refused { .. } | SystemdError::Replaces { .. } => {
            format!("see `systemctl status {unit}` on the host")
        }
    };
    Problem::new(format_args!("`{verb} {unit}` failed: {error}"), advice)
}

/// As systemctl(1) shows it.
fn shown(state: &UnitState) -> String {
    let pid = state.main_pid.map(|pid| format!(", main process {pid}")).unwrap_or_default();
    let file = state.file.as_ref().map(|file| format!(", {file}")).unwrap_or_default();
    match state.load.as_str() {
        "loaded" => format!("{} ({}){pid}{file}", state.active, state.sub),
        load => format!("{load}, {} ({}){pid}", state.active, state.sub),
    }
}
