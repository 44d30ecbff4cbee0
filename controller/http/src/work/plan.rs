//! Plans: what an operation would be, before it is one.

use axum::extract::State;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use fleetward_api::work::operation::OperationCreate;
use fleetward_api::work::plan::{Plan, PlanHost, PlanStep};
use fleetward_app::fleet::target::Selected;
use fleetward_app::people::access::Run;
use fleetward_app::work::operation::{self, OperationPlan};
use fleetward_protocol::digest::Digest;
use fleetward_store::work::step::Step;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::Site;
use crate::caller::Allowed;
use crate::document::Failure;
use crate::error::ApiError;
use crate::extract::Json;
use crate::work::rollout::asked;
use crate::work::view::step_view;

/// The routes of this noun.
pub(crate) fn router() -> OpenApiRouter<Site> {
    OpenApiRouter::new().routes(routes!(create))
}

/// Plans an operation, and starts nothing.
///
/// Nothing is kept: who agrees sends `operation` of the answer to `POST /operations`, and exactly what was planned is done. If
/// hosts, scripts or settings have changed in the meantime, it is refused.
#[utoipa::path(
    post, path = "/plans", operation_id = "planCreate", tag = "operation",
    request_body = OperationCreate,
    responses((status = 200, description = "The plan.", body = Plan), Failure),
)]
async fn create(
    State(site): State<Site>,
    permit: Allowed<Run>,
    Json(request): Json<OperationCreate>,
) -> Result<Json<Plan>, ApiError> {
    if request.plan.is_some() {
        let text = "`plan` is what is asked for here; send it to `POST /operations`";
        return Err(ApiError::invalid("INVALID_PLAN", text).detail("field", "plan"));
    }
    let planned = operation::plan(&site.app, &permit, asked(request.clone())?).await?;
    Ok(Json(view(request, planned)))
}

fn view(request: OperationCreate, planned: OperationPlan) -> Plan {
    let OperationPlan { id, bytes, steps, hosts, left_out, not_before, deadline } = planned;
    let step = |(shown, order_digest): (Step, Digest)| PlanStep { step: step_view(id, &shown), order_digest };
    let host = |selected: Selected| PlanHost { name: selected.host.name, client_id: selected.host.client_id };
    Plan {
        digest: Digest::of(&bytes),
        operation: OperationCreate { id: Some(id), plan: Some(STANDARD.encode(&bytes)), ..request },
        steps: steps.into_iter().map(step).collect(),
        hosts: hosts.into_iter().map(host).collect(),
        left_out,
        not_before: not_before.into(),
        deadline: deadline.into(),
    }
}
