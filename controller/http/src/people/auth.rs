//! Logging in and out, and who one is.

use axum::Extension;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use fleetward_api::page::{Page, PageQuery};
use fleetward_api::people::auth::{Grant, LoginRequest, LoginResponse, Me, PasswordChange, Role, Session};
use fleetward_app::people::access::{Caller, Denied};
use fleetward_app::people::login::LoginError;
use fleetward_app::people::password::NotComputed;
use fleetward_app::people::user::PasswordError;
use fleetward_app::people::{login, tenant, user};
use fleetward_domain::people::attempt::TooMany;
use fleetward_domain::people::lockout::Locked;
use fleetward_domain::people::permission::{self, Permission};
use fleetward_protocol::id::SessionId;
use fleetward_protocol::time::Timestamp;
use fleetward_store as store;
use serde_json::Value;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::Site;
use crate::caller::{LoggedIn, set_cookie};
use crate::document::{Failure, IdempotencyKey};
use crate::error::ApiError;
use crate::extract::{Json, Path, Query};
use crate::listen::Remote;
use crate::page::{page, request};

/// The end of a token that has none: the last second of the year 9999.
const FOREVER: Timestamp = Timestamp::from_millis(253_402_300_799_000);

/// The routes of this noun.
pub(crate) fn router() -> OpenApiRouter<Site> {
    OpenApiRouter::new()
        .routes(routes!(login))
        .routes(routes!(logout))
        .routes(routes!(me))
        .routes(routes!(password))
        .routes(routes!(session_list))
        .routes(routes!(session_delete))
}

/// Logs in.
///
/// Five wrong passwords within five minutes lock the name for five minutes, for the address they came from. The token
/// is good for 24 hours; it is also set as a cookie for the console.
#[utoipa::path(
    post, path = "/auth/login", operation_id = "authLogin", tag = "auth",
    request_body = LoginRequest,
    responses((status = 200, description = "Logged in.", body = LoginResponse), Failure),
    security(()),
)]
async fn login(
    State(site): State<Site>,
    remote: Option<Extension<Remote>>,
    headers: HeaderMap,
    Json(request): Json<LoginRequest>,
) -> Result<Response, ApiError> {
    let client = headers.get(header::USER_AGENT).and_then(|name| name.to_str().ok()).unwrap_or("unknown");
    let remote = remote.map(|Extension(remote)| remote.0.ip().to_canonical());
    let login = login::login(&site.app, &request.username, &request.password, client, remote).await?;
    let max_age = login.expires_at.since(site.app.now()).as_secs();
    let cookie = set_cookie(&login.token, max_age, &headers, site.wire);
    let user = view(&site, &login.caller).await?;
    let body = LoginResponse { token: login.token, expires_at: login.expires_at.into(), user };
    let mut response = Json(body).into_response();
    response.headers_mut().extend(cookie.map(|cookie| (header::SET_COOKIE, cookie)));
    Ok(response)
}

/// Ends the login that asks.
#[utoipa::path(
    post, path = "/auth/logout", operation_id = "authLogout", tag = "auth",
    responses((status = 204, description = "Logged out."), Failure),
)]
async fn logout(
    State(site): State<Site>,
    LoggedIn(caller): LoggedIn,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    user::logout(&site.app, &caller).await?;
    let mut response = StatusCode::NO_CONTENT.into_response();
    let cookie = set_cookie("", 0, &headers, site.wire);
    response.headers_mut().extend(cookie.map(|cookie| (header::SET_COOKIE, cookie)));
    Ok(response)
}

/// Who the caller is and what they may do.
#[utoipa::path(
    get, path = "/auth/me", operation_id = "authMe", tag = "auth",
    responses((status = 200, description = "The caller.", body = Me), Failure),
)]
async fn me(State(site): State<Site>, LoggedIn(caller): LoggedIn) -> Result<Json<Me>, ApiError> {
    view(&site, &caller).await.map(Json)
}

/// Changes the caller's password.
///
/// Every other login of the caller ends.
#[utoipa::path(
    post, path = "/auth/password", operation_id = "authPassword", tag = "auth",
    params(IdempotencyKey),
    request_body = PasswordChange,
    responses((status = 204, description = "Changed."), Failure),
)]
async fn password(
    State(site): State<Site>,
    LoggedIn(caller): LoggedIn,
    Json(change): Json<PasswordChange>,
) -> Result<StatusCode, ApiError> {
    user::change_password(&site.app, &caller, &change.current, &change.new).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// The caller's live logins.
#[utoipa::path(
    get, path = "/auth/sessions", operation_id = "authSessionList", tag = "auth",
    params(PageQuery),
    responses((status = 200, description = "One page of logins, the latest first.", body = Page<Session>), Failure),
)]
async fn session_list(
    State(site): State<Site>,
    LoggedIn(caller): LoggedIn,
    Query(asked): Query<PageQuery>,
) -> Result<Json<Page<Session>>, ApiError> {
    let caller = settled(caller)?;
    let found = user::list_sessions(&site.app, &caller, &request(asked.limit, asked.cursor)?).await?;
    Ok(Json(page(found, |session| show(session, &caller))))
}

