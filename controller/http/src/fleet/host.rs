//! Hosts: the inventory's entries and what people do to them.

mod error;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::Duration;

use axum::extract::State;
use axum::http::StatusCode;
use fleetward_api::fleet::host as api;
use fleetward_api::fleet::host::{
    EnrolToken, Host, HostCreate, HostCreated, HostQuery, HostUpdate, TokenCreate, Verification,
};
use fleetward_api::page::Page;
use fleetward_app::fleet::enrolment::{self, Issued};
use fleetward_app::fleet::host::{self, Addition, Alteration, HostView};
use fleetward_app::fleet::target;
use fleetward_app::people::access::{ManageHosts, Need, Permit, Read};
use fleetward_app::people::tenant;
use fleetward_domain::fleet::twin::{OVER_AFTER, Twins};
use fleetward_protocol::id::{HostId, TenantId};
use fleetward_protocol::name::{HostName, Tag, TenantName};
use fleetward_protocol::printable::is_line;
use fleetward_store::fleet::host::{Enrolment, Filter, Lifecycle, Sort, Source, Status};
use fleetward_store::page::Direction;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::Site;
use crate::caller::Allowed;
use crate::document::{Failure, IdempotencyKey};
use crate::error::ApiError;
use crate::extract::{Json, Path, Query};
use crate::page::request;

/// The longest type or provider, in bytes.
const MAX_WORD: usize = 64;
/// The most labels of one host.
const MAX_TAGS: usize = 64;

/// The routes of this noun.
pub(crate) fn router() -> OpenApiRouter<Site> {
    OpenApiRouter::new()
        .routes(routes!(list, create))
        .routes(routes!(get, update, delete))
        .routes(routes!(retire))
        .routes(routes!(token))
        .routes(routes!(approve))
        .routes(routes!(revoke))
        .routes(routes!(verify))
        .routes(routes!(token_create))
}

/// Hosts.
#[utoipa::path(
    get, path = "/hosts", operation_id = "hostList", tag = "host",
    params(HostQuery),
    responses((status = 200, description = "One page of hosts.", body = Page<Host>), Failure),
)]
async fn list(
    State(site): State<Site>,
    permit: Allowed<Read>,
    Query(asked): Query<HostQuery>,
) -> Result<Json<Page<Host>>, ApiError> {
    let (filter, sort) = (filter(&asked)?, sort(asked.sort.as_deref())?);
    let chosen = match &asked.on {
        None => None,
        Some(expression) => Some(chosen(&site, &permit, expression).await?),
    };
    let tenants = tenant::names(&site.app, &permit.scope()).await?;
    let mut page = request(asked.limit, asked.cursor)?;
    loop {
        let found = host::list(&site.app, &permit, &filter, sort, &page).await?;
        let is_chosen = |view: &HostView| chosen.as_ref().is_none_or(|chosen| chosen.contains(&view.host.id));
        let items: Vec<Host> = found
            .items
            .into_iter()
            .filter(is_chosen)
            .map(|host| view(host, &tenants))
            .collect::<Result<_, _>>()?;
        match found.next {
            // An expression may choose nothing of a whole page; an empty one would look like the end.
            Some(next) if items.is_empty() => page.after = Some(next),
            next => {
                let next_cursor = next.map(|cursor| cursor.as_str().to_owned());
                return Ok(Json(Page { items, next_cursor }));
            }
        }
    }
}

/// Adds a host and makes the token its agent enrols with.
#[utoipa::path(
    post, path = "/hosts", operation_id = "hostCreate", tag = "host",
    params(IdempotencyKey),
    request_body = HostCreate,
    responses((status = 201, description = "Added.", body = HostCreated), Failure),
)]
async fn create(
    State(site): State<Site>,
    permit: Allowed<ManageHosts>,
    Json(asked): Json<HostCreate>,
) -> Result<(StatusCode, Json<HostCreated>), ApiError> {
    check_entry(Some(&asked.kind), Some(&asked.provider), Some(&asked.tags))?;
    let addition = Addition {
        name: asked.name,
        client_id: asked.client_id,
        kind: asked.kind,
        provider: asked.provider,
        tags: asked.tags,
    };
    let (added, issued) = host::add(&site.app, &permit, addition, None).await?;
    let host = view_one(&site, &permit, added).await?;
    Ok((StatusCode::CREATED, Json(HostCreated { host, token: show_token(&site, &issued) })))
}

