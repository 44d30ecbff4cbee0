//! What a failed request answers: one shape, a status, a code for programs, a text for people.
//!
//! Every app error is turned into it by one exhaustive `match` beside the handlers of its noun, so that a new variant
//! does not compile until somebody has said what a client is told; the store's own is here. What went wrong inside is
//! logged, once, here, and never sent.

use std::time::Duration;

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use fleetward_api::error::ErrorBody;
use fleetward_store::StoreError;
use serde_json::{Map, Value};

use super::clock::now;

/// A failed request.
#[derive(Debug)]
pub(super) struct ApiError {
    status: StatusCode,
    code: &'static str,
    message: String,
    details: Map<String, Value>,
    retry_after: Option<Duration>,
}

impl ApiError {
    /// A failure that is the client's business. `code` is UPPER_SNAKE and never renamed.
    pub(super) fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self { status, code, message: message.into(), details: Map::new(), retry_after: None }
    }

    /// A request that cannot be understood or may not be: 400.
    pub(super) fn invalid(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, code, message)
    }

    /// Something that is not there: 404.
    pub(super) fn not_found(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, code, message)
    }

    /// Something that does not go with how things are: 409.
    pub(super) fn conflict(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, code, message)
    }

    /// A failure that is the controller's business: logged with its causes, and answered with 500.
    pub(super) fn internal(error: &(dyn std::error::Error + 'static)) -> Self {
        tracing::error!(error = %chain(error), "request.failed");
        Self::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "INTERNAL",
            "the controller failed; its log has the reason under this answer's X-Request-Id",
        )
    }

    /// Something the controller needs is not there now: logged with its causes, and answered with 503.
    pub(super) fn unavailable(
        code: &'static str,
        message: impl Into<String>,
        error: &(dyn std::error::Error + 'static),
    ) -> Self {
        tracing::warn!(error = %chain(error), code, "request.failed");
        Self::new(StatusCode::SERVICE_UNAVAILABLE, code, message).retry_after(Duration::from_secs(5))
    }

    /// Adds a particular for programs.
    pub(super) fn detail(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.details.insert(name.to_owned(), value.into());
        self
    }

    /// Says when to try again.
    pub(super) fn retry_after(mut self, wait: Duration) -> Self {
        self.retry_after = Some(wait);
        self
    }

    /// The status it is answered with.
    pub(super) const fn status(&self) -> StatusCode {
        self.status
    }

    #[cfg(test)]
    pub(super) const fn code(&self) -> &'static str {
        self.code
    }
}

/// A failure's code, beside its response: what layers further out go by.
#[derive(Debug, Clone, Copy)]
pub(super) struct Code(pub(super) &'static str);

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let body = ErrorBody {
            error: self.message,
            code: self.code.to_owned(),
            details: self.details,
            timestamp: now().into(),
        };
        let mut response = (self.status, Json(body)).into_response();
        response.extensions_mut().insert(Code(self.code));
        if let Some(wait) = self.retry_after {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(wait.as_secs().max(1)));
        }
        if self.status == StatusCode::UNAUTHORIZED {
            // RFC 9110 §11.6.1: a 401 names a way to authenticate.
            response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

/// An error and its causes on one line.
fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        match &error {
            StoreError::NotFound { .. } => Self::not_found("NOT_FOUND", error.to_string()),
            StoreError::Conflict { .. } => Self::conflict("CONFLICT", error.to_string()),
            StoreError::InvalidCursor => Self::invalid("INVALID_CURSOR", error.to_string()),
            StoreError::DiskFull(_) => Self::unavailable(
                "DISK_FULL",
                "the controller's disk is full; free some space and try again",
                &error,
            ),
            StoreError::Storage(_) => Self::unavailable(
                "STORAGE_FAILED",
                "the controller cannot read or write its disk; see whether the disk is full, over a quota or failing, \
                 and try again",
                &error,
            ),
            StoreError::Unavailable(_) => Self::unavailable(
                "STORE_UNAVAILABLE",
                "the controller's database is unavailable; try again in a moment",
                &error,
            ),
            StoreError::ReadOnly(_) => Self::unavailable(
                "STORE_READ_ONLY",
                "the controller's database takes no writes: an operator of the controller has to let it lead to the primary",
                &error,
            ),
            StoreError::Busy => Self::new(StatusCode::SERVICE_UNAVAILABLE, "BUSY", error.to_string())
                .retry_after(Duration::from_secs(5)),
            StoreError::Stopped { .. } => {
                Self::new(StatusCode::UNPROCESSABLE_ENTITY, "QUERY_TOO_SLOW", error.to_string())
            }
            StoreError::Corrupt { .. }
            | StoreError::TakenOver
            | StoreError::Missing(_)
            | StoreError::InvalidUrl(_)
            | StoreError::CreateFile { .. }
            | StoreError::Schema(_)
            | StoreError::Refused(_) => Self::internal(&error),
        }
    }
}
