//! `cargo xtask bench`: the promised numbers, measured on real hosts side by side with what they are compared with.
//!
//! Promises: release packages, every peer in the same run on the same hosts by the same stop-watch, and each figure
//! with its goal and whether it is met. Writes `docs/benchmarks.md` with the machine.

mod idle;
mod latency;
mod report;
mod transfer;

use std::fs;
use std::process::{Command, ExitCode};
use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::Args;
use xtask::fleet::Fleet;
use xtask::lab::Host;
use xtask::package::Build;
use xtask::{process, workspace};

use self::report::Report;

/// Options of `cargo xtask bench`.
#[derive(Debug, Args)]
pub(crate) struct BenchCommand {
    /// Hosts beside the controller's.
    #[arg(long, default_value_t = 30)]
    hosts: usize,
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

const STEP: Duration = Duration::from_secs(60);
const TRIVIAL: &str = "#!/bin/bash\necho ok\n";

pub(crate) fn execute(command: &BenchCommand) -> Result<ExitCode> {
    if !command.no_build {
        super::package::build_console()?;
        xtask::package::build(Build::Release)?;
    }
    println!("booting {} hosts and enrolling them", command.hosts);
    let fleet = Fleet::up("bench", command.hosts)?;
    for host in fleet.lab.hosts() {
        fleet.enrol(host, &["bench"])?;
    }
    fleet.publish(&[("trivial", TRIVIAL), ("blob", transfer::SCRIPT)])?;

    let mut report = Report::new(command.hosts)?;
    println!("watching idle agents for a minute");
    idle::measure(&fleet, &mut report)?;
    println!("running a trivial script, {} times each way", command.rounds);
    latency::measure(&fleet, command.rounds, &mut report)?;
    println!("moving 100 MiB of output");
    transfer::measure(&fleet, &mut report)?;

    let text = report.text();
    println!("\n{text}");
    if !command.dry_run {
        let file = workspace::root().join("docs/benchmarks.md");
        fs::write(&file, &text).with_context(|| format!("write {}", file.display()))?;
    }
    Ok(if report.all_met() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
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

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

fn output_of(program: &str, arguments: &[&str]) -> String {
    process::succeed(Command::new(program).args(arguments), STEP).unwrap_or_default()
}
