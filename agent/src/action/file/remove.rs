//! Removes what is at a path. That cannot be undone.

use std::ffi::OsStr;

use fleetward_protocol::action::file::{File, FileReport, MAX_KEPT};
use fleetward_protocol::text::Text;

use super::{Found, Plan, failed, problem, stamp};
use crate::perform::{Failure, Left, Problem, Steps};
use crate::platform::confined::directory::Directory;
use crate::platform::confined::{shown, tree};

pub(super) fn plan(asked: &File, found: &Found) -> Result<Plan, Problem> {
    let Some(seen) = &found.seen else { return Ok(Plan::Nothing) };
    if !seen.metadata.is_dir() {
        return Ok(Plan::Remove);
    }
    let directory = found.directory.open_directory(&found.name).map_err(|error| problem(&error))?;
    let is_empty = directory.first_names(1).map_err(|error| problem(&error))?.is_empty();
    match (asked.recursive, asked.backup) {
        (false, _) if !is_empty => Err(Problem::new(
            format_args!("{} is a directory with something in it", shown(&seen.path)),
            "ask with `recursive` to remove all of that, too",
        )),
        (_, true) => Err(Problem::new(
            format_args!("{} is a directory, and only files are kept", shown(&seen.path)),
            "ask without `backup`, or move it away on the host",
        )),
        (true, false) => Ok(Plan::RemoveTree),
        (false, false) => Ok(Plan::RemoveDirectory),
    }
}

pub(super) fn perform(
    asked: &File,
    found: &Found,
    mut report: FileReport,
    steps: &mut Steps,
) -> Result<FileReport, Failure<FileReport>> {
    let words = format!("remove {}", asked.path);
    let kept = steps.change("remove", words, |_, _| Ok(None), |steps| remove(asked, found, steps))?;
    report.changed = true;
    report.backup = kept.map(Text::of).or(report.backup);
    let verified = steps.look("verify", &asked.path, |_| {
        match found.directory.look(&found.name).map_err(|error| problem(&error))? {
            None => Ok(()),
            Some(seen) => Err(Problem::new(
                format_args!("{} is there again", shown(&seen.path)),
                "see which program makes it, and stop that first",
            )),
        }
    });
    match verified {
        Ok(()) => {
            report.after = None;
            Ok(report)
        }
        Err(problem) => Err(failed(problem, Left::AsItIs, report)),
    }
}

/// Removes it; where it is kept, if it is.
fn remove(asked: &File, found: &Found, steps: &mut Steps) -> Result<Option<String>, Problem> {
    let Found { directory, name, .. } = found;
    if found.plan == Plan::RemoveDirectory {
        return remove_empty(directory, name).map(|()| None);
    }
    if found.plan == Plan::RemoveTree {
        let removed = tree::ensure_removed(directory, name, &mut || steps.stop().requested().is_some());
        let removed = removed.map_err(|error| {
            Problem::new(format_args!("{error}; what was removed before stays so"), error.advice())
        })?;
        let removed = removed.ok_or_else(|| {
            Problem::new(
                "stopped before all of it was removed",
                "what was removed stays so; ask again for the rest",
            )
        })?;
        steps.say(format_args!("{removed} names were removed"));
        return Ok(None);
    }
    let place = found.place();
    let kept = match asked.backup {
        true => Some(place.keep(name, &stamp()).map_err(|error| problem(&error))?),
        false => {
            directory.remove(name).map_err(|error| problem(&error))?;
            None
        }
    };
    directory.sync().map_err(|error| problem(&error))?;
    if kept.is_some() {
        place.ensure_few_kept(MAX_KEPT).map_err(|error| problem(&error))?;
    }
    Ok(kept.map(|name| shown(&directory.path().join(name))))
}

/// Removes a directory that was empty. What came into it since nobody asked to remove: the kernel says so.
fn remove_empty(directory: &Directory, name: &OsStr) -> Result<(), Problem> {
    directory.remove_directory(name).and_then(|_| directory.sync()).map_err(|error| problem(&error))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::platform::confined::Confines;

    #[test]
    fn what_comes_into_an_empty_directory_meanwhile_stays() {
        let top = tempfile::tempdir().unwrap();
        let path = top.path().canonicalize().unwrap().join("spool");
        std::fs::create_dir(&path).unwrap();
        let (directory, _) = Confines::everywhere().open_parent(&path).unwrap();
        let seen = directory.look("spool".as_ref()).unwrap();
        let mut found =
            Found { directory, missing: Vec::new(), name: "spool".into(), seen, plan: Plan::Nothing };
        let asked = |params| serde_json::from_value::<File>(params).unwrap();
        found.plan = plan(&asked(json!({ "path": path, "state": "absent" })), &found).unwrap();
        assert_eq!(found.plan, Plan::RemoveDirectory);
        std::fs::write(path.join("message"), "late").unwrap();
        let problem = remove_empty(&found.directory, &found.name).unwrap_err();
        assert!(problem.reason.contains("not empty"), "{problem:?}");
        assert!(problem.advice.contains("came into it"), "{problem:?}");
        assert!(path.join("message").exists());
        std::fs::remove_file(path.join("message")).unwrap();
        remove_empty(&found.directory, &found.name).unwrap();
        assert!(!path.exists());
    }
}
