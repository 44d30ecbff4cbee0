//! Bodies with an end: a request's must arrive in time, and an answer's tells when it is over.
//!
//! Every request gets its deadline here, whoever reads the body later: what would read it without one does not
//! exist.

use std::error::Error;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody, to_bytes};
use axum::extract::Request;
use axum::http::StatusCode;
use axum::middleware::Next;
use axum::response::Response;
use http_body_util::LengthLimitError;
use hyper::body::{Frame, SizeHint};
use tokio::time::{Sleep, sleep};

use super::error::ApiError;

/// The largest request body, in bytes.
pub(super) const MAX_BODY: usize = 1 << 20;
/// How long a request's body may take from its head to its last byte.
pub(super) const BODY_TIMEOUT: Duration = Duration::from_secs(30);

/// Gives the request's body its deadline.
pub(super) async fn limit_time(request: Request, next: Next) -> Response {
    // Most requests have no body, and need no timer.
    if request.body().is_end_stream() {
        return next.run(request).await;
    }
    let timed = |body| Body::new(Timed { body, left: Box::pin(sleep(BODY_TIMEOUT)) });
    next.run(request.map(timed)).await
}

/// Reads a request's body to its end.
///
/// # Errors
/// 413 above [`MAX_BODY`], 408 after [`BODY_TIMEOUT`], 400 if the client broke off.
pub(super) async fn read(body: Body) -> Result<Bytes, ApiError> {
    to_bytes(body, MAX_BODY).await.map_err(|error| {
        if caused_by::<TooSlow>(&error) {
            let message = format!(
                "the request's body did not arrive within {} s; send it again over a faster connection",
                BODY_TIMEOUT.as_secs()
            );
            ApiError::new(StatusCode::REQUEST_TIMEOUT, "BODY_TOO_SLOW", message)
        } else if caused_by::<LengthLimitError>(&error) {
            let message = format!("the request's body is larger than {MAX_BODY} bytes");
            ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, "BODY_TOO_LARGE", message)
                .detail("max_bytes", MAX_BODY)
        } else {
            ApiError::invalid("INCOMPLETE_BODY", "the request's body did not arrive whole; send it again")
        }
    })
}

fn caused_by<E: Error + 'static>(error: &(dyn Error + 'static)) -> bool {
    error.is::<E>() || error.source().is_some_and(caused_by::<E>)
}

/// A body's time was up before its end.
#[derive(Debug, thiserror::Error)]
#[error("the body did not arrive in time")]
struct TooSlow;

/// A body that fails when its time is up, also while it trickles in.
#[derive(Debug)]
struct Timed {
    body: Body,
    left: Pin<Box<Sleep>>,
}

impl HttpBody for Timed {
    type Data = Bytes;
    type Error = axum::BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        if self.left.as_mut().poll(context).is_ready() {
            return Poll::Ready(Some(Err(TooSlow.into())));
        }
        Pin::new(&mut self.body).poll_frame(context).map_err(Into::into)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A body that keeps something until it was sent or given up.
#[derive(Debug)]
pub(super) struct Holding<T> {
    body: Body,
    _held: T,
}

impl<T> Holding<T> {
    /// `body`, which keeps `held`.
    pub(super) const fn new(body: Body, held: T) -> Self {
        Self { body, _held: held }
    }
}

impl<T: Unpin> HttpBody for Holding<T> {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
