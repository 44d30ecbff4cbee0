//! Presences that are yet to be written down: the store's copy of what the fleet knows.
//!
//! Connecting and disconnecting are coalesced by host and written in batches, so that ten thousand hosts coming
//! back cost a handful of transactions, not ten thousand.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
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

impl PresenceChange {
    /// What the host's hello said, if that is not written yet.
    fn hello(self) -> Option<(Connected, Timestamp)> {
        match self {
            Self::Online { hello, at } => Some((hello, at)),
            Self::Offline { hello, .. } => hello,
        }
    }
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
        let hello = pending.remove(&host).and_then(PresenceChange::hello);
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

    /// Puts changes back that could not be written. Where a newer one has come it stands, with the hello of the older one if it
    /// brings none: who came and went is still to be written as somebody who came.
    fn put_back(&self, changes: Vec<(HostId, PresenceChange)>) {
        let mut pending = self.pending();
        for (host, change) in changes {
            match pending.entry(host) {
                Entry::Vacant(none) => drop(none.insert(change)),
                Entry::Occupied(mut newer) => {
                    if let PresenceChange::Offline { hello: hello @ None, .. } = newer.get_mut() {
                        *hello = change.hello();
                    }
                }
            }
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
        let mut tx = app.write_in_place().await?;
        host::update_presence(&mut tx, batch).await?;
        tx.commit().await?;
    }
    Ok(())
}

async fn write(app: &App, changes: &[(HostId, PresenceChange)]) -> Result<(), StoreError> {
    let mut tx = app.write_in_place().await?;
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

#[cfg(test)]
mod tests {
    use fleetward_protocol::id::{BootId, ControllerId, JournalId};
    use fleetward_protocol::text::{List, Text};
    use fleetward_store::Scope;
    use fleetward_store::fleet::controller::{self, Controller};
    use uuid::Uuid;

    use super::*;
    use crate::fleet::controller::Tenure;
    use crate::testing::TestApp;

    const AT: Timestamp = Timestamp::from_millis(1_700_000_000_000);

    fn hello(version: &str) -> Connected {
        Connected {
            agent_version: Text::of(version),
            boot: BootId::from_uuid(Uuid::nil()),
            journal: JournalId::from_uuid(Uuid::nil()),
            kinds: List::default(),
            clock_skew_ms: 0,
        }
    }

    /// The hello that is pending for a host that left, if it has left.
    fn pending(presences: &Presences, host: HostId) -> Option<String> {
        match presences.pending().get(&host)? {
            PresenceChange::Offline { hello: Some((hello, _)), .. } => {
                Some(hello.agent_version.as_str().to_owned())
            }
            _ => None,
        }
    }

    #[test]
    fn a_hello_that_could_not_be_written_is_kept_though_the_host_has_left() {
        let (presences, host) = (Presences::new(), HostId::from_uuid(Uuid::from_u128(1)));
        presences.note_online(host, hello("1"), AT);
        let failed = presences.take(9);
        presences.note_offline(host, AT);
        presences.put_back(failed);
        assert_eq!(pending(&presences, host).as_deref(), Some("1"));
        // Once more, with one that has left already.
        let failed = presences.take(9);
        presences.note_offline(host, AT);
        presences.put_back(failed);
        assert_eq!(pending(&presences, host).as_deref(), Some("1"));
        // A newer one stands.
        let failed = presences.take(9);
        presences.note_online(host, hello("2"), AT);
        presences.note_offline(host, AT);
        presences.put_back(failed);
        assert_eq!(pending(&presences, host).as_deref(), Some("2"));
    }

    #[tokio::test]
    async fn a_controller_that_was_found_dead_says_of_no_host_that_it_is_connected() {
        let id = ControllerId::from_uuid(Uuid::now_v7());
        let test = TestApp::start_with(Tenure { place: Some(id), ..Tenure::default() }).await;
        let app = test.app();
        test.add_absent_host("web-1").await;
        let stored = async || {
            let mut conn = app.store().read().await.unwrap();
            host::get(&mut conn, &Scope::Everything, &"web-1".parse().unwrap()).await.unwrap()
        };
        let host = stored().await.id;
        app.presences().note_online(host, hello("1"), AT);
        // Its place is not there any more.
        assert!(matches!(write_pending(app).await, Err(StoreError::TakenOver)));
        assert_eq!(stored().await.status, Status::Offline);
        let row =
            Controller { id, name: "one".to_owned(), version: "0.0.0".to_owned(), beat: 0, started_at: AT };
        let mut tx = app.store().write().await.unwrap();
        controller::insert(&mut tx, &row).await.unwrap();
        tx.commit().await.unwrap();
        assert_eq!(write_pending(app).await.unwrap(), 1);
        assert_eq!(stored().await.status, Status::Online);
    }
}
