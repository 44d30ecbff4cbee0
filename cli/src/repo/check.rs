//! `repo check`: an inventory that is not pushed yet, read as a synchronisation would read it.
//!
//! The files come from a working tree and the rules from `fleetward_domain::fleet::inventory`, so the words are those of the
//! controller. What only the controller knows (names that hosts of the API have, how much a commit takes away from what
//! is in force) it says when it synchronises.

use std::fs::{self, File, Metadata};
use std::io::{self, Read as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::Args;
use fleetward_api::fleet::repo::Problem;
use fleetward_domain::fleet::inventory::{self, Found, RepoPath, Severity};
use serde::Serialize;

use super::findings;
use crate::config::Format;
use crate::failure::{Exit, Failure};
use crate::render::{Out, words};

/// Check an inventory in a directory, without a controller
#[derive(Debug, Args)]
#[command(after_help = "\
Reads links.yaml, scripts.yaml and the scripts they name as `fleetward repo sync` would, and says the same about them. \
It needs no login and no network: run it before a push, or for every change in CI.

Exits with 0 if the inventory could be put in force (warnings do not count), and with 1 if it has errors.

Examples:
  fleetward repo check
  fleetward repo check ~/fleet --output json")]
pub(crate) struct Check {
    /// The top of the working tree
    #[arg(value_name = "DIR", default_value = ".")]
    directory: PathBuf,
}

/// What was found, for programs.
#[derive(Debug, Serialize)]
struct Report {
    /// Whether it could be put in force.
    good: bool,
    /// Hosts; absent if there are errors.
    hosts: Option<usize>,
    /// Scripts; absent if there are errors.
    scripts: Option<usize>,
    problems: Vec<Problem>,
    warnings: Vec<Problem>,
}

/// `fleetward repo check`.
pub(crate) fn execute(command: &Check, out: &Out) -> Result<Exit, Failure> {
    let report = check(&command.directory)?;
    match out.format {
        Format::Json => {
            let text =
                serde_json::to_vec(&report).context("cannot write the report").map_err(Failure::Other)?;
            out.json(&text)?;
        }
        Format::Table => out.print(shown(&report, out))?,
    }
    Ok(if report.good { Exit::Success } else { Exit::Failed })
}

fn check(directory: &Path) -> Result<Report, Failure> {
    let is_directory = fs::metadata(directory)
        .with_context(|| format!("cannot read {}", directory.display()))
        .map_err(Failure::Other)?
        .is_dir();
    if !is_directory {
        let what = format!("{} is not a directory; give the top of the working tree", directory.display());
        return Err(Failure::Usage(what));
    }
    let parsed = inventory::parse(&|path, limit| find(directory, path, limit));
    let (counts, found) = match parsed {
        Ok(inventory) => (Some((inventory.hosts.len(), inventory.scripts.len())), inventory.warnings),
        Err(problems) => (None, problems),
    };
    let (warnings, problems): (Vec<_>, Vec<_>) =
        found.into_iter().partition(|problem| problem.severity == Severity::Warning);
    Ok(Report {
        good: counts.is_some(),
        hosts: counts.map(|(hosts, _)| hosts),
        scripts: counts.map(|(_, scripts)| scripts),
        problems: problems.into_iter().map(view).collect(),
        warnings: warnings.into_iter().map(view).collect(),
    })
}

fn shown(report: &Report, out: &Out) -> String {
    let summary = match (report.hosts, report.scripts) {
        (Some(hosts), Some(scripts)) => {
            format!("good: {} and {}", words::count(hosts, "host"), words::count(scripts, "script"))
        }
        _ => format!("not good: {} in the files", words::count(report.problems.len(), "problem")),
    };
    format!("The inventory is {summary}\n{}", findings(&report.problems, &report.warnings, out))
}

/// What the tree has at `path`, as the controller would find it in a commit: no link is followed.
fn find(directory: &Path, path: &RepoPath, limit: usize) -> Found {
    match look_up(directory, path, limit) {
        Ok(found) => found,
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            Found::Missing
        }
        Err(error) => Found::Unreadable(error.to_string()),
    }
}

