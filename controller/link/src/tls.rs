//! TLS and transport of the agents' port.
//!
//! Client authentication is optional in the handshake, because enrolment has no certificate yet; a connection
//! that negotiates `fleetward/1` without one is closed before it can say anything. Sessions are never resumed:
//! every connection proves its certificate afresh, within its validity.

use std::sync::Arc;
use std::time::Duration;

use fleetward_protocol::wire::{ALPN, ALPN_ENROL};
use quinn::crypto::rustls::QuicServerConfig;
use quinn::{ServerConfig, TransportConfig, VarInt};
use rustls::RootCertStore;
use rustls::crypto::CryptoProvider;
use rustls::server::{NoServerSessionStorage, ResolvesServerCert, WebPkiClientVerifier};
use rustls_pki_types::CertificateDer;

/// Why the agents' port cannot be protected.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The root certificate cannot be used to verify hosts, so nobody could be.
    #[error("the root certificate cannot serve as a trust anchor")]
    Trust(#[source] rustls::Error),
    /// No verifier of client certificates could be made.
    #[error("verify client certificates")]
    Verifier(#[source] rustls::server::VerifierBuilderError),
    /// The TLS configuration is not acceptable.
    #[error("configure TLS")]
    Tls(#[source] rustls::Error),
    /// QUIC needs a cipher suite that the provider lacks.
    #[error("configure QUIC")]
    Quic(#[source] quinn::crypto::rustls::NoInitialCipherSuite),
}

/// Unacknowledged output that one host may have on its way to one run, in bytes. Enough for 750 MiB/s at a
/// millisecond, or 1 Gbit/s at 15 ms.
const STREAM_WINDOW: u32 = 2 << 20;
/// The same for all runs of one host together.
const CONNECTION_WINDOW: u32 = 4 << 20;
/// What the controller may have on its way to one host: a few scripts.
const SEND_WINDOW: u64 = 2 << 20;
/// Streams that an agent may have open: its control stream, and none besides.
const AGENT_STREAMS: u32 = 1;
/// The transport's own idea of silence; the session's is shorter and decides.
const IDLE: Duration = Duration::from_secs(20);

/// The configuration of the agents' port.
pub(super) fn server_config(
    provider: Arc<CryptoProvider>,
    root: CertificateDer<'static>,
    certificate: Arc<dyn ResolvesServerCert>,
) -> Result<ServerConfig, TlsError> {
    let mut roots = RootCertStore::empty();
    roots.add(root).map_err(TlsError::Trust)?;
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
        .allow_unauthenticated()
        .build()
        .map_err(TlsError::Verifier)?;
    let mut tls = rustls::ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(TlsError::Tls)?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(certificate);
    tls.alpn_protocols = vec![ALPN.to_vec(), ALPN_ENROL.to_vec()];
    tls.session_storage = Arc::new(NoServerSessionStorage {});
    tls.send_tls13_tickets = 0;
    let quic = QuicServerConfig::try_from(tls).map_err(TlsError::Quic)?;
    let mut config = ServerConfig::with_crypto(Arc::new(quic));
    config.transport_config(Arc::new(transport()));
    Ok(config)
}

fn transport() -> TransportConfig {
    let mut transport = TransportConfig::default();
    transport
        .max_concurrent_bidi_streams(AGENT_STREAMS.into())
        .max_concurrent_uni_streams(0u8.into())
        .stream_receive_window(STREAM_WINDOW.into())
        .receive_window(CONNECTION_WINDOW.into())
        .send_window(SEND_WINDOW)
        .datagram_receive_buffer_size(None)
        .max_idle_timeout(VarInt::try_from(IDLE.as_millis()).ok().map(Into::into));
    transport
}
