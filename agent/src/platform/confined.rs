//! Paths that stay beneath the directories that this host's owner allows.
//!
//! **What it promises.** Nothing beneath a path that is opened here lies elsewhere: no link, no `..` and nobody who changes
//! directories meanwhile leads out. A path is first followed to one without links, link by link, so that each can be judged;
//! then that one is opened in a single step in which the kernel follows none (openat2(2)). What takes its place meanwhile
//! is noticed, and the path followed anew.
//!
//! What is no regular file is never read or written: opening a device can do something, and a FIFO waits for somebody.

pub mod attributes;
pub mod directory;
pub mod replace;
pub mod tree;

use std::ffi::{OsStr, OsString};
use std::fs::{File, Metadata};
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Component, Path, PathBuf};

use fleetward_protocol::file::FileType;
use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2, readlinkat};

use directory::Directory;

/// As many as Linux follows, path_resolution(7).
const MAX_LINKS: usize = 40;
/// How often a path is followed anew when somebody changes it meanwhile.
const MAX_TRIES: usize = 32;

/// The directories beneath which everything stays.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Confines {
    /// Without links. Empty where nothing is allowed.
    roots: Vec<PathBuf>,
    /// As they were named.
    named: Vec<PathBuf>,
}

/// Which links are followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Links {
    /// Whosever they are: for looking.
    Any,
    /// Those of root and of this process's user alone: for changing. Whoever else owns one could lead root's hand.
    Trusted,
}

/// What is done with a link at the end of a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Last {
    /// It is followed.
    Follow,
    /// It is what is meant.
    Keep,
}

/// Why a path cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfinedError {
    /// It lies elsewhere.
    #[error("{} is not beneath what this host's owner allows ({})", shown(path), list(roots))]
    Outside {
        /// The path, or where a link in it leads.
        path: PathBuf,
        /// What is allowed.
        roots: Vec<PathBuf>,
    },
    /// A link on the way belongs to somebody who could change it.
    #[error("{} is a link of user {owner}, who could make it lead elsewhere", shown(path))]
    Link {
        /// The link.
        path: PathBuf,
        /// Whose it is.
        owner: u32,
    },
    /// Too many links.
    #[error("{} leads through more than {MAX_LINKS} links", shown(.0))]
    Loop(PathBuf),
    /// Somebody goes on changing it.
    #[error("{} is changed all the time", shown(.0))]
    Changing(PathBuf),
    /// Somebody else changed it between two looks.
    #[error("{} was changed by somebody else meanwhile", shown(.0))]
    Meanwhile(PathBuf),
    /// Directories stand too deep in each other.
    #[error("{} stands in too many directories to be removed with them", shown(.0))]
    Deep(PathBuf),
    /// It is something else than what can be used.
    #[error("{} is {found}, and no {wanted}", shown(path))]
    Another {
        /// The path.
        path: PathBuf,
        /// What it is.
        found: &'static str,
        /// What it should be.
        wanted: &'static str,
    },
    /// The kernel is too old.
    #[error("this host's kernel has no openat2(2), which keeps a path beneath a directory")]
    OldKernel,
    /// The operating system said no.
    #[error("{act} {} failed: {source}", shown(path))]
    Failed {
        /// What was tried: a verb, such as `opening`.
        act: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

/// A path for a person.
#[must_use]
pub fn shown(path: &Path) -> String {
    fleetward_protocol::path::shown(path.as_os_str().as_bytes())
}

fn list(roots: &[PathBuf]) -> String {
    match roots {
        [] => "nothing".to_owned(),
        roots => roots.iter().map(|root| shown(root)).collect::<Vec<_>>().join(", "),
    }
}

impl ConfinedError {
    /// `act` (a verb, such as `opening`) failed on `path`.
    pub fn new(act: &'static str, path: &Path, source: impl Into<io::Error>) -> Self {
        Self::Failed { act, path: path.to_owned(), source: source.into() }
    }

    /// Whether there is no such thing.
    #[must_use]
    pub fn is_absent(&self) -> bool {
        matches!(self, Self::Failed { source, .. } if source.kind() == ErrorKind::NotFound)
    }

    /// What to do next.
    #[must_use]
    pub fn advice(&self) -> &'static str {
        match self {
            Self::Outside { .. } => {
                "ask for something beneath, or let the owner add a directory to `paths` in the host's agent.toml"
            }
            Self::Link { .. } => "name the path that it leads to, or act as the link's owner",
            Self::Loop(_) => "mend the links on the host",
            Self::Changing(_) => "see which program on the host does that, and ask again when it is done",
            Self::Meanwhile(_) => "see what else changes it, and ask again",
            Self::Deep(_) => "remove it by itself first",
            Self::Another { .. } => "see what it is: `fleetward file stat` shows it",
            Self::OldKernel => "this kind needs Linux 5.6 or later, and a container that lets it pass",
            Self::Failed { source, .. } => advice_for(source),
        }
    }
}

