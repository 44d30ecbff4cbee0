//! Enrolment: tokens are made for people, certificates are issued to hosts.

use std::net::SocketAddr;
use std::time::Duration;

use fleetward_domain::fleet::enrolment::{self, Enrol, KnownHost, KnownToken, Standing, VerifiedRequest};
use fleetward_domain::fleet::target::check_name;
use fleetward_pki::{HostKey, IssuedHost, PkiError};
use fleetward_protocol::client_id::ClientId;
use fleetward_protocol::digest::Digest;
use fleetward_protocol::enrol::{EnrolRefusal, EnrolReply, EnrolRequest};
use fleetward_protocol::id::{HostId, TenantId, TokenId};
use fleetward_protocol::name::{HostName, TenantName, UserName};
use fleetward_protocol::printable::to_line;
use fleetward_protocol::time::Timestamp;
use fleetward_store::fleet::certificate;
use fleetward_store::fleet::host::{self, Declaration, Enrolment, Host, Lifecycle, NewHost, Source};
use fleetward_store::fleet::token::{self, Token};
use fleetward_store::people::{tenant, user};
use fleetward_store::{Connection, Scope, StoreError};
use serde_bytes::ByteBuf;
use tracing::{debug, error, info, warn};
use uuid::Uuid;

use crate::App;
use crate::fleet::online::{CloseReason, FleetEvent, HostCommand};
use crate::people::access::{ManageHosts, Permit};
use crate::people::actor::Actor;
use crate::people::audit::{self, Entry};
use crate::refusal;

#[cfg(test)]
mod tests;

/// The longest life of a token.
pub const MAX_TOKEN_LIFETIME: Duration = Duration::from_secs(7 * 86_400);
/// The shortest.
pub const MIN_TOKEN_LIFETIME: Duration = Duration::from_secs(60);
/// How often an enrolment is begun when others take the names it chose: each of a newcomer's four names and its client
/// ID can be lost once, since the next time it is seen to be taken.
const TRIES: u32 = 6;

/// A token that was made: shown once.
#[derive(Clone)]
pub struct Issued {
    /// Names it in the audit log.
    pub id: TokenId,
    /// What the agent is given.
    pub token: fleetward_protocol::enrol::Token,
    /// When it stops working.
    pub expires_at: Timestamp,
}

/// Why a token is not made.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// Too short or too long a life.
    #[error("a token lives between 60 seconds and 7 days")]
    Lifetime,
    /// There is no such host.
    #[error("there is no host `{0}`")]
    NoHost(HostName),
    /// The host left the inventory.
    #[error("the host `{0}` is retired")]
    Retired(HostName),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Makes a token for a host; tokens made for it before and not used stop working.
///
/// # Errors
/// [`TokenError`].
pub async fn make_token(
    app: &App,
    permit: &Permit<ManageHosts>,
    name: &HostName,
    lifetime: Option<Duration>,
) -> Result<Issued, TokenError> {
    let now = app.now();
    let mut tx = app.store().write().await?;
    let host = host::find(&mut tx, &permit.scope(), name).await?;
    let host = host.ok_or_else(|| TokenError::NoHost(name.clone()))?;
    if host.lifecycle == Lifecycle::Retired {
        return Err(TokenError::Retired(name.clone()));
    }
    let issued = insert_token(app, permit, &mut tx, host.tenant, Some(&host), lifetime, now).await?;
    let entry = Entry::new("token.made", permit.actor(), name)
        .tenant(host.tenant)
        .with("token", issued.id.to_string());
    audit::record(&mut tx, entry, now).await?;
    tx.commit().await?;
    Ok(issued)
}

/// Makes a token for a host that the inventory does not have yet. What enrols with it is quarantined.
///
/// # Errors
/// [`TokenError`].
pub async fn make_unbound_token(
    app: &App,
    permit: &Permit<ManageHosts>,
    lifetime: Option<Duration>,
) -> Result<Issued, TokenError> {
    let now = app.now();
    let mut tx = app.store().write().await?;
    let issued = insert_token(app, permit, &mut tx, permit.tenant(), None, lifetime, now).await?;
    let entry = Entry::new("token.made", permit.actor(), "any host")
        .tenant(permit.tenant())
        .with("token", issued.id.to_string());
    audit::record(&mut tx, entry, now).await?;
    tx.commit().await?;
    Ok(issued)
}

