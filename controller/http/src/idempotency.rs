//! `Idempotency-Key` on `POST`: the layer between a repeated request and its handler.
//!
//! Only routes whose description names the header take keys: those that change something. Elsewhere it is ignored, for
//! what is read may be read again, and its answer is not kept.
//!
//! A request with a key is carried out to its end even if the client goes away, so that its answer is there when
//! the client comes back. Refusals to do it now (429, 503) are not kept: nothing was done, and the same key may be
//! tried again. A failure in the middle (any other 5xx, a database that went away, a disk that failed) leaves the
//! key without an answer: nobody knows whether the request took effect, so it is not carried out again with this
//! key.

use std::collections::HashSet;
use std::sync::Arc;

use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use fleetward_api::error::code;
use fleetward_app::people::access::Caller;
use fleetward_app::people::idempotency::{self, IdempotencyError, Verdict};
use fleetward_protocol::digest::Digest;
use utoipa::openapi::path::{Operation, ParameterIn};
use utoipa::openapi::{OpenApi, RefOr};

use super::Site;
use super::body;
use super::caller::Credential;
use super::error::{ApiError, Code};

/// The header.
pub(super) const KEY: HeaderName = HeaderName::from_static("idempotency-key");
const REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");
const MAX_KEY: usize = 255;
/// No answer to a `POST` is larger; one that were would not be kept.
const MAX_ANSWER: usize = 4 << 20;

/// The routes that take keys.
#[derive(Debug)]
pub(super) struct Keyed(HashSet<String>);

impl Keyed {
    /// As the document says.
    pub(super) fn of(document: &OpenApi) -> Self {
        let takes_keys = |operation: &Operation| {
            operation.parameters.iter().flatten().any(|parameter| match parameter {
                RefOr::T(parameter) => {
                    parameter.parameter_in == ParameterIn::Header
                        && parameter.name.eq_ignore_ascii_case(KEY.as_str())
                }
                RefOr::Ref(_) => false,
            })
        };
        let paths = document.paths.paths.iter();
        let keyed = paths.filter(|(_, item)| item.post.as_ref().is_some_and(takes_keys));
        Self(keyed.map(|(path, _)| path.clone()).collect())
    }

    fn takes(&self, request: &Request) -> bool {
        let path = request.extensions().get::<MatchedPath>();
        request.method() == Method::POST && path.is_some_and(|path| self.0.contains(path.as_str()))
    }
}

/// Answers a repeated request as the first one; passes everything else on.
pub(super) async fn layer(
    State((site, keyed)): State<(Site, Arc<Keyed>)>,
    request: Request,
    next: Next,
) -> Response {
    if !request.headers().contains_key(KEY) || !keyed.takes(&request) {
        return next.run(request).await;
    }
    match once(site, request, next).await {
        Ok(response) => response,
        Err(error) => error.into_response(),
    }
}

async fn once(site: Site, request: Request, next: Next) -> Result<Response, ApiError> {
    let key = key(&request)?;
    let (parts, body) = request.into_parts();
    let caller = Credential::of(&parts, site.wire)?.enter(&site, &parts).await?;
    let body = body::read(body).await?;
    let path = parts.uri.path_and_query().map_or("", |path| path.as_str());
    let digest =
        Digest::of(&[parts.method.as_str().as_bytes(), b"\n", path.as_bytes(), b"\n", &body].concat());
    match idempotency::begin(&site.app, &caller, &key, &digest).await? {
        Verdict::Answered { status, body } => Ok(replay(status, body)),
        Verdict::New => {
            let request = Request::from_parts(parts, Body::from(body));
            // A task of its own: a client that hangs up does not stop it half-way.
            let work = tokio::spawn(carry_out(site, caller, key, request, next));
            work.await.map_err(|error| ApiError::internal(&error))
        }
    }
}

