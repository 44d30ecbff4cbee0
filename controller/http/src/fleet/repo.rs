//! The inventory repository and its synchronisations.

use std::time::Duration;

use axum::extract::State;
use fleetward_api::fleet::repo as api;
use fleetward_api::fleet::repo::{Repo, RepoUpdate, Sync, SyncRequest};
use fleetward_api::page::{Page, PageQuery};
use fleetward_app::fleet::sync::{self, CredentialKind, SetError, Settings, SettingsChange, SyncError};
use fleetward_domain::fleet::inventory::{Problem, Severity};
use fleetward_repo::Credentials;
use fleetward_store as store;
use fleetward_store::fleet::sync::SyncStatus;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::Site;
use crate::caller::Allowed;
use crate::document::{Failure, IdempotencyKey};
use crate::error::ApiError;
use crate::extract::{Json, Query};
use crate::page::{page, request};
use fleetward_app::people::access::{ManageRepo, Read};

/// The routes of this noun.
pub(crate) fn router() -> OpenApiRouter<Site> {
    OpenApiRouter::new().routes(routes!(get, update)).routes(routes!(sync_list))
}

/// The routes that wait for another machine.
pub(crate) fn slow_router() -> OpenApiRouter<Site> {
    OpenApiRouter::new().routes(routes!(synchronise))
}

/// The inventory repository.
#[utoipa::path(
    get, path = "/repo", operation_id = "repoGet", tag = "repo",
    responses((status = 200, description = "The repository.", body = Repo), Failure),
)]
async fn get(State(site): State<Site>, permit: Allowed<Read>) -> Result<Json<Repo>, ApiError> {
    match sync::settings(&site.app, &permit).await? {
        Some(settings) => Ok(Json(view(settings))),
        None => Err(ApiError::not_found("REPO_NOT_SET", sync::SyncError::NotConfigured.to_string())),
    }
}

/// Sets the inventory repository.
#[utoipa::path(
    put, path = "/repo", operation_id = "repoUpdate", tag = "repo",
    request_body = RepoUpdate,
    responses((status = 200, description = "The repository as it is now.", body = Repo), Failure),
)]
async fn update(
    State(site): State<Site>,
    permit: Allowed<ManageRepo>,
    Json(asked): Json<RepoUpdate>,
) -> Result<Json<Repo>, ApiError> {
    let change = SettingsChange {
        url: asked.url,
        branch: asked.branch,
        interval: asked.interval_minutes.map(|minutes| Duration::from_secs(u64::from(minutes) * 60)),
        credentials: asked.credentials.map(credentials).transpose()?,
    };
    Ok(Json(view(sync::set(&site.app, &permit, change).await?)))
}

/// Synchronises now and waits for the end.
///
/// The answer is 200 also when the synchronisation failed: `status` says so, `error` and `problems` say why,
/// and the last good inventory stays in force. So it does while the status is `waiting`: the commit takes away more than
/// a fifth of the hosts or scripts, and three at least; `departures` says which. It is put in force when it is named
/// in `accept`.
#[utoipa::path(
    post, path = "/repo/sync", operation_id = "repoSync", tag = "repo",
    params(IdempotencyKey),
    request_body = Option<SyncRequest>,
    responses((status = 200, description = "How it went.", body = Sync), Failure),
)]
async fn synchronise(
    State(site): State<Site>,
    permit: Allowed<ManageRepo>,
    asked: Option<Json<SyncRequest>>,
) -> Result<Json<Sync>, ApiError> {
    let accepted = asked.and_then(|Json(asked)| asked.accept);
    Ok(Json(sync_view(sync::run(&site.app, &permit, accepted).await?)))
}

/// Synchronisations, the latest first.
#[utoipa::path(
    get, path = "/repo/syncs", operation_id = "repoSyncList", tag = "repo",
    params(PageQuery),
    responses((status = 200, description = "One page of them.", body = Page<Sync>), Failure),
)]
async fn sync_list(
    State(site): State<Site>,
    permit: Allowed<Read>,
    Query(asked): Query<PageQuery>,
) -> Result<Json<Page<Sync>>, ApiError> {
    let found = sync::history(&site.app, &permit, &request(asked.limit, asked.cursor)?).await?;
    Ok(Json(page(found, sync_view)))
}