/// Adds a token in the caller's transaction.
pub(crate) async fn insert_token(
    app: &App,
    permit: &Permit<ManageHosts>,
    conn: &mut Connection,
    tenant: TenantId,
    host: Option<&Host>,
    lifetime: Option<Duration>,
    now: Timestamp,
) -> Result<Issued, TokenError> {
    let lifetime = lifetime.unwrap_or(app.settings().enrolment.token_lifetime);
    if !(MIN_TOKEN_LIFETIME..=MAX_TOKEN_LIFETIME).contains(&lifetime) {
        return Err(TokenError::Lifetime);
    }
    let secret: [u8; 32] = rand::random();
    let expires_at = now + lifetime;
    if let Some(host) = host {
        token::delete_unused(conn, host.id).await?;
    }
    let row = Token {
        id: TokenId::from_uuid(Uuid::now_v7()),
        tenant,
        host: host.map(|host| host.id),
        secret_digest: Digest::of(&secret),
        created_by: Some(permit.caller().user),
        created_at: now,
        expires_at,
        used_at: None,
        used_by: None,
    };
    token::insert(conn, &row).await?;
    let client = host.map(|host| host.declared.client_id.clone());
    let token = fleetward_protocol::enrol::Token { secret, root: app.authority().digest(), client };
    Ok(Issued { id: row.id, token, expires_at })
}

/// Answers a host that wants to enrol. Everything is audited, with the token, its maker and its tenant if there is one.
pub async fn enrol(app: &App, request: &EnrolRequest, remote: SocketAddr) -> EnrolReply {
    // Before anything is computed: a stranger without a token costs one look-up.
    let (voucher, enrolled) = match find_voucher(app, &Digest::of(&request.secret)).await {
        Ok(voucher) => {
            let enrolled = try_enrol(app, request, &voucher, remote).await;
            (Some(voucher), enrolled)
        }
        Err(failure) => (None, Err(failure)),
    };
    match enrolled {
        Ok(reply) => {
            app.metrics().enrolled("issued");
            reply
        }
        Err(failure) => {
            let refusal = failure.refusal();
            app.metrics().enrolled("refused");
            const KIND: &str = "enrolment.refused";
            let entry = || {
                if let Failure::Store(_) | Failure::Certificate(_) = &failure {
                    error!(%remote, error = %failure, "enrolment.failed");
                } else {
                    warn!(%remote, %refusal, "enrolment.refused");
                }
                let hostname: String = to_line(&request.hostname, 64);
                let entry = Entry::new(KIND, Actor::Unknown { remote: Some(remote.ip()) }, remote)
                    .with("reason", failure.to_string())
                    .with("hostname", hostname);
                match &voucher {
                    // Who made the token learns what it was tried for; nobody else's host is named.
                    Some(voucher) => voucher.tell(entry).tenant(voucher.token.tenant),
                    None => entry,
                }
            };
            let _ = refusal::record(app, KIND, refusal::stranger(Some(remote.ip())), entry).await;
            EnrolReply::Refused(refusal)
        }
    }
}

/// A token that a host came with, and who vouches for the host by it.
#[derive(Debug, Clone)]
struct Voucher {
    token: Token,
    maker: Option<UserName>,
    tenant: TenantName,
}

impl Voucher {
    /// Adds what whoever judges the enrolment has to know.
    fn tell(&self, entry: Entry) -> Entry {
        let maker = self.maker.as_ref().map_or("a user who is gone", UserName::as_str);
        entry
            .with("token", self.token.id.to_string())
            .with("token_made_by", maker)
            .with("token_tenant", self.tenant.as_str())
            .with("token_bound", self.token.host.is_some())
    }
}

/// The token with this secret.
async fn find_voucher(app: &App, secret: &Digest) -> Result<Voucher, Failure> {
    let mut conn = app.store().read().await?;
    let found = token::find(&mut conn, secret).await?;
    let token = found.ok_or(Failure::Refused(EnrolRefusal::UnknownToken))?;
    let maker = match token.created_by {
        Some(id) => match user::get(&mut conn, id).await {
            Ok(user) => Some(user.name),
            Err(StoreError::NotFound { .. }) => None,
            Err(error) => return Err(error.into()),
        },
        None => None,
    };
    let tenant = tenant::get(&mut conn, &Scope::Everything, token.tenant).await?.name;
    Ok(Voucher { token, maker, tenant })
}

