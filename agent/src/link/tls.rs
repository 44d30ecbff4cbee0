//! Whom the agent believes, and how it proves itself.

use std::sync::Arc;

use fleetward_protocol::digest::Digest;
use fleetward_protocol::wire::{ALPN, ALPN_ENROL};
use quinn::crypto::rustls::{NoInitialCipherSuite, QuicClientConfig};
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
    version::TLS13,
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use crate::identity::Identity;

/// The identity cannot be used for TLS.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The root cannot be trusted.
    #[error("use the root certificate")]
    Root(#[source] Error),
    /// The certificate or the key cannot be used.
    #[error("use the host's certificate and key")]
    Identity(#[source] Error),
    /// The provider lacks what QUIC needs.
    #[error("prepare QUIC")]
    Quic(#[source] NoInitialCipherSuite),
}

/// Mutual TLS with the fleet's controllers.
pub(super) fn session(identity: &Identity) -> Result<QuicClientConfig, TlsError> {
    let mut roots = RootCertStore::empty();
    roots.add(identity.root.clone()).map_err(TlsError::Root)?;
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])
        .map_err(TlsError::Identity)?
        .with_root_certificates(roots)
        .with_client_auth_cert(identity.chain.clone(), identity.key())
        .map_err(TlsError::Identity)?;
    config.alpn_protocols = vec![ALPN.to_vec()];
    // A ticket saves little and is memory that an idle agent does not need.
    config.resumption = rustls::client::Resumption::disabled();
    QuicClientConfig::try_from(config).map_err(TlsError::Quic)
}

/// Server-authenticated TLS with whoever proves the root that the token names.
pub(super) fn enrolment(root: Digest) -> Result<QuicClientConfig, TlsError> {
    let provider = provider();
    let verifier = PinnedRoot { root, provider: Arc::clone(&provider) };
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])
        .map_err(TlsError::Identity)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth();
    config.alpn_protocols = vec![ALPN_ENROL.to_vec()];
    QuicClientConfig::try_from(config).map_err(TlsError::Quic)
}

/// The certificate with this digest among those that a server presented.
pub(super) fn find_root<'a>(
    presented: impl IntoIterator<Item = &'a CertificateDer<'a>>,
    root: Digest,
) -> Option<CertificateDer<'static>> {
    let found = presented.into_iter().find(|certificate| Digest::of(certificate) == root);
    found.map(|certificate| certificate.clone().into_owned())
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// Trusts exactly one root: the one whose digest came with the token. Everything else is the usual verification.
#[derive(Debug)]
struct PinnedRoot {
    root: Digest,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for PinnedRoot {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let root = find_root(intermediates, self.root)
            .ok_or(Error::InvalidCertificate(CertificateError::UnknownIssuer))?;
        let mut roots = RootCertStore::empty();
        roots.add(root)?;
        WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&self.provider))
            .build()
            .map_err(|error| Error::General(error.to_string()))?
            .verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::General("QUIC has no TLS 1.2".into()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
