//! Files that are there to be locked, one for each thing that somebody may work on.

use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::{Duration, SystemTime};

use super::files::{self, FileError};

/// The lock at this path, held until it is dropped; `None` if another process has it.
///
/// # Errors
/// If the file cannot be made, locked or looked at.
pub fn lock(path: &Path) -> Result<Option<File>, FileError> {
    let lock = take(path)?;
    if let Some(lock) = &lock {
        // In use from now on, for `remove_unused`. Where that cannot be said, it goes sooner.
        drop(lock.set_modified(SystemTime::now()));
    }
    Ok(lock)
}

/// Removes the locks in a directory that nobody has, and nobody took for this long. What cannot be removed stays, and is in nobody's
/// way.
pub fn remove_unused(directory: &Path, unused: Duration) {
    let is_unused = |metadata: io::Result<Metadata>| {
        let modified = metadata.and_then(|metadata| metadata.modified());
        modified.is_ok_and(|modified| modified.elapsed().is_ok_and(|age| age > unused))
    };
    for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
        let path = entry.path();
        if is_unused(entry.metadata())
            && let Ok(Some(lock)) = take(&path)
            // Somebody may have had it meanwhile.
            && is_unused(lock.metadata())
        {
            drop(std::fs::remove_file(&path));
        }
    }
}

fn take(path: &Path) -> Result<Option<File>, FileError> {
    loop {
        let Some(lock) = files::lock_exclusively(path)? else { return Ok(None) };
        // Between its opening and its locking it may have been removed: whoever comes next would lock another one.
        if is_at(&lock, path).map_err(|error| FileError::new("look at", path, error))? {
            return Ok(Some(lock));
        }
    }
}

/// Whether this file is the one at the path.
fn is_at(file: &File, path: &Path) -> io::Result<bool> {
    let identity = |metadata: &Metadata| (metadata.dev(), metadata.ino());
    match std::fs::symlink_metadata(path) {
        Ok(there) => Ok(identity(&there) == identity(&file.metadata()?)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_that_was_removed_is_no_lock_and_one_that_is_used_stays() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a");
        let held = lock(&path).unwrap().unwrap();
        assert!(is_at(&held, &path).unwrap());
        assert!(lock(&path).unwrap().is_none());
        remove_unused(directory.path(), Duration::ZERO);
        assert!(path.exists(), "somebody has it");
        std::fs::remove_file(&path).unwrap();
        assert!(!is_at(&held, &path).unwrap());
        let other = lock(&path).unwrap().unwrap();
        assert!(!is_at(&held, &path).unwrap() && is_at(&other, &path).unwrap());
        drop(other);
        remove_unused(directory.path(), Duration::from_secs(3600));
        assert!(path.exists(), "it was taken a moment ago");
        other_than_now(&path);
        remove_unused(directory.path(), Duration::from_secs(3600));
        assert!(!path.exists());
    }

    fn other_than_now(path: &Path) {
        let before = SystemTime::now() - Duration::from_secs(7200);
        File::options().write(true).open(path).unwrap().set_modified(before).unwrap();
    }
}
