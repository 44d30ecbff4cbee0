//! The part of the control group tree that the service manager delegated to the agent (cgroups(7)).
//!
//! Each run gets a group of its own there, so that its tree can be ended in one write whoever its processes
//! belong to, and so that its limits hold. Groups are those of the unified hierarchy; limits fall back to the
//! older ones, where a kernel has its controllers there. Where nothing is delegated, the supervisor finds the
//! tree through `/proc` instead, and limits cannot be had.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// The prefix of the groups made here.
const PREFIX: &str = "run-";
/// The period of a CPU quota, in microseconds (the kernel's default).
const PERIOD_US: u64 = 100_000;

/// Directories under which the agent may make groups.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Delegated {
    unified: Option<PathBuf>,
    /// Of the older hierarchies, by controller.
    legacy: BTreeMap<String, PathBuf>,
}

/// What a run may use; zero means no limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Wanted {
    /// Bytes.
    pub memory: u64,
    /// Thousandths of one core.
    pub cpu_milli: u32,
    /// Processes and threads.
    pub tasks: u32,
}

/// One group of a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Group {
    /// Its directory.
    pub directory: String,
    /// Files in it, and what must stand in them before the run starts.
    pub limits: Vec<(String, String)>,
}

/// A limit cannot be enforced on this host.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("this host cannot enforce a limit on {0}: its service has no such controller delegated")]
pub struct Unenforceable(&'static str);

/// What the agent may use: the groups it was started in, when they are its own service's and writable.
#[must_use]
pub fn read_delegated() -> Delegated {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let mut delegated = Delegated::locate(&mounts, &own);
    let writable = |path: &PathBuf| nix::unistd::access(path, nix::unistd::AccessFlags::W_OK).is_ok();
    delegated.unified = delegated.unified.filter(writable);
    delegated.legacy.retain(|_, path| writable(path));
    delegated
}

impl Delegated {
    /// What a process with these proc_pid_mountinfo(5) and `/proc/self/cgroup` was given. Only a service's own
    /// group is taken: the root group, or a login session's, belongs to someone else.
    #[must_use]
    pub fn locate(mountinfo: &str, own: &str) -> Self {
        let mut delegated = Self::default();
        for line in own.lines() {
            let mut fields = line.splitn(3, ':').skip(1);
            let (Some(controllers), Some(path)) = (fields.next(), fields.next()) else { continue };
            // systemd 254 and later put the agent itself into a group below its service's (DelegateSubgroup=).
            let service = path.strip_suffix("/agent").unwrap_or(path);
            if !service.ends_with(".service") {
                continue;
            }
            let directory = |mount: &str| Path::new(mount).join(service.trim_start_matches('/'));
            if controllers.is_empty() {
                delegated.unified = find_mount(mountinfo, "cgroup2", None).map(directory);
            }
            for controller in controllers.split(',').filter(|controller| !controller.is_empty()) {
                if let Some(mount) = find_mount(mountinfo, "cgroup", Some(controller)) {
                    delegated.legacy.insert(controller.to_owned(), directory(mount));
                }
            }
        }
        delegated
    }

    /// Whether a run's tree can be ended through a group.
    #[must_use]
    pub const fn has_groups(&self) -> bool {
        self.unified.is_some()
    }

    /// The groups of the run called `name`, the unified one first if there is one; its supervisor makes and
    /// removes them.
    ///
    /// # Errors
    /// If a limit that is wanted cannot be had.
    pub fn groups(&self, name: &str, wanted: Wanted) -> Result<Vec<Group>, Unenforceable> {
        let name = format!("{PREFIX}{name}");
        let group = |directory: &Path| Group { directory: text(&directory.join(&name)), limits: Vec::new() };
        let mut groups: Vec<Group> = self.unified.iter().map(|unified| group(unified)).collect();
        let quota = u64::from(wanted.cpu_milli) * PERIOD_US / 1000;
        let limits = [
            ("memory", "memory", wanted.memory, ("memory.max", String::new()), "memory.limit_in_bytes"),
            ("CPU", "cpu", quota, ("cpu.max", format!(" {PERIOD_US}")), "cpu.cfs_quota_us"),
            ("tasks", "pids", u64::from(wanted.tasks), ("pids.max", String::new()), "pids.max"),
        ];
        for (what, controller, value, (unified_file, suffix), legacy_file) in limits {
            if value == 0 {
                continue;
            }
            if let (true, Some(first)) = (self.ensure_controller(controller), groups.first_mut()) {
                first.limits.push((unified_file.to_owned(), format!("{value}{suffix}")));
            } else if let Some(directory) = self.legacy.get(controller) {
                let mut group = group(directory);
                group.limits.push((legacy_file.to_owned(), value.to_string()));
                groups.push(group);
            } else {
                return Err(Unenforceable(what));
            }
        }
        Ok(groups)
    }

    /// Removes groups that no process lives in; supervisors that were killed left them.
    pub fn ensure_empty_groups_absent(&self) {
        for directory in self.unified.iter().chain(self.legacy.values()) {
            let entries = fs::read_dir(directory).into_iter().flatten().flatten();
            for entry in
                entries.filter(|entry| entry.file_name().as_encoded_bytes().starts_with(PREFIX.as_bytes()))
            {
                drop(fs::remove_dir(entry.path()));
            }
        }
    }

    /// Whether groups below the service's have this controller. The kernel refuses it while a process is in the
    /// service's own group: before systemd 254 the agent itself is.
    fn ensure_controller(&self, controller: &str) -> bool {
        let Some(unified) = &self.unified else { return false };
        let has = |file: &str| {
            let text = fs::read_to_string(unified.join(file)).unwrap_or_default();
            text.split_ascii_whitespace().any(|each| each == controller)
        };
        if !has("cgroup.controllers") {
            return false;
        }
        if !has("cgroup.subtree_control") {
            drop(fs::write(unified.join("cgroup.subtree_control"), format!("+{controller}")));
        }
        has("cgroup.subtree_control")
    }
}

impl Group {
    /// Makes the group and sets its limits; reads back whether they hold.
    ///
    /// # Errors
    /// If it has limits, and one of them does not.
    pub fn ensure(&self) -> std::io::Result<()> {
        let directory = Path::new(&self.directory);
        // Programs read their own limits there, whoever they run as.
        let made = super::files::create_directory(directory, 0o755);
        if self.limits.is_empty() {
            // Without the group the tree is found through /proc alone.
            return Ok(());
        }
        made?;
        for (file, value) in &self.limits {
            let path = directory.join(file);
            fs::write(&path, value)?;
            let held = fs::read_to_string(&path)?;
            if !holds(value, held.trim()) {
                return Err(std::io::Error::other(format!("{file} is {}, not {value}", held.trim())));
            }
        }
        Ok(())
    }
}

/// Whether what a limit's file says is what was written; the kernel rounds memory down to pages.
fn holds(written: &str, held: &str) -> bool {
    match (written.parse::<u64>(), held.parse::<u64>()) {
        (Ok(written), Ok(held)) => held <= written && written - held < 1 << 16,
        _ => written == held,
    }
}

/// Where the hierarchy of this type, and with this controller among its options, is mounted.
fn find_mount<'a>(mountinfo: &'a str, kind: &str, controller: Option<&str>) -> Option<&'a str> {
    // … root mount-point options … - type source options
    mountinfo.lines().find_map(|line| {
        let (left, right) = line.split_once(" - ")?;
        let mut right = right.split(' ');
        let wanted = right.next() == Some(kind)
            && controller.is_none_or(|wanted| {
                right.nth(1).is_some_and(|options| options.split(',').any(|each| each == wanted))
            });
        wanted.then(|| left.split(' ').nth(4)).flatten()
    })
}

