//! The listener: TLS, its refusals, and its orderly end.

use std::net::SocketAddr;
use std::sync::Arc;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::site::TestSite;
use crate::http::{ListenError, Listener, Security, serve};
use crate::pki::{Rotating, ServerPurpose};

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
    let now = crate::app::clock::Clock::System.now();
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

#[tokio::test]
async fn plain_http_is_served_on_loopback_only() {
    let beyond = SocketAddr::from(([0, 0, 0, 0], 0));
    let refused = Listener::bind(beyond, Security::PlainLoopback).await.unwrap_err();
    assert!(matches!(refused, ListenError::PlainBeyondLoopback(_)), "{refused}");
    let first = Listener::bind(LOOPBACK, Security::PlainLoopback).await.unwrap();
    let taken = Listener::bind(first.address(), Security::PlainLoopback).await.unwrap_err();
    assert!(matches!(taken, ListenError::Bind { .. }), "{taken}");
}
