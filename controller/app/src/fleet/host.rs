//! Hosts: the inventory's entries and what people do to them.

use std::time::Duration;

use fleetward_domain::fleet::enrolment::{ClientIdFile, Verification};
use fleetward_domain::fleet::target::{ReservedName, check_name};
use fleetward_domain::fleet::twin::Twins;
use fleetward_protocol::client_id::ClientId;
use fleetward_protocol::id::{HostId, TenantId};
use fleetward_protocol::message::ClientIdReport;
use fleetward_protocol::name::{HostName, Tag};
use fleetward_protocol::time::Timestamp;
use fleetward_store::fleet::host::{
    self, Declaration, Enrolment, Filter, Host, Lifecycle, NewHost, Sort, Source,
};
use fleetward_store::fleet::{certificate, token};
use fleetward_store::page::{Direction, Page, PageRequest};
use fleetward_store::{Scope, StoreError, Tx};
use tokio::sync::oneshot;
use tokio::time::timeout;
use uuid::Uuid;

use crate::App;
use crate::fleet::enrolment::{self, Issued, TokenError};
use crate::fleet::online::{CloseReason, Fleet, FleetEvent, HostCommand, Presence};
use crate::inbox::Dispatcher;
use crate::people::access::{ManageHosts, Need, Permit, Read};
use crate::people::audit::{self, Entry};

/// How long a host is given to answer a question.
const ANSWER: Duration = Duration::from_secs(10);

/// A host with what is known of its connection now.
#[derive(Debug, Clone)]
pub struct HostView {
    /// The row.
    pub host: Host,
    /// How it is connected, if it is.
    pub presence: Option<Presence>,
    /// Two machines that use its identity now.
    pub twins: Option<Twins>,
}

/// A host to be added by a person.
#[derive(Debug, Clone)]
pub struct Addition {
    /// Its name.
    pub name: HostName,
    /// Its client ID, where it has one already; a new one is issued otherwise.
    pub client_id: Option<ClientId>,
    /// Its type.
    pub kind: String,
    /// Who runs the machine.
    pub provider: String,
    /// Labels.
    pub tags: Vec<Tag>,
}

/// What a person changes about a host; what is absent stays.
#[derive(Debug, Clone, Default)]
pub struct Alteration {
    /// The new type.
    pub kind: Option<String>,
    /// The new provider.
    pub provider: Option<String>,
    /// The new labels, all of them.
    pub tags: Option<Vec<Tag>>,
}

/// What a host's own client-ID file says.
#[derive(Debug, Clone)]
pub struct Verified {
    /// The result.
    pub verification: Verification,
    /// When it was looked at.
    pub at: Timestamp,
}

