//! A short chaos run: everything that can break, once or more, and every run accounted for.

use std::time::Duration;

use anyhow::{Result, ensure};

use xtask::chaos::{self, Options};

#[test]
fn every_run_of_a_broken_fleet_is_accounted_for() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let log = directory.path().join("diary");
    let options = Options { hosts: 4, length: Duration::from_secs(90), seed: 1, log: log.clone() };
    let report = chaos::run(&options)?;
    let text = report.text();
    ensure!(report.account.wrong.is_empty(), "{text}\n{}", std::fs::read_to_string(log)?);
    let injected: usize = report.injected.iter().map(|(_, count)| count).sum();
    ensure!(injected > 30 && report.account.starts > 10, "nearly nothing happened: {text}");
    println!("{text}");
    Ok(())
}
