//! What a user does by hand, from the packages to the results: on five hosts, with the controller on another.

use std::time::Duration;

use anyhow::{Result, ensure};

use super::{asked, kinds, sites};
use xtask::fleet::Fleet;
use xtask::package::built;

const HELLO: &str = "#!/bin/bash
echo start >> /var/tmp/hello.starts
echo \"hello from $(uname -n) with $*\"
echo 'to standard error' >&2
";
const FAILS: &str = "#!/bin/bash
echo 'about to fail'
exit 3
";
/// Waits for a line in a pipe: for tests that have to do something while a script runs.
const GATE: &str = "#!/bin/bash
echo start >> /var/tmp/gate.starts
echo 'at the gate'
read -r line < /run/gate
echo \"let through: $line\"
";
#[test]
fn a_script_runs_on_a_fleet_of_real_hosts() -> Result<()> {
    let fleet = Fleet::up("walk", 5)?;
    let hosts = fleet.lab.hosts();
    for (host, tags) in
        hosts.iter().zip([["prod", "web"], ["prod", "web"], ["prod", "db"], ["lab", "web"], ["lab", "db"]])
    {
        fleet.enrol(host, &tags)?;
    }
    fleet.publish(&[("hello", HELLO), ("fails", FAILS), ("gate", GATE)])?;
    look(&fleet)?;
    run(&fleet)?;
    survive_reboot(&fleet)?;
    plan_and_submit(&fleet)?;
    kinds::walk(&fleet)?;
    sites::walk(&fleet)?;
    asked::walk(&fleet)?;
    upgrade_in_mid_script(&fleet)
}

fn look(fleet: &Fleet) -> Result<()> {
    let names = |value: &serde_json::Value| -> Vec<String> {
        value
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|host| host["name"].as_str().map(Into::into))
            .collect()
    };
    let all = ["host", "list", "--status", "online", "--sort", "last-seen"];
    ensure!(names(&fleet.json(&all)?).len() == 5, "not all hosts are online");
    ensure!(names(&fleet.json(&["host", "list", "--tag", "prod"])?) == ["h1", "h2", "h3"]);
    let shown = fleet.succeed(&["host", "show", "h1"])?;
    ensure!(shown.contains("Debian") && shown.contains("10.77.1.2"), "facts are missing: {shown}");
    let status = fleet.succeed(&["repo", "status"])?;
    ensure!(status.contains("main"), "{status}");
    let scripts = fleet.succeed(&["script", "list"])?;
    ensure!(scripts.contains("hello") && scripts.contains("gate"), "{scripts}");
    let script = fleet.succeed(&["script", "show", "hello"])?;
    ensure!(script.contains("hello from"), "{script}");
    Ok(())
}

fn run(fleet: &Fleet) -> Result<()> {
    let arguments = [
        "run",
        "hello",
        "--on",
        "tag:prod & !h3",
        "--concurrency",
        "20",
        "--batch",
        "25%",
        "--max-failures",
        "3",
        "--timeout",
        "5m",
        "--yes",
        "--",
        "--dry-run",
    ];
    let said = fleet.succeed(&arguments)?;
    for host in ["h1", "h2"] {
        ensure!(said.contains(&format!("hello from {host} with --dry-run")), "{said}");
    }
    ensure!(!said.contains("hello from h3"), "{said}");

    let failed = fleet.exec(&["run", "fails", "--on", "all", "--yes"])?;
    ensure!(failed.status.code() == Some(1), "a failed run has to give 1: {failed:?}");
    let nowhere = fleet.exec(&["run", "hello", "--on", "tag:nowhere", "--yes"])?;
    ensure!(nowhere.status.code() == Some(2), "{nowhere:?}");
    ensure!(
        nowhere.error_text().contains("no host") || nowhere.error_text().contains("matches"),
        "{nowhere:?}"
    );

    let operations = fleet.json(&["op", "list"])?;
    ensure!(operations.as_array().is_some_and(|all| all.len() == 2), "{operations}");
    let shown = fleet.succeed(&["op", "show", "OP-1"])?;
    ensure!(shown.contains("h1") && shown.contains("h2"), "{shown}");
    let logs = fleet.succeed(&["op", "logs", "OP-1", "--host", "h1"])?;
    ensure!(logs.contains("hello from h1") && !logs.contains("hello from h2"), "{logs}");
    ensure!(starts(fleet, "h1", "hello")? == 1 && starts(fleet, "h3", "hello")? == 0);
    Ok(())
}

fn survive_reboot(fleet: &Fleet) -> Result<()> {
    let host = fleet.lab.host("h4")?;
    host.reboot()?;
    fleet.wait_status("h4", "online", Duration::from_secs(30))?;
    fleet.succeed(&["run", "hello", "--on", "h4", "--yes"])?;
    ensure!(starts(fleet, "h4", "hello")? == 1);
    Ok(())
}

/// What was looked at is what is started, however often it is submitted.
fn plan_and_submit(fleet: &Fleet) -> Result<()> {
    let directory = tempfile::tempdir()?;
    let file = directory.path().join("plan.json");
    let file = file.to_string_lossy();
    let before = starts(fleet, "h2", "hello")?;
    let shown = fleet.succeed(&["run", "hello", "--on", "h1 | h2", "--plan", &file])?;
    ensure!(shown.contains("h1 h2") && shown.contains("hello"), "{shown}");
    ensure!(starts(fleet, "h2", "hello")? == before, "a plan started something");
    for _ in 0..2 {
        let said = fleet.succeed(&["submit", &file, "--yes"])?;
        ensure!(said.contains("hello from h2"), "{said}");
    }
    ensure!(starts(fleet, "h2", "hello")? == before + 1);
    Ok(())
}

/// The script outlives the agent that started it, and its result comes through the new one.
fn upgrade_in_mid_script(fleet: &Fleet) -> Result<()> {
    let host = fleet.lab.host("h5")?;
    host.run(&["mkfifo", "-m", "600", "/run/gate"])?;
    let run = fleet.start(&["run", "gate", "--on", "h5", "--yes"])?;
    run.wait_for("at the gate")?;
    let before = main_pid(fleet, "h5")?;

    let directory = tempfile::tempdir()?;
    let newer = xtask::package::repack(&built("fleetward-agent")?, "9.9.9-1", directory.path())?;
    host.install_deb(&newer)?;
    let installed = host.run(&["dpkg-query", "-W", "-f", "${Version}", "fleetward-agent"])?;
    ensure!(installed == "9.9.9-1", "{installed}");
    ensure!(main_pid(fleet, "h5")? != before, "the upgrade did not restart the agent");
    fleet.wait_status("h5", "online", Duration::from_secs(20))?;

    host.run(&["sh", "-c", "echo upgraded > /run/gate"])?;
    let (code, output) = run.finish()?;
    ensure!(code == Some(0), "{output}");
    ensure!(output.contains("let through: upgraded"), "{output}");
    ensure!(starts(fleet, "h5", "gate")? == 1);
    Ok(())
}

fn main_pid(fleet: &Fleet, host: &str) -> Result<String> {
    fleet.lab.host(host)?.run(&["systemctl", "show", "-P", "MainPID", "fleetward-agent"])
}

/// How often a script was started on a host, by its own count.
fn starts(fleet: &Fleet, host: &str, script: &str) -> Result<usize> {
    let counted = fleet.lab.host(host)?.exec(&["cat", &format!("/var/tmp/{script}.starts")])?;
    Ok(counted.text().lines().count())
}
