//! How the controller is: for load balancers, and for Prometheus.

use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use fleetward_api::health::Health;
use fleetward_app::health::{Condition, NotTaken};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::Site;
use super::document::Failure;
use super::error::ApiError;
use super::extract::Json;
use super::scrape::Scraper;

/// The routes of this noun.
pub(super) fn router() -> OpenApiRouter<Site> {
    OpenApiRouter::new().routes(routes!(health)).routes(routes!(metrics))
}

/// Whether the controller is well.
#[utoipa::path(
    get, path = "/health", operation_id = "health", tag = "health",
    responses((status = 200, description = "It is.", body = Health), (status = 503, description = "It is not.", body = Health), Failure),
    security(()),
)]
async fn health(State(site): State<Site>) -> (StatusCode, Json<Health>) {
    let condition = site.app.health().condition();
    let status = match condition {
        Condition::Healthy => StatusCode::OK,
        Condition::StoreUnavailable
        | Condition::StoreReadOnly
        | Condition::StorageFailed
        | Condition::DiskFull
        | Condition::Stopping => StatusCode::SERVICE_UNAVAILABLE,
    };
    let version = env!("CARGO_PKG_VERSION").to_owned();
    (status, Json(Health { status: condition.as_str().to_owned(), version }))
}

/// Figures in Prometheus' text format, for whoever may read in every tenant, and for the monitoring's own token.
#[utoipa::path(
    get, path = "/metrics", operation_id = "metrics", tag = "health",
    responses((status = 200, description = "The figures.", body = String, content_type = "application/openmetrics-text"), Failure),
)]
async fn metrics(State(site): State<Site>, _: Scraper) -> Response {
    let twins = site.app.twins().count_current(site.app.now());
    let text = site.app.metrics().encode(site.app.fleet().len(), twins);
    let kind = HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8");
    ([(header::CONTENT_TYPE, kind)], text).into_response()
}

impl From<NotTaken> for ApiError {
    fn from(error: NotTaken) -> Self {
        let code = match error {
            NotTaken::DiskFull => "DISK_FULL",
            NotTaken::StorageFailed => "STORAGE_FAILED",
            NotTaken::StoreReadOnly => "STORE_READ_ONLY",
            NotTaken::StoreUnavailable => "STORE_UNAVAILABLE",
            NotTaken::Stopping => "STOPPING",
        };
        Self::new(StatusCode::SERVICE_UNAVAILABLE, code, error.to_string())
    }
}
