//! Typed kinds and queries on hosts whose systemd, journal, dpkg and boot are real ones.

use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::Value;

use xtask::fleet::Fleet;

/// A unit that counts its starts.
const UNIT: &str = "[Service]
ExecStartPre=/bin/sh -c 'echo start >> /var/tmp/walk.starts'
ExecStart=/bin/sleep infinity
[Install]
WantedBy=multi-user.target
";
const GOOD: &str = "[Service]
ExecStart=/bin/sh -c 'echo \"good: up\"; exec sleep infinity'
";
/// What it does is known a moment after it was started.
const DIES: &str = "[Service]
ExecStart=/bin/sh -c 'echo \"dies: no luck\"; sleep 1; exit 3'
";

/// All of it, on `h3`; `h1` and `h2` stay as they are, but that `h2` is rebooted.
pub(super) fn walk(fleet: &Fleet) -> Result<()> {
    units(fleet)?;
    contents(fleet)?;
    policy(fleet)?;
    files(fleet)?;
    packages(fleet)?;
    reboot(fleet)
}

fn units(fleet: &Fleet) -> Result<()> {
    let host = fleet.lab.host("h3")?;
    std::fs::write(host.root().join("etc/systemd/system/walk.service"), UNIT)?;
    let start = ["unit", "start", "walk", "--daemon-reload", "--settle", "0", "--on", "h3", "--yes"];
    for changed in [true, false] {
        fleet.succeed(&start)?;
        let report = last_report(fleet)?;
        ensure!(report["changed"] == changed && report["after"]["active"] == "active", "{report}");
    }
    let starts = host.run(&["cat", "/var/tmp/walk.starts"])?;
    ensure!(starts == "start", "a unit that was up was started again: {starts}");

    fleet.succeed(&["unit", "enable", "walk", "--on", "h3", "--yes"])?;
    ensure!(host.run(&["systemctl", "is-enabled", "walk.service"])? == "enabled");
    let listed = fleet.succeed(&["ask", "units", "pattern=walk", "--on", "h3 | h1"])?;
    ensure!(listed.contains("walk.service") && listed.contains("running"), "{listed}");
    // One item is shown with a value a line.
    let hosts: Vec<&str> = listed.lines().filter_map(|line| line.strip_prefix("host ")).collect();
    ensure!(hosts.iter().map(|host| host.trim()).eq(["h3"]), "{listed}");

    let refused = fleet.exec(&["unit", "stop", "fleetward-agent", "--on", "h3", "--yes"])?;
    ensure!(refused.status.code() == Some(1), "{refused:?}");
    ensure!(host.run(&["systemctl", "is-active", "fleetward-agent"])? == "active");
    fleet.succeed(&["unit", "restart", "fleetward-agent", "--on", "h3", "--yes"])?;
    fleet.wait_status("h3", "online", Duration::from_secs(30))?;
    fleet.succeed(&["unit", "daemon-reload", "--on", "h3", "--yes"])?;
    Ok(())
}

/// A unit's file is written, watched, taken back when the unit dies with it, and looked at.
fn contents(fleet: &Fleet) -> Result<()> {
    let host = fleet.lab.host("h3")?;
    let directory = tempfile::tempdir()?;
    let write = |text: &str, more: &[&str]| -> Result<xtask::process::Finished> {
        let file = directory.path().join("app.service");
        std::fs::write(&file, text)?;
        let file = file.to_string_lossy();
        let command = ["unit", "write", "app", "--file", &file, "--then", "restart", "--on", "h3", "--yes"];
        fleet.exec(&[&command[..], more].concat())
    };
    let rehearsed = write(GOOD, &["--dry-run"])?;
    ensure!(
        rehearsed.text().contains("+ExecStart=") && rehearsed.text().contains("would restart app.service"),
        "{rehearsed:?}"
    );
    ensure!(
        host.exec(&["systemctl", "cat", "app.service"])?.status.code() != Some(0),
        "a dry run wrote a file"
    );
    let written = write(GOOD, &[])?;
    ensure!(written.status.code() == Some(0), "{written:?}");
    let pid = || host.run(&["systemctl", "show", "-P", "MainPID", "app.service"]);
    let before = pid()?;
    ensure!(
        write(GOOD, &[])?.text().contains("unchanged") && pid()? == before,
        "what is as wanted is left alone"
    );

    let died = write(DIES, &[])?;
    ensure!(died.status.code() == Some(1), "{died:?}");
    ensure!(died.text().contains("did not stay up") && died.text().contains("dies: no luck"), "{died:?}");
    let report = last_report(fleet)?;
    ensure!(
        report["changed"] == false && report["unit"]["log"].to_string().contains("dies: no luck"),
        "{report}"
    );
    ensure!(host.run(&["cat", "/etc/systemd/system/app.service"])? == GOOD.trim_end());
    ensure!(host.run(&["systemctl", "is-active", "app.service"])? == "active");

    let refused = write("[Service]\nExecStart=/nonexistent/app\n", &[])?;
    ensure!(refused.status.code() == Some(1) && refused.text().contains("/nonexistent/app"), "{refused:?}");
    let limited =
        ["unit", "write", "app", "--drop-in", "limits", "--set", "Service.TasksMax=77", "--then", "restart"];
    fleet.succeed(&[&limited[..], &["--on", "h3", "--yes"]].concat())?;
    ensure!(host.run(&["systemctl", "show", "-P", "TasksMax", "app.service"])? == "77");

    let shown = fleet.succeed(&["unit", "show", "app", "--on", "h3"])?;
    ensure!(shown.contains("TasksMax=77") && shown.contains("limits.conf"), "{shown}");
    let logged = fleet.succeed(&["unit", "log", "app", "--on", "h3", "--lines", "200"])?;
    ensure!(logged.contains("good: up") && logged.contains("dies: no luck"), "{logged}");
    let timers = fleet.succeed(&["unit", "timers", "--on", "h3"])?;
    ensure!(timers.contains(".timer"), "{timers}");
    Ok(())
}

