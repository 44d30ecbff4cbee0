//! A fleet on lab hosts: the controller on `ctl`, an operator who is logged in, agents where they are wanted.
//!
//! Everything is installed from the packages and driven through the CLI, as a user does it. Lab tests and benchmarks
//! start here.

use std::io::{Seek as _, Write as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::lab::{Cgroups, Host, Lab, LabOptions, Lifetime};
use crate::package;
use crate::process::{self, Finished};
use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

/// What one command of the operator may take.
const COMMAND: Duration = Duration::from_secs(120);
/// Where the operator reaches the controller.
pub const URL: &str = "https://ctl.example.com:7444";
const PASSWORD: &str = "correct horse battery staple";
const REPOSITORY: &str = "/srv/fleet";

/// A controller on a host of its own, and an operator who is logged in.
#[derive(Debug)]
pub struct Fleet {
    /// The hosts.
    pub lab: Lab,
    config: tempfile::TempDir,
}

impl Fleet {
    /// Boots the hosts, installs the controller and logs in. No agent is installed yet.
    ///
    /// # Errors
    /// When a host does not boot, or an install or the login fails.
    pub fn up(name: &str, hosts: usize) -> Result<Self> {
        let name = format!("{name}-{}", std::process::id());
        let lab =
            Lab::up(&LabOptions { name, hosts, cgroups: Cgroups::Machine, lifetime: Lifetime::WithValue })?;
        Self::on(lab)
    }

    /// Installs the controller on a lab that is up, and logs in. No agent is installed yet.
    ///
    /// # Errors
    /// When an install or the login fails.
    pub fn on(lab: Lab) -> Result<Self> {
        let controller = lab.controller();
        controller.install_deb(&package::built("fleetward-controller")?)?;
        controller.install_deb(&package::built("fleetward")?)?;
        let said = controller.run(&["fleetward-controller", "init", "--name", "ctl.example.com"])?;
        // The lab's repository is on the controller's host.
        let allow = "s/^#local_remotes = false/local_remotes = true/";
        controller.run(&["sed", "-i", allow, "/etc/fleetward/controller.toml"])?;
        controller.run(&["systemctl", "start", "fleetward-controller"])?;
        let fleet = Self { lab, config: tempfile::tempdir()? };
        fleet.log_in(&said)?;
        Ok(fleet)
    }

    /// Installs the agent on a host and enrols it with the command that `host add` prints; waits until it is online.
    ///
    /// # Errors
    /// When the install or the enrolment fails, or the host does not come online.
    pub fn enrol(&self, host: &Host, tags: &[&str]) -> Result<()> {
        host.install_deb(&package::built("fleetward-agent")?)?;
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
    ///
    /// # Errors
    /// When the synchronisation fails.
    pub fn publish(&self, scripts: &[(&str, &str)]) -> Result<()> {
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

    /// The operator's login: `XDG_CONFIG_HOME`.
    pub fn config(&self) -> &Path {
        self.config.path()
    }

    /// The CLI's program from the package, not one that a test build left.
    pub fn program(&self) -> std::path::PathBuf {
        self.lab.controller().root().join("usr/bin/fleetward")
    }

    /// `fleetward …` at the operator's place.
    pub fn cli(&self, arguments: &[&str]) -> Command {
        let mut command = self.lab.operator_command(&self.program().to_string_lossy());
        command.args(arguments).env("XDG_CONFIG_HOME", self.config.path()).env("NO_COLOR", "1");
        command
    }

    /// Runs it, whatever its exit status.
    ///
    /// # Errors
    /// When it cannot be started or takes too long.
    pub fn exec(&self, arguments: &[&str]) -> Result<Finished> {
        process::run(&mut self.cli(arguments), COMMAND)
    }

    /// Runs it; it has to succeed.
    ///
    /// # Errors
    /// When it fails; the error carries the end of the controller's log.
    pub fn succeed(&self, arguments: &[&str]) -> Result<String> {
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
    ///
    /// # Errors
    /// As [`Fleet::succeed`], and when it prints something else.
    pub fn json(&self, arguments: &[&str]) -> Result<Value> {
        let mut all = vec!["--output", "json"];
        all.extend(arguments);
        let text = self.succeed(&all)?;
        serde_json::from_str(&text).with_context(|| format!("{all:?} printed {text}"))
    }

    /// Asks hosts with `--output json`; gives the items of the answer.
    ///
    /// # Errors
    /// As [`Fleet::json`].
    pub fn items(&self, arguments: &[&str]) -> Result<Vec<Value>> {
        let text = self.succeed(&[&["--output", "json"], arguments].concat())?;
        let events =
            text.lines().map(|line| serde_json::from_str::<Value>(line).with_context(|| line.to_owned()));
        let events: Vec<Value> = events.collect::<Result<_>>()?;
        let items = events.into_iter().filter(|event| event["event"] == "item");
        Ok(items.map(|mut event| event["data"]["item"].take()).collect())
    }

    /// Starts it; its output goes to a file.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(&self, arguments: &[&str]) -> Result<Background> {
        let output = tempfile::NamedTempFile::new()?;
        // One open file for both streams: with two, each would write over what the other wrote.
        let both = output.reopen()?;
        let mut command = self.cli(arguments);
        command.stdin(Stdio::null()).stdout(both.try_clone()?).stderr(both);
        Ok(Background { child: command.spawn()?, output })
    }

    /// Waits until a host has that status; tells how long it took.
    ///
    /// # Errors
    /// When `limit` passes; the error carries the end of the agent's log.
    pub fn wait_status(&self, host: &str, status: &str, limit: Duration) -> Result<Duration> {
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
        let fingerprint = word_after("root certificate")?;
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
#[derive(Debug)]
pub struct Background {
    child: Child,
    output: tempfile::NamedTempFile,
}

impl Background {
    /// What it has written so far.
    pub fn output(&self) -> String {
        let bytes = std::fs::read(self.output.path()).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Waits until it has written that.
    ///
    /// # Errors
    /// When it does not write that in time.
    pub fn wait_for(&self, text: &str) -> Result<()> {
        process::until(&format!("{text:?} in the output"), COMMAND, || {
            let output = self.output();
            if output.contains(text) {
                return Ok(Some(()));
            }
            bail!("the output is: {output}")
        })
    }

    /// Waits for its end; gives its exit code and what it wrote.
    ///
    /// # Errors
    /// When it does not end in time.
    pub fn finish(mut self) -> Result<(Option<i32>, String)> {
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
