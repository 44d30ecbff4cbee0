//! Has nginx work with what is in place, and sees that it does.

use std::net::SocketAddr;
use std::time::Duration;

use fleetward_protocol::action::site::{Probe, Site, SiteReport};
use fleetward_protocol::action::unit::UnitName;

use super::ground::{Found, problem};
use super::{RELOAD, START};
use crate::journal::steps::Earlier;
use crate::perform::{Cut, Problem, Steps};
use crate::platform::nginx::Nginx;
use crate::platform::nginx::master::{LogPlace, Master, Turn};
use crate::platform::nginx::probe::Request;
use crate::platform::stop::{Stop, Why};
use crate::platform::systemd::{Job, JobType, Systemd, SystemdError};

/// The unit of nginx.
const UNIT: &str = "nginx.service";
/// How often a probe is sent until its answer is the one that is wanted: the first may come to a server that is only starting.
const ATTEMPTS: u32 = 3;
/// Between two looks whether the run is asked to stop.
const LOOK: Duration = Duration::from_millis(50);

/// Has nginx read what is in place, and sees that it answers. With what went wrong comes whether nginx may have read it.
pub(super) fn use_it(
    asked: &Site,
    found: &mut Found,
    report: &mut SiteReport,
    steps: &mut Steps,
) -> Result<(), (Problem, bool)> {
    steps
        .look("test-in-place", found.nginx.config.display(), |steps| test(found, steps))
        .map_err(|problem| (problem, false))?;
    // Others may have started it since it was looked for; one that is gone is told below.
    match found.read_master().or(found.master) {
        None if !asked.start => {
            steps.say(match report.after.as_str() {
                "enabled" => "nginx does not run: the site is in place, and answers when nginx is started",
                "disabled" => "nginx does not run: the site is disabled, also when nginx is started",
                _ => "nginx does not run: the site is gone, also when nginx is started",
            });
            return Ok(());
        }
        None => {
            steps
                .change(START, format_args!("start {UNIT}"), |_, _| Ok(None), |steps| start(found, steps))
                .map_err(|problem| (problem, true))?;
        }
        Some(master) => {
            let mut is_read = false;
            let words = "reload nginx";
            let work = |steps: &mut Steps| {
                let workers = turn(found, &master, &mut is_read, Heeds::Stops, steps)?;
                steps.say(format_args!("{workers} new workers answer, and no old one takes anything new"));
                Ok(())
            };
            let turned = match steps.cut() {
                // What it had read before may have been put back since.
                Some(Cut::Death) => steps.repeat(RELOAD, words, work),
                // Where it was done, this boot has started nginx with what is in place.
                Some(Cut::Restart) | None => {
                    let past = |_: &mut Steps, earlier| Ok((earlier == Earlier::Done).then_some(()));
                    steps.change(RELOAD, words, past, work)
                }
            };
            turned.map_err(|problem| (problem, is_read))?;
        }
    }
    (report.running, report.reloaded) = (true, true);
    if let Some(probe) = &asked.probe
        && report.after.as_str() == "enabled"
    {
        let status = steps.look("probe", &asked.name, |steps| ask(asked, probe, steps));
        report.probed = Some(status.map_err(|problem| (problem, true))?);
    }
    Ok(())
}

/// Whether nginx takes the configuration that is in place.
fn test(found: &Found, steps: &mut Steps) -> Result<(), Problem> {
    // It may take long, for it looks up names.
    let verdict = found.runtime.block_on(async {
        tokio::select! {
            verdict = found.nginx.read_verdict(&found.nginx.config) => verdict.map_err(|error| problem(&error)),
            why = stopped(steps) => Err(Problem::new(why.words(), "what was there is put back")),
        }
    })?;
    if verdict.is_usable {
        return Ok(());
    }
    verdict.lines.iter().for_each(|line| steps.complain(line));
    Err(Problem::new(
        "nginx does not take its configuration with this change",
        "what was there is put back; see its words above, correct the site, and ask again",
    ))
}

/// Returns when the run is asked to stop.
async fn stopped(steps: &mut Steps) -> Why {
    loop {
        match steps.stop().requested() {
            Some(why) => return why,
            None => tokio::time::sleep(LOOK).await,
        }
    }
}

/// Whether what is waited for is left when the run is asked to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Heeds {
    /// It is, and what was done is undone.
    Stops,
    /// It is not: this is the undoing.
    Nothing,
}

