//! The audit chain: every event names the hash of the one before it, so that nothing can be changed or taken
//! out unnoticed. A [`Verifier`] needs no database: an export can be checked offline.
//!
//! The oldest events may be removed. What is left follows a [`Checkpoint`], the number and hash of the last event that
//! was removed, and holds an event that names the same two ([`REMOVED`]): a checkpoint cannot be moved without it.
//!
//! An event's hash is SHA-256 over the previous hash (32 bytes) and the event's canonical JSON: an object with
//! `number`, `id`, `tenant`, `at`, `kind`, `actor`, `subject` and `details` in this order, without spaces; the keys of
//! every object in `details` are sorted by their bytes.

use fleetward_protocol::digest::Digest;
use fleetward_protocol::id::{AuditId, TenantId};
use fleetward_protocol::time::Timestamp;
use serde::{Deserialize, Serialize};

use crate::page::{Direction, Key, KeyKind, Page, PageRequest, cut, push_page, select_keys};
use crate::people::tenant;
use crate::query::{Row, corrupt, query};
use crate::{Connection, Reader, Scope, StoreError};

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewEvent {
    /// Its id.
    pub id: AuditId,
    /// The tenant it concerns; absent for what concerns the whole controller.
    pub tenant: Option<TenantId>,
    /// When.
    pub at: Timestamp,
    /// What kind, such as `host.enrolled`.
    pub kind: String,
    /// Who did it: a user's name, a client ID, or `system`.
    pub actor: String,
    /// What it was done to.
    pub subject: String,
    /// Anything else.
    pub details: serde_json::Map<String, serde_json::Value>,
}

/// An event in the chain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// Its place in the chain, from 1, without gaps.
    pub number: u64,
    /// What happened.
    pub event: NewEvent,
    /// The hash of the event before it; zeros for the first.
    pub previous: Digest,
    /// Its own hash.
    pub hash: Digest,
}

/// The event before which all were removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checkpoint {
    /// Its number; 0 if none was removed.
    pub number: u64,
    /// Its hash; zeros if none was removed.
    pub hash: Digest,
}

/// What there is of the chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    /// What it follows.
    pub checkpoint: Checkpoint,
    /// The number of the last event.
    pub last: u64,
    /// The hash of the last event.
    pub hash: Digest,
    /// About how many bytes it takes.
    pub size: u64,
}

/// Checks a chain, stretch by stretch.
#[derive(Debug)]
pub struct Verifier {
    checkpoint: Checkpoint,
    next: u64,
    previous: Digest,
    /// Whether an event told that what the checkpoint says was removed.
    witnessed: bool,
}

/// Which events to list. What is absent does not narrow.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Filter {
    /// Of this kind, or of the kinds that begin with it if it ends in a dot (`host.`).
    pub kind: Option<String>,
    /// By this actor.
    pub actor: Option<String>,
    /// About this.
    pub subject: Option<String>,
    /// At this time or later.
    pub from: Option<Timestamp>,
    /// Before this time.
    pub to: Option<Timestamp>,
}

/// A chain that was tampered with, or has a hole.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the audit chain is broken at event {number}: {fault}")]
pub struct BrokenChain {
    /// The first event that does not fit.
    pub number: u64,
    /// What is wrong with it.
    pub fault: &'static str,
}

/// The kind of the event that tells of a removal. Its details have `through` and `hash`, number and hash of the last
/// event that was removed.
pub const REMOVED: &str = "audit.removed";
/// About what an event takes beside its content: its hashes, its ids, its places in indexes.
const OVERHEAD: u64 = 320;

/// What the hash is computed over, in this order. Changing it breaks every chain.
#[derive(Serialize)]
struct Content<'a> {
    number: u64,
    id: AuditId,
    tenant: Option<TenantId>,
    at: Timestamp,
    kind: &'a str,
    actor: &'a str,
    subject: &'a str,
    details: serde_json::Value,
}

const KEYS: [Key; 1] =
    [Key { expression: "number", kind: KeyKind::Integer, direction: Direction::Descending }];
const COLUMNS: &str = "SELECT number, id, tenant_id, at, kind, actor, subject, details, previous, hash";

/// Appends an event to the chain, in the transaction of what it tells of; its number and hash.
///
/// # Errors
/// If the database fails.
pub async fn insert(conn: &mut Connection, event: &NewEvent) -> Result<Event, StoreError> {
    let event = printable(event);
    // The head row is the lock that makes events of parallel transactions follow each other.
    let head = query("UPDATE audit_head SET number = number + 1 WHERE singleton = 1 RETURNING number, hash")
        .first(conn)
        .await?
        .ok_or_else(|| corrupt("audit_head", "it is empty"))?;
    let (number, previous) = (head.get::<u64>("number")?, head.get::<Digest>("hash")?);
    let hash = hash(number, &event, &previous);
    query("UPDATE audit_head SET hash = $1, size = size + $2 WHERE singleton = 1")
        .bind(hash)
        .bind(size(&event))
        .run(conn)
        .await?;
    query(
        "INSERT INTO audit (number, id, tenant_id, at, kind, actor, subject, details, previous, hash) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
    )
    .bind(number)
    .bind(event.id)
    .bind(event.tenant)
    .bind(event.at)
    .bind(&event.kind)
    .bind(&event.actor)
    .bind(&event.subject)
    .bind(serde_json::Value::Object(event.details.clone()).to_string())
    .bind(previous)
    .bind(hash)
    .run(conn)
    .await?;
    Ok(Event { number, event, previous, hash })
}

