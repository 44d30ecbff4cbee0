//! Child processes that cannot outlive their deadline.
//!
//! Promises: every call returns, and when a deadline passes the child's whole process group is killed before the error
//! is reported. Deliberately absent: retries (a caller that may retry says so with [`until`]).

use std::io::Read;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

/// A command that ended by itself.
#[derive(Debug)]
pub struct Finished {
    /// How it ended.
    pub status: ExitStatus,
    /// Everything it wrote to standard output.
    pub stdout: Vec<u8>,
    /// Everything it wrote to standard error.
    pub stderr: Vec<u8>,
}

impl Finished {
    /// Standard output as text, without the trailing line end.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).trim_end().to_owned()
    }

    /// Standard error as text, without the trailing line end.
    pub fn error_text(&self) -> String {
        String::from_utf8_lossy(&self.stderr).trim_end().to_owned()
    }
}

/// Runs a command with captured output and no input; does not judge its exit status.
///
/// # Errors
/// When it cannot be started, or when `limit` passes: then its process group is killed first.
pub fn run(command: &mut Command, limit: Duration) -> Result<Finished> {
    capture(command.stdin(Stdio::null()), limit)
}

/// As [`run`], with the input that the command was given.
///
/// # Errors
/// As [`run`].
pub fn run_with_input(command: &mut Command, input: impl Into<Stdio>, limit: Duration) -> Result<Finished> {
    capture(command.stdin(input), limit)
}

/// Runs a command that has to succeed and returns its standard output as text.
///
/// # Errors
/// As [`run`], and when the command fails: the error then carries the end of what it wrote.
pub fn succeed(command: &mut Command, limit: Duration) -> Result<String> {
    let finished = run(command, limit)?;
    if !finished.status.success() {
        let mut said = finished.error_text();
        if said.is_empty() {
            said = finished.text();
        }
        bail!("{} failed ({}): {}", describe(command), finished.status, tail(&said));
    }
    Ok(finished.text())
}

/// Runs a command that shares our terminal.
///
/// # Errors
/// When it cannot be started, or when `limit` passes: then it is asked to stop, and killed after five seconds.
pub fn show(command: &mut Command, limit: Duration) -> Result<ExitStatus> {
    let what = describe(command);
    let child = command.spawn().with_context(|| format!("start {what}"))?;
    let pid = Pid::from_raw(child.id().cast_signed());
    let (sender, ended) = mpsc::channel();
    thread::spawn(move || report_end(child, &sender));
    for (signal, patience) in
        [(None, limit), (Some(Signal::SIGTERM), GRACE), (Some(Signal::SIGKILL), Duration::from_secs(5))]
    {
        if let Some(signal) = signal {
            nix::sys::signal::kill(pid, signal).ok();
        }
        if let Ok(status) = ended.recv_timeout(patience) {
            if signal.is_some() {
                bail!("{what} did not end within {limit:?} and was stopped");
            }
            return status.with_context(|| format!("wait for {what}"));
        }
    }
    bail!("{what} did not end within {limit:?} and could not be killed")
}

/// Like [`show`], but a failure of the command is an error.
///
/// # Errors
/// As [`show`], and when the command fails.
pub fn show_success(command: &mut Command, limit: Duration) -> Result<()> {
    let status = show(command, limit)?;
    if !status.success() {
        bail!("{} failed ({status})", describe(command));
    }
    Ok(())
}

/// Asks again and again until `condition` gives a value, at most for `limit`. The condition's last error explains a
/// time-out.
///
/// # Errors
/// When `limit` passes without a value.
pub fn until<T>(what: &str, limit: Duration, mut condition: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let end = Instant::now() + limit;
    loop {
        let last = match condition() {
            Ok(Some(value)) => return Ok(value),
            Ok(None) => None,
            Err(error) => Some(error),
        };
        if Instant::now() >= end {
            return Err(match last {
                Some(error) => error.context(format!("waited {limit:?} for {what}")),
                None => anyhow::anyhow!("waited {limit:?} for {what}, in vain"),
            });
        }
        thread::park_timeout(POLL);
    }
}

/// A command line as a person would type it, for messages.
pub fn describe(command: &Command) -> String {
    let mut line = command.get_program().to_string_lossy().into_owned();
    for argument in command.get_args() {
        line.push(' ');
        line.push_str(&argument.to_string_lossy());
    }
    line.replace('\n', " ")
}

