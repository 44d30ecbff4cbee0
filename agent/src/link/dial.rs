//! One attempt to reach one controller.

use std::io::ErrorKind;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use fleetward_protocol::wire::close;
use quinn::crypto::rustls::QuicClientConfig;
use quinn::{ClientConfig, Connection, ConnectionError, Endpoint, TransportConfig, VarInt};

use super::backoff::Cause;
use super::tls::{self, TlsError};
use crate::config::Address;
use crate::identity::Identity;

/// The name that every controller's QUIC certificate carries. Agents reach controllers by names and addresses
/// that vary; what counts is the root that signed.
pub const SERVER_NAME: &str = "controller.fleetward";
/// How long one attempt may take: retransmissions cover this span.
pub(super) const ATTEMPT: Duration = Duration::from_secs(3);
/// How long the word that a port is closed may take: a round trip.
const REFUSAL: Duration = Duration::from_millis(500);
/// Streams a controller may have open while there is little to do. Each allowed one costs memory.
pub(super) const IDLE_STREAMS: u32 = 8;

/// A connection and the socket under it.
#[derive(Debug)]
pub(super) struct Dialled {
    pub(super) endpoint: Endpoint,
    pub(super) connection: Connection,
}

/// A controller was not reached.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// The name has no address now.
    #[error("resolve the name")]
    Resolve(#[source] std::io::Error),
    /// The name has no address at all.
    #[error("the name has no address")]
    NoAddress,
    /// No socket could be opened.
    #[error("open a UDP socket")]
    Socket(#[source] std::io::Error),
    /// The identity is not usable.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The address cannot be dialled.
    #[error("connect")]
    Connect(#[source] quinn::ConnectError),
    /// The handshake failed.
    #[error("connect")]
    Handshake(#[source] ConnectionError),
    /// The host there said that nobody listens on this port.
    #[error("the UDP port is closed: nothing listens there")]
    Closed,
    /// There is no way to the address.
    #[error("there is no way to the address")]
    NoRoute(#[source] std::io::Error),
    /// Nobody answered.
    #[error("no answer within {} s: is UDP to this port allowed on the way?", .0.as_secs())]
    NoAnswer(Duration),
}

impl DialError {
    pub(super) fn cause(&self) -> Cause {
        match self {
            Self::Handshake(error) => cause_of(error).unwrap_or(Cause::Unreachable),
            Self::Tls(_) => Cause::Refused,
            _ => Cause::Unreachable,
        }
    }
}

/// What a closed connection says about the next attempt, if it says anything.
pub(super) fn cause_of(error: &ConnectionError) -> Option<Cause> {
    match error {
        ConnectionError::ApplicationClosed(closed) => match u32::try_from(closed.error_code.into_inner()) {
            Ok(
                close::REVOKED
                | close::UNAUTHENTICATED
                | close::PROTOCOL
                | close::UNSUPPORTED
                | close::TOO_MANY,
            ) => Some(Cause::Refused),
            Ok(close::SUPERSEDED) => Some(Cause::Superseded),
            Ok(close::SHUTDOWN) => Some(Cause::Lost),
            _ => None,
        },
        // A TLS alert: a certificate that one end does not accept, or no common protocol.
        ConnectionError::ConnectionClosed(_) | ConnectionError::TransportError(_) => Some(Cause::Refused),
        // A controller that lost its memory of us: it has restarted.
        ConnectionError::Reset => Some(Cause::Lost),
        _ => None,
    }
}

/// Dials with the host's identity, at every address that the name has now.
pub(super) async fn dial(address: &Address, identity: &Identity) -> Result<Dialled, DialError> {
    connect(address, tls::session(identity)?).await
}

/// Dials with this TLS configuration.
pub(super) async fn connect(address: &Address, tls: QuicClientConfig) -> Result<Dialled, DialError> {
    let mut config = ClientConfig::new(Arc::new(tls));
    config.transport_config(Arc::new(transport()));
    let mut last = DialError::NoAddress;
    for target in resolve(address).await.map_err(DialError::Resolve)? {
        match connect_to(target, config.clone()).await {
            Ok(dialled) => return Ok(dialled),
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// The socket addresses of a controller now.
///
/// # Errors
/// If the name cannot be resolved.
pub async fn resolve(address: &Address) -> std::io::Result<Vec<SocketAddr>> {
    if let Ok(ip) = address.host().parse() {
        return Ok(vec![SocketAddr::new(ip, address.port())]);
    }
    let mut targets: Vec<_> = tokio::net::lookup_host((address.host(), address.port())).await?.collect();
    targets.dedup();
    Ok(targets)
}

async fn connect_to(target: SocketAddr, config: ClientConfig) -> Result<Dialled, DialError> {
    let local: SocketAddr =
        if target.is_ipv4() { (Ipv4Addr::UNSPECIFIED, 0).into() } else { (Ipv6Addr::UNSPECIFIED, 0).into() };
    let endpoint = Endpoint::client(local).map_err(DialError::Socket)?;
    let connecting = endpoint.connect_with(config, target, SERVER_NAME).map_err(DialError::Connect)?;
    match tokio::time::timeout(ATTEMPT, connecting).await {
        Ok(Ok(connection)) => Ok(Dialled { endpoint, connection }),
        Ok(Err(error)) => Err(DialError::Handshake(error)),
        Err(_) => Err(why_silent(target).await.unwrap_or(DialError::NoAnswer(ATTEMPT))),
    }
}

/// Tells a closed port and a missing route from silence. The kernel tells either to a connected socket alone, and QUIC's
/// is none; so another one sends a byte, which no controller takes for more than noise.
async fn why_silent(target: SocketAddr) -> Option<DialError> {
    let local: SocketAddr =
        if target.is_ipv4() { (Ipv4Addr::UNSPECIFIED, 0).into() } else { (Ipv6Addr::UNSPECIFIED, 0).into() };
    let socket = tokio::net::UdpSocket::bind(local).await.ok()?;
    let asked = async {
        socket.connect(target).await?;
        socket.send(&[0]).await?;
        socket.recv(&mut [0; 1]).await
    };
    match tokio::time::timeout(REFUSAL, asked).await {
        Ok(Err(error)) => match error.kind() {
            ErrorKind::ConnectionRefused => Some(DialError::Closed),
            ErrorKind::HostUnreachable | ErrorKind::NetworkUnreachable => Some(DialError::NoRoute(error)),
            _ => None,
        },
        _ => None,
    }
}

fn transport() -> TransportConfig {
    let mut transport = TransportConfig::default();
    transport
        .max_concurrent_bidi_streams(IDLE_STREAMS.into())
        .max_concurrent_uni_streams(0_u32.into())
        .datagram_receive_buffer_size(None)
        // Heartbeats keep the path open and measure silence; QUIC's own timer only backs them up.
        .keep_alive_interval(None)
        .max_idle_timeout(Some(VarInt::from_u32(30_000).into()))
        // Retransmits a lost first packet after a third of a second, not after one.
        .initial_rtt(Duration::from_millis(100))
        .stream_receive_window(VarInt::from_u32(1 << 20))
        .receive_window(VarInt::from_u32(8 << 20))
        .send_window(8 << 20);
    transport
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_port_where_nobody_listens_is_told_from_silence() {
        for local in ["127.0.0.1:0", "[::1]:0"] {
            let Ok(socket) = tokio::net::UdpSocket::bind(local).await else { continue };
            let target = socket.local_addr().unwrap();
            drop(socket);
            assert!(matches!(why_silent(target).await, Some(DialError::Closed)), "{target}");
        }
    }
}
