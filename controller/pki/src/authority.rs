//! The root: made once by `init`, loaded by everything else.

use std::fs;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use fleetward_protocol::digest::Digest;
use fleetward_protocol::time::Timestamp;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    PKCS_ECDSA_P256_SHA256, PublicKeyData as _, SerialNumber,
};
use rustls_pki_types::CertificateDer;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::{BACKDATED, PkiError, file, serial, set_validity};

/// How long a root is valid: longer than the fleet's machines live.
const ROOT_VALIDITY: Duration = Duration::from_secs(30 * 365 * 86_400);

/// The fleet's root certificate and its key.
#[derive(Debug)]
pub struct Authority {
    directory: PathBuf,
    root: CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    /// Makes a root in `directory`, which is created with mode 0700 if it does not exist.
    ///
    /// # Errors
    /// [`PkiError::Exists`] if the directory holds a root or a root key already; nothing is overwritten.
    pub fn create(directory: &Path, name: &str, now: Timestamp) -> Result<Self, PkiError> {
        let (certificate_path, key_path) = (root_path(directory), key_path(directory));
        if let Some(path) = [&certificate_path, &key_path].into_iter().find(|path| path.exists()) {
            return Err(PkiError::Exists(path.clone()));
        }
        fs::DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(|source| {
            PkiError::File { act: "create directory", path: directory.to_owned(), source }
        })?;
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(PkiError::Certificate)?;
        let certificate = root_params(name, now).self_signed(&key).map_err(PkiError::Certificate)?;
        // The key first: a certificate without its key would be taken for a root that lost it.
        file::write_private(&key_path, &key.serialize_pem())?;
        file::write_private(&certificate_path, &certificate.pem())?;
        Self::load(directory)
    }

    /// Loads the root of `directory`.
    ///
    /// # Errors
    /// If a file is missing, malformed or exposed, or the key is not the certificate's.
    pub fn load(directory: &Path) -> Result<Self, PkiError> {
        let path = root_path(directory);
        let key = file::read_key(&key_path(directory))?;
        let root = file::read_certificates(&path)?.swap_remove(0);
        let malformed =
            || PkiError::Malformed { path: path.clone(), expected: "a certificate authority's certificate" };
        let (_, parsed) = X509Certificate::from_der(&root).map_err(|_| malformed())?;
        if !parsed.is_ca() {
            return Err(malformed());
        }
        if parsed.public_key().raw != key.subject_public_key_info() {
            return Err(PkiError::Mismatch(directory.to_owned()));
        }
        let issuer = Issuer::from_ca_cert_der(&root, key).map_err(PkiError::Certificate)?;
        Ok(Self { directory: directory.to_owned(), root, issuer })
    }

    /// The root certificate, the only thing that hosts trust and the only issuer of hosts that we trust.
    #[must_use]
    pub const fn root(&self) -> &CertificateDer<'static> {
        &self.root
    }

    /// SHA-256 of the root certificate, as enrolment tokens carry it and people compare it.
    #[must_use]
    pub fn digest(&self) -> Digest {
        Digest::of(&self.root)
    }

    /// Where the authority's files are.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    pub(super) const fn issuer(&self) -> &Issuer<'static, KeyPair> {
        &self.issuer
    }
}

fn root_path(directory: &Path) -> PathBuf {
    directory.join("root.pem")
}

fn key_path(directory: &Path) -> PathBuf {
    directory.join("root.key.pem")
}

fn root_params(name: &str, now: Timestamp) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, format!("Fleetward root of {name}"));
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.serial_number = Some(SerialNumber::from_slice(&serial()));
    set_validity(&mut params, now - BACKDATED, now + ROOT_VALIDITY);
    params
}
