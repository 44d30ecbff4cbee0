//! Refusals in log and audit log: the first few one by one, the others in sum.
//!
//! **What it promises.** Whatever strangers and hosts do, a minute of it is a bounded number of lines and rows; what is not told
//! one by one is counted, and the number is written when the minute is over, or when the controller stops.

use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use fleetward_domain::people::refusal::{Source, Sum, Tally, Telling};
use fleetward_protocol::id::HostId;
use fleetward_protocol::time::Timestamp;
use fleetward_store::fleet::host;
use fleetward_store::{Scope, StoreError, Tx};
use tracing::{error, warn};

use crate::App;
use crate::people::actor::Actor;
use crate::people::attempt::party;
use crate::people::audit::{self, Entry};

/// What was refused lately.
#[derive(Debug, Default)]
pub struct Refusals(Mutex<Tally>);

impl Refusals {
    /// Takes note of a refusal, and says whether it is to be told by itself. If not, it is told in sum.
    pub fn note(&self, kind: &'static str, source: Source, now: Timestamp) -> Telling {
        self.tally().note(kind, source, now)
    }

    /// Takes note of something of a host's that is told in sum in any case.
    pub fn count(&self, kind: &'static str, host: HostId, now: Timestamp) {
        self.tally().count(kind, Source::Host(host), now);
    }

    fn tally(&self) -> MutexGuard<'_, Tally> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Who is not known, as a source of refusals.
#[must_use]
pub fn stranger(remote: Option<IpAddr>) -> Source {
    Source::Party(party(remote))
}

/// Records a refusal by itself, or counts it; whether it was recorded, and so is to be logged too.
pub async fn record(app: &App, kind: &'static str, source: Source, entry: impl FnOnce() -> Entry) -> Telling {
    let telling = app.refusals().note(kind, source, app.now());
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
    for Sum { kind, source, more, .. } in &sums {
        let from = source.map_or_else(|| "others".to_owned(), |source| shown(&source));
        warn!(kind, %from, more, "refusal.summed");
    }
}

async fn try_write(app: &App, sums: &[Sum]) -> Result<(), StoreError> {
    let now = app.now();
    let mut tx = app.store().write().await?;
    for sum in sums {
        let entry = entry_of(&mut tx, sum).await?;
        audit::record(&mut tx, entry, now).await?;
    }
    tx.commit().await
}

async fn entry_of(tx: &mut Tx, sum: &Sum) -> Result<Entry, StoreError> {
    let Sum { kind, source, more, since } = sum;
    let unknown = Actor::Unknown { remote: None };
    let entry = match source {
        None => Entry::new(kind, unknown, "others").with("remote", "others"),
        Some(Source::Party(party)) => Entry::new(kind, unknown, party).with("remote", party.to_string()),
        Some(Source::Host(id)) => match host::get_by_id(tx, &Scope::Everything, *id).await {
            Ok(host) => {
                let name = host.declared.name;
                Entry::new(kind, Actor::Host(name.clone()), name).tenant(host.tenant)
            }
            // It was deleted in the meantime.
            Err(StoreError::NotFound { .. }) => Entry::new(kind, Actor::System, id),
            Err(error) => return Err(error),
        },
    };
    Ok(entry
        .with("text", format!("{more} more in this minute"))
        .with("more", *more)
        .with("since_ms", since.as_millis()))
}

fn shown(source: &Source) -> String {
    match source {
        Source::Party(party) => party.to_string(),
        Source::Host(host) => host.to_string(),
    }
}
