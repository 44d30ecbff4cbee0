//! Server-sent events: how a stream of changes becomes an answer.
//!
//! Events go out one by one as they become true; nothing is collected for later. While nothing happens a comment
//! goes out every 15 seconds, so that proxies keep the connection and clients notice a dead one. A stream ends
//! when the controller stops and when its login does, at once; clients resume with `Last-Event-ID`.

use std::convert::Infallible;
use std::future::ready;
use std::time::Duration;

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::{Stream, StreamExt as _};
use serde::Serialize;
use utoipa::IntoParams;

use super::Site;
use super::error::ApiError;
use super::lasting::{Lasting, Unread};

/// How often something goes out even if nothing happens.
pub(super) const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// Where a client that reconnects goes on.
#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
#[expect(dead_code, reason = "only describes the header; `last_event_id` reads it")]
pub(super) struct LastEventId {
    /// The `id` of the last event received. Opaque.
    #[param(rename = "Last-Event-ID")]
    id: Option<String>,
}

/// What the client says it has received.
pub(super) fn last_event_id(headers: &HeaderMap) -> Result<Option<&str>, ApiError> {
    let Some(value) = headers.get("last-event-id") else { return Ok(None) };
    let text = value.to_str().map_err(|_| {
        ApiError::invalid("INVALID_EVENT_ID", "`Last-Event-ID` is not the id of an event; begin without it")
    })?;
    // What a browser sends before the first event with an id.
    Ok(Some(text.trim()).filter(|text| !text.is_empty()))
}

/// An event of this kind.
pub(super) fn event<T: Serialize>(kind: &str, data: &T) -> Event {
    match Event::default().event(kind).json_data(data) {
        Ok(event) => event,
        // Every value of the API serialises; a client that reads no event of its kind loads the object again.
        Err(error) => {
            tracing::error!(%error, kind, "event.not_serialised");
            Event::default().comment("an event could not be written")
        }
    }
}

/// Answers with `events` until they, the login or the controller end, or nobody reads them where that ends them.
pub(super) fn respond(
    site: &Site,
    login: Lasting,
    events: impl Stream<Item = Event> + Send + 'static,
    unread: Unread,
) -> Response {
    // A stream of events that is cut ends like any other: its client comes back, and logs in again if it must.
    let until_end = login
        .cut(site.clone(), events, unread)
        .filter_map(|event| ready(event.ok().map(Ok::<_, Infallible>)));
    let keep_alive = KeepAlive::new().interval(KEEP_ALIVE);
    unbuffered(Sse::new(until_end).keep_alive(keep_alive).into_response())
}

/// The answer, with what tells buffering proxies that it is live.
pub(super) fn unbuffered(mut response: Response) -> Response {
    let name = HeaderName::from_static("x-accel-buffering");
    response.headers_mut().insert(name, HeaderValue::from_static("no"));
    response
}
