//! A host's connection, from its certificate to its departure.

use std::collections::HashMap;
use std::collections::hash_map::Entry as Slot;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use fleetward_domain::refusal::Telling;
use fleetward_domain::run::{RunEvent, RunState};
use fleetward_protocol::facts::Facts;
use fleetward_protocol::id::{HostId, OperationId, RunId, TenantId};
use fleetward_protocol::message::{ControllerMessage, Hello, Welcome};
use fleetward_protocol::name::HostName;
use serde_bytes::ByteBuf;
use tokio::sync::mpsc;
use tracing::{error, info, warn};

use super::App;
use super::actor::Actor;
use super::audit::{self, Entry};
use super::fleet::{Attach, FleetEvent, HostCommand, Newcomer, Seat};
use super::order::{self, LoadedStep, OrderError};
use super::recorder::Change;
use super::refusal;
use crate::pki::{HostKey, PeerIdentity, PkiError};
use crate::secret::SecretBox;
use crate::store::host::{self, Connected, Enrolment, Host, Lifecycle, Notice};
use crate::store::run::{self, Run};
use crate::store::{Connection, Scope, StoreError, certificate, operation};

/// How often an agent says that it is there.
const HEARTBEAT: Duration = Duration::from_secs(3);
/// Silence after which a host is offline.
const SILENCE: Duration = Duration::from_secs(9);
/// A difference of clocks above which people are told.
const NOTABLE_SKEW_MS: i64 = 30_000;

/// A host whose certificate is good.
#[derive(Debug, Clone)]
pub struct Admitted {
    /// Who it is.
    pub identity: PeerIdentity,
    /// Its row.
    pub host: HostId,
    /// Whose it is.
    pub tenant: TenantId,
    /// Its name.
    pub name: HostName,
}

/// Why a connection is not admitted.
#[derive(Debug, thiserror::Error)]
pub enum NotAdmitted {
    /// The certificate was not issued by this controller, or was removed.
    #[error("the certificate is not known to this controller; enrol the host again")]
    Unknown,
    /// The certificate was revoked.
    #[error("the certificate is revoked; enrol the host again with a token made for it")]
    Revoked,
    /// The host is not in the inventory any more.
    #[error("the host is retired in the inventory")]
    Retired,
    /// The certificate names another client ID than the inventory.
    #[error("the certificate names another client ID than the inventory")]
    OtherClient,
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl NotAdmitted {
    /// Whether trying again is pointless.
    #[must_use]
    pub const fn is_final(&self) -> bool {
        !matches!(self, Self::Store(_))
    }
}

/// An established session.
#[derive(Debug)]
pub struct Session {
    /// Its place in the fleet.
    pub seat: Arc<Seat>,
    /// What the host will be asked for.
    pub commands: mpsc::UnboundedReceiver<HostCommand>,
    /// The answer to the hello.
    pub welcome: Welcome,
    /// The runs whose streams are to be opened.
    pub attach: Vec<Attach>,
    /// The runs that the host may forget.
    pub forget: Vec<RunId>,
}

/// How a session ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Departure {
    /// The agent stopped on purpose.
    Goodbye,
    /// The connection was closed, or the controller stops.
    Disconnected,
    /// Nothing was heard for too long.
    Silent,
    /// The agent said what it may not say.
    BrokeProtocol,
    /// A newer connection took over.
    Superseded,
    /// The host was revoked or retired.
    Revoked,
}

/// Whether the certificate that TLS has verified is still good, and whose it is.
///
/// # Errors
/// [`NotAdmitted`].
pub async fn admit(app: &App, identity: &PeerIdentity) -> Result<Admitted, NotAdmitted> {
    let mut conn = app.store().read().await?;
    let certificate =
        certificate::find(&mut conn, &identity.fingerprint).await?.ok_or(NotAdmitted::Unknown)?;
    if certificate.revoked_at.is_some() {
        return Err(NotAdmitted::Revoked);
    }
    let host = match host::get_by_id(&mut conn, &Scope::Everything, certificate.host).await {
        Ok(host) => host,
        Err(StoreError::NotFound { .. }) => return Err(NotAdmitted::Retired),
        Err(error) => return Err(error.into()),
    };
    if host.lifecycle == Lifecycle::Retired {
        return Err(NotAdmitted::Retired);
    }
    if host.enrolment == Enrolment::Revoked {
        return Err(NotAdmitted::Revoked);
    }
    if host.declared.client_id != identity.client {
        return Err(NotAdmitted::OtherClient);
    }
    Ok(Admitted { identity: identity.clone(), host: host.id, tenant: host.tenant, name: host.declared.name })
}

