//! Certificates of hosts, made from certificate requests.

use std::time::Duration;

use fleetward_protocol::client_id::ClientId;
use fleetward_protocol::digest::Digest;
use fleetward_protocol::enrol::{client_of_uri, identity_uri};
use fleetward_protocol::time::Timestamp;
use rcgen::{
    CertificateParams, CertificateSigningRequestParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose,
    KeyUsagePurpose, PublicKey, PublicKeyData as _, SanType, SerialNumber, string::Ia5String,
};
use rustls_pki_types::{CertificateDer, CertificateSigningRequestDer};

use super::{Authority, BACKDATED, PkiError, serial, set_validity};

/// What is taken from a certificate request: the key that signed it, and whom it says it is for.
#[derive(Debug)]
pub struct HostKey {
    key: PublicKey,
    claimed: Option<ClientId>,
}

/// A certificate request that is none: malformed, of an unsupported kind of key, or with a signature that does
/// not verify.
#[derive(Debug, thiserror::Error)]
#[error("the certificate request is not valid")]
pub struct InvalidRequest(#[source] rcgen::Error);

impl HostKey {
    /// Reads a PKCS#10 request (RFC 2986) and verifies that its sender holds the key.
    ///
    /// # Errors
    /// If it is not a request, or its signature does not verify.
    pub fn parse(request: &[u8]) -> Result<Self, InvalidRequest> {
        let request = CertificateSigningRequestDer::from(request);
        let CertificateSigningRequestParams { params, public_key } =
            CertificateSigningRequestParams::from_der(&request).map_err(InvalidRequest)?;
        let claimed = match params.subject_alt_names.as_slice() {
            [SanType::URI(uri)] => client_of_uri(uri.as_str()),
            _ => None,
        };
        Ok(Self { key: public_key, claimed })
    }

    /// The client ID the request names, if it names exactly one. A claim, not a proof: the caller compares it
    /// with what the token or the connection proves.
    #[must_use]
    pub const fn claimed(&self) -> Option<&ClientId> {
        self.claimed.as_ref()
    }

    /// SHA-256 of the public key (SubjectPublicKeyInfo).
    #[must_use]
    pub fn digest(&self) -> Digest {
        Digest::of(&self.key.subject_public_key_info())
    }
}

/// A certificate that was issued to a host.
#[derive(Debug, Clone)]
pub struct IssuedHost {
    /// The certificate, then the root.
    pub chain: Vec<CertificateDer<'static>>,
    /// Its serial number, in lower-case hexadecimal digits.
    pub serial: String,
    /// SHA-256 of the certificate.
    pub fingerprint: Digest,
    /// When it begins to be valid.
    pub not_before: Timestamp,
    /// When it ends.
    pub not_after: Timestamp,
}

impl Authority {
    /// Issues a certificate for `client` to the holder of `key`, valid for `validity`.
    ///
    /// # Errors
    /// If the certificate cannot be signed.
    pub fn issue_host(
        &self,
        key: &HostKey,
        client: &ClientId,
        now: Timestamp,
        validity: Duration,
    ) -> Result<IssuedHost, PkiError> {
        let serial = serial();
        let not_after = now + validity;
        let uri = Ia5String::try_from(identity_uri(client)).map_err(PkiError::Certificate)?;
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, client.as_str());
        params.subject_alt_names = vec![SanType::URI(uri)];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        params.serial_number = Some(SerialNumber::from_slice(&serial));
        set_validity(&mut params, now - BACKDATED, not_after);
        let certificate = params.signed_by(&key.key, self.issuer()).map_err(PkiError::Certificate)?;
        Ok(IssuedHost {
            chain: vec![certificate.der().clone(), self.root().clone()],
            serial: super::identity::hexadecimal(&serial),
            fingerprint: Digest::of(certificate.der()),
            not_before: now - BACKDATED,
            not_after,
        })
    }
}