fn text(path: &Path) -> String {
    path.display().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    const UNIFIED: &str = "24 1 0:22 / /sys rw,nosuid - sysfs sysfs rw\n\
        30 24 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n";
    const HYBRID: &str = "31 24 0:27 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,name=systemd\n\
        32 24 0:28 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n\
        33 24 0:29 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n\
        34 24 0:30 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n";

    #[test]
    fn only_a_service_of_its_own_is_used() {
        let unit = Some(PathBuf::from("/sys/fs/cgroup/system.slice/fleetward-agent.service"));
        let own = "0::/system.slice/fleetward-agent.service\n";
        assert_eq!(Delegated::locate(UNIFIED, own).unified, unit);
        assert_eq!(
            Delegated::locate(UNIFIED, "0::/system.slice/fleetward-agent.service/agent\n").unified,
            unit
        );
        let session = "0::/user.slice/user-1000.slice/session-1.scope\n";
        assert_eq!(Delegated::locate(UNIFIED, session), Delegated::default());
        assert_eq!(Delegated::locate(UNIFIED, "0::/\n"), Delegated::default());
        assert_eq!(Delegated::locate("", own), Delegated::default());
    }

    #[test]
    fn older_hierarchies_serve_for_limits() {
        let own = "9:name=systemd:/system.slice/a.service\n3:cpu,cpuacct:/system.slice/a.service\n\
            2:memory:/\n0::/system.slice/a.service";
        let delegated = Delegated::locate(HYBRID, own);
        let wanted = Wanted { cpu_milli: 1500, ..Wanted::default() };
        let groups = delegated.groups("x", wanted).unwrap();
        let group = |directory: &str, limits: &[(&str, &str)]| Group {
            directory: directory.into(),
            limits: limits.iter().map(|(file, value)| ((*file).into(), (*value).into())).collect(),
        };
        assert_eq!(
            groups,
            [
                group("/sys/fs/cgroup/unified/system.slice/a.service/run-x", &[]),
                group(
                    "/sys/fs/cgroup/cpu,cpuacct/system.slice/a.service/run-x",
                    &[("cpu.cfs_quota_us", "150000")]
                ),
            ]
        );
        let memory = Wanted { memory: 1 << 30, ..Wanted::default() };
        assert_eq!(delegated.groups("x", memory), Err(Unenforceable("memory")));
        assert_eq!(Delegated::default().groups("x", Wanted::default()), Ok(vec![]));
    }

    #[test]
    fn a_limit_holds_when_it_is_read_back() {
        assert!(holds("1000000", "999424") && holds("150000 100000", "150000 100000") && holds("7", "7"));
        assert!(!holds("1000000", "max") && !holds("1000000", "9223372036854771712") && !holds("100", "200"));
    }
}
