//! Enrolment: binding a host to its client ID and its key.
//!
//! Over its own ALPN, server-authenticated only. The agent opens one bidirectional stream, sends one
//! [`EnrolRequest`] frame and reads one [`EnrolReply`] frame. The token names the root certificate by digest,
//! so the agent needs to trust nothing else: a controller that cannot prove that root is not talked to.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};

use crate::client_id::ClientId;
use crate::digest::Digest;
use crate::text::Word;
use crate::wire;

const TOKEN_PREFIX: &str = "fwt1_";
const MAX_TOKEN: usize = 1024;

/// An enrolment token as a person copies it: `fwt1_` and URL-safe base64. Shown once; the controller keeps
/// only a digest of the secret.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Token {
    /// 32 random bytes.
    pub secret: [u8; 32],
    /// SHA-256 of the controller's root certificate (DER).
    pub root: Digest,
    /// The host the token is bound to; absent in a token for a host that is not in the inventory yet.
    pub client: Option<ClientId>,
}

/// Text that is not a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("this is not an enrolment token: it should begin with `{TOKEN_PREFIX}` and be copied whole")]
pub struct InvalidToken;

impl FromStr for Token {
    type Err = InvalidToken;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let text =
            text.strip_prefix(TOKEN_PREFIX).filter(|text| text.len() <= MAX_TOKEN).ok_or(InvalidToken)?;
        let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| InvalidToken)?;
        wire::decode(&bytes, MAX_TOKEN).map_err(|_| InvalidToken)
    }
}

impl Token {
    /// The text a person copies.
    #[must_use]
    pub fn reveal(&self) -> String {
        // A token is a few dozen bytes; it cannot exceed its own cap.
        let bytes = wire::encode(self, MAX_TOKEN).unwrap_or_default();
        format!("{TOKEN_PREFIX}{}", URL_SAFE_NO_PAD.encode(bytes))
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Token")
            .field("root", &self.root)
            .field("client", &self.client)
            .finish_non_exhaustive()
    }
}

/// What an agent sends to enrol.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EnrolRequest {
    /// The token's secret.
    pub secret: [u8; 32],
    /// PKCS#10, DER, for a URI SAN of `fleetward://host/<client-id>` and a key that stays on the host.
    #[serde(with = "serde_bytes")]
    pub csr: Vec<u8>,
    /// What the host calls itself; shown where a person approves it.
    pub hostname: Word,
    /// The agent's package version.
    pub agent_version: Word,
}

/// The controller's answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum EnrolReply {
    /// Enrolled.
    Issued {
        /// The host's certificate first, then its issuers up to the root; DER.
        chain: Vec<serde_bytes::ByteBuf>,
        /// Whether the host must wait for approval before anything is dispatched to it.
        quarantined: bool,
    },
    /// Not enrolled.
    Refused(EnrolRefusal),
}

/// Why an enrolment was refused. Append-only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum EnrolRefusal {
    /// No such token.
    #[error("the token is not known to this controller; make a new one with `fleetward host token <host>`")]
    UnknownToken,
    /// The token's time is over.
    #[error("the token has expired; make a new one with `fleetward host token <host>`")]
    ExpiredToken,
    /// The token was used before.
    #[error("the token was used already; make a new one with `fleetward host token <host>`")]
    UsedToken,
    /// The certificate request is not a valid one, or its signature does not verify.
    #[error(
        "the certificate request is not valid; install the agent of the controller's version, and try again with the \
         same token"
    )]
    BadRequest,
    /// The certificate request names another client ID than the token.
    #[error(
        "the token is bound to another client ID than /etc/fleetward/client_id names; make one for this host with \
         `fleetward host token <host>`"
    )]
    WrongClient,
    /// The host is retired or its enrolment is revoked for good.
    #[error(
        "the host is retired in the inventory; take it back there, then make a new token with `fleetward host token <host>`"
    )]
    Retired,
    /// Too many attempts from this address.
    #[error("too many enrolment attempts from this address; wait a minute and try again")]
    RateLimited,
    /// The controller could not do it now.
    #[error("the controller could not enrol the host now; its log says why")]
    Unavailable,
    /// The token is bound to no host, and a host with this client ID is enrolled or waits for approval, or belongs to
    /// another tenant than the token.
    #[error(
        "another host has this client ID already; only a token made for it with `fleetward host token <host>` can enrol it again"
    )]
    NeedsBoundToken,
}

/// The URI that a host's certificate carries as its only subject alternative name.
#[must_use]
pub fn identity_uri(client: &ClientId) -> String {
    format!("fleetward://host/{client}")
}

/// The client ID in a certificate's URI, if it is one of ours.
#[must_use]
pub fn client_of_uri(uri: &str) -> Option<ClientId> {
    uri.strip_prefix("fleetward://host/")?.parse().ok()
}
