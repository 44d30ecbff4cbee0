//! Whether a file can only say what its owner meant.
//!
//! What the agent obeys as root, nobody else may have written: its policy, its trust anchor, its journal. What it keeps
//! secret, nobody else may read.

use std::ffi::OsString;
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Component, Path, PathBuf};

const WRITABLE: u32 = 0o022;
const STICKY: u32 = 0o1000;
/// As many as Linux follows, path_resolution(7).
const MAX_LINKS: usize = 40;

/// Who may read a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Secrecy {
    /// Everybody.
    Public,
    /// Its owner alone.
    Private,
}

/// Why a file or directory is not used. Each says how to mend it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Distrust {
    /// Its owner could have written anything.
    #[error("{path} belongs to user {owner}, who could change it; run `chown {wanted} {path}`", path = .path.display())]
    Owner {
        /// The file.
        path: PathBuf,
        /// Whose it is.
        owner: u32,
        /// Whose it should be.
        wanted: u32,
    },
    /// Others could have written anything.
    #[error("{path} has mode {mode:04o}, so that others can change it; run `chmod go-w {path}`", path = .path.display())]
    Writable {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// Whoever owns a link can make it lead elsewhere where its directory lets everybody make files.
    #[error(
        "{path} is a link that belongs to user {owner}, who could change it; run `chown -h {wanted} {path}`",
        path = .path.display()
    )]
    Link {
        /// The link.
        path: PathBuf,
        /// Whose it is.
        owner: u32,
        /// Whose it should be.
        wanted: u32,
    },
    /// Others could have read it.
    #[error("{path} has mode {mode:04o}, so that others can read it; run `chmod 0600 {path}`", path = .path.display())]
    Readable {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
}

impl Distrust {
    /// What there is against the file at `path`, as its metadata say. An access-control list counts too: its mask is
    /// in the group's bits.
    ///
    /// # Errors
    /// The first reason not to trust it.
    pub(super) fn find(path: &Path, metadata: &Metadata, secrecy: Secrecy) -> Result<(), Self> {
        let own = nix::unistd::geteuid().as_raw();
        let (owner, mode) = (metadata.uid(), metadata.mode() & 0o7777);
        let path = || path.to_owned();
        if owner != 0 && owner != own {
            return Err(Self::Owner { path: path(), owner, wanted: own });
        }
        // In a sticky directory nobody can remove or rename what is another's.
        let guarded = metadata.is_dir() && mode & STICKY != 0;
        if mode & WRITABLE != 0 && !guarded {
            return Err(Self::Writable { path: path(), mode });
        }
        if secrecy == Secrecy::Private && mode & 0o077 != 0 {
            return Err(Self::Readable { path: path(), mode });
        }
        Ok(())
    }
}

/// Why the way to a file cannot be followed.
#[derive(Debug)]
pub(super) enum Impasse {
    /// Somebody else could make it lead elsewhere.
    Distrusted(Distrust),
    /// Something of it cannot be looked at, or is not there.
    Failed(PathBuf, io::Error),
}

/// Where `path` leads, without a link left in it. Looks at every directory and every link that is passed on the way,
/// also at those that only other links name: whoever could change one of them could put another file in the place of
/// the one that is meant, or take it away. What is at the end is not looked at, unless it is a directory.
pub(super) fn follow(path: &Path) -> Result<PathBuf, Impasse> {
    let failed = |path: &Path, error| Impasse::Failed(path.to_owned(), error);
    let look = |at: &Path| {
        let found = fs::symlink_metadata(at).map_err(|error| failed(at, error))?;
        if found.is_dir() {
            Distrust::find(at, &found, Secrecy::Public).map_err(Impasse::Distrusted)?;
        }
        Ok(found)
    };
    let mut at = PathBuf::from("/");
    look(&at)?;
    let mut ahead: Vec<OsString> = Vec::new();
    go(&mut ahead, &std::path::absolute(path).map_err(|error| failed(path, error))?);
    let mut links = 0;
    while let Some(name) = ahead.pop() {
        if name == ".." {
            at.pop();
            continue;
        }
        let next = at.join(name);
        let found = look(&next)?;
        if !found.is_symlink() {
            at = next;
            continue;
        }
        let own = nix::unistd::geteuid().as_raw();
        if found.uid() != 0 && found.uid() != own {
            return Err(Impasse::Distrusted(Distrust::Link { path: next, owner: found.uid(), wanted: own }));
        }
        links += 1;
        if links > MAX_LINKS {
            return Err(failed(path, io::Error::from_raw_os_error(libc::ELOOP)));
        }
        let target = fs::read_link(&next).map_err(|error| failed(&next, error))?;
        if target.is_absolute() {
            at = PathBuf::from("/");
        }
        go(&mut ahead, &target);
    }
    Ok(at)
}

