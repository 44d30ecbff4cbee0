//! `cargo xtask package`: the three `.deb`s.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Duration;

use crate::package::{Build, Packages};
use crate::{process, workspace};
use anyhow::{Context as _, Result, ensure};
use clap::Args;

/// Options of `cargo xtask package`.
#[derive(Debug, Args)]
pub(crate) struct PackageCommand {
    /// Pack debug binaries, for trying something in a lab.
    #[arg(long)]
    quick: bool,
}

pub(crate) fn execute(command: &PackageCommand) -> Result<ExitCode> {
    let build = if command.quick { Build::Quick } else { Build::Release };
    if build == Build::Release {
        build_console()?;
    }
    let Packages { agent, controller, cli } = crate::package::build(build)?;
    for package in [agent, controller, cli] {
        println!("{} ({} KiB)", package.display(), fs::metadata(&package)?.len() / 1024);
    }
    Ok(ExitCode::SUCCESS)
}

/// Builds the web console into the directory that the controller embeds.
///
/// # Errors
/// When node is missing or the build fails.
pub(crate) fn build_console() -> Result<()> {
    let console = console();
    if !console.join("package.json").exists() {
        return Ok(());
    }
    install_console()?;
    process::show_success(Command::new("npm").args(["run", "build"]).current_dir(&console), LIMIT)
}

/// Installs what the console is built with, unless what is there matches the lock file.
///
/// # Errors
/// When node is missing or the install fails.
pub(crate) fn install_console() -> Result<()> {
    let console = console();
    ensure!(
        process::is_installed("npm"),
        "the console needs node and npm (20 or later): apt-get install nodejs npm"
    );
    let installed = console.join("node_modules/.package-lock.json");
    let age = |path: &Path| fs::metadata(path).and_then(|metadata| metadata.modified());
    let lock = age(&console.join("package-lock.json")).context("the console has no package-lock.json")?;
    if age(&installed).is_ok_and(|installed| installed >= lock) {
        return Ok(());
    }
    let mut install = Command::new("npm");
    install.args(["ci", "--no-audit", "--no-fund"]).current_dir(&console);
    process::show_success(&mut install, LIMIT)
}

const LIMIT: Duration = Duration::from_secs(900);

fn console() -> PathBuf {
    workspace::root().join("controller/console")
}
