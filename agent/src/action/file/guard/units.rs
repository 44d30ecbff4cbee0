//! Files by which systemd would take away what this host's agent cannot be without. What they are for is judged as the kind
//! `unit-content` judges it.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use fleetward_protocol::action::file::State;
use fleetward_protocol::action::unit_content::UnitFileName;

use super::{PLACES, PUT_ON, UNITS};
use crate::perform::Problem;
use crate::platform::confined::shown;
use crate::platform::systemd::Systemd;

/// There is such a directory where systemd runs the host (sd_booted(3)).
const BOOTED: &str = "/run/systemd/system";

/// Refuses a file in a place of units that is for a unit which the agent is, is started by, or hangs on; and to remove a directory with one.
pub(super) fn ensure_not_for_ours(path: &Path, asked: State) -> Result<(), Problem> {
    let is_near = path.components().any(|part| part.as_os_str() == "systemd")
        || (asked == State::Absent && PLACES.iter().any(|place| Path::new(place).starts_with(path)));
    if !is_near {
        return Ok(());
    }
    let (kept, places) = read(path)?;
    let found = places.iter().find_map(|place| find(path, place, asked, &kept));
    match found {
        Some(unit) => Err(Problem::new(
            format_args!(
                "{} is for {unit}, or holds what is; and this host's agent is that, is started by it, or hangs on it",
                shown(path)
            ),
            "change it on the host itself: only its owner decides about what reaches this host",
        )),
        None => Ok(()),
    }
}

/// The units that the agent cannot be without, and where files of units stand.
fn read(path: &Path) -> Result<(HashSet<String>, Vec<PathBuf>), Problem> {
    let asked =
        Systemd::connect().and_then(|systemd| Ok((systemd.read_all_needed()?, systemd.read_directories()?)));
    let (needed, more) = match asked {
        Ok(told) => told,
        // Nobody reads them here.
        Err(_) if !Path::new(BOOTED).exists() => (Some(HashSet::new()), Vec::new()),
        Err(error) => {
            return Err(Problem::new(
                format_args!(
                    "whether {} is for what this host's agent hangs on cannot be told: {error}",
                    shown(path)
                ),
                "see `systemctl status dbus` on the host",
            ));
        }
    };
    let Some(mut kept) = needed else {
        return Err(Problem::new(
            format_args!(
                "whether {} is for what this host's agent hangs on cannot be told: so much does",
                shown(path)
            ),
            "change it on the host itself",
        ));
    };
    kept.extend(UNITS.map(str::to_owned));
    // The path has no links, and `/lib` may be one.
    let canonical = |place: PathBuf| std::fs::canonicalize(&place).unwrap_or(place);
    let places = PLACES.iter().map(PathBuf::from).chain(more).map(canonical);
    Ok((kept, places.collect()))
}

/// The unit that is kept for which what is at the path is, or what would be removed with it.
fn find(path: &Path, place: &Path, asked: State, kept: &HashSet<String>) -> Option<String> {
    if let Ok(inside) = path.strip_prefix(place)
        && let Some(unit) = meant(inside, kept)
    {
        return Some(unit);
    }
    match asked {
        State::Absent if place.starts_with(path) => held(place, place, 2, kept),
        State::Absent if path.starts_with(place) => held(path, place, 1, kept),
        _ => None,
    }
}

/// The same of what is in a directory, so many steps down: there is nothing of systemd further down.
fn held(directory: &Path, place: &Path, depth: u8, kept: &HashSet<String>) -> Option<String> {
    // What is no directory, or not there, holds nothing.
    for entry in std::fs::read_dir(directory).ok()?.flatten() {
        let path = entry.path();
        let found = path.strip_prefix(place).ok().and_then(|inside| meant(inside, kept));
        let is_directory = depth > 1 && entry.file_type().is_ok_and(|kind| kind.is_dir());
        let found = found.or_else(|| if is_directory { held(&path, place, depth - 1, kept) } else { None });
        if found.is_some() {
            return found;
        }
    }
    None
}

/// The unit that is kept for which systemd reads what has this path in a place of units.
fn meant(inside: &Path, kept: &HashSet<String>) -> Option<String> {
    let mut names = inside.iter().map(OsStr::to_str);
    let name = names.next()??;
    let first = |is_for: &dyn Fn(&str) -> bool| kept.iter().filter(|unit| is_for(unit)).min().cloned();
    if let Some(of) = name.strip_suffix(".d") {
        let file = of.parse::<UnitFileName>().ok();
        // `service.d` is put on all services (systemd.unit(5)).
        let is_of_type = |unit: &str| unit.rsplit_once('.').is_some_and(|(_, kind)| kind == of);
        return first(&|unit| is_of_type(unit) || file.as_ref().is_some_and(|file| file.is_put_on(unit)));
    }
    if PUT_ON.iter().any(|put_on| name.ends_with(put_on)) {
        // A link to it there is what starts it.
        let link = names.next()??;
        return first(&|unit| unit == link);
    }
    let file = name.parse::<UnitFileName>().ok()?;
    first(&|unit| file.is_read_for(unit))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    fn kept() -> HashSet<String> {
        let kept =
            ["fleetward-agent.service", "system.slice", "-.slice", "dbus.service", "multi-user.target"];
        kept.map(str::to_owned).into()
    }

    #[test]
    fn what_is_for_a_unit_that_is_kept_is_known_by_its_name() {
        for (path, unit) in [
            ("system.slice.d/x.conf", Some("system.slice")),
            ("-.slice.d", Some("-.slice")),
            ("dbus.service.d/x.conf", Some("dbus.service")),
            ("dbus.service", Some("dbus.service")),
            ("multi-user.target.d/x.conf", Some("multi-user.target")),
            ("service.d/x.conf", Some("dbus.service")),
            ("slice.d", Some("-.slice")),
            ("multi-user.target.wants/fleetward-agent.service", Some("fleetward-agent.service")),
            ("multi-user.target.wants/nginx.service", None),
            ("multi-user.target.wants", None),
            ("nginx.service.d/x.conf", None),
            ("nginx.service", None),
            ("timer.d/x.conf", None),
            ("", None),
        ] {
            assert_eq!(meant(Path::new(path), &kept()).as_deref(), unit, "{path}");
        }
    }

    #[test]
    fn what_holds_a_link_of_a_unit_that_is_kept_is_not_removed() {
        let top = tempfile::tempdir().unwrap();
        let place = top.path().join("etc/systemd/system");
        let (wants, other) = (place.join("multi-user.target.wants"), place.join("getty.target.wants"));
        for directory in [&wants, &other] {
            fs::create_dir_all(directory).unwrap();
            symlink("/lib/systemd/system/getty.service", directory.join("getty.service")).unwrap();
        }
        let removes = |path: &Path| find(path, &place, State::Absent, &kept()).is_none();
        assert!(removes(&wants) && removes(&place));
        symlink("/lib/systemd/system/fleetward-agent.service", wants.join("fleetward-agent.service"))
            .unwrap();
        for path in [&wants, &place, &top.path().join("etc/systemd"), &top.path().join("etc")] {
            assert!(!removes(path), "{}", path.display());
            assert!(find(path, &place, State::Directory, &kept()).is_none(), "it is not removed");
        }
        assert!(removes(&other));
    }
}
