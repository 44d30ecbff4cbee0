//! What a connected host reports about itself.

use fleetward_domain::fleet::twin::Twins;
use fleetward_protocol::digest::Digest;
use fleetward_protocol::facts::{Facts, Upkeep};
use fleetward_protocol::id::{BootId, HostId, JournalId};
use fleetward_protocol::message::MAX_KINDS;
use fleetward_protocol::text::{List, Word};
use fleetward_protocol::time::Timestamp;

use super::{Notice, Status, facts};
use crate::query::{json, query};
use crate::{Connection, StoreError};

/// What a hello says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Connected {
    /// The agent's version.
    pub agent_version: Word,
    /// This boot.
    pub boot: BootId,
    /// This life of the journal.
    pub journal: JournalId,
    /// The kinds of action the agent knows.
    pub kinds: List<Word, MAX_KINDS>,
    /// How far its clock is ahead, in milliseconds.
    pub clock_skew_ms: i64,
}

/// A host's presence, as it is written down once a minute.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Presence {
    /// The host.
    pub host: HostId,
    /// The connection that this is of, as [`update_connected`] numbered it.
    pub seat: u64,
    /// Connected or not.
    pub status: Status,
    /// When it was last heard of.
    pub last_seen: Timestamp,
    /// The round trip, in microseconds, if it was measured.
    pub rtt_us: Option<u64>,
    /// How far its clock is ahead, in milliseconds, if known.
    pub clock_skew_ms: Option<i64>,
}

// PostgreSQL allows 65,535 parameters, SQLite 32,766; the text of a full batch is always the same.
const PRESENCE_BATCH: usize = 200;
const MAX_NOTICES: usize = 20;

/// Notes that a host connected. Returns the number of its seat, which is higher than all before: what is still to be written
/// of an older connection, by whatever controller, touches nothing from here on. `None` if there is no such host.
///
/// # Errors
/// If the database fails.
pub async fn update_connected(
    conn: &mut Connection,
    id: HostId,
    connected: &Connected,
    now: Timestamp,
) -> Result<Option<u64>, StoreError> {
    query(
        "UPDATE host SET seat = seat + 1, status = 'online', connected_at = $2, last_seen = $2, agent_version = $3, boot_id = $4, \
         journal_id = $5, kinds = $6, clock_skew_ms = $7 WHERE id = $1 AND deleted_at IS NULL RETURNING seat",
    )
    .bind(id)
    .bind(now)
    .bind(connected.agent_version.as_str())
    .bind(connected.boot)
    .bind(connected.journal)
    .bind(json(&connected.kinds)?)
    .bind(connected.clock_skew_ms)
    .find(conn, |row| row.get("seat"))
    .await
}

/// Writes down the presence of many hosts, of those whose seat is still the same; a `last_seen` never goes back. How many
/// hosts there were.
///
/// # Errors
/// If the database fails.
pub async fn update_presence(conn: &mut Connection, presences: &[Presence]) -> Result<u64, StoreError> {
    let mut written = 0;
    for batch in presences.chunks(PRESENCE_BATCH) {
        let mut update = query(
            "UPDATE host SET status = v.column2, \
               last_seen = CASE WHEN host.last_seen > v.column3 THEN host.last_seen ELSE v.column3 END, \
               rtt_us = COALESCE(v.column4, host.rtt_us), \
               clock_skew_ms = COALESCE(v.column5, host.clock_skew_ms) \
             FROM (VALUES ",
        );
        for (at, presence) in batch.iter().enumerate() {
            update = update
                .push(if at == 0 { "(" } else { ", (" })
                .value(presence.host)
                .push(", ")
                .value(presence.status)
                .push(", ")
                .value(presence.last_seen)
                .push(", ")
                .value(presence.rtt_us)
                .push(", ")
                .value(presence.clock_skew_ms)
                .push(", ")
                .value(presence.seat)
                .push(")");
        }
        update = update
            .push(") AS v WHERE host.id = v.column1 AND host.seat = v.column6 AND host.deleted_at IS NULL");
        if batch.len() < PRESENCE_BATCH {
            update = update.once();
        }
        written += update.run(conn).await?;
    }
    Ok(written)
}

