//! Who may read the figures: whoever may read in every tenant, and the monitoring with a token of its own.
//!
//! A monitoring system asks every few seconds, for ever; a login ends after a day. So the owner may put a token
//! into a file (`http.metrics_token_file`) that is good for `/metrics` and for nothing else.

use std::io;
use std::path::Path;

use axum::extract::FromRequestParts;
use axum::http::StatusCode;
use axum::http::request::Parts;
use fleetward_protocol::digest::Digest;
use fleetward_store::Scope;
use fleetward_store::people::tenant;

use super::Site;
use super::caller::{Allowed, Credential};
use super::error::ApiError;
use fleetward_app::people::access::Read;

/// The fewest characters of a token that counts as a secret.
const SHORTEST: usize = 20;
/// The largest file that is read for a token.
const LARGEST: u64 = 4096;

/// The token of the monitoring; only its digest is kept.
#[derive(Debug, Clone, Copy)]
pub struct MetricsToken(Digest);

impl MetricsToken {
    /// Reads the token from a file: all of it but white space at both ends.
    ///
    /// # Errors
    /// If the file cannot be read, is larger than a token, or holds fewer than 20 characters.
    pub fn read(path: &Path) -> io::Result<Self> {
        let length = std::fs::metadata(path)?.len();
        if length > LARGEST {
            return Err(io::Error::other(format!("{length} bytes are more than a token")));
        }
        let text = std::fs::read_to_string(path)?;
        match text.trim() {
            token if token.len() >= SHORTEST => Ok(Self::of(token)),
            _ => Err(io::Error::other(format!(
                "a token has at least {SHORTEST} characters; make one with `openssl rand -hex 32`"
            ))),
        }
    }

    fn of(token: &str) -> Self {
        Self(Digest::of(token.as_bytes()))
    }
}

/// The caller may read the figures.
#[derive(Debug)]
pub(super) struct Scraper;

impl FromRequestParts<Site> for Scraper {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, site: &Site) -> Result<Self, ApiError> {
        let credential = Credential::of(parts, site.wire)?;
        // Digests are compared, so the time it takes tells nothing of the token.
        if site.metrics_token.is_some_and(|token| credential.digest() == token.0) {
            credential.take_place(parts)?;
            return Ok(Self);
        }
        let permit = Allowed::<Read>::from_request_parts(parts, site).await?;
        let tenants = tenant::list(&mut *site.app.store().read().await?, &Scope::Everything).await?;
        match tenants.iter().all(|tenant| permit.scope().includes(tenant.id)) {
            true => Ok(Self),
            // How busy another tenant is is that one's own affair.
            false => Err(ApiError::new(
                StatusCode::FORBIDDEN,
                "METRICS_OF_ALL_TENANTS",
                "the figures are those of all tenants: they take the token of `http.metrics_token_file`, or a login that \
                 may read in every tenant",
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_read_without_its_line_end_and_a_weak_one_is_refused() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let token = "0123456789abcdef0123";
        std::fs::write(&file, format!("{token}\n")).unwrap();
        assert_eq!(MetricsToken::read(file.path()).unwrap().0, Digest::of(token.as_bytes()));
        std::fs::write(&file, "short\n").unwrap();
        assert!(MetricsToken::read(file.path()).unwrap_err().to_string().contains("openssl"));
        std::fs::write(&file, "x".repeat(5000)).unwrap();
        assert!(MetricsToken::read(file.path()).is_err());
    }
}