fn credentials(given: api::Credentials) -> Result<Credentials, ApiError> {
    Ok(match given {
        api::Credentials::None => Credentials::None,
        api::Credentials::Password { username, password } => Credentials::Password { username, password },
        api::Credentials::SshKey { private_key, passphrase, host_key } => {
            let host_keys = host_key.map(|text| text.parse()).transpose().map_err(|error| {
                let field = "credentials.host_key";
                ApiError::invalid("INVALID_FIELD", format!("field `{field}`: {error}")).detail("field", field)
            })?;
            Credentials::SshKey { private_key, passphrase, host_keys }
        }
    })
}

fn view(settings: Settings) -> Repo {
    Repo {
        url: settings.url,
        branch: settings.branch,
        credentials: match settings.credentials {
            CredentialKind::None => api::CredentialKind::None,
            CredentialKind::Password => api::CredentialKind::Password,
            CredentialKind::SshKey => api::CredentialKind::SshKey,
        },
        interval_minutes: u32::try_from(settings.interval.as_secs().div_ceil(60)).unwrap_or(u32::MAX),
        in_force: settings.good.map(|good| api::InForce {
            url: good.url,
            branch: good.branch,
            commit: good.commit,
            since: good.at.into(),
        }),
        last_sync: settings.last.map(sync_view),
    }
}

fn sync_view(sync: store::fleet::sync::Sync) -> Sync {
    let (warnings, problems): (Vec<Problem>, Vec<Problem>) =
        sync.problems.into_iter().partition(|problem| problem.severity == Severity::Warning);
    let changes = sync.counts.changes;
    Sync {
        id: sync.id,
        status: match sync.status {
            SyncStatus::Running => api::SyncStatus::Running,
            SyncStatus::Succeeded => api::SyncStatus::Succeeded,
            SyncStatus::Failed => api::SyncStatus::Failed,
            SyncStatus::Waiting => api::SyncStatus::Waiting,
        },
        url: sync.url,
        branch: sync.branch,
        started_at: sync.started_at.into(),
        ended_at: sync.ended_at.map(Into::into),
        triggered_by: sync.triggered_by,
        commit: sync.commit,
        error: sync.failure,
        problems: problems.into_iter().map(problem_view).collect(),
        warnings: warnings.into_iter().map(problem_view).collect(),
        changes: api::SyncChanges {
            hosts_added: changes.hosts_added,
            hosts_changed: changes.hosts_changed,
            hosts_retired: changes.hosts_retired,
            scripts_added: changes.scripts_added,
            scripts_changed: changes.scripts_changed,
            scripts_retired: changes.scripts_retired,
        },
        hosts: sync.counts.hosts,
        scripts: sync.counts.scripts,
        departures: sync
            .departures
            .map(|leave| api::Departures { hosts: leaving(leave.hosts), scripts: leaving(leave.scripts) }),
    }
}

fn leaving(leaving: store::fleet::sync::Leaving) -> api::Leaving {
    api::Leaving { names: leaving.names, count: leaving.count, of: leaving.of }
}

fn problem_view(problem: Problem) -> api::Problem {
    api::Problem {
        file: problem.file,
        line: (problem.line > 0).then_some(problem.line),
        field: (!problem.field.is_empty()).then_some(problem.field),
        message: problem.message,
    }
}

impl From<SetError> for ApiError {
    fn from(error: SetError) -> Self {
        let text = error.to_string();
        match error {
            SetError::Invalid(_) => Self::invalid("INVALID_REPO", text),
            SetError::Interval => Self::invalid("INVALID_FIELD", text).detail("field", "interval_minutes"),
            SetError::Secret(error) => Self::internal(&error),
            SetError::Store(error) => error.into(),
        }
    }
}

impl From<SyncError> for ApiError {
    fn from(error: SyncError) -> Self {
        match error {
            SyncError::NotConfigured => Self::not_found("REPO_NOT_SET", error.to_string()),
            SyncError::Store(error) => error.into(),
            SyncError::Panicked => Self::internal(&error),
        }
    }
}
