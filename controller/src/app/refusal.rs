//! Refusals in log and audit log: the first few one by one, the others in sum.
//!
//! **What it promises.** Whatever strangers do, a minute of it is a bounded number of lines and rows; what is not told
//! one by one is counted, and the number is written when the minute is over, or when the controller stops.

use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use fleetward_domain::refusal::{Sum, Tally, Telling};
use fleetward_protocol::time::Timestamp;
use tracing::{error, warn};

use super::App;
use super::actor::Actor;
use super::attempt::party;
use super::audit::{self, Entry};
use crate::store::StoreError;

/// What was refused lately.
#[derive(Debug, Default)]
pub struct Refusals(Mutex<Tally>);

impl Refusals {
    /// Takes note of a refusal, and says whether it is to be told by itself. If not, it is told in sum.
    pub fn note(&self, kind: &'static str, remote: Option<IpAddr>, now: Timestamp) -> Telling {
        self.tally().note(kind, party(remote), now)
    }

    fn tally(&self) -> MutexGuard<'_, Tally> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Records a refusal by itself, or counts it; whether it was recorded, and so is to be logged too.
pub async fn record(
    app: &App,
    kind: &'static str,
    remote: Option<IpAddr>,
    entry: impl FnOnce() -> Entry,
) -> Telling {
    let telling = app.refusals().note(kind, remote, app.now());
    if telling == Telling::Now {
        audit::record_alone(app, entry()).await;
    }
    telling
}

/// Writes the sums of the minutes that are over.
pub async fn write_due(app: &App) {
    let due = app.refusals().tally().take_due(app.now());
    write(app, due).await;
}

/// Writes all sums: at the end, when nobody is refused any more.
pub async fn write_all(app: &App) {
    let all = app.refusals().tally().take_all();
    write(app, all).await;
}

async fn write(app: &App, sums: Vec<Sum>) {
    if sums.is_empty() {
        return;
    }
    if let Err(error) = try_write(app, &sums).await {
        error!(%error, sums = sums.len(), "refusal.sums_not_written");
        return app.refusals().tally().give_back(sums);
    }
    for Sum { kind, party, more, .. } in &sums {
        let remote = party.map_or_else(|| "others".to_owned(), |party| party.to_string());
        warn!(kind, %remote, more, "refusal.summed");
    }
}

async fn try_write(app: &App, sums: &[Sum]) -> Result<(), StoreError> {
    let now = app.now();
    let mut tx = app.store().write().await?;
    for Sum { kind, party, more, since } in sums {
        let from = party.map_or_else(|| "others".to_owned(), |party| party.to_string());
        let entry = Entry::new(kind, Actor::Unknown { remote: None }, &from)
            .with("text", format!("{more} more in this minute"))
            .with("more", *more)
            .with("since_ms", since.as_millis())
            .with("remote", from);
        audit::record(&mut tx, entry, now).await?;
    }
    tx.commit().await
}
