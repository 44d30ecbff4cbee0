//! `cargo xtask bench`: the promised numbers, measured on real hosts side by side with what they are compared with.
//!
//! Promises: release packages, every peer in the same run on the same hosts by the same stop-watch, and each figure
//! with its goal and whether it is met. Writes `docs/benchmarks.md` with the machine.

mod backlog;
mod gigabyte;
mod idle;
mod latency;
mod overhead;
mod query;
mod report;
mod ssh;
mod supervisor;
mod transfer;

use std::fs;
use std::process::{Command, ExitCode};
use std::time::Duration;

use crate::fleet::Fleet;
use crate::lab::Host;
use crate::package::Build;
use crate::{process, workspace};
use anyhow::{Context as _, Result};
use clap::{Args, ValueEnum};

use self::report::Report;

/// Options of `cargo xtask bench`.
#[derive(Debug, Args)]
pub(crate) struct BenchCommand {
    /// Hosts beside the controller's; 30, or 1 when only parts are measured that need no more.
    #[arg(long)]
    hosts: Option<usize>,
    /// Measure only these, and do not write docs/benchmarks.md.
    #[arg(long, value_enum, value_name = "PART")]
    only: Vec<Part>,
    /// How often each way of running a script is timed.
    #[arg(long, default_value_t = 15)]
    rounds: usize,
    /// Use the packages that were built last.
    #[arg(long)]
    no_build: bool,
    /// Do not write docs/benchmarks.md.
    #[arg(long)]
    dry_run: bool,
}

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Part {
    /// What an agent costs that has nothing to do.
    Idle,
    /// One trivial script on every host.
    Latency,
    /// 100 MiB of output, and everybody's memory.
    Transfer,
    /// 1 GiB of output against ssh.
    Gigabyte,
    /// What is asked of all hosts, and a log that is followed.
    Query,
    /// An agent that starts with 1,000 unacknowledged runs.
    Backlog,
    /// The process beside a script that sleeps.
    Supervisor,
    /// One trivial script on loopback against fork and exec.
    Overhead,
}

const STEP: Duration = Duration::from_secs(60);
const TRIVIAL: &str = "#!/bin/bash\necho ok\n";

pub(crate) fn execute(command: &BenchCommand) -> Result<ExitCode> {
    if !command.no_build {
        super::package::build_console()?;
        crate::package::build(Build::Release)?;
    }
    let wanted = |part: Part| command.only.is_empty() || command.only.contains(&part);
    let many = wanted(Part::Idle) || wanted(Part::Latency) || wanted(Part::Query);
    let hosts = command.hosts.unwrap_or(if many { 30 } else { 1 });
    let mut report = Report::new(hosts)?;
    if command.only.iter().any(|part| *part != Part::Overhead) || command.only.is_empty() {
        measure_fleet(command, hosts, wanted, &mut report)?;
    }
    // Last: it ends every process that is still below this one.
    if wanted(Part::Overhead) {
        println!("running a trivial script on loopback, in turn with fork and exec");
        overhead::measure(&mut report)?;
    }

    let text = report.text();
    println!("\n{text}");
    if !command.dry_run && command.only.is_empty() {
        let file = workspace::root().join("docs/benchmarks.md");
        fs::write(&file, &text).with_context(|| format!("write {}", file.display()))?;
    }
    Ok(if report.all_met() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn measure_fleet(
    command: &BenchCommand,
    hosts: usize,
    wanted: impl Fn(Part) -> bool,
    report: &mut Report,
) -> Result<()> {
    println!("booting {hosts} hosts and enrolling them");
    let fleet = Fleet::up("bench", hosts)?;
    for host in fleet.lab.hosts() {
        fleet.enrol(host, &["bench"])?;
    }
    fleet.publish(&[
        ("trivial", TRIVIAL),
        ("blob", transfer::SCRIPT),
        ("gigabyte", gigabyte::SCRIPT),
        ("outage", backlog::SCRIPT),
        ("silent", supervisor::SCRIPT),
        ("units", query::SCRIPT),
    ])?;
    if wanted(Part::Idle) {
        println!("watching idle agents for a minute");
        idle::measure(&fleet, report)?;
    }
    if wanted(Part::Latency) {
        println!("running a trivial script, {} times each way", command.rounds);
        latency::measure(&fleet, command.rounds, report)?;
    }
    if wanted(Part::Transfer) {
        println!("moving 100 MiB of output");
        transfer::measure(&fleet, report)?;
    }
    if wanted(Part::Gigabyte) {
        println!("moving 1 GiB of output, in turn with ssh");
        gigabyte::measure(&fleet, 3, report)?;
    }
    if wanted(Part::Supervisor) {
        println!("watching a supervisor");
        supervisor::measure(&fleet, report)?;
    }
    if wanted(Part::Query) {
        println!("asking for all units, and following a log");
        query::measure(&fleet, report)?;
    }
    if wanted(Part::Backlog) {
        println!("starting an agent with 1,000 finished runs");
        backlog::measure(&fleet, report)?;
    }
    Ok(())
}

/// The main process of a unit, by its id inside the host.
fn main_pid(host: &Host, unit: &str) -> Result<String> {
    host.run(&["systemctl", "show", "-P", "MainPID", unit])
}

/// A line of `/proc/PID/status` or `/proc/PID/smaps_rollup`, in KiB.
fn kib(text: &str, field: &str) -> Result<f64> {
    let line = text.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    let number =
        line.and_then(|rest| rest.split_whitespace().next()).with_context(|| format!("no {field}"))?;
    Ok(number.parse()?)
}

/// Lets the peak of a unit's resident memory begin anew.
fn forget_peak(host: &Host, unit: &str) -> Result<()> {
    let pid = main_pid(host, unit)?;
    host.run(&["sh", "-c", &format!("echo 5 > /proc/{pid}/clear_refs")]).map(drop)
}

/// The peak of a unit's resident memory, in MiB.
fn peak(host: &Host, unit: &str) -> Result<f64> {
    let pid = main_pid(host, unit)?;
    Ok(kib(&host.run(&["cat", &format!("/proc/{pid}/status")])?, "VmHWM")? / 1024.0)
}

fn median(values: &mut [f64]) -> f64 {
    quantile(values, 0.5)
}

/// The value that this share of all values is below.
fn quantile(values: &mut [f64], share: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get((values.len() as f64 * share) as usize).copied().unwrap_or(f64::NAN)
}

fn output_of(program: &str, arguments: &[&str]) -> String {
    process::succeed(Command::new(program).args(arguments), STEP).unwrap_or_default()
}
