//! What is not changed through the agent, whoever asks: its own files, by which its host's owner decides; and what the kernel
//! shows as files.

mod units;

use std::fs::Metadata;
use std::path::{Component, Path, PathBuf};

use fleetward_protocol::action::file::State;
use fleetward_protocol::action::unit_content::UnitFileName;
use nix::sys::statfs::{
    CGROUP_SUPER_MAGIC, CGROUP2_SUPER_MAGIC, DEBUGFS_MAGIC, FsType, PROC_SUPER_MAGIC, SYSFS_MAGIC, fstatfs,
};

use crate::config::{CLIENT_ID_FILE, CONFIG_FILE, STATE_DIRECTORY};
use crate::perform::Problem;
use crate::platform::confined::attributes::Attributes;
use crate::platform::confined::directory::Directory;
use crate::platform::confined::shown;

/// Where the kernel shows itself.
const OF_KERNEL: [&str; 3] = ["/proc", "/sys", "/dev"];
/// The file systems of it, wherever they are mounted.
const KERNEL_TYPES: [FsType; 5] =
    [PROC_SUPER_MAGIC, SYSFS_MAGIC, CGROUP_SUPER_MAGIC, CGROUP2_SUPER_MAGIC, DEBUGFS_MAGIC];
/// The units that start the agent.
const UNITS: [&str; 2] = ["fleetward-agent.service", "fleetward-agent.path"];
/// What directories are called behind the name of a unit that systemd puts on it (systemd.unit(5)).
const PUT_ON: [&str; 4] = [".d", ".wants", ".requires", ".upholds"];
/// Where systemd looks for units (systemd.unit(5)).
const PLACES: [&str; 13] = [
    "/etc/systemd/system",
    "/etc/systemd/system.control",
    "/etc/systemd/system.attached",
    "/run/systemd/system",
    "/run/systemd/system.control",
    "/run/systemd/system.attached",
    "/run/systemd/transient",
    "/run/systemd/generator",
    "/run/systemd/generator.early",
    "/run/systemd/generator.late",
    "/usr/local/lib/systemd/system",
    "/usr/lib/systemd/system",
    "/lib/systemd/system",
];

/// Refuses what is the agent's own or the kernel's: a path without links, that `directory` is the last directory of which
/// is there; `state` is where the agent keeps its own.
pub(super) fn ensure_not_ours(
    path: &Path,
    directory: &Directory,
    asked: State,
    state: &Path,
) -> Result<(), Problem> {
    for own in own(state) {
        ensure_apart(path, &own, asked)?;
    }
    let has_unit = |part: Component<'_>| {
        let Component::Normal(name) = part else { return false };
        name.to_str().is_some_and(|name| UNITS.iter().any(|unit| name == *unit || is_put_on(name, unit)))
    };
    if path.components().any(has_unit) || is_put_on_all(path) {
        return Err(ours(path));
    }
    units::ensure_not_for_ours(path, asked)?;
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

/// Refuses to make a directory on the way to what is the agent's own one that somebody else could change: the agent would obey
/// nothing behind it any more (`platform::trust`), and nobody could take that back from afar.
pub(super) fn ensure_way_kept(
    path: &Path,
    now: &Metadata,
    attributes: Attributes,
    state: &Path,
) -> Result<(), Problem> {
    if !own(state).any(|own| own.starts_with(path)) {
        return Ok(());
    }
    let Attributes { owner, mode, .. } = attributes.or(Attributes::of(now));
    let (owner, mode) = (owner.unwrap_or(0), mode.unwrap_or(0));
    let is_anothers = owner != 0 && owner != nix::unistd::geteuid().as_raw();
    let is_open = mode & 0o022 != 0 && mode & 0o1000 == 0;
    match is_anothers || is_open {
        true => Err(Problem::new(
            format_args!(
                "{} leads to what belongs to this host's agent, which obeys nothing that others than root could change",
                shown(path)
            ),
            "leave it root's, and writable by root alone; or do it on the host itself",
        )),
        false => Ok(()),
    }
}

