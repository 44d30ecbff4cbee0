//! The system's journal, through journalctl(1): it reads what every version of journald has written, and who else may be
//! allowed to (decision 15).
//!
//! What is asked for is told in two looks. The first goes back from the end and finds where the last so many entries begin; the
//! second tells them from there on, and goes on with what is written if it is to follow. So nothing of it has to be kept.

pub mod export;

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use fleetward_protocol::query::unit_log::UnitLog;
use fleetward_protocol::text::{Line, Text};
use fleetward_protocol::time::Timestamp;
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;
use tokio::io::AsyncReadExt as _;
use tokio::process::{Child, ChildStderr, ChildStdout, Command};

use export::{Entry, Export, Field, Malformed, OUTPUT_FIELDS};

/// What is read at once, at the most.
const CHUNK: usize = 64 << 10;
/// The most that is kept of what journalctl complains about: the end of it.
const MAX_COMPLAINT: usize = 1 << 10;
/// Where journald keeps its files (systemd-journald.service(8)).
const DIRECTORIES: [&str; 2] = ["/var/log/journal", "/run/log/journal"];

/// The journal could not be read.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// There is no journalctl.
    #[error("there is no `journalctl` here")]
    Missing,
    /// It could not be started or heard.
    #[error("journalctl cannot be read: {0}")]
    Io(#[from] io::Error),
    /// It said no.
    #[error("journalctl: {0}")]
    Refused(Line),
    /// It says what is not understood.
    #[error(transparent)]
    Malformed(#[from] Malformed),
}

/// The journal of this host.
#[derive(Debug, Clone)]
pub struct Journal {
    program: PathBuf,
    /// What journalctl is told before everything else.
    arguments: Vec<OsString>,
    /// Where its files are.
    directories: Vec<PathBuf>,
}

/// Where what is asked for stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Extent {
    /// The cursor of the oldest entry.
    pub oldest: String,
    /// The cursor of the newest.
    pub newest: String,
    /// How many there are.
    pub count: u32,
}

/// Where reading begins.
#[derive(Debug, Clone, Copy)]
pub enum From<'a> {
    /// With the entry at this cursor.
    Cursor(&'a str),
    /// With what was written at this time.
    Time(Timestamp),
}

/// Whether reading ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Until {
    /// With what there is now.
    Now,
    /// Never: what is written is read as it comes.
    Ever,
}

/// Entries as they are read. Dropping it ends journalctl; so does the end of this process.
#[derive(Debug)]
pub struct Reading {
    child: Child,
    out: ChildStdout,
    /// What it complains about, while it may.
    err: Option<ChildStderr>,
    complaint: Vec<u8>,
    chunk: Vec<u8>,
    /// How much of the chunk was taken.
    taken: usize,
    /// Whether it ends with 1 where it finds nothing, without a word.
    fails_on_nothing: bool,
    export: Export,
}

impl Journal {
    /// The system's own.
    #[must_use]
    pub fn system() -> Self {
        let directories = DIRECTORIES.map(PathBuf::from).to_vec();
        Self { program: PathBuf::from("journalctl"), arguments: Vec::new(), directories }
    }

    /// The one in this directory, of which this program tells, with these arguments.
    #[must_use]
    pub fn through(program: &Path, arguments: impl IntoIterator<Item = OsString>, directory: &Path) -> Self {
        let directories = vec![directory.to_owned()];
        Self { program: program.to_owned(), arguments: arguments.into_iter().collect(), directories }
    }

    /// Whether journald has kept anything here, as far as that can be seen.
    #[must_use]
    pub fn is_kept(&self) -> bool {
        let has_entries = |path: &PathBuf| std::fs::read_dir(path).is_ok_and(|mut all| all.next().is_some());
        self.directories.iter().any(has_entries)
    }

    /// Where the last entries stand that are asked for at `now`; `None` if there are none.
    ///
    /// # Errors
    /// If the journal cannot be read.
    pub async fn find(&self, asked: &UnitLog, now: Timestamp) -> Result<Option<Extent>, JournalError> {
        let mut command = self.command(asked, now, "_BOOT_ID");
        // With `--lines` and nothing else it would depend on the version where it counts from.
        command.arg("--reverse").arg(format!("--lines={}", asked.lines));
        if let Some(since) = &asked.since {
            command.arg(format!("--since={}", second(since.at(now))));
        }
        let (mut reading, mut found) = (Reading::start(command, asked)?, None::<Extent>);
        while let Some(entry) = reading.next().await? {
            // Without a cursor it cannot be found again; every entry has one.
            let Some(cursor) = entry.text(Field::Cursor) else { continue };
            let found = found.get_or_insert_with(|| Extent {
                oldest: String::new(),
                newest: cursor.to_owned(),
                count: 0,
            });
            found.count += 1;
            cursor.clone_into(&mut found.oldest);
        }
        Ok(found)
    }

