//! What the packages leave on a host, and what they take away again.

use anyhow::{Result, ensure};

use xtask::fleet::Fleet;
use xtask::package::built;

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