/// What the owner does not name is neither done nor shown.
fn policy(fleet: &Fleet) -> Result<()> {
    let host = fleet.lab.host("h3")?;
    let file = host.root().join("etc/fleetward/agent.toml");
    let before = std::fs::read_to_string(&file)?;
    let rules = "\n[policy.rules.unit]\nunits = [\"app\"]\n[policy.rules.units]\nunits = [\"app\"]\n";
    std::fs::write(&file, before.replace("\n[runs]", &format!("{rules}\n[runs]")))?;
    let refused = fleet.exec(&["unit", "stop", "walk", "--on", "h3", "--yes"])?;
    let said = format!("{}{}", refused.text(), refused.error_text());
    ensure!(
        refused.status.code() == Some(1)
            && said.contains("policy.rules.unit.units in /etc/fleetward/agent.toml, line "),
        "{said}"
    );
    let listed = fleet.succeed(&["unit", "list", "--on", "h3"])?;
    ensure!(listed.contains("app.service") && !listed.contains("walk.service"), "{listed}");
    std::fs::write(&file, before)?;
    Ok(())
}

fn files(fleet: &Fleet) -> Result<()> {
    let host = fleet.lab.host("h3")?;
    let directory = tempfile::tempdir()?;
    let local = directory.path().join("motd");
    let local = local.to_string_lossy();
    std::fs::write(&*local, "hello\n")?;
    let put = ["file", "put", &local, "h3:/srv/walk/motd", "--parents", "--mode", "0640", "--yes"];
    for changed in [true, false] {
        fleet.succeed(&put)?;
        ensure!(last_report(fleet)?["changed"] == changed);
    }
    ensure!(host.run(&["stat", "-c", "%a %s", "/srv/walk/motd"])? == "640 6");
    std::fs::write(&*local, "hello world\n")?;
    let rehearsed = fleet.succeed(&[&put[..], &["--dry-run"]].concat())?;
    ensure!(rehearsed.contains("-hello") && rehearsed.contains("+hello world"), "{rehearsed}");
    ensure!(fleet.succeed(&["file", "cat", "h3:/srv/walk/motd"])? == "hello");
    let listed = fleet.succeed(&["file", "ls", "h3:/srv/walk"])?;
    ensure!(listed.contains("motd"), "{listed}");
    let refused = fleet.exec(&["file", "put", &local, "h3:/etc/fleetward/agent.toml", "--yes"])?;
    ensure!(refused.status.code() == Some(1), "only the owner changes what the owner allows: {refused:?}");
    fleet.succeed(&["file", "rm", "h3:/srv/walk/motd", "--yes"])?;
    ensure!(host.exec(&["test", "-e", "/srv/walk/motd"])?.status.code() == Some(1));
    Ok(())
}

/// As far as a host without a network goes.
fn packages(fleet: &Fleet) -> Result<()> {
    let host = fleet.lab.host("h3")?;
    let listed = fleet.succeed(&["package", "list", "fleetward-*", "--on", "h3"])?;
    ensure!(listed.contains("fleetward-agent"), "{listed}");
    for changed in [true, false] {
        fleet.succeed(&["package", "hold", "fleetward-agent", "--on", "h3", "--yes"])?;
        ensure!(last_report(fleet)?["changed"] == changed);
    }
    ensure!(host.run(&["apt-mark", "showhold"])? == "fleetward-agent");
    fleet.succeed(&["package", "unhold", "fleetward-agent", "--on", "h3", "--yes"])?;
    let refused = fleet.exec(&["package", "remove", "fleetward-agent", "--on", "h3", "--yes"])?;
    ensure!(refused.status.code() == Some(1), "the agent would be gone: {refused:?}");
    Ok(())
}

/// The run ends when its host is in another boot, and says so.
fn reboot(fleet: &Fleet) -> Result<()> {
    let host = fleet.lab.host("h2")?;
    let started = || host.run(&["systemctl", "show", "-P", "UserspaceTimestampMonotonic"]);
    let (before, rehearsed) = (started()?, fleet.succeed(&["reboot", "--on", "h2", "--dry-run"])?);
    ensure!(rehearsed.contains("reboot") && started()? == before, "{rehearsed}");
    fleet.succeed(&["reboot", "--on", "h2", "--yes"])?;
    let report = last_report(fleet)?;
    ensure!(report["boot_before"] != report["boot_after"], "{report}");
    ensure!(started()? != before, "systemd was not started anew");
    Ok(())
}

/// What the run of the newest operation told.
pub(super) fn last_report(fleet: &Fleet) -> Result<Value> {
    let newest = fleet.json(&["op", "list", "--limit", "1"])?;
    let number = newest[0]["number"].as_str().unwrap_or_default();
    Ok(fleet.json(&["op", "show", number])?["runs"][0]["report"].clone())
}