/// What to do about an error of the operating system's on a file.
fn advice_for(error: &io::Error) -> &'static str {
    match error.kind() {
        ErrorKind::NotFound => "see what is there: `fleetward file ls` lists a directory",
        ErrorKind::PermissionDenied if error.raw_os_error() == Some(libc::EPERM) => {
            "it may be immutable (`lsattr` shows that), or belong to somebody else than who acts"
        }
        ErrorKind::PermissionDenied => {
            "ask as a user who may, or change its mode or that of a directory above it"
        }
        ErrorKind::DirectoryNotEmpty => "something came into it meanwhile: see what that is, and ask again",
        ErrorKind::NotADirectory => "something on the way is no directory: see each part of the path",
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => "make room there, and ask again",
        ErrorKind::FileTooLarge => "a limit on the size of files is in the way on the host",
        ErrorKind::CrossesDevices => {
            "another file system is mounted there: unmount it first, or name what is in it"
        }
        ErrorKind::ReadOnlyFilesystem => "the file system is mounted read-only: mount it for writing first",
        ErrorKind::StaleNetworkFileHandle | ErrorKind::TimedOut => {
            "the network file system does not answer: see its server"
        }
        _ => "see the host's kernel log (`journalctl --dmesg`)",
    }
}

impl Confines {
    /// Everything on the host.
    #[must_use]
    pub fn everywhere() -> Self {
        Self { roots: vec!["/".into()], named: vec!["/".into()] }
    }

    /// What is beneath these directories, and they themselves. One that is not there has nothing beneath it.
    #[must_use]
    pub fn beneath(named: &[PathBuf]) -> Self {
        let roots = named.iter().filter_map(|root| std::fs::canonicalize(root).ok()).collect();
        Self { roots, named: named.to_vec() }
    }

    /// Where a path leads, as one that holds no link; it is beneath the confines.
    ///
    /// # Errors
    /// If it is not, leads through a link that is not followed, or to nothing.
    pub fn follow(&self, path: &Path, last: Last, links: Links) -> Result<PathBuf, ConfinedError> {
        match self.walk(path, last, links)? {
            Walked { real, missing } if missing.is_empty() => Ok(real),
            Walked { real, missing } => {
                let absent = missing.iter().fold(real, |path, name| path.join(name));
                Err(ConfinedError::new("opening", &absent, Errno::ENOENT))
            }
        }
    }

    /// What a path leads to, without opening it for anything but a look; and its path without links.
    ///
    /// # Errors
    /// As [`follow`](Self::follow).
    pub fn look(&self, path: &Path, last: Last, links: Links) -> Result<Seen, ConfinedError> {
        self.anew(path, |confines| {
            let real = confines.follow(path, last, links)?;
            let handle = confines.open(&real, OFlag::O_PATH)?;
            let metadata =
                handle.metadata().map_err(|error| ConfinedError::new("looking at", &real, error))?;
            Ok(Seen { path: real, handle, metadata })
        })
    }

    /// Opens a regular file for reading.
    ///
    /// # Errors
    /// As [`follow`](Self::follow), and if it is no regular file.
    pub fn open_file(&self, path: &Path) -> Result<(File, Metadata), ConfinedError> {
        self.anew(path, |confines| {
            let Seen { path: real, metadata, .. } = confines.look(path, Last::Follow, Links::Any)?;
            ensure_kind(&real, &metadata, Metadata::is_file, "regular file")?;
            let flags = OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
            // Looking leaves no trace where that can be had: only who owns a file may read it so.
            let file = match confines.open(&real, flags | OFlag::O_NOATIME) {
                Err(ConfinedError::Failed { source, .. }) if source.raw_os_error() == Some(libc::EPERM) => {
                    confines.open(&real, flags)?
                }
                other => other?,
            };
            let metadata = file.metadata().map_err(|error| ConfinedError::new("looking at", &real, error))?;
            // Something else could have taken its place.
            ensure_kind(&real, &metadata, Metadata::is_file, "regular file")?;
            Ok((file, metadata))
        })
    }

