//! Reboots the host, goes on with it in the next boot, and says what did not come back.

use std::io;
use std::os::fd::AsFd as _;
use std::time::Duration;

use fleetward_protocol::action::reboot::{Reboot, RebootReport};
use fleetward_protocol::action::{Change, Preview};
use fleetward_protocol::id::BootId;
use fleetward_protocol::text::{List, Text, Word};
use fleetward_protocol::time::Timestamp;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use serde::{Deserialize, Serialize};

use super::Perform;
use crate::perform::{Cut, Failure, Left, Problem, Steps};
use crate::platform::apt::wanted;
use crate::platform::clock;
use crate::platform::stop::Why;
use crate::platform::systemd::reboot::{Inhibitor, System};
use crate::platform::systemd::{Systemd, SystemdError};

/// How long a boot may take until it has come to its end, once the agent is there.
const BOOT: Duration = Duration::from_secs(300);
/// Between two looks at how far it is.
const LOOK: u16 = 500;
/// The only step that changes something.
const STEP: &str = "reboot";

/// What is needed to know what became of it, in the next boot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Before {
    boot: BootId,
    at: Timestamp,
    services: Vec<Word>,
    failed: Vec<Word>,
}

impl Perform for Reboot {
    fn rehearse(&self, steps: &mut Steps) -> Result<Preview, Failure<Preview>> {
        if is_not_required(self, steps) {
            return Ok(Preview::default());
        }
        let (_, system) = steps.look("check", STEP, |steps| check(self, steps))?;
        let change = Change::new("reboot this host");
        let words = format!("{}, {} services to come back", system.state, system.services.len());
        Ok(Preview::of(vec![change.between(words, "the same in another boot")]))
    }

    fn perform(&self, steps: &mut Steps) -> Result<RebootReport, Failure<RebootReport>> {
        let boot = shown(steps.boot());
        match (steps.recall::<Before>(), steps.earlier(STEP)) {
            // It restarted since this was about to begin: whoever did that, it has been rebooted.
            (Some(before), _) if before.boot != steps.boot() => {
                steps.change(STEP, STEP, |_, _| Ok(Some(())), |_| Ok(()))?;
                return verify(before, steps);
            }
            // Whoever waited for it to go down was killed: it may have been asked, and goes down once however often it is.
            (Some(_), Some(_)) if steps.cut() == Some(Cut::Death) => {
                let systemd =
                    steps.look("connect", STEP, |_| Systemd::connect().map_err(|error| problem(&error)))?;
                return Err(go_down(self, &systemd, boot, steps));
            }
            (_, Some(_)) => {
                return Err(Problem::new(
                    "what was running before the host was rebooted is not known any more",
                    "see `systemctl --failed` on the host",
                )
                .into());
            }
            (_, None) => {}
        }
        if is_not_required(self, steps) {
            steps.unchanged(STEP, "unchanged: nothing on this host asks for a reboot");
            return Ok(unchanged(boot));
        }
        let (systemd, system) = steps.look("check", STEP, |steps| check(self, steps))?;
        let System { services, failed, .. } = system;
        steps.remember(&Before { boot: steps.boot(), at: clock::now(), services, failed })?;
        Err(go_down(self, &systemd, boot, steps))
    }
}

/// Has the host go down, and waits for that; the run has no end before the next boot, or a problem.
fn go_down(asked: &Reboot, systemd: &Systemd, boot: Word, steps: &mut Steps) -> Failure<RebootReport> {
    let down = steps.repeat(STEP, STEP, |steps| {
        if !systemd.is_shutting_down() {
            systemd.reboot(asked.force).map_err(|error| problem(&error))?;
        }
        steps.say("the host was asked to reboot; this run goes on when it is back");
        wait_for_the_end(steps)
    });
    match down {
        Ok(()) => Failure {
            problem: Problem::new("the host goes down", "this run goes on in the next boot"),
            left: Left::GoesDown,
            report: None,
        },
        Err(problem) => Failure { problem, left: Left::AsItIs, report: Some(Box::new(unchanged(boot))) },
    }
}

/// Waits for what ends this process: the host that goes down, or whoever stops the run.
fn wait_for_the_end(steps: &mut Steps) -> Result<(), Problem> {
    loop {
        if let Some(why) = steps.stop().requested() {
            // Whoever is told to end by a host that goes down is not to be waited for.
            let goes_down = Systemd::connect().map_or(true, |systemd| systemd.is_shutting_down());
            return match goes_down && why == Why::Requested {
                true => Ok(()),
                false => Err(Problem::new(
                    format_args!(
                        "{}: the host was asked to reboot, and has not gone down by now",
                        why.words()
                    ),
                    "it may still go down: see `systemctl list-jobs` on the host, and its console if it does not answer",
                )),
            };
        }
        pause(steps, PollTimeout::NONE).map_err(|error| {
            Problem::new(
                format_args!("cannot wait for the host to go down: {error}"),
                "see whether it comes back",
            )
        })?;
    }
}