/// Takes the host's seat and finds out what it holds.
///
/// # Errors
/// If the store or the recorder fails; the seat is free again then.
pub async fn join(
    app: &App,
    admitted: &Admitted,
    hello: &Hello,
    remote: SocketAddr,
) -> Result<Session, OrderError> {
    let now = app.now();
    let clock_skew_ms = hello.clock.as_millis().saturating_sub(now.as_millis());
    let newcomer = Newcomer {
        host: admitted.host,
        tenant: admitted.tenant,
        journal: hello.journal,
        remote,
        clock_skew_ms,
    };
    // The seat first: a run that is handed out from now on is sent to this session, and one that was handed out
    // before is found in the store.
    let joined = app.fleet().join(newcomer, now);
    let held = match take_up(app, admitted, hello).await {
        Ok(held) => held,
        Err(error) => {
            let _ = app.fleet().leave(&joined.seat);
            return Err(error);
        }
    };
    if let Some(older) = joined.superseded {
        warn!(host = %admitted.name, %older, newer = %remote, "connection.superseded");
        let entry = Entry::new("host.superseded", Actor::Host(admitted.name.clone()), &admitted.name)
            .tenant(admitted.tenant)
            .with("older", older.to_string())
            .with("newer", remote.to_string());
        audit::record_alone(app, entry).await;
    }
    if clock_skew_ms.abs() > NOTABLE_SKEW_MS {
        warn!(host = %admitted.name, clock_skew_ms, "connection.clock_skew");
    }
    let connected = Connected {
        agent_version: hello.agent_version.clone(),
        boot: hello.boot,
        journal: hello.journal,
        kinds: hello.kinds.clone(),
        clock_skew_ms,
    };
    app.presences().note_online(admitted.host, connected, now);
    app.fleet().announce(FleetEvent::Host { tenant: admitted.tenant, host: admitted.host });
    if !held.quarantined {
        app.dispatcher().host_online(admitted.host);
    }
    let millis = |span: Duration| u32::try_from(span.as_millis()).unwrap_or(u32::MAX);
    Ok(Session {
        seat: joined.seat,
        commands: joined.commands,
        welcome: Welcome {
            controller_version: env!("CARGO_PKG_VERSION").to_owned(),
            clock: now,
            heartbeat_ms: millis(HEARTBEAT),
            silence_ms: millis(SILENCE),
            quarantined: held.quarantined,
        },
        attach: held.attach,
        forget: held.forget,
    })
}

/// Gives the seat back.
pub async fn leave(app: &App, seat: &Seat, departure: Departure, reason: &str) {
    if !app.fleet().leave(seat) {
        return;
    }
    info!(host = %seat.host, ?departure, reason, "connection.left");
    app.dispatcher().host_offline(seat.host);
    app.presences().note_offline(seat.host, seat.presence().last_seen);
    app.fleet().announce(FleetEvent::Host { tenant: seat.tenant, host: seat.host });
}

/// Stores what is true of the host.
pub async fn take_facts(app: &App, seat: &Seat, facts: Facts) {
    let write = async {
        let mut tx = app.store().write().await?;
        host::update_facts(&mut tx, seat.host, &facts, app.now()).await?;
        tx.commit().await
    };
    if let Err(error) = write.await {
        // The agent sends them again when they change, and at its next connection.
        warn!(host = %seat.host, %error, "connection.facts_not_stored");
        return;
    }
    app.fleet().announce(FleetEvent::Host { tenant: seat.tenant, host: seat.host });
}

/// Stores something that an operator should know about the host.
pub async fn take_notice(app: &App, seat: &Seat, text: &str) {
    let now = app.now();
    let write = async {
        let mut tx = app.store().write().await?;
        let row = host::get_by_id(&mut tx, &Scope::Everything, seat.host).await?;
        host::update_notice(&mut tx, seat.host, &Notice { at: now, text: text.to_owned() }).await?;
        let shown: String = text.chars().take(500).collect();
        let name = row.declared.name;
        let entry = Entry::new("host.notice", Actor::Host(name.clone()), &name).tenant(seat.tenant);
        audit::record(&mut tx, entry.with("text", shown), now).await?;
        tx.commit().await
    };
    if let Err(error) = write.await {
        error!(host = %seat.host, %error, "connection.notice_not_stored");
    }
    app.fleet().announce(FleetEvent::Host { tenant: seat.tenant, host: seat.host });
}