/// Notes at start that nobody is connected, and ends the seats of those who were said to be; how many that were.
///
/// # Errors
/// If the database fails.
pub async fn update_offline(conn: &mut Connection) -> Result<u64, StoreError> {
    query("UPDATE host SET status = 'offline', seat = seat + 1 WHERE status = 'online'").run(conn).await
}

/// Whether the facts that are stored of a host have this digest.
///
/// # Errors
/// If the database fails.
pub async fn has_facts(conn: &mut Connection, id: HostId, digest: &Digest) -> Result<bool, StoreError> {
    query("SELECT 1 FROM host WHERE id = $1 AND facts_digest = $2 AND facts IS NOT NULL")
        .bind(id)
        .bind(digest)
        .first(conn)
        .await
        .map(|row| row.is_some())
}

/// Replaces a host's facts, which have this digest ([`Facts::digest`]); whether there is such a host.
///
/// # Errors
/// If the database fails.
pub async fn update_facts(
    conn: &mut Connection,
    id: HostId,
    facts: &Facts,
    digest: &Digest,
    now: Timestamp,
) -> Result<bool, StoreError> {
    query(
        "UPDATE host SET facts = $2, facts_at = $3, os = $4, os_version = $5, kernel = $6, arch = $7, \
         virtualisation = $8, facts_digest = $9 WHERE id = $1 AND deleted_at IS NULL",
    )
    .bind(id)
    .bind(facts::write(facts))
    .bind(now)
    .bind(facts.os.as_str())
    .bind(facts.os_version.as_str())
    .bind(facts.kernel.as_str())
    .bind(facts.arch.as_str())
    .bind(facts.virtualisation.as_str())
    .bind(digest)
    .took(conn)
    .await
}

/// Whether this is what is stored of what a host needs.
///
/// # Errors
/// If the database fails.
pub async fn has_upkeep(conn: &mut Connection, id: HostId, upkeep: &Upkeep) -> Result<bool, StoreError> {
    query("SELECT 1 FROM host WHERE id = $1 AND upkeep = $2")
        .bind(id)
        .bind(facts::write_upkeep(upkeep))
        .first(conn)
        .await
        .map(|row| row.is_some())
}

/// Replaces what a host needs; whether there is such a host.
///
/// # Errors
/// If the database fails.
pub async fn update_upkeep(conn: &mut Connection, id: HostId, upkeep: &Upkeep) -> Result<bool, StoreError> {
    query("UPDATE host SET upkeep = $2 WHERE id = $1 AND deleted_at IS NULL")
        .bind(id)
        .bind(facts::write_upkeep(upkeep))
        .took(conn)
        .await
}

/// Adds a notice about a host; the last twenty are kept. Call it in a transaction. Whether there is such a
/// host.
///
/// # Errors
/// If the database fails.
pub async fn update_notice(conn: &mut Connection, id: HostId, notice: &Notice) -> Result<bool, StoreError> {
    let Some(row) =
        query("SELECT notices FROM host WHERE id = $1 AND deleted_at IS NULL").bind(id).first(conn).await?
    else {
        return Ok(false);
    };
    let mut notices: Vec<Notice> = row.json("notices")?;
    notices.push(notice.clone());
    let surplus = notices.len().saturating_sub(MAX_NOTICES);
    notices.drain(..surplus);
    query("UPDATE host SET notices = $2 WHERE id = $1").bind(id).bind(json(&notices)?).took(conn).await
}

/// Every active host that two machines with its identity were noted of, and what was noted.
///
/// # Errors
/// If the database fails.
pub async fn list_twins(conn: &mut Connection) -> Result<Vec<(HostId, Twins)>, StoreError> {
    query(
        "SELECT id, twins FROM host WHERE twins IS NOT NULL AND lifecycle = 'active' AND deleted_at IS NULL",
    )
    .list_of(conn, |row| Ok((row.get("id")?, row.find_json("twins")?)))
    .await
    .map(|noted| noted.into_iter().filter_map(|(host, twins)| Some((host, twins?))).collect())
}

/// Notes that two machines use a host's identity; whether there is such a host.
///
/// # Errors
/// If the database fails.
pub async fn update_twins(conn: &mut Connection, id: HostId, twins: &Twins) -> Result<bool, StoreError> {
    query("UPDATE host SET twins = $2 WHERE id = $1 AND deleted_at IS NULL")
        .bind(id)
        .bind(json(twins)?)
        .took(conn)
        .await
}