/// One host.
#[utoipa::path(
    get, path = "/hosts/{name}", operation_id = "hostGet", tag = "host",
    params(("name" = String, Path, description = "The host's name, or its id.")),
    responses((status = 200, description = "The host.", body = Host), Failure),
)]
async fn get(
    State(site): State<Site>,
    permit: Allowed<Read>,
    Path(name): Path<HostName>,
) -> Result<Json<Host>, ApiError> {
    let found = host::get(&site.app, &permit, &name).await?;
    view_one(&site, &permit, found).await.map(Json)
}

/// Changes a host that came from the API.
#[utoipa::path(
    patch, path = "/hosts/{name}", operation_id = "hostUpdate", tag = "host",
    params(("name" = String, Path, description = "The host's name, or its id.")),
    request_body = HostUpdate,
    responses((status = 200, description = "The host as it is now.", body = Host), Failure),
)]
async fn update(
    State(site): State<Site>,
    permit: Allowed<ManageHosts>,
    Path(name): Path<HostName>,
    Json(asked): Json<HostUpdate>,
) -> Result<Json<Host>, ApiError> {
    check_entry(asked.kind.as_deref(), asked.provider.as_deref(), asked.tags.as_deref())?;
    let alteration = Alteration { kind: asked.kind, provider: asked.provider, tags: asked.tags };
    let altered = host::alter(&site.app, &permit, &name, alteration).await?;
    view_one(&site, &permit, altered).await.map(Json)
}

/// Retires a host.
///
/// It is cut off and leaves the inventory; its history stays, and its name is free for another.
#[utoipa::path(
    post, path = "/hosts/{name}/retire", operation_id = "hostRetire", tag = "host",
    params(("name" = String, Path, description = "The host's name, or its id."), IdempotencyKey),
    responses((status = 200, description = "The host as it is now.", body = Host), Failure),
)]
async fn retire(
    State(site): State<Site>,
    permit: Allowed<ManageHosts>,
    Path(name): Path<HostName>,
) -> Result<Json<Host>, ApiError> {
    let retired = host::retire(&site.app, &permit, &name).await?;
    view_one(&site, &permit, retired).await.map(Json)
}

/// Deletes a retired host.
///
/// Its entry and what it reported are gone, and its certificates are revoked. Its runs, their output and the audit log
/// stay, under its name. With the same client ID it would come back as a new host.
#[utoipa::path(
    delete, path = "/hosts/{name}", operation_id = "hostDelete", tag = "host",
    params(("name" = String, Path, description = "The host's name, or its id where several had the name.")),
    responses((status = 204, description = "Deleted."), Failure),
)]
async fn delete(
    State(site): State<Site>,
    permit: Allowed<ManageHosts>,
    Path(name): Path<HostName>,
) -> Result<StatusCode, ApiError> {
    host::delete(&site.app, &permit, &name).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Makes an enrolment token for a host.
///
/// Single-use, expiring, good for this host only; earlier ones of the host end.
#[utoipa::path(
    post, path = "/hosts/{name}/token", operation_id = "hostToken", tag = "host",
    params(("name" = String, Path, description = "The host's name, or its id."), IdempotencyKey),
    request_body = Option<TokenCreate>,
    responses((status = 201, description = "The token. Shown only here.", body = EnrolToken), Failure),
)]
async fn token(
    State(site): State<Site>,
    permit: Allowed<ManageHosts>,
    Path(name): Path<HostName>,
    asked: Option<Json<TokenCreate>>,
) -> Result<(StatusCode, Json<EnrolToken>), ApiError> {
    let issued = enrolment::make_token(&site.app, &permit, &name, lifetime(asked)).await?;
    Ok((StatusCode::CREATED, Json(show_token(&site, &issued))))
}

