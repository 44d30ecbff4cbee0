//! Who this host is: its client ID, its key, its certificate, and the root it trusts.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use fleetward_protocol::client_id::ClientId;
use fleetward_protocol::enrol::{client_of_uri, identity_uri};
use fleetward_protocol::message::ClientIdReport;
use fleetward_protocol::text::Text;
use fleetward_protocol::time::Timestamp;
use rcgen::{CertificateParams, DistinguishedName, KeyPair, PKCS_ECDSA_P256_SHA256, SanType};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use x509_parser::extensions::GeneralName;
use x509_parser::parse_x509_certificate;

use crate::config::Paths;
use crate::platform::files::{self, FileError};
use crate::platform::trust::Secrecy;

const MAX_PEM: u64 = 256 << 10;
const MAX_CLIENT_ID_FILE: u64 = 4096;

/// An enrolled host's identity.
#[derive(Debug)]
pub struct Identity {
    /// The client ID that the certificate names.
    pub client: ClientId,
    /// The host's certificate, then its issuers.
    pub chain: Vec<CertificateDer<'static>>,
    /// The fleet's root certificate.
    pub root: CertificateDer<'static>,
    /// When the certificate is valid.
    pub validity: Validity,
    key: PrivatePkcs8KeyDer<'static>,
}

/// When a certificate is valid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Validity {
    /// From.
    pub from: Timestamp,
    /// Until.
    pub until: Timestamp,
}

impl Validity {
    /// When it is time for a new certificate: after two thirds.
    #[must_use]
    pub fn renew_at(&self) -> Timestamp {
        let millis = u64::try_from(self.until.since(self.from).as_millis()).unwrap_or(0);
        self.from + Duration::from_millis(millis / 3 * 2)
    }
}

/// There is no usable identity.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// Nobody enrolled this host.
    #[error("this host is not enrolled: run `fleetward-agent enrol --controller HOST:PORT --token TOKEN`")]
    NotEnrolled,
    /// A file cannot be read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// A file does not hold what it should.
    #[error("{} holds no {what}; enrol this host again with --force", path.display())]
    Unusable {
        /// The file.
        path: PathBuf,
        /// What it should hold.
        what: &'static str,
    },
    /// The certificate and the key do not belong together.
    #[error("the certificate is not for the key in {}; enrol this host again with --force", .0.display())]
    KeyMismatch(PathBuf),
    /// The key or the certificate request could not be made.
    #[error("make a key and a certificate request")]
    Generate(#[source] rcgen::Error),
    /// What a controller issued is not what was asked for.
    #[error("the issued certificate {0}")]
    Unexpected(&'static str),
}

/// A key that waits for its certificate.
#[derive(Debug)]
pub struct Request {
    key: KeyPair,
    /// PKCS#10, DER.
    pub csr: Vec<u8>,
    client: ClientId,
}

impl Request {
    /// A fresh P-256 key and a request for a certificate of `client`. The key never leaves the host.
    ///
    /// # Errors
    /// If the random generator or the encoder fails.
    pub fn generate(client: &ClientId) -> Result<Self, IdentityError> {
        let generate = || {
            let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
            let mut params = CertificateParams::default();
            params.distinguished_name = DistinguishedName::new();
            params.subject_alt_names = vec![SanType::URI(identity_uri(client).try_into()?)];
            let csr = params.serialize_request(&key)?.der().to_vec();
            Ok(Self { key, csr, client: client.clone() })
        };
        generate().map_err(IdentityError::Generate)
    }

    /// Keeps the key where [`Identity::load`] finds it if the certificate arrives and the agent dies.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn save_key(&self, paths: &Paths) -> Result<(), IdentityError> {
        Ok(files::ensure_file(&paths.next_key(), 0o600, self.key.serialize_pem().as_bytes())?)
    }

    /// Makes the issued chain this host's identity, durably. [`Self::save_key`] must have been called.
    ///
    /// # Errors
    /// If it is for another key or client, or cannot be written; the old identity is still in force then.
    pub fn install(
        self,
        paths: &Paths,
        chain: Vec<CertificateDer<'static>>,
        root: CertificateDer<'static>,
    ) -> Result<Identity, IdentityError> {
        let leaf = chain.first().and_then(Leaf::parse).ok_or(IdentityError::Unexpected("cannot be read"))?;
        if leaf.public_key != self.key.public_key_raw() {
            return Err(IdentityError::Unexpected("is for another key"));
        }
        if leaf.client != self.client {
            return Err(IdentityError::Unexpected("is for another client ID"));
        }
        files::ensure_file(&paths.root(), 0o644, pem([&root]).as_bytes())?;
        // From here on the new certificate counts: `load` completes what follows if a crash does not.
        files::ensure_file(&paths.certificate(), 0o644, pem(&chain).as_bytes())?;
        let key = put_in_force(paths, &leaf)?;
        Ok(Identity { client: leaf.client, chain, root, validity: leaf.validity, key })
    }
}

