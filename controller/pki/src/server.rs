//! The controller's own server certificates: one for QUIC, one for the web, both signed by the root and renewed
//! long before they end.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use fleetward_protocol::time::Timestamp;
use rcgen::{
    CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, KeyPair, KeyUsagePurpose,
    PKCS_ECDSA_P256_SHA256, SanType, SerialNumber, string::Ia5String,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::{Authority, BACKDATED, CONTROLLER_NAME, PkiError, file, serial, set_validity};

/// How long a server certificate is valid. Below the 398 days that browsers accept.
const VALIDITY: Duration = Duration::from_secs(180 * 86_400);
/// A certificate with less than this left is replaced.
const RENEW_BEFORE: Duration = Duration::from_secs(60 * 86_400);

/// What a server certificate is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ServerPurpose {
    /// Agents, over QUIC.
    Link,
    /// People and programs, over HTTPS.
    Web,
}

/// A server certificate with its key.
#[derive(Debug)]
pub struct ServerCertificate {
    /// The certificate, then the root.
    pub chain: Vec<CertificateDer<'static>>,
    /// The private key.
    pub key: PrivateKeyDer<'static>,
    /// When it ends.
    pub not_after: Timestamp,
}

impl ServerCertificate {
    /// A certificate that somebody else's authority gave out, and its key, in PEM.
    ///
    /// # Errors
    /// If a file is missing or is not what it should be, or others can read the key.
    pub fn read(certificate: &Path, key: &Path) -> Result<Self, PkiError> {
        let chain = file::read_certificates(certificate)?;
        let malformed =
            || PkiError::Malformed { path: certificate.to_owned(), expected: "a certificate in PEM" };
        let leaf = chain.first().ok_or_else(malformed)?;
        let (_, parsed) = X509Certificate::from_der(leaf).map_err(|_| malformed())?;
        let seconds = parsed.validity().not_after.timestamp();
        let not_after = Timestamp::from_millis(seconds.saturating_mul(1000));
        Ok(Self { key: file::read_foreign_key(key)?, not_after, chain })
    }

    /// Whether it should be replaced now.
    #[must_use]
    pub fn is_due(&self, now: Timestamp) -> bool {
        self.not_after - RENEW_BEFORE <= now
    }
}

impl Authority {
    /// The certificate for `purpose` and the controller's `name` (a DNS name or an address): the one on disk
    /// if it is for that name, signed by this root and not due; a fresh one otherwise. The key is kept across
    /// renewals, so that its fingerprint can be pinned.
    ///
    /// # Errors
    /// If files cannot be read or written, or the name cannot stand in a certificate.
    pub fn ensure_server(
        &self,
        purpose: ServerPurpose,
        name: &str,
        now: Timestamp,
    ) -> Result<ServerCertificate, PkiError> {
        let key = self.ensure_key(purpose)?;
        if let Some(held) = self.held(purpose, &key, name)?
            && !held.is_due(now)
        {
            return Ok(held);
        }
        let not_after = now + VALIDITY;
        let certificate = server_params(purpose, name, now, not_after)?
            .signed_by(&key, self.issuer())
            .map_err(PkiError::Certificate)?;
        file::write_private(&self.certificate_path(purpose), &certificate.pem())?;
        Ok(self.with_root(certificate.der().clone(), &key, not_after))
    }

    fn ensure_key(&self, purpose: ServerPurpose) -> Result<KeyPair, PkiError> {
        let path = self.directory().join(format!("{}.key.pem", stem(purpose)));
        match file::read_key(&path) {
            Err(PkiError::Missing(_)) => {
                let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(PkiError::Certificate)?;
                file::write_private(&path, &key.serialize_pem())?;
                Ok(key)
            }
            result => result,
        }
    }

    /// The certificate on disk, if it is ours and says what it should.
    fn held(
        &self,
        purpose: ServerPurpose,
        key: &KeyPair,
        name: &str,
    ) -> Result<Option<ServerCertificate>, PkiError> {
        use rcgen::PublicKeyData as _;
        let certificate = match file::read_certificates(&self.certificate_path(purpose)) {
            Ok(mut certificates) => certificates.swap_remove(0),
            Err(PkiError::Missing(_)) => return Ok(None),
            Err(error) => return Err(error),
        };
        let root = X509Certificate::from_der(self.root()).ok().map(|(_, root)| root);
        let Ok((_, parsed)) = X509Certificate::from_der(&certificate) else { return Ok(None) };
        let ours = root.is_some_and(|root| parsed.verify_signature(Some(root.public_key())).is_ok());
        let subject = parsed.subject().iter_common_name().next().and_then(|name| name.as_str().ok());
        if !ours || subject != Some(name) || parsed.public_key().raw != key.subject_public_key_info() {
            return Ok(None);
        }
        let seconds = parsed.validity().not_after.timestamp();
        let not_after = Timestamp::from_millis(seconds.saturating_mul(1000));
        Ok(Some(self.with_root(certificate.clone(), key, not_after)))
    }

    fn with_root(
        &self,
        certificate: CertificateDer<'static>,
        key: &KeyPair,
        not_after: Timestamp,
    ) -> ServerCertificate {
        ServerCertificate {
            chain: vec![certificate, self.root().clone()],
            key: PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der())),
            not_after,
        }
    }

    fn certificate_path(&self, purpose: ServerPurpose) -> PathBuf {
        self.directory().join(format!("{}.pem", stem(purpose)))
    }
}

const fn stem(purpose: ServerPurpose) -> &'static str {
    match purpose {
        ServerPurpose::Link => "link",
        ServerPurpose::Web => "web",
    }
}

fn server_params(
    purpose: ServerPurpose,
    name: &str,
    now: Timestamp,
    not_after: Timestamp,
) -> Result<CertificateParams, PkiError> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.subject_alt_names = vec![match name.parse::<IpAddr>() {
        Ok(address) => SanType::IpAddress(address),
        Err(_) => dns(name)?,
    }];
    match purpose {
        ServerPurpose::Link => params.subject_alt_names.push(dns(CONTROLLER_NAME)?),
        // The console on the controller's own machine, and the demo.
        ServerPurpose::Web => params.subject_alt_names.push(dns("localhost")?),
    }
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.use_authority_key_identifier_extension = true;
    params.serial_number = Some(SerialNumber::from_slice(&serial()));
    set_validity(&mut params, now - BACKDATED, not_after);
    Ok(params)
}

fn dns(name: &str) -> Result<SanType, PkiError> {
    Ok(SanType::DnsName(Ia5String::try_from(name).map_err(PkiError::Certificate)?))
}