/// Events in scope that pass the filter, newest first. Events of no tenant are seen with
/// [`Scope::Everything`] only.
///
/// # Errors
/// [`StoreError::InvalidCursor`] if the page's cursor is not from this list.
pub async fn list(
    conn: &mut impl Reader,
    scope: &Scope,
    filter: &Filter,
    page: &PageRequest,
) -> Result<Page<Event>, StoreError> {
    let mut select = select_keys(query(COLUMNS), &KEYS).push(" FROM audit WHERE (").scope("tenant_id", scope);
    // Logins and users belong to no tenant; who may read the default tenant's log runs the controller.
    if scope.includes(tenant::DEFAULT) {
        select = select.push(" OR tenant_id IS NULL");
    }
    select = select.push(")");
    if let Some(kind) = &filter.kind {
        select = match kind.strip_suffix('.') {
            // Byte order: everything from `host.` up to, but not including, `host/`.
            Some(family) => {
                select.push(" AND kind >= ").value(kind).push(" AND kind < ").value(format!("{family}/"))
            }
            None => select.push(" AND kind = ").value(kind),
        };
    }
    if let Some(actor) = &filter.actor {
        select = select.push(" AND actor = ").value(actor);
    }
    if let Some(subject) = &filter.subject {
        select = select.push(" AND subject = ").value(subject);
    }
    if let Some(from) = filter.from {
        select = select.push(" AND at >= ").value(from);
    }
    if let Some(to) = filter.to {
        select = select.push(" AND at < ").value(to);
    }
    let rows = conn.rows(push_page(select, &KEYS, page)?).await?;
    cut(rows, &KEYS, page, read)
}

/// A stretch of the chain in its own order, from `number` on, for export and verification.
///
/// # Errors
/// If the database fails.
pub async fn list_chain(conn: &mut Connection, number: u64, limit: u32) -> Result<Vec<Event>, StoreError> {
    query(COLUMNS)
        .push(" FROM audit WHERE number >= ")
        .value(number)
        .push(" ORDER BY number LIMIT ")
        .value(limit)
        .list_of(conn, read)
        .await
}

/// What there is of the chain.
///
/// # Errors
/// If the database fails.
pub async fn get_extent(conn: &mut Connection) -> Result<Extent, StoreError> {
    let select =
        "SELECT number, hash, size, checkpoint_number, checkpoint_hash FROM audit_head WHERE singleton = 1";
    let row = query(select).first(conn).await?.ok_or_else(|| corrupt("audit_head", "it is empty"))?;
    Ok(Extent {
        checkpoint: Checkpoint { number: row.get("checkpoint_number")?, hash: row.get("checkpoint_hash")? },
        last: row.get("number")?,
        hash: row.get("hash")?,
        size: row.get("size")?,
    })
}

/// Removes `events`, which are the oldest and follow the checkpoint `from`; whether it still was that one. Whoever
/// removes tells so in the same transaction, with an event of the kind [`REMOVED`].
///
/// # Errors
/// If the database fails.
pub async fn delete_oldest(
    conn: &mut Connection,
    from: &Checkpoint,
    events: &[Event],
) -> Result<bool, StoreError> {
    let Some(last) = events.last() else { return Ok(true) };
    let freed: u64 = events.iter().map(|event| size(&event.event)).sum();
    let took = query(
        "UPDATE audit_head SET checkpoint_number = $2, checkpoint_hash = $3, \
         size = CASE WHEN size > $4 THEN size - $4 ELSE 0 END \
         WHERE singleton = 1 AND checkpoint_number = $1",
    )
    .bind(from.number)
    .bind(last.number)
    .bind(last.hash)
    .bind(freed)
    .took(conn)
    .await?;
    if took {
        query("DELETE FROM audit WHERE number <= $1").bind(last.number).run(conn).await?;
    }
    Ok(took)
}

impl Verifier {
    /// Checks what follows this checkpoint.
    #[must_use]
    pub const fn new(checkpoint: Checkpoint) -> Self {
        let Checkpoint { number, hash } = checkpoint;
        Self { checkpoint, next: number.saturating_add(1), previous: hash, witnessed: number == 0 }
    }

    /// The number of the event that has to come next.
    #[must_use]
    pub const fn next(&self) -> u64 {
        self.next
    }

