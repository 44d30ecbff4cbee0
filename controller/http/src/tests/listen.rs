//! The listener: TLS, its refusals, and its orderly end.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use fleetward_pki::{Rotating, ServerPurpose};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::site::TestSite;
use crate::seat::{LIMITS, Limits};
use crate::{ListenError, Listener, Security, serve};

const LOOPBACK: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 0);

async fn ask(stream: &mut (impl AsyncRead + AsyncWrite + Unpin), path: &str, token: &str) {
    let request =
        format!("GET {path} HTTP/1.1\r\nhost: ctl.example.com\r\nauthorization: Bearer {token}\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    stream.flush().await.unwrap();
}

/// Reads until `end` has come.
async fn read_until(stream: &mut (impl AsyncRead + Unpin), end: &str) -> String {
    let mut text = String::new();
    let mut buffer = [0; 4096];
    while !text.contains(end) {
        let length = stream.read(&mut buffer).await.unwrap();
        assert!(length > 0, "the connection ended before `{end}`: {text}");
        text.push_str(std::str::from_utf8(&buffer[..length]).unwrap());
    }
    text
}

#[tokio::test]
async fn tls_is_served_with_the_certificate_of_the_day() {
    let site = TestSite::new().await;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    // Good now, by the clock that rustls looks at.
    let now = fleetward_app::clock::Clock::System.now();
    let certificate =
        || site.app.authority().ensure_server(ServerPurpose::Web, "ctl.example.com", now).unwrap();
    let rotating = Arc::new(Rotating::new(Arc::clone(&provider), certificate()).unwrap());
    let listener = Listener::bind(LOOPBACK, Security::Tls(Arc::<Rotating>::clone(&rotating))).await.unwrap();
    let address = listener.address();
    let served = tokio::spawn(serve(listener, site.app.clone(), site.stopping.clone(), None));

    let mut roots = RootCertStore::empty();
    roots.add(site.app.authority().root().clone()).unwrap();
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let connector = TlsConnector::from(Arc::new(config));
    for _ in 0..2 {
        let tcp = TcpStream::connect(address).await.unwrap();
        let name = ServerName::try_from("ctl.example.com").unwrap();
        let mut stream = connector.connect(name, tcp).await.unwrap();
        ask(&mut stream, "/health", "").await;
        let answer = read_until(&mut stream, "healthy").await;
        assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
        rotating.replace(certificate()).unwrap();
    }
    site.stopping.cancel();
    served.await.unwrap();
}

#[tokio::test]
async fn a_live_stream_ends_with_the_controller() {
    let site = TestSite::new().await;
    let listener = Listener::bind(LOOPBACK, Security::PlainLoopback).await.unwrap();
    let address = listener.address();
    let served = tokio::spawn(serve(listener, site.app.clone(), site.stopping.clone(), None));
    let mut stream = TcpStream::connect(address).await.unwrap();
    ask(&mut stream, "/api/v1/events", &site.token).await;
    read_until(&mut stream, "\r\n\r\n").await;
    site.enrolled_host("web-1").await;
    read_until(&mut stream, "event: host").await;
    site.stopping.cancel();
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).await.unwrap();
    // The last chunk: the answer is whole, not cut off.
    assert!(rest.ends_with(b"0\r\n\r\n"), "{}", String::from_utf8_lossy(&rest));
    served.await.unwrap();
    assert!(TcpStream::connect(address).await.is_err());
}

/// A connection of HTTP/2 and what drives it.
type Http2 = (
    hyper::client::conn::http2::SendRequest<axum::body::Body>,
    tokio::task::JoinHandle<Result<(), hyper::Error>>,
);

