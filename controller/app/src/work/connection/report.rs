//! What a connected host says for itself: facts, notices, and that its certificate should be renewed.
//!
//! Its certificate is looked at again in the transaction that stores what it says: a revoked host adds nothing.

use fleetward_pki::{HostKey, PeerIdentity, PkiError};
use fleetward_protocol::facts::{Facts, Upkeep};
use fleetward_protocol::message::ControllerMessage;
use fleetward_protocol::text::Text;
use fleetward_store::StoreError;
use fleetward_store::fleet::certificate;
use fleetward_store::fleet::host::{self, Notice};
use serde_bytes::ByteBuf;
use tracing::{error, warn};

use super::admission::{NotAdmitted, confirm};
use crate::App;
use crate::fleet::enrolment;
use crate::fleet::online::{FleetEvent, Seat};
use crate::people::actor::Actor;
use crate::people::audit::{self, Entry};

/// Stores what is true of the host.
pub async fn take_facts(app: &App, seat: &Seat, identity: &PeerIdentity, facts: Facts) {
    let write = async {
        let mut tx = app.store().write().await?;
        confirm(app, &mut tx, identity).await?;
        host::update_facts(&mut tx, seat.host, &facts, &facts.digest(seat.boot), app.now()).await?;
        Ok::<_, NotAdmitted>(tx.commit().await?)
    };
    if let Err(error) = write.await {
        // The agent sends them again when they change, and at its next connection.
        warn!(host = %seat.host, %error, "connection.facts_not_stored");
        return;
    }
    app.fleet().announce(FleetEvent::Host { tenant: seat.tenant, host: seat.host });
}

/// Stores what the host needs, unless that is known: it is told again at each connection.
pub async fn take_upkeep(app: &App, seat: &Seat, identity: &PeerIdentity, upkeep: Upkeep) {
    let write = async {
        let mut conn = app.store().read().await?;
        if host::has_upkeep(&mut conn, seat.host, &upkeep).await? {
            return Ok(false);
        }
        drop(conn);
        let mut tx = app.store().write().await?;
        confirm(app, &mut tx, identity).await?;
        host::update_upkeep(&mut tx, seat.host, &upkeep).await?;
        tx.commit().await?;
        Ok::<_, NotAdmitted>(true)
    };
    match write.await {
        Ok(false) => {}
        Ok(true) => app.fleet().announce(FleetEvent::Host { tenant: seat.tenant, host: seat.host }),
        // The agent sends it again when it changes, and at its next connection.
        Err(error) => warn!(host = %seat.host, %error, "connection.upkeep_not_stored"),
    }
}

/// Stores something that an operator should know about the host.
pub async fn take_notice(app: &App, seat: &Seat, identity: &PeerIdentity, text: &str) {
    let now = app.now();
    let write = async {
        let mut tx = app.store().write().await?;
        let name = confirm(app, &mut tx, identity).await?.name;
        host::update_notice(&mut tx, seat.host, &Notice { at: now, text: text.to_owned() }).await?;
        let shown: String = text.chars().take(500).collect();
        let entry = Entry::new("host.notice", Actor::Host(name.clone()), &name).tenant(seat.tenant);
        audit::record(&mut tx, entry.with("text", shown), now).await?;
        Ok::<_, NotAdmitted>(tx.commit().await?)
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
    Request(#[from] fleetward_pki::InvalidRequest),
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
            ControllerMessage::RenewRefused { reason: Text::of(error) }
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
    let now = app.now();
    let lifetime = app.settings().enrolment.certificate_lifetime;
    let issued = app.authority().issue_host(&key, &identity.client, now, lifetime)?;
    let mut tx = app.store().write().await?;
    let admitted = confirm(app, &mut tx, identity).await?;
    certificate::insert(&mut tx, &enrolment::row(&issued, seat.tenant, seat.host, now)).await?;
    let entry = Entry::new("host.certificate_renewed", Actor::Host(admitted.name.clone()), &admitted.name)
        .tenant(seat.tenant)
        .with("serial", issued.serial.clone());
    audit::record(&mut tx, entry, now).await?;
    tx.commit().await?;
    Ok(issued.chain.into_iter().map(|certificate| ByteBuf::from(certificate.to_vec())).collect())
}
