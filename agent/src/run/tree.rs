//! A run's process tree: everything its process started, however it hid.
//!
//! The supervisor is a subreaper (prctl(2)), so that a descendant whose parent died is its own child: whoever
//! called setsid(2) or forked twice is still found below it in `/proc`. Where the run has a control group, its
//! members count too: they may have been adopted by someone else.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::platform::stop::{self, Why};

/// The descendants of this process, and the members of control groups.
#[derive(Debug)]
pub struct Tree {
    groups: Vec<PathBuf>,
}

impl Tree {
    /// The tree below this process, and the members of these control groups.
    #[must_use]
    pub const fn new(groups: Vec<PathBuf>) -> Self {
        Self { groups }
    }

    /// Asks every process to end; returns how many there were.
    pub fn terminate(&self, why: Why) -> u32 {
        let members = self.read_members();
        for &pid in &members {
            stop::ask(pid, why);
            // A stopped process handles the signal only when it is continued.
            let _ = kill(pid, Signal::SIGCONT);
        }
        u32::try_from(members.len()).unwrap_or(u32::MAX)
    }

    /// Ends every process. One that forks at this moment may escape: repeat until [`Self::is_empty`].
    pub fn kill(&self) {
        for group in &self.groups {
            // Absent before Linux 5.14 and in older hierarchies; the loop below does the same, one by one.
            drop(std::fs::write(group.join("cgroup.kill"), "1"));
        }
        for pid in self.read_members() {
            let _ = kill(pid, Signal::SIGKILL);
        }
    }

    /// Whether nothing is left but zombies.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.read_members().is_empty()
    }

    /// How many processes are left.
    #[must_use]
    pub fn count(&self) -> u32 {
        u32::try_from(self.read_members().len()).unwrap_or(u32::MAX)
    }

    /// Removes the control groups, if nothing lives in them any longer.
    pub fn ensure_groups_absent(&self) {
        for group in &self.groups {
            remove_group(group);
        }
    }

    fn read_members(&self) -> Vec<Pid> {
        let mut members = descendants(std::process::id(), &read_parents(Path::new("/proc")));
        for group in &self.groups {
            read_group(group, &mut members);
        }
        members.sort_unstable();
        members.dedup();
        members.into_iter().filter_map(|pid| i32::try_from(pid).ok()).map(Pid::from_raw).collect()
    }
}

/// Every live process and its parent.
fn read_parents(proc: &Path) -> BTreeMap<u32, u32> {
    let Ok(entries) = std::fs::read_dir(proc) else { return BTreeMap::new() };
    let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.filter_map(|pid| {
        let stat = std::fs::read_to_string(proc.join(format!("{pid}/stat"))).ok()?;
        Some((pid, parse_parent(&stat)?))
    })
    .collect()
}

/// The parent in a proc_pid_stat(5) line; `None` for a zombie, which nothing can be done to.
fn parse_parent(stat: &str) -> Option<u32> {
    // The name in parentheses may hold anything, parentheses too.
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_ascii_whitespace();
    let state = fields.next()?;
    if matches!(state, "Z" | "X") { None } else { fields.next()?.parse().ok() }
}

fn descendants(root: u32, parents: &BTreeMap<u32, u32>) -> Vec<u32> {
    let mut found = vec![root];
    let mut at = 0;
    while let Some(&parent) = found.get(at) {
        found.extend(parents.iter().filter(|(_, of)| **of == parent).map(|(pid, _)| *pid));
        at += 1;
    }
    found.remove(0);
    found
}

fn read_group(group: &Path, members: &mut Vec<u32>) {
    if let Ok(text) = std::fs::read_to_string(group.join("cgroup.procs")) {
        members.extend(text.lines().filter_map(|line| line.parse::<u32>().ok()).filter(|pid| *pid != 0));
    }
    for child in children(group) {
        read_group(&child, members);
    }
}

fn remove_group(group: &Path) {
    for child in children(group) {
        remove_group(&child);
    }
    // Processes that the script left behind keep it; then it stays with them.
    drop(std::fs::remove_dir(group));
}

fn children(group: &Path) -> impl Iterator<Item = PathBuf> {
    let entries = std::fs::read_dir(group).into_iter().flatten().flatten();
    entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())).map(|entry| entry.path())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stat_lines() {
        assert_eq!(parse_parent("7 (bash) S 3 7 7 0"), Some(3));
        assert_eq!(parse_parent("7 (a) Z 1) R 4 7"), Some(4));
        assert_eq!(parse_parent("7 (gone) Z 3 7"), None);
        assert_eq!(parse_parent("7 torn"), None);
    }

    #[test]
    fn descendants_of_descendants_count() {
        let parents = [(2, 1), (3, 2), (4, 3), (5, 1), (6, 9)].into();
        let mut found = descendants(2, &parents);
        found.sort_unstable();
        assert_eq!(found, [3, 4]);
    }
}
