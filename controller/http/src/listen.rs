//! The listener: TCP, TLS, HTTP/1.1 and HTTP/2, and an orderly end.
//!
//! **What it promises.** Without TLS it listens on loopback only. A client that connects and says nothing, or
//! says it slowly, is cut off, and so is one that asks nothing more, whatever it answers to pings. No address and no
//! login can take all connections ([`seat`](super::seat)). The certificate can be replaced while it runs. At the end
//! no new connection is taken, running requests are finished, and live streams end so that clients resume elsewhere.

use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulConnection;
use rustls::ServerConfig;
use rustls::server::ResolvesServerCert;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt as _;

use super::body::Holding;
use super::patience::Patience;
use super::seat::{LIMITS, Limits, Seat, Seats};

/// How long a client may take for the TLS handshake, for its first byte, and for a request's head.
const HEAD_TIMEOUT: Duration = Duration::from_secs(15);
/// How often an HTTP/2 connection is checked for life.
const PING: Duration = Duration::from_secs(20);
/// How long running requests may take to end when the controller stops, and a client to take its leave.
const GRACE: Duration = Duration::from_secs(10);

/// How connections are protected.
#[derive(Debug, Clone)]
pub enum Security {
    /// TLS, with the certificate the resolver gives at each handshake.
    Tls(Arc<dyn ResolvesServerCert>),
    /// Nothing; only ever on a loopback address.
    PlainLoopback,
}

/// Where a request came from.
#[derive(Debug, Clone, Copy)]
pub(super) struct Remote(pub(super) SocketAddr);

/// A bound socket, ready to serve.
#[derive(Debug)]
pub struct Listener {
    tcp: TcpListener,
    address: SocketAddr,
    tls: Option<Arc<ServerConfig>>,
    limits: Limits,
}

/// Why the listener could not be made.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// HTTP without TLS was asked for where others could listen in.
    #[error("{0} is not a loopback address, and HTTP without TLS is served on loopback only")]
    PlainBeyondLoopback(SocketAddr),
    /// The socket could not be bound.
    #[error("listen on TCP {address}")]
    Bind {
        /// Where.
        address: SocketAddr,
        /// The operating system's reason.
        #[source]
        source: io::Error,
    },
    /// TLS could not be set up.
    #[error("set up TLS")]
    Tls(#[source] rustls::Error),
}

impl Listener {
    /// Binds `address`; port 0 takes a free one.
    ///
    /// # Errors
    /// [`ListenError`].
    pub async fn bind(address: SocketAddr, security: Security) -> Result<Self, ListenError> {
        let tls = match security {
            Security::Tls(resolver) => Some(tls_config(resolver).map_err(ListenError::Tls)?),
            Security::PlainLoopback if address.ip().is_loopback() => None,
            Security::PlainLoopback => return Err(ListenError::PlainBeyondLoopback(address)),
        };
        let failed = |source| ListenError::Bind { address, source };
        let tcp = TcpListener::bind(address).await.map_err(failed)?;
        let address = tcp.local_addr().map_err(failed)?;
        Ok(Self { tcp, address, tls, limits: LIMITS })
    }

    /// With other limits than a controller's.
    #[cfg(test)]
    pub(super) fn with_limits(self, limits: Limits) -> Self {
        Self { limits, ..self }
    }

    /// The address bound.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Whether connections are protected by TLS.
    pub(super) const fn is_tls(&self) -> bool {
        self.tls.is_some()
    }

    /// Serves until `stopping`, then ends in order; returns when the last connection is closed or was given up.
    pub(super) async fn serve(self, router: Router, stopping: CancellationToken) {
        let (seats, connections) = (Seats::new(self.limits), TaskTracker::new());
        loop {
            let (stream, remote) = tokio::select! {
                () = stopping.cancelled() => break,
                accepted = self.tcp.accept() => match accepted {
                    Ok(accepted) => accepted,
                    Err(error) => {
                        tracing::warn!(%error, "http.accept_failed");
                        // Out of descriptors, most likely: accepting again at once would only spin.
                        tokio::time::sleep(Duration::from_millis(100)).await;
                        continue;
                    }
                },
            };
            // Without a seat the connection is closed at once: before TLS there is no way to say why.
            let Some(seat) = seats.take(remote.ip()) else { continue };
            let place = Place { remote, router: router.clone(), seat, stopping: stopping.clone() };
            let tls = self.tls.clone();
            connections.spawn(async move {
                if let Err(error) = connection(stream, tls, place).await {
                    tracing::debug!(%remote, error, "http.connection_ended");
                }
            });
        }
        drop(self.tcp);
        connections.close();
        if tokio::time::timeout(GRACE, connections.wait()).await.is_err() {
            tracing::warn!(grace_s = GRACE.as_secs(), "http.requests_cut_off");
        }
    }
}

