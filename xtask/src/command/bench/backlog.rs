//! An agent that comes back with a thousand finished runs that nobody has acknowledged.
//!
//! They are made as a long outage makes them: the host takes them in, loses its controller, and carries them out.

use std::time::Duration;

use crate::fleet::Fleet;
use crate::lab::Host;
use crate::process;
use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::peak;
use super::report::{Goal, Report};

/// Ends once the controller is away.
pub(super) const SCRIPT: &str =
    "#!/bin/bash\nuntil [[ -e /run/fleetward-bench ]]; do sleep 0.2; done\necho done\n";
const RUNS: usize = 1000;
const AGENT: &str = "fleetward-agent";
const CONTROLLER: &str = "fleetward-controller";
const LIMIT: Duration = Duration::from_secs(300);
const ASK: &str = r#"
for ((run = 0; run < $1; run++)); do "$0" --quiet run outage --on h1 --yes --detach > /dev/null || exit 1; done
"#;
const COUNT: &str = "ls /var/lib/fleetward-agent/runs/*/result 2>/dev/null | wc -l";
const HELD: &str = "ls /var/lib/fleetward-agent/runs | wc -l";

pub(super) fn measure(fleet: &Fleet, report: &mut Report) -> Result<()> {
    let host = fleet.lab.host("h1")?;
    let controller = fleet.lab.controller();
    ensure!(count(host, HELD)? == 0, "the host still holds runs of before");
    let mut bash = fleet.lab.operator_command("bash");
    bash.args(["-c", ASK]).arg(fleet.program()).arg(RUNS.to_string());
    bash.env("XDG_CONFIG_HOME", fleet.config());
    process::succeed(&mut bash, LIMIT)?;
    process::until("the host to take all runs in", LIMIT, || {
        let operations = fleet.json(&["op", "list", "--limit", "1000"])?;
        let counts = operations
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|operation| operation["counts"].as_array());
        let on_the_way = |count: &Value| matches!(count["state"].as_str(), Some("queued" | "dispatched"));
        Ok((!counts.flatten().any(on_the_way)).then_some(()))
    })?;
    controller.run(&["systemctl", "stop", CONTROLLER])?;
    host.run(&["touch", "/run/fleetward-bench"])?;
    process::until("all runs to end", LIMIT, || Ok((count(host, COUNT)? == RUNS).then_some(())))?;
    host.run(&["systemctl", "stop", AGENT])?;
    controller.run(&["systemctl", "start", CONTROLLER])?;
    process::until("the controller to answer", LIMIT, || fleet.json(&["host", "list"]).map(Some))?;

    host.run(&["systemctl", "start", AGENT])?;
    process::until("all results to arrive", LIMIT, || {
        let unfinished = fleet.json(&["op", "list", "--status", "running", "--limit", "1"])?;
        Ok(unfinished.as_array().is_some_and(Vec::is_empty).then_some(()))
    })?;
    let ended = fleet.json(&["op", "list", "--status", "success", "--limit", "1000"])?;
    ensure!(ended.as_array().is_some_and(|ended| ended.len() >= RUNS), "not all runs succeeded");
    let start: f64 =
        host.run(&["systemctl", "show", "-P", "ExecMainStartTimestampMonotonic", AGENT])?.parse()?;
    let start = start / 1e6;
    let connected = last_event(host, AGENT, " connected ")? - start;
    let online = last_event(controller, CONTROLLER, "link.established")? - start;
    let delivered = last_event(controller, CONTROLLER, "operation.moved")? - start;
    let peak = peak(host, AGENT)?;
    println!(
        "  connected after {connected:.3} s, seen after {online:.3} s, all delivered after {delivered:.3} s"
    );
    // Whoever measures next finds the host as it was.
    process::until("the host to forget them", LIMIT, || Ok((count(host, HELD)? == 0).then_some(())))?;

    report.section("An agent that starts with 1,000 finished runs that are not acknowledged");
    report.row("start of its process to the controller's welcome", connected, "s", Goal::Below(1.0));
    report.row("start of its process to being seen online", online, "s", Goal::Below(1.0));
    report.row("start of its process to the last result in the store", delivered, "s", Goal::None);
    report.row("peak resident memory, everything delivered", peak, "MiB", Goal::Below(15.0));
    Ok(())
}

fn count(host: &Host, script: &str) -> Result<usize> {
    Ok(host.run(&["sh", "-c", script])?.trim().parse()?)
}

/// When a unit logged that last, in seconds of the clock that hosts and controller share.
fn last_event(host: &Host, unit: &str, event: &str) -> Result<f64> {
    let journal = host.run(&["journalctl", "--quiet", "--boot", "-o", "short-monotonic", "-u", unit])?;
    let line = journal.lines().rev().find(|line| line.contains(event));
    let line = line.with_context(|| format!("{unit} on {} did not log {event}", host.name()))?;
    let stamp = line.strip_prefix('[').and_then(|rest| rest.split(']').next());
    Ok(stamp.with_context(|| format!("no time in {line}"))?.trim().parse()?)
}