/// A site behind TLS with `limits`, and a way to connect to it by HTTP/2.
async fn served_with(
    limits: Limits,
) -> (TestSite, tokio::task::JoinHandle<()>, impl AsyncFn() -> std::io::Result<Http2>) {
    let site = TestSite::new().await;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let now = fleetward_app::clock::Clock::System.now();
    let certificate = site.app.authority().ensure_server(ServerPurpose::Web, "ctl.example.com", now).unwrap();
    let rotating = Arc::new(Rotating::new(Arc::clone(&provider), certificate).unwrap());
    let listener = Listener::bind(LOOPBACK, Security::Tls(rotating)).await.unwrap().with_limits(limits);
    let address = listener.address();
    let served = tokio::spawn(serve(listener, site.app.clone(), site.stopping.clone(), None));
    let mut roots = RootCertStore::empty();
    roots.add(site.app.authority().root().clone()).unwrap();
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let connector = TlsConnector::from(Arc::new(config));
    let connect = async move || {
        let tcp = TcpStream::connect(address).await?;
        let stream = connector.connect(ServerName::try_from("ctl.example.com").unwrap(), tcp).await?;
        let (ask, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
                .await
                .map_err(std::io::Error::other)?;
        Ok((ask, tokio::spawn(connection)))
    };
    (site, served, connect)
}

/// Asks over HTTP/2; the answer has begun.
async fn ask2(
    connection: &mut Http2,
    path: &str,
    token: &str,
) -> Result<axum::http::Response<hyper::body::Incoming>, hyper::Error> {
    let request = axum::http::Request::get(format!("https://ctl.example.com{path}"))
        .header("authorization", format!("Bearer {token}"))
        .body(axum::body::Body::empty())
        .unwrap();
    connection.0.send_request(request).await
}

#[tokio::test]
async fn a_connection_that_only_answers_pings_is_closed_and_a_live_stream_is_not() {
    let idle = Duration::from_millis(50);
    let (site, served, connect) = served_with(Limits { idle, ..LIMITS }).await;
    let mut live = connect().await.unwrap();
    let mut stream = ask2(&mut live, "/api/v1/events", &site.token).await.unwrap().into_body();
    // Nothing is asked on this one, then something, then nothing again: it is closed in order, without an error.
    let mut quiet = connect().await.unwrap();
    assert_eq!(ask2(&mut quiet, "/health", "").await.unwrap().status(), 200);
    quiet.1.await.unwrap().unwrap();
    // The live stream has outlasted it, and lives.
    site.enrolled_host("web-1").await;
    let mut text = String::new();
    while !text.contains("event: host") {
        let frame = http_body_util::BodyExt::frame(&mut stream).await.unwrap().unwrap();
        text.push_str(std::str::from_utf8(&frame.into_data().unwrap()).unwrap());
    }
    drop(stream);
    live.1.await.unwrap().unwrap();
    site.stopping.cancel();
    served.await.unwrap();
}

#[tokio::test]
async fn silent_connections_keep_neither_health_nor_who_is_logged_in_out() {
    let (site, served, connect) = served_with(Limits { newcomers: 3, known: 2, ..LIMITS }).await;
    let mut known = connect().await.unwrap();
    assert_eq!(ask2(&mut known, "/api/v1/auth/me", &site.token).await.unwrap().status(), 200);
    let mut flood = Vec::new();
    for _ in 0..6 {
        flood.push(connect().await.unwrap());
    }
    let mut health = connect().await.unwrap();
    assert_eq!(ask2(&mut health, "/health", "").await.unwrap().status(), 200);
    // The oldest of the flood made room.
    let (_asks, oldest) = flood.remove(0);
    drop(oldest.await.unwrap());
    assert_eq!(ask2(&mut known, "/api/v1/auth/me", &site.token).await.unwrap().status(), 200);
    site.stopping.cancel();
    served.await.unwrap();
}

#[tokio::test]
async fn a_login_has_its_share_of_live_streams() {
    let (site, served, connect) = served_with(Limits { requests_per_login: 2, ..LIMITS }).await;
    let mut one = connect().await.unwrap();
    let mut other = connect().await.unwrap();
    let first = ask2(&mut one, "/api/v1/events", &site.token).await.unwrap();
    let second = ask2(&mut other, "/api/v1/events", &site.token).await.unwrap();
    let refused = ask2(&mut other, "/api/v1/events", &site.token).await.unwrap();
    assert_eq!((refused.status().as_u16(), &refused.headers()["retry-after"]), (429, &"1".parse().unwrap()));
    // Another login is not concerned; nor is this one, when one of its streams has ended.
    let bob = site.login_as("bob", fleetward_domain::people::permission::Role::Viewer).await;
    assert_eq!(ask2(&mut other, "/api/v1/auth/me", &bob).await.unwrap().status(), 200);
    drop((first, one));
    while ask2(&mut other, "/api/v1/auth/me", &site.token).await.unwrap().status() == 429 {
        tokio::task::yield_now().await;
    }
    drop(second);
    site.stopping.cancel();
    served.await.unwrap();
}

#[tokio::test]
async fn plain_http_is_served_on_loopback_only() {
    let beyond = SocketAddr::from(([0, 0, 0, 0], 0));
    let refused = Listener::bind(beyond, Security::PlainLoopback).await.unwrap_err();
    assert!(matches!(refused, ListenError::PlainBeyondLoopback(_)), "{refused}");
    let first = Listener::bind(LOOPBACK, Security::PlainLoopback).await.unwrap();
    let taken = Listener::bind(first.address(), Security::PlainLoopback).await.unwrap_err();
    assert!(matches!(taken, ListenError::Bind { .. }), "{taken}");
}
