//! Files that are there whole or not at all.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::ops::Range;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};

/// Something about a file failed.
#[derive(Debug, thiserror::Error)]
#[error("{act} {}", path.display())]
pub struct FileError {
    act: &'static str,
    path: PathBuf,
    source: io::Error,
}

impl FileError {
    /// `act` (an infinitive, such as `write`) failed on `path`.
    #[must_use]
    pub fn new(act: &'static str, path: &Path, source: io::Error) -> Self {
        Self { act, path: path.to_owned(), source }
    }

    /// Whether the file is not there.
    #[must_use]
    pub fn is_absent(&self) -> bool {
        self.source.kind() == io::ErrorKind::NotFound
    }
}

/// Makes `path` hold exactly `content`, atomically and durably: after a crash it holds the old content or the new.
///
/// # Errors
/// If any step fails; the old content is still there then.
pub fn ensure_file(path: &Path, mode: u32, content: &[u8]) -> Result<(), FileError> {
    let directory = path.parent().unwrap_or(Path::new("/"));
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let staged = directory.join(name);
    let write = || {
        // A stale file of an earlier crash may have another mode: it is removed, never reused.
        match fs::remove_file(&staged) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&staged)?;
        // The mode of open(2) is subject to the umask; a client ID that services cannot read helps nobody.
        file.set_permissions(std::os::unix::fs::PermissionsExt::from_mode(mode))?;
        file.write_all(content)?;
        file.sync_all()?;
        fs::rename(&staged, path)?;
        File::open(directory)?.sync_all()
    };
    write().map_err(|error| FileError::new("write", path, error))
}

/// Makes sure that the directory `path` exists; a new one gets `mode`, its missing parents 0755.
///
/// # Errors
/// If it cannot be made.
pub fn ensure_directory(path: &Path, mode: u32) -> Result<(), FileError> {
    let make = || {
        if path.is_dir() {
            return Ok(());
        }
        if let Some(parent) = path.parent() {
            fs::DirBuilder::new().recursive(true).mode(0o755).create(parent)?;
        }
        match fs::DirBuilder::new().mode(mode).create(path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            other => other,
        }
    };
    make().map_err(|error| FileError::new("create the directory", path, error))
}

/// Makes sure that `path` does not exist.
///
/// # Errors
/// If it is there and cannot be removed.
pub fn ensure_absent(path: &Path) -> Result<(), FileError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(FileError::new("remove", path, error)),
        _ => Ok(()),
    }
}

/// Renames `from` to `to`, durably.
///
/// # Errors
/// If the rename or the synchronisation of the directory fails.
pub fn ensure_renamed(from: &Path, to: &Path) -> Result<(), FileError> {
    let rename = || {
        fs::rename(from, to)?;
        File::open(to.parent().unwrap_or(Path::new("/")))?.sync_all()
    };
    rename().map_err(|error| FileError::new("rename", from, error))
}

/// Locks `path` for this process until the returned file is dropped; `None` if another process has it.
///
/// # Errors
/// If the file cannot be made or locked.
pub fn lock_exclusively(path: &Path) -> Result<Option<File>, FileError> {
    let lock = || {
        let file = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path)?;
        match file.try_lock() {
            Ok(()) => Ok(Some(file)),
            Err(fs::TryLockError::WouldBlock) => Ok(None),
            Err(fs::TryLockError::Error(error)) => Err(error),
        }
    };
    lock().map_err(|error| FileError::new("lock", path, error))
}

/// The whole of a file that is not larger than `cap` bytes.
///
/// # Errors
/// If it cannot be read or is larger.
pub fn read_file(path: &Path, cap: u64) -> Result<Vec<u8>, FileError> {
    let read = || {
        let file = File::open(path)?;
        let length = file.metadata()?.len();
        let mut content = Vec::with_capacity(usize::try_from(length.min(cap)).unwrap_or(0));
        io::Read::read_to_end(&mut io::Read::take(file, cap + 1), &mut content)?;
        if content.len() as u64 > cap {
            return Err(io::Error::other(format!("it is larger than {cap} bytes")));
        }
        Ok(content)
    };
    read().map_err(|error| FileError::new("read", path, error))
}

/// Begins to write this part of a file to the disk, and gives back the memory that holds what of it is written already
/// (`POSIX_FADV_DONTNEED`, posix_fadvise(2)). For what is not read again soon, or at all: otherwise a host's memory
/// fills with it, and whatever synchronises next has to wait for all of it.
pub fn ensure_written_out(file: &File, part: Range<u64>) {
    let (Ok(from), Ok(to)) = (i64::try_from(part.start), i64::try_from(part.end)) else { return };
    if from < to {
        // Advice: a file system that does not take it loses nothing.
        let _ = posix_fadvise(file, from, to - from, PosixFadviseAdvice::POSIX_FADV_DONTNEED);
    }
}

/// Bytes available to the agent on the file system that holds `path`.
///
/// # Errors
/// If the file system cannot be asked.
pub fn read_free_space(path: &Path) -> io::Result<u64> {
    let stat = nix::sys::statvfs::statvfs(path)?;
    // The block count is 32 bits wide on some targets.
    #[expect(clippy::useless_conversion, reason = "not useless on every target")]
    Ok(u64::from(stat.blocks_available()).saturating_mul(u64::from(stat.fragment_size())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn a_file_is_replaced_whole_with_its_mode() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("key.pem");
        std::fs::write(directory.path().join("key.pem.new"), "left by a crash").unwrap();
        for content in ["one", "two"] {
            ensure_file(&path, 0o600, content.as_bytes()).unwrap();
            assert_eq!(read_file(&path, 3).unwrap(), content.as_bytes());
        }
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1);
        assert!(read_file(&path, 2).is_err());
        assert!(read_file(&directory.path().join("none"), 2).unwrap_err().is_absent());
    }
}