/// What is the agent's own.
fn own(state: &Path) -> impl Iterator<Item = PathBuf> {
    let fixed = [
        Path::new(CONFIG_FILE).parent(),
        Path::new(CLIENT_ID_FILE).parent(),
        Some(Path::new(STATE_DIRECTORY)),
    ];
    let fixed = fixed.map(|path| path.map(Path::to_owned));
    fixed.into_iter().chain([std::fs::canonicalize(state).ok(), std::env::current_exe().ok()]).flatten()
}

/// Whether a directory of this name is put on the unit: its own, or that of names which begin as its does (`fleetward-.service.d`).
fn is_put_on(name: &str, unit: &str) -> bool {
    let of = PUT_ON.iter().find_map(|put_on| name.strip_suffix(put_on));
    of.and_then(|of| of.parse::<UnitFileName>().ok()).is_some_and(|of| of.is_put_on(unit))
}

/// Whether it is in a directory that is put on all units of a type, such as `/etc/systemd/system/service.d`: the agent's are among
/// them. Elsewhere that name says nothing.
fn is_put_on_all(path: &Path) -> bool {
    let types = UNITS.iter().filter_map(|unit| unit.rsplit_once('.')).map(|(_, kind)| kind);
    let names = |kind: &str| PUT_ON.map(|put_on| format!("{kind}{put_on}"));
    types
        .flat_map(names)
        .any(|name| PLACES.iter().any(|place| path.starts_with(Path::new(place).join(&name))))
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
            "/etc/systemd/system/fleetward-.service.d/override.conf",
            "/etc/systemd/system/fleetward-.path.d",
            "/etc/systemd/system/fleetward-.service.requires/x.service",
            "/etc/systemd/system/fleetward-agent.service.wants/x.service",
            "/etc/systemd/system/service.d/override.conf",
            "/run/systemd/system/path.d/override.conf",
            "/etc/systemd/system/multi-user.target.wants/fleetward-agent.service",
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
        for path in [
            "/etc/fleetward-notes",
            "/etc/fleetwar",
            "/devices",
            "/srv/fleetward-agent.deb",
            "/var/lib",
            "/etc/systemd/system/fleet-.service.d/x.conf",
            "/etc/systemd/system/timer.d/x.conf",
            "/srv/service.d/x.conf",
            "/srv/fleetward-agent.service-notes",
        ] {
            assert!(check(Path::new(path), State::Present).is_ok(), "{path}");
        }
        let (process, _) = Confines::everywhere().open_parent(Path::new("/proc/self/x")).unwrap();
        let moved = ensure_not_ours(Path::new("/srv/x"), &process, State::Present, state.path());
        assert!(moved.unwrap_err().reason.contains("the kernel shows itself"), "wherever it is mounted");
    }

    #[test]
    fn what_leads_to_the_agents_own_stays_roots() {
        let top = tempfile::tempdir().unwrap();
        let path = top.path().canonicalize().unwrap();
        let (state, beside) = (path.join("state"), path.join("beside"));
        std::fs::create_dir(&state).unwrap();
        std::fs::create_dir(&beside).unwrap();
        let now = std::fs::metadata(&path).unwrap();
        let check = |path: &Path, owner, mode| {
            ensure_way_kept(path, &now, Attributes { owner, mode, group: None }, &state)
        };
        for (owner, mode) in
            [(None, Some(0o777)), (None, Some(0o775)), (Some(65534), None), (Some(65534), Some(0o700))]
        {
            assert!(check(&path, owner, mode).is_err(), "{owner:?} {mode:?}");
            assert!(check(&beside, owner, mode).is_ok(), "{owner:?} {mode:?}");
        }
        for etc in ["/etc", "/var/lib", "/var", "/etc/fleetward"] {
            assert!(check(Path::new(etc), None, Some(0o777)).is_err(), "{etc}");
        }
        for mode in [0o755, 0o700, 0o1777] {
            assert!(check(&path, None, Some(mode)).is_ok(), "{mode:o}");
        }
    }
}
