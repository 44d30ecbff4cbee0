//! Who asks, and the proof that they may: argument types that a handler cannot forget.
//!
//! A handler that takes [`Allowed<Run>`](Allowed) is not called without the permission, and holds the
//! [`Permit`] that `app` asks for. [`LoggedIn`] is any login, also one whose password must be changed first.
//!
//! A credential is a bearer token, or the cookie of a login for browsers. A cookie is sent by the browser on
//! whoever's behalf, so requests that change something must then come from a page of this site, by the browser's
//! own word (`Origin`, `Sec-Fetch-Site`), or carry a header that no foreign page can set.

use std::net::IpAddr;
use std::ops::Deref;
use std::time::Duration;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri, header};
use fleetward_app::people::access::{Caller, Denied, Need, Permit};
use fleetward_app::people::user::{self, NotAuthenticated};
use fleetward_protocol::digest::Digest;
use serde_json::json;

use super::error::ApiError;
use super::lasting::Lasting;
use super::listen::Remote;
use crate::{Site, Wire, seat};

/// The cookie that holds a login's token. By its prefix a browser takes it over TLS only, and from this very host: no
/// neighbouring name and no page without TLS can set it (RFC 6265bis §4.1.3.2).
pub(super) const COOKIE: &str = "__Host-fleetward_session";
/// The same for a browser that reaches a loopback address without TLS.
const PLAIN_COOKIE: &str = "fleetward_session";
/// The header that a browser sends across origins only after asking.
pub(super) const CSRF: HeaderName = HeaderName::from_static("x-fleetward-console");

/// The caller has the permission `N`.
#[derive(Debug)]
pub(super) struct Allowed<N: Need> {
    permit: Permit<N>,
    credential: Credential,
}

/// The caller is logged in, and nothing more.
#[derive(Debug)]
pub(super) struct LoggedIn(pub(super) Caller);

/// The secret a request came with.
#[derive(Clone)]
pub(super) struct Credential {
    token: String,
    source: Source,
}

/// How a credential came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Source {
    Header,
    Cookie,
}

impl<N: Need> Allowed<N> {
    /// The proof, for work that outlives the request.
    pub(super) const fn permit(&self) -> &Permit<N> {
        &self.permit
    }

    /// Whom an answer lasts for that outlives the request.
    pub(super) fn lasting(&self) -> Lasting {
        Lasting {
            caller: self.permit.caller().clone(),
            credential: self.credential.clone(),
            permission: N::PERMISSION,
        }
    }
}

impl<N: Need> Deref for Allowed<N> {
    type Target = Permit<N>;

    fn deref(&self) -> &Permit<N> {
        &self.permit
    }
}

impl<N: Need> FromRequestParts<Site> for Allowed<N> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, site: &Site) -> Result<Self, ApiError> {
        let credential = Credential::of(parts, site.wire)?;
        let caller = credential.enter(site, parts).await?;
        Ok(Self { permit: caller.permit()?, credential })
    }
}

impl FromRequestParts<Site> for LoggedIn {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, site: &Site) -> Result<Self, ApiError> {
        Credential::of(parts, site.wire)?.enter(site, parts).await.map(Self)
    }
}

impl Credential {
    /// The credential of a request, which may use it for what it wants to do.
    ///
    /// # Errors
    /// 401 without one, 403 for a cookie that a foreign page could have sent.
    pub(super) fn of(parts: &Parts, wire: Wire) -> Result<Self, ApiError> {
        let credential = match bearer(&parts.headers)? {
            Some(token) => Self { token, source: Source::Header },
            None => {
                let token = cookie(&parts.headers, wire).ok_or_else(|| {
                    unauthenticated(
                        "UNAUTHENTICATED",
                        "log in first: send a token as `Authorization: Bearer …`",
                    )
                })?;
                Self { token, source: Source::Cookie }
            }
        };
        if credential.source == Source::Cookie && !parts.method.is_safe() {
            require_same_origin(&parts.uri, &parts.headers, wire)?;
        }
        Ok(credential)
    }

    /// What is compared instead of the secret itself.
    pub(super) fn digest(&self) -> Digest {
        Digest::of(self.token.as_bytes())
    }

