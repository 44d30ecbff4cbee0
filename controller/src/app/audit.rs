//! The audit log: who did what to what, and what was refused.
//!
//! Events go into the transaction of what they tell of, or, where nothing was changed because something was
//! refused, into one of their own.

use std::fmt;

use fleetward_protocol::id::{AuditId, TenantId};
use fleetward_protocol::time::Timestamp;
use serde_json::{Map, Value};
use tracing::error;
use uuid::Uuid;

use super::App;
use super::access::Permit;
use super::actor::Actor;
use crate::store::audit::{self, BrokenChain, Event, Filter, NewEvent};
use crate::store::page::{Page, PageRequest};
use crate::store::{Connection, StoreError};

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

/// Records an event by itself, for what changed nothing. A failure is logged: what was refused stays refused.
pub async fn record_alone(app: &App, entry: Entry) {
    let kind = entry.kind;
    let write = async {
        let mut tx = app.store().write().await?;
        record(&mut tx, entry, app.now()).await?;
        tx.commit().await
    };
    if let Err(error) = write.await {
        error!(kind, %error, "audit.not_written");
    }
}

/// Events that the caller may see, newest first.
///
/// # Errors
/// If the cursor is not from this list, or the store fails.
pub async fn list(
    app: &App,
    permit: &Permit,
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

/// Checks the whole chain; how many events it has.
///
/// # Errors
/// [`VerifyError::Broken`] at the first event that does not fit.
pub async fn verify(conn: &mut Connection) -> Result<u64, VerifyError> {
    const STRETCH: u32 = 1000;
    let (mut next, mut previous) = (1, audit::genesis());
    loop {
        let events = audit::list_chain(conn, next, STRETCH).await?;
        if events.is_empty() {
            return Ok(next - 1);
        }
        previous = audit::verify(next, previous, &events)?;
        next += events.len() as u64;
    }
}