/// Approves a host in quarantine.
#[utoipa::path(
    post, path = "/hosts/{name}/approve", operation_id = "hostApprove", tag = "host",
    params(("name" = String, Path, description = "The host's name, or its id."), IdempotencyKey),
    responses((status = 200, description = "The host as it is now.", body = Host), Failure),
)]
async fn approve(
    State(site): State<Site>,
    permit: Allowed<ManageHosts>,
    Path(name): Path<HostName>,
) -> Result<Json<Host>, ApiError> {
    let approved = host::approve(&site.app, &permit, &name).await?;
    view_one(&site, &permit, approved).await.map(Json)
}

/// Revokes a host's certificates and cuts it off at once.
#[utoipa::path(
    post, path = "/hosts/{name}/revoke", operation_id = "hostRevoke", tag = "host",
    params(("name" = String, Path, description = "The host's name, or its id."), IdempotencyKey),
    responses((status = 200, description = "The host as it is now.", body = Host), Failure),
)]
async fn revoke(
    State(site): State<Site>,
    permit: Allowed<ManageHosts>,
    Path(name): Path<HostName>,
) -> Result<Json<Host>, ApiError> {
    let revoked = host::revoke(&site.app, &permit, &name).await?;
    view_one(&site, &permit, revoked).await.map(Json)
}

/// Looks at the host's own client-ID file now.
#[utoipa::path(
    post, path = "/hosts/{name}/verify", operation_id = "hostVerify", tag = "host",
    params(("name" = String, Path, description = "The host's name, or its id.")),
    responses((status = 200, description = "What it says.", body = Verification), Failure),
)]
async fn verify(
    State(site): State<Site>,
    permit: Allowed<Read>,
    Path(name): Path<HostName>,
) -> Result<Json<Verification>, ApiError> {
    let verified = host::verify(&site.app, &permit, &name).await?;
    let (found, at) = (verified.verification, verified.at);
    Ok(Json(Verification {
        enrolled: found.is_enrolled(),
        client_id_found: found.client_id_found,
        client_id_matches: found.client_id_matches,
        error: found.reason.map(|reason| reason.to_string()),
        verified_at: at.into(),
    }))
}

/// Makes an enrolment token that is bound to no host.
///
/// A host that enrols with it waits in quarantine until it is approved.
#[utoipa::path(
    post, path = "/enrolment-tokens", operation_id = "enrolmentTokenCreate", tag = "host",
    params(IdempotencyKey),
    request_body = Option<TokenCreate>,
    responses((status = 201, description = "The token. Shown only here.", body = EnrolToken), Failure),
)]
async fn token_create(
    State(site): State<Site>,
    permit: Allowed<ManageHosts>,
    asked: Option<Json<TokenCreate>>,
) -> Result<(StatusCode, Json<EnrolToken>), ApiError> {
    let issued = enrolment::make_unbound_token(&site.app, &permit, lifetime(asked)).await?;
    Ok((StatusCode::CREATED, Json(show_token(&site, &issued))))
}