    /// Whose it is.
    ///
    /// # Errors
    /// 401 if it is nobody's, or no longer.
    pub(super) async fn authenticate(&self, site: &Site, remote: Option<IpAddr>) -> Result<Caller, ApiError> {
        Ok(user::authenticate(&site.app, &self.token, remote).await?)
    }

    /// Whose it is, for a request that takes its place among those of this login.
    ///
    /// # Errors
    /// 401 if it is nobody's, or no longer; 429 if the login has too much in flight.
    pub(super) async fn enter(&self, site: &Site, parts: &Parts) -> Result<Caller, ApiError> {
        let caller = self.authenticate(site, remote(parts)).await?;
        self.take_place(parts)?;
        Ok(caller)
    }

    /// Counts the request among those of this credential, which has proved good.
    ///
    /// # Errors
    /// 429 if there are too many.
    pub(super) fn take_place(&self, parts: &Parts) -> Result<(), ApiError> {
        let Some(request) = parts.extensions.get::<seat::Request>() else { return Ok(()) };
        request.belongs_to(self.digest()).map_err(|error| {
            ApiError::new(StatusCode::TOO_MANY_REQUESTS, "TOO_MUCH_IN_FLIGHT", error.to_string())
                .retry_after(Duration::from_secs(1))
        })
    }
}

impl std::fmt::Debug for Credential {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Credential").field("source", &self.source).finish_non_exhaustive()
    }
}

/// From where a request came.
pub(super) fn remote(parts: &Parts) -> Option<IpAddr> {
    // An IPv4 client of a dual-stack socket is an IPv4 client.
    parts.extensions.get::<Remote>().map(|remote| remote.0.ip().to_canonical())
}

/// The header that sets, or with an empty token removes, the cookie of a login.
pub(super) fn set_cookie(
    token: &str,
    max_age_s: u64,
    headers: &HeaderMap,
    wire: Wire,
) -> Option<HeaderValue> {
    let (name, secure) = match wire {
        Wire::Tls => (COOKIE, "; Secure"),
        // Before a proxy on this machine browsers use TLS, and their page says so.
        Wire::PlainLoopback if scheme(headers) == Some("https") => (COOKIE, "; Secure"),
        Wire::PlainLoopback => (PLAIN_COOKIE, ""),
    };
    let text = format!("{name}={token}; Path=/; Max-Age={max_age_s}; HttpOnly; SameSite=Strict{secure}");
    HeaderValue::from_str(&text).ok()
}

/// The scheme of the page that a request comes from.
fn scheme(headers: &HeaderMap) -> Option<&str> {
    headers.get(header::ORIGIN)?.to_str().ok()?.split_once("://").map(|(scheme, _)| scheme)
}

fn bearer(headers: &HeaderMap) -> Result<Option<String>, ApiError> {
    let Some(value) = headers.get(header::AUTHORIZATION) else { return Ok(None) };
    let text = value.to_str().unwrap_or_default();
    match text.split_once(' ') {
        Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") && !token.trim().is_empty() => {
            Ok(Some(token.trim().to_owned()))
        }
        _ => Err(unauthenticated(
            "INVALID_CREDENTIAL",
            "the `Authorization` header is not `Bearer` and a token; log in again",
        )),
    }
}

fn cookie(headers: &HeaderMap, wire: Wire) -> Option<String> {
    let find = |wanted: &str| {
        let pairs = headers.get_all(header::COOKIE).into_iter().filter_map(|value| value.to_str().ok());
        pairs
            .flat_map(|value| value.split(';'))
            .filter_map(|pair| pair.trim().split_once('='))
            .find(|(name, value)| *name == wanted && !value.is_empty())
            .map(|(_, value)| value.to_owned())
    };
    match wire {
        Wire::Tls => find(COOKIE),
        Wire::PlainLoopback => find(COOKIE).or_else(|| find(PLAIN_COOKIE)),
    }
}

