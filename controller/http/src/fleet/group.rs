//! Groups of hosts.

use std::collections::HashMap;

use axum::extract::State;
use axum::http::StatusCode;
use fleetward_api::fleet::group::{Group, GroupUpdate};
use fleetward_api::page::{Page, PageQuery};
use fleetward_app::fleet::group::{self, GroupError};
use fleetward_app::people::access::{ManageHosts, Read};
use fleetward_app::people::tenant;
use fleetward_protocol::id::TenantId;
use fleetward_protocol::name::{GroupName, TenantName};
use fleetward_store as store;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::Site;
use crate::caller::Allowed;
use crate::document::Failure;
use crate::error::ApiError;
use crate::extract::{Json, Path, Query};
use crate::page::{page_of, request};

/// The routes of this noun.
pub(crate) fn router() -> OpenApiRouter<Site> {
    OpenApiRouter::new().routes(routes!(list)).routes(routes!(get, update, delete))
}

/// Groups, by name.
#[utoipa::path(
    get, path = "/groups", operation_id = "groupList", tag = "group",
    params(PageQuery),
    responses((status = 200, description = "One page of groups.", body = Page<Group>), Failure),
)]
async fn list(
    State(site): State<Site>,
    permit: Allowed<Read>,
    Query(asked): Query<PageQuery>,
) -> Result<Json<Page<Group>>, ApiError> {
    let page = request(asked.limit, asked.cursor)?;
    let found = group::list(&site.app, &permit).await?;
    let tenants = tenant::names(&site.app, &permit.scope()).await?;
    let place = |group: &store::fleet::group::Group| format!("{} {}", group.name, group.tenant);
    let page = page_of(found, &page, place, |group| view(group, &tenants));
    Ok(Json(Page { items: page.items.into_iter().flatten().collect(), next_cursor: page.next_cursor }))
}

/// One group.
#[utoipa::path(
    get, path = "/groups/{name}", operation_id = "groupGet", tag = "group",
    params(("name" = String, Path, description = "The group's name.")),
    responses((status = 200, description = "The group.", body = Group), Failure),
)]
async fn get(
    State(site): State<Site>,
    permit: Allowed<Read>,
    Path(name): Path<GroupName>,
) -> Result<Json<Group>, ApiError> {
    let found = group::get(&site.app, &permit, &name).await?;
    shown(found, &tenant::names(&site.app, &permit.scope()).await?)
}

/// Sets a group, in the place of one of the same name.
#[utoipa::path(
    put, path = "/groups/{name}", operation_id = "groupUpdate", tag = "group",
    params(("name" = String, Path, description = "The group's name.")),
    request_body = GroupUpdate,
    responses((status = 200, description = "The group as it is now.", body = Group), Failure),
)]
async fn update(
    State(site): State<Site>,
    permit: Allowed<ManageHosts>,
    Path(name): Path<GroupName>,
    Json(asked): Json<GroupUpdate>,
) -> Result<Json<Group>, ApiError> {
    let set = group::set(&site.app, &permit, name, asked.on, asked.description).await?;
    shown(set, &tenant::names(&site.app, &permit.scope()).await?)
}

/// Deletes a group. Operations that were started on it go on.
#[utoipa::path(
    delete, path = "/groups/{name}", operation_id = "groupDelete", tag = "group",
    params(("name" = String, Path, description = "The group's name.")),
    responses((status = 204, description = "Deleted."), Failure),
)]
async fn delete(
    State(site): State<Site>,
    permit: Allowed<ManageHosts>,
    Path(name): Path<GroupName>,
) -> Result<StatusCode, ApiError> {
    group::delete(&site.app, &permit, &name).await?;
    Ok(StatusCode::NO_CONTENT)
}

fn shown(
    group: store::fleet::group::Group,
    tenants: &HashMap<TenantId, TenantName>,
) -> Result<Json<Group>, ApiError> {
    let name = group.name.clone();
    let tenant_gone = || GroupError::NotFound(name).into();
    view(group, tenants).map(Json).ok_or_else(tenant_gone)
}

/// `None` if its tenant is gone meanwhile.
fn view(group: store::fleet::group::Group, tenants: &HashMap<TenantId, TenantName>) -> Option<Group> {
    Some(Group {
        tenant: tenants.get(&group.tenant)?.clone(),
        name: group.name,
        on: group.expression,
        description: group.description,
        updated_by: group.updated_by,
        updated_at: group.updated_at.into(),
    })
}

impl From<GroupError> for ApiError {
    fn from(error: GroupError) -> Self {
        let text = error.to_string();
        match error {
            GroupError::NotFound(name) => {
                Self::not_found("GROUP_NOT_FOUND", text).detail("group", name.as_str())
            }
            GroupError::Ambiguous(name) | GroupError::Mixed(name) => {
                Self::new(StatusCode::CONFLICT, "GROUP_AMBIGUOUS", text).detail("group", name.as_str())
            }
            GroupError::Syntax(error) => Self::invalid("INVALID_TARGETS", text)
                .detail("field", "on")
                .detail("column", error.column())
                .detail("reason", error.message()),
            GroupError::Nested(other) => {
                Self::invalid("INVALID_TARGETS", text).detail("field", "on").detail("group", other.as_str())
            }
            GroupError::Description => Self::invalid("INVALID_FIELD", text).detail("field", "description"),
            GroupError::TooMany => {
                Self::new(StatusCode::CONFLICT, "TOO_MANY_GROUPS", text).detail("max", group::MAX_GROUPS)
            }
            GroupError::Store(error) => error.into(),
        }
    }
}
