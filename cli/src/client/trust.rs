//! Whom the client believes to be the controller.
//!
//! **What it promises.** A server certificate is always verified: against the system's roots, against a given CA,
//! or against a pinned fingerprint. There is no switch to skip it. A pin that no longer matches is an error,
//! never a question.

use std::fmt;
use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError};

use fleetward_protocol::digest::Digest;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

/// The SHA-256 of a certificate (DER), as people compare it: `sha256:` and 64 hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Fingerprint(Digest);

impl Fingerprint {
    /// Of a certificate.
    pub(crate) fn of(certificate: &CertificateDer<'_>) -> Self {
        Self(Digest::of(certificate))
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{}", self.0)
    }
}

impl FromStr for Fingerprint {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let lower = text.trim().to_ascii_lowercase();
        let digits: String = lower.trim_start_matches("sha256:").chars().filter(|&c| c != ':').collect();
        digits.parse().map(Self).map_err(|_| "a fingerprint is `sha256:` and 64 hexadecimal digits")
    }
}

/// Who vouches for the controller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Trust {
    /// The system's certificate authorities.
    System,
    /// These, and no others.
    Roots(Vec<CertificateDer<'static>>),
    /// The root or server certificate with this fingerprint, as the server presents it.
    Pinned(Fingerprint),
}

/// Why a server was not believed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Untrusted {
    /// Nobody vouches for it; a person may.
    #[error(
        "the certificate of {server} is not signed by an authority that this machine trusts; compare its \
         fingerprint {} with the one the controller printed at `init`, and log in with `--fingerprint`",
        root_of(presented)
    )]
    UnknownIssuer {
        /// Who answered.
        server: String,
        /// The certificates presented, the server's own first.
        presented: Vec<CertificateDer<'static>>,
    },
    /// It is not the one that was pinned.
    #[error(
        "{server} presents another certificate ({}) than the trusted one ({pinned}): either it \
         was set up anew, or someone is in between. If you know that it was set up anew, run `fleetward logout` \
         and `fleetward login` again",
        root_of(presented)
    )]
    PinChanged {
        /// Who answered.
        server: String,
        /// What was expected.
        pinned: Fingerprint,
        /// The certificates presented.
        presented: Vec<CertificateDer<'static>>,
    },
    /// It is for another name, or its time is over.
    #[error("the certificate of {server} is not valid: {problem}")]
    Invalid {
        /// Who answered.
        server: String,
        /// What is wrong with it.
        problem: String,
    },
}

/// The fingerprint to compare: of the last certificate presented, which is the root where the server sends it.
pub(crate) fn root_of(presented: &[CertificateDer<'_>]) -> String {
    presented.last().map_or_else(|| "none".to_owned(), |last| Fingerprint::of(last).to_string())
}

/// A TLS configuration that believes `trust`, and what the last server presented to it.
#[derive(Debug, Clone)]
pub(crate) struct Tls {
    /// What connections are made with.
    pub(crate) config: Arc<ClientConfig>,
    trust: Trust,
    presented: Presented,
}

type Presented = Arc<Mutex<Vec<CertificateDer<'static>>>>;

impl Tls {
    /// Prepares for `trust`. The system's roots are read only where they are asked for.
    ///
    /// # Errors
    /// If there are no roots, or they cannot be used.
    pub(crate) fn new(trust: Trust) -> Result<Self, Error> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let presented = Presented::default();
        let judge = match &trust {
            Trust::System => {
                Judge::Authorities(Arc::new(rustls_platform_verifier::Verifier::new(provider.clone())?))
            }
            Trust::Roots(roots) => Judge::Authorities(web_pki(roots, &provider)?),
            Trust::Pinned(fingerprint) => Judge::Pin(*fingerprint),
        };
        let verifier = Arc::new(Witness { judge, provider: provider.clone(), presented: presented.clone() });
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .dangerous()
            .with_custom_certificate_verifier(verifier)
            .with_no_client_auth();
        Ok(Self { config: Arc::new(config), trust, presented })
    }

    /// Why the handshake with `server` failed, if it was for want of trust.
    pub(crate) fn explain(&self, server: &str, error: &Error) -> Option<Untrusted> {
        let Error::InvalidCertificate(problem) = error else { return None };
        let server = server.to_owned();
        let presented = self.presented.lock().unwrap_or_else(PoisonError::into_inner).clone();
        Some(match (problem, &self.trust) {
            (CertificateError::UnknownIssuer, Trust::Pinned(pinned)) => {
                Untrusted::PinChanged { server, pinned: *pinned, presented }
            }
            // Another authority of the same name shows as a bad signature; the platform's verifier reports a
            // self-signed server in words of its own. Where the handshake itself failed, nothing was presented.
            (
                CertificateError::UnknownIssuer | CertificateError::BadSignature | CertificateError::Other(_),
                Trust::System | Trust::Roots(_),
            ) if !presented.is_empty() => Untrusted::UnknownIssuer { server, presented },
            _ => Untrusted::Invalid { server, problem: error.to_string() },
        })
    }
}

fn web_pki<'a>(
    roots: impl IntoIterator<Item = &'a CertificateDer<'static>>,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<WebPkiServerVerifier>, Error> {
    let mut store = RootCertStore::empty();
    for root in roots {
        store.add(root.clone())?;
    }
    WebPkiServerVerifier::builder_with_provider(Arc::new(store), provider.clone())
        .build()
        .map_err(|error| Error::General(error.to_string()))
}

/// Lets the judge decide, and notes what was presented where it decides against it.
#[derive(Debug)]
struct Witness {
    judge: Judge,
    provider: Arc<CryptoProvider>,
    presented: Presented,
}

/// Whose certificate is believed. That the server holds its key is proven by the handshake's signature in any case.
#[derive(Debug)]
enum Judge {
    /// One that an authority vouches for.
    Authorities(Arc<dyn ServerCertVerifier>),
    /// The pinned one itself, or one that the pinned one signed.
    Pin(Fingerprint),
}

impl ServerCertVerifier for Witness {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let by = |judge: &dyn ServerCertVerifier| {
            judge.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
        };
        let judged = match &self.judge {
            Judge::Authorities(judge) => by(judge.as_ref()),
            Judge::Pin(pin) if Fingerprint::of(end_entity) == *pin => Ok(ServerCertVerified::assertion()),
            Judge::Pin(pin) => match intermediates.iter().find(|each| Fingerprint::of(each) == *pin) {
                Some(root) => {
                    web_pki([&root.clone().into_owned()], &self.provider).and_then(|judge| by(judge.as_ref()))
                }
                None => Err(Error::InvalidCertificate(CertificateError::UnknownIssuer)),
            },
        };
        if judged.is_err() {
            let chain = std::iter::once(end_entity).chain(intermediates);
            *self.presented.lock().unwrap_or_else(PoisonError::into_inner) =
                chain.map(|certificate| certificate.clone().into_owned()).collect();
        }
        judged
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signature, algorithms)
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
