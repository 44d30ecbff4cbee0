//! What is not changed through the agent, whoever asks: its own files, by which its host's owner decides; and what the kernel
//! shows as files.

use std::path::{Component, Path, PathBuf};

use fleetward_protocol::action::file::State;
use nix::sys::statfs::{
    CGROUP_SUPER_MAGIC, CGROUP2_SUPER_MAGIC, DEBUGFS_MAGIC, FsType, PROC_SUPER_MAGIC, SYSFS_MAGIC, fstatfs,
};

use crate::config::{CONFIG_FILE, STATE_DIRECTORY};
use crate::perform::Problem;
use crate::platform::confined::directory::Directory;
use crate::platform::confined::shown;

/// Where the kernel shows itself.
const OF_KERNEL: [&str; 3] = ["/proc", "/sys", "/dev"];
/// The file systems of it, wherever they are mounted.
const KERNEL_TYPES: [FsType; 5] =
    [PROC_SUPER_MAGIC, SYSFS_MAGIC, CGROUP_SUPER_MAGIC, CGROUP2_SUPER_MAGIC, DEBUGFS_MAGIC];
/// The units that start the agent, and what changes them.
const UNITS: [&str; 4] = [
    "fleetward-agent.service",
    "fleetward-agent.service.d",
    "fleetward-agent.path",
    "fleetward-agent.path.d",
];

/// Refuses what is the agent's own or the kernel's: a path without links, that `directory` is the last directory of which
/// is there; `state` is where the agent keeps its own.
pub(super) fn ensure_not_ours(
    path: &Path,
    directory: &Directory,
    asked: State,
    state: &Path,
) -> Result<(), Problem> {
    let own = [Path::new(CONFIG_FILE).parent().map(Path::to_owned), Some(STATE_DIRECTORY.into())];
    let program = std::env::current_exe().ok();
    let all = own.into_iter().chain([std::fs::canonicalize(state).ok(), program]).flatten();
    for own in all {
        ensure_apart(path, &own, asked)?;
    }
    if path
        .components()
        .any(|part| matches!(part, Component::Normal(name) if UNITS.iter().any(|unit| name == *unit)))
    {
        return Err(ours(path));
    }
    let is_kernels = OF_KERNEL.iter().any(|top| path.starts_with(top))
        || fstatfs(directory).is_ok_and(|found| KERNEL_TYPES.contains(&found.filesystem_type()));
    match is_kernels {
        true => Err(Problem::new(
            format_args!("{} is no file of this host: the kernel shows itself there", shown(path)),
            "use what sets it for good, such as a file in /etc/sysctl.d or a unit; or a script",
        )),
        false => Ok(()),
    }
}

fn ensure_apart(path: &Path, own: &PathBuf, asked: State) -> Result<(), Problem> {
    // Whoever removes a directory removes what is in it.
    let takes_away = asked == State::Absent && own.starts_with(path);
    if path.starts_with(own) || takes_away { Err(ours(path)) } else { Ok(()) }
}

fn ours(path: &Path) -> Problem {
    Problem::new(
        format_args!("{} belongs to this host's agent, or holds what does", shown(path)),
        "change it on the host itself: only its owner decides what is allowed there",
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::platform::confined::Confines;

    #[test]
    fn the_agents_own_files_and_the_kernels_are_left_alone() {
        let state = tempfile::tempdir().unwrap();
        let own = state.path().canonicalize().unwrap();
        let (directory, _) = Confines::everywhere().open_parent(&own).unwrap();
        let check = |path: &Path, asked| ensure_not_ours(path, &directory, asked, state.path());
        for path in [
            "/etc/fleetward",
            "/etc/fleetward/agent.toml",
            "/var/lib/fleetward-agent/key.pem",
            "/etc/systemd/system/fleetward-agent.service.d/override.conf",
            "/usr/lib/systemd/system/fleetward-agent.service",
            "/proc/sys/kernel/hostname",
            "/sys/power/state",
            "/dev/sda",
        ] {
            assert!(check(Path::new(path), State::Present).is_err(), "{path}");
        }
        let program = std::env::current_exe().unwrap();
        for path in [&own, &own.join("runs"), &program] {
            assert!(check(path, State::Present).is_err(), "{}", path.display());
        }
        for path in ["/etc", "/var", "/var/lib", "/etc/fleetward"] {
            assert!(check(Path::new(path), State::Absent).is_err(), "{path}");
        }
        for path in
            ["/etc/fleetward-notes", "/etc/fleetwar", "/devices", "/srv/fleetward-agent.deb", "/var/lib"]
        {
            assert!(check(Path::new(path), State::Present).is_ok(), "{path}");
        }
        let (process, _) = Confines::everywhere().open_parent(Path::new("/proc/self/x")).unwrap();
        let moved = ensure_not_ours(Path::new("/srv/x"), &process, State::Present, state.path());
        assert!(moved.unwrap_err().reason.contains("the kernel shows itself"), "wherever it is mounted");
    }
}
