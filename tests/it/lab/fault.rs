//! Links that break, and hosts that are not there.

use std::time::Duration;

use anyhow::{Result, ensure};

use xtask::fleet::Fleet;

const MARK: &str = "#!/bin/bash
echo start >> /var/tmp/mark.starts
echo \"marked $(uname -n)\"
";
const SLOW: &str = "#!/bin/bash
echo start >> /var/tmp/slow.starts
for line in $(seq 2000); do echo \"line $line\"; done
echo 'at the gate'
read -r line < /run/gate
for line in $(seq 2000); do echo \"again $line\"; done
";

#[test]
fn a_host_that_is_cut_off_is_offline_within_ten_seconds_and_catches_up() -> Result<()> {
    let fleet = Fleet::up("cut", 2)?;
    for host in fleet.lab.hosts() {
        fleet.enrol(host, &["prod"])?;
    }
    fleet.publish(&[("mark", MARK), ("slow", SLOW)])?;
    let host = fleet.lab.host("h2")?;

    // A run in progress when the link breaks.
    host.run(&["mkfifo", "-m", "600", "/run/gate"])?;
    let slow = fleet.start(&["run", "slow", "--on", "h2", "--yes"])?;
    slow.wait_for("at the gate")?;
    host.cut()?;
    // One second more than promised, for the CLI that asks.
    let took = fleet.wait_status("h2", "offline", Duration::from_secs(11))?;
    ensure!(took > Duration::from_secs(1), "offline at once is not silence but something else");
    host.run(&["sh", "-c", "echo go > /run/gate"])?;

    // A run that is asked for while the host is away.
    let mark = fleet.start(&["run", "mark", "--on", "all", "--yes"])?;
    mark.wait_for("marked h1")?;
    ensure!(!host.root().join("var/tmp/mark.starts").exists());

    host.heal()?;
    fleet.wait_status("h2", "online", Duration::from_secs(40))?;
    let (code, output) = mark.finish()?;
    ensure!(code == Some(0) && output.contains("marked h2"), "{output}");
    let (code, output) = slow.finish()?;
    ensure!(code == Some(0), "{output}");
    let lines = output.lines().filter(|line| line.contains("line ") || line.contains("again ")).count();
    ensure!(lines == 4000, "{lines} of 4000 lines arrived");
    for (script, expected) in [("mark", "start\n"), ("slow", "start\n")] {
        let starts = std::fs::read_to_string(host.root().join(format!("var/tmp/{script}.starts")))?;
        ensure!(starts == expected, "{script} started more than once: {starts}");
    }
    Ok(())
}

#[test]
fn a_run_whose_host_loses_power_is_lost_and_never_repeated() -> Result<()> {
    let fleet = Fleet::up("power", 1)?;
    let host = fleet.lab.host("h1")?;
    fleet.enrol(host, &[])?;
    fleet.publish(&[("slow", SLOW)])?;
    host.run(&["mkfifo", "-m", "600", "/run/gate"])?;
    let slow = fleet.start(&["run", "slow", "--on", "h1", "--yes"])?;
    slow.wait_for("at the gate")?;
    host.cut_power()?;
    fleet.wait_status("h1", "offline", Duration::from_secs(11))?;
    host.start()?;
    host.wait_running(Duration::from_secs(60))?;
    fleet.wait_status("h1", "online", Duration::from_secs(40))?;
    let (code, output) = slow.finish()?;
    ensure!(code == Some(1), "{output}");
    ensure!(output.contains("line 2000") && output.contains("lost"), "{output}");
    let starts = std::fs::read_to_string(host.root().join("var/tmp/slow.starts"))?;
    ensure!(starts == "start\n", "{starts}");
    Ok(())
}
