//! The agents' side: one UDP port, QUIC with mutual TLS.
//!
//! **What for.** Accepts connections, finds out from the client certificate alone who is there, speaks the
//! control stream and the runs' streams with the protocol's sans-IO machines, and carries out the app's
//! [`HostCommand`](fleetward_app::fleet::online::HostCommand)s.
//!
//! **What it promises.** Nothing a peer says before it is authenticated costs more than a handshake, and
//! handshakes are limited. No frame is allocated for before its length was compared with its cap. A host that
//! is silent for nine seconds is offline. Back-pressure reaches the host: output that the store does not take
//! is not read from the wire. What a host says that needs the store is stored within its budget, and counted beyond.
//!
//! **Deliberately absent.** Decisions and storage, which are the app's; any identity but the certificate's.

mod buffer;
mod control;
mod endpoint;
mod enrol;
mod errand;
mod frame;
mod port;
mod query;
mod reason;
mod run;
mod tls;

pub use endpoint::{LinkError, LinkServer};
pub use tls::TlsError;

#[cfg(test)]
mod tests;
