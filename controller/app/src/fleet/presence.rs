//! Presences that are yet to be written down: the store's copy of what the fleet knows.
//!
//! Connecting and disconnecting are coalesced by host and written in batches, so that ten thousand hosts coming
//! back cost a handful of transactions, not ten thousand.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use fleetward_protocol::id::HostId;
use fleetward_protocol::time::Timestamp;
use fleetward_store::StoreError;
use fleetward_store::fleet::host::{self, Connected, Status};
use tokio::sync::Notify;

use crate::App;

/// Hosts written per transaction.
const BATCH: usize = 1000;

/// Changes that are not written yet, at most one per host.
#[derive(Debug, Default)]
pub struct Presences {
    pending: Mutex<HashMap<HostId, PresenceChange>>,
    /// The numbers of the seats that are written down.
    seats: Mutex<HashMap<HostId, u64>>,
    changed: Notify,
}

/// What a host's row should say.
#[derive(Debug, Clone)]
pub enum PresenceChange {
    /// It connected.
    Online {
        /// What its hello said.
        hello: Connected,
        /// When.
        at: Timestamp,
    },
    /// It disconnected.
    Offline {
        /// What its hello had said, if that is not written yet.
        hello: Option<(Connected, Timestamp)>,
        /// When it was last heard of.
        last_seen: Timestamp,
    },
}

impl Presences {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// The host connected.
    pub(crate) fn note_online(&self, host: HostId, hello: Connected, at: Timestamp) {
        self.pending().insert(host, PresenceChange::Online { hello, at });
        self.changed.notify_one();
    }

    /// The host disconnected.
    pub(crate) fn note_offline(&self, host: HostId, last_seen: Timestamp) {
        let mut pending = self.pending();
        let hello = match pending.remove(&host) {
            Some(PresenceChange::Online { hello, at }) => Some((hello, at)),
            Some(PresenceChange::Offline { hello, .. }) => hello,
            None => None,
        };
        pending.insert(host, PresenceChange::Offline { hello, last_seen });
        drop(pending);
        self.changed.notify_one();
    }

    /// Returns when there is something to write.
    pub async fn wait(&self) {
        if self.pending().is_empty() {
            self.changed.notified().await;
        }
    }

    fn pending(&self) -> MutexGuard<'_, HashMap<HostId, PresenceChange>> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn seats(&self) -> MutexGuard<'_, HashMap<HostId, u64>> {
        self.seats.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self, limit: usize) -> Vec<(HostId, PresenceChange)> {
        let mut pending = self.pending();
        let hosts: Vec<HostId> = pending.keys().take(limit).copied().collect();
        hosts.into_iter().filter_map(|host| Some((host, pending.remove(&host)?))).collect()
    }

    /// Puts changes back that could not be written, unless a newer one has come.
    fn put_back(&self, changes: Vec<(HostId, PresenceChange)>) {
        let mut pending = self.pending();
        for (host, change) in changes {
            pending.entry(host).or_insert(change);
        }
    }
}

/// Writes what is pending; how many hosts. What could not be written stays pending.
///
/// # Errors
/// If the store fails.
pub async fn write_pending(app: &App) -> Result<usize, StoreError> {
    let mut written = 0;
    loop {
        let changes = app.presences().take(BATCH);
        if changes.is_empty() {
            return Ok(written);
        }
        written += changes.len();
        if let Err(error) = write(app, &changes).await {
            app.presences().put_back(changes);
            return Err(error);
        }
    }
}

/// Writes when each connected host was last heard of, its round trip and its clock's skew.
///
/// # Errors
/// If the store fails.
pub async fn write_all(app: &App) -> Result<(), StoreError> {
    let seats = app.presences().seats().clone();
    // Who has no seat yet is about to be written down.
    let row = |(host, presence): (HostId, super::online::Presence)| {
        Some(host::Presence {
            host,
            seat: *seats.get(&host)?,
            status: Status::Online,
            last_seen: presence.last_seen,
            rtt_us: presence.round_trip.and_then(|span| u64::try_from(span.as_micros()).ok()),
            clock_skew_ms: Some(presence.clock_skew_ms),
        })
    };
    let rows: Vec<host::Presence> = app.fleet().presences().into_iter().filter_map(row).collect();
    for batch in rows.chunks(BATCH) {
        let mut tx = app.store().write().await?;
        host::update_presence(&mut tx, batch).await?;
        tx.commit().await?;
    }
    Ok(())
}

async fn write(app: &App, changes: &[(HostId, PresenceChange)]) -> Result<(), StoreError> {
    let mut tx = app.store().write().await?;
    let mut offline = Vec::new();
    let mut seats = app.presences().seats().clone();
    for (id, change) in changes {
        let hello = match change {
            PresenceChange::Online { hello, at } => Some((hello, *at)),
            PresenceChange::Offline { hello, .. } => hello.as_ref().map(|(hello, at)| (hello, *at)),
        };
        if let Some((hello, at)) = hello {
            match host::update_connected(&mut tx, *id, hello, at).await? {
                Some(seat) => drop(seats.insert(*id, seat)),
                None => drop(seats.remove(id)),
            }
        }
        if let PresenceChange::Offline { last_seen, .. } = change
            && let Some(seat) = seats.remove(id)
        {
            offline.push(host::Presence {
                host: *id,
                seat,
                status: Status::Offline,
                last_seen: *last_seen,
                rtt_us: None,
                clock_skew_ms: None,
            });
        }
    }
    if !offline.is_empty() {
        host::update_presence(&mut tx, &offline).await?;
    }
    tx.commit().await?;
    // Nobody else changes them.
    *app.presences().seats() = seats;
    Ok(())
}
