//! One trivial script on every host, from the start of the operator's program to its end.

use std::fs;
use std::process::Command;
use std::time::Duration;

use crate::fleet::Fleet;
use crate::process;
use anyhow::{Context as _, Result, ensure};

use super::median;
use super::report::{Goal, Report};
use super::ssh::Ssh;

/// Times a command that many times, by one shell's clock, and tells each time in microseconds with its exit status.
const STOPWATCH: &str = r#"
rounds=$1; shift
for ((round = 0; round < rounds; round++)); do
    start=${EPOCHREALTIME/[.,]/}
    "$@" > /tmp/fleetward-bench.out 2>&1
    code=$?
    echo $((${EPOCHREALTIME/[.,]/} - start)) $code
done
"#;
/// All hosts at once, each by its own ssh.
const SSH: &str = r#"
for host in $HOSTS; do ssh -F "$CONFIG" "$host" 'echo ok' & pids="$pids $!"; done
for pid in $pids; do wait $pid || exit 1; done
"#;

pub(super) fn measure(fleet: &Fleet, rounds: usize, report: &mut Report) -> Result<()> {
    let hosts = fleet.lab.hosts();
    let ssh = Ssh::new(fleet, hosts)?;
    let names: Vec<&str> = hosts.iter().map(crate::lab::Host::name).collect();
    let inventory = ssh.directory().join("hosts.ini");
    let lines: String = names.iter().map(|name| format!("{name}\n")).collect();
    fs::write(
        &inventory,
        format!("[all:vars]\nansible_python_interpreter=/usr/bin/python3\n[all]\n{lines}"),
    )?;

    let time = |what: &str, rounds: usize, mut command: Command| -> Result<f64> {
        let text =
            process::succeed(&mut command, Duration::from_secs(600)).with_context(|| what.to_owned())?;
        let mut times = Vec::new();
        for line in text.lines() {
            let (time, code) = line.split_once(' ').with_context(|| format!("{what} printed {line}"))?;
            let said = fs::read_to_string("/tmp/fleetward-bench.out").unwrap_or_default();
            ensure!(code == "0", "{what} failed with {code}: {said}");
            times.push(time.parse::<f64>()? / 1e6);
        }
        ensure!(times.len() == rounds, "{what} was timed {} times instead of {rounds}", times.len());
        let middle = median(&mut times);
        println!("  {what}: {middle:.3} s (from {:.3} to {:.3})", times[0], times[times.len() - 1]);
        Ok(middle)
    };
    let stopwatch = |rounds: usize, program: &str| {
        let mut command = fleet.lab.operator_command("bash");
        command.args(["-c", STOPWATCH, "stopwatch", &rounds.to_string(), program]);
        command.env("XDG_CONFIG_HOME", fleet.config()).env("HOSTS", names.join(" "));
        command.env("ANSIBLE_PIPELINING", "True").env("ANSIBLE_FORKS", names.len().to_string());
        command.env("ANSIBLE_HOST_KEY_CHECKING", "False").env("ANSIBLE_HOME", ssh.directory());
        command
    };

    let mut fleetward = stopwatch(rounds, &fleet.program().to_string_lossy());
    let concurrency = names.len().to_string();
    fleetward.args(["run", "trivial", "--on", "all", "--concurrency", &concurrency, "--yes"]);
    let fleetward = time("fleetward run", rounds, fleetward)?;

    let mut warm_up = stopwatch(1, "bash");
    warm_up.args(["-c", SSH]).env("CONFIG", ssh.warm());
    time("ssh, opening its master connections", 1, warm_up)?;
    let mut command = stopwatch(rounds, "bash");
    command.args(["-c", SSH]).env("CONFIG", ssh.warm());
    let ssh_warm = time("ssh with warm master connections", rounds, command)?;
    let mut command = stopwatch(rounds.min(5), "bash");
    command.args(["-c", SSH]).env("CONFIG", ssh.cold());
    let ssh_cold = time("ssh with fresh connections", rounds.min(5), command)?;
    let mut command = stopwatch(3, "ansible");
    command.arg("all").arg("-i").arg(&inventory).args(["-m", "shell", "-a", "echo ok", "--ssh-common-args"]);
    command.arg(format!("-F {}", ssh.cold().display()));
    let ansible = time("ansible -m shell, pipelining", 3, command)?;
    report.section(&format!("One trivial script on {} hosts, start of the program to its end", names.len()));
    report.row("fleetward run, cold start", fleetward, "s", Goal::None);
    report.row("ansible all -m shell, pipelining, a fork per host", ansible, "s", Goal::None);
    report.row("ssh, a fresh connection per host", ssh_cold, "s", Goal::None);
    report.row("ssh, warm ControlMaster", ssh_warm, "s", Goal::None);
    report.row("times faster than ansible", ansible / fleetward, "×", Goal::AtLeast(20.0));
    report.row("times faster than warm ssh", ssh_warm / fleetward, "×", Goal::None);
    Ok(())
}