fn filter(asked: &HostQuery) -> Result<Filter, ApiError> {
    let tags = asked.tag.as_deref().unwrap_or_default().split(',').filter(|tag| !tag.is_empty());
    let lifecycle = match asked.lifecycle.as_deref() {
        None | Some("active") => Some(Lifecycle::Active),
        Some("retired") => Some(Lifecycle::Retired),
        Some("all") => None,
        Some(_) => return Err(parameter("lifecycle", "expected `active`, `retired` or `all`")),
    };
    Ok(Filter {
        host_type: asked.kind.clone(),
        status: asked.status.map(|status| match status {
            api::Status::Online => Status::Online,
            api::Status::Offline => Status::Offline,
        }),
        enrolment: asked.enrolment.map(|enrolment| match enrolment {
            api::Enrolment::Pending => Enrolment::Pending,
            api::Enrolment::Enrolled => Enrolment::Enrolled,
            api::Enrolment::Quarantined => Enrolment::Quarantined,
            api::Enrolment::Revoked => Enrolment::Revoked,
        }),
        lifecycle,
        tags: tags
            .map(|tag| tag.trim().parse::<Tag>().map_err(|error| parameter("tag", &error.to_string())))
            .collect::<Result<_, _>>()?,
        text: asked.search.clone().filter(|text| !text.is_empty()),
    })
}

fn sort(asked: Option<&str>) -> Result<(Sort, Direction), ApiError> {
    let text = asked.unwrap_or("name");
    let (word, direction) = match text.strip_prefix('-') {
        Some(word) => (word, Direction::Descending),
        None => (text, Direction::Ascending),
    };
    let known = || Sort::ALL.iter().map(|sort| sort.as_str()).collect::<Vec<_>>().join(", ");
    let sort = word.parse().map_err(|_| parameter("sort", &format!("hosts are sorted by {}", known())))?;
    Ok((sort, direction))
}

fn parameter(name: &str, message: &str) -> ApiError {
    ApiError::invalid("INVALID_PARAMETER", format!("query parameter `{name}`: {message}"))
        .detail("parameter", name)
}

async fn chosen(site: &Site, permit: &Permit<Read>, expression: &str) -> Result<HashSet<HostId>, ApiError> {
    let selected = target::preview(&site.app, permit, expression).await?;
    Ok(selected.into_iter().map(|selected| selected.host.id).collect())
}

fn check_entry(kind: Option<&str>, provider: Option<&str>, tags: Option<&[Tag]>) -> Result<(), ApiError> {
    let refuse = |field: &str, rule: String| {
        Err(ApiError::invalid("INVALID_FIELD", format!("field `{field}`: {rule}")).detail("field", field))
    };
    let is_word = |text: &str| text.len() <= MAX_WORD && is_line(text);
    match (kind, provider, tags) {
        (Some(kind), ..) if kind.trim().is_empty() || !is_word(kind) => {
            refuse("type", format!("1 to {MAX_WORD} printable characters are expected"))
        }
        (_, Some(provider), _) if !is_word(provider) => {
            refuse("provider", format!("up to {MAX_WORD} printable characters are expected"))
        }
        (.., Some(tags)) if tags.len() > MAX_TAGS => {
            refuse("tags", format!("a host has {MAX_TAGS} labels at most"))
        }
        _ => Ok(()),
    }
}

fn lifetime(asked: Option<Json<TokenCreate>>) -> Option<Duration> {
    asked.and_then(|Json(asked)| asked.lifetime_s).map(|seconds| Duration::from_secs(seconds.into()))
}

fn show_token(site: &Site, issued: &Issued) -> EnrolToken {
    let token = issued.token.reveal();
    let controller = site.app.settings().advertise.clone();
    let command = format!("fleetward-agent enrol --controller {controller} --token {token}");
    EnrolToken { token, controller, command, expires_at: issued.expires_at.into() }
}

async fn view_one(site: &Site, permit: &Permit<impl Need>, found: HostView) -> Result<Host, ApiError> {
    let tenants = tenant::names(&site.app, &permit.scope()).await?;
    view(found, &tenants)
}

