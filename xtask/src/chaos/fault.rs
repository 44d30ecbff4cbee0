//! How a fault is injected, held and taken away again.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use nix::sys::statvfs::statvfs;

use super::Chaos;
use super::action::Action;
use super::clock;
use super::diary::{Open, now};
use super::plan::{Call, Fault, Kind, Lane, Planned};
use super::work::{self, Answer};
use crate::lab::Host;
use crate::process;

/// The agent's unit.
pub(super) const AGENT: &str = "fleetward-agent";
/// The controller's unit.
pub(super) const CONTROLLER: &str = "fleetward-controller";
/// Where the agent's state is: on a disk of its own.
pub(super) const AGENT_STATE: &str = "/var/lib/fleetward-agent";
/// Where the controller's data is: on a disk of its own.
pub(super) const CONTROLLER_STATE: &str = "/var/lib/fleetward";
/// Where each host keeps the agent's package, to install it anew.
pub(super) const PACKAGE: &str = "/var/tmp/fleetward-agent.deb";
/// What fills a disk.
const FILLER: &str = "filler";
/// How long a run is waited for whose supervisor could be killed.
const VICTIM: Duration = Duration::from_secs(12);
const BOOT: Duration = Duration::from_secs(90);
/// How long a run of kind `reboot` may take, with whatever happens to its link and to the controller meanwhile.
const REBOOT: Duration = Duration::from_secs(300);
/// States of a run that has not ended.
const OPEN: [&str; 4] = ["queued", "dispatched", "accepted", "running"];
const INSTALL: Duration = Duration::from_secs(180);
const COMMAND: Duration = Duration::from_secs(60);

