//! Descriptors that this process was started with.

use std::fs::File;
use std::os::fd::{FromRawFd as _, RawFd};

/// Takes a pipe that whoever started this process left open as `number`; `None` if there is none. Must be called before
/// anything else is opened, and once. No process that is started later inherits it.
#[must_use]
pub fn take_pipe(number: RawFd) -> Option<File> {
    // SAFETY: all zeros are a valid `stat`, and fstat(2) only writes to it; a number that is no descriptor is an error.
    let kind = unsafe {
        let mut found: libc::stat = std::mem::zeroed();
        (libc::fstat(number, &raw mut found) == 0).then_some(found.st_mode & libc::S_IFMT)
    };
    if kind != Some(libc::S_IFIFO) {
        return None;
    }
    // SAFETY: it is open, and by the caller's promise nobody else in this process has it.
    unsafe {
        libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC);
        Some(File::from_raw_fd(number))
    }
}