/// Ends one of the caller's logins.
#[utoipa::path(
    delete, path = "/auth/sessions/{id}", operation_id = "authSessionDelete", tag = "auth",
    params(("id" = String, Path, description = "The login's id.")),
    responses((status = 204, description = "Ended."), Failure),
)]
async fn session_delete(
    State(site): State<Site>,
    LoggedIn(caller): LoggedIn,
    Path(id): Path<SessionId>,
) -> Result<StatusCode, ApiError> {
    let caller = settled(caller)?;
    if user::end_session(&site.app, &caller, id).await? {
        return Ok(StatusCode::NO_CONTENT);
    }
    Err(ApiError::not_found(
        "SESSION_NOT_FOUND",
        format!("there is no login `{id}` of yours; it may have ended"),
    ))
}

/// The caller, if their password is not a one-time one: until it is changed nothing else is allowed.
fn settled(caller: Caller) -> Result<Caller, ApiError> {
    if caller.must_change_password { Err(Denied::MustChangePassword.into()) } else { Ok(caller) }
}

async fn view(site: &Site, caller: &Caller) -> Result<Me, ApiError> {
    let tenants = caller.grants.as_slice().iter().map(|grant| grant.tenant).collect();
    let names = tenant::names(&site.app, &store::Scope::Tenants(tenants)).await?;
    let grants = caller.grants.as_slice();
    Ok(Me {
        username: caller.name.clone(),
        grants: grants
            .iter()
            .filter_map(|grant| {
                Some(Grant { tenant: names.get(&grant.tenant)?.clone(), role: role(grant.role) })
            })
            .collect(),
        permissions: Permission::ALL
            .into_iter()
            .filter(|permission| !caller.grants.tenants(*permission).is_empty())
            .map(permission_name)
            .collect(),
        must_change_password: caller.must_change_password,
    })
}

/// A permission by the name that clients know it by.
pub(crate) fn permission_name(permission: Permission) -> String {
    match serde_json::to_value(permission) {
        Ok(Value::String(name)) => name,
        _ => format!("{permission:?}"),
    }
}

const fn role(role: permission::Role) -> Role {
    match role {
        permission::Role::Admin => Role::Admin,
        permission::Role::Operator => Role::Operator,
        permission::Role::Viewer => Role::Viewer,
        permission::Role::Reporter => Role::Reporter,
    }
}

fn show(session: store::people::session::Session, caller: &Caller) -> Session {
    Session {
        id: session.id,
        name: session.name,
        created_at: session.created_at.into(),
        // Logins end; a token without an end is shown with the latest time there is.
        expires_at: session.expires_at.unwrap_or(FOREVER).into(),
        last_used_at: Some(session.last_used_at.into()),
        current: session.id == caller.session,
    }
}

impl From<LoginError> for ApiError {
    fn from(error: LoginError) -> Self {
        match error {
            LoginError::Wrong => {
                Self::new(StatusCode::UNAUTHORIZED, "INVALID_CREDENTIALS", error.to_string())
            }
            LoginError::Locked(locked) => locked.into(),
            LoginError::TooMany(too_many) => too_many.into(),
            LoginError::Hash(error) => error.into(),
            LoginError::Store(error) => error.into(),
        }
    }
}

impl From<Locked> for ApiError {
    fn from(locked: Locked) -> Self {
        Self::new(StatusCode::FORBIDDEN, "ACCOUNT_LOCKED", locked.to_string())
            .detail("retry_after_s", locked.retry_after.as_secs())
            .retry_after(locked.retry_after)
    }
}

impl From<TooMany> for ApiError {
    fn from(too_many: TooMany) -> Self {
        Self::new(StatusCode::TOO_MANY_REQUESTS, "TOO_MANY_ATTEMPTS", too_many.to_string())
            .detail("retry_after_s", too_many.retry_after.as_secs())
            .retry_after(too_many.retry_after)
    }
}

impl From<NotComputed> for ApiError {
    fn from(error: NotComputed) -> Self {
        match error {
            NotComputed::Busy { retry_after } => {
                Self::new(StatusCode::TOO_MANY_REQUESTS, "TOO_MANY_ATTEMPTS", error.to_string())
                    .detail("retry_after_s", retry_after.as_secs())
                    .retry_after(retry_after)
            }
            NotComputed::Failed(error) => Self::internal(&error),
        }
    }
}

impl From<PasswordError> for ApiError {
    fn from(error: PasswordError) -> Self {
        match error {
            PasswordError::WrongCurrent => {
                Self::new(StatusCode::FORBIDDEN, "WRONG_PASSWORD", error.to_string())
                    .detail("field", "current")
            }
            PasswordError::Locked(locked) => locked.into(),
            PasswordError::TooMany(too_many) => too_many.into(),
            PasswordError::Ended => {
                Self::new(StatusCode::UNAUTHORIZED, "INVALID_CREDENTIAL", error.to_string())
            }
            PasswordError::Unacceptable(error) => {
                Self::invalid("INVALID_PASSWORD", error.to_string()).detail("field", "new")
            }
            PasswordError::Hash(error) => error.into(),
            PasswordError::Store(error) => error.into(),
        }
    }
}