fn require_same_origin(uri: &Uri, headers: &HeaderMap, wire: Wire) -> Result<(), ApiError> {
    let text = |name: HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
    let own = text(header::HOST).or_else(|| uri.authority().map(|authority| authority.as_str()));
    let from = match text(header::ORIGIN) {
        // What has no authority (`null`) is nobody's own, also of a request that does not say whom it asks.
        Some(origin) => Some(own.is_some_and(|own| is_own(origin, own, wire))),
        None => text(HeaderName::from_static("sec-fetch-site")).map(|site| site == "same-origin"),
    };
    match from {
        Some(true) => Ok(()),
        Some(false) => {
            let message = "the request comes from a page of another site, and was refused";
            Err(ApiError::new(StatusCode::FORBIDDEN, "FOREIGN_ORIGIN", message))
        }
        // No browser of today, or a program that holds a cookie.
        None if headers.contains_key(CSRF) => Ok(()),
        None => {
            let message = format!(
                "send `Origin`, or `{CSRF}: 1`, with requests that change something and authenticate by cookie"
            );
            Err(ApiError::new(StatusCode::FORBIDDEN, "CSRF_HEADER_MISSING", message))
        }
    }
}

/// Whether scheme, host and port of `origin` are those of a site that is asked as `own` (RFC 6454 §5).
fn is_own(origin: &str, own: &str, wire: Wire) -> bool {
    let Some((scheme, authority)) = origin.split_once("://") else { return false };
    let default_port = match (scheme, wire) {
        ("https", _) => ":443",
        // Without TLS only a loopback address is served. Under another name a proxy stands before it, and uses TLS.
        ("http", Wire::PlainLoopback) if is_loopback(own) => ":80",
        _ => return false,
    };
    let without_default =
        |authority: &str| authority.strip_suffix(default_port).unwrap_or(authority).to_ascii_lowercase();
    without_default(authority) == without_default(own)
}

fn is_loopback(authority: &str) -> bool {
    let Ok(authority) = authority.parse::<axum::http::uri::Authority>() else { return false };
    let host = authority.host();
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    host.eq_ignore_ascii_case("localhost") || address.is_ok_and(|address| address.is_loopback())
}

fn unauthenticated(code: &'static str, message: &str) -> ApiError {
    ApiError::new(StatusCode::UNAUTHORIZED, code, message)
}

impl From<NotAuthenticated> for ApiError {
    fn from(error: NotAuthenticated) -> Self {
        match error {
            // P3: expired and malformed tokens are told apart by nobody.
            NotAuthenticated::Invalid => {
                Self::new(StatusCode::UNAUTHORIZED, "INVALID_CREDENTIAL", error.to_string())
            }
            NotAuthenticated::Store(error) => error.into(),
        }
    }
}

