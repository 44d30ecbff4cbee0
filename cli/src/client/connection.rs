//! One HTTP/1.1 connection.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;

use super::address::Address;
use super::trust::Tls;
use crate::failure::Failure;

/// How long connecting may take, TLS included.
const CONNECT_WITHIN: Duration = Duration::from_secs(10);

/// A connection that is ready for the next request, or carries the answer to the last one.
#[derive(Debug)]
pub(super) struct Connection {
    sender: SendRequest<Full<Bytes>>,
    driver: JoinHandle<()>,
}

impl Connection {
    /// Connects to `address`.
    pub(super) async fn open(address: &Address, tls: Option<&Tls>) -> Result<Self, Failure> {
        let unreachable = |source| Failure::Unreachable { url: address.to_string(), source };
        let connecting = async {
            let tcp = TcpStream::connect((address.host(), address.port())).await.map_err(unreachable)?;
            tcp.set_nodelay(true).map_err(unreachable)?;
            let Some(tls) = tls else { return Self::handshake(tcp).await.map_err(unreachable) };
            let name = ServerName::try_from(address.host().to_owned())
                .map_err(|error| unreachable(io::Error::other(error)))?;
            let stream =
                TlsConnector::from(tls.config.clone()).connect(name, tcp).await.map_err(|error| {
                    let cause = error.get_ref().and_then(|cause| cause.downcast_ref::<rustls::Error>());
                    if let Some(rustls::Error::InvalidMessage(_)) = cause {
                        let what = "it does not speak TLS; an address on loopback may begin with http://";
                        return unreachable(io::Error::new(io::ErrorKind::InvalidData, what));
                    }
                    match cause.and_then(|cause| tls.explain(&address.to_string(), cause)) {
                        Some(untrusted) => Failure::Untrusted(Box::new(untrusted)),
                        None => unreachable(error),
                    }
                })?;
            Self::handshake(stream).await.map_err(unreachable)
        };
        match tokio::time::timeout(CONNECT_WITHIN, connecting).await {
            Ok(result) => result,
            Err(_) => {
                let what = format!("no connection within {} s", CONNECT_WITHIN.as_secs());
                Err(unreachable(io::Error::new(io::ErrorKind::TimedOut, what)))
            }
        }
    }

    /// Whether it can take a request: the last answer was read to its end, and the other side did not hang up.
    pub(super) async fn is_ready(&mut self) -> bool {
        self.sender.ready().await.is_ok()
    }

    /// Sends a request and waits for the head of its answer.
    pub(super) async fn send(&mut self, request: Request<Full<Bytes>>) -> io::Result<Response<Incoming>> {
        self.sender.send_request(request).await.map_err(|error| {
            if error.is_parse() {
                let what = "it does not answer in HTTP; perhaps its address begins with https://";
                return io::Error::new(io::ErrorKind::InvalidData, what);
            }
            io::Error::other(error)
        })
    }

    async fn handshake(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) -> io::Result<Self> {
        let (sender, connection) =
            http1::Builder::new().handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
        let driver = tokio::spawn(async move {
            // What breaks the connection is reported by the request that it carries.
            let _ = connection.await;
        });
        Ok(Self { sender, driver })
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.driver.abort();
    }
}