/// Has the master read its configuration again, and waits for its new workers; how many there are. `is_read` becomes whether it
/// may have read it.
pub(super) fn turn(
    found: &Found,
    master: &Master,
    is_read: &mut bool,
    heeds: Heeds,
    steps: &mut Steps,
) -> Result<usize, Problem> {
    let log = found
        .dump
        .setting("error_log")
        .map_or_else(|| found.nginx.error_log.clone(), |log| found.dump.path(log));
    let before = master.before(LogPlace::end_of(log));
    reload(found, master, is_read, heeds, steps)?;
    steps.say("nginx was asked to read it; its new workers are waited for");
    let stop = || (heeds == Heeds::Stops).then(|| steps.stop().requested()).flatten();
    match found.runtime.block_on(master.wait_for_turn(&before, stop)) {
        Turn::Done(workers) => Ok(workers),
        Turn::Refused(lines) => {
            lines.iter().for_each(|line| steps.complain(line));
            Err(Problem::new(
                "nginx goes on with what it had: it could not work with the new configuration",
                "see its words above: often another program has the port",
            ))
        }
        Turn::Gone => Err(gone()),
        Turn::Left(why) => Err(Problem::new(
            format_args!("{} before nginx had started new workers", why.words()),
            "what was there is put back",
        )),
        Turn::Silent => Err(Problem::new(
            "nginx has not started new workers within the time",
            "see its error log, and `systemctl status nginx` on the host",
        )),
    }
}

fn gone() -> Problem {
    Problem::new(
        "nginx ran when this began, and does not any more",
        "see `systemctl status nginx` and its error log on the host, start it, and ask again",
    )
}

/// Reloads through systemd where nginx is a unit's main process, so that systemd knows of it, and by a signal elsewhere.
fn reload(
    found: &Found,
    master: &Master,
    is_read: &mut bool,
    heeds: Heeds,
    steps: &mut Steps,
) -> Result<(), Problem> {
    if !master.is_alive() {
        return Err(gone());
    }
    *is_read = true;
    let mut through_systemd = || -> Option<Result<Job, SystemdError>> {
        // The program that the unit reloads it with looks for it there.
        found.read_named_master().filter(|named| named == master)?;
        let unit: UnitName = UNIT.parse().ok()?;
        let mut systemd = Systemd::connect().ok()?;
        let is_it = main_process(&mut systemd, &unit)? == master.pid();
        is_it.then(|| run_job(&mut systemd, &unit, JobType::Reload, heeds, steps))
    };
    match through_systemd() {
        Some(Ok(Job::Ended(result))) if result.as_str() != "done" => Err(Problem::new(
            format_args!("systemd could not reload {UNIT}: {result}"),
            format_args!("see `systemctl status {UNIT}` on the host"),
        )),
        Some(Ok(Job::TakenBack(why))) => {
            *is_read = false;
            Err(Problem::new(why.words(), "what was there is put back"))
        }
        Some(Ok(Job::Left(why, _))) => Err(Problem::new(why.words(), "what was there is put back")),
        Some(Ok(Job::Ended(_) | Job::Missed)) => Ok(()),
        Some(Err(error)) => Err(Problem::new(
            format_args!("systemd could not be asked to reload {UNIT}: {error}"),
            format_args!("see `systemctl status {UNIT}` on the host"),
        )),
        None => master.reload().map_err(|_| gone()),
    }
}

/// The master that is the main process of nginx's unit, if that runs with this configuration.
pub(super) fn read_main_process(nginx: &Nginx) -> Option<Master> {
    let unit: UnitName = UNIT.parse().ok()?;
    let pid = main_process(&mut Systemd::connect().ok()?, &unit)?;
    Master::of(pid, nginx)
}

fn main_process(systemd: &mut Systemd, unit: &UnitName) -> Option<i32> {
    systemd.read_unit(unit).ok()?.main_pid.and_then(|pid| i32::try_from(pid).ok())
}

fn run_job(
    systemd: &mut Systemd,
    unit: &UnitName,
    does: JobType,
    heeds: Heeds,
    steps: &mut Steps,
) -> Result<Job, SystemdError> {
    match heeds {
        Heeds::Stops => systemd.run_job(unit, does, steps.stop()),
        Heeds::Nothing => systemd.run_job(unit, does, &mut Stop::never().map_err(SystemdError::Runtime)?),
    }
}

