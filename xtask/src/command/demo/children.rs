//! Programs that run until the demo ends, and the certainty that none outlives it.
//!
//! Whatever a program of the demo starts comes back to this process as its child when its own parent dies (it is a
//! "child subreaper"), so at the end everything below this process can be found and ended, supervisors of scripts
//! included. Should this process be killed, the kernel ends its direct children.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread;
use std::time::{Duration, Instant};

use crate::process;
use anyhow::{Context as _, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

const GRACE: Duration = Duration::from_secs(10);

enum Event {
    Interrupted,
    Ended(String, ExitStatus),
}

/// Somebody asked for the end: Ctrl-C or SIGTERM.
#[derive(Debug)]
pub(super) struct Interrupted;

impl std::fmt::Display for Interrupted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("interrupted")
    }
}

impl std::error::Error for Interrupted {}

/// The programs of the demo.
pub(in crate::command) struct Children {
    logs: PathBuf,
    running: BTreeMap<String, Pid>,
    sender: Sender<Event>,
    events: Receiver<Event>,
}

impl Children {
    /// Takes over Ctrl-C, SIGTERM and SIGHUP.
    ///
    /// # Errors
    /// When the system refuses.
    pub(in crate::command) fn new(logs: PathBuf) -> Result<Self> {
        fs::create_dir_all(&logs)?;
        nix::sys::prctl::set_child_subreaper(true).context("become the parent of orphans")?;
        let (sender, events) = mpsc::channel();
        let interrupt = sender.clone();
        ctrlc::set_handler(move || {
            interrupt.send(Event::Interrupted).ok();
        })
        .context("take over Ctrl-C")?;
        Ok(Self { logs, running: BTreeMap::new(), sender, events })
    }

    /// Starts a program that runs until the end; it writes to a log file.
    ///
    /// # Errors
    /// When it cannot be started.
    pub(super) fn start(&mut self, name: &str, command: &Command) -> Result<()> {
        let log = File::create(self.log(name))?;
        let mut bound = bound(command);
        bound.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        self.spawn(name, bound)
    }

    /// Runs a program that shows what it does on our terminal, until it ends.
    ///
    /// # Errors
    /// [`Interrupted`]; or when another program ended meanwhile.
    pub(super) fn run(&mut self, name: &str, command: &Command) -> Result<ExitStatus> {
        let mut bound = bound(command);
        bound.stdin(Stdio::null());
        self.spawn(name, bound)?;
        loop {
            let (ended, status) = self.next()?;
            if ended == name {
                return Ok(status);
            }
        }
    }

    /// Asks until there is a value, while all programs keep running.
    ///
    /// # Errors
    /// [`Interrupted`]; when a program ends; when `limit` passes.
    pub(super) fn until<T>(
        &mut self,
        what: &str,
        limit: Duration,
        mut condition: impl FnMut() -> Result<Option<T>>,
    ) -> Result<T> {
        let end = Instant::now() + limit;
        loop {
            let last = match condition() {
                Ok(Some(value)) => return Ok(value),
                Ok(None) => None,
                Err(problem) => Some(problem),
            };
            if Instant::now() >= end {
                let problem = last.unwrap_or_else(|| anyhow::anyhow!("it did not happen"));
                return Err(
                    problem.context(format!("waited {limit:?} for {what}; see {}", self.logs.display()))
                );
            }
            match self.events.recv_timeout(Duration::from_millis(100)) {
                Ok(event) => drop(self.judge(event)?),
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {}
            }
        }
    }

    /// Waits until somebody asks for the end.
    ///
    /// # Errors
    /// When a program ends by itself: the demo is over then.
    pub(super) fn wait_for_interrupt(&mut self) -> Result<()> {
        loop {
            match self.next() {
                Ok(_) => {}
                Err(problem) if problem.is::<Interrupted>() => return Ok(()),
                Err(problem) => return Err(problem),
            }
        }
    }

    /// Whether nothing was started, or all has ended.
    pub(super) fn is_empty(&self) -> bool {
        self.running.is_empty()
    }

