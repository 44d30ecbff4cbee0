//! Target expressions.

use axum::extract::State;
use fleetward_api::host::Status;
use fleetward_api::target::{Target, TargetPreview, TargetPreviewRequest};
use fleetward_app::operation::{self, Work};
use fleetward_app::target;
use fleetward_store as store;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::Site;
use super::caller::{Allowed, Read};
use super::document::Failure;
use super::error::ApiError;
use super::extract::Json;
use super::host::enrolment_view;
use super::rollout::calls;

/// The routes of this noun.
pub(super) fn router() -> OpenApiRouter<Site> {
    OpenApiRouter::new().routes(routes!(preview))
}

/// What an operation would run on.
#[utoipa::path(
    post, path = "/targets/preview", operation_id = "targetPreview", tag = "target",
    request_body = TargetPreviewRequest,
    responses((status = 200, description = "The hosts.", body = TargetPreview), Failure),
)]
async fn preview(
    State(site): State<Site>,
    permit: Allowed<Read>,
    Json(asked): Json<TargetPreviewRequest>,
) -> Result<Json<TargetPreview>, ApiError> {
    if !asked.scripts.is_empty() {
        let work = Work {
            scripts: calls(asked.scripts),
            environment: asked.environment,
            directory: asked.directory,
            user: asked.user,
        };
        operation::check(&site.app, &permit, &work).await?;
    }
    let selected = target::preview(&site.app, &permit, &asked.on).await?;
    let count = |wanted: fn(&target::Selected) -> bool| {
        u32::try_from(selected.iter().filter(|target| wanted(target)).count()).unwrap_or(u32::MAX)
    };
    let online = count(|target| target.status == store::host::Status::Online);
    let not_enrolled = count(|target| !target.standing.may_run());
    let hosts = selected.into_iter().map(view).collect();
    Ok(Json(TargetPreview { hosts, online, not_enrolled }))
}

fn view(selected: target::Selected) -> Target {
    Target {
        name: selected.host.name,
        status: match selected.status {
            store::host::Status::Online => Status::Online,
            store::host::Status::Offline => Status::Offline,
        },
        enrolment: enrolment_view(selected.host.enrolment),
    }
}
