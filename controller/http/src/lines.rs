//! JSON lines: the same answer as server-sent events, for programs that read a line at a time.
//!
//! Each line is an object with the name of an `event` and its `data`, as the command line writes them with `--output json`.
//! While nothing happens a line `{"event":"alive"}` goes out every 15 seconds, so that proxies keep the connection and the
//! controller notices a dead one. What the end of the login or of the controller cuts off ends as a broken body, so that
//! nobody takes a part for the whole.

use std::io;

use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use futures_util::{Stream, StreamExt as _};
use serde::Serialize;
use tokio::time::timeout;

use super::Site;
use super::lasting::{Lasting, Unread};
use super::sse::{KEEP_ALIVE, unbuffered};

/// What says of an answer that it is JSON lines: the usual name comes first, and stands in the answer.
const NAMES: [&str; 2] = ["application/x-ndjson", "application/jsonl"];
/// What says nothing but that all is well.
const ALIVE: &[u8] = b"{\"event\":\"alive\"}\n";

/// Whether a client would rather have lines than server-sent events (RFC 9110 §12.5.1). Who does not say gets events.
pub(super) fn are_wanted(headers: &HeaderMap) -> bool {
    let ranges: Vec<(String, u16)> = headers
        .get_all(header::ACCEPT)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(range)
        .collect();
    let weight = |name: &str| {
        let (group, _) = name.split_once('/').unwrap_or((name, ""));
        let all_of_it = format!("{group}/*");
        // What is more exact goes before what is less.
        let exact =
            |wanted: &str| ranges.iter().find(|(range, _)| range == wanted).map(|(_, weight)| *weight);
        exact(name).or_else(|| exact(&all_of_it)).or_else(|| exact("*/*")).unwrap_or(0)
    };
    let lines = NAMES.iter().map(|name| weight(name)).max().unwrap_or(0);
    lines > weight("text/event-stream")
}

/// A media range, and its weight in thousandths.
fn range(text: &str) -> (String, u16) {
    let mut parts = text.split(';').map(str::trim);
    let name = parts.next().unwrap_or_default().to_ascii_lowercase();
    let weight = parts.find_map(|part| part.strip_prefix("q=").or_else(|| part.strip_prefix("Q=")));
    let weight = match weight.map(str::parse::<f32>) {
        None => 1000,
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "it is between 0 and 1000"
        )]
        Some(Ok(weight)) => (weight.clamp(0.0, 1.0) * 1000.0) as u16,
        Some(Err(_)) => 0,
    };
    (name, weight)
}

/// Answers with a line for each of `told` until they, the login or the controller end.
pub(super) fn respond<T: Serialize + Send + 'static>(
    site: &Site,
    login: Lasting,
    told: impl Stream<Item = T> + Send + 'static,
) -> Response {
    let lines = login.cut(site.clone(), told, Unread::Waits).map(|told| line(&told?));
    let body = Body::from_stream(kept_alive(lines));
    let kind = HeaderValue::from_static(NAMES[0]);
    unbuffered(([(header::CONTENT_TYPE, kind)], body).into_response())
}

fn line<T: Serialize>(told: &T) -> io::Result<Bytes> {
    let mut line = serde_json::to_vec(told)?;
    line.push(b'\n');
    Ok(line.into())
}

/// The lines, and one that says nothing when none has come for a while.
fn kept_alive(
    lines: impl Stream<Item = io::Result<Bytes>> + Send + 'static,
) -> impl Stream<Item = io::Result<Bytes>> + Send + 'static {
    futures_util::stream::unfold(Box::pin(lines), |mut lines| async move {
        let line = timeout(KEEP_ALIVE, lines.next()).await.unwrap_or(Some(Ok(Bytes::from_static(ALIVE))));
        Some((line?, lines))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_for_who_asks_for_them_more_than_for_events() {
        let wanted = |accept: &'static str| {
            are_wanted(&HeaderMap::from_iter([(header::ACCEPT, HeaderValue::from_static(accept))]))
        };
        assert!(!are_wanted(&HeaderMap::new()));
        for accept in [
            "application/x-ndjson",
            "application/jsonl",
            "Application/X-NDJSON;q=0.5",
            "application/x-ndjson, */*;q=0.1",
            "text/event-stream;q=0.4, application/jsonl;q=0.5",
            "text/event-stream;q=0, */*",
        ] {
            assert!(wanted(accept), "{accept}");
        }
        for accept in [
            "",
            "*/*",
            "text/event-stream",
            "application/json",
            "text/event-stream, application/x-ndjson",
            "application/x-ndjson;q=0",
            "application/x-ndjson;q=x",
            "application/x-ndjson;q=NaN",
        ] {
            assert!(!wanted(accept), "{accept}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_quiet_answer_is_kept_alive() {
        let (send, receive) = tokio::sync::mpsc::channel::<io::Result<Bytes>>(1);
        let lines = futures_util::stream::unfold(receive, |mut receive| async move {
            receive.recv().await.map(|line| (line, receive))
        });
        let mut lines = Box::pin(kept_alive(lines));
        assert_eq!(lines.next().await.unwrap().unwrap(), ALIVE);
        send.send(line(&1)).await.unwrap();
        assert_eq!(lines.next().await.unwrap().unwrap(), "1\n");
        drop(send);
        assert!(lines.next().await.is_none());
    }
}
