//! Access-control lists (acl(5)), for one thing: a file that one more user may read than its owner.

use std::fs::{File, Permissions};
use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{PermissionsExt as _, fchown};

const NAME: &std::ffi::CStr = c"system.posix_acl_access";
// linux/posix_acl.h and posix_acl_xattr.h.
const VERSION: u32 = 2;
const NO_ID: u32 = u32::MAX;
const READ_EXECUTE: u16 = 0o5;

/// Makes a file of this process's user readable and executable for the user `uid` too, and for nobody else. Its owner
/// stays who it is, so that the user cannot change it.
///
/// On a file system without such lists the user's primary group `gid` may read it as well.
///
/// # Errors
/// If the file's rights cannot be set.
pub fn ensure_readable_by(file: &File, uid: u32, gid: u32) -> io::Result<()> {
    let list = list(uid);
    // SAFETY: the name is null-terminated, and the list outlives the call.
    let set =
        unsafe { libc::fsetxattr(file.as_raw_fd(), NAME.as_ptr(), list.as_ptr().cast(), list.len(), 0) };
    if set == 0 {
        return Ok(());
    }
    let error = io::Error::last_os_error();
    match error.raw_os_error() {
        Some(libc::EOPNOTSUPP) => ensure_readable_by_group(file, gid),
        _ => Err(error),
    }
}

/// Whether a file has such a list, also one that is open for a look alone; `None` where that cannot be seen.
#[must_use]
pub fn read_whether_listed(file: &File) -> Option<bool> {
    // A handle that is for a look alone has no attributes to ask for, but its link below /proc leads to the file.
    let path = std::ffi::CString::new(format!("/proc/self/fd/{}", file.as_raw_fd())).ok()?;
    // SAFETY: both texts are null-terminated; without a buffer only the length is told.
    let length = unsafe { libc::getxattr(path.as_ptr(), NAME.as_ptr(), std::ptr::null_mut(), 0) };
    if length >= 0 {
        return Some(true);
    }
    match io::Error::last_os_error().raw_os_error() {
        Some(libc::ENODATA | libc::EOPNOTSUPP) => Some(false),
        _ => None,
    }
}

fn ensure_readable_by_group(file: &File, gid: u32) -> io::Result<()> {
    // The group first: no other is let in, not even for a moment.
    fchown(file, None, Some(gid))?;
    file.set_permissions(Permissions::from_mode(0o550))
}

/// Owner and `uid` read and execute; group and others do nothing. The entries stand in the order that the kernel asks for.
fn list(uid: u32) -> Vec<u8> {
    let entries: [(u16, u16, u32); 5] = [
        (0x01, READ_EXECUTE, NO_ID), // the owner
        (0x02, READ_EXECUTE, uid),   // the user
        (0x04, 0, NO_ID),            // the group
        (0x10, READ_EXECUTE, NO_ID), // the most that users and groups named here get
        (0x20, 0, NO_ID),            // others
    ];
    let mut bytes = VERSION.to_le_bytes().to_vec();
    for (tag, rights, id) in entries {
        bytes.extend_from_slice(&tag.to_le_bytes());
        bytes.extend_from_slice(&rights.to_le_bytes());
        bytes.extend_from_slice(&id.to_le_bytes());
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
    use std::os::unix::process::CommandExt as _;
    use std::process::Command;

    fn may(user: u32, group: u32, test: &str, path: &std::path::Path) -> bool {
        Command::new("/usr/bin/test").arg(test).arg(path).uid(user).gid(group).status().unwrap().success()
    }

    /// With and without lists: the user reads it, and nobody but its owner can change it.
    #[test]
    fn the_user_can_read_and_not_change() {
        if !nix::unistd::geteuid().is_root() {
            return crate::testing::skipped("becoming another user", "only root may");
        }
        let directory = tempfile::tempdir().unwrap();
        std::fs::set_permissions(directory.path(), Permissions::from_mode(0o711)).unwrap();
        let make = |name: &str| {
            let path = directory.path().join(name);
            let mut options = File::options();
            (options.write(true).create_new(true).mode(0o500).open(&path).unwrap(), path)
        };
        let (file, path) = make("listed");
        ensure_readable_by(&file, 1, 1).unwrap();
        let listed = may(1, 4242, "-r", &path);
        for (file, path, others) in [(file, path, !listed), {
            let (f, p) = make("grouped");
            (f, p, true)
        }] {
            if others {
                ensure_readable_by_group(&file, 1).unwrap();
            }
            assert!(may(1, 1, "-r", &path) && may(1, 1, "-x", &path) && !may(1, 1, "-w", &path));
            assert!(!may(2, 2, "-r", &path), "another user reads it");
            assert_eq!(may(2, 1, "-r", &path), others, "another user of the same group");
            assert_eq!(std::fs::metadata(&path).unwrap().uid(), 0);
        }
    }
}
