//! Target expressions.

use axum::extract::State;
use axum::http::StatusCode;
use fleetward_api::error::code;
use fleetward_api::fleet::host::Status;
use fleetward_api::work::target::{Target, TargetPreview, TargetPreviewRequest};
use fleetward_app::fleet::target::{self, SelectError};
use fleetward_app::work::action::script::Surroundings;
use fleetward_app::work::operation;
use fleetward_domain::fleet::target::NoTarget;
use fleetward_protocol::name::GroupName;
use fleetward_store as store;
use serde_json::{Value, json};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::Site;
use crate::caller::Allowed;
use crate::document::Failure;
use crate::error::ApiError;
use crate::extract::Json;
use crate::fleet::host::enrolment_view;
use crate::work::rollout::steps;
use fleetward_app::people::access::Read;

/// The routes of this noun.
pub(crate) fn router() -> OpenApiRouter<Site> {
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
    let surroundings =
        Surroundings { environment: asked.environment, directory: asked.directory, user: asked.user };
    let steps = steps(asked.steps, asked.scripts, surroundings)?;
    let operation::Preview { selected, subjects } =
        operation::preview(&site.app, &permit, steps, &asked.on).await?;
    let count = |wanted: fn(&target::Selected) -> bool| {
        u32::try_from(selected.iter().filter(|target| wanted(target)).count()).unwrap_or(u32::MAX)
    };
    let online = count(|target| target.status == store::fleet::host::Status::Online);
    let not_enrolled = count(|target| !target.standing.may_run());
    let hosts = selected.into_iter().map(view).collect();
    Ok(Json(TargetPreview { hosts, online, not_enrolled, subjects }))
}

fn view(selected: target::Selected) -> Target {
    Target {
        name: selected.host.name,
        status: match selected.status {
            store::fleet::host::Status::Online => Status::Online,
            store::fleet::host::Status::Offline => Status::Offline,
        },
        enrolment: enrolment_view(selected.host.enrolment),
    }
}

impl From<SelectError> for ApiError {
    fn from(error: SelectError) -> Self {
        let text = error.to_string();
        match error {
            SelectError::Syntax(error) => Self::invalid("INVALID_TARGETS", text)
                .detail("field", "on")
                .detail("column", error.column())
                .detail("reason", error.message()),
            SelectError::Nothing(NoTarget::UnknownNames { names }) => {
                let names: Vec<Value> = names
                    .into_iter()
                    .map(|(name, nearest)| json!({ "name": name, "nearest": nearest }))
                    .collect();
                Self::invalid(code::UNKNOWN_TARGETS, text).detail("field", "on").detail("names", names)
            }
            SelectError::Nothing(NoTarget::UnknownGroups { names }) => {
                let names: Vec<&str> = names.iter().map(GroupName::as_str).collect();
                Self::invalid("UNKNOWN_GROUPS", text).detail("field", "on").detail("groups", names)
            }
            SelectError::Group(error) => error.into(),
            SelectError::Nothing(NoTarget::Nothing { .. }) => {
                Self::invalid(code::NO_TARGETS, text).detail("field", "on")
            }
            SelectError::Nothing(NoTarget::TooCostly { .. }) => {
                Self::new(StatusCode::UNPROCESSABLE_ENTITY, "TARGETS_TOO_COSTLY", text).detail("field", "on")
            }
            SelectError::Store(error) => error.into(),
            SelectError::Panicked(_) => Self::internal(&error),
        }
    }
}
