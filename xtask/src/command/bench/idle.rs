//! What an agent costs that has nothing to do.

use std::time::{Duration, Instant};

use crate::fleet::Fleet;
use crate::lab::Host;
use anyhow::Result;

use super::report::{Goal, Report};
use super::{kib, main_pid, median};

const WATCH: Duration = Duration::from_secs(60);
const UNIT: &str = "fleetward-agent";

pub(super) fn measure(fleet: &Fleet, report: &mut Report) -> Result<()> {
    let hosts = fleet.lab.hosts();
    let pids: Vec<String> = hosts.iter().map(|host| main_pid(host, UNIT)).collect::<Result<_>>()?;
    let before: Vec<u64> = times(hosts, &pids)?;
    let start = Instant::now();
    crate::process::until("a minute to pass", WATCH * 2, || Ok((start.elapsed() >= WATCH).then_some(())))?;
    let after = times(hosts, &pids)?;
    let wall = start.elapsed().as_secs_f64();

    let mut cpu: Vec<f64> = before
        .iter()
        .zip(&after)
        .map(|(before, after)| (after - before) as f64 / 1e9 / wall * 100.0)
        .collect();
    let (mut resident, mut private) = (Vec::new(), Vec::new());
    for (host, pid) in hosts.iter().zip(&pids) {
        let maps = host.run(&["cat", &format!("/proc/{pid}/smaps_rollup")])?;
        resident.push(kib(&maps, "Rss")? / 1024.0);
        private.push(kib(&maps, "Private_Dirty")? / 1024.0);
    }
    report.section("An agent at rest");
    report.row("resident memory, median", median(&mut resident), "MiB", Goal::AtMost(10.0));
    report.row("private dirty memory, median", median(&mut private), "MiB", Goal::AtMost(6.0));
    report.row("CPU over a minute, median", median(&mut cpu), "%", Goal::Below(0.1));
    let worst = cpu.last().copied().unwrap_or(f64::NAN);
    report.row("CPU over a minute, worst host", worst, "%", Goal::None);
    Ok(())
}

/// Nanoseconds on a processor so far, all threads together.
fn times(hosts: &[Host], pids: &[String]) -> Result<Vec<u64>> {
    let time = |(host, pid): (&Host, &String)| -> Result<u64> {
        let text = host.run(&["sh", "-c", &format!("cat /proc/{pid}/task/*/schedstat")])?;
        Ok(text.lines().filter_map(|line| line.split(' ').next()?.parse::<u64>().ok()).sum())
    };
    hosts.iter().zip(pids).map(time).collect()
}