/// Waits for the time to pass, or for this process to be asked to stop.
fn pause(steps: &mut Steps, time: PollTimeout) -> io::Result<()> {
    match poll(&mut [PollFd::new(steps.stop().as_fd(), PollFlags::POLLIN)], time) {
        Ok(_) | Err(nix::errno::Errno::EINTR) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// What is on the host, if it may go down.
fn check(asked: &Reboot, steps: &mut Steps) -> Result<(Systemd, System), Problem> {
    let systemd = Systemd::connect().map_err(|error| problem(&error))?;
    let inhibitors = systemd.read_inhibitors().map_err(|error| problem(&error))?;
    for Inhibitor { words, blocks } in &inhibitors {
        let what = if *blocks { "wants the host to stay up" } else { "wants the host to wait a moment" };
        steps.say(format_args!("{what}: {words}"));
    }
    let blocking: Vec<&str> = inhibitors
        .iter()
        .filter(|inhibitor| inhibitor.blocks)
        .map(|inhibitor| inhibitor.words.as_str())
        .collect();
    if !blocking.is_empty() && !asked.force {
        return Err(Problem::new(
            format_args!("somebody wants the host to stay up: {}", blocking.join("; ")),
            "wait until that is done, or ask again with `force` (`--force`) if it does not matter",
        ));
    }
    let system = systemd.read_system().map_err(|error| problem(&error))?;
    if system.state.as_str() == "stopping" {
        return Err(Problem::new(
            "the host is going down already",
            "ask again when it is back, if that is still needed",
        ));
    }
    steps.say(format_args!(
        "{}: {} services are active, {} of them are to come back",
        system.state,
        system.active.len(),
        system.services.len()
    ));
    Ok((systemd, system))
}

/// Whether the host is in another boot, and all is back.
fn verify(before: Before, steps: &mut Steps) -> Result<RebootReport, Failure<RebootReport>> {
    let mut report = RebootReport {
        boot_after: Some(shown(steps.boot())),
        changed: true,
        ..unchanged(shown(before.boot))
    };
    let verified = steps.look("verify", "what is back", |steps| {
        let system = wait_for_the_boot(&before, steps)?;
        let took = clock::now().since(before.at);
        let missing = before.services.iter().filter(|service| !system.active.contains(service));
        let failed = system.failed.iter().filter(|unit| !before.failed.contains(unit));
        report.down_for_ms = u64::try_from(took.as_millis()).ok();
        report.missing = List::of(missing.cloned());
        report.failed = List::of(failed.cloned());
        report.system = Some(system.state);
        steps.say(format_args!("back after {} s", took.as_secs()));
        for unit in report.failed.iter().filter(|unit| !report.missing.contains(unit)) {
            steps.complain(format_args!("{unit} failed, and had not before"));
        }
        if report.missing.is_empty() {
            return Ok(());
        }
        let names: Vec<&str> = report.missing.iter().map(|name| name.as_str()).collect();
        Err(Problem::new(
            format_args!("the host is back without {}", names.join(", ")),
            format_args!(
                "see `systemctl status {}` on the host; what was started by hand wants `enable` to come back",
                names.join(" ")
            ),
        ))
    });
    match verified {
        Ok(()) => Ok(report),
        Err(problem) => Err(Failure { problem, left: Left::AsItIs, report: Some(Box::new(report)) }),
    }
}

/// Waits until the boot has come to its end, and what was there is there again or will not be.
fn wait_for_the_boot(before: &Before, steps: &mut Steps) -> Result<System, Problem> {
    let until = clock::uptime() + BOOT;
    let mut told = false;
    loop {
        // The message bus comes with the boot, too.
        let system = Systemd::connect().and_then(|systemd| systemd.read_system());
        let is_over = clock::uptime() >= until;
        match system {
            Ok(system) if !matches!(system.state.as_str(), "initializing" | "starting") => return Ok(system),
            // Some unit does not come to its end: the rest can be told.
            Ok(system)
                if is_over && before.services.iter().all(|service| system.active.contains(service)) =>
            {
                return Ok(system);
            }
            Ok(_) if is_over => {
                return Err(Problem::new(
                    format_args!("the boot has not come to its end within {} s", BOOT.as_secs()),
                    "see `systemctl list-jobs` on the host: it shows what is waited for",
                ));
            }
            Err(error) if is_over => return Err(problem(&error)),
            Ok(System { state, .. }) if !told => {
                steps.going("verify", format_args!("systemd is {state}"));
                told = true;
            }
            Ok(_) | Err(_) => {}
        }
        if let Some(why) = steps.stop().requested() {
            return Err(Problem::new(
                format_args!("{} before the boot had come to its end", why.words()),
                "the host is back; see `systemctl --failed` there",
            ));
        }
        pause(steps, PollTimeout::from(LOOK)).map_err(|error| {
            Problem::new(
                format_args!("cannot wait for the boot's end: {error}"),
                "see `systemctl --failed` on the host",
            )
        })?;
    }
}

/// Whether it is asked for where the host wants it only, and this one does not.
fn is_not_required(asked: &Reboot, steps: &mut Steps) -> bool {
    let wanted = wanted::read_reboot();
    if wanted.is_wanted && !wanted.packages.is_empty() {
        let packages: Vec<&str> = wanted.packages.iter().map(|name| name.as_str()).collect();
        steps.say(format_args!("this host wants to be rebooted, for {}", packages.join(", ")));
    }
    asked.only_if_required && !wanted.is_wanted
}

fn unchanged(boot: Word) -> RebootReport {
    RebootReport {
        changed: false,
        boot_before: boot,
        boot_after: None,
        down_for_ms: None,
        system: None,
        missing: List::default(),
        failed: List::default(),
    }
}

fn shown(boot: BootId) -> Word {
    Text::of(boot)
}

fn problem(error: &SystemdError) -> Problem {
    let advice = match error {
        SystemdError::Bus(_) | SystemdError::Runtime(_) => {
            "this kind needs a host that runs systemd and the D-Bus message bus: see `systemctl status dbus`"
        }
        SystemdError::Ended | SystemdError::Silent | SystemdError::Strange(_) => {
            "what became of it is not known here: see whether the host goes down, and `systemctl list-jobs` there"
        }
        SystemdError::Refused { .. } | SystemdError::Replaces { .. } => {
            "see `journalctl --unit=systemd-logind` on the host"
        }
    };
    Problem::new(format_args!("the host could not be rebooted: {error}"), advice)
}
