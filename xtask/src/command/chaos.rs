//! `cargo xtask lab chaos`: breaks a fleet of real hosts while it works, and accounts for every run.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use crate::chaos::{self, Options};
use crate::workspace;
use anyhow::{Result, ensure};
use clap::Args;

/// Options of `cargo xtask lab chaos`.
#[derive(Debug, Args)]
pub(crate) struct ChaosCommand {
    /// Hosts beside the controller's.
    #[arg(long, default_value_t = 8)]
    hosts: usize,
    /// How long operations are asked for and faults injected; healing and the audit come on top.
    #[arg(long, default_value_t = 5.0)]
    minutes: f64,
    /// What decides everything that is left to chance.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    /// Where the diary of faults and requests is written; `target/chaos-SEED.log` when absent.
    #[arg(long)]
    log: Option<PathBuf>,
}

pub(crate) fn execute(command: &ChaosCommand) -> Result<ExitCode> {
    ensure!(command.hosts > 0, "there has to be a host to break");
    ensure!((0.1..=1440.0).contains(&command.minutes), "--minutes is from 0.1 to 1440");
    let log = command
        .log
        .clone()
        .unwrap_or_else(|| workspace::target().join(format!("chaos-{}.log", command.seed)));
    eprintln!("the diary is {}", log.display());
    let report = chaos::run(&Options {
        hosts: command.hosts,
        length: Duration::from_secs_f64(command.minutes * 60.0),
        seed: command.seed,
        log,
    })?;
    if command.json {
        println!("{:#}", report.json());
    } else {
        print!("{}", report.text());
    }
    Ok(if report.account.wrong.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
