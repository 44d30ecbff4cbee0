//! Files that are there whole or not at all.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::ops::Range;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use nix::fcntl::{OFlag, PosixFadviseAdvice, posix_fadvise};
use nix::sys::stat::{Mode, umask};

use super::trust::{self, Distrust, Impasse, Secrecy};

/// A user that owns nothing (`nobody`).
const NOBODY: u32 = 65_534;

/// Something about a file failed.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// The operating system said no.
    #[error("{act} {}", path.display())]
    Failed {
        /// What was tried: an infinitive, such as `write`.
        act: &'static str,
        /// On which file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Others could have written it, or could read what is secret.
    #[error(transparent)]
    Distrusted(#[from] Distrust),
}

impl FileError {
    /// `act` (an infinitive, such as `write`) failed on `path`.
    #[must_use]
    pub fn new(act: &'static str, path: &Path, source: io::Error) -> Self {
        Self::Failed { act, path: path.to_owned(), source }
    }

    /// Whether the file is not there.
    #[must_use]
    pub fn is_absent(&self) -> bool {
        matches!(self, Self::Failed { source, .. } if source.kind() == io::ErrorKind::NotFound)
    }
}

/// Takes every right of group and others away from what this process makes from now on. What others may read gets its
/// mode explicitly, so that it does not depend on who started the agent; see [`ensure_file`], [`ensure_directory`].
pub fn ensure_private_umask() {
    umask(Mode::from_bits_truncate(0o077));
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
        file.set_permissions(fs::Permissions::from_mode(mode))?;
        file.write_all(content)?;
        file.sync_all()?;
        fs::rename(&staged, path)?;
        File::open(directory)?.sync_all()
    };
    write().map_err(|error| FileError::new("write", path, error))
}

/// Makes sure that the directory `path` exists; a new one gets `mode`, its missing parents 0755, whatever the umask.
///
/// # Errors
/// If it cannot be made.
pub fn ensure_directory(path: &Path, mode: u32) -> Result<(), FileError> {
    fn make(path: &Path, mode: u32) -> io::Result<()> {
        if path.is_dir() {
            return Ok(());
        }
        if let Some(parent) = path.parent() {
            make(parent, 0o755)?;
        }
        match create_directory(path, mode) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            other => other,
        }
    }
    make(path, mode).map_err(|error| FileError::new("create the directory", path, error))
}