/// A host as the API shows it.
///
/// # Errors
/// If its tenant has no name, which no stored host's is.
pub(crate) fn view(found: HostView, tenants: &HashMap<TenantId, TenantName>) -> Result<Host, ApiError> {
    let HostView { host, presence, twins } = found;
    let duplicate_identity = twins.map(|twins| duplicate(&host.declared.name, &twins));
    let declared = host.declared;
    let tenant = tenants.get(&host.tenant).cloned();
    let tenant =
        tenant.ok_or_else(|| ApiError::internal(&Nameless { host: host.id, tenant: host.tenant }))?;
    let stored_latency = host.rtt_us.map(Duration::from_micros);
    let latency = presence.and_then(|presence| presence.round_trip.or(stored_latency));
    Ok(Host {
        id: host.id,
        name: declared.name,
        tenant,
        client_id: declared.client_id,
        kind: declared.host_type,
        provider: declared.provider,
        tags: declared.tags,
        source: match host.source {
            Source::Git => api::Source::Git,
            Source::Api => api::Source::Api,
        },
        lifecycle: match host.lifecycle {
            Lifecycle::Active => api::Lifecycle::Active,
            Lifecycle::Retired => api::Lifecycle::Retired,
        },
        enrolment: enrolment_view(host.enrolment),
        status: if presence.is_some() { api::Status::Online } else { api::Status::Offline },
        status_since: presence.map(|presence| presence.since).or(host.last_seen).map(Into::into),
        last_seen: presence.map(|presence| presence.last_seen).or(host.last_seen).map(Into::into),
        latency_ms: latency.map(|latency| latency.as_secs_f64() * 1000.0),
        clock_skew_ms: presence.map(|presence| presence.clock_skew_ms).or(host.clock_skew_ms),
        agent_version: host.agent_version,
        facts: host.facts,
        upkeep: host.upkeep,
        ssh: declared.address.map(|address| api::Ssh {
            address,
            port: declared.port.unwrap_or(22),
            user: declared.login_user.unwrap_or_default(),
            key_ref: declared.key_ref,
            proxy_jump: declared.proxy_jump.and_then(|name| name.parse().ok()),
        }),
        metadata: declared.metadata.into_iter().collect::<BTreeMap<_, _>>(),
        notice: host.notices.last().map(|notice| notice.text.clone()),
        duplicate_identity,
        created_at: host.created_at.into(),
    })
}

/// Two machines with one identity, and what to do about it.
fn duplicate(name: &HostName, twins: &Twins) -> api::DuplicateIdentity {
    let machine = |machine: &fleetward_domain::fleet::twin::Machine| api::Machine {
        address: machine.address,
        boot_id: machine.boot.to_string(),
        journal_id: machine.journal.to_string(),
        first_seen: machine.first_seen.into(),
        last_seen: machine.last_seen.into(),
    };
    api::DuplicateIdentity {
        machines: twins.machines.iter().map(machine).collect(),
        since: twins.since.into(),
        at: twins.at.into(),
        changes: twins.changes,
        remedy: format!(
            "on the machine that is to go, stop the agent (`systemctl disable --now fleetward-agent`), or make it a \
             host of its own: remove /etc/fleetward/client_id there, run the command that `fleetward host add NAME` \
             prints with --force, and `systemctl restart fleetward-agent`. If you cannot reach that machine: run the \
             command that `fleetward host token {name}` prints on the right one with --force, and restart its agent; \
             the other's certificate is revoked by it. This is over when nothing has changed hands for {} minutes",
            OVER_AFTER.as_secs() / 60
        ),
    }
}

/// How far an enrolment got, as the API says it.
pub(crate) const fn enrolment_view(enrolment: Enrolment) -> api::Enrolment {
    match enrolment {
        Enrolment::Pending => api::Enrolment::Pending,
        Enrolment::Enrolled => api::Enrolment::Enrolled,
        Enrolment::Quarantined => api::Enrolment::Quarantined,
        Enrolment::Revoked => api::Enrolment::Revoked,
    }
}

/// A host of a tenant that is not there: a defect, since the database forbids it.
#[derive(Debug, thiserror::Error)]
#[error("host {host} is of tenant {tenant}, which has no name")]
struct Nameless {
    host: HostId,
    tenant: TenantId,
}
