//! The audit log.

use axum::extract::State;
use fleetward_api::page::Page;
use fleetward_api::people::audit::{AuditEvent, AuditQuery};
use fleetward_app::people::audit;
use fleetward_store::people::audit::{Event, Filter};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::Site;
use crate::caller::Allowed;
use crate::document::Failure;
use crate::error::ApiError;
use crate::extract::{Json, Query};
use crate::page::{page, request};
use fleetward_app::people::access::Audit;

/// The routes of this noun.
pub(crate) fn router() -> OpenApiRouter<Site> {
    OpenApiRouter::new().routes(routes!(list))
}

/// Audit events, the newest first.
#[utoipa::path(
    get, path = "/audit", operation_id = "auditList", tag = "audit",
    params(AuditQuery),
    responses((status = 200, description = "One page of events.", body = Page<AuditEvent>), Failure),
)]
async fn list(
    State(site): State<Site>,
    permit: Allowed<Audit>,
    Query(asked): Query<AuditQuery>,
) -> Result<Json<Page<AuditEvent>>, ApiError> {
    let filter = Filter {
        kind: asked.action,
        actor: asked.actor,
        subject: asked.subject,
        from: asked.from.map(|time| time.timestamp()),
        to: asked.to.map(|time| time.timestamp()),
    };
    let found = audit::list(&site.app, &permit, &filter, &request(asked.limit, asked.cursor)?).await?;
    Ok(Json(page(found, view)))
}

fn view(event: Event) -> AuditEvent {
    let Event { number, event, hash, .. } = event;
    let remote = event.details.get("remote").and_then(|remote| remote.as_str()).map(str::to_owned);
    AuditEvent {
        seq: number,
        at: event.at.into(),
        actor: event.actor,
        action: event.kind,
        subject: (!event.subject.is_empty()).then_some(event.subject),
        remote,
        details: event.details,
        hash: hash.to_string(),
    }
}
