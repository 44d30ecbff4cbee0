//! The processes of an nginx that runs: its master, and the generations of its workers.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use fleetward_protocol::text::{Line, Text};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::Nginx;
use crate::platform::stop::Why;
use crate::platform::{clock, files};

/// How long a master may take to start new workers and send the old ones home.
const PATIENCE: Duration = Duration::from_secs(30);
/// Between two looks at its processes.
const LOOK: Duration = Duration::from_millis(20);
/// How far the clocks of processes and of files may be apart, in milliseconds.
const SLACK_MS: i64 = 100;
/// The most that is read of an error log.
const MAX_LOG: usize = 64 << 10;
/// The most lines of it that are told.
const MAX_LINES: usize = 8;

/// The master of an nginx that runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Master {
    pid: i32,
    start: u64,
}

/// A worker of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Worker {
    id: (i32, u64),
    /// Whether it answers what it has begun with, and nothing new.
    is_leaving: bool,
}

/// The workers that there were, and how far the error log had come.
#[derive(Debug)]
pub struct Before {
    workers: BTreeSet<(i32, u64)>,
    log: LogPlace,
}

/// The end of a log, as it was.
#[derive(Debug, Clone)]
pub struct LogPlace {
    path: PathBuf,
    length: u64,
}

/// How it went to have new workers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Turn {
    /// So many new workers answer, and no old one takes anything new.
    Done(usize),
    /// It goes on with its old ones: its words.
    Refused(Vec<Line>),
    /// It is gone.
    Gone,
    /// Nothing of this within the time.
    Silent,
    /// Nobody waits for it any more.
    Left(Why),
}

impl Master {
    /// The one whose process id stands in this file, if it runs.
    #[must_use]
    pub fn read(pid_file: &Path) -> Option<Self> {
        let text = files::read_file(pid_file, 64).ok()?;
        let pid: i32 = str::from_utf8(&text).ok()?.trim().parse().ok()?;
        let (_, start) = read_stat(pid)?;
        read_title(pid).starts_with("nginx: master process").then_some(Self { pid, start })
    }

    /// The one that this process is, if it works with this configuration: a host may have several.
    #[must_use]
    pub fn of(pid: i32, nginx: &Nginx) -> Option<Self> {
        let (_, start) = read_stat(pid)?;
        let title = read_title(pid);
        // What it was started with stands behind what it is.
        let mut words = title.strip_prefix("nginx: master process")?.split_whitespace();
        let given = words.find_map(|word| word.strip_prefix("-c").map(str::to_owned));
        let given = given
            .and_then(|given| if given.is_empty() { words.next().map(str::to_owned) } else { Some(given) });
        nginx.is_begun_by(given.as_deref().map(Path::new)).then_some(Self { pid, start })
    }

    /// Its process id.
    #[must_use]
    pub const fn pid(&self) -> i32 {
        self.pid
    }