/// Why an enrolment was not granted.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("{0}")]
    Refused(EnrolRefusal),
    #[error("issue the certificate")]
    Certificate(#[from] PkiError),
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Failure {
    const fn refusal(&self) -> EnrolRefusal {
        match self {
            Self::Refused(refusal) => *refusal,
            Self::Certificate(_) | Self::Store(_) => EnrolRefusal::Unavailable,
        }
    }
}

async fn try_enrol(
    app: &App,
    request: &EnrolRequest,
    voucher: &Voucher,
    remote: SocketAddr,
) -> Result<EnrolReply, Failure> {
    let key = HostKey::parse(&request.csr).map_err(|_| Failure::Refused(EnrolRefusal::BadRequest))?;
    let client = key.claimed().cloned().ok_or(Failure::Refused(EnrolRefusal::BadRequest))?;
    let verified = VerifiedRequest { client, key: key.digest() };
    let mut tries = 1..=TRIES;
    loop {
        let is_last = tries.next() == Some(TRIES);
        match enrol_once(app, request, voucher, &key, &verified, remote).await {
            // On PostgreSQL two newcomers may find the same name free. Nothing was written; what the other one
            // took is seen now.
            Err(Failure::Store(StoreError::Conflict { what })) if !is_last => {
                debug!(%what, "enrolment.repeated")
            }
            ended => return ended,
        }
    }
}

/// An enrolment in one transaction; a conflict if another one took its name or client ID meanwhile.
async fn enrol_once(
    app: &App,
    request: &EnrolRequest,
    voucher: &Voucher,
    key: &HostKey,
    verified: &VerifiedRequest,
    remote: SocketAddr,
) -> Result<EnrolReply, Failure> {
    let now = app.now();
    let mut tx = app.store().write().await?;
    let known = token::find(&mut tx, &voucher.token.secret_digest).await?;
    let mut host = host::find_by_client(&mut tx, &verified.client).await?;
    if let Some(found) = &host {
        // From here to the commit it is neither revoked nor retired, nor enrolled by another token.
        host::lock(&mut tx, found.id).await?;
        host = host::find_by_client(&mut tx, &verified.client).await?;
    }
    let decision = decide(&mut tx, known.as_ref(), verified, host.as_ref(), now).await?;
    let known = known.ok_or(Failure::Refused(EnrolRefusal::UnknownToken))?;
    if !token::update_used(&mut tx, known.id, &verified.key, now).await? {
        // Another key was faster.
        return Err(Failure::Refused(EnrolRefusal::UsedToken));
    }
    let (id, tenant, name) = match &host {
        Some(host) => (host.id, host.tenant, host.declared.name.clone()),
        None => insert_newcomer(&mut tx, known.tenant, &verified.client, &request.hostname, now).await?,
    };
    let standing = match decision {
        Enrol::Issue => Enrolment::Enrolled,
        Enrol::Quarantine => Enrolment::Quarantined,
    };
    if let Some(host) = &host {
        // It is locked, so it is still as it was read.
        host::update_enrolment(&mut tx, host.id, host.enrolment, standing, now).await?;
    }
    let lifetime = app.settings().enrolment.certificate_lifetime;
    let issued = app.authority().issue_host(key, &verified.client, now, lifetime)?;
    certificate::insert(&mut tx, &row(&issued, tenant, id, now)).await?;
    // Whoever held the identity before does not any more.
    certificate::update_revoked(&mut tx, id, Some(&issued.fingerprint), "enrolled again", now).await?;
    let entry = Entry::new("host.enrolled", Actor::Host(name.clone()), &name)
        .tenant(tenant)
        .with("remote", remote.ip().to_string())
        .with("client_id", verified.client.as_str())
        .with("serial", issued.serial.clone())
        .with("quarantined", standing == Enrolment::Quarantined);
    audit::record(&mut tx, voucher.tell(entry), now).await?;
    tx.commit().await?;
    info!(host = %name, %remote, quarantined = standing == Enrolment::Quarantined, "enrolment.issued");
    app.twins().forget(id);
    // A connection with the certificate before is no longer its host's. Usually there is none.
    let _ = app.fleet().send(id, HostCommand::Close(CloseReason::Revoked));
    app.fleet().announce(FleetEvent::Host { tenant, host: id });
    Ok(EnrolReply::Issued {
        chain: issued.chain.iter().map(|certificate| ByteBuf::from(certificate.to_vec())).collect(),
        quarantined: standing == Enrolment::Quarantined,
    })
}

/// The domain's decision, with what the store knows.
async fn decide(
    conn: &mut Connection,
    token: Option<&Token>,
    request: &VerifiedRequest,
    host: Option<&Host>,
    now: Timestamp,
) -> Result<Enrol, Failure> {
    let bound = match token.and_then(|token| token.host) {
        Some(bound) => match host::get_by_id(conn, &Scope::Everything, bound).await {
            Ok(bound) => Some(bound.declared.client_id),
            Err(StoreError::NotFound { .. }) => return Err(Failure::Refused(EnrolRefusal::Retired)),
            Err(error) => return Err(error.into()),
        },
        None => None,
    };
    let known = token.map(|token| KnownToken {
        tenant: token.tenant,
        client: bound,
        expires: token.expires_at,
        used_by: token.used_by,
    });
    let host = host.map(|host| KnownHost { tenant: host.tenant, standing: standing(host) });
    enrolment::decide(known.as_ref(), request, host, now).map_err(Failure::Refused)
}

/// How far a host of the store has come.
#[must_use]
pub fn standing(host: &Host) -> Standing {
    standing_of(host.lifecycle, host.enrolment)
}

/// How far a host with these two columns has come.
#[must_use]
pub const fn standing_of(lifecycle: Lifecycle, enrolment: Enrolment) -> Standing {
    match (lifecycle, enrolment) {
        (Lifecycle::Retired, _) => Standing::Retired,
        (Lifecycle::Active, Enrolment::Pending) => Standing::Pending,
        (Lifecycle::Active, Enrolment::Enrolled) => Standing::Enrolled,
        (Lifecycle::Active, Enrolment::Quarantined) => Standing::Quarantined,
        (Lifecycle::Active, Enrolment::Revoked) => Standing::Revoked,
    }
}

/// A host that nobody declared: it gets a name of its own and waits for approval.
async fn insert_newcomer(
    conn: &mut Connection,
    tenant: TenantId,
    client: &ClientId,
    hostname: &str,
    now: Timestamp,
) -> Result<(HostId, TenantId, HostName), Failure> {
    let id = HostId::from_uuid(Uuid::now_v7());
    let name = free_name(conn, tenant, id, client, hostname).await?;
    let host = NewHost {
        id,
        tenant,
        declared: Declaration {
            name: name.clone(),
            client_id: client.clone(),
            host_type: "unknown".to_owned(),
            provider: String::new(),
            address: None,
            port: None,
            login_user: None,
            key_ref: None,
            proxy_jump: None,
            enrolment_required: true,
            tags: Vec::new(),
            metadata: serde_json::Map::new(),
        },
        source: Source::Api,
        enrolment: Enrolment::Quarantined,
    };
    host::insert(conn, &host, now).await?;
    Ok((id, tenant, name))
}

/// What the host calls itself, if that is a name nobody has; with as much of what tells it from others as it takes
/// otherwise: the end of its client ID, all of it, its row's id.
async fn free_name(
    conn: &mut Connection,
    tenant: TenantId,
    id: HostId,
    client: &ClientId,
    hostname: &str,
) -> Result<HostName, Failure> {
    let scope = Scope::of(tenant);
    let own: Option<HostName> = hostname.parse().ok().filter(|name| check_name(name).is_ok());
    let base: String =
        own.as_ref().map_or_else(|| "host".to_owned(), |name| name.as_str().chars().take(50).collect());
    let (client, id) = (client.as_str(), id.to_string());
    let short = client.get(client.len().saturating_sub(12)..).unwrap_or(client);
    let longer = [short, client, id.as_str()].into_iter().map(|end| format!("{base}-{end}").parse().ok());
    let names: Vec<HostName> = std::iter::once(own).chain(longer).flatten().collect();
    for name in names {
        // The name of a retired host is free.
        if host::find(conn, &scope, &name).await?.is_none_or(|host| host.lifecycle == Lifecycle::Retired) {
            return Ok(name);
        }
    }
    Err(Failure::Refused(EnrolRefusal::BadRequest))
}

/// A certificate's row.
pub(crate) fn row(
    issued: &IssuedHost,
    tenant: TenantId,
    host: HostId,
    now: Timestamp,
) -> certificate::Certificate {
    certificate::Certificate {
        serial: issued.serial.clone(),
        tenant,
        host,
        fingerprint: issued.fingerprint,
        not_before: issued.not_before,
        not_after: issued.not_after,
        issued_at: now,
        revoked_at: None,
        revoke_reason: None,
    }
}
