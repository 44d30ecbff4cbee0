//! What a real host tells of itself when it is asked: the same as its own programs do.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use xtask::fleet::Fleet;
use xtask::lab::Host;
use xtask::process;

/// All of it, on `h3`, where nginx runs; `h1` has none.
pub(super) fn walk(fleet: &Fleet) -> Result<()> {
    let host = fleet.lab.host("h3")?;
    sockets(fleet, host)?;
    mounts(fleet, host)?;
    logins(fleet, host)?;
    status(fleet, host)
}

fn sockets(fleet: &Fleet, host: &Host) -> Result<()> {
    let ask = ["ask", "sockets", "protocol=tcp", "port=80", "--on", "h1 | h3"];
    let pid = number(host, &["systemctl", "show", "-P", "MainPID", "nginx"])?;
    let processes = number(host, &["pgrep", "--count", "-x", "nginx"])?;
    let told = fleet.items(&ask)?;
    let mut addresses: Vec<&str> = told.iter().filter_map(|item| item["address"].as_str()).collect();
    addresses.sort_unstable();
    ensure!(addresses == ["0.0.0.0", "::"], "{told:?}");
    for item in &told {
        ensure!(item["process"] == "nginx" && item["pid"] == pid, "not {pid}: {item}");
        ensure!(item["unit"] == "nginx.service" && item["user"] == "root", "{item}");
        ensure!(item["processes"] == processes, "not {processes}: {item}");
    }
    let shown = fleet.succeed(&ask)?;
    ensure!(shown.contains("nginx.service") && !shown.lines().any(|line| line.starts_with("h1 ")), "{shown}");
    host.run(&["systemctl", "stop", "nginx"])?;
    let told = fleet.items(&ask)?;
    ensure!(told.is_empty(), "nobody listens there: {told:?}");
    Ok(())
}

fn mounts(fleet: &Fleet, host: &Host) -> Result<()> {
    host.run(&["mkdir", "/srv/half"])?;
    host.run(&["mount", "-t", "tmpfs", "-o", "size=8m,noexec", "half", "/srv/half"])?;
    host.run(&["dd", "if=/dev/zero", "of=/srv/half/file", "bs=1M", "count=4"])?;
    let told = fleet.items(&["ask", "mounts", "--on", "h3"])?;
    let at = |mount: &str| {
        told.iter().find(|item| item["mount"] == mount).with_context(|| format!("{mount}: {told:?}"))
    };
    let half = at("/srv/half")?;
    for (field, value) in [
        ("file_system", json!("tmpfs")),
        ("source", json!("half")),
        ("size", json!(8 << 20)),
        ("used", json!(4 << 20)),
        ("available", json!(4 << 20)),
        ("percent", json!(50)),
        ("read_only", json!(false)),
    ] {
        ensure!(half[field] == value, "{field}: {half}");
    }
    ensure!(half["options"].as_str().is_some_and(|options| options.contains("noexec")), "{half}");

    let root = at("/")?;
    let says = host.run(&["df", "--block-size=1", "--output=fstype,size,used", "/"])?;
    let mut says = says.lines().last().unwrap_or_default().split_whitespace();
    ensure!(root["file_system"] == says.next().unwrap_or_default(), "{root}");
    let mut says = says.map(str::parse::<f64>);
    let mut number = || says.next().context("df says less")?.map_err(anyhow::Error::from);
    let (size, used) = (number()?, number()?);
    ensure!(root["size"].as_f64() == Some(size), "not {size}: {root}");
    // This machine's disk has others who write to it.
    let off = root["used"].as_f64().map_or(f64::MAX, |told| (told - used).abs());
    ensure!(off < size / 20.0, "not {used}: {root}");
    ensure!(fleet.succeed(&["ask", "mounts", "--on", "h3"])?.contains("/srv/half"));
    host.run(&["umount", "/srv/half"]).map(drop)
}

fn logins(fleet: &Fleet, host: &Host) -> Result<()> {
    host.run(&["useradd", "--create-home", "--shell", "/bin/bash", "--groups", "sudo", "deploy"])?;
    host.run(&["useradd", "--shell", "/usr/sbin/nologin", "robot"])?;
    let users = |password: &str| -> Result<Vec<Value>> {
        let told = fleet.items(&["ask", "logins", "parts=user", "--on", "h3"])?;
        let named = |name: &str| told.iter().find(|item| item["user"] == name);
        let deploy = named("deploy").with_context(|| format!("{told:?}"))?;
        ensure!(deploy["password"] == password, "{deploy}");
        ensure!(deploy["shell"] == "/bin/bash" && deploy["home"] == "/home/deploy", "{deploy}");
        ensure!(deploy["uid"] == number(host, &["id", "-u", "deploy"])?, "{deploy}");
        let groups = deploy["groups"].as_array().context("groups")?;
        ensure!(groups.contains(&json!("deploy")) && groups.contains(&json!("sudo")), "{deploy}");
        ensure!(named("root").is_some() && named("robot").is_none(), "{told:?}");
        Ok(told)
    };
    users("locked")?;
    host.run(&["sh", "-c", "echo deploy:hunter2hunter2 | chpasswd"])?;
    let told = users("set")?;
    ensure!(!format!("{told:?}").contains("hunter2") && !format!("{told:?}").contains("$y$"), "{told:?}");

    let sessions = || fleet.items(&["ask", "logins", "parts=session", "--on", "h3"]);
    ensure!(sessions()?.iter().all(|item| item["user"] != "deploy"), "nobody has logged in");
    let mut shell = log_in(fleet, host)?;
    let told = sessions()?;
    let session = told.iter().find(|item| item["user"] == "deploy").with_context(|| format!("{told:?}"))?;
    ensure!(session["service"] == "sshd" && session["from"] == "10.77.0.1", "{session}");
    ensure!(session["since"].is_i64() && session["state"] == "active", "{session}");
    let leader = [
        "loginctl",
        "show-session",
        "--value",
        "--property=Leader",
        session["session"].as_str().unwrap_or_default(),
    ];
    ensure!(session["pid"] == number(host, &leader)?, "{session}");
    ensure!(fleet.succeed(&["ask", "logins", "--on", "h3"])?.contains("deploy"));
    // It ends when its input does.
    drop(shell.stdin.take());
    shell.wait()?;
    host.run(&["systemctl", "stop", "ssh"]).map(drop)
}