/// Whether a program is in the search path (or in the directories of the system's own programs).
pub fn is_installed(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let own = ["/usr/sbin", "/sbin", "/usr/local/sbin"].map(std::path::PathBuf::from);
    std::env::split_paths(&path).chain(own).any(|directory| directory.join(program).is_file())
}

const GRACE: Duration = Duration::from_secs(5);
const POLL: Duration = Duration::from_millis(50);

fn capture(command: &mut Command, limit: Duration) -> Result<Finished> {
    let what = describe(command);
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .spawn()
        .with_context(|| format!("start {what}"))?;
    let group = Pid::from_raw(child.id().cast_signed());
    let stdout = Collector::start(child.stdout.take());
    let stderr = Collector::start(child.stderr.take());
    match wait(child, limit)? {
        Some(status) => Ok(Finished { status, stdout: stdout.finish(), stderr: stderr.finish() }),
        None => {
            killpg(group, Signal::SIGKILL).ok();
            let said = String::from_utf8_lossy(&stderr.finish()).into_owned();
            bail!("{what} did not end within {limit:?} and was killed; it had said: {}", tail(&said))
        }
    }
}

fn wait(child: Child, limit: Duration) -> Result<Option<ExitStatus>> {
    let (sender, ended) = mpsc::channel();
    thread::spawn(move || report_end(child, &sender));
    match ended.recv_timeout(limit) {
        Ok(status) => Ok(Some(status?)),
        Err(RecvTimeoutError::Timeout) => Ok(None),
        Err(RecvTimeoutError::Disconnected) => bail!("the thread that waits for a child process died"),
    }
}

fn report_end(mut child: Child, sender: &mpsc::Sender<std::io::Result<ExitStatus>>) {
    // The receiver is gone only after a time-out, when nobody asks any more.
    sender.send(child.wait()).ok();
}

/// The last lines of a long text, for an error message.
fn tail(text: &str) -> String {
    const LINES: usize = 25;
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(LINES)..].join("\n")
}

/// Reads a pipe to its end in the background.
struct Collector {
    bytes: Arc<Mutex<Vec<u8>>>,
    ended: mpsc::Receiver<()>,
}

impl Collector {
    fn start(pipe: Option<impl Read + Send + 'static>) -> Self {
        let bytes = Arc::new(Mutex::new(Vec::new()));
        let (sender, ended) = mpsc::channel();
        let shared = Arc::clone(&bytes);
        thread::spawn(move || {
            if let Some(mut pipe) = pipe {
                let mut buffer = vec![0; 64 * 1024];
                while let Ok(length @ 1..) = pipe.read(&mut buffer) {
                    let mut all = shared.lock().unwrap_or_else(PoisonError::into_inner);
                    all.extend_from_slice(&buffer[..length]);
                }
            }
            sender.send(()).ok();
        });
        Self { bytes, ended }
    }

    /// What was read. A daemon that the command left behind may hold the pipe open for ever, so the wait is short.
    fn finish(self) -> Vec<u8> {
        self.ended.recv_timeout(Duration::from_secs(2)).ok();
        std::mem::take(&mut *self.bytes.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_that_ends_gives_its_output() {
        let finished = run(Command::new("sh").args(["-c", "echo out; echo err >&2; exit 3"]), GRACE).unwrap();
        assert_eq!(finished.status.code(), Some(3));
        assert_eq!((finished.text().as_str(), finished.error_text().as_str()), ("out", "err"));
    }

    #[test]
    fn a_command_past_its_deadline_is_killed_with_its_children() {
        let directory = tempfile::tempdir().unwrap();
        let fifo = directory.path().join("alive");
        nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
        // Both the shell and its child hold the fifo open: its reader sees the end only when both are dead.
        let script = "exec 3>\"$0\"; echo started >&3; sleep 1000 & wait";
        let reader = {
            let fifo = fifo.clone();
            thread::spawn(move || std::fs::read_to_string(fifo).unwrap())
        };
        let mut command = Command::new("sh");
        command.args(["-c", script]).arg(&fifo);
        let error = run(&mut command, Duration::from_millis(300)).unwrap_err();
        assert!(error.to_string().contains("did not end within"), "{error}");
        assert_eq!(reader.join().unwrap(), "started\n");
    }

    #[test]
    fn waiting_in_vain_names_what_was_awaited() {
        let error = until("a miracle", Duration::ZERO, || Ok(None::<()>)).unwrap_err();
        assert!(error.to_string().contains("a miracle"));
    }
}