/// Why a certificate is not renewed.
#[derive(Debug, thiserror::Error)]
enum NotRenewed {
    #[error("the certificate request is not valid")]
    Request(#[from] crate::pki::InvalidRequest),
    #[error("the certificate request names another client ID than the connection proves")]
    OtherClient,
    #[error("the controller could not issue a certificate now")]
    Certificate(#[from] PkiError),
    #[error("the controller could not store the certificate now")]
    Store(#[from] StoreError),
    #[error("the certificate is not good any more: {0}")]
    NotAdmitted(#[from] NotAdmitted),
}

/// Answers a host that asks for a new certificate for the identity it has proved.
pub async fn renew(app: &App, seat: &Seat, identity: &PeerIdentity, request: &[u8]) -> ControllerMessage {
    match try_renew(app, seat, identity, request).await {
        Ok(chain) => ControllerMessage::Renewed { chain },
        Err(error) => {
            warn!(host = %seat.host, %error, "connection.renewal_refused");
            let entry = Entry::new("host.renewal_refused", Actor::System, &identity.client)
                .tenant(seat.tenant)
                .with("reason", error.to_string());
            audit::record_alone(app, entry).await;
            ControllerMessage::RenewRefused { reason: error.to_string() }
        }
    }
}

async fn try_renew(
    app: &App,
    seat: &Seat,
    identity: &PeerIdentity,
    request: &[u8],
) -> Result<Vec<ByteBuf>, NotRenewed> {
    let key = HostKey::parse(request)?;
    if key.claimed() != Some(&identity.client) {
        return Err(NotRenewed::OtherClient);
    }
    // A session outlives neither revocation nor retirement, but the question costs little.
    let admitted = admit(app, identity).await?;
    let now = app.now();
    let lifetime = app.config().enrolment.certificate_lifetime;
    let issued = app.authority().issue_host(&key, &identity.client, now, lifetime)?;
    let mut tx = app.store().write().await?;
    certificate::insert(&mut tx, &issued.row(seat.tenant, seat.host, now)).await?;
    let entry = Entry::new("host.certificate_renewed", Actor::Host(admitted.name.clone()), &admitted.name)
        .tenant(seat.tenant)
        .with("serial", issued.serial.clone());
    audit::record(&mut tx, entry, now).await?;
    tx.commit().await?;
    Ok(issued.chain.into_iter().map(|certificate| ByteBuf::from(certificate.to_vec())).collect())
}

/// Records that a peer was turned away, or counts it; which of both.
pub async fn record_refused_peer(app: &App, remote: SocketAddr, reason: &str) -> Telling {
    const KIND: &str = "link.refused";
    let entry = || {
        let shown: String = reason.chars().filter(|letter| !letter.is_control()).take(300).collect();
        Entry::new(KIND, Actor::Unknown { remote: Some(remote.ip()) }, remote).with("reason", shown)
    };
    refusal::record(app, KIND, Some(remote.ip()), entry).await
}

/// What a host holds, seen from here.
struct Held {
    quarantined: bool,
    attach: Vec<Attach>,
    forget: Vec<RunId>,
}

async fn take_up(app: &App, admitted: &Admitted, hello: &Hello) -> Result<Held, OrderError> {
    let mut conn = app.store().read().await?;
    let host = host::get_by_id(&mut conn, &Scope::Everything, admitted.host).await?;
    let held = run::list_held(&mut conn, admitted.host).await?;
    let forget = run::list_forgettable(&mut conn, admitted.host, &hello.held).await?;
    let quarantined = is_quarantined(&host);
    let mut orders = Orders::default();
    let (mut attach, mut lost) = (Vec::new(), Vec::new());
    for run in held {
        let Some(custody) = run.state.custody() else { continue };
        if custody.journal != hello.journal {
            let event = RunEvent::Reconnected { journal: hello.journal };
            let known = Some(run.state);
            lost.push(Change { operation: run.operation, run: run.id, event, known });
            continue;
        }
        let dispatch = match run.state {
            RunState::Dispatched(_) if quarantined => continue,
            RunState::Dispatched(_) => Some(orders.prepare(&mut conn, app.secrets(), &run).await?),
            _ => None,
        };
        attach.push(Attach {
            run: run.id,
            operation: run.operation,
            journal: custody.journal,
            offset: run.output_end,
            dispatch,
            cancel: custody.cancel.map(fleetward_domain::run::Cause::to_wire),
        });
    }
    drop(conn);
    if !lost.is_empty() {
        warn!(host = %admitted.name, runs = lost.len(), "connection.journal_changed");
        // Fails only while the controller stops; they are found again at the next start.
        let _ = app.recorder().apply(lost).await;
    }
    Ok(Held { quarantined, attach, forget })
}

fn is_quarantined(host: &Host) -> bool {
    host.enrolment != Enrolment::Enrolled
}

/// Orders made again; each operation is loaded once.
#[derive(Default)]
struct Orders(HashMap<OperationId, (operation::Operation, Vec<LoadedStep>)>);

impl Orders {
    async fn prepare(
        &mut self,
        conn: &mut Connection,
        secrets: &SecretBox,
        run: &Run,
    ) -> Result<super::fleet::PreparedDispatch, OrderError> {
        let (operation, steps) = match self.0.entry(run.operation) {
            Slot::Occupied(known) => known.into_mut(),
            Slot::Vacant(free) => {
                let operation = operation::get(conn, &Scope::Everything, run.operation).await?;
                let steps = order::load_steps(conn, secrets, &operation).await?;
                free.insert((operation, steps))
            }
        };
        order::prepare(steps, order::addressee(run, operation.deadline))
    }
}
