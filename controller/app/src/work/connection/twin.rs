//! One identity on two machines: noticed when sessions begin, written down on the host's row while it lasts.
//!
//! **What it promises.** The row is written once a minute at most, and the audit log says once that it began. It is over
//! by itself, for whoever reads compares its time with the clock; and at once when the host is enrolled anew or revoked.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use fleetward_domain::fleet::twin::{Arrival, Replaces, TwinWatch, Twins};
use fleetward_protocol::id::HostId;
use fleetward_protocol::message::Hello;
use fleetward_protocol::time::Timestamp;
use fleetward_store::fleet::host;
use fleetward_store::{Connection, Scope, StoreError};
use serde_json::{Value, json};
use tracing::{error, warn};

use super::admission::confirm;
use super::{Admitted, HEARTBEAT, NotAdmitted};
use crate::App;
use crate::fleet::online::Presence;
use crate::people::actor::Actor;
use crate::people::audit::{self, Entry};

/// What is remembered of the sessions of each host that connected since the start: a few hundred bytes.
#[derive(Debug, Default)]
pub struct TwinWatches(Mutex<HashMap<HostId, TwinWatch>>);

impl TwinWatches {
    /// How many hosts there are whose identity two machines use now.
    #[must_use]
    pub fn count_current(&self, now: Timestamp) -> usize {
        self.watches().values().filter(|watch| watch.is_current(now)).count()
    }

    /// Goes on with what was written down before the controller was restarted, as far as it is current.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn resume(&self, conn: &mut Connection, now: Timestamp) -> Result<(), StoreError> {
        let written = host::list_twins(conn).await?;
        let current = written.into_iter().filter(|(_, twins)| twins.is_current(now));
        self.watches().extend(current.map(|(host, twins)| (host, TwinWatch::resume(twins))));
        Ok(())
    }

    /// The host has a new certificate, or none: what was before proves nothing any more.
    pub fn forget(&self, host: HostId) {
        self.watches().remove(&host);
    }

    fn watches(&self) -> MutexGuard<'_, HashMap<HostId, TwinWatch>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Takes note of a session that begins, and writes down what it proves; whether two machines use the identity now.
pub(super) async fn note(
    app: &App,
    admitted: &Admitted,
    hello: &Hello,
    remote: SocketAddr,
    older: Option<&Presence>,
) -> bool {
    let now = app.now();
    // A host that lost its network comes back when its old session has been silent for longer.
    let is_living = older.is_some_and(|older| now.since(older.last_seen) <= HEARTBEAT * 2);
    let arrival = Arrival {
        boot: hello.boot,
        journal: hello.journal,
        address: remote.ip().to_canonical(),
        replaces: if is_living { Replaces::Living } else { Replaces::Nothing },
    };
    let (due, is_current) = {
        let mut watches = app.twins().watches();
        let watch = watches.entry(admitted.host).or_default();
        (watch.handle(arrival, now), watch.is_current(now))
    };
    if let Some(twins) = due
        && let Err(error) = write(app, admitted, twins).await
    {
        error!(host = %admitted.name, %error, "connection.duplicate_identity_not_stored");
        if let Some(watch) = app.twins().watches().get_mut(&admitted.host) {
            watch.not_written();
        }
    }
    is_current
}

async fn write(app: &App, admitted: &Admitted, mut twins: Twins) -> Result<(), NotAdmitted> {
    let now = app.now();
    let mut tx = app.store().write().await?;
    confirm(app, &mut tx, &admitted.identity).await?;
    let known = host::get_by_id(&mut tx, &Scope::Everything, admitted.host).await?.twins;
    // Also after a restart of the controller it is one and the same.
    match known.filter(|known| known.is_current(now)) {
        Some(known) => twins.since = known.since,
        None => {
            let [one, other] = twins.machines;
            warn!(host = %admitted.name, one = %one.address, other = %other.address, "connection.duplicate_identity");
            let side = |machine: fleetward_domain::fleet::twin::Machine| -> Value {
                json!({
                    "address": machine.address.to_string(),
                    "boot": machine.boot.to_string(),
                    "journal": machine.journal.to_string(),
                })
            };
            let entry = Entry::new("host.duplicate_identity", Actor::System, &admitted.name)
                .tenant(admitted.tenant)
                .with("one", side(one))
                .with("other", side(other));
            audit::record(&mut tx, entry, now).await?;
        }
    }
    host::update_twins(&mut tx, admitted.host, &twins).await?;
    Ok(tx.commit().await?)
}
