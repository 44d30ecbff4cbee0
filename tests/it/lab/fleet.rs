//! A fleet on lab hosts: the controller on `ctl`, an operator who is logged in, agents where a test wants them.

use std::io::{Seek as _, Write as _};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;
use xtask::lab::{Cgroups, Host, Lab, LabOptions, Lifetime};
use xtask::process::{self, Finished};

/// What one command of the operator may take.
const COMMAND: Duration = Duration::from_secs(120);
pub(super) const URL: &str = "https://ctl.example.com:7444";
const PASSWORD: &str = "correct horse battery staple";
const REPOSITORY: &str = "/srv/fleet";

/// A controller on a host of its own, and an operator who is logged in.
pub(super) struct Fleet {
    pub(super) lab: Lab,
    config: tempfile::TempDir,
}

impl Fleet {
    /// Boots the hosts, installs the controller and logs in. No agent is installed yet.
    pub(super) fn up(name: &str, hosts: usize) -> Result<Self> {
        let name = format!("{name}-{}", std::process::id());
        let lab =
            Lab::up(&LabOptions { name, hosts, cgroups: Cgroups::Machine, lifetime: Lifetime::WithValue })?;
        let controller = lab.controller();
        controller.install_deb(&package("fleetward-controller")?)?;
        controller.install_deb(&package("fleetward")?)?;
        let said = controller.run(&["fleetward-controller", "init", "--name", "ctl.example.com"])?;
        controller.run(&["systemctl", "start", "fleetward-controller"])?;
        let fleet = Self { lab, config: tempfile::tempdir()? };
        fleet.log_in(&said)?;
        Ok(fleet)
    }

    /// Installs the agent on a host and enrols it with the command that `host add` prints; waits until it is online.
    pub(super) fn enrol(&self, host: &Host, tags: &[&str]) -> Result<()> {
        host.install_deb(&package("fleetward-agent")?)?;
        let mut add = vec!["host", "add", host.name(), "--type", "VM", "--provider", "Lab", "--quiet"];
        add.extend(tags.iter().flat_map(|tag| ["--tag", tag]));
        let printed = self.succeed(&add)?;
        let command =
            printed.lines().find(|line| line.contains("fleetward-agent enrol")).context(printed.clone())?;
        let argv: Vec<&str> = command.split_whitespace().collect();
        host.run(&argv)?;
        self.wait_status(host.name(), "online", Duration::from_secs(20)).map(drop)
    }

    /// A repository on the controller's host with these scripts, synced.
    pub(super) fn publish(&self, scripts: &[(&str, &str)]) -> Result<()> {
        let controller = self.lab.controller();
        controller.run(&["mkdir", "-p", &format!("{REPOSITORY}/scripts")])?;
        let tree = controller.root().join(REPOSITORY.trim_start_matches('/'));
        let mut list = String::from("scripts:\n");
        for (name, text) in scripts {
            std::fs::write(tree.join(format!("scripts/{name}.sh")), text)?;
            list.push_str(&format!(
                "  {name}:\n    name: {name}\n    description: Test {name}\n    path: scripts/{name}.sh\n"
            ));
        }
        std::fs::write(tree.join("scripts.yaml"), list)?;
        let script = "cd \"$0\" && git init --quiet --initial-branch=main . 2>/dev/null; git add --all && \
             git -c user.name=Ops -c user.email=ops@example.com commit --quiet --message Scripts && \
             chown -R fleetward: .";
        controller.run(&["git", "config", "--system", "--replace-all", "safe.directory", REPOSITORY])?;
        controller.run(&["sh", "-c", script, REPOSITORY])?;
        self.succeed(&["repo", "set", &format!("file://{REPOSITORY}"), "--branch", "main"])?;
        self.succeed(&["repo", "sync"]).map(drop)
    }

    /// `fleetward …` at the operator's place.
    pub(super) fn cli(&self, arguments: &[&str]) -> Command {
        // The program is the one from the package, not one that a test build left.
        let program = self.lab.controller().root().join("usr/bin/fleetward");
        let mut command = self.lab.operator_command(&program.to_string_lossy());
        command.args(arguments).env("XDG_CONFIG_HOME", self.config.path()).env("NO_COLOR", "1");
        command
    }

