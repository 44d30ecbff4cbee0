//! The web console: the files that `controller/console` builds, out of this binary.
//!
//! Anything that is no file answers with the console's page, because its addresses are routes of the console's
//! own. A binary that was built before the console says how to build it.

use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use axum::response::{Html, IntoResponse, Response};
use rust_embed::{EmbeddedFile, RustEmbed};

use super::error::ApiError;

/// A debug build reads the files from the source tree at each request; a release build holds them.
#[derive(RustEmbed)]
#[folder = "../console/dist"]
#[allow_missing = true]
struct Files;

const PAGE: &str = "index.html";
/// What the console may load: its own files and its own API, nothing from elsewhere, nothing inline.
const CSP: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; font-src 'self'; \
     connect-src 'self'; manifest-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'self'",
);
const HOW_TO_BUILD: &str = include_str!("console/missing.html");

/// Every address that is no route of the API.
pub(super) async fn serve(uri: Uri, headers: HeaderMap) -> Response {
    let path = uri.path().trim_start_matches('/');
    if path == "api" || path.starts_with("api/") {
        let message = format!("there is nothing at `/{path}`; the API is described at /api/docs");
        return ApiError::not_found("NO_SUCH_ROUTE", message).into_response();
    }
    if let Some(file) = Files::get(path) {
        return respond(path, &file, &headers);
    }
    // A file of an earlier build is gone; the page in its place would be taken for a script.
    if path.starts_with("assets/") {
        return ApiError::not_found("NO_SUCH_FILE", "there is no such file; load the page again")
            .into_response();
    }
    match Files::get(PAGE) {
        Some(page) => respond(PAGE, &page, &headers),
        None => not_built(),
    }
}

fn respond(path: &str, file: &EmbeddedFile, asked: &HeaderMap) -> Response {
    let etag = format!("\"{}\"", hex(&file.metadata.sha256_hash()));
    let fresh = asked
        .get(header::IF_NONE_MATCH)
        .and_then(|tags| tags.to_str().ok())
        .is_some_and(|tags| tags.split(',').any(|tag| tag.trim().trim_start_matches("W/") == etag));
    // Vite puts a hash of the content into the name of everything below `assets/`.
    let cache = if path.starts_with("assets/") { "public, max-age=31536000, immutable" } else { "no-cache" };
    let headers = [
        (header::ETAG, HeaderValue::from_str(&etag)),
        (header::CACHE_CONTROL, Ok(HeaderValue::from_static(cache))),
        (header::CONTENT_SECURITY_POLICY, Ok(CSP)),
        (header::CONTENT_TYPE, HeaderValue::from_str(&content_type(file.metadata.mimetype()))),
    ];
    let mut response = if fresh {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        file.data.clone().into_owned().into_response()
    };
    for (name, value) in headers {
        if let Ok(value) = value {
            response.headers_mut().insert(name, value);
        }
    }
    response
}

fn content_type(mime: &str) -> String {
    if mime.starts_with("text/") { format!("{mime}; charset=utf-8") } else { mime.to_owned() }
}

fn not_built() -> Response {
    let style =
        HeaderValue::from_static("default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'");
    ([(header::CONTENT_SECURITY_POLICY, style)], Html(HOW_TO_BUILD)).into_response()
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}
