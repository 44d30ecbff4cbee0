//! Who is at the other end: read from a certificate that TLS has verified against our root, and from nothing
//! else.

use fleetward_protocol::client_id::ClientId;
use fleetward_protocol::digest::Digest;
use fleetward_protocol::enrol::client_of_uri;
use fleetward_protocol::time::Timestamp;
use rustls_pki_types::CertificateDer;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer as _, X509Certificate};

/// The identity of a connected host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerIdentity {
    /// The client ID of the URI SAN.
    pub client: ClientId,
    /// The certificate's serial number, in lower-case hexadecimal digits.
    pub serial: String,
    /// SHA-256 of the certificate.
    pub fingerprint: Digest,
    /// When the certificate ends.
    pub not_after: Timestamp,
}

/// Why a verified certificate names no host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    /// It cannot be read.
    #[error("the certificate cannot be parsed")]
    Malformed,
    /// It does not have exactly one name, a `fleetward://host/…` URI.
    #[error("the certificate does not carry exactly one host identity")]
    NotAHost,
}

impl PeerIdentity {
    /// Reads the identity out of a certificate whose chain the caller has verified.
    ///
    /// # Errors
    /// If the certificate is not one that [`Authority::issue_host`](super::Authority::issue_host) makes.
    pub fn of_verified(certificate: &CertificateDer<'_>) -> Result<Self, IdentityError> {
        let (_, parsed) = X509Certificate::from_der(certificate).map_err(|_| IdentityError::Malformed)?;
        let names = parsed
            .subject_alternative_name()
            .map_err(|_| IdentityError::Malformed)?
            .ok_or(IdentityError::NotAHost)?;
        let client = match names.value.general_names.as_slice() {
            [GeneralName::URI(uri)] => client_of_uri(uri).ok_or(IdentityError::NotAHost)?,
            _ => return Err(IdentityError::NotAHost),
        };
        let seconds = parsed.validity().not_after.timestamp();
        Ok(Self {
            client,
            serial: hexadecimal(parsed.raw_serial()),
            fingerprint: Digest::of(certificate),
            not_after: Timestamp::from_millis(seconds.saturating_mul(1000)),
        })
    }
}

/// Lower-case hexadecimal digits.
pub(super) fn hexadecimal(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}
