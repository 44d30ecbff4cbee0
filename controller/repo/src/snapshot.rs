//! The files of one commit.

use std::path::Path;

use fleetward_domain::fleet::inventory::{Found, RepoPath};
use git2::{FileMode, ObjectType, Oid, Repository};

use super::error::detail;
use super::{FetchError, library};

/// The files of one commit in the mirror.
pub struct Snapshot {
    repository: Repository,
    tree: Oid,
}

impl Snapshot {
    /// The files of `commit`, which was fetched into `mirror`.
    ///
    /// # Errors
    /// [`FetchError::Mirror`] if the mirror does not have it.
    pub fn open(mirror: &Path, commit: &str) -> Result<Self, FetchError> {
        library::ensure_ready();
        let open = || {
            let repository = Repository::open_bare(mirror)?;
            let tree = repository.find_commit(Oid::from_str(commit)?)?.tree_id();
            Ok(Self { repository, tree })
        };
        open().map_err(|error: git2::Error| FetchError::Mirror {
            path: mirror.to_owned(),
            detail: detail(&error),
        })
    }

    /// What is at `path`; a file above `limit` bytes is not read.
    #[must_use]
    pub fn find(&self, path: &RepoPath, limit: usize) -> Found {
        self.look_up(path.as_str(), limit).unwrap_or_else(|error| Found::Unreadable(detail(&error)))
    }

    /// Walks component by component, so that a link in the middle is told from a missing file.
    fn look_up(&self, path: &str, limit: usize) -> Result<Found, git2::Error> {
        let mut tree = self.repository.find_tree(self.tree)?;
        let mut components = path.split('/').peekable();
        while let Some(component) = components.next() {
            let Some(entry) = tree.get_name(component) else { return Ok(Found::Missing) };
            let mode = entry.filemode();
            let is = |wanted: FileMode| mode == i32::from(wanted);
            let id = entry.id();
            if is(FileMode::Link) {
                return Ok(Found::NotAFile("a symbolic link"));
            }
            if is(FileMode::Commit) {
                return Ok(Found::NotAFile("a submodule"));
            }
            match (is(FileMode::Tree), components.peek().is_some()) {
                (true, true) => {
                    drop(entry);
                    tree = self.repository.find_tree(id)?;
                }
                (true, false) => return Ok(Found::NotAFile("a directory")),
                (false, true) => return Ok(Found::Missing),
                (false, false) => return self.read(id, is(FileMode::BlobExecutable), limit),
            }
        }
        Ok(Found::Missing)
    }

    fn read(&self, id: Oid, executable: bool, limit: usize) -> Result<Found, git2::Error> {
        let (size, kind) = self.repository.odb()?.read_header(id)?;
        if kind != ObjectType::Blob {
            return Ok(Found::NotAFile("not a file"));
        }
        if size > limit {
            return Ok(Found::TooLarge { size: size as u64 });
        }
        let content = self.repository.find_blob(id)?.content().to_vec();
        Ok(Found::File { content, executable })
    }
}
