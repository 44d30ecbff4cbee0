//! The port: accepts connections and sends each to what it negotiated.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use fleetward_app::App;
use fleetward_pki::{PeerIdentity, Rotating};
use fleetward_protocol::wire::{ALPN, ALPN_ENROL, close};
use quinn::crypto::rustls::HandshakeData;
use quinn::{Connection, ConnectionError, Endpoint, Incoming};
use rustls_pki_types::CertificateDer;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, info, warn};

use super::port::Port;
use super::tls::{self, TlsError};
use super::{control, enrol};

/// How many handshakes are carried at once, and how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Handshakes {
    /// Under way at most; more wait in the socket's queue.
    pub(super) most: usize,
    /// With more than this many under way, a peer must first prove that its address is its own.
    pub(super) easy: usize,
    /// How long one may take.
    pub(super) patience: Duration,
}

impl Handshakes {
    /// What the port is opened with. A fleet that comes back at once is taken in portions of this size.
    pub(super) const DEFAULT: Self = Self { most: 512, easy: 128, patience: Duration::from_secs(10) };
}

/// How long agents are given to hear that the controller stops.
const DRAIN: Duration = Duration::from_secs(2);

/// Why the agents' port could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// The address cannot be listened on.
    #[error("listen on udp {address}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// The operating system's reason.
        #[source]
        source: io::Error,
    },
    /// It cannot be protected.
    #[error(transparent)]
    Tls(#[from] TlsError),
}

/// The open port. Dropping it does not close it; [`shutdown`](Self::shutdown) does.
#[derive(Debug)]
pub struct LinkServer {
    endpoint: Endpoint,
    stopping: CancellationToken,
    tasks: TaskTracker,
    address: SocketAddr,
}

impl LinkServer {
    /// Opens the port at this address and begins to accept agents.
    ///
    /// # Errors
    /// If the address cannot be listened on or the certificates cannot be used.
    pub fn start(app: &App, listen: SocketAddr, certificate: Arc<Rotating>) -> Result<Self, LinkError> {
        Self::start_with(app, listen, certificate, Handshakes::DEFAULT)
    }

    /// The same, carrying this many handshakes.
    pub(super) fn start_with(
        app: &App,
        listen: SocketAddr,
        certificate: Arc<Rotating>,
        handshakes: Handshakes,
    ) -> Result<Self, LinkError> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let server = tls::server_config(provider, app.authority().root().clone(), certificate)?;
        let failed = |source| LinkError::Listen { address: listen, source };
        let endpoint = Endpoint::server(server, listen).map_err(failed)?;
        let address = endpoint.local_addr().map_err(failed)?;
        let stopping = CancellationToken::new();
        let tasks = TaskTracker::new();
        let port = Arc::new(Port::new(app.clone(), stopping.clone()));
        let accepting = accept(endpoint.clone(), port, tasks.clone(), handshakes);
        let may_end = stopping.clone();
        tasks.spawn(app.vital().watch("link", move || may_end.is_cancelled(), accepting));
        info!(%address, "link.listening");
        Ok(Self { endpoint, stopping, tasks, address })
    }

    /// The address in fact listened on.
    #[must_use]
    pub const fn local_address(&self) -> SocketAddr {
        self.address
    }

    /// Stops accepting, tells the agents that the controller stops, and waits for their sessions to end.
    pub async fn shutdown(self) {
        self.stopping.cancel();
        self.tasks.close();
        // Sessions end by themselves on the token; what hangs is cut off.
        if timeout(DRAIN, self.tasks.wait()).await.is_err() {
            warn!(left = self.tasks.len(), "link.sessions_cut_off");
        }
        self.endpoint.close(close::SHUTDOWN.into(), b"the controller stops");
        let _ = timeout(DRAIN, self.endpoint.wait_idle()).await;
    }
}

async fn accept(endpoint: Endpoint, port: Arc<Port>, tasks: TaskTracker, carried: Handshakes) {
    let handshakes = Arc::new(Semaphore::new(carried.most));
    loop {
        let next = async {
            // The permit first: peers that cannot be served yet stay in the endpoint's own bounded queue.
            let permit = Arc::clone(&handshakes).acquire_owned().await.ok()?;
            Some((permit, endpoint.accept().await?))
        };
        let (permit, incoming) = tokio::select! {
            () = port.stopping.cancelled() => return,
            next = next => match next {
                Some(next) => next,
                // Its socket has failed.
                None => return,
            },
        };
        let is_busy = carried.most - handshakes.available_permits() > carried.easy;
        if is_busy && !incoming.remote_address_validated() && incoming.may_retry() {
            if let Err(error) = incoming.retry() {
                debug!(%error, "link.retry_failed");
            }
            continue;
        }
        tasks.spawn(handshake(incoming, Arc::clone(&port), permit, carried.patience));
    }
}

async fn handshake(incoming: Incoming, port: Arc<Port>, permit: OwnedSemaphorePermit, patience: Duration) {
    let remote = incoming.remote_address();
    let connecting = match incoming.accept() {
        Ok(connecting) => connecting,
        Err(error) => return debug!(%remote, %error, "link.handshake_failed"),
    };
    let connection = match timeout(patience, connecting).await {
        Err(_) => return debug!(%remote, "link.handshake_timed_out"),
        Ok(Ok(connection)) => connection,
        Ok(Err(error @ ConnectionError::TransportError(_))) => {
            return port.refused(remote, &format!("handshake: {error}")).await;
        }
        Ok(Err(error)) => return debug!(%remote, %error, "link.handshake_failed"),
    };
    drop(permit);
    match negotiated(&connection).as_deref() {
        Some(ALPN_ENROL) => enrol::serve(&port, connection).await,
        Some(ALPN) => match identity(&connection) {
            Ok(identity) => control::serve(&port, connection, identity).await,
            Err(reason) => {
                connection.close(close::UNAUTHENTICATED.into(), reason.as_bytes());
                port.refused(remote, &reason).await;
            }
        },
        _ => connection.close(close::UNSUPPORTED.into(), b"unknown protocol"),
    }
}

fn negotiated(connection: &Connection) -> Option<Vec<u8>> {
    connection.handshake_data()?.downcast::<HandshakeData>().ok()?.protocol
}

/// The identity in the certificate that TLS has verified.
fn identity(connection: &Connection) -> Result<PeerIdentity, String> {
    let chain = connection
        .peer_identity()
        .and_then(|identity| identity.downcast::<Vec<CertificateDer<'static>>>().ok())
        .unwrap_or_default();
    let certificate = chain.first().ok_or("no client certificate")?;
    PeerIdentity::of_verified(certificate).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use fleetward_app::testing::{NAME, TestApp};
    use fleetward_pki::ServerPurpose;

    use super::*;

    #[tokio::test]
    async fn a_port_whose_socket_fails_has_failed_and_one_that_is_shut_down_has_not() {
        let test = TestApp::start().await;
        let app = test.app();
        let open = || {
            let certificate =
                app.authority().ensure_server(ServerPurpose::Link, NAME, test.clock.now()).unwrap();
            let provider = Arc::new(rustls::crypto::ring::default_provider());
            let certificate = Arc::new(Rotating::new(provider, certificate).unwrap());
            LinkServer::start(app, "127.0.0.1:0".parse().unwrap(), certificate).unwrap()
        };
        open().shutdown().await;
        let failed = timeout(Duration::ZERO, app.vital().failed()).await;
        assert!(failed.is_err());
        // As its driver does when the socket fails: it gives no more connections.
        open().endpoint.close(0_u32.into(), b"");
        timeout(Duration::from_secs(10), app.vital().failed()).await.expect("it is noticed");
    }
}