async fn carry_out(site: Site, caller: Caller, key: String, request: Request, next: Next) -> Response {
    let (parts, body) = next.run(request).await.into_parts();
    let body = match to_bytes(body, MAX_ANSWER).await {
        Ok(body) => body,
        Err(error) => {
            forget(&site, &caller, &key).await;
            return ApiError::internal(&error).into_response();
        }
    };
    match effect(parts.status, parts.extensions.get().map_or("", |Code(code)| code)) {
        Effect::None => forget(&site, &caller, &key).await,
        Effect::Unknown => tracing::warn!(status = parts.status.as_u16(), "idempotency.effect_unknown"),
        Effect::Decided => {
            let kept = idempotency::finish(&site.app, &caller, &key, parts.status.as_u16(), &body).await;
            if let Err(error) = kept {
                // The request took effect; only a repetition will not find its answer.
                tracing::error!(%error, "idempotency.answer_not_kept");
            }
        }
    }
    Response::from_parts(parts, Body::from(body))
}

/// What an answer says of its request's effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Effect {
    /// It was not even tried, or was refused for now.
    None,
    /// It is as the answer says.
    Decided,
    /// It may have been committed before it failed or its time was up.
    Unknown,
}

fn effect(status: StatusCode, code: &str) -> Effect {
    match status {
        // The connection may have been lost, or the disk have failed, between a commit and its answer.
        StatusCode::SERVICE_UNAVAILABLE if matches!(code, "STORE_UNAVAILABLE" | "STORAGE_FAILED") => {
            Effect::Unknown
        }
        StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => Effect::None,
        status if status.is_server_error() => Effect::Unknown,
        _ => Effect::Decided,
    }
}

async fn forget(site: &Site, caller: &Caller, key: &str) {
    if let Err(error) = idempotency::abandon(&site.app, caller, key).await {
        tracing::error!(%error, "idempotency.key_not_released");
    }
}

fn key(request: &Request) -> Result<String, ApiError> {
    let text = request.headers().get(KEY).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if (1..=MAX_KEY).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Ok(text.to_owned());
    }
    let message =
        format!("`Idempotency-Key` must be 1 to {MAX_KEY} visible ASCII characters; a UUID is good");
    Err(ApiError::invalid("INVALID_IDEMPOTENCY_KEY", message))
}

fn replay(status: u16, body: Vec<u8>) -> Response {
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::OK);
    let json =
        (!body.is_empty()).then(|| (header::CONTENT_TYPE, HeaderValue::from_static("application/json")));
    let mut response = (status, Bytes::from(body)).into_response();
    response.headers_mut().remove(header::CONTENT_TYPE);
    response.headers_mut().extend(json);
    response.headers_mut().insert(REPLAYED, HeaderValue::from_static("true"));
    response
}

impl From<IdempotencyError> for ApiError {
    fn from(error: IdempotencyError) -> Self {
        let text = error.to_string();
        match error {
            IdempotencyError::Reused => {
                Self::new(StatusCode::UNPROCESSABLE_ENTITY, "IDEMPOTENCY_KEY_REUSED", text)
            }
            IdempotencyError::Unanswered => Self::conflict(code::IDEMPOTENCY_KEY_IN_USE, text),
            IdempotencyError::NotKept { status } => {
                Self::conflict("IDEMPOTENCY_ANSWER_NOT_KEPT", text).detail("status", status)
            }
            IdempotencyError::TooMany { retry_after } => {
                Self::new(StatusCode::TOO_MANY_REQUESTS, "TOO_MANY_IDEMPOTENCY_KEYS", text)
                    .detail("retry_after_s", retry_after.as_secs())
                    .retry_after(retry_after)
            }
            IdempotencyError::Secret(error) => Self::internal(&error),
            IdempotencyError::Store(error) => error.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_surely_took_no_effect_may_be_tried_again_with_its_key() {
        for (status, code, expected) in [
            (201, "", Effect::Decided),
            (403, "HOST_NOT_ENROLLED", Effect::Decided),
            (409, "HOST_TAKEN", Effect::Decided),
            (429, "CONCURRENCY_EXCEEDED", Effect::None),
            (503, "DISK_FULL", Effect::None),
            (503, "STOPPING", Effect::None),
            (503, "STORE_UNAVAILABLE", Effect::Unknown),
            (503, "STORAGE_FAILED", Effect::Unknown),
            (500, "INTERNAL", Effect::Unknown),
            (504, "TIMEOUT", Effect::Unknown),
        ] {
            assert_eq!(effect(StatusCode::from_u16(status).unwrap(), code), expected, "{status} {code}");
        }
    }
}
