//! What the packages leave on a host, and what they take away again.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use xtask::fleet::Fleet;
use xtask::package::{built, is_lintian_installed, lint};
use xtask::process;

/// The packages, each with a program of it and the section of its manual page.
const PACKAGES: [(&str, &str); 3] =
    [("fleetward-agent", "8"), ("fleetward-controller", "8"), ("fleetward", "1")];

#[test]
fn lintian_finds_neither_error_nor_warning() -> Result<()> {
    if !is_lintian_installed() {
        let all = std::env::var("FLEETWARD_TEST_ALL").is_ok_and(|all| all == "1");
        ensure!(!all, "lintian is not installed: apt-get install lintian");
        return Ok(());
    }
    for (package, _) in PACKAGES {
        lint(&built(package)?)?;
    }
    Ok(())
}

/// Changelog, copyright and notices of others, and a manual page for the program, as Debian's policy (12) wants them.
#[test]
fn a_package_documents_itself() -> Result<()> {
    const LIMIT: Duration = Duration::from_secs(60);
    for (package, section) in PACKAGES {
        let file = built(package)?;
        let unpacked = tempfile::tempdir()?;
        process::succeed(Command::new("dpkg-deb").arg("-x").arg(&file).arg(unpacked.path()), LIMIT)?;
        let read = |path: String| {
            let path = unpacked.path().join(path);
            let shown = if path.extension().is_some_and(|ending| ending == "gz") { "zcat" } else { "cat" };
            process::succeed(Command::new(shown).arg(&path), LIMIT)
        };
        let version = process::succeed(Command::new("dpkg-deb").arg("-f").arg(&file).arg("Version"), LIMIT)?;
        let changelog = read(format!("usr/share/doc/{package}/changelog.Debian.gz"))?;
        let newest = changelog.lines().next().context("an empty changelog")?;
        ensure!(newest.starts_with(&format!("{package} ({version}) ")), "{newest}");
        let copyright = read(format!("usr/share/doc/{package}/copyright"))?;
        ensure!(copyright.contains("License: Apache-2.0") && copyright.contains("  tokio v"), "{copyright}");
        let notices = read(format!("usr/share/doc/{package}/third-party.gz"))?;
        ensure!(notices.contains("Permission is hereby granted") && notices.contains("tokio v"), "{package}");
        let page = read(format!("usr/share/man/man{section}/{package}.{section}.gz"))?;
        ensure!(page.contains(".SH SYNOPSIS"), "{page}");
    }
    Ok(())
}

#[test]
fn packages_are_removed_and_purged_cleanly() -> Result<()> {
    let fleet = Fleet::up("package", 1)?;
    let host = fleet.lab.host("h1")?;
    fleet.enrol(host, &[])?;
    let exists = |path: &str| host.root().join(path).exists();

    // Removing keeps the identity; installing again needs no token.
    host.run(&["apt-get", "remove", "--yes", "fleetward-agent"])?;
    ensure!(host.exec(&["pgrep", "-x", "fleetward-agent"])?.text().is_empty(), "the agent still runs");
    ensure!(!exists("usr/bin/fleetward-agent"));
    ensure!(exists("etc/fleetward/client_id") && exists("var/lib/fleetward-agent/key.pem"));
    host.install_deb(&built("fleetward-agent")?)?;
    fleet.wait_status("h1", "online", std::time::Duration::from_secs(20))?;
    let mode =
        host.run(&["stat", "-c", "%a", "/var/lib/fleetward-agent/key.pem", "/etc/fleetward/client_id"])?;
    ensure!(mode == "600\n644", "{mode}");

    host.run(&["apt-get", "purge", "--yes", "fleetward-agent"])?;
    ensure!(!exists("etc/fleetward") && !exists("var/lib/fleetward-agent"));
    ensure!(host.run(&["systemctl", "--failed", "--plain", "--no-legend"])?.is_empty());

    let controller = fleet.lab.controller();
    controller.run(&["bash", "-n", "/usr/share/bash-completion/completions/fleetward"])?;
    let owner = controller.run(&["stat", "-c", "%U %a", "/var/lib/fleetward"])?;
    ensure!(owner == "fleetward 700", "{owner}");
    controller.run(&["apt-get", "purge", "--yes", "fleetward-controller"])?;
    let left = |path: &str| controller.root().join(path).exists();
    ensure!(!left("var/lib/fleetward") && !left("etc/fleetward"));
    Ok(())
}

/// The agent listens on nothing and its program has no library but libc.
#[test]
fn the_agent_listens_on_nothing() -> Result<()> {
    let fleet = Fleet::up("listen", 1)?;
    let host = fleet.lab.host("h1")?;
    fleet.enrol(host, &[])?;
    let tcp = host.run(&["ss", "-Hltnp"])?;
    ensure!(!tcp.contains("fleetward"), "{tcp}");
    // Its one UDP socket talks to the controller; nothing from elsewhere gets an answer or a log line.
    let libraries = host.run(&["ldd", "/usr/bin/fleetward-agent"])?;
    let foreign: Vec<&str> = libraries
        .lines()
        .filter(|line| !["linux-vdso", "libc.so", "libm.so", "ld-linux"].iter().any(|own| line.contains(own)))
        .collect();
    ensure!(foreign.is_empty(), "{foreign:?}");
    Ok(())
}