    /// Reads what is asked for at `now` from there on.
    ///
    /// # Errors
    /// If journalctl cannot be started.
    pub fn read(
        &self,
        asked: &UnitLog,
        now: Timestamp,
        from: From<'_>,
        until: Until,
    ) -> Result<Reading, JournalError> {
        let mut command = self.command(asked, now, OUTPUT_FIELDS);
        match from {
            From::Cursor(cursor) => command.arg(format!("--cursor={cursor}")),
            From::Time(time) => command.arg(format!("--since={}", second(time))),
        };
        if until == Until::Ever {
            // All from there on, and not the last ten.
            command.args(["--follow", "--no-tail"]);
        }
        Reading::start(command, asked)
    }

    fn command(&self, asked: &UnitLog, now: Timestamp, fields: &str) -> Command {
        let UnitLog { units, since: _, until, lines: _, priority, grep, boot } = asked;
        let mut command = Command::new(&self.program);
        command.args(&self.arguments).args(["--output=export", "--no-pager", "--quiet"]);
        command.arg(format!("--output-fields={fields}"));
        command.args(units.iter().map(|unit| format!("--unit={}", unit.as_str())));
        command.args(until.iter().map(|until| format!("--until={}", second(until.at(now)))));
        command.args(priority.iter().map(|priority| format!("--priority={priority}")));
        command.args(grep.iter().map(|pattern| format!("--grep={pattern}")));
        command.args(boot.iter().map(|boot| format!("--boot={boot}")));
        command
    }
}

impl Reading {
    fn start(mut command: Command, asked: &UnitLog) -> Result<Self, JournalError> {
        command
            .env_clear()
            .env("LC_ALL", "C")
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        // SAFETY: between fork and exec one system call is made, and nothing is allocated.
        unsafe {
            // A look for something that is not there writes nothing, and would not notice that nobody reads any more.
            command.pre_exec(|| Ok(set_pdeathsig(Signal::SIGKILL)?));
        }
        let mut child = command.spawn().map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => JournalError::Missing,
            _ => error.into(),
        })?;
        let (Some(out), err) = (child.stdout.take(), child.stderr.take()) else {
            return Err(io::Error::other("a process has no pipes").into());
        };
        let (complaint, chunk) = (Vec::new(), Vec::with_capacity(CHUNK));
        let (export, fails_on_nothing) = (Export::default(), asked.grep.is_some());
        Ok(Self { child, out, err, complaint, chunk, taken: 0, export, fails_on_nothing })
    }

    /// The next entry; `None` after the last. What nobody asks for waits in the pipe, and journalctl with it. Cancel-safe.
    ///
    /// # Errors
    /// If the journal cannot be read any further.
    pub async fn next(&mut self) -> Result<Option<Entry>, JournalError> {
        loop {
            let mut rest = self.chunk.get(self.taken..).unwrap_or_default();
            let entry = self.export.take(&mut rest)?;
            self.taken = self.chunk.len() - rest.len();
            if entry.is_some() {
                return Ok(entry);
            }
            if self.more().await? == 0 {
                return self.ended().await.map(|()| None);
            }
        }
    }

    /// Reads on; how many bytes.
    async fn more(&mut self) -> io::Result<usize> {
        self.chunk.clear();
        self.taken = 0;
        let mut complaint = [0; 512];
        loop {
            let complains = async {
                match &mut self.err {
                    Some(err) => err.read(&mut complaint).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                read = self.out.read_buf(&mut self.chunk) => return read,
                // Whoever is not heard would wait.
                said = complains => match said {
                    Ok(said @ 1..) => keep(&mut self.complaint, complaint.get(..said).unwrap_or_default()),
                    Ok(0) | Err(_) => self.err = None,
                },
            }
        }
    }

    /// Waits for the end of journalctl, after the last that it told.
    async fn ended(&mut self) -> Result<(), JournalError> {
        let status = self.child.wait().await?;
        if let Some(mut err) = self.err.take() {
            let mut complaint = [0; 512];
            while let Ok(said @ 1..) = err.read(&mut complaint).await {
                keep(&mut self.complaint, complaint.get(..said).unwrap_or_default());
            }
        }
        let complaint = String::from_utf8_lossy(&self.complaint);
        match complaint.trim() {
            _ if status.success() => Ok(()),
            "" if self.fails_on_nothing && status.code() == Some(1) => Ok(()),
            "" => Err(JournalError::Refused(Text::of(format_args!("it ended with {status}")))),
            said => Err(JournalError::Refused(Text::of(said))),
        }
    }
}

/// Keeps the end of what was said.
fn keep(complaint: &mut Vec<u8>, said: &[u8]) {
    complaint.extend_from_slice(said);
    let spare = complaint.len().saturating_sub(MAX_COMPLAINT);
    complaint.drain(..spare);
}

/// A time as systemd reads it (systemd.time(7)): seconds, which no time zone changes.
fn second(time: Timestamp) -> String {
    let millis = time.as_millis().max(0);
    format!("@{}.{:03}", millis / 1000, millis % 1000)
}
