//! Kinds: what may be asked of hosts.

use axum::extract::State;
use fleetward_api::page::{Page, PageQuery};
use fleetward_api::work::kind::{Family, Kind, Shows};
use fleetward_domain::people::permission::Permission;
use fleetward_protocol::{action, query};
use serde_json::{Map, Value};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::Site;
use crate::caller::Allowed;
use crate::document::Failure;
use crate::error::ApiError;
use crate::extract::{Json, Query};
use crate::page::{page_of, request};
use crate::people::auth::permission_name;
use fleetward_app::people::access::Read;

/// The routes of this noun.
pub(crate) fn router() -> OpenApiRouter<Site> {
    OpenApiRouter::new().routes(routes!(list))
}

/// What may be asked of hosts, by name: with the schema of what each kind takes and answers.
#[utoipa::path(
    get, path = "/kinds", operation_id = "kindList", tag = "kind",
    params(PageQuery),
    responses((status = 200, description = "One page of kinds.", body = Page<Kind>), Failure),
)]
async fn list(
    State(site): State<Site>,
    _: Allowed<Read>,
    Query(asked): Query<PageQuery>,
) -> Result<Json<Page<Kind>>, ApiError> {
    let page = request(asked.limit, asked.cursor)?;
    let queries = site.app.queries().kinds().iter().map(query_view);
    let mut kinds: Vec<Kind> = site.app.kinds().iter().map(action_view).chain(queries).collect();
    kinds.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(Json(page_of(kinds, &page, |kind| kind.name.clone(), |kind| kind)))
}

fn action_view(kind: &action::Kind) -> Kind {
    Kind {
        name: kind.name.to_owned(),
        family: Family::Action,
        summary: kind.summary.to_owned(),
        permission: permission_name(Permission::from(kind.privilege)),
        idempotent: kind.idempotent,
        timeout_s: u32::try_from(kind.timeout.as_secs()).unwrap_or(u32::MAX),
        dry_run: kind.rehearses,
        shows: None,
        follows: false,
        parameters: schema(&kind.parameters),
        answer: schema(&kind.report),
    }
}

fn query_view(kind: &query::Kind) -> Kind {
    Kind {
        name: kind.name.to_owned(),
        family: Family::Query,
        summary: kind.summary.to_owned(),
        permission: permission_name(Permission::from(kind.privilege)),
        idempotent: true,
        timeout_s: u32::try_from(kind.bounds.timeout.as_secs()).unwrap_or(u32::MAX),
        dry_run: false,
        shows: Some(match kind.bounds.shows {
            query::Shows::Table => Shows::Table,
            query::Shows::Entries => Shows::Entries,
        }),
        follows: kind.bounds.follows,
        parameters: schema(&kind.parameters),
        answer: schema(&kind.item),
    }
}

/// A schema, as an object.
pub(crate) fn schema(schema: &Value) -> Map<String, Value> {
    schema.as_object().cloned().unwrap_or_default()
}
