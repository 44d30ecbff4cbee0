//! An open directory, and what is done with the names in it: each by one step that follows no link.

use std::ffi::{OsStr, OsString};
use std::fs::{File, Metadata};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, OpenHow, RenameFlags, ResolveFlag, openat2, renameat2};
use nix::sys::stat::{Mode, mkdirat};
use nix::sys::statvfs::{FsFlags, fstatvfs};
use nix::unistd::{UnlinkatFlags, linkat, unlinkat};

use super::{ConfinedError, Seen, ensure_kind};

/// A directory. What is done with its names is done in it, wherever it is moved.
#[derive(Debug)]
pub struct Directory {
    handle: File,
    path: PathBuf,
}

/// What is done with something that has the name already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Existing {
    /// It is replaced.
    Replace,
    /// It stays, and nothing is done.
    Keep,
}

impl Directory {
    pub(super) const fn new(handle: File, path: PathBuf) -> Self {
        Self { handle, path }
    }

    /// Where it was when it was opened.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// It, for [`fchmod`](std::fs::File::set_permissions) and the like.
    #[must_use]
    pub const fn handle(&self) -> &File {
        &self.handle
    }

    /// The same directory once more.
    ///
    /// # Errors
    /// If there is no descriptor left for it.
    pub fn again(&self) -> Result<Self, ConfinedError> {
        let handle =
            self.handle.try_clone().map_err(|error| ConfinedError::new("opening", &self.path, error))?;
        Ok(Self { handle, path: self.path.clone() })
    }

    /// Whether its file system takes changes at all, so that it is known before any is begun.
    ///
    /// # Errors
    /// If it does not.
    pub fn ensure_writable(&self) -> Result<(), ConfinedError> {
        let is_read_only = fstatvfs(self).is_ok_and(|found| found.flags().contains(FsFlags::ST_RDONLY));
        match is_read_only {
            true => Err(ConfinedError::new("changing", &self.path, Errno::EROFS)),
            false => Ok(()),
        }
    }

    /// What it is like.
    ///
    /// # Errors
    /// If it cannot be asked.
    pub fn metadata(&self) -> Result<Metadata, ConfinedError> {
        self.handle.metadata().map_err(|error| ConfinedError::new("looking at", &self.path, error))
    }