    /// Runs it, whatever its exit status.
    pub(super) fn exec(&self, arguments: &[&str]) -> Result<Finished> {
        process::run(&mut self.cli(arguments), COMMAND)
    }

    /// Runs it; it has to succeed.
    pub(super) fn succeed(&self, arguments: &[&str]) -> Result<String> {
        process::succeed(&mut self.cli(arguments), COMMAND).map_err(|problem| {
            let journal = self.lab.controller().exec(&[
                "journalctl",
                "-u",
                "fleetward-controller",
                "-n",
                "15",
                "-o",
                "cat",
            ]);
            problem.context(journal.map(|finished| finished.text()).unwrap_or_default())
        })
    }

    /// Runs it with `--output json`.
    pub(super) fn json(&self, arguments: &[&str]) -> Result<Value> {
        let mut all = vec!["--output", "json"];
        all.extend(arguments);
        let text = self.succeed(&all)?;
        serde_json::from_str(&text).with_context(|| format!("{all:?} printed {text}"))
    }

    /// Starts it; its output goes to a file.
    pub(super) fn start(&self, arguments: &[&str]) -> Result<Background> {
        let output = tempfile::NamedTempFile::new()?;
        let mut command = self.cli(arguments);
        command.stdin(Stdio::null()).stdout(output.reopen()?).stderr(output.reopen()?);
        Ok(Background { child: command.spawn()?, output })
    }

    /// Waits until a host has that status; tells how long it took.
    pub(super) fn wait_status(&self, host: &str, status: &str, limit: Duration) -> Result<Duration> {
        let start = Instant::now();
        process::until(&format!("{host} to be {status}"), limit, || {
            Ok((self.json(&["host", "show", host])?["status"] == status).then_some(()))
        })
        .with_context(|| self.agent_journal(host))?;
        Ok(start.elapsed())
    }

    fn agent_journal(&self, host: &str) -> String {
        let journal = self
            .lab
            .host(host)
            .and_then(|host| host.exec(&["journalctl", "-u", "fleetward-agent", "-n", "15", "-o", "cat"]));
        journal.map(|finished| finished.text()).unwrap_or_default()
    }

    fn log_in(&self, said: &str) -> Result<()> {
        let word_after = |needle: &str| -> Result<&str> {
            let line = said.lines().find(|line| line.to_lowercase().contains(needle));
            line.and_then(|line| line.split_whitespace().last())
                .with_context(|| format!("no {needle} in: {said}"))
        };
        let mut input = tempfile::tempfile()?;
        writeln!(input, "{}\n{PASSWORD}", word_after("password")?)?;
        input.rewind()?;
        let fingerprint = word_after("fingerprint")?;
        let arguments = ["login", URL, "--user", "admin", "--password-stdin", "--fingerprint", fingerprint];
        let mut command = self.cli(&arguments);
        command.stdin(Stdio::from(input));
        process::until("the controller to listen", Duration::from_secs(30), || {
            let mut knock = self.lab.operator_command("bash");
            knock.args(["-c", "exec 3<>/dev/tcp/ctl.example.com/7444"]);
            process::succeed(&mut knock, Duration::from_secs(5)).map(Some)
        })?;
        let status = process::show(&mut command, COMMAND)?;
        ensure!(status.success(), "login failed");
        Ok(())
    }
}

/// A command of the operator that is still running.
pub(super) struct Background {
    child: Child,
    output: tempfile::NamedTempFile,
}

impl Background {
    /// What it has written so far.
    pub(super) fn output(&self) -> String {
        let bytes = std::fs::read(self.output.path()).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Waits until it has written that.
    pub(super) fn wait_for(&self, text: &str) -> Result<()> {
        process::until(&format!("{text:?} in the output"), COMMAND, || {
            let output = self.output();
            if output.contains(text) {
                return Ok(Some(()));
            }
            bail!("the output is: {output}")
        })
    }

    /// Waits for its end; gives its exit code and what it wrote.
    pub(super) fn finish(mut self) -> Result<(Option<i32>, String)> {
        let status = process::until("a command of the operator to end", COMMAND, || {
            self.child.try_wait().map_err(Into::into)
        });
        match status {
            Ok(status) => Ok((status.code(), self.output())),
            Err(problem) => Err(problem.context(self.output())),
        }
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// The package of that name that is under test.
pub(super) fn package(name: &str) -> Result<PathBuf> {
    xtask::package::built(name)
}
