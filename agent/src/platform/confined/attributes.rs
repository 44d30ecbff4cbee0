//! Owner, group and mode of what is open, also for a look alone.

use std::fs::{File, Metadata, Permissions};
use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};

use nix::fcntl::AtFlags;
use nix::unistd::{Gid, Uid, fchownat};

/// Whose something is, and who may do what with it. What is absent does not matter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Attributes {
    /// Its owner.
    pub owner: Option<u32>,
    /// Its group.
    pub group: Option<u32>,
    /// Its mode.
    pub mode: Option<u32>,
}

impl Attributes {
    /// Those that something has.
    #[must_use]
    pub fn of(metadata: &Metadata) -> Self {
        let mode = metadata.mode() & 0o7777;
        Self { owner: Some(metadata.uid()), group: Some(metadata.gid()), mode: Some(mode) }
    }

    /// These, and another one's where they say nothing.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        Self {
            owner: self.owner.or(other.owner),
            group: self.group.or(other.group),
            mode: self.mode.or(other.mode),
        }
    }

    /// Whether something has these.
    #[must_use]
    pub fn are_of(self, metadata: &Metadata) -> bool {
        Self::of(metadata) == self.or(Self::of(metadata))
    }

    /// Makes sure that it has them. It is never open to more than it was and than it will be.
    ///
    /// # Errors
    /// If one of them cannot be set.
    pub fn ensure(self, handle: &File) -> io::Result<()> {
        let now = handle.metadata()?;
        let Self { owner, group, mode } = self;
        if owner.is_some_and(|owner| owner != now.uid()) || group.is_some_and(|group| group != now.gid()) {
            let (owner, group) = (owner.map(Uid::from_raw), group.map(Gid::from_raw));
            fchownat(handle, "", owner, group, AtFlags::AT_EMPTY_PATH)?;
        }
        // Behind the owner: the kernel takes set-user-ID away when that changes.
        let now = handle.metadata()?;
        match mode.filter(|mode| *mode != now.mode() & 0o7777) {
            // fchmod(2) takes no handle that is for a look alone; its link below /proc leads to the same file.
            Some(mode) => {
                let link = format!("/proc/self/fd/{}", handle.as_raw_fd());
                std::fs::set_permissions(link, Permissions::from_mode(mode))
            }
            None => Ok(()),
        }
    }
}