    /// Opens a directory.
    ///
    /// # Errors
    /// As [`follow`](Self::follow), and if it is no directory.
    pub fn open_directory(&self, path: &Path, links: Links) -> Result<Directory, ConfinedError> {
        self.anew(path, |confines| {
            let Seen { path: real, metadata, .. } = confines.look(path, Last::Follow, links)?;
            ensure_kind(&real, &metadata, Metadata::is_dir, "directory")?;
            let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NONBLOCK;
            Ok(Directory::new(confines.open(&real, flags)?, real))
        })
    }

    /// The deepest directory on the way to `path` that is there, and the names that are missing behind it; what a name at
    /// the end leads to is not looked at.
    ///
    /// # Errors
    /// As [`follow`](Self::follow), with links that are [trusted](Links::Trusted); and if what is there is no directory.
    pub fn open_parent(&self, path: &Path) -> Result<(Directory, Vec<OsString>), ConfinedError> {
        let parent = path.parent().unwrap_or(path);
        self.anew(path, |confines| {
            let Walked { real, missing } = confines.walk(parent, Last::Follow, Links::Trusted)?;
            let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NONBLOCK;
            Ok((Directory::new(confines.open(&real, flags)?, real), missing))
        })
    }

    /// Whether a path without links is beneath the confines.
    fn holds(&self, real: &Path) -> bool {
        self.roots.iter().any(|root| real.starts_with(root))
    }

    /// Whether it is on the way to something that is.
    fn leads_to(&self, path: &Path) -> bool {
        let mut all = self.roots.iter().chain(&self.named);
        all.any(|root| root.starts_with(path) || path.starts_with(root))
    }

    fn outside(&self, path: &Path) -> ConfinedError {
        ConfinedError::Outside { path: path.to_owned(), roots: self.named.clone() }
    }

    /// Opens a path that holds no link. One that holds one by now is [`ConfinedError::Changing`].
    fn open(&self, real: &Path, flags: OFlag) -> Result<File, ConfinedError> {
        let above = self.roots.iter().filter(|root| real.starts_with(root));
        let root = above.max_by_key(|root| root.as_os_str().len()).ok_or_else(|| self.outside(real))?;
        let rest = real.strip_prefix(root).unwrap_or(real);
        let top = open_top()?;
        let within =
            open_beneath(&top, root.strip_prefix("/").unwrap_or(root), OFlag::O_PATH | OFlag::O_DIRECTORY);
        let within = within.map_err(|errno| refused(root, errno))?;
        open_beneath(&within, rest, flags).map(File::from).map_err(|errno| refused(real, errno))
    }

    /// Does it anew where somebody changed the path meanwhile.
    fn anew<T>(
        &self,
        path: &Path,
        mut work: impl FnMut(&Self) -> Result<T, ConfinedError>,
    ) -> Result<T, ConfinedError> {
        for _ in 0..MAX_TRIES {
            match work(self) {
                Err(ConfinedError::Changing(_)) => {}
                other => return other,
            }
        }
        Err(ConfinedError::Changing(path.to_owned()))
    }

    /// Follows a path to its end, or to the first name of it that is missing.
    fn walk(&self, path: &Path, last: Last, links: Links) -> Result<Walked, ConfinedError> {
        let mut real = PathBuf::from("/");
        let mut here = open_top()?;
        // Behind each name, whether it is one of the path's own.
        let mut ahead: Vec<(OsString, bool)> = Vec::new();
        push(&mut ahead, path, true);
        let mut followed = 0;
        while let Some((name, is_own)) = ahead.pop() {
            if name == ".." {
                real.pop();
                let flags = OFlag::O_PATH | OFlag::O_DIRECTORY;
                let above = real.strip_prefix("/").unwrap_or(&real);
                here = open_beneath(&open_top()?, above, flags).map_err(|errno| refused(&real, errno))?;
                continue;
            }
            let next = real.join(&name);
            if !self.leads_to(&next) {
                return Err(self.outside(&next));
            }
            let found = match open_beneath(&here, Path::new(&name), OFlag::O_PATH | OFlag::O_NOFOLLOW) {
                Ok(found) => File::from(found),
                Err(Errno::ENOENT) if is_own && self.holds(&real) => {
                    let rest = ahead.into_iter().rev().map(|(name, _)| name);
                    return Ok(Walked { real, missing: std::iter::once(name).chain(rest).collect() });
                }
                Err(errno) => return Err(refused(&next, errno)),
            };
            let metadata =
                found.metadata().map_err(|error| ConfinedError::new("looking at", &next, error))?;
            if !metadata.is_symlink() || last == Last::Keep && ahead.is_empty() {
                (real, here) = (next, found.into());
                continue;
            }
            let owner = metadata.uid();
            if links == Links::Trusted && owner != 0 && owner != nix::unistd::geteuid().as_raw() {
                return Err(ConfinedError::Link { path: next, owner });
            }
            followed += 1;
            if followed > MAX_LINKS {
                return Err(ConfinedError::Loop(path.to_owned()));
            }
            let target =
                read_link(&found).map_err(|error| ConfinedError::new("reading the link", &next, error))?;
            let target = Path::new(&target);
            if target.has_root() {
                (real, here) = ("/".into(), open_top()?);
            }
            push(&mut ahead, target, false);
        }
        if self.holds(&real) { Ok(Walked { real, missing: Vec::new() }) } else { Err(self.outside(&real)) }
    }
}

