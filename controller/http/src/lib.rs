//! The API and the console, over HTTP.
//!
//! **What for.** Handlers extract, call `app`, convert; one file per noun, each with its `router()`. The
//! document that describes them is made from them ([`openapi`]).
//!
//! **What it promises.** A handler cannot run without saying what it needs: authorisation is an argument's
//! type (`caller::Allowed`), and a test asks every route without a credential. Every failure has the same
//! shape (`error`). Streams hold a bounded amount of memory each, however slow their reader is.
//!
//! **Deliberately absent.** SQL, rules, permissive CORS, anything that trusts a forwarding header.

mod body;
mod caller;
mod clock;
mod console;
mod document;
mod error;
mod extract;
mod fleet;
mod health;
mod idempotency;
mod lasting;
mod layer;
mod lines;
mod listen;
mod page;
mod parameter;
mod patience;
mod people;
mod scrape;
mod seat;
mod sse;
mod table;
mod work;

pub use listen::{ListenError, Listener, Security};
pub use scrape::MetricsToken;

use std::sync::Arc;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::http::StatusCode;
use axum::middleware::{from_fn, from_fn_with_state};
use error::ApiError;
use fleetward_app::App;
use parameter::Parameters;
use tokio_util::sync::CancellationToken;
use utoipa::openapi::OpenApi;
use utoipa_axum::router::OpenApiRouter;
use utoipa_swagger_ui::SwaggerUi;

/// What every handler is given.
#[derive(Debug, Clone)]
struct Site {
    app: App,
    wire: Wire,
    stopping: CancellationToken,
    metrics_token: Option<MetricsToken>,
}

/// How clients reach this site.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wire {
    /// Over TLS.
    Tls,
    /// Without, on loopback.
    PlainLoopback,
}

/// Serves the API and the console until `stopping`; returns when the last connection is closed or given up.
/// `metrics_token` is what the monitoring may come with instead of a login.
pub async fn serve(
    listener: Listener,
    app: App,
    stopping: CancellationToken,
    metrics_token: Option<MetricsToken>,
) {
    let wire = if listener.is_tls() { Wire::Tls } else { Wire::PlainLoopback };
    let site = Site { app, wire, stopping: stopping.clone(), metrics_token };
    listener.serve(router(site), stopping).await;
}

/// The OpenAPI document of this build, as `controller/openapi.json` holds it.
///
/// # Errors
/// If it cannot be written as JSON: a defect.
pub fn openapi() -> Result<String, serde_json::Error> {
    let (_, document) = routes().split_for_parts();
    Ok(document::finish(document).to_pretty_json()? + "\n")
}

/// Every route of the API, with its description.
fn routes() -> OpenApiRouter<Site> {
    let quick = OpenApiRouter::default()
        .merge(people::audit::router())
        .merge(people::auth::router())
        .merge(work::event::router())
        .merge(fleet::group::router())
        .merge(fleet::host::router())
        .merge(work::kind::router())
        .merge(work::operation::router())
        .merge(work::plan::router())
        .merge(work::query::router())
        .merge(fleet::repo::router())
        .merge(work::run::router())
        .merge(fleet::script::router())
        .merge(table::router())
        .merge(work::target::router())
        .layer(from_fn(|request, next| layer::limit_time(layer::TIMEOUT, request, next)));
    let slow = fleet::repo::slow_router()
        .layer(from_fn(|request, next| layer::limit_time(layer::SLOW_TIMEOUT, request, next)));
    OpenApiRouter::with_openapi(document::base()).nest("/api/v1", quick.merge(slow)).merge(health::router())
}

/// The whole site.
fn router(site: Site) -> Router {
    let (api, document) = routes().split_for_parts();
    let document: OpenApi = document::finish(document);
    let parameters = Arc::new(Parameters::of(&document));
    let keyed = Arc::new(idempotency::Keyed::of(&document));
    api.merge(SwaggerUi::new("/api/docs").url("/api/openapi.json", document))
        .fallback(console::serve)
        .method_not_allowed_fallback(method_not_allowed)
        .layer(from_fn_with_state((site.clone(), keyed), idempotency::layer))
        .layer(from_fn_with_state(parameters, parameter::refuse_unknown))
        .layer(from_fn(body::limit_time))
        .layer(DefaultBodyLimit::max(body::MAX_BODY))
        .layer(from_fn_with_state(site.clone(), layer::protect))
        .layer(from_fn_with_state(site.clone(), layer::observe))
        .with_state(site)
}

async fn method_not_allowed() -> ApiError {
    let message = "this address does not take this method; the API is described at /api/docs";
    ApiError::new(StatusCode::METHOD_NOT_ALLOWED, "METHOD_NOT_ALLOWED", message)
}

#[cfg(test)]
mod tests;
