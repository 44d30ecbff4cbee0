//! 100 MiB of output from one host: whole, and without filling anybody's memory.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::fleet::Fleet;
use crate::process;
use anyhow::{Context as _, Result, ensure};

use super::report::{Goal, Report};
use super::{forget_peak, peak};

pub(super) const SCRIPT: &str = "#!/bin/bash\nexec cat /var/tmp/blob\n";
const SIZE_MIB: f64 = 100.0;
const LIMIT: Duration = Duration::from_secs(300);

pub(super) fn measure(fleet: &Fleet, report: &mut Report) -> Result<()> {
    let host = fleet.lab.host("h1")?;
    let controller = fleet.lab.controller();
    host.run(&["sh", "-c", "head -c 104857600 /dev/urandom > /var/tmp/blob"])?;
    let written = host.run(&["sha256sum", "/var/tmp/blob"])?;
    forget_peak(host, "fleetward-agent")?;
    forget_peak(controller, "fleetward-controller")?;

    let start = Instant::now();
    let mut run = fleet.cli(&["--quiet", "run", "blob", "--on", "h1", "--yes", "--detach"]);
    process::succeed(&mut run, LIMIT)?;
    let newest =
        || -> Result<serde_json::Value> { Ok(fleet.json(&["op", "list", "--limit", "1"])?[0].clone()) };
    let operation = process::until("the run to end", LIMIT, || {
        let operation = newest()?;
        Ok(operation["ended_at"].is_string().then_some(operation))
    })?;
    let took = start.elapsed().as_secs_f64();
    ensure!(operation["status"] == "success", "the run ended as {operation}");
    let number = operation["number"].as_str().unwrap_or_default().to_owned();

    let agent = peak(host, "fleetward-agent")?;
    let centre = peak(controller, "fleetward-controller")?;
    let mut logs = fleet.cli(&["op", "logs", &number, "--host", "h1", "--stream", "stdout", "--raw"]);
    let mut logs = logs.stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
    let output = logs.stdout.take().context("op logs has no output")?;
    let arrived = process::run_with_input(&mut Command::new("sha256sum"), output, LIMIT)?.text();
    ensure!(logs.wait()?.success(), "op logs --raw failed");
    let digest = |line: &str| line.split(' ').next().unwrap_or_default().to_owned();
    let same = digest(&written) == digest(&arrived);
    let read = peak(controller, "fleetward-controller")?;

    report.section("100 MiB of random output from one host");
    report.row(
        "bytes that arrived are those written (1 is yes)",
        f64::from(u8::from(same)),
        "",
        Goal::AtLeast(1.0),
    );
    report.row("script's start to the store's commit", took, "s", Goal::None);
    report.row("rate", SIZE_MIB / took, "MiB/s", Goal::None);
    report.row("agent's peak resident memory", agent, "MiB", Goal::Below(100.0));
    report.row("controller's peak resident memory, receiving", centre, "MiB", Goal::Below(100.0));
    report.row("controller's peak resident memory, giving it out", read, "MiB", Goal::Below(100.0));
    Ok(())
}
