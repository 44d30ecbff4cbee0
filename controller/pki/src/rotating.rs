//! A server certificate that can be replaced while connections are being accepted.

use std::sync::{Arc, PoisonError, RwLock};

use rustls::crypto::CryptoProvider;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use super::ServerCertificate;

/// Answers every handshake with the certificate that was set last.
#[derive(Debug)]
pub struct Rotating {
    provider: Arc<CryptoProvider>,
    current: RwLock<Arc<CertifiedKey>>,
}

impl Rotating {
    /// Begins with `certificate`.
    ///
    /// # Errors
    /// If its key cannot sign, or is not the certificate's.
    pub fn new(provider: Arc<CryptoProvider>, certificate: ServerCertificate) -> Result<Self, rustls::Error> {
        let current = RwLock::new(certified(&provider, certificate)?);
        Ok(Self { provider, current })
    }

    /// Uses `certificate` from now on.
    ///
    /// # Errors
    /// As [`new`](Self::new); the certificate before stays in use.
    pub fn replace(&self, certificate: ServerCertificate) -> Result<(), rustls::Error> {
        let certified = certified(&self.provider, certificate)?;
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = certified;
        Ok(())
    }
}

impl ResolvesServerCert for Rotating {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner)))
    }
}

fn certified(
    provider: &CryptoProvider,
    certificate: ServerCertificate,
) -> Result<Arc<CertifiedKey>, rustls::Error> {
    CertifiedKey::from_der(certificate.chain, certificate.key, provider).map(Arc::new)
}
