//! What came of a chaos run, as a table for people and as JSON for programs.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use fleetward_api::work::run::RunState;

use super::plan::Kind;

/// What the audit found.
#[derive(Debug, Clone, Default)]
pub struct Account {
    /// Operations that the controller knows.
    pub operations: usize,
    /// Requests that operators made.
    pub requests: usize,
    /// Requests that the controller refused, with a full disk.
    pub refused_requests: usize,
    /// Requests whose answer got lost.
    pub unanswered_requests: usize,
    /// Runs that the controller knows.
    pub runs: usize,
    /// Of these, runs of typed actions, by their kind.
    pub typed_runs: BTreeMap<&'static str, usize>,
    /// Starts that scripts recorded on their hosts.
    pub starts: usize,
    /// Starts that the unit recorded that typed actions start.
    pub unit_starts: usize,
    /// Runs by their state.
    pub states: BTreeMap<RunState, usize>,
    /// Bytes that scripts which came to their end recorded as written.
    pub written: u64,
    /// Of the same runs, bytes in the controller's store.
    pub stored_whole: u64,
    /// Bytes in the controller's store, of all runs.
    pub stored: u64,
    /// Bytes that markers count as dropped.
    pub dropped: u64,
    /// How often a run's stream was attached.
    pub reattached: u64,
    /// Processes of runs whose supervisor was killed, still alive.
    pub orphans: usize,
    /// Processes that a run's result tells of as left running, still alive.
    pub left: usize,
    /// Runs' directories that are left on hosts.
    pub directories: usize,
    /// Lost runs, each with what explains it.
    pub lost: Vec<String>,
    /// Everything that is wrong, in words.
    pub wrong: Vec<String>,
}

/// What came of a chaos run.
#[derive(Debug, Clone)]
pub struct Report {
    /// Hosts beside the controller's.
    pub hosts: usize,
    /// What it was decided by.
    pub seed: u64,
    /// How long faults were injected.
    pub length: Duration,
    /// How many of each kind were injected.
    pub injected: Vec<(Kind, usize)>,
    /// What the audit found.
    pub account: Account,
}

impl Report {
    /// The table.
    pub fn text(&self) -> String {
        let account = &self.account;
        let mut rows: Vec<(String, String)> = Vec::new();
        for (kind, count) in &self.injected {
            rows.push((kind.name().to_owned(), count.to_string()));
        }
        let faults = rows.len();
        let mut row = |name: &str, value: String| rows.push((name.to_owned(), value));
        row("requests", account.requests.to_string());
        row("… refused, the disk being full", account.refused_requests.to_string());
        row("… without an answer", account.unanswered_requests.to_string());
        row("operations", account.operations.to_string());
        row("runs", account.runs.to_string());
        for (kind, count) in &account.typed_runs {
            row(&format!("… of kind {kind}"), count.to_string());
        }
        for (state, count) in &account.states {
            row(&format!("… {}", words(*state)), count.to_string());
        }
        row("starts recorded by scripts", account.starts.to_string());
        row("starts recorded by units", account.unit_starts.to_string());
        row("streams attached", account.reattached.to_string());
        row("bytes written, by the scripts' record", account.written.to_string());
        row("… of these stored", account.stored_whole.to_string());
        row("… missing, by exact markers", account.dropped.to_string());
        row("bytes stored in all", account.stored.to_string());
        row("processes left behind by killed supervisors", account.orphans.to_string());
        row("processes left running by scripts, as told", account.left.to_string());
        row("runs' directories left on hosts", account.directories.to_string());
        row("wrong", account.wrong.len().to_string());
        let width = rows.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0);
        let mut text = format!(
            "chaos: {} hosts, {:.1} minutes, seed {}\n\n",
            self.hosts,
            self.length.as_secs_f64() / 60.0,
            self.seed
        );
        for (at, (name, value)) in rows.iter().enumerate() {
            if at == faults {
                text.push('\n');
            }
            // Writing to a string cannot fail.
            let _ = writeln!(text, "  {name:<width$}  {value}");
        }
        for (title, lines) in [("lost, and why", &account.lost), ("wrong", &account.wrong)] {
            if !lines.is_empty() {
                let _ = writeln!(text, "\n{title}:");
                for line in lines {
                    let _ = writeln!(text, "  {line}");
                }
            }
        }
        text
    }

    /// The same for programs.
    pub fn json(&self) -> serde_json::Value {
        let account = &self.account;
        let injected: serde_json::Map<String, serde_json::Value> =
            self.injected.iter().map(|(kind, count)| (kind.name().to_owned(), (*count).into())).collect();
        let states: serde_json::Map<String, serde_json::Value> =
            account.states.iter().map(|(state, count)| (words(*state), (*count).into())).collect();
        serde_json::json!({
            "hosts": self.hosts,
            "seconds": self.length.as_secs(),
            "seed": self.seed,
            "faults": injected,
            "requests": account.requests,
            "requests_refused": account.refused_requests,
            "requests_unanswered": account.unanswered_requests,
            "operations": account.operations,
            "runs": account.runs,
            "typed_runs": account.typed_runs,
            "starts": account.starts,
            "unit_starts": account.unit_starts,
            "states": states,
            "attached": account.reattached,
            "bytes_written": account.written,
            "bytes_written_and_stored": account.stored_whole,
            "bytes_dropped": account.dropped,
            "bytes_stored": account.stored,
            "orphaned_processes": account.orphans,
            "left_processes": account.left,
            "runs_directories_left": account.directories,
            "lost": account.lost,
            "wrong": account.wrong,
        })
    }
}

/// The state's name in the API, as words.
fn words(state: RunState) -> String {
    serde_json::to_value(state)
        .ok()
        .and_then(|name| Some(name.as_str()?.replace('_', " ")))
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_are_told_in_words() {
        assert_eq!(words(RunState::TimedOut), "timed out");
        assert_eq!(words(RunState::Lost), "lost");
    }
}
