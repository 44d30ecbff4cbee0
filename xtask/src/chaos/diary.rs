//! What happened when: every fault and every request, in memory for the audit and in a file for people.

use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result};

use super::plan::Kind;

/// A span of time on this machine's clock, in milliseconds since 1970. All hosts share the clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// Its first millisecond.
    pub from: i64,
    /// Its last one.
    pub until: i64,
}

impl Span {
    /// Whether two spans have a moment in common.
    pub const fn meets(&self, other: &Self) -> bool {
        self.from <= other.until && other.from <= self.until
    }

    /// The span, and so many milliseconds before and after.
    pub const fn wider(&self, by: i64) -> Self {
        Self { from: self.from.saturating_sub(by), until: self.until.saturating_add(by) }
    }
}

/// A fault that was injected.
#[derive(Debug, Clone)]
pub struct Injected {
    /// What.
    pub kind: Kind,
    /// Where.
    pub host: String,
    /// From its first effect until everything was as before.
    pub span: Span,
    /// The run whose supervisor was killed.
    pub run: Option<String>,
}

/// The diary. Shared by all lanes.
#[derive(Debug)]
pub struct Diary {
    pages: Mutex<Pages>,
}

#[derive(Debug)]
struct Pages {
    file: File,
    /// `None` where one turned out to have had no effect.
    faults: Vec<Option<Injected>>,
    problems: Vec<String>,
}

/// A fault that goes on. Named by its place in the diary.
#[derive(Debug, Clone, Copy)]
pub struct Open(usize);

impl Diary {
    /// An empty diary that is also written to that file.
    ///
    /// # Errors
    /// When the file cannot be made.
    pub fn create(path: &Path) -> Result<Self> {
        let file = File::create(path).with_context(|| format!("create {}", path.display()))?;
        Ok(Self { pages: Mutex::new(Pages { file, faults: Vec::new(), problems: Vec::new() }) })
    }

    /// A fault begins.
    pub fn begin(&self, kind: Kind, host: &str, detail: &str) -> Open {
        let mut pages = self.pages();
        let span = Span { from: now(), until: i64::MAX };
        pages.faults.push(Some(Injected { kind, host: host.to_owned(), span, run: None }));
        pages.write(&format!("{host}: {} {detail}", kind.name()));
        Open(pages.faults.len() - 1)
    }

    /// The fault hit this run's supervisor.
    pub fn hit(&self, open: Open, run: &str) {
        let mut pages = self.pages();
        pages.write(&format!("…the supervisor of run {run}"));
        if let Some(Some(fault)) = pages.faults.get_mut(open.0) {
            fault.run = Some(run.to_owned());
        }
    }

    /// The fault is over.
    pub fn end(&self, open: Open) {
        let mut pages = self.pages();
        let Some(Some(fault)) = pages.faults.get_mut(open.0) else { return };
        fault.span.until = now();
        let line = format!("{}: over: {}", fault.host, fault.kind.name());
        pages.write(&line);
    }

    /// The fault met nothing that it could have had an effect on: it does not count, and explains nothing.
    pub fn void(&self, open: Open, why: &str) {
        let mut pages = self.pages();
        let Some(fault) = pages.faults.get_mut(open.0).and_then(Option::take) else { return };
        let line = format!("{}: met nothing: {}: {why}", fault.host, fault.kind.name());
        pages.write(&line);
    }

    /// Injecting the fault failed: it does not count, but may explain something.
    pub fn withdraw(&self, open: Open, why: &str) {
        let mut pages = self.pages();
        let Some(Some(fault)) = pages.faults.get_mut(open.0) else { return };
        fault.span.until = now();
        let line = format!("{}: not injected: {}: {why}", fault.host, fault.kind.name());
        pages.write(&line);
    }

    /// A line for people.
    pub fn note(&self, line: &str) {
        self.pages().write(line);
    }

    /// Something is wrong that no single run shows.
    pub fn problem(&self, line: String) {
        let mut pages = self.pages();
        pages.write(&format!("WRONG: {line}"));
        pages.problems.push(line);
    }

    /// Everything that was injected.
    pub fn faults(&self) -> Vec<Injected> {
        self.pages().faults.iter().flatten().cloned().collect()
    }

    /// What is wrong that no single run shows.
    pub fn problems(&self) -> Vec<String> {
        self.pages().problems.clone()
    }

    fn pages(&self) -> MutexGuard<'_, Pages> {
        self.pages.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pages {
    fn write(&mut self, line: &str) {
        let time = jiff::Timestamp::from_millisecond(now()).map(|time| format!("{time:.3}"));
        // A diary on a full disk must not end the run that it is about.
        let _ = writeln!(self.file, "{} {line}", time.unwrap_or_default());
    }
}

/// This machine's clock, in milliseconds since 1970.
pub fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_that_met_nothing_explains_nothing_and_one_that_failed_may() {
        let directory = tempfile::tempdir().unwrap();
        let diary = Diary::create(&directory.path().join("diary")).unwrap();
        let [injected, met_nothing, failed] =
            ["h1", "h2", "h3"].map(|host| diary.begin(Kind::SupervisorKilled, host, ""));
        diary.hit(injected, "one");
        diary.end(injected);
        diary.hit(met_nothing, "two");
        diary.void(met_nothing, "it just ended");
        diary.hit(failed, "three");
        diary.withdraw(failed, "the host is gone");
        let runs: Vec<_> = diary.faults().into_iter().filter_map(|fault| fault.run).collect();
        assert_eq!(runs, ["one", "three"]);
    }
}