impl Identity {
    /// The identity in the state directory.
    ///
    /// # Errors
    /// If the host is not enrolled, if a file is missing or damaged, if others can read the key, or if others could have
    /// written any of the files.
    pub fn load(paths: &Paths) -> Result<Self, IdentityError> {
        let chain = read_certificates(&paths.certificate())?;
        let root = read_certificates(&paths.root())?;
        let unusable = |path: PathBuf, what| IdentityError::Unusable { path, what };
        let leaf = chain.first().and_then(Leaf::parse);
        let leaf = leaf.ok_or_else(|| unusable(paths.certificate(), "certificate of a host"))?;
        let root = root.into_iter().next().ok_or_else(|| unusable(paths.root(), "certificate"))?;
        let key = match read_key(&paths.key(), &leaf)? {
            Some(key) => key,
            None => match read_key(&paths.next_key(), &leaf)? {
                // A renewal was cut off after the certificate was written and before the key was renamed.
                Some(_) => put_in_force(paths, &leaf)?,
                // Whoever has written the certificate has come to that meanwhile, or there is none.
                None => {
                    read_key(&paths.key(), &leaf)?.ok_or_else(|| IdentityError::KeyMismatch(paths.key()))?
                }
            },
        };
        Ok(Self { client: leaf.client, chain, root, validity: leaf.validity, key })
    }

    /// The private key, for the TLS handshake.
    #[must_use]
    pub fn key(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::Pkcs8(self.key.clone_key())
    }
}

/// What matters of a host's certificate.
struct Leaf {
    client: ClientId,
    validity: Validity,
    public_key: Vec<u8>,
}

impl Leaf {
    fn parse(der: &CertificateDer<'static>) -> Option<Self> {
        let (_, certificate) = parse_x509_certificate(der).ok()?;
        let names = certificate.subject_alternative_name().ok()??;
        let client = names.value.general_names.iter().find_map(|name| match name {
            GeneralName::URI(uri) => client_of_uri(uri),
            _ => None,
        })?;
        let validity = certificate.validity();
        let stamp = |seconds: i64| Timestamp::from_millis(seconds.saturating_mul(1000));
        let validity = Validity {
            from: stamp(validity.not_before.timestamp()),
            until: stamp(validity.not_after.timestamp()),
        };
        Some(Self { client, validity, public_key: certificate.public_key().subject_public_key.data.to_vec() })
    }
}

/// The client-ID file holds something else than a client ID.
#[derive(Debug, thiserror::Error)]
pub enum ClientIdError {
    /// It cannot be read.
    #[error(transparent)]
    File(#[from] FileError),
    /// It can, but is not one line with a client ID.
    #[error("{} does not hold a client ID, but `{found}`", path.display())]
    Invalid {
        /// The file.
        path: PathBuf,
        /// What it holds, shortened.
        found: String,
    },
}

/// The client ID in the file; `None` if there is no file.
///
/// # Errors
/// If it cannot be read, or holds something else.
pub fn read_client_id(path: &Path) -> Result<Option<ClientId>, ClientIdError> {
    let bytes = match files::read_trusted(path, MAX_CLIENT_ID_FILE, Secrecy::Public) {
        Err(error) if error.is_absent() => return Ok(None),
        other => other?,
    };
    let text = String::from_utf8_lossy(&bytes);
    let invalid = |_| {
        let found = text.trim().chars().take(80).flat_map(char::escape_debug).collect();
        ClientIdError::Invalid { path: path.to_owned(), found }
    };
    text.trim().parse().map(Some).map_err(invalid)
}

/// What the file says, for a controller that asks: whatever it is.
#[must_use]
pub fn read_client_id_report(path: &Path) -> ClientIdReport {
    match files::read_trusted(path, MAX_CLIENT_ID_FILE, Secrecy::Public) {
        Err(error) if error.is_absent() => ClientIdReport::Missing,
        Err(error) => {
            let cause =
                std::error::Error::source(&error).map(|cause| format!(": {cause}")).unwrap_or_default();
            ClientIdReport::Unreadable { detail: Text::of(format_args!("{error}{cause}")) }
        }
        Ok(bytes) => {
            let text = String::from_utf8_lossy(&bytes);
            ClientIdReport::Found(Text::of(text.lines().next().unwrap_or_default().trim()))
        }
    }
}

fn read_certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, IdentityError> {
    let bytes = match files::read_trusted(path, MAX_PEM, Secrecy::Public) {
        Err(error) if error.is_absent() => return Err(IdentityError::NotEnrolled),
        other => other?,
    };
    let unusable = |_| IdentityError::Unusable { path: path.to_owned(), what: "certificate" };
    CertificateDer::pem_slice_iter(&bytes).collect::<Result<_, _>>().map_err(unusable)
}

/// The key in the file, if it is the one that the certificate is for.
fn read_key(path: &Path, leaf: &Leaf) -> Result<Option<PrivatePkcs8KeyDer<'static>>, IdentityError> {
    let bytes = match files::read_trusted(path, MAX_PEM, Secrecy::Private) {
        Err(error) if error.is_absent() => return Ok(None),
        other => other?,
    };
    let unusable = || IdentityError::Unusable { path: path.to_owned(), what: "private key" };
    let key = PrivatePkcs8KeyDer::from_pem_slice(&bytes).map_err(|_| unusable())?;
    let pair = KeyPair::try_from(&key).map_err(|_| unusable())?;
    Ok((pair.public_key_raw() == leaf.public_key).then_some(key))
}

