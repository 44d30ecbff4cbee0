//! What every request passes through: a request id and its log span, a time limit, a net for panics, and the
//! headers that tell browsers what not to do.

use std::panic::AssertUnwindSafe;
use std::time::Duration;

use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use futures_util::FutureExt as _;
use tracing::Instrument as _;
use uuid::Uuid;

use super::error::ApiError;
use crate::{Site, Wire};

/// Names the request in the answer and in the log.
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// How long a request may take until its answer begins. Streams may last longer: their answer has begun.
pub(super) const TIMEOUT: Duration = Duration::from_secs(60);
/// The same for requests that wait for other machines.
pub(super) const SLOW_TIMEOUT: Duration = Duration::from_secs(15 * 60);

/// Half a year of TLS only, for the name of the controller alone. A browser that does not trust the certificate does
/// not take it (RFC 6797 §8.1).
const HSTS: HeaderValue = HeaderValue::from_static("max-age=15552000");
/// Nothing may be loaded: for answers that are no pages.
const CSP_NOTHING: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
);
/// What Swagger UI needs: it sets styles as it goes.
const CSP_DOCS: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; \
     connect-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
);

/// Gives the request an id, logs how it went, and answers a panic like any other failure.
pub(super) async fn observe(State(site): State<Site>, request: Request, next: Next) -> Response {
    let method = method_word(request.method());
    let route = request
        .extensions()
        .get::<MatchedPath>()
        .map_or_else(|| "other".to_owned(), |path| path.as_str().to_owned());
    let id = Uuid::now_v7();
    let span = tracing::info_span!("request", %id, method = %request.method(), path = request.uri().path());
    let answer = async move {
        let response = AssertUnwindSafe(next.run(request)).catch_unwind().await.unwrap_or_else(|panic| {
            let text = panic
                .downcast_ref::<&str>()
                .map(|text| (*text).to_owned())
                .or_else(|| panic.downcast_ref::<String>().cloned())
                .unwrap_or_default();
            ApiError::internal(&Panicked(text)).into_response()
        });
        tracing::debug!(status = response.status().as_u16(), "request.answered");
        response
    };
    let mut response = answer.instrument(span).await;
    site.app.metrics().answered(method, &route, response.status().as_u16());
    if let Ok(value) = HeaderValue::from_str(&id.to_string()) {
        response.headers_mut().insert(REQUEST_ID, value);
    }
    response
}

/// The method as a label: clients may invent methods, and must not invent labels.
fn method_word(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::PATCH => "PATCH",
        Method::DELETE => "DELETE",
        _ => "other",
    }
}

/// A handler that panicked: a defect of the controller.
#[derive(Debug, thiserror::Error)]
#[error("a handler panicked: {0}")]
struct Panicked(String);

/// Ends requests whose answer has not begun after `limit`.
pub(super) async fn limit_time(limit: Duration, request: Request, next: Next) -> Response {
    match tokio::time::timeout(limit, next.run(request)).await {
        Ok(response) => response,
        Err(_) => {
            tracing::warn!(limit_s = limit.as_secs(), "request.timed_out");
            let message = format!(
                "the request was not answered within {} s; look whether it took effect before sending it again",
                limit.as_secs()
            );
            ApiError::new(StatusCode::GATEWAY_TIMEOUT, "TIMEOUT", message).into_response()
        }
    }
}

/// Sets the headers that protect browsers, where the answer did not set its own.
pub(super) async fn protect(State(site): State<Site>, request: Request, next: Next) -> Response {
    let pinned = site.wire == Wire::Tls && has_dns_name(&request);
    let is_api = request.uri().path().starts_with("/api/v1") || request.uri().path() == "/metrics";
    let is_docs = request.uri().path().starts_with("/api/docs");
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    let mut default = |name: HeaderName, value: HeaderValue| {
        headers.entry(name).or_insert(value);
    };
    default(header::CONTENT_SECURITY_POLICY, if is_docs { CSP_DOCS } else { CSP_NOTHING });
    default(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    default(header::X_FRAME_OPTIONS, HeaderValue::from_static("DENY"));
    default(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    default(HeaderName::from_static("cross-origin-opener-policy"), HeaderValue::from_static("same-origin"));
    default(HeaderName::from_static("cross-origin-resource-policy"), HeaderValue::from_static("same-origin"));
    if pinned {
        default(header::STRICT_TRANSPORT_SECURITY, HSTS);
    }
    if is_api {
        // Answers are somebody's: no cache may keep them.
        default(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    }
    response
}

/// Whether the request names the site by a DNS name: an address cannot be bound to TLS (RFC 6797 §8.1.1), and
/// `localhost` is everybody's.
fn has_dns_name(request: &Request) -> bool {
    let host = request.headers().get(header::HOST).and_then(|host| host.to_str().ok());
    let named = host.and_then(|host| host.parse::<axum::http::uri::Authority>().ok());
    let Some(authority) = named.as_ref().or_else(|| request.uri().authority()) else { return false };
    let host = authority.host();
    let is_address = host.starts_with('[') || host.parse::<std::net::IpAddr>().is_ok();
    !is_address && !host.eq_ignore_ascii_case("localhost")
}
