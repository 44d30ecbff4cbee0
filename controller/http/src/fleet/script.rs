//! Scripts of the inventory.

use axum::extract::State;
use fleetward_api::fleet::script::{Flag, Script, ScriptDetail, ScriptVariable};
use fleetward_api::page::{Page, PageQuery};
use fleetward_app::fleet::script;
use fleetward_domain::fleet::contract::{FreeArguments, Variable};
use fleetward_protocol::name::ScriptName;
use fleetward_store as store;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::Site;
use crate::caller::Allowed;
use crate::document::Failure;
use crate::error::ApiError;
use crate::extract::{Json, Path, Query};
use crate::page::{page_of, request};
use fleetward_app::people::access::Read;

/// The routes of this noun.
pub(crate) fn router() -> OpenApiRouter<Site> {
    OpenApiRouter::new().routes(routes!(list)).routes(routes!(get))
}

/// Scripts that can be run, by name.
#[utoipa::path(
    get, path = "/scripts", operation_id = "scriptList", tag = "script",
    params(PageQuery),
    responses((status = 200, description = "One page of scripts.", body = Page<Script>), Failure),
)]
async fn list(
    State(site): State<Site>,
    permit: Allowed<Read>,
    Query(asked): Query<PageQuery>,
) -> Result<Json<Page<Script>>, ApiError> {
    let page = request(asked.limit, asked.cursor)?;
    let found = script::list(&site.app, &permit).await?;
    let sizes = script::sizes(&site.app, &permit).await?;
    let size = |script: &store::fleet::script::Script| sizes.get(&script.digest).copied().unwrap_or(0);
    Ok(Json(page_of(found, &page, |script| script.name.to_string(), |script| view(size(&script), script))))
}

/// One script with its text.
#[utoipa::path(
    get, path = "/scripts/{name}", operation_id = "scriptGet", tag = "script",
    params(("name" = String, Path, description = "The script's name.")),
    responses((status = 200, description = "The script.", body = ScriptDetail), Failure),
)]
async fn get(
    State(site): State<Site>,
    permit: Allowed<Read>,
    Path(name): Path<ScriptName>,
) -> Result<Json<ScriptDetail>, ApiError> {
    let missing = |error| match error {
        store::StoreError::NotFound { .. } => no_script(&name),
        error => error.into(),
    };
    let (script, content) = script::get(&site.app, &permit, &name).await.map_err(missing)?;
    let script = view(content.len() as u64, script);
    Ok(Json(ScriptDetail { script, content: String::from_utf8_lossy(&content).into_owned() }))
}

/// The answer about a script that is not in the inventory.
fn no_script(name: &ScriptName) -> ApiError {
    let message = format!("there is no script `{name}`; `fleetward script list` shows those there are");
    ApiError::not_found("SCRIPT_NOT_FOUND", message).detail("script", name.as_str())
}

fn view(size: u64, script: store::fleet::script::Script) -> Script {
    Script {
        name: script.name,
        title: script.display_name,
        description: script.description,
        emoji: script.emoji,
        path: script.path.unwrap_or_default(),
        digest: script.digest,
        size,
        flags: script.flags.into_iter().map(flag).collect(),
        free_arguments: script.free_arguments == FreeArguments::Any,
        environment: script.environment.into_iter().map(variable).collect(),
        estimated_duration_s: script.estimated.map(seconds),
        timeout_s: script.timeout.map(seconds),
        user: script.user,
        users: script.users,
        resources: script.resources,
        tags: script.tags,
        commit: script.commit,
        synced_at: script.updated_at.into(),
    }
}

fn flag(flag: fleetward_domain::fleet::inventory::Flag) -> Flag {
    let (name, default) = match flag.flag.split_once('=') {
        Some((name, default)) => (name.to_owned(), Some(default.to_owned())),
        None => (flag.flag, None),
    };
    Flag { flag: name, default, requires_value: flag.requires_value }
}

fn variable(variable: Variable) -> ScriptVariable {
    let Variable { name, description, required, secret } = variable;
    ScriptVariable { name, description, required, secret }
}

fn seconds(span: std::time::Duration) -> u32 {
    u32::try_from(span.as_secs()).unwrap_or(u32::MAX)
}