/// Starts nginx through systemd.
fn start(found: &mut Found, steps: &mut Steps) -> Result<(), Problem> {
    let advice = format!("see `systemctl status {UNIT}` on the host");
    let failed =
        |error: SystemdError| Problem::new(format_args!("{UNIT} could not be started: {error}"), &advice);
    let unit: UnitName = UNIT.parse().map_err(|error| Problem::new(error, &advice))?;
    let mut systemd = Systemd::connect().map_err(failed)?;
    let state = systemd.read_unit(&unit).map_err(failed)?;
    if state.active.as_str() == "active" {
        return Err(Problem::new(
            format_args!("{UNIT} is active, and no nginx with this configuration is to be found"),
            "what was there is put back; see which nginx runs on the host, and with which `pid`, and ask again",
        ));
    }
    // What others are starting is not stopped again here.
    found.is_started = matches!(state.active.as_str(), "inactive" | "failed");
    let job = run_job(&mut systemd, &unit, JobType::Start, Heeds::Stops, steps).map_err(failed)?;
    let state = systemd.read_unit(&unit).map_err(failed)?;
    match job {
        Job::Ended(_) | Job::Missed if state.active.as_str() == "active" => {
            steps.say(format_args!("{UNIT} is active"));
            found.master = found.read_master();
            Ok(())
        }
        Job::TakenBack(why) | Job::Left(why, _) => Err(Problem::new(why.words(), advice)),
        Job::Ended(_) | Job::Missed => {
            Err(Problem::new(format_args!("{UNIT} was started, and is {}", state.active), advice))
        }
    }
}

/// Stops what was started.
pub(super) fn stop(steps: &mut Steps) -> Result<(), Problem> {
    let advice = format!("see `systemctl status {UNIT}` on the host");
    let unit: UnitName = UNIT.parse().map_err(|error| Problem::new(error, &advice))?;
    let stopped = Systemd::connect()
        .and_then(|mut systemd| run_job(&mut systemd, &unit, JobType::Stop, Heeds::Nothing, steps));
    match stopped {
        Ok(Job::Ended(_) | Job::Missed) => Ok(()),
        Ok(Job::TakenBack(why) | Job::Left(why, _)) => Err(Problem::new(why.words(), advice)),
        Err(error) => Err(Problem::new(format_args!("{UNIT} could not be stopped again: {error}"), advice)),
    }
}

/// Asks the site itself.
fn ask(asked: &Site, probe: &Probe, steps: &mut Steps) -> Result<u16, Problem> {
    let listens = asked.listens();
    let chosen = listens.iter().find(|listen| probe.port.is_none_or(|port| port == listen.port));
    let listen = chosen.ok_or_else(|| {
        Problem::new("the site listens nowhere", "this is a defect of the agent: report it")
    })?;
    let named = || {
        asked
            .server_names
            .iter()
            .map(|name| name.as_str())
            .find(|name| !name.contains(['*', '~']) && *name != "_")
    };
    let host = probe.host.as_ref().map(|host| host.as_str()).or_else(named);
    let host = host.unwrap_or("localhost").trim_start_matches('.');
    let path = probe.path.as_ref().map_or("/", |path| path.as_str());
    let request =
        Request { address: SocketAddr::new(listen.reached(), listen.port), tls: listen.tls, host, path };
    let wanted = probe.status.unwrap_or(200);
    let mut last = String::new();
    for _ in 0..ATTEMPTS {
        let answer = request.send(&mut || steps.stop().requested().is_some());
        match answer {
            Ok(status) if status == wanted => {
                steps.say(format_args!("{host}{path} is answered with {status}"));
                return Ok(status);
            }
            Ok(status) => last = format!("with {status}"),
            Err(error) => last = format!("with an error: {error}"),
        }
        if let Some(why) = steps.stop().requested() {
            return Err(Problem::new(
                format_args!("{} before {host}{path} was answered", why.words()),
                "what was there is put back",
            ));
        }
    }
    Err(Problem::new(
        format_args!(
            "the probe of {host}{path} at {} was answered {last}, and not with {wanted}",
            request.address
        ),
        "what was there is put back; see the error log of the site, correct it or the probe, and ask again",
    ))
}