/// The user `deploy`, logged in from the operator's place.
fn log_in(fleet: &Fleet, host: &Host) -> Result<Child> {
    let directory = tempfile::tempdir()?;
    let key = directory.path().join("key");
    let mut keygen = Command::new("ssh-keygen");
    process::succeed(
        keygen.args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(&key),
        Duration::from_secs(20),
    )?;
    host.accept_ssh(&key.with_extension("pub"))?;
    let keys = ["-D", "-o", "deploy", "/root/.ssh/authorized_keys", "/home/deploy/.ssh/authorized_keys"];
    host.run(&[&["install"], &keys[..]].concat())?;
    let mut ssh = fleet.lab.operator_command("ssh");
    ssh.arg("-i").arg(&key).args(["-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null"]);
    ssh.args([
        "-o",
        "ConnectTimeout=20",
        "-o",
        "LogLevel=ERROR",
        "-l",
        "deploy",
        host.address(),
        "echo in; cat",
    ]);
    let mut shell = ssh.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    let mut line = String::new();
    BufReader::new(shell.stdout.take().context("its output")?).read_line(&mut line)?;
    ensure!(line == "in\n", "{line:?} instead of a login");
    Ok(shell)
}

fn status(fleet: &Fleet, host: &Host) -> Result<()> {
    let ask = || -> Result<Value> {
        let mut told = fleet.items(&["ask", "host-status", "--on", "h3"])?;
        ensure!(told.len() == 1, "{told:?}");
        told.pop().context("one")
    };
    let uptime = || -> Result<f64> {
        let text = host.run(&["cat", "/proc/uptime"])?;
        Ok(text.split('.').next().unwrap_or_default().parse()?)
    };
    let before = uptime()?;
    let told = ask()?;
    let after = uptime()?;
    let took = told["uptime_s"].as_f64().unwrap_or_default();
    ensure!((before..=after).contains(&took), "not from {before} to {after}: {told}");
    let now: f64 = host.run(&["date", "+%s"])?.parse()?;
    let since = told["up_since"].as_f64().unwrap_or_default() / 1000.0;
    ensure!((now - after - since).abs() <= 2.0 + after - before, "up since {since}, and it is {now}: {told}");

    let own_name = "sed -n 's/^PRETTY_NAME=\"\\(.*\\)\"/\\1/p' /etc/os-release";
    for (field, says) in [
        ("hostname", vec!["uname", "-n"]),
        ("kernel", vec!["uname", "-r"]),
        ("os_name", vec!["sh", "-c", own_name]),
        ("virtualisation", vec!["systemd-detect-virt"]),
        ("cpus", vec!["nproc"]),
        ("system", vec!["systemctl", "is-system-running"]),
    ] {
        // A system with units that failed says so by its exit code, too.
        let says = host.exec(&says)?.text();
        let told = told[field].as_str().map_or_else(|| told[field].to_string(), str::to_owned);
        ensure!(told == says, "{field} is {says:?}, and {told:?} is told");
    }
    ensure!(told["reboot_required"] == false && told["failed_units"] == failed(host)?, "{told}");
    let installed = host.run(&["fleetward-agent", "--version"])?;
    ensure!(
        told["agent_version"].as_str().is_some_and(|told| installed.contains(told)),
        "not {installed}: {told}"
    );
    ensure!(told["agent_controller"].as_str().is_some_and(|told| told.contains("ctl.example.com")), "{told}");
    ensure!(told["agent_connected_since"].is_i64() && told["agent_free"].as_u64() > Some(1 << 20), "{told}");

    host.run(&["sh", "-c", "echo linux-image > /run/reboot-required.pkgs && touch /run/reboot-required"])?;
    host.exec(&["systemd-run", "--quiet", "--wait", "--unit=walk-fails", "false"])?;
    let told = ask()?;
    ensure!(told["reboot_required"] == true && told["reboot_packages"] == json!(["linux-image"]), "{told}");
    ensure!(told["system"] == "degraded" && told["failed_units"] == failed(host)?, "{told}");
    ensure!(told["failed_units"].as_u64() > Some(0), "{told}");
    host.run(&["systemctl", "reset-failed", "walk-fails"])?;
    host.run(&["rm", "/run/reboot-required", "/run/reboot-required.pkgs"]).map(drop)
}

/// The number that a command on the host prints.
fn number(host: &Host, argv: &[&str]) -> Result<u64> {
    let printed = host.run(argv)?;
    printed.parse().with_context(|| format!("{argv:?} printed {printed:?}"))
}

/// How many units failed, by systemd's own list.
fn failed(host: &Host) -> Result<usize> {
    Ok(host.run(&["systemctl", "list-units", "--failed", "--plain", "--no-legend"])?.lines().count())
}