/// Has the next key be the key. Whoever enrols does so, and so does the agent that is started at the sight of the new certificate:
/// the second of them finds it done.
fn put_in_force(paths: &Paths, leaf: &Leaf) -> Result<PrivatePkcs8KeyDer<'static>, IdentityError> {
    let renamed = files::ensure_renamed(&paths.next_key(), &paths.key());
    match (read_key(&paths.key(), leaf)?, renamed) {
        (Some(key), _) => Ok(key),
        (None, Err(error)) => Err(error.into()),
        (None, Ok(())) => Err(IdentityError::KeyMismatch(paths.key())),
    }
}

/// RFC 7468 text of certificates.
fn pem<'a>(certificates: impl IntoIterator<Item = &'a CertificateDer<'static>>) -> String {
    let mut text = String::new();
    for certificate in certificates {
        text.push_str("-----BEGIN CERTIFICATE-----\n");
        let encoded = STANDARD.encode(certificate);
        let mut rest = encoded.as_str();
        while !rest.is_empty() {
            let (line, after) = rest.split_at(rest.len().min(64));
            // Writing to a string cannot fail.
            let _ = writeln!(text, "{line}");
            rest = after;
        }
        text.push_str("-----END CERTIFICATE-----\n");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    /// systemd starts the agent as soon as the certificate is there, and that one completes what it takes for cut off.
    #[test]
    fn a_key_that_another_has_put_in_force_meanwhile_is_found_there() {
        let directory = tempfile::tempdir().unwrap();
        let paths = Paths { state: directory.path().to_owned(), ..Paths::default() };
        let client = ClientId::issued(uuid::Uuid::from_u128(7));
        let request = |client: &ClientId| {
            let request = Request::generate(client).unwrap();
            let mut params = CertificateParams::default();
            params.subject_alt_names = vec![SanType::URI(identity_uri(client).try_into().unwrap())];
            let certificate = params.self_signed(&request.key).unwrap().der().clone();
            (request, certificate)
        };
        let (first, certificate) = request(&client);
        first.save_key(&paths).unwrap();
        std::fs::rename(paths.next_key(), paths.key()).unwrap();
        let installed = first.install(&paths, vec![certificate.clone()], certificate.clone()).unwrap();
        assert_eq!(Identity::load(&paths).unwrap().key, installed.key);

        let (second, other) = request(&client);
        let lost = second.install(&paths, vec![other.clone()], other).unwrap_err();
        assert!(matches!(lost, IdentityError::File(_)), "its key is nowhere: {lost}");
        assert!(matches!(Identity::load(&paths), Err(IdentityError::KeyMismatch(_))));
    }

    #[test]
    fn a_key_that_others_can_read_is_not_used() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("key.pem");
        let pair = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
        let leaf = Leaf {
            client: ClientId::issued(uuid::Uuid::from_u128(7)),
            validity: Validity { from: Timestamp::from_millis(0), until: Timestamp::from_millis(1) },
            public_key: pair.public_key_raw().to_vec(),
        };
        for (mode, command) in [
            (0o600, None),
            (0o640, Some("chmod 0600")),
            (0o644, Some("chmod 0600")),
            (0o622, Some("chmod go-w")),
        ] {
            files::ensure_file(&path, mode, pair.serialize_pem().as_bytes()).unwrap();
            match (read_key(&path, &leaf), command) {
                (Ok(Some(_)), None) => {}
                (Err(error), Some(command)) => {
                    let told = error.to_string();
                    assert!(told.contains(&format!("`{command} {}`", path.display())), "{told}");
                }
                (read, _) => panic!("mode {mode:o}: {read:?}"),
            }
        }
        let public = directory.path().join("root.pem");
        files::ensure_file(&public, 0o666, b"").unwrap();
        assert!(read_certificates(&public).unwrap_err().to_string().contains("chmod go-w"));
    }
}
