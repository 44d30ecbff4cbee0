//! 1 GiB of output from one host to the store, against ssh to the same host.
//!
//! Nothing but the way of the bytes is timed: the file is random, and in the host's page cache. The ways take turns,
//! and the first turn is not counted: it touches the machine's memory for the first time.

use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::fleet::Fleet;
use crate::process;
use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::report::{Goal, Report};
use super::ssh::Ssh;
use super::{forget_peak, median, peak};

pub(super) const SCRIPT: &str = "#!/bin/bash\nexec cat /var/tmp/gigabyte\n";
const PREPARE: &str =
    "head -c 1073741824 /dev/urandom > /var/tmp/gigabyte && sync && cat /var/tmp/gigabyte > /dev/null";
const NOTE: &str = "\
The file is in the host's page cache, both ways take turns, and the first turn only warms the machine's memory up. The end is the controller's
note that the operation ended, which comes after the commit of the last byte and the result.";
const BYTES: u64 = 1 << 30;
const MIB: f64 = 1024.0;
const LIMIT: Duration = Duration::from_secs(300);
/// Seldom, so that asking costs nothing beside what is timed; the controller tells the times.
const POLL: Duration = Duration::from_millis(500);

pub(super) fn measure(fleet: &Fleet, rounds: usize, report: &mut Report) -> Result<()> {
    let host = fleet.lab.host("h1")?;
    let prepared = host.exec_within(&["sh", "-c", PREPARE], LIMIT)?;
    ensure!(prepared.status.success(), "the file was not made: {}", prepared.error_text());
    let written = host.exec_within(&["sha256sum", "/var/tmp/gigabyte"], LIMIT)?.text();
    let ssh = Ssh::new(fleet, std::slice::from_ref(host))?;
    let file = ssh.directory().join("copy");
    forget_peak(host, "fleetward-agent")?;
    forget_peak(fleet.lab.controller(), "fleetward-controller")?;

    let (mut ours, mut started, mut null, mut synced) = (vec![], vec![], vec![], vec![]);
    let mut newest = Value::Null;
    for round in 0..=rounds {
        let run = by_fleetward(fleet)?;
        let to_null =
            by_ssh(fleet, &ssh, "exec ssh -F \"$CONFIG\" \"$HOST\" cat /var/tmp/gigabyte > /dev/null")?;
        let script = "ssh -F \"$CONFIG\" \"$HOST\" cat /var/tmp/gigabyte > \"$FILE\" && sync \"$FILE\"";
        let to_disk = by_ssh(fleet, &ssh, script)?;
        ensure!(fs::metadata(&file)?.len() == BYTES, "ssh did not bring the whole file");
        fs::remove_file(&file)?;
        println!(
            "  {}: fleetward {:.3} s, ssh to /dev/null {to_null:.3} s, ssh to a synced file {to_disk:.3} s",
            if round == 0 { "to warm up".to_owned() } else { format!("turn {round}") },
            run.from_dispatch
        );
        newest = run.number;
        if round > 0 {
            ours.push(run.from_dispatch);
            started.push(run.from_start);
            null.push(to_null);
            synced.push(to_disk);
        }
    }
    let agent = peak(host, "fleetward-agent")?;
    let centre = peak(fleet.lab.controller(), "fleetward-controller")?;
    let same = arrived_digest(fleet, newest.as_str().unwrap_or_default())? == digest(&written);
    // Another gigabyte of random bytes would stay in the machine's memory.
    host.run(&["rm", "-f", "/var/tmp/gigabyte"])?;

    let (ours, started) = (median(&mut ours), median(&mut started));
    let (null, synced) = (median(&mut null), median(&mut synced));
    report.section("1 GiB of random output from one host");
    let same = f64::from(u8::from(same));
    report.row("bytes that arrived are those written (1 is yes)", same, "", Goal::AtLeast(1.0));
    report.row("dispatch to after the store's last commit", ours, "s", Goal::None);
    report.row("script's start to after the store's last commit", started, "s", Goal::None);
    report.row("rate", MIB / started, "MiB/s", Goal::None);
    report.row("ssh, warm ControlMaster, to /dev/null", null, "s", Goal::None);
    report.row("ssh, warm ControlMaster, to a file, synced", synced, "s", Goal::None);
    report.row("share of the time of ssh to /dev/null", started / null, "×", Goal::AtMost(1.0));
    report.row("share of the time of ssh to a synced file", started / synced, "×", Goal::None);
    report.row("agent's peak resident memory", agent, "MiB", Goal::None);
    report.row("controller's peak resident memory", centre, "MiB", Goal::None);
    report.note(NOTE);
    Ok(())
}

/// One run's times, in seconds.
struct Timed {
    number: Value,
    from_dispatch: f64,
    from_start: f64,
}

/// The operation's end is noted after the commit of its run's result, and the dispatch before the order is sent; so
/// what is told is at least what it took.
fn by_fleetward(fleet: &Fleet) -> Result<Timed> {
    fleet.succeed(&["--quiet", "run", "gigabyte", "--on", "h1", "--yes", "--detach"])?;
    let mut asked = Instant::now();
    let operation = process::until("the run to end", LIMIT, || {
        if asked.elapsed() < POLL {
            return Ok(None);
        }
        asked = Instant::now();
        let operation = fleet.json(&["op", "list", "--limit", "1"])?[0].clone();
        Ok(operation["ended_at"].is_string().then_some(operation))
    })?;
    ensure!(operation["status"] == "success", "the run ended as {operation}");
    let number = operation["number"].clone();
    let runs = fleet.json(&["op", "runs", number.as_str().unwrap_or_default()])?;
    let end = time(&operation["ended_at"])?;
    let since = |field: &str| Ok::<f64, anyhow::Error>(end - time(&runs[0][field])?);
    Ok(Timed { number, from_dispatch: since("dispatched_at")?, from_start: since("started_at")? })
}

fn by_ssh(fleet: &Fleet, ssh: &Ssh<'_>, script: &str) -> Result<f64> {
    let mut command = fleet.lab.operator_command("bash");
    command.args(["-c", script]).env("CONFIG", ssh.warm()).env("HOST", "h1");
    command.env("FILE", ssh.directory().join("copy"));
    let start = Instant::now();
    process::succeed(&mut command, LIMIT)?;
    Ok(start.elapsed().as_secs_f64())
}

/// The digest of what the store gives out.
fn arrived_digest(fleet: &Fleet, number: &str) -> Result<String> {
    let mut logs = fleet.cli(&["op", "logs", number, "--host", "h1", "--stream", "stdout", "--raw"]);
    let mut logs = logs.stdin(std::process::Stdio::null()).stdout(std::process::Stdio::piped()).spawn()?;
    let output = logs.stdout.take().context("op logs has no output")?;
    let arrived = process::run_with_input(&mut Command::new("sha256sum"), output, LIMIT)?.text();
    ensure!(logs.wait()?.success(), "op logs --raw failed");
    Ok(digest(&arrived))
}

fn digest(line: &str) -> String {
    line.split(' ').next().unwrap_or_default().to_owned()
}

/// Seconds since 1970.
fn time(value: &Value) -> Result<f64> {
    let text = value.as_str().with_context(|| format!("no time: {value}"))?;
    let time: jiff::Timestamp = text.parse()?;
    Ok(time.as_millisecond() as f64 / 1e3)
}