    /// Ends everything: agents, then the controller, then whatever they left.
    pub(in crate::command) fn stop(&mut self) {
        let names = self.running.keys().cloned();
        let (controller, others): (Vec<String>, Vec<String>) =
            names.partition(|name| name == super::CONTROLLER);
        for group in [others, controller] {
            self.stop_group(&group);
        }
        end_descendants();
    }

    fn stop_group(&mut self, names: &[String]) {
        let pids: Vec<Pid> = names.iter().filter_map(|name| self.running.get(name).copied()).collect();
        for signal in [Signal::SIGTERM, Signal::SIGKILL] {
            for pid in &pids {
                kill(*pid, signal).ok();
            }
            let end = Instant::now() + GRACE;
            while names.iter().any(|name| self.running.contains_key(name)) {
                let left = end.saturating_duration_since(Instant::now());
                match self.events.recv_timeout(left) {
                    Ok(Event::Ended(name, _)) => drop(self.running.remove(&name)),
                    // A second Ctrl-C does not make it faster: it would leave things running.
                    Ok(Event::Interrupted) => {}
                    Err(_) => break,
                }
            }
        }
    }

    fn spawn(&mut self, name: &str, mut command: Command) -> Result<()> {
        let mut child = command.spawn().with_context(|| format!("start {}", process::describe(&command)))?;
        self.running.insert(name.to_owned(), Pid::from_raw(child.id().cast_signed()));
        let (sender, name) = (self.sender.clone(), name.to_owned());
        thread::spawn(move || {
            if let Ok(status) = child.wait() {
                sender.send(Event::Ended(name, status)).ok();
            }
        });
        Ok(())
    }

    fn next(&mut self) -> Result<(String, ExitStatus)> {
        let event = self.events.recv()?;
        self.judge(event)
    }

    /// A program that ends is bad news, unless it is one that [`Children::run`] waits for: it has no log.
    fn judge(&mut self, event: Event) -> Result<(String, ExitStatus)> {
        match event {
            Event::Interrupted => bail!(Interrupted),
            Event::Ended(name, status) => {
                self.running.remove(&name);
                let log = self.log(&name);
                if log.exists() {
                    bail!("{name} ended ({status}): {}", last_lines(&log));
                }
                Ok((name, status))
            }
        }
    }

    fn log(&self, name: &str) -> PathBuf {
        self.logs.join(format!("{name}.log"))
    }
}

impl Drop for Children {
    fn drop(&mut self) {
        self.stop();
    }
}

/// The command in a group of its own (Ctrl-C is for us: we end things in order), ended by the kernel when we die.
fn bound(command: &Command) -> Command {
    let mut bound = Command::new("setpriv");
    bound.arg("--pdeathsig=TERM").arg(command.get_program()).args(command.get_args());
    for (key, value) in command.get_envs() {
        match value {
            Some(value) => bound.env(key, value),
            None => bound.env_remove(key),
        };
    }
    if let Some(directory) = command.get_current_dir() {
        bound.current_dir(directory);
    }
    bound.process_group(0);
    bound
}

/// Kills every process below this one, again until there is none: a process may start another while it is found.
fn end_descendants() {
    for _ in 0..100 {
        for pid in descendants(std::process::id().cast_signed()) {
            kill(Pid::from_raw(pid), Signal::SIGKILL).ok();
        }
        loop {
            match waitpid(Pid::from_raw(-1), Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::StillAlive) => break,
                Ok(_) => {}
                Err(_) => return,
            }
        }
        thread::park_timeout(Duration::from_millis(20));
    }
}

fn descendants(pid: i32) -> Vec<i32> {
    let mut all = Vec::new();
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    for task in tasks {
        let text = fs::read_to_string(task.path().join("children")).unwrap_or_default();
        for child in text.split_whitespace().filter_map(|child| child.parse().ok()) {
            all.push(child);
            all.extend(descendants(child));
        }
    }
    all
}

fn last_lines(log: &Path) -> String {
    let text = fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text).into_owned();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(15)..].join("\n")
}
