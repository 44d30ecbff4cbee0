//! The part of the control group tree that the service manager delegated to the agent (cgroups(7), v2).
//!
//! Each run gets a group of its own there, so that its tree can be ended in one write whoever its processes
//! belong to. Where nothing is delegated, the supervisor finds the tree through `/proc` instead.

use std::path::{Path, PathBuf};

/// The prefix of the groups made here.
const PREFIX: &str = "run-";

/// A directory under which the agent may make groups.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delegated {
    directory: PathBuf,
}

/// What the agent may use, if anything: the group it was started in, when it is its own and writable.
#[must_use]
pub fn read_delegated() -> Option<Delegated> {
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").ok()?;
    let own = std::fs::read_to_string("/proc/self/cgroup").ok()?;
    let directory = locate(&mounts, &own)?;
    let writable = nix::unistd::access(&directory, nix::unistd::AccessFlags::W_OK).is_ok();
    writable.then_some(Delegated { directory })
}

impl Delegated {
    /// The group of the run called `name`; its supervisor makes it and removes it.
    #[must_use]
    pub fn group(&self, name: &str) -> PathBuf {
        self.directory.join(format!("{PREFIX}{name}"))
    }

    /// Removes groups that no process lives in; supervisors that were killed left them.
    pub fn ensure_empty_groups_absent(&self) {
        let entries = std::fs::read_dir(&self.directory).into_iter().flatten().flatten();
        for entry in
            entries.filter(|entry| entry.file_name().as_encoded_bytes().starts_with(PREFIX.as_bytes()))
        {
            drop(std::fs::remove_dir(entry.path()));
        }
    }
}

/// The directory of the process's own v2 group. Only a service's group is taken: the root group, or a login
/// session's, belongs to someone else.
fn locate(mountinfo: &str, own: &str) -> Option<PathBuf> {
    let path = own.lines().find_map(|line| line.strip_prefix("0::"))?;
    // systemd 254 and later put the agent itself into a group below its service's (DelegateSubgroup=).
    let service = path.strip_suffix("/agent").unwrap_or(path);
    if !service.ends_with(".service") {
        return None;
    }
    // proc_pid_mountinfo(5): … root mount-point options … - type source options
    let mount = mountinfo.lines().find_map(|line| {
        let (left, right) = line.split_once(" - ")?;
        right.starts_with("cgroup2 ").then(|| left.split(' ').nth(4)).flatten()
    })?;
    Some(Path::new(mount).join(service.trim_start_matches('/')))
}

#[cfg(test)]
mod tests {
    use super::*;

    const UNIFIED: &str = "24 1 0:22 / /sys rw,nosuid - sysfs sysfs rw\n\
        30 24 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n";
    const HYBRID: &str = "31 24 0:27 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,name=systemd\n\
        32 24 0:28 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";

    #[test]
    fn only_a_service_of_its_own_is_used() {
        let unit = "/sys/fs/cgroup/system.slice/fleetward-agent.service";
        let own = "0::/system.slice/fleetward-agent.service\n";
        assert_eq!(locate(UNIFIED, own), Some(unit.into()));
        assert_eq!(locate(UNIFIED, "0::/system.slice/fleetward-agent.service/agent\n"), Some(unit.into()));
        let hybrid =
            "9:name=systemd:/system.slice/fleetward-agent.service\n0::/system.slice/fleetward-agent.service";
        let unified = "/sys/fs/cgroup/unified/system.slice/fleetward-agent.service";
        assert_eq!(locate(HYBRID, hybrid), Some(unified.into()));
        assert_eq!(locate(UNIFIED, "0::/user.slice/user-1000.slice/session-1.scope\n"), None);
        assert_eq!(locate(UNIFIED, "0::/\n"), None);
        assert_eq!(locate("", own), None);
    }
}
