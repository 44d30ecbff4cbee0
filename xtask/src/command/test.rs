//! `cargo xtask test`: every level of tests that this machine can run.

use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use crate::{lab, process, workspace};
use anyhow::{Context as _, Result};
use clap::Args;

use super::postgres::Postgres;

/// Options of `cargo xtask test`.
#[derive(Debug, Args)]
pub(crate) struct TestCommand {
    /// Fail where this machine lacks something, instead of skipping a level.
    #[arg(long)]
    all: bool,
}

const LIMIT: Duration = Duration::from_secs(3600);

/// What a level came to.
enum Outcome {
    Passed(Duration),
    Failed(String),
    Skipped(String),
}

pub(crate) fn execute(command: &TestCommand) -> Result<ExitCode> {
    let mut outcomes: Vec<(&str, Outcome)> = Vec::new();
    console(&mut outcomes);
    rust(command, &mut outcomes)?;
    outcomes.push(("doc tests", run(cargo(&["test", "--quiet", "--workspace", "--doc"]))));

    println!("\nLevels:");
    let mut failed = false;
    for (level, outcome) in &outcomes {
        match outcome {
            Outcome::Passed(time) => println!("  passed   {level} ({:.0} s)", time.as_secs_f64()),
            Outcome::Failed(problem) => {
                failed = true;
                println!("  FAILED   {level}: {problem}");
            }
            Outcome::Skipped(reason) => {
                failed |= command.all;
                println!("  SKIPPED  {level}: because {reason}");
            }
        }
    }
    if failed && command.all && !outcomes.iter().any(|(_, outcome)| matches!(outcome, Outcome::Failed(_))) {
        println!("--all was asked for, so what is skipped is a failure");
    }
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// Decision, store, fleet, browser and lab tests: all in cargo's test binaries, so that one run counts them all.
fn rust(command: &TestCommand, outcomes: &mut Vec<(&str, Outcome)>) -> Result<()> {
    if !process::is_installed("cargo-nextest") {
        outcomes.push((
            "rust",
            Outcome::Skipped("cargo-nextest is missing: cargo install cargo-nextest --locked".into()),
        ));
        return Ok(());
    }
    let mut tests = cargo(&["nextest", "run", "--workspace", "--ignore-default-filter"]);
    if command.all {
        tests.env("FLEETWARD_TEST_ALL", "1");
    }
    let postgres = match Postgres::programs() {
        Some(programs) => Some(Postgres::start(programs).context("start PostgreSQL for the store's tests")?),
        None => {
            outcomes.push((
                "store on PostgreSQL",
                Outcome::Skipped("PostgreSQL is missing: apt-get install postgresql".into()),
            ));
            None
        }
    };
    if let Some(postgres) = &postgres {
        tests.env("FLEETWARD_TEST_POSTGRES", postgres.url());
    }

    let mut left_out = Vec::new();
    if let Some(reason) = lab::missing() {
        left_out.push("lab");
        outcomes.push(("lab", Outcome::Skipped(reason)));
    } else {
        // What lab tests install. Without it they would test what an earlier build left.
        super::package::build_console()?;
        crate::package::build(crate::package::Build::Release).context("build the packages for the lab")?;
    }
    if let Some(reason) = missing_for_browser() {
        left_out.push("browser");
        outcomes.push(("browser", Outcome::Skipped(reason)));
    }
    if !left_out.is_empty() {
        tests
            .arg("-E")
            .arg(format!("not (package(fleetward-tests) and test(/^({})::/))", left_out.join("|")));
    }
    outcomes.push(("rust", run(tests)));
    Ok(())
}

fn missing_for_browser() -> Option<String> {
    let tools = [("chromium", "chromium"), ("node", "nodejs"), ("npm", "npm")];
    let missing: Vec<&str> =
        tools.iter().filter(|(tool, _)| !process::is_installed(tool)).map(|(_, package)| *package).collect();
    (!missing.is_empty())
        .then(|| format!("the browser or node is missing: apt-get install {}", missing.join(" ")))
}

fn console(outcomes: &mut Vec<(&str, Outcome)>) {
    let console = workspace::root().join("controller/console");
    if !console.join("package.json").exists() {
        return;
    }
    if !process::is_installed("npm") {
        outcomes
            .push(("console units", Outcome::Skipped("node is missing: apt-get install nodejs npm".into())));
        return;
    }
    if let Err(problem) = super::package::build_console() {
        outcomes.push(("console units", Outcome::Failed(format!("{problem:#}"))));
        return;
    }
    let mut test = Command::new("npm");
    test.args(["run", "test"]).env("CI", "true").current_dir(&console);
    outcomes.push(("console units", run(test)));
}

fn run(mut command: Command) -> Outcome {
    let start = Instant::now();
    match process::show_success(&mut command, LIMIT) {
        Ok(()) => Outcome::Passed(start.elapsed()),
        Err(problem) => Outcome::Failed(format!("{problem:#}")),
    }
}

pub(super) fn cargo(arguments: &[&str]) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(workspace::root()).args(arguments);
    command
}
