//! The controller's own certificate authority.
//!
//! **What for.** One root (P-256) signs everything in the fleet: the controller's QUIC and web certificates and
//! the short-lived certificates of the hosts. Nothing outside trusts it and it trusts nothing outside.
//!
//! **What it promises.** Of a certificate request only the public key is used, after its signature was verified;
//! every name in a certificate is written here. A host certificate's only name is its identity URI, its only
//! usage is client authentication, so that no server certificate can be used as a host's or the other way
//! round. Private keys are written with mode 0600 and refused when anyone else can read them.
//!
//! **Deliberately absent.** No clock (times are parameters), no revocation lists (the store knows what is
//! revoked, and asks for it at every connection), no switch that skips a check.

mod authority;
mod file;
mod host;
mod identity;
mod rotating;
mod server;

pub use authority::Authority;
pub use host::{HostKey, InvalidRequest, IssuedHost};
pub use identity::{IdentityError, PeerIdentity};
pub use rotating::Rotating;
pub use server::{ServerCertificate, ServerPurpose};

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use fleetward_protocol::time::Timestamp;

/// The DNS name that every controller's QUIC certificate carries, and that agents ask for: the identity of the
/// controller is its root, not its address.
pub const CONTROLLER_NAME: &str = "controller.fleetward";

/// Why keys or certificates could not be made or read.
#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    /// A file that should be made exists.
    #[error("{path} exists already; a second authority would lock out every enrolled host", path = .0.display())]
    Exists(PathBuf),
    /// A file that must exist does not.
    #[error("{path} is missing; run `fleetward-controller init` first, or restore it from a backup", path = .0.display())]
    Missing(PathBuf),
    /// A file could not be read or written.
    #[error("{act} {path}", path = .path.display())]
    File {
        /// What was tried.
        act: &'static str,
        /// On what.
        path: PathBuf,
        /// The operating system's reason.
        #[source]
        source: io::Error,
    },
    /// A private key that others can read.
    #[error("{path} has mode {mode:04o}, but a private key must not be readable by others; run `chmod {chmod} {path}`", path = .path.display())]
    Exposed {
        /// The key file.
        path: PathBuf,
        /// Its mode.
        mode: u32,
        /// What takes the others' permissions away.
        chmod: &'static str,
    },
    /// A file that does not hold what it should.
    #[error("{path} does not hold {expected}", path = .path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What it should hold.
        expected: &'static str,
    },
    /// The root certificate and its key do not belong together.
    #[error("the root certificate and the root key in {path} do not belong together", path = .0.display())]
    Mismatch(PathBuf),
    /// A certificate could not be made.
    #[error("make a certificate")]
    Certificate(#[source] rcgen::Error),
}

/// When certificates begin to be valid, before they are made: hosts whose clocks are a day behind still
/// connect, and their skew is then noticed and shown.
const BACKDATED: Duration = Duration::from_secs(2 * 86_400);

/// Sets when a certificate is valid, to the second.
fn set_validity(params: &mut rcgen::CertificateParams, from: Timestamp, until: Timestamp) {
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    let whole = |at: Timestamp| Duration::from_secs(at.since(Timestamp::from_millis(0)).as_secs());
    params.not_before = epoch + whole(from);
    params.not_after = epoch + whole(until);
}

/// A fresh serial number: 16 random bytes, positive (RFC 5280 §4.1.2.2).
fn serial() -> [u8; 16] {
    let mut serial: [u8; 16] = rand::random();
    serial[0] = serial[0] & 0x7f | 0x01;
    serial
}

#[cfg(test)]
mod tests;