/// Puts the steps of `path` before those that are ahead already, the next one last.
fn go(ahead: &mut Vec<OsString>, path: &Path) {
    let steps = path.components().rev().filter_map(|step| match step {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some("..".into()),
        Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
    });
    ahead.extend(steps);
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::Permissions;
    use std::os::unix::fs::{PermissionsExt as _, chown, lchown, symlink};

    #[test]
    fn every_directory_and_link_on_the_way_is_looked_at() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        for name in ["etc", "middle", "end"] {
            fs::create_dir(at(name)).unwrap();
        }
        fs::write(at("end/file"), "").unwrap();
        symlink("../middle/current/file", at("etc/file")).unwrap();
        symlink(at("end"), at("middle/current")).unwrap();
        let told = || match follow(&at("etc/file")) {
            Ok(end) => end.display().to_string(),
            Err(Impasse::Distrusted(distrust)) => distrust.to_string(),
            Err(Impasse::Failed(path, error)) => format!("{}: {error}", path.display()),
        };
        let whole = told();
        assert_eq!(whole, fs::canonicalize(at("end/file")).unwrap().display().to_string());
        for name in ["etc", "middle", "end"] {
            fs::set_permissions(at(name), Permissions::from_mode(0o777)).unwrap();
            assert!(told().contains(&format!("`chmod go-w {}`", at(name).display())), "{}", told());
            fs::set_permissions(at(name), Permissions::from_mode(0o755)).unwrap();
        }
        if nix::unistd::geteuid().is_root() {
            for name in ["etc", "middle", "end"] {
                chown(at(name), Some(65534), None).unwrap();
                assert!(told().contains(&format!("`chown 0 {}`", at(name).display())), "{}", told());
                chown(at(name), Some(0), None).unwrap();
            }
            for name in ["etc/file", "middle/current"] {
                lchown(at(name), Some(65534), None).unwrap();
                assert!(told().contains(&format!("`chown -h 0 {}`", at(name).display())), "{}", told());
                lchown(at(name), Some(0), None).unwrap();
            }
        }
        assert_eq!(told(), whole);
        fs::remove_file(at("end/file")).unwrap();
        assert!(told().starts_with(&format!("{}: ", at("end/file").display())), "what is missing is named");
        fs::remove_file(at("middle/current")).unwrap();
        symlink("current", at("middle/current")).unwrap();
        assert!(told().contains("symbolic links"), "{}", told());
    }

    #[test]
    fn only_what_its_owner_alone_can_change_is_trusted() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("agent.toml");
        fs::write(&file, "").unwrap();
        let told = |path: &Path, mode: u32, secrecy| {
            fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
            Distrust::find(path, &fs::metadata(path).unwrap(), secrecy).err().map(|error| error.to_string())
        };
        for mode in [0o600, 0o640, 0o644, 0o755, 0o444] {
            assert_eq!(told(&file, mode, Secrecy::Public), None, "{mode:o}");
        }
        for mode in [0o400, 0o600, 0o700] {
            assert_eq!(told(&file, mode, Secrecy::Private), None, "{mode:o}");
        }
        for mode in [0o620, 0o664, 0o602, 0o666] {
            let told = told(&file, mode, Secrecy::Public).unwrap();
            let wanted = [format!("mode {mode:04o}"), format!("`chmod go-w {}`", file.display())];
            assert!(wanted.iter().all(|part| told.contains(part)), "{told}");
        }
        for mode in [0o640, 0o604, 0o644] {
            let told = told(&file, mode, Secrecy::Private).unwrap();
            let wanted = [format!("mode {mode:04o}"), format!("`chmod 0600 {}`", file.display())];
            assert!(wanted.iter().all(|part| told.contains(part)), "{told}");
        }
        assert_eq!(told(directory.path(), 0o1777, Secrecy::Public), None);
        assert!(told(directory.path(), 0o777, Secrecy::Public).is_some());
        assert!(told(&file, 0o1666, Secrecy::Public).is_some(), "sticky means nothing on a file");
        assert_eq!(told(directory.path(), 0o700, Secrecy::Public), None);

        if nix::unistd::geteuid().is_root() {
            chown(&file, Some(7), None).unwrap();
            let told = told(&file, 0o600, Secrecy::Public).unwrap();
            assert!(told.contains("user 7") && told.contains("`chown 0 "), "{told}");
        }
    }
}