impl From<Denied> for ApiError {
    fn from(error: Denied) -> Self {
        let text = error.to_string();
        match error {
            Denied::MustChangePassword => Self::new(StatusCode::FORBIDDEN, "PASSWORD_CHANGE_REQUIRED", text),
            Denied::NotGranted(permission) => {
                Self::new(StatusCode::FORBIDDEN, "FORBIDDEN", text).detail("permission", json!(permission))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::http::Request;

    use super::*;

    fn credential(method: &str, headers: &[(&str, &str)]) -> Result<Credential, &'static str> {
        let mut request =
            Request::builder().method(method).uri("/api/v1/hosts").header("host", "ctl.example.com:7444");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let (parts, ()) = request.body(()).unwrap().into_parts();
        Credential::of(&parts, Wire::Tls).map_err(|error| error.code())
    }

    #[test]
    fn a_cookie_changes_nothing_for_a_foreign_page() {
        let cookie = ("cookie", "a=b; __Host-fleetward_session=secret; c=d");
        let csrf = ("x-fleetward-console", "1");
        assert_eq!(credential("GET", &[cookie]).unwrap().token, "secret");
        assert_eq!(credential("POST", &[cookie]).unwrap_err(), "CSRF_HEADER_MISSING");
        assert!(credential("POST", &[cookie, csrf]).is_ok());
        assert!(credential("POST", &[cookie, ("origin", "https://ctl.example.com:7444")]).is_ok());
        assert!(credential("POST", &[cookie, ("sec-fetch-site", "same-origin")]).is_ok());
        for origin in [
            "https://evil.example.com",
            "https://ctl.example.com",
            "http://ctl.example.com:7444",
            "ftp://ctl.example.com:7444",
            "https://ctl.example.com:7444.evil.example.com",
            "null",
        ] {
            assert_eq!(
                credential("POST", &[cookie, csrf, ("origin", origin)]).unwrap_err(),
                "FOREIGN_ORIGIN"
            );
        }
        assert_eq!(
            credential("DELETE", &[cookie, csrf, ("sec-fetch-site", "cross-site")]).unwrap_err(),
            "FOREIGN_ORIGIN"
        );
        assert!(credential("POST", &[("authorization", "Bearer t")]).is_ok());
    }

    #[test]
    fn a_page_without_an_origin_is_foreign_even_to_a_site_without_a_name() {
        let mut headers = HeaderMap::new();
        headers.insert(header::ORIGIN, HeaderValue::from_static("null"));
        let uri = Uri::from_static("/api/v1/hosts");
        let refused = require_same_origin(&uri, &headers, Wire::Tls).unwrap_err();
        assert_eq!(refused.code(), "FOREIGN_ORIGIN");
    }

    #[test]
    fn an_origin_is_scheme_host_and_port() {
        use Wire::{PlainLoopback, Tls};
        for (origin, own, wire, wanted) in [
            ("https://ctl.example.com", "ctl.example.com", Tls, true),
            ("https://ctl.example.com", "CTL.example.com:443", Tls, true),
            ("http://ctl.example.com", "ctl.example.com", Tls, false),
            ("http://ctl.example.com:443", "ctl.example.com:443", Tls, false),
            ("https://ctl.example.com:7444", "ctl.example.com", Tls, false),
            ("http://localhost:7444", "localhost:7444", Tls, false),
            ("http://localhost:7444", "localhost:7444", PlainLoopback, true),
            ("http://[::1]", "[::1]:80", PlainLoopback, true),
            ("http://127.0.0.1:7444", "127.0.0.1:8000", PlainLoopback, false),
            ("https://ctl.example.com", "ctl.example.com", PlainLoopback, true),
            ("http://ctl.example.com", "ctl.example.com", PlainLoopback, false),
        ] {
            assert_eq!(is_own(origin, own, wire), wanted, "{origin} {own} {wire:?}");
        }
    }

    #[test]
    fn a_cookie_of_a_neighbour_is_not_taken_over_tls() {
        let headers: HeaderMap =
            [(header::COOKIE, HeaderValue::from_static("fleetward_session=planted"))].into_iter().collect();
        assert_eq!(cookie(&headers, Wire::Tls), None);
        assert_eq!(cookie(&headers, Wire::PlainLoopback).as_deref(), Some("planted"));
        let from = |origin| {
            let headers: HeaderMap =
                [(header::ORIGIN, HeaderValue::from_static(origin))].into_iter().collect();
            let cookie = set_cookie("t", 1, &headers, Wire::PlainLoopback).unwrap();
            cookie.to_str().unwrap().to_owned()
        };
        let proxied = from("https://ctl.example.com");
        assert!(
            proxied.starts_with("__Host-fleetward_session=t; Path=/;") && proxied.contains("; Secure"),
            "{proxied}"
        );
        assert!(from("http://localhost:7444").starts_with("fleetward_session=t;"));
    }

    #[test]
    fn what_is_no_bearer_token_is_refused_and_not_passed_over() {
        let cookie = ("cookie", "__Host-fleetward_session=secret");
        for value in ["", "Bearer", "Bearer ", "Basic dXNlcjpwYXNz", "token"] {
            assert_eq!(
                credential("GET", &[("authorization", value), cookie]).unwrap_err(),
                "INVALID_CREDENTIAL"
            );
        }
        assert_eq!(credential("GET", &[]).unwrap_err(), "UNAUTHENTICATED");
        assert_eq!(
            credential("GET", &[("cookie", "__Host-fleetward_session=")]).unwrap_err(),
            "UNAUTHENTICATED"
        );
    }
}