    /// Whether it runs still.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        read_stat(self.pid).is_some_and(|(_, start)| start == self.start)
    }

    /// What there is before it reads its configuration again.
    #[must_use]
    pub fn before(&self, log: LogPlace) -> Before {
        Before { workers: self.workers().iter().map(|worker| worker.id).collect(), log }
    }

    /// Has it read its configuration again, and start new workers with it (`nginx -s reload`).
    ///
    /// # Errors
    /// If it is gone.
    pub fn reload(&self) -> io::Result<()> {
        if !self.is_alive() {
            return Err(io::Error::from(io::ErrorKind::NotFound));
        }
        kill(Pid::from_raw(self.pid), Signal::SIGHUP).map_err(io::Error::from)
    }

    /// Waits until new workers answer and no old one takes anything new, or until that is not to come.
    ///
    /// What counts is what runs, and not that a signal could be sent or a command ended well: a master that does not get a
    /// port, for example, says so in its log and goes on with what it had. `stop` is asked at each look whether to wait no longer.
    pub async fn wait_for_turn(&self, before: &Before, mut stop: impl FnMut() -> Option<Why>) -> Turn {
        let began = clock::uptime();
        loop {
            let workers = self.workers();
            let is_old = |worker: &&Worker| before.workers.contains(&worker.id);
            let stays = workers.iter().filter(is_old).any(|worker| !worker.is_leaving);
            let new = workers.iter().filter(|worker| !is_old(worker) && !worker.is_leaving).count();
            if new > 0 && !stays {
                return Turn::Done(new);
            }
            if !self.is_alive() {
                return Turn::Gone;
            }
            let wrong = before.log.emergencies();
            if wrong.iter().any(|line| is_last_word(line)) {
                return Turn::Refused(wrong);
            }
            if clock::uptime().saturating_sub(began) > PATIENCE {
                return Turn::Silent;
            }
            if let Some(why) = stop() {
                return Turn::Left(why);
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Whether what stands at this path is newer than the oldest of the workers that answer: none of them has read it.
    #[must_use]
    pub fn is_older_than(&self, path: &Path) -> bool {
        let Ok(file) = fs::symlink_metadata(path) else { return false };
        let workers = self.workers();
        let Some(oldest) = workers.iter().filter(|worker| !worker.is_leaving).map(|worker| worker.id.1).min()
        else {
            return false;
        };
        // SAFETY: takes an integer.
        let ticks = u64::try_from(unsafe { libc::sysconf(libc::_SC_CLK_TCK) }).unwrap_or(100).max(1);
        let age = clock::uptime().saturating_sub(Duration::from_millis(oldest.saturating_mul(1000) / ticks));
        let started =
            clock::now().as_millis().saturating_sub(i64::try_from(age.as_millis()).unwrap_or(i64::MAX));
        let changed = file.ctime().saturating_mul(1000).saturating_add(file.ctime_nsec() / 1_000_000);
        changed > started.saturating_add(SLACK_MS)
    }

    /// Its workers, those that are leaving too.
    #[must_use]
    pub fn workers(&self) -> Vec<Worker> {
        let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
        let pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
        let workers = pids.filter_map(|pid| {
            let (parent, start) = read_stat(pid)?;
            if parent != self.pid {
                return None;
            }
            let title = read_title(pid);
            let is_leaving = title.ends_with("is shutting down");
            title.starts_with("nginx: worker process").then_some(Worker { id: (pid, start), is_leaving })
        });
        workers.collect()
    }
}

impl LogPlace {
    /// The end of this log now.
    #[must_use]
    pub fn end_of(path: PathBuf) -> Self {
        let length = fs::metadata(&path).map_or(0, |file| if file.is_file() { file.len() } else { 0 });
        Self { path, length }
    }

    /// What was logged since that keeps nginx from working.
    fn emergencies(&self) -> Vec<Line> {
        let read = || {
            let file = fs::File::open(&self.path).ok().filter(|file| {
                file.metadata().is_ok_and(|file| file.is_file() && file.len() > self.length)
            })?;
            let mut bytes = vec![0; MAX_LOG];
            let length = file.read_at(&mut bytes, self.length).ok()?;
            bytes.truncate(length);
            Some(bytes)
        };
        let bytes = read().unwrap_or_default();
        let text = String::from_utf8_lossy(&bytes);
        let lines = text.lines().filter(|line| line.contains("[emerg]")).take(MAX_LINES);
        lines.map(Text::of).collect()
    }
}

/// Whether a master that says so goes on with what it had. A port that another program has it tries to get five times.
fn is_last_word(line: &str) -> bool {
    !line.contains("bind() to ")
}

/// The parent and the start of a process that lives (proc_pid_stat(5)). The name in parentheses may hold anything.
fn read_stat(pid: i32) -> Option<(i32, u64)> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_ascii_whitespace();
    let state = fields.next()?;
    let parent = fields.next()?.parse().ok()?;
    (!matches!(state, "Z" | "X")).then_some((parent, fields.nth(17)?.parse().ok()?))
}

/// What a process says that it is.
fn read_title(pid: i32) -> String {
    let title = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    String::from_utf8_lossy(&title).trim_end_matches(['\0', ' ']).to_owned()
}
