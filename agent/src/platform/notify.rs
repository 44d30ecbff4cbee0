//! Tells the service manager how the agent is doing (sd_notify(3)): one datagram, so no library.

use std::ffi::OsStr;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};

/// Sends `state` (lines of `KEY=value`) to the notification socket. Without a socket, or if it fails, nothing
/// happens: the service manager's view is not worth stopping for.
pub fn notify(socket: Option<&OsStr>, state: &str) {
    let Some(socket) = socket else { return };
    let send = || {
        let address = match socket.as_bytes().strip_prefix(b"@") {
            Some(name) => SocketAddr::from_abstract_name(name)?,
            None => SocketAddr::from_pathname(socket)?,
        };
        UnixDatagram::unbound()?.send_to_addr(state.as_bytes(), &address)
    };
    if let Err(error) = send() {
        tracing::debug!(%error, "notify_failed");
    }
}