/// What keeps a fault from being injected, though nothing is wrong: there is nothing to hit at the moment.
struct Nothing(&'static str);

/// Injects a lane's faults, one after the other, until the time is over.
pub(super) fn drive(chaos: &Chaos, lane: Lane, faults: impl Iterator<Item = Planned>) {
    for Planned { after, fault } in faults {
        if chaos.ending.wait(after) {
            return;
        }
        let host = match lane {
            Lane::Machine(host) | Lane::Link(host) => &chaos.fleet.lab.hosts()[host],
            Lane::Controller | Lane::Operator(_) => chaos.fleet.lab.controller(),
        };
        let open = chaos.diary.begin(fault.kind(), host.name(), &detail(&fault));
        match inject(chaos, host, &fault, open) {
            Ok(Ok(())) => {
                chaos.diary.end(open);
                chaos.count(fault.kind());
            }
            Ok(Err(Nothing(why))) => chaos.diary.void(open, why),
            // A host that reboots takes its link with it: that is no fault of anybody.
            Err(problem) if matches!(lane, Lane::Link(_)) => {
                chaos.diary.withdraw(open, &format!("{problem:#}"));
            }
            Err(problem) => {
                chaos.diary.withdraw(open, &format!("{problem:#}"));
                chaos.diary.problem(format!("{}: {}: {problem:#}", host.name(), fault.kind().name()));
            }
        }
    }
}

/// Takes away whatever an interrupted lane may have left.
pub(super) fn heal(chaos: &Chaos) -> Result<()> {
    let lab = &chaos.fleet.lab;
    for host in std::iter::once(lab.controller()).chain(lab.hosts()) {
        if !host.is_up() {
            host.start()?;
        }
        host.wait_running(BOOT)?;
        host.heal()?;
        let (unit, state) = if host.name() == lab.controller().name() {
            (CONTROLLER, CONTROLLER_STATE)
        } else {
            clock::step(host, 0)?;
            (AGENT, AGENT_STATE)
        };
        empty(&seen_from_here(host, state))?;
        signal(host, unit, "CONT").ok();
    }
    Ok(())
}

fn inject(chaos: &Chaos, host: &Host, fault: &Fault, open: Open) -> Result<Result<(), Nothing>> {
    let hold = |span: Duration| {
        chaos.ending.wait(span);
    };
    match *fault {
        Fault::KillAgent => signal(host, AGENT, "KILL"),
        Fault::KillController => signal(host, CONTROLLER, "KILL"),
        Fault::RestartAgent => restart(host, AGENT),
        Fault::RestartController => restart(host, CONTROLLER),
        Fault::PauseAgent(span) => pause(host, AGENT, || hold(span)),
        Fault::PauseController(span) => pause(host, CONTROLLER, || hold(span)),
        Fault::KillSupervisor(pick) => kill_supervisor(chaos, host, pick, open),
        Fault::UpgradeAgent => {
            // A run may be at work with packages: it is waited for, as any owner would have it.
            let waits = format!("DPkg::Lock::Timeout={}", COMMAND.as_secs());
            let set = ["apt-get", "-o", "Dpkg::Use-Pty=0", "-o", &waits];
            let argv = [&set[..], &["install", "--reinstall", "--yes", PACKAGE]].concat();
            let finished = host.exec_within(&argv, INSTALL)?;
            ensure!(finished.status.success(), "{} {}", finished.text(), finished.error_text());
            Ok(Ok(()))
        }
        Fault::Reboot => host.reboot().map(Ok),
        Fault::AskForReboot => ask_for_reboot(chaos, host, Action::Reboot),
        Fault::AskForBusyReboot => ask_for_reboot(chaos, host, Action::RebootWhileBusy),
        Fault::CutPower(span) => {
            host.cut_power()?;
            hold(span);
            host.start()?;
            host.wait_running(BOOT).map(Ok)
        }
        Fault::FillDisk(span, left) => fill(&seen_from_here(host, AGENT_STATE), left, || hold(span)),
        Fault::FillControllerDisk(span, left) => {
            fill(&seen_from_here(host, CONTROLLER_STATE), left, || hold(span))
        }
        Fault::StepClock(span, by) => {
            clock::step(host, by)?;
            let found = clock::read_step(host)?;
            ensure!((found - by).abs() <= 2, "the clock is wrong by {found} s instead of {by} s");
            hold(span);
            clock::step(host, 0).map(Ok)
        }
        Fault::CutLink(span) => {
            host.cut()?;
            hold(span);
            host.heal().map(Ok)
        }
        Fault::LosePackets(span, percent) => {
            host.lose(f64::from(percent))?;
            hold(span);
            host.heal().map(Ok)
        }
        Fault::SlowLink(span, kbit) => {
            host.limit_rate(kbit)?;
            hold(span);
            host.heal().map(Ok)
        }
    }
}

fn detail(fault: &Fault) -> String {
    let seconds = |span: Duration| format!("{:.1} s", span.as_secs_f64());
    match fault {
        Fault::PauseAgent(span)
        | Fault::PauseController(span)
        | Fault::CutPower(span)
        | Fault::CutLink(span) => seconds(*span),
        Fault::FillDisk(span, left) | Fault::FillControllerDisk(span, left) => {
            format!("{}, {} MiB left", seconds(*span), left >> 20)
        }
        Fault::StepClock(span, by) => format!("{}, by {by} s", seconds(*span)),
        Fault::LosePackets(span, percent) => format!("{}, {percent} %", seconds(*span)),
        Fault::SlowLink(span, kbit) => format!("{}, {kbit} kbit/s", seconds(*span)),
        _ => String::new(),
    }
}

/// Sends a signal to a unit's main process alone.
fn signal(host: &Host, unit: &str, name: &str) -> Result<Result<(), Nothing>> {
    let pid = host.run(&["systemctl", "show", "-P", "MainPID", unit])?;
    if pid == "0" {
        return Ok(Err(Nothing("it is not running at the moment")));
    }
    // It may be gone by now, which is all that a signal could have brought about.
    Ok(host
        .exec(&["kill", &format!("-{name}"), &pid])?
        .status
        .success()
        .then_some(())
        .ok_or(Nothing("it just ended")))
}

fn restart(host: &Host, unit: &str) -> Result<Result<(), Nothing>> {
    host.run(&["systemctl", "restart", unit]).map(|_| Ok(()))
}

fn pause(host: &Host, unit: &str, hold: impl FnOnce()) -> Result<Result<(), Nothing>> {
    if let Err(nothing) = signal(host, unit, "STOP")? {
        return Ok(Err(nothing));
    }
    hold();
    // One that ended meanwhile was paused all the same.
    signal(host, unit, "CONT").map(|_| Ok(()))
}

/// Has an operator ask for a reboot, and waits for the end of its run.
fn ask_for_reboot(chaos: &Chaos, host: &Host, action: Action) -> Result<Result<(), Nothing>> {
    let reason = format!("chaos {} {}", host.name(), now());
    let number = match work::ask(chaos, Call::Typed(action), host.name(), &reason) {
        (Answer::Refused(_), _) => return Ok(Err(Nothing("the controller took no request"))),
        (_, Some(number)) => number,
        (_, None) => {
            // It may have been taken. One that is taken later than this is told as wrong by what it brings about.
            let operations = process::until("the controller to answer", REBOOT, || {
                chaos.fleet.json(&["op", "list"]).map(Some)
            })?;
            let mut operations = operations.as_array().into_iter().flatten();
            match operations.find(|operation| operation["reason"] == reason.as_str()) {
                Some(operation) => operation["number"].as_str().unwrap_or_default().to_owned(),
                None => return Ok(Err(Nothing("no request came to the controller"))),
            }
        }
    };
    let state = process::until(&format!("the reboot of {} to end", host.name()), REBOOT, || {
        let runs = chaos.fleet.json(&["op", "runs", &number])?;
        let state = runs[0]["state"].as_str().unwrap_or_default().to_owned();
        Ok((!OPEN.contains(&state.as_str())).then_some(state))
    })?;
    host.wait_running(BOOT)?;
    match state.as_str() {
        "refused" => Ok(Err(Nothing("the run was refused"))),
        _ => Ok(Ok(())),
    }
}

/// Kills one of the supervisors that supervise a run. Spare ones have no run's directory to work in.
fn kill_supervisor(chaos: &Chaos, host: &Host, pick: u64, open: Open) -> Result<Result<(), Nothing>> {
    const LIST: &str = "for pid in $(pgrep -f '^fleetward-agent supervise'); do \
         echo \"$pid $(readlink /proc/$pid/cwd)\"; done";
    let found = |said: &str| -> Option<(String, String)> {
        let mark = format!(" {AGENT_STATE}/runs/");
        let all: Vec<_> = said.lines().filter_map(|line| line.split_once(mark.as_str())).collect();
        let at = usize::try_from(pick % all.len().max(1) as u64).unwrap_or(0);
        all.get(at).map(|(pid, run)| ((*pid).to_owned(), (*run).to_owned()))
    };
    let waited = process::until("a run to hit", VICTIM, || {
        Ok(match found(&host.exec(&["bash", "-c", LIST])?.text()) {
            None if chaos.ending.wait(Duration::ZERO) => Some(None),
            None => None,
            some => Some(some),
        })
    });
    let Ok(Some((pid, run))) = waited else { return Ok(Err(Nothing("nothing runs there at the moment"))) };
    // Written down first: should the kill succeed and its answer be lost, the run is still explained.
    chaos.diary.hit(open, &run);
    if !host.exec(&["kill", "-KILL", &pid])?.status.success() {
        return Ok(Err(Nothing("it just ended")));
    }
    Ok(Ok(()))
}

/// Fills a file system up to that many free bytes, waits, and empties it again.
fn fill(directory: &Path, left: u64, hold: impl FnOnce()) -> Result<Result<(), Nothing>> {
    let stat = statvfs(directory)?;
    let free = stat.blocks_available().saturating_mul(stat.fragment_size());
    let filler = directory.join(FILLER);
    if free > left {
        let mut command = std::process::Command::new("fallocate");
        command.args(["-l", &(free - left).to_string()]).arg(&filler);
        // With no room for the file's own bookkeeping it takes what there is, and fails.
        process::run(&mut command, COMMAND)?;
    }
    if left == 0 {
        let mut command = std::process::Command::new("sh");
        command.args(["-c", "cat /dev/zero >> \"$0\""]).arg(&filler);
        process::run(&mut command, COMMAND)?;
    }
    hold();
    empty(directory).map(Ok)
}

fn empty(directory: &Path) -> Result<()> {
    match std::fs::remove_file(directory.join(FILLER)) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("empty {}", directory.display()))
        }
        _ => Ok(()),
    }
}

fn seen_from_here(host: &Host, path: &str) -> PathBuf {
    host.root().join(path.trim_start_matches('/'))
}

/// Kinds that end an agent's life, and no run's.
pub(super) const ENDS_AGENT: [Kind; 4] =
    [Kind::AgentKilled, Kind::AgentRestarted, Kind::AgentUpgraded, Kind::RebootAsked];
/// Kinds that end a host's life, and that of every run there.
pub(super) const CUTS_OFF: [Kind; 3] = [Kind::HostRebooted, Kind::PowerCut, Kind::BusyRebootAsked];
/// Kinds that end a host's life, and all that runs have left there.
pub(super) const ENDS_HOST: [Kind; 4] =
    [Kind::HostRebooted, Kind::PowerCut, Kind::RebootAsked, Kind::BusyRebootAsked];
/// Kinds after which a host is in another boot, each in one. Runs tell of theirs.
pub(super) const BRINGS_A_BOOT: [Kind; 2] = [Kind::HostRebooted, Kind::PowerCut];
