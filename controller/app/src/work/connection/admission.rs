//! Whether a certificate that TLS has verified is still good, and whose it is.
//!
//! **What it promises.** Who asks again after taking its seat, or with [`confirm`] in the transaction of what it
//! writes, is not overtaken by a revocation: either the question comes after it, or the revocation finds the seat.

use fleetward_pki::PeerIdentity;
use fleetward_protocol::id::{HostId, TenantId};
use fleetward_protocol::name::HostName;
use fleetward_store::fleet::certificate;
use fleetward_store::fleet::host::{self, Enrolment, Lifecycle};
use fleetward_store::{Connection, Scope, StoreError, Tx};

use crate::App;

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
    /// The certificate's time is over.
    #[error("the certificate has expired; enrol the host again")]
    Expired,
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

/// Whether the certificate is good now.
///
/// # Errors
/// [`NotAdmitted`].
pub async fn admit(app: &App, identity: &PeerIdentity) -> Result<Admitted, NotAdmitted> {
    let mut conn = app.store().read().await?;
    look_up(app, &mut conn, identity).await
}

/// The same in a transaction that writes for the host: until it ends, the host is neither revoked nor retired nor
/// enrolled anew.
///
/// # Errors
/// [`NotAdmitted`].
pub(super) async fn confirm(
    app: &App,
    tx: &mut Tx,
    identity: &PeerIdentity,
) -> Result<Admitted, NotAdmitted> {
    let known = certificate::find(tx, &identity.fingerprint).await?.ok_or(NotAdmitted::Unknown)?;
    if !host::lock(tx, known.host).await? {
        return Err(NotAdmitted::Retired);
    }
    look_up(app, tx, identity).await
}

async fn look_up(app: &App, conn: &mut Connection, identity: &PeerIdentity) -> Result<Admitted, NotAdmitted> {
    let certificate = certificate::find(conn, &identity.fingerprint).await?.ok_or(NotAdmitted::Unknown)?;
    if certificate.revoked_at.is_some() {
        return Err(NotAdmitted::Revoked);
    }
    if identity.not_after <= app.now() {
        return Err(NotAdmitted::Expired);
    }
    let host = match host::get_by_id(conn, &Scope::Everything, certificate.host).await {
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
