//! Local sockets between processes of one user.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, AsRawFd as _};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::os::unix::net::UnixListener;
use std::path::Path;

use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, getsockopt, listen, socket, sockopt,
};
use nix::sys::stat::{Mode, fchmod};

/// Listens at `path`, for this process's own user alone: nobody else can connect, whatever the umask or a list of the
/// directory says.
///
/// The mode is set on the socket before it gets its name (Linux takes it from there, unix(7)): there is no moment at
/// which another mode is seen, and no umask to change, which would be the whole process's.
///
/// # Errors
/// If the name is taken, cannot be made, or did not get its mode.
pub fn ensure_private_listener(path: &Path) -> io::Result<UnixListener> {
    let private = Mode::S_IRUSR | Mode::S_IWUSR;
    let fd = socket(AddressFamily::Unix, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    fchmod(&fd, private)?;
    bind(fd.as_raw_fd(), &UnixAddr::new(OsStr::new(path))?)?;
    let mode = std::fs::symlink_metadata(path)?.mode() & 0o7777;
    if mode & 0o077 != 0 {
        // Before anybody can be waiting at it: it does not listen yet.
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(private.bits()))?;
    }
    listen(&fd, Backlog::new(16)?)?;
    Ok(UnixListener::from(fd))
}

/// Whether the other end of a connection is a process of this process's own user (`SO_PEERCRED`, unix(7)).
///
/// # Errors
/// If the kernel does not say.
pub fn read_is_own(stream: &impl AsFd) -> io::Result<bool> {
    let peer = getsockopt(stream, sockopt::PeerCredentials)?;
    Ok(peer.uid() == nix::unistd::geteuid().as_raw())
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::stat::umask;
    use std::os::unix::net::UnixStream;

    /// One process per test: the umask is the whole process's.
    #[test]
    fn a_socket_is_private_under_every_umask() {
        let directory = tempfile::tempdir().unwrap();
        for mask in [0o000, 0o022, 0o077] {
            umask(Mode::from_bits_truncate(mask));
            let path = directory.path().join(format!("{mask:o}"));
            let listener = ensure_private_listener(&path).unwrap();
            assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o7777, 0o600, "umask {mask:o}");
            let ours = UnixStream::connect(&path).unwrap();
            let (theirs, _) = listener.accept().unwrap();
            assert!(read_is_own(&ours).unwrap() && read_is_own(&theirs).unwrap());
            assert!(ensure_private_listener(&path).is_err(), "the name is taken");
        }
    }
}
