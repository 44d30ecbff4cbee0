//! What the small process beside each script costs while the script says nothing.

use std::time::{Duration, Instant};

use crate::fleet::Fleet;
use crate::lab::Host;
use anyhow::{Context as _, Result, ensure};

use super::kib;
use super::report::{Goal, Report};

pub(super) const SCRIPT: &str = "#!/bin/bash\nsleep 1000 & echo $PPID; wait\n";
const WATCH: Duration = Duration::from_secs(10);
const LIMIT: Duration = Duration::from_secs(30);

pub(super) fn measure(fleet: &Fleet, report: &mut Report) -> Result<()> {
    let host = fleet.lab.host("h1")?;
    let run = fleet.start(&["run", "silent", "--on", "h1", "--yes"])?;
    let pid = crate::process::until("the script to tell its supervisor", LIMIT, || {
        let output = run.output();
        let line = output.lines().find(|line| line.contains('|'));
        Ok(line.and_then(|line| line.split_whitespace().last()?.parse::<u32>().ok()))
    })?;
    let argv = host.run(&["sh", "-c", &format!("tr '\\0' ' ' < /proc/{pid}/cmdline")])?;
    ensure!(argv.contains("supervise"), "process {pid} is `{argv}`, not a supervisor");
    // What its start costs is over when its time on the processor stands still.
    let mut last = spent(host, pid)?;
    crate::process::until("the supervisor to come to rest", LIMIT, || {
        let now = spent(host, pid)?;
        Ok((std::mem::replace(&mut last, now) == now).then_some(()))
    })?;
    let start = Instant::now();
    crate::process::until("ten seconds to pass", WATCH * 2, || Ok((start.elapsed() >= WATCH).then_some(())))?;
    let cpu = (spent(host, pid)? - last) as f64 / 1e6;
    let maps = host.run(&["cat", &format!("/proc/{pid}/smaps_rollup")])?;
    let mib = |field: &str| Ok::<f64, anyhow::Error>(kib(&maps, field)? / 1024.0);
    let (proportional, resident, private) = (mib("Pss")?, mib("Rss")?, mib("Private_Dirty")?);
    let newest = fleet.json(&["op", "list", "--limit", "1"])?;
    let number = newest[0]["number"].as_str().context("an operation has no number")?;
    fleet.succeed(&["op", "stop", number])?;
    run.finish()?;

    report.section("A supervisor, while its script sleeps");
    report.row("proportional share of memory (PSS)", proportional, "MiB", Goal::AtMost(2.0));
    report.row("resident memory, shared pages counted whole", resident, "MiB", Goal::None);
    report.row("private dirty memory", private, "MiB", Goal::None);
    report.row("CPU time in ten seconds", cpu, "ms", Goal::AtMost(0.0));
    Ok(())
}

/// Nanoseconds on a processor so far; it has one thread.
fn spent(host: &Host, pid: u32) -> Result<u64> {
    let text = host.run(&["cat", &format!("/proc/{pid}/schedstat")])?;
    Ok(text.split(' ').next().context("no schedstat")?.parse()?)
}
