//! The audit log: who did what to what, and what was refused.
//!
//! Events go into the transaction of what they tell of, or, where nothing was changed because something was
//! refused, into one of their own.

use std::fmt;

use fleetward_protocol::id::{AuditId, TenantId};
use fleetward_protocol::time::Timestamp;
use fleetward_store::page::{Page, PageRequest};
use fleetward_store::people::audit::{self, BrokenChain, Event, Filter, NewEvent, Verifier};
use fleetward_store::{Connection, StoreError};
use serde_json::{Map, Value};
use tracing::error;
use uuid::Uuid;

use crate::App;
use crate::people::access::{Audit, Permit};
use crate::people::actor::Actor;

/// Something to be recorded.
#[derive(Debug, Clone)]
pub struct Entry {
    kind: &'static str,
    tenant: Option<TenantId>,
    actor: Actor,
    subject: String,
    details: Map<String, Value>,
}

impl Entry {
    /// An event of this kind, such as `host.enrolled`, done by somebody to something.
    #[must_use]
    pub fn new(kind: &'static str, actor: Actor, subject: impl fmt::Display) -> Self {
        let mut details = Map::new();
        if let Actor::User { remote: Some(remote), .. } | Actor::Unknown { remote: Some(remote) } = &actor {
            details.insert("remote".to_owned(), remote.to_string().into());
        }
        Self { kind, tenant: None, actor, subject: subject.to_string(), details }
    }

    /// The tenant it concerns.
    #[must_use]
    pub const fn tenant(mut self, tenant: TenantId) -> Self {
        self.tenant = Some(tenant);
        self
    }

    /// A particular.
    #[must_use]
    pub fn with(mut self, key: &str, value: impl Into<Value>) -> Self {
        self.details.insert(key.to_owned(), value.into());
        self
    }

    /// Further particulars.
    #[must_use]
    pub fn with_all(mut self, details: Map<String, Value>) -> Self {
        self.details.extend(details);
        self
    }
}

/// Records an event in the caller's transaction.
///
/// # Errors
/// If the store fails.
pub async fn record(conn: &mut Connection, entry: Entry, now: Timestamp) -> Result<(), StoreError> {
    let event = NewEvent {
        id: AuditId::from_uuid(Uuid::now_v7()),
        tenant: entry.tenant,
        at: now,
        kind: entry.kind.to_owned(),
        actor: entry.actor.to_string(),
        subject: entry.subject,
        details: entry.details,
    };
    audit::insert(conn, &event).await.map(|_| ())
}

/// Records an event by itself, before something is done that changes nothing in the store.
///
/// # Errors
/// If the store fails: it must not be done then.
pub async fn record_first(app: &App, entry: Entry) -> Result<(), StoreError> {
    let mut tx = app.store().write().await?;
    record(&mut tx, entry, app.now()).await?;
    tx.commit().await
}

/// Records an event by itself, for what was refused or found. A failure is logged: what was refused stays refused.
pub async fn record_alone(app: &App, entry: Entry) {
    let kind = entry.kind;
    if let Err(error) = record_first(app, entry).await {
        error!(kind, %error, "audit.not_written");
    }
}

/// Events that the caller may see, newest first.
///
/// # Errors
/// If the cursor is not from this list, or the store fails.
pub async fn list(
    app: &App,
    permit: &Permit<Audit>,
    filter: &Filter,
    page: &PageRequest,
) -> Result<Page<Event>, StoreError> {
    let mut conn = app.store().search().await?;
    audit::list(&mut conn, &permit.scope(), filter, page).await
}

/// Why a chain was not found whole.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// It was tampered with.
    #[error(transparent)]
    Broken(#[from] BrokenChain),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A chain that is whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Whole {
    /// How many events it has.
    pub events: u64,
    /// How many were removed before them, for their age or for room.
    pub removed: u64,
}

/// Checks the whole chain.
///
/// # Errors
/// [`VerifyError::Broken`] at the first event that does not fit.
pub async fn verify(conn: &mut Connection) -> Result<Whole, VerifyError> {
    let extent = audit::get_extent(conn).await?;
    let mut verifier = Verifier::new(extent.checkpoint);
    loop {
        let events = audit::list_chain(conn, verifier.next(), STRETCH).await?;
        if events.is_empty() {
            break;
        }
        verifier.take(&events)?;
    }
    if verifier.next() <= extent.last {
        let fault = "it and all after it are missing";
        return Err(BrokenChain { number: verifier.next(), fault }.into());
    }
    Ok(Whole { events: verifier.finish()?, removed: extent.checkpoint.number })
}

/// Events that are looked at together.
const STRETCH: u32 = 1000;
/// Events that are removed in one transaction, so that nobody waits for it.
const BATCH: u32 = 500;
/// Fewer are not removed: telling of it would take as much.
const LEAST: usize = 100;
/// The newest events, which stay whatever the settings say: what happened just now is what an administrator looks for.
const KEPT: u64 = 1000;

/// What may be removed.
#[derive(Debug, Clone, Copy)]
pub struct Removable {
    /// Events of before this time.
    pub before: Timestamp,
    /// Events of any time while there are more than this many bytes of them.
    pub above: u64,
    /// None after this one.
    pub through: u64,
}

/// Removes what the settings say is too old or too much, the oldest first; how many events.
///
/// # Errors
/// [`VerifyError::Broken`] if the chain is broken there: nothing is removed then, for it would be the evidence.
pub async fn remove_old(app: &App) -> Result<u64, VerifyError> {
    let retention = &app.settings().audit;
    let mut conn = app.store().read().await?;
    let last = audit::get_extent(&mut conn).await?.last;
    drop(conn);
    let removable = Removable {
        before: app.now() - retention.age,
        above: retention.size,
        through: last.saturating_sub(KEPT),
    };
    let mut removed = 0;
    loop {
        let batch = remove_batch(app, removable).await?;
        if batch == 0 {
            return Ok(removed);
        }
        removed += batch;
        // Whoever waits for the writer goes first.
        tokio::task::yield_now().await;
    }
}

/// Removes one batch; how many events.
///
/// # Errors
/// [`VerifyError::Broken`] if the chain is broken there: nothing is removed then.
pub async fn remove_batch(app: &App, removable: Removable) -> Result<u64, VerifyError> {
    let mut tx = app.store().write().await?;
    let extent = audit::get_extent(&mut tx).await?;
    let from = extent.checkpoint;
    let mut events = audit::list_chain(&mut tx, from.number + 1, BATCH).await?;
    let too_much = extent.size > removable.above;
    let is_doomed =
        |event: &&Event| event.number <= removable.through && (too_much || event.event.at < removable.before);
    events.truncate(events.iter().take_while(is_doomed).count());
    let Some(last) = events.last().filter(|_| events.len() >= LEAST) else { return Ok(0) };
    Verifier::new(from).take(&events)?;
    if !audit::delete_oldest(&mut tx, &from, &events).await? {
        return Ok(0);
    }
    let entry = Entry::new(audit::REMOVED, Actor::System, "audit log")
        .with("first", from.number + 1)
        .with("through", last.number)
        .with("hash", last.hash.to_string())
        .with("reason", if too_much { "above retention.size" } else { "older than retention.audit" });
    record(&mut tx, entry, app.now()).await?;
    tx.commit().await?;
    Ok(events.len() as u64)
}
