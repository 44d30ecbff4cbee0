//! Whether a file can only say what its owner meant.
//!
//! What the agent obeys as root, nobody else may have written: its policy, its trust anchor, its journal. What it keeps
//! secret, nobody else may read.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

const WRITABLE: u32 = 0o022;
const STICKY: u32 = 0o1000;

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

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{self, Permissions};
    use std::os::unix::fs::{PermissionsExt as _, chown};

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
