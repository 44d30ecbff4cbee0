//! The laws of the house: what `docs/architecture.md` says of the tree is checked here, on the tree.
//!
//! A law that stands in a document rots; one that fails a build holds.

mod areas;
mod dependencies;
mod kinds;
mod layout;
mod promises;
mod source;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A tracked file.
pub(crate) struct SourceFile {
    /// From the repository's root, with `/`.
    pub(crate) path: String,
    /// What it holds.
    pub(crate) text: String,
}

impl SourceFile {
    /// The lines before the first `#[cfg(test)]`, numbered from 1: what ships.
    pub(crate) fn shipped_lines(&self) -> impl Iterator<Item = (usize, &str)> {
        self.text
            .lines()
            .take_while(|line| line.trim() != "#[cfg(test)]")
            .enumerate()
            .map(|(index, line)| (index + 1, line))
    }

    pub(crate) fn is_test(&self) -> bool {
        self.path.starts_with("tests/")
            || self.path.contains("/tests/")
            || self.path.contains("/fuzz/")
            || self.path.contains("/benches/")
            || self.path.ends_with("/tests.rs")
            || self.path.ends_with("/testing.rs")
            || self.path.contains("/testing/")
    }
}

pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the tests crate lies in the workspace").to_owned()
}

/// Every tracked or new text file whose path ends with one of `endings`.
pub(crate) fn files(endings: &[&str]) -> Vec<SourceFile> {
    let listing = Command::new("git")
        .args(["ls-files", "--cached", "--others", "--exclude-standard"])
        .current_dir(root())
        .output()
        .expect("git lists the tree");
    assert!(listing.status.success(), "git ls-files failed: {}", String::from_utf8_lossy(&listing.stderr));
    let paths = String::from_utf8(listing.stdout).expect("paths are UTF-8");
    let wanted = paths.lines().filter(|path| endings.iter().any(|ending| path.ends_with(ending)));
    let found: Vec<SourceFile> = wanted
        .filter_map(|path| {
            Some(SourceFile { path: path.to_owned(), text: fs::read_to_string(root().join(path)).ok()? })
        })
        .collect();
    assert!(!found.is_empty(), "no file ends with {endings:?}: the law would hold by looking at nothing");
    found
}

/// Fails with one line per violation.
pub(crate) fn assert_none(law: &str, violations: &[String]) {
    assert!(violations.is_empty(), "{law}\n  {}", violations.join("\n  "));
}
