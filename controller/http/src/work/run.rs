//! Runs: one step on one host.

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use fleetward_api::work::run::{OutputQuery, Run};
use fleetward_app::people::access::{Need, Permit, Read, ReadOutput};
use fleetward_app::work::run;
use fleetward_protocol::id::RunId;
use fleetward_store as store;
use futures_util::StreamExt as _;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::Site;
use crate::caller::Allowed;
use crate::document::Failure;
use crate::error::ApiError;
use crate::extract::{Json, Path, Query};
use crate::lasting::Unread;
use crate::work::output::download;
use crate::work::view::run_view;

/// The routes of this noun.
pub(crate) fn router() -> OpenApiRouter<Site> {
    OpenApiRouter::new().routes(routes!(get)).routes(routes!(output))
}

/// One run.
#[utoipa::path(
    get, path = "/runs/{id}", operation_id = "runGet", tag = "run",
    params(("id" = String, Path, description = "The run's id.")),
    responses((status = 200, description = "The run.", body = Run), Failure),
)]
async fn get(
    State(site): State<Site>,
    permit: Allowed<Read>,
    Path(id): Path<RunId>,
) -> Result<Json<Run>, ApiError> {
    let found = find(&site, &permit, id).await?;
    Ok(Json(run_view(&site.app, &permit, &found)))
}

/// What a run wrote so far, byte for byte.
///
/// Where the output limit or a full disk dropped bytes nothing stands in their place; `output_dropped` of the run and
/// the run's `output` events tell how many and where.
#[utoipa::path(
    get, path = "/runs/{id}/output", operation_id = "runOutput", tag = "run",
    params(("id" = String, Path, description = "The run's id."), OutputQuery),
    responses((status = 200, description = "The bytes.", body = Vec<u8>, content_type = "application/octet-stream"), Failure),
)]
async fn output(
    State(site): State<Site>,
    permit: Allowed<ReadOutput>,
    Path(id): Path<RunId>,
    Query(asked): Query<OutputQuery>,
) -> Result<Response, ApiError> {
    let found = find(&site, &permit, id).await?;
    // Host names are letters, digits, `-`, `_` and `.`: nothing in them needs quoting. Subjects may be anything.
    let plain = |c: char| if c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.') { c } else { '-' };
    let subject: String = found.step.subject.chars().map(plain).take(80).collect();
    let name = format!("attachment; filename=\"{}-{subject}.log\"", found.run.host_name);
    let chunks = download(site.app.clone(), permit.permit().clone(), id, asked.stream);
    let chunks = permit.lasting().cut(site, chunks, Unread::Waits).map(|chunk| chunk?);
    let body = Body::from_stream(chunks);
    let kind = HeaderValue::from_static("application/octet-stream");
    let mut response = ([(header::CONTENT_TYPE, kind)], body).into_response();
    if let Ok(name) = HeaderValue::from_str(&name) {
        response.headers_mut().insert(header::CONTENT_DISPOSITION, name);
    }
    Ok(response)
}

async fn find(site: &Site, permit: &Permit<impl Need>, id: RunId) -> Result<run::Overview, ApiError> {
    run::get(&site.app, permit, id).await.map_err(|error| match error {
        store::StoreError::NotFound { .. } => {
            ApiError::not_found("RUN_NOT_FOUND", format!("there is no run `{id}`"))
                .detail("run", id.to_string())
        }
        error => error.into(),
    })
}
