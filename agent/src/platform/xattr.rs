//! Extended attributes of files (xattr(7)), for one thing: that a file which takes another one's place has them, too.

use std::ffi::{CStr, CString};
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd as _;

/// The most bytes of names, and of one value: as many as the kernel has of either.
const MAX: usize = 64 << 10;

/// What belongs to the content that a file had, and to no other: rights of a program, and its checksums.
const OF_CONTENT: [&[u8]; 3] = [b"security.capability", b"security.ima", b"security.evm"];

/// Gives a file the attributes of another one, which may be open for a look alone; the names of those that it could not be
/// given. Access-control lists are among them.
///
/// # Errors
/// If the other one's cannot be listed.
pub fn ensure_same(from: &File, to: &File) -> io::Result<Vec<String>> {
    // A handle that is for a look alone has no attributes to ask for, but its link below /proc leads to the file.
    let from = CString::new(format!("/proc/self/fd/{}", from.as_raw_fd())).map_err(io::Error::other)?;
    let mut left = Vec::new();
    for name in read_names(&from)? {
        if OF_CONTENT.contains(&name.to_bytes()) {
            continue;
        }
        let given = read_value(&from, &name).and_then(|value| ensure(to, &name, &value));
        match given {
            // It was taken away meanwhile.
            Err(error) if error.raw_os_error() == Some(libc::ENODATA) => {}
            Err(_) => left.push(name.to_string_lossy().into_owned()),
            Ok(()) => {}
        }
    }
    Ok(left)
}

fn read_names(path: &CStr) -> io::Result<Vec<CString>> {
    let mut names = vec![0_u8; MAX];
    // SAFETY: the path is null-terminated, and the kernel writes no more than there is room for.
    let length = unsafe { libc::listxattr(path.as_ptr(), names.as_mut_ptr().cast(), names.len()) };
    let Ok(length) = usize::try_from(length) else {
        let error = io::Error::last_os_error();
        // A file system without attributes has none.
        return if error.raw_os_error() == Some(libc::EOPNOTSUPP) { Ok(Vec::new()) } else { Err(error) };
    };
    names.truncate(length);
    let each = names.split(|byte| *byte == 0).filter(|name| !name.is_empty());
    each.map(|name| CString::new(name).map_err(io::Error::other)).collect()
}

fn read_value(path: &CStr, name: &CStr) -> io::Result<Vec<u8>> {
    let mut value = vec![0_u8; MAX];
    // SAFETY: both texts are null-terminated, and the kernel writes no more than there is room for.
    let length =
        unsafe { libc::getxattr(path.as_ptr(), name.as_ptr(), value.as_mut_ptr().cast(), value.len()) };
    let length = usize::try_from(length).map_err(|_| io::Error::last_os_error())?;
    value.truncate(length);
    Ok(value)
}

fn ensure(file: &File, name: &CStr, value: &[u8]) -> io::Result<()> {
    // SAFETY: the name is null-terminated, and the value outlives the call.
    let set =
        unsafe { libc::fsetxattr(file.as_raw_fd(), name.as_ptr(), value.as_ptr().cast(), value.len(), 0) };
    if set == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