fn look_up(directory: &Path, path: &RepoPath, limit: usize) -> io::Result<Found> {
    let mut place = directory.to_owned();
    let mut components = path.as_str().split('/').peekable();
    while let Some(component) = components.next() {
        place.push(component);
        let metadata = fs::symlink_metadata(&place)?;
        if metadata.is_symlink() {
            return Ok(Found::NotAFile("a symbolic link"));
        }
        if metadata.is_dir() && fs::symlink_metadata(place.join(".git")).is_ok() {
            return Ok(Found::NotAFile("a submodule"));
        }
        match (metadata.is_dir(), components.peek().is_some()) {
            (true, true) => {}
            (true, false) => return Ok(Found::NotAFile("a directory")),
            (false, true) => return Ok(Found::Missing),
            (false, false) => return read(&place, &metadata, limit),
        }
    }
    Ok(Found::Missing)
}

fn read(path: &Path, metadata: &Metadata, limit: usize) -> io::Result<Found> {
    if !metadata.is_file() {
        return Ok(Found::NotAFile("not a file"));
    }
    if metadata.len() > limit as u64 {
        return Ok(Found::TooLarge { size: metadata.len() });
    }
    let mut content = Vec::new();
    // It may grow while it is read.
    File::open(path)?.take(limit as u64 + 1).read_to_end(&mut content)?;
    if content.len() > limit {
        return Ok(Found::TooLarge { size: content.len() as u64 });
    }
    Ok(Found::File { content, executable: metadata.permissions().mode() & 0o100 != 0 })
}

fn view(problem: inventory::Problem) -> Problem {
    Problem {
        file: problem.file,
        line: (problem.line > 0).then_some(problem.line),
        field: (!problem.field.is_empty()).then_some(problem.field),
        message: problem.message,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(files: &[(&str, &str)]) -> tempfile::TempDir {
        let directory = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = directory.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        directory
    }

    #[test]
    fn a_working_tree_is_judged_as_a_commit_is() {
        let scripts = "scripts:\n  up: {name: Up, description: Since when, path: s/up.sh}\n";
        let good =
            tree(&[("links.yaml", "links: {}\n"), ("scripts.yaml", scripts), ("s/up.sh", "#!/bin/bash\n")]);
        let report = check(good.path()).unwrap();
        assert_eq!((report.good, report.hosts, report.scripts), (true, Some(0), Some(1)));
        assert!(report.warnings[0].message.contains("s/up.sh is not executable in git"), "{report:?}");
        fs::set_permissions(good.path().join("s/up.sh"), fs::Permissions::from_mode(0o755)).unwrap();
        assert_eq!(check(good.path()).unwrap().warnings, []);

        fs::write(good.path().join("links.yaml"), "links:\n").unwrap();
        let report = check(good.path()).unwrap();
        assert_eq!((report.good, report.hosts, report.problems[0].line), (false, None, Some(1)));
        assert!(report.problems[0].message.contains("an empty fleet is written `links: {}`"), "{report:?}");

        fs::write(good.path().join("links.yaml"), "links: {}\n").unwrap();
        for (what, expected) in
            [("link", "a symbolic link"), ("directory", "a directory"), ("submodule", "a submodule")]
        {
            let path = good.path().join("s/up.sh");
            let _ = fs::remove_file(&path).or_else(|_| fs::remove_dir_all(&path));
            match what {
                "link" => std::os::unix::fs::symlink("/bin/true", &path).unwrap(),
                "directory" => fs::create_dir(&path).unwrap(),
                _ => fs::create_dir_all(path.join(".git")).unwrap(),
            }
            let report = check(good.path()).unwrap();
            assert!(report.problems[0].message.contains(expected), "{what}: {report:?}");
        }
    }

    #[test]
    fn a_directory_without_an_inventory_or_none_at_all_is_told() {
        let empty = tree(&[]);
        assert!(
            check(empty.path()).unwrap().problems[0].message.contains("neither links.yaml nor scripts.yaml")
        );
        let file = tree(&[("x", "")]);
        assert!(matches!(check(&file.path().join("x")), Err(Failure::Usage(_))));
        assert!(matches!(check(&file.path().join("gone")), Err(Failure::Other(_))));
    }
}
