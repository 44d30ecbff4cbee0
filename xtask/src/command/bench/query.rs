//! Looking at hosts: all units of all hosts at once, and a log that many lines are written to.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use super::report::{Goal, Report};
use super::{kib, main_pid, median, peak};
use crate::fleet::Fleet;
use crate::process;

/// Makes so many units that systemd has loaded, and that cost nothing.
pub(super) const SCRIPT: &str = "#!/bin/bash
mkdir -p /run/systemd/system
printf '[Service]\\nType=oneshot\\nRemainAfterExit=yes\\nExecStart=/bin/true\\n' > '/run/systemd/system/bench@.service'
systemctl daemon-reload
systemctl start 'bench@'{1..260}.service
";
/// Writes so many lines in a second, for ten seconds, to the journal.
const WRITER: &str = "\
for second in 1 2 3 4 5 6 7 8 9 10; do
    seq -f \"line $second-%g of a log that somebody follows\" 20000 | systemd-cat --identifier=bench
    sleep 0.2
done";
const LINES: usize = 200_000;
/// How long they may take until they are told.
const LATEST: Duration = Duration::from_secs(60);
const ROUNDS: usize = 10;

pub(super) fn measure(fleet: &Fleet, report: &mut Report) -> Result<()> {
    fleet.succeed(&["run", "units", "--on", "all", "--concurrency", "10", "--timeout", "5m", "--yes"])?;
    let hosts = fleet.lab.hosts().len();
    let mut times = Vec::new();
    let mut units = 0;
    for _ in 0..ROUNDS {
        let start = Instant::now();
        let listed = fleet.succeed(&["ask", "units", "--on", "all", "--output", "json"])?;
        times.push(start.elapsed().as_secs_f64());
        units = listed.lines().filter(|line| line.contains("\"event\":\"item\"")).count();
        ensure!(units >= hosts * 260, "only {units} units of {hosts} hosts were told");
    }
    report.section(&format!("Looking at {hosts} hosts"));
    report.row("units on a host", units as f64 / hosts as f64, "", Goal::None);
    report.row(
        "fleetward ask units --on all, start of the program to its end, median",
        median(&mut times),
        "s",
        Goal::AtMost(0.5),
    );
    follow(fleet, report)
}

/// One host's log is followed while 20,000 lines are written to it at a time.
fn follow(fleet: &Fleet, report: &mut Report) -> Result<()> {
    let host = fleet.lab.hosts().first().context("a host")?;
    // What is limited is not written, and what has no room is removed: that would be the journal's doing, and not what is measured.
    std::fs::create_dir_all(host.root().join("etc/systemd/journald.conf.d"))?;
    std::fs::write(
        host.root().join("etc/systemd/journald.conf.d/bench.conf"),
        "[Journal]\nRateLimitIntervalSec=0\nRateLimitBurst=0\nStorage=persistent\nSystemMaxUse=2G\n",
    )?;
    host.run(&["systemctl", "restart", "systemd-journald"])?;
    // The last lines too: it may be there only after the marker was written, behind lines of others.
    let follower = fleet.start(&["unit", "log", "--on", host.name(), "--lines", "50", "--follow"])?;
    host.run(&["sh", "-c", "echo the follower is there | systemd-cat --identifier=bench"])?;
    follower.wait_for("the follower is there")?;
    let agent = main_pid(host, "fleetward-agent")?.trim().parse()?;
    let used = || cpu(&host.run(&["sh", "-c", "cat /proc/[0-9]*/stat 2>/dev/null; true"])?, agent);
    let (before, start) = (used()?, Instant::now());
    host.exec(&["sh", "-c", WRITER])?;
    // Each writer's lines wait for journald in a socket of their own, so that no line marks the end of all.
    let told =
        || follower.output().lines().filter(|line| line.contains("of a log that somebody follows")).count();
    let all = process::until("all lines to be told", LATEST, || Ok((told() == LINES).then_some(())));
    let took = start.elapsed().as_secs_f64();
    if let Err(problem) = all {
        println!("{problem:#}");
    }
    let cores = (used()? - before) / took;
    let told = told();
    let resting =
        kib(&host.run(&["cat", &format!("/proc/{}/status", main_pid(host, "fleetward-agent")?)])?, "VmRSS")?
            / 1024.0;
    report.row(
        "lines of a journal that is followed that were told (1 is all of them)",
        told as f64 / LINES as f64,
        "",
        Goal::AtLeast(1.0),
    );
    report.row("lines of a journal that is followed", told as f64 / took, "lines/s", Goal::AtLeast(10_000.0));
    report.row("CPU of the agent with all that looks for it, meanwhile", cores, "cores", Goal::AtMost(0.5));
    report.row("resident memory of the agent behind it", resting, "MiB", Goal::AtMost(15.0));
    report.row(
        "resident memory of the agent at its peak",
        peak(host, "fleetward-agent")?,
        "MiB",
        Goal::AtMost(15.0),
    );
    Ok(())
}

/// The processor time, in seconds, of a process and of all below it that live, by proc_pid_stat(5).
fn cpu(stats: &str, root: u32) -> Result<f64> {
    /// USER_HZ, which is 100 wherever Linux tells times to programs (time(7)).
    const TICKS: f64 = 100.0;
    let mut processes = Vec::new();
    for stat in stats.lines() {
        let (pid, rest) = stat.split_once(' ').context("a number")?;
        let fields: Vec<&str> = rest.rsplit_once(')').context("a name")?.1.split_whitespace().collect();
        let field = |at: usize| fields.get(at).copied().context("a field");
        let ticks = field(11)?.parse::<u64>()? + field(12)?.parse::<u64>()?;
        processes.push((pid.parse::<u32>()?, field(1)?.parse::<u32>()?, ticks));
    }
    let (mut family, mut ticks) = (vec![root], 0);
    while let Some(next) = family.pop() {
        for &(pid, parent, used) in &processes {
            if pid == next {
                ticks += used;
            }
            if parent == next {
                family.push(pid);
            }
        }
    }
    Ok(ticks as f64 / TICKS)
}
