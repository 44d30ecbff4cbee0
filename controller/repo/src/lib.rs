//! The inventory repository: fetch a branch, read files of a commit.
//!
//! **What for.** [`fetch()`] brings the tip of a branch from an https, ssh or file remote into a bare mirror in the
//! data directory; [`Snapshot`] reads files of one commit from there.
//!
//! **What it promises.** Nothing is ever checked out, so no hook, filter, attribute or symbolic link of the
//! repository takes effect. A fetch is bounded in time and in bytes, and libgit2 in memory. An SSH server has to show a known key and
//! an https server a valid certificate. Every way to fail is a variant of [`FetchError`] that says what to do
//! next. Credentials are in no URL, error or log. A mirror that is damaged or has grown is made anew: it holds
//! nothing that the remote does not.
//!
//! **Deliberately absent.** Writing to a remote. Submodules. Git's own credential helpers and SSH agents: what
//! authenticates is what was configured. Everything here blocks; callers are on a thread for that.
//!
//! Git's ownership rule stays on: a file remote that belongs to another user is refused, because its owner could
//! point it at objects that only the controller can read. The administrator's `safe.directory` lifts it for one path.

mod credentials;
mod error;
mod fetch;
mod host_key;
mod library;
mod memory;
mod snapshot;
mod url;

pub use credentials::Credentials;
pub use error::FetchError;
pub use fetch::{Fetched, History, Limits, Reach, fetch};
pub use host_key::{HostKeys, InvalidHostKey};
pub use snapshot::Snapshot;
pub use url::{InvalidRemote, Remote, RemoteUrl};

#[cfg(any(test, feature = "testing"))]
pub mod testing;
#[cfg(test)]
mod tests;
