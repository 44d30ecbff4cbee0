//! One cgroup per host, made by hand: without a service manager on this machine nobody else does.
//!
//! On a machine with cgroup v1 (or hybrid) each controller's hierarchy gets a directory below the caller's own cgroup,
//! so that what the lab uses still counts for whoever runs it. On pure v2 the directory hangs below the root, because
//! a cgroup that holds processes cannot give controllers to its children.

use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::network::Network;

/// What a lab's hosts see of cgroups.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Cgroups {
    /// The layout of this machine: v1 or hybrid with its controllers, or v2.
    Machine,
    /// Pure v2. On a v1 machine no controllers (no memory or CPU limits) are left then, but `cgroup.kill` works.
    Unified,
}

const ROOT: &str = "/sys/fs/cgroup";
/// The v1 hierarchies that a host gets a directory in.
const HIERARCHIES: [&str; 9] =
    ["systemd", "memory", "cpu", "cpuacct", "pids", "devices", "freezer", "blkio", "cpu,cpuacct"];
/// The v1 controllers that nspawn mounts read-only and that the host's systemd needs writable: it silently applies no
/// limit otherwise.
pub(super) const WRITABLE: [&str; 6] = ["memory", "cpu", "cpuacct", "cpu,cpuacct", "pids", "blkio"];

/// Whether this machine's cgroups are pure v2.
pub(super) fn machine_is_v2() -> bool {
    Path::new(ROOT).join("cgroup.controllers").exists()
}

/// The directories of one host, one per hierarchy, whether they exist or not.
pub(super) fn of_host(network: &Network, host: &str) -> Vec<PathBuf> {
    of_lab(network).into_iter().map(|dir| dir.join(host)).collect()
}

/// The directory that tells a host's memory use, if this machine counts it.
pub(super) fn memory_of_host(network: &Network, host: &str) -> Option<PathBuf> {
    let named = |dir: &PathBuf| machine_is_v2() || dir.starts_with(Path::new(ROOT).join("memory"));
    of_host(network, host).into_iter().find(named)
}

/// Lets v2 controllers reach the lab's hosts.
pub(super) fn open_controllers(network: &Network) {
    if machine_is_v2() {
        for dir in [PathBuf::from(ROOT), Path::new(ROOT).join(network.namespace())] {
            fs::create_dir_all(&dir).ok();
            for controller in ["memory", "cpu", "pids", "io"] {
                // One at a time: a controller this kernel lacks must not keep the others away.
                fs::write(dir.join("cgroup.subtree_control"), format!("+{controller}")).ok();
            }
        }
    }
}

/// Every process in a host's cgroups.
pub(super) fn processes(network: &Network, host: &str) -> Vec<i32> {
    let mut all = Vec::new();
    for dir in of_host(network, host) {
        walk(&dir, &mut |dir| {
            let text = fs::read_to_string(dir.join("cgroup.procs")).unwrap_or_default();
            all.extend(text.lines().filter_map(|line| line.parse::<i32>().ok()).filter(|pid| *pid > 0));
        });
    }
    all.sort_unstable();
    all.dedup();
    all
}

/// Whether the processes of a host run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Motion {
    /// They stand still, wherever each of them is.
    Frozen,
    /// They run. One that was killed meanwhile ends without another step of its own.
    Thawed,
}

/// Freezes or thaws all processes of a host (cgroups(7)). False where this machine has no freezer, or it does not
/// obey at once: ask again.
pub(super) fn set_motion(network: &Network, host: &str, motion: Motion) -> bool {
    let v1 = Path::new(ROOT).join("freezer");
    let Some(dir) = of_host(network, host).into_iter().find(|dir| machine_is_v2() || dir.starts_with(&v1))
    else {
        return false;
    };
    let is_frozen = motion == Motion::Frozen;
    if machine_is_v2() {
        fs::write(dir.join("cgroup.freeze"), if is_frozen { "1" } else { "0" }).ok();
        let events = fs::read_to_string(dir.join("cgroup.events")).unwrap_or_default();
        events.lines().any(|line| line == format!("frozen {}", u8::from(is_frozen)))
    } else {
        let state = if is_frozen { "FROZEN" } else { "THAWED" };
        fs::write(dir.join("freezer.state"), state).ok();
        fs::read_to_string(dir.join("freezer.state")).unwrap_or_default().trim() == state
    }
}

/// Removes a host's cgroups, deepest first. A cgroup that still holds a process stays.
pub(super) fn remove_host(network: &Network, host: &str) {
    for dir in of_host(network, host) {
        walk(&dir, &mut |dir| {
            fs::remove_dir(dir).ok();
        });
    }
}

/// Removes the lab's own directories, once its hosts' are gone.
pub(super) fn remove_lab(network: &Network) {
    for dir in of_lab(network) {
        fs::remove_dir(dir).ok();
    }
}

fn of_lab(network: &Network) -> Vec<PathBuf> {
    let root = Path::new(ROOT);
    if machine_is_v2() {
        return vec![root.join(network.namespace())];
    }
    let mut dirs = Vec::new();
    for hierarchy in HIERARCHIES {
        let mount = root.join(hierarchy);
        if mount.is_dir() && !mount.is_symlink() {
            dirs.push(mount.join(own_cgroup(hierarchy)).join(network.namespace()));
        }
    }
    if root.join("unified").is_dir() {
        dirs.push(root.join("unified").join(network.namespace()));
    }
    dirs
}

/// The caller's own cgroup in a v1 hierarchy, relative to the hierarchy's root.
fn own_cgroup(hierarchy: &str) -> PathBuf {
    let text = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let path = text.lines().find_map(|line| {
        let (_, rest) = line.split_once(':')?;
        let (names, path) = rest.split_once(':')?;
        (names.trim_start_matches("name=") == hierarchy).then_some(path)
    });
    PathBuf::from(path.unwrap_or("/").trim_start_matches('/'))
}

/// Visits a directory tree, children before parents.
fn walk(dir: &Path, visit: &mut impl FnMut(&Path)) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            walk(&entry.path(), visit);
        }
    }
    visit(dir);
}