/// Why something was not done to a host.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// There is no such host.
    #[error("there is no host `{0}`")]
    NotFound(HostName),
    /// The name means something else where hosts are named.
    #[error(transparent)]
    Reserved(#[from] ReservedName),
    /// It is in the inventory already.
    #[error(
        "there is a host `{0}` already; `fleetward host token {0}` makes a new enrolment token for it, \
         `fleetward host update {0}` changes it"
    )]
    Exists(HostName),
    /// The name or the client ID is taken.
    #[error("{0}")]
    Taken(String),
    /// The entry belongs to the repository.
    #[error("host `{0}` comes from the inventory repository; change it there and sync")]
    FromGit(HostName),
    /// The host left the inventory.
    #[error("host `{0}` is retired")]
    Retired(HostName),
    /// Only what is retired is deleted.
    #[error("host `{0}` is active; retire it first, with {1}")]
    NotRetired(HostName, &'static str),
    /// Several retired hosts had the name.
    #[error("several retired hosts were called `{name}`; name the one that is meant by its id: {}", joined(.ids))]
    Ambiguous {
        /// The name.
        name: HostName,
        /// The hosts.
        ids: Vec<HostId>,
    },
    /// There is nothing to approve.
    #[error("host `{0}` does not wait for approval")]
    NotQuarantined(HostName),
    /// There is nothing to revoke.
    #[error("host `{0}` has no certificate to revoke")]
    NotEnrolled(HostName),
    /// It cannot be asked now.
    #[error("host `{0}` is offline, so its client-ID file cannot be read")]
    Offline(HostName),
    /// It did not answer.
    #[error("host `{0}` did not say what its client-ID file holds; its agent may be too old")]
    NoAnswer(HostName),
    /// The token could not be made.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Hosts that the caller may see.
///
/// # Errors
/// If the cursor is not from this list, or the store fails.
pub async fn list(
    app: &App,
    permit: &Permit<Read>,
    filter: &Filter,
    sort: (Sort, Direction),
    page: &PageRequest,
) -> Result<Page<HostView>, StoreError> {
    let mut conn = app.store().search().await?;
    let page = host::list(&mut conn, &permit.scope(), filter, sort, page).await?;
    let items = page.items.into_iter().map(|host| view(app, host)).collect();
    Ok(Page { items, next: page.next })
}

/// One host.
///
/// # Errors
/// [`HostError::NotFound`] if the caller may see none of this name.
pub async fn get(app: &App, permit: &Permit<impl Need>, name: &HostName) -> Result<HostView, HostError> {
    let mut conn = app.store().read().await?;
    let host = host::find(&mut conn, &permit.scope(), name).await?;
    host.map(|host| view(app, host)).ok_or_else(|| HostError::NotFound(name.clone()))
}

/// One host by its id.
///
/// # Errors
/// [`StoreError::NotFound`] if it is not in scope.
pub async fn get_by_id(app: &App, permit: &Permit<impl Need>, id: HostId) -> Result<HostView, StoreError> {
    let mut conn = app.store().read().await?;
    Ok(view(app, host::get_by_id(&mut conn, &permit.scope(), id).await?))
}

/// Adds a host, and makes a token for it.
///
/// # Errors
/// [`HostError::Taken`] if its name or client ID is.
pub async fn add(
    app: &App,
    permit: &Permit<ManageHosts>,
    addition: Addition,
    token_lifetime: Option<Duration>,
) -> Result<(HostView, Issued), HostError> {
    let now = app.now();
    let name = addition.name;
    check_name(&name)?;
    let client_id = addition.client_id.unwrap_or_else(|| ClientId::issued(Uuid::new_v4()));
    let new = NewHost {
        id: HostId::from_uuid(Uuid::now_v7()),
        tenant: permit.tenant(),
        declared: Declaration {
            name: name.clone(),
            client_id: client_id.clone(),
            host_type: addition.kind,
            provider: addition.provider,
            address: None,
            port: None,
            login_user: None,
            key_ref: None,
            proxy_jump: None,
            enrolment_required: true,
            tags: addition.tags,
            metadata: serde_json::Map::new(),
        },
        source: Source::Api,
        enrolment: Enrolment::Pending,
    };
    let mut tx = app.store().write().await?;
    if let Some(found) = host::find(&mut tx, &Scope::of(new.tenant), &name).await?
        && found.lifecycle == Lifecycle::Active
    {
        return Err(HostError::Exists(name));
    }
    host::insert(&mut tx, &new, now).await.map_err(taken)?;
    let host = host::get_by_id(&mut tx, &Scope::of(new.tenant), new.id).await?;
    let issued =
        enrolment::insert_token(app, permit, &mut tx, new.tenant, Some(&host), token_lifetime, now).await?;
    let entry = Entry::new("host.added", permit.actor(), &name)
        .tenant(new.tenant)
        .with("client_id", client_id.as_str())
        .with("token", issued.id.to_string());
    audit::record(&mut tx, entry, now).await?;
    tx.commit().await?;
    announce(app, &host);
    Ok((view(app, host), issued))
}

/// Changes a host that was not declared by the repository.
///
/// # Errors
/// [`HostError::FromGit`] if it was.
pub async fn alter(
    app: &App,
    permit: &Permit<ManageHosts>,
    name: &HostName,
    alteration: Alteration,
) -> Result<HostView, HostError> {
    let now = app.now();
    let (mut tx, host) = begin(app, permit, name).await?;
    if host.source == Source::Git {
        return Err(HostError::FromGit(name.clone()));
    }
    if host.lifecycle == Lifecycle::Retired {
        return Err(HostError::Retired(name.clone()));
    }
    let mut declared = host.declared.clone();
    declared.host_type = alteration.kind.unwrap_or(declared.host_type);
    declared.provider = alteration.provider.unwrap_or(declared.provider);
    declared.tags = alteration.tags.unwrap_or(declared.tags);
    host::update(&mut tx, host.tenant, host.id, &declared, now).await.map_err(taken)?;
    audit::record(&mut tx, Entry::new("host.changed", permit.actor(), name).tenant(host.tenant), now).await?;
    let host = host::get_by_id(&mut tx, &Scope::of(host.tenant), host.id).await?;
    tx.commit().await?;
    announce(app, &host);
    Ok(view(app, host))
}

/// Retires a host that was not declared by the repository: it is cut off, and its history stays.
///
/// # Errors
/// [`HostError::FromGit`] if it was.
pub async fn retire(app: &App, permit: &Permit<ManageHosts>, name: &HostName) -> Result<HostView, HostError> {
    let now = app.now();
    let (mut tx, host) = begin(app, permit, name).await?;
    if host.source == Source::Git {
        return Err(HostError::FromGit(name.clone()));
    }
    if !host::update_retired(&mut tx, host.id, now).await? {
        return Err(HostError::Retired(name.clone()));
    }
    token::delete_unused(&mut tx, host.id).await?;
    audit::record(&mut tx, Entry::new("host.retired", permit.actor(), name).tenant(host.tenant), now).await?;
    let host = host::get_by_id(&mut tx, &Scope::of(host.tenant), host.id).await?;
    tx.commit().await?;
    cut_off(app, &host);
    Ok(view(app, host))
}

/// Deletes a retired host, given by its name or id: its entry and what it reported are gone, its certificates are
/// revoked. Its runs, their output and the audit log stay, under its name.
///
/// # Errors
/// [`HostError::NotRetired`] if it is active, [`HostError::Ambiguous`] if several had the name.
pub async fn delete(app: &App, permit: &Permit<ManageHosts>, name: &HostName) -> Result<(), HostError> {
    let now = app.now();
    let mut tx = app.store().write().await?;
    let mut retired = host::list_retired(&mut tx, &permit.scope(), name).await?;
    let Some(host) = retired.pop() else {
        let living = host::find(&mut tx, &permit.scope(), name).await?;
        let living = living.ok_or_else(|| HostError::NotFound(name.clone()))?;
        let how = match living.source {
            Source::Api => "`fleetward host retire`",
            Source::Git => "a commit of the inventory repository that does not have it",
        };
        return Err(HostError::NotRetired(living.declared.name, how));
    };
    if !retired.is_empty() {
        let ids = retired.iter().chain([&host]).map(|host| host.id).collect();
        return Err(HostError::Ambiguous { name: name.clone(), ids });
    }
    certificate::update_revoked(&mut tx, host.id, None, "the host was deleted", now).await?;
    token::delete_unused(&mut tx, host.id).await?;
    host::delete(&mut tx, &Scope::of(host.tenant), host.id, now).await?;
    let entry = Entry::new("host.deleted", permit.actor(), &host.declared.name)
        .tenant(host.tenant)
        .with("id", host.id.to_string())
        .with("client_id", host.declared.client_id.as_str());
    audit::record(&mut tx, entry, now).await?;
    tx.commit().await?;
    cut_off(app, &host);
    Ok(())
}

fn joined(ids: &[HostId]) -> String {
    ids.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// Takes a host out of quarantine: from now on runs are dispatched to it.
///
/// # Errors
/// [`HostError::NotQuarantined`] if it is not in quarantine.
pub async fn approve(
    app: &App,
    permit: &Permit<ManageHosts>,
    name: &HostName,
) -> Result<HostView, HostError> {
    let now = app.now();
    let (mut tx, host) = begin(app, permit, name).await?;
    let took =
        host::update_enrolment(&mut tx, host.id, Enrolment::Quarantined, Enrolment::Enrolled, now).await?;
    if !took {
        return Err(HostError::NotQuarantined(name.clone()));
    }
    let entry = Entry::new("host.approved", permit.actor(), name)
        .tenant(host.tenant)
        .with("client_id", host.declared.client_id.as_str());
    audit::record(&mut tx, entry, now).await?;
    let host = host::get_by_id(&mut tx, &Scope::of(host.tenant), host.id).await?;
    tx.commit().await?;
    if app.fleet().presence(host.id).is_some() {
        app.dispatcher().host_online(host.id);
    }
    announce(app, &host);
    Ok(view(app, host))
}

/// Revokes a host's certificates: it is cut off at once, and only a token made for it can enrol it again.
///
/// # Errors
/// [`HostError::NotEnrolled`] if there is nothing to revoke.
pub async fn revoke(app: &App, permit: &Permit<ManageHosts>, name: &HostName) -> Result<HostView, HostError> {
    let now = app.now();
    let (mut tx, host) = begin(app, permit, name).await?;
    if !matches!(host.enrolment, Enrolment::Enrolled | Enrolment::Quarantined) {
        return Err(HostError::NotEnrolled(name.clone()));
    }
    host::update_enrolment(&mut tx, host.id, host.enrolment, Enrolment::Revoked, now).await?;
    certificate::update_revoked(&mut tx, host.id, None, "revoked by an operator", now).await?;
    token::delete_unused(&mut tx, host.id).await?;
    audit::record(&mut tx, Entry::new("host.revoked", permit.actor(), name).tenant(host.tenant), now).await?;
    let host = host::get_by_id(&mut tx, &Scope::of(host.tenant), host.id).await?;
    tx.commit().await?;
    cut_off(app, &host);
    app.twins().forget(host.id);
    Ok(view(app, host))
}

/// Asks a connected host what its client-ID file says, and compares it with the inventory (P11).
///
/// # Errors
/// [`HostError::Offline`] if it is not connected.
pub async fn verify(app: &App, permit: &Permit<Read>, name: &HostName) -> Result<Verified, HostError> {
    let view = get(app, permit, name).await?;
    let (reply, answer) = oneshot::channel();
    app.fleet()
        .send(view.host.id, HostCommand::ReadClientId { reply })
        .map_err(|_| HostError::Offline(name.clone()))?;
    let report = match timeout(ANSWER, answer).await {
        Ok(Ok(report)) => report,
        Ok(Err(_)) | Err(_) => return Err(HostError::NoAnswer(name.clone())),
    };
    let file = match report {
        ClientIdReport::Found(line) => ClientIdFile::Content(line.into()),
        ClientIdReport::Missing => ClientIdFile::Missing,
        ClientIdReport::Unreadable { detail } => ClientIdFile::Unreadable(detail.into()),
    };
    let verification = Verification::of(&view.host.declared.client_id, &file);
    if !verification.is_enrolled() {
        let reason = verification.reason.as_ref().map(ToString::to_string).unwrap_or_default();
        let entry = Entry::new("host.not_verified", permit.actor(), name).tenant(view.host.tenant);
        audit::record_alone(app, entry.with("reason", reason)).await;
    }
    Ok(Verified { verification, at: app.now() })
}

/// Closes a host's connection and ends its runs, after its row says that it is retired or revoked. Also for
/// hosts that left the repository.
pub fn cut_off(app: &App, host: &Host) {
    cut_off_from(app.fleet(), app.dispatcher(), host.tenant, host.id);
}

/// As [`cut_off`], for those who hold the parts and not the app.
pub(crate) fn cut_off_from(fleet: &Fleet, dispatcher: &Dispatcher, tenant: TenantId, host: HostId) {
    // Usually it is connected, but it need not be.
    let _ = fleet.send(host, HostCommand::Close(CloseReason::Revoked));
    dispatcher.host_gone(host);
    fleet.announce(FleetEvent::Host { tenant, host });
}

async fn begin(app: &App, permit: &Permit<ManageHosts>, name: &HostName) -> Result<(Tx, Host), HostError> {
    let mut tx = app.store().write().await?;
    let not_found = || HostError::NotFound(name.clone());
    let found = host::find(&mut tx, &permit.scope(), name).await?.ok_or_else(not_found)?;
    // Whatever is decided by the row is decided by the row that is changed.
    host::lock(&mut tx, found.id).await?;
    let host = host::find(&mut tx, &permit.scope(), name).await?.ok_or_else(not_found)?;
    Ok((tx, host))
}

fn announce(app: &App, host: &Host) {
    app.fleet().announce(FleetEvent::Host { tenant: host.tenant, host: host.id });
}

fn view(app: &App, host: Host) -> HostView {
    let presence = app.fleet().presence(host.id);
    let twins = host.twins.filter(|twins| twins.is_current(app.now()));
    HostView { host, presence, twins }
}

fn taken(error: StoreError) -> HostError {
    match error {
        StoreError::Conflict { what } => HostError::Taken(what),
        error => HostError::Store(error),
    }
}
