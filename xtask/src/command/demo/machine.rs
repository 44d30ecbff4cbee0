//! What this machine needs for the demo: installed as root, named otherwise.

use std::process::Command;
use std::time::Duration;

use crate::process;
use anyhow::{Result, bail};

const INSTALL: Duration = Duration::from_secs(900);
const PROBE: Duration = Duration::from_secs(20);
/// The oldest node that builds the console.
const NODE: u32 = 20;

/// Installs Debian packages that are missing.
///
/// # Errors
/// When something is missing and cannot be installed: the error says what to do.
pub(super) fn ensure() -> Result<()> {
    let mut packages = missing();
    if !packages.is_empty() {
        let line = format!("apt-get install --yes {}", packages.join(" "));
        if !nix::unistd::geteuid().is_root() || !process::is_installed("apt-get") {
            bail!("some things are not installed; as root, run: {line}");
        }
        println!("==> {line}");
        process::show_success(Command::new("apt-get").args(["update", "-qq"]), INSTALL)?;
        let mut install = Command::new("apt-get");
        install.args(["install", "--yes", "-qq", "--no-install-recommends"]).args(&packages);
        process::show_success(install.env("DEBIAN_FRONTEND", "noninteractive"), INSTALL)?;
        packages = missing();
    }
    if !packages.is_empty() {
        bail!("still missing after the install: {}", packages.join(" "));
    }
    match node_version() {
        Some(version) if version < NODE => {
            bail!(
                "the console needs Node.js {NODE} or later, and this machine has {version}: see https://nodejs.org"
            )
        }
        _ => Ok(()),
    }
}

fn missing() -> Vec<&'static str> {
    let programs = [
        ("git", "git"),
        ("cc", "build-essential"),
        ("pkg-config", "pkg-config"),
        ("node", "nodejs"),
        ("npm", "npm"),
        ("setpriv", "util-linux"),
    ];
    let mut packages: Vec<&str> = programs
        .iter()
        .filter(|(program, _)| !process::is_installed(program))
        .map(|(_, package)| *package)
        .collect();
    for (library, package) in [("openssl", "libssl-dev"), ("zlib", "zlib1g-dev")] {
        let found = process::run(Command::new("pkg-config").args(["--exists", library]), PROBE);
        if !found.is_ok_and(|found| found.status.success()) {
            packages.push(package);
        }
    }
    packages
}

fn node_version() -> Option<u32> {
    let text = process::succeed(Command::new("node").arg("--version"), PROBE).ok()?;
    text.trim_start_matches('v').split('.').next()?.parse().ok()
}
