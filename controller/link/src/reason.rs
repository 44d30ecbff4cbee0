//! Why a connection or a stream ended, in words.

use fleetward_protocol::printable::to_line;

/// What is said of an error at most, in characters: part of it may be a peer's own words.
const MAX_REASON: usize = 1000;

/// An error and everything it came from, on one printable line.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        text.push_str(": ");
        text.push_str(&inner.to_string());
        source = inner.source();
    }
    to_line(&text, MAX_REASON)
}