/// What a path leads to.
#[derive(Debug)]
pub struct Seen {
    /// Its path without links.
    pub path: PathBuf,
    /// It, for a look alone (`O_PATH`).
    pub handle: File,
    /// What it is like.
    pub metadata: Metadata,
}

struct Walked {
    /// As far as it is there.
    real: PathBuf,
    missing: Vec<OsString>,
}

/// What something is, in a word for people.
#[must_use]
pub fn kind_of(metadata: &Metadata) -> &'static str {
    let kind = metadata.file_type();
    match () {
        () if kind.is_file() => "a regular file",
        () if kind.is_dir() => "a directory",
        () if kind.is_symlink() => "a link",
        () if kind.is_fifo() => "a FIFO",
        () if kind.is_socket() => "a socket",
        () if kind.is_char_device() || kind.is_block_device() => "a device",
        () => "something else",
    }
}

/// What something is, for programs.
#[must_use]
pub fn type_of(metadata: &Metadata) -> FileType {
    let kind = metadata.file_type();
    match () {
        () if kind.is_file() => FileType::File,
        () if kind.is_dir() => FileType::Directory,
        () if kind.is_symlink() => FileType::Link,
        () if kind.is_fifo() => FileType::Fifo,
        () if kind.is_socket() => FileType::Socket,
        () if kind.is_char_device() => FileType::CharacterDevice,
        () if kind.is_block_device() => FileType::BlockDevice,
        () => FileType::Other,
    }
}

fn ensure_kind(
    path: &Path,
    metadata: &Metadata,
    is: fn(&Metadata) -> bool,
    wanted: &'static str,
) -> Result<(), ConfinedError> {
    match is(metadata) {
        true => Ok(()),
        false => Err(ConfinedError::Another { path: path.to_owned(), found: kind_of(metadata), wanted }),
    }
}

/// Where a link leads, as it is written in it; of a handle of the link itself.
///
/// # Errors
/// If it is no link.
pub fn read_link(link: &File) -> io::Result<OsString> {
    Ok(readlinkat(link, OsStr::new(""))?)
}

fn open_top() -> Result<OwnedFd, ConfinedError> {
    let top = Path::new("/");
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    nix::fcntl::open(top, flags, nix::sys::stat::Mode::empty())
        .map_err(|errno| ConfinedError::new("opening", top, errno))
}

/// Opens what is beneath a directory, through no link.
fn open_beneath(directory: &impl AsFd, path: &Path, flags: OFlag) -> Result<OwnedFd, Errno> {
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    let resolve =
        ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_SYMLINKS | ResolveFlag::RESOLVE_NO_MAGICLINKS;
    let how = OpenHow::new().flags(flags | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC).resolve(resolve);
    loop {
        match openat2(directory, path, how) {
            // Somebody renamed a directory meanwhile (openat2(2)).
            Err(Errno::EAGAIN | Errno::EINTR) => {}
            other => return other,
        }
    }
}

fn refused(path: &Path, errno: Errno) -> ConfinedError {
    match errno {
        Errno::ELOOP | Errno::EXDEV => ConfinedError::Changing(path.to_owned()),
        Errno::ENOSYS => ConfinedError::OldKernel,
        errno => ConfinedError::new("opening", path, errno),
    }
}

fn push(ahead: &mut Vec<(OsString, bool)>, path: &Path, is_own: bool) {
    let names = path.components().rev().filter_map(|part| match part {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some("..".into()),
        Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
    });
    ahead.extend(names.map(|name| (name, is_own)));
}

#[cfg(test)]
mod tests;