    /// Calls `each` with every name in it but `.` and `..`, in no order, until it says that this was enough.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn read_names(&self, mut each: impl FnMut(&OsStr) -> bool) -> Result<(), ConfinedError> {
        let failed = |errno| ConfinedError::new("reading", &self.path, errno);
        // Opened anew: whoever reads one descriptor twice goes on where it was.
        let again = self
            .open(OsStr::new("."), OFlag::O_RDONLY | OFlag::O_DIRECTORY, Mode::empty())
            .map_err(failed)?;
        let mut directory = Dir::from_fd(again.into()).map_err(failed)?;
        for entry in directory.iter() {
            let entry = entry.map_err(failed)?;
            let name = entry.file_name().to_bytes();
            if name != b"." && name != b".." && !each(OsStr::from_bytes(name)) {
                break;
            }
        }
        Ok(())
    }

    /// What has this name, links as themselves; `None` if nothing has.
    ///
    /// # Errors
    /// If it cannot be looked at.
    pub fn look(&self, name: &OsStr) -> Result<Option<Seen>, ConfinedError> {
        let path = self.path.join(name);
        let handle = match self.open(name, OFlag::O_PATH, Mode::empty()) {
            Ok(handle) => handle,
            Err(Errno::ENOENT) => return Ok(None),
            Err(errno) => return Err(ConfinedError::new("looking at", &path, errno)),
        };
        let metadata = handle.metadata().map_err(|error| ConfinedError::new("looking at", &path, error))?;
        Ok(Some(Seen { path, handle, metadata }))
    }

    /// Opens the regular file of this name for reading.
    ///
    /// # Errors
    /// If it is none, or cannot be opened.
    pub fn open_file(&self, name: &OsStr) -> Result<(File, Metadata), ConfinedError> {
        let path = self.path.join(name);
        let failed = |source| ConfinedError::new("opening", &path, source);
        let seen = self.look(name)?.ok_or_else(|| failed(Errno::ENOENT))?;
        ensure_kind(&path, &seen.metadata, Metadata::is_file, "regular file")?;
        let flags = OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
        let file = self.open(name, flags, Mode::empty()).map_err(failed)?;
        let metadata = file.metadata().map_err(|error| ConfinedError::new("looking at", &path, error))?;
        // Something else could have taken its place.
        ensure_kind(&path, &metadata, Metadata::is_file, "regular file")?;
        Ok((file, metadata))
    }

    /// Opens the directory of this name, on the same file system.
    ///
    /// # Errors
    /// If it is none, or another file system is mounted there.
    pub fn open_directory(&self, name: &OsStr) -> Result<Self, ConfinedError> {
        let path = self.path.join(name);
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NONBLOCK;
        match self.open(name, flags, Mode::empty()) {
            Ok(handle) => Ok(Self { handle, path }),
            Err(errno) => Err(ConfinedError::new("opening", &path, errno)),
        }
    }

    /// Makes a new file of this name that nobody else can read yet.
    ///
    /// # Errors
    /// If there is one already, or it cannot be made.
    pub fn create_file(&self, name: &OsStr) -> Result<File, ConfinedError> {
        let flags = OFlag::O_RDWR | OFlag::O_CREAT | OFlag::O_EXCL;
        let made = self.open(name, flags, Mode::S_IRUSR | Mode::S_IWUSR);
        made.map_err(|errno| ConfinedError::new("making", &self.path.join(name), errno))
    }

    /// Makes a new directory of this name that nobody else can enter yet.
    ///
    /// # Errors
    /// If there is something already, or it cannot be made.
    pub fn create_directory(&self, name: &OsStr) -> Result<Self, ConfinedError> {
        let made = mkdirat(&self.handle, name, Mode::S_IRWXU);
        made.map_err(|errno| ConfinedError::new("making", &self.path.join(name), errno))?;
        self.open_directory(name)
    }

    /// Gives what has this name a second one.
    ///
    /// # Errors
    /// If there is something of that name already, or the file system has no second names.
    pub fn link(&self, name: &OsStr, second: &OsStr) -> Result<(), ConfinedError> {
        let linked = linkat(&self.handle, name, &self.handle, second, AtFlags::empty());
        linked.map_err(|errno| ConfinedError::new("keeping", &self.path.join(name), errno))
    }

    /// Gives what has this name another one, in one step.
    ///
    /// # Errors
    /// If it cannot be done; then nothing is done.
    pub fn rename(&self, from: &OsStr, to: &OsStr, existing: Existing) -> Result<(), ConfinedError> {
        let flags = match existing {
            Existing::Replace => RenameFlags::empty(),
            Existing::Keep => RenameFlags::RENAME_NOREPLACE,
        };
        let rename = |flags| renameat2(&self.handle, from, &self.handle, to, flags);
        let renamed = match rename(flags) {
            // Some network file systems cannot be asked for it in one step.
            Err(Errno::EINVAL | Errno::ENOSYS) if existing == Existing::Keep => match self.look(to)? {
                Some(_) => Err(Errno::EEXIST),
                None => rename(RenameFlags::empty()),
            },
            other => other,
        };
        renamed.map_err(|errno| ConfinedError::new("replacing", &self.path.join(to), errno))
    }

    /// Removes what has this name, unless it is a directory; whether there was anything.
    ///
    /// # Errors
    /// If it is there and cannot be removed.
    pub fn remove(&self, name: &OsStr) -> Result<bool, ConfinedError> {
        self.unlink(name, UnlinkatFlags::NoRemoveDir)
    }

    /// Removes the empty directory of this name; whether there was one.
    ///
    /// # Errors
    /// If it is there and cannot be removed, or has something in it.
    pub fn remove_directory(&self, name: &OsStr) -> Result<bool, ConfinedError> {
        self.unlink(name, UnlinkatFlags::RemoveDir)
    }

    fn unlink(&self, name: &OsStr, what: UnlinkatFlags) -> Result<bool, ConfinedError> {
        match unlinkat(&self.handle, name, what) {
            Ok(()) => Ok(true),
            Err(Errno::ENOENT) => Ok(false),
            Err(errno) => Err(ConfinedError::new("removing", &self.path.join(name), errno)),
        }
    }

    /// Makes the names in it durable.
    ///
    /// # Errors
    /// If the disk says no.
    pub fn sync(&self) -> Result<(), ConfinedError> {
        self.handle.sync_all().map_err(|error| ConfinedError::new("writing", &self.path, error))
    }

    /// The names in it, as many as there may be.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn first_names(&self, most: usize) -> Result<Vec<OsString>, ConfinedError> {
        let mut names = Vec::new();
        self.read_names(|name| {
            names.push(name.to_owned());
            names.len() < most
        })?;
        Ok(names)
    }

    fn open(&self, name: &OsStr, flags: OFlag, mode: Mode) -> Result<File, Errno> {
        let resolve = ResolveFlag::RESOLVE_BENEATH
            | ResolveFlag::RESOLVE_NO_SYMLINKS
            | ResolveFlag::RESOLVE_NO_MAGICLINKS
            | ResolveFlag::RESOLVE_NO_XDEV;
        // What is mounted on a name may be looked at, and what is not opened for a look alone is asked for by its device.
        let resolve =
            if flags.contains(OFlag::O_PATH) { resolve - ResolveFlag::RESOLVE_NO_XDEV } else { resolve };
        let how =
            OpenHow::new().flags(flags | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC).mode(mode).resolve(resolve);
        loop {
            match openat2(&self.handle, name, how) {
                Err(Errno::EAGAIN | Errno::EINTR) => {}
                other => return other.map(File::from),
            }
        }
    }
}

impl AsFd for Directory {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.handle.as_fd()
    }
}