/// What a connection serves, and where it sits.
struct Place {
    remote: SocketAddr,
    router: Router,
    seat: Arc<Seat>,
    stopping: CancellationToken,
}

fn tls_config(resolver: Arc<dyn ResolvesServerCert>) -> Result<Arc<ServerConfig>, rustls::Error> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_cert_resolver(resolver);
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

async fn connection(stream: TcpStream, tls: Option<Arc<ServerConfig>>, place: Place) -> Result<(), String> {
    // Live output is many small writes; none may wait for the next.
    stream.set_nodelay(true).map_err(|error| error.to_string())?;
    let Some(tls) = tls else {
        return http1(stream, &place).await;
    };
    let handshake = tokio::time::timeout(HEAD_TIMEOUT, TlsAcceptor::from(tls).accept(stream));
    let stream = tokio::select! {
        shaken = handshake => match shaken {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return Err(format!("TLS handshake: {error}")),
            Err(_) => return Err("the TLS handshake took too long".to_owned()),
        },
        () = place.seat.displaced() => return Err(DISPLACED.to_owned()),
    };
    match stream.get_ref().1.alpn_protocol() {
        Some(b"h2") => http2(stream, &place).await,
        _ => http1(stream, &place).await,
    }
}

async fn http1(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    place: &Place,
) -> Result<(), String> {
    let (router, remote, seat) = (place.router.clone(), place.remote, Arc::clone(&place.seat));
    let service = service_fn(move |request| answer(router.clone(), remote, Arc::clone(&seat), request));
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(64 << 10)
        .serve_connection(TokioIo::new(stream), service);
    drive(connection, place).await
}

async fn http2(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    place: &Place,
) -> Result<(), String> {
    let (router, remote, seat) = (place.router.clone(), place.remote, Arc::clone(&place.seat));
    let service = service_fn(move |request| answer(router.clone(), remote, Arc::clone(&seat), request));
    let connection = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .keep_alive_interval(PING)
        .keep_alive_timeout(PING)
        .max_concurrent_streams(256)
        .max_header_list_size(32 << 10)
        .serve_connection(TokioIo::new(Patience::new(stream, HEAD_TIMEOUT)), service);
    drive(connection, place).await
}

const DISPLACED: &str = "its seat was given to a newcomer";

/// Serves a connection until it ends by itself, is idle, or has to make room; and takes leave of its client.
async fn drive<C>(connection: C, place: &Place) -> Result<(), String>
where
    C: GracefulConnection,
    C::Error: std::fmt::Display,
{
    let mut connection = pin!(connection);
    tokio::select! {
        ended = connection.as_mut() => return ended.map_err(|error| error.to_string()),
        () = place.seat.displaced() => return Err(DISPLACED.to_owned()),
        () = place.stopping.cancelled() => {}
        () = place.seat.idle() => {}
    }
    connection.as_mut().graceful_shutdown();
    // Requests that came meanwhile are answered; then the client has its time to close.
    tokio::select! {
        ended = connection => ended.map_err(|error| error.to_string()),
        () = place.seat.displaced() => Err(DISPLACED.to_owned()),
        () = tokio::time::sleep(GRACE) => Err("the client did not take its leave".to_owned()),
    }
}

async fn answer(
    router: Router,
    remote: SocketAddr,
    seat: Arc<Seat>,
    request: hyper::Request<Incoming>,
) -> Result<axum::response::Response, std::convert::Infallible> {
    let in_flight = seat.request();
    let mut request = request.map(Body::new);
    request.extensions_mut().insert(Remote(remote));
    request.extensions_mut().insert(in_flight.clone());
    let response = router.oneshot(request).await?;
    // The request is in flight until its answer is sent, or given up.
    Ok(response.map(|body| Body::new(Holding::new(body, in_flight))))
}