    /// Checks the next stretch.
    ///
    /// # Errors
    /// [`BrokenChain`] at the first event that does not fit.
    pub fn take(&mut self, events: &[Event]) -> Result<(), BrokenChain> {
        self.previous = verify(self.next, self.previous, events)?;
        self.next += events.len() as u64;
        self.witnessed = self.witnessed || events.iter().any(|event| tells_of(event, &self.checkpoint));
        Ok(())
    }

    /// The hash of the last event that was checked.
    #[must_use]
    pub const fn last(&self) -> Digest {
        self.previous
    }

    /// How many events there were, all of them good.
    ///
    /// # Errors
    /// [`BrokenChain`] if none of them tells that those before the checkpoint were removed.
    pub fn finish(self) -> Result<u64, BrokenChain> {
        if self.witnessed {
            return Ok(self.next - 1 - self.checkpoint.number);
        }
        let fault = "no event tells that those up to it were removed by the controller";
        Err(BrokenChain { number: self.checkpoint.number, fault })
    }
}

fn tells_of(event: &Event, checkpoint: &Checkpoint) -> bool {
    let details = &event.event.details;
    event.event.kind == REMOVED
        && details.get("through").and_then(serde_json::Value::as_u64) == Some(checkpoint.number)
        && details.get("hash").and_then(serde_json::Value::as_str)
            == Some(checkpoint.hash.to_string().as_str())
}

/// Checks a stretch of the chain that follows an event with the hash `previous` (zeros before event 1), and
/// returns the hash of its last event, from which the next stretch goes on.
///
/// # Errors
/// [`BrokenChain`] at the first event that does not fit.
pub fn verify(first: u64, previous: Digest, events: &[Event]) -> Result<Digest, BrokenChain> {
    let mut expected = previous;
    for (number, event) in (first..).zip(events) {
        let broken = |fault| BrokenChain { number, fault };
        if event.number != number {
            return Err(broken("an event is missing before the next one"));
        }
        if event.previous != expected {
            return Err(broken("it does not follow the event before it"));
        }
        if event.hash != hash(number, &event.event, &expected) {
            return Err(broken("its content is not what was written"));
        }
        expected = event.hash;
    }
    Ok(expected)
}

/// The hash that the first event follows: zeros.
#[must_use]
pub fn genesis() -> Digest {
    "0".repeat(64).parse().unwrap_or_else(|_| Digest::of(b""))
}

fn hash(number: u64, event: &NewEvent, previous: &Digest) -> Digest {
    let NewEvent { id, tenant, at, kind, actor, subject, details } = event;
    let content = Content {
        number,
        id: *id,
        tenant: *tenant,
        at: *at,
        kind,
        actor,
        subject,
        details: canonical(details),
    };
    let mut bytes = previous.as_bytes().to_vec();
    // Text, numbers and a map: nothing that JSON could not hold.
    bytes.extend(serde_json::to_vec(&content).unwrap_or_default());
    Digest::of(&bytes)
}

/// About how many bytes an event takes. The same for what is written and for what is read, so that the sum stays true.
fn size(event: &NewEvent) -> u64 {
    let details: usize = serde_json::to_string(&event.details).map_or(0, |text| text.len());
    OVERHEAD + (event.kind.len() + event.actor.len() + event.subject.len() + details) as u64
}

/// An object with the keys of every object in it sorted. (serde_json sorts or not, depending on a feature that
/// any crate of a build may switch on.)
fn canonical(object: &serde_json::Map<String, serde_json::Value>) -> serde_json::Value {
    fn sorted(value: &serde_json::Value) -> serde_json::Value {
        match value {
            serde_json::Value::Object(object) => canonical(object),
            serde_json::Value::Array(items) => items.iter().map(sorted).collect(),
            other => other.clone(),
        }
    }
    let sorted: std::collections::BTreeMap<_, _> =
        object.iter().map(|(key, value)| (key.clone(), sorted(value))).collect();
    serde_json::Value::Object(sorted.into_iter().collect())
}

/// PostgreSQL's text cannot hold NUL; what a client sent may. (In JSON it is escaped, and does no harm.)
fn printable(event: &NewEvent) -> NewEvent {
    let clean = |text: &str| text.replace('\0', "\u{fffd}");
    NewEvent {
        kind: clean(&event.kind),
        actor: clean(&event.actor),
        subject: clean(&event.subject),
        ..event.clone()
    }
}

fn read(row: &Row) -> Result<Event, StoreError> {
    Ok(Event {
        number: row.get("number")?,
        event: NewEvent {
            id: row.get("id")?,
            tenant: row.find("tenant_id")?,
            at: row.get("at")?,
            kind: row.get("kind")?,
            actor: row.get("actor")?,
            subject: row.get("subject")?,
            details: row.json("details")?,
        },
        previous: row.get("previous")?,
        hash: row.get("hash")?,
    })
}