/// Makes a new directory with exactly this mode.
///
/// # Errors
/// If it is there already, or cannot be made.
pub fn create_directory(path: &Path, mode: u32) -> io::Result<()> {
    // Never more open than meant, not even for a moment; then as open as meant, which the umask may have prevented.
    fs::DirBuilder::new().mode(mode).create(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
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
    let read = || read_whole(open_file(path)?, cap);
    read().map_err(|error| FileError::new("read", path, error))
}

/// The whole of a file that is not larger than `cap` bytes, if every user of this host may read it.
///
/// # Errors
/// If it cannot be read, is larger, or is kept from some.
pub fn read_public(path: &Path, cap: u64) -> Result<Vec<u8>, FileError> {
    let read = || {
        let kept = |why: String| Err(io::Error::new(io::ErrorKind::PermissionDenied, why));
        let whole = fs::canonicalize(path)?;
        // Whoever is neither root nor in any group.
        if let Some(barrier) = whole.parent().and_then(|directory| read_barrier(directory, NOBODY, &[])) {
            return kept(format!("not everybody on the host may pass through {}", barrier.display()));
        }
        let file = open_file(&whole)?;
        match file.metadata()?.mode() & 0o7777 {
            mode if mode & 0o004 == 0 => {
                kept(format!("not everybody on the host may read it (mode {mode:04o})"))
            }
            _ => read_whole(file, cap),
        }
    };
    read().map_err(|error| FileError::new("read", path, error))
}

/// The same, of a file that the agent obeys or keeps a secret in: nobody but root and the agent's own user may be able
/// to write it, or to read it if it is private, and the same holds for everything on the way to it, links included.
///
/// # Errors
/// As [`read_file`], and [`FileError::Distrusted`].
pub fn read_trusted(path: &Path, cap: u64, secrecy: Secrecy) -> Result<Vec<u8>, FileError> {
    let path = &follow("read", path)?;
    let failed = |error| FileError::new("read", path, error);
    let file = open_file(path).map_err(failed)?;
    // Of the file that is open: another could have taken its place meanwhile.
    Distrust::find(path, &file.metadata().map_err(failed)?, secrecy)?;
    read_whole(file, cap).map_err(failed)
}

/// Whether `path` may be trusted: see [`read_trusted`]. A directory that others may write to has to be sticky, as
/// `/tmp` is.
///
/// # Errors
/// [`FileError::Distrusted`] if not, and if it is not there.
pub fn read_trust(path: &Path, secrecy: Secrecy) -> Result<(), FileError> {
    let path = &follow("look at", path)?;
    let metadata = fs::metadata(path).map_err(|error| FileError::new("look at", path, error))?;
    Ok(Distrust::find(path, &metadata, secrecy)?)
}

/// Where `path` leads; see [`trust::follow`].
fn follow(act: &'static str, path: &Path) -> Result<PathBuf, FileError> {
    trust::follow(path).map_err(|impasse| match impasse {
        Impasse::Distrusted(distrust) => distrust.into(),
        Impasse::Failed(path, error) => FileError::new(act, &path, error),
    })
}

/// Opens a regular file. Opening a FIFO would wait for somebody who writes to it, and a device may never end.
fn open_file(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new().read(true).custom_flags(OFlag::O_NONBLOCK.bits()).open(path)?;
    match file.metadata()?.is_file() {
        true => Ok(file),
        false => Err(io::Error::other("it is no regular file")),
    }
}

fn read_whole(file: File, cap: u64) -> io::Result<Vec<u8>> {
    let length = file.metadata()?.len();
    let mut content = Vec::with_capacity(usize::try_from(length.min(cap)).unwrap_or(0));
    io::Read::read_to_end(&mut io::Read::take(file, cap + 1), &mut content)?;
    if content.len() as u64 > cap {
        return Err(io::Error::other(format!("it is larger than {cap} bytes")));
    }
    Ok(content)
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

/// The first directory on the way to `path` that this user may not pass through, as far as modes say.
#[must_use]
pub fn read_barrier(path: &Path, uid: u32, groups: &[u32]) -> Option<PathBuf> {
    let mut ways: Vec<_> = path.ancestors().collect();
    ways.reverse();
    let barrier = ways.into_iter().find(|way| {
        fs::metadata(way).is_ok_and(|found| {
            let bit = match () {
                () if found.uid() == uid => 0o100,
                () if groups.contains(&found.gid()) => 0o010,
                () => 0o001,
            };
            found.is_dir() && found.mode() & bit == 0
        })
    });
    barrier.map(Path::to_owned)
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

    /// One process per test: the umask is the whole process's.
    #[test]
    fn a_mode_does_not_depend_on_the_umask() {
        let directory = tempfile::tempdir().unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
        for mask in [0o000, 0o022, 0o077] {
            umask(Mode::from_bits_truncate(mask));
            let parent = directory.path().join(format!("{mask:o}"));
            let child = parent.join("runs");
            ensure_directory(&child, 0o711).unwrap();
            ensure_file(&child.join("private"), 0o600, b"").unwrap();
            ensure_file(&child.join("public"), 0o644, b"").unwrap();
            drop(lock_exclusively(&child.join("lock")).unwrap());
            let modes = [&parent, &child, &child.join("private"), &child.join("public"), &child.join("lock")];
            assert_eq!(modes.map(|path| mode(path)), [0o755, 0o711, 0o600, 0o644, 0o600], "umask {mask:o}");
        }
        ensure_private_umask();
        assert_eq!(umask(Mode::empty()).bits(), 0o077);
    }

    #[test]
    fn what_is_no_regular_file_is_refused_and_not_waited_for() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("agent.toml");
        nix::unistd::mkfifo(&path, Mode::S_IRUSR | Mode::S_IWUSR).unwrap();
        for path in [path.as_path(), Path::new("/dev/zero"), directory.path()] {
            let refused = read_file(path, 10).unwrap_err();
            assert!(
                format!("{:#}", anyhow::Error::from(refused)).contains("no regular file"),
                "{}",
                path.display()
            );
            assert!(read_trusted(path, 10, Secrecy::Public).is_err());
        }
    }

    #[test]
    fn what_some_may_not_read_is_not_public() {
        let directory = tempfile::tempdir_in("/tmp").unwrap();
        let path = directory.path().join("a.service");
        std::fs::write(&path, "[Unit]").unwrap();
        let mode = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        let refused = |path: &Path| format!("{:#}", anyhow::Error::from(read_public(path, 99).unwrap_err()));
        mode(&path, 0o644);
        mode(directory.path(), 0o700);
        assert!(refused(&path).contains("may pass through"), "{}", refused(&path));
        mode(directory.path(), 0o755);
        assert_eq!(read_public(&path, 99).unwrap(), b"[Unit]");
        let link = directory.path().join("link");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        mode(&path, 0o640);
        for path in [&path, &link] {
            assert!(refused(path).contains("may read it (mode 0640)"), "{}", refused(path));
        }
    }

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
