//! Controllers that work on this database: each tells by a counter that it is alive.
//!
//! No clock decides who is: whoever wants to know looks at the counter twice ([`update_dead`] is a compare-and-set on it).

use fleetward_protocol::id::ControllerId;
use fleetward_protocol::time::Timestamp;

use crate::query::{Row, query};
use crate::{Connection, StoreError};

/// A controller that has not left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Controller {
    /// One process of it.
    pub id: ControllerId,
    /// The name that it is reached by.
    pub name: String,
    /// Its package version.
    pub version: String,
    /// How often it has told that it is alive.
    pub beat: u64,
    /// When it started, by its own clock: for people.
    pub started_at: Timestamp,
}

/// Adds a controller, alive.
///
/// # Errors
/// [`StoreError::Conflict`] while another one is alive: until several share a database, one at a time is.
pub async fn insert(conn: &mut Connection, controller: &Controller) -> Result<(), StoreError> {
    query(
        "INSERT INTO controller (id, name, version, beat, alive, started_at) VALUES ($1, $2, $3, $4, 1, $5)",
    )
    .bind(controller.id)
    .bind(&controller.name)
    .bind(&controller.version)
    .bind(controller.beat)
    .bind(controller.started_at)
    .run(conn)
    .await
    .map(|_| ())
}

/// The controllers that have not left and were not found dead, the oldest first.
///
/// # Errors
/// If the database fails.
pub async fn list_living(conn: &mut Connection) -> Result<Vec<Controller>, StoreError> {
    query(
        "SELECT id, name, version, beat, started_at FROM controller WHERE alive = 1 ORDER BY started_at, id",
    )
    .list_of(conn, read)
    .await
}

/// Tells that a controller is alive; how often it has. `None` if others found it dead: then it must not go on.
///
/// # Errors
/// If the database fails.
pub async fn update_beat(conn: &mut Connection, id: ControllerId) -> Result<Option<u64>, StoreError> {
    query("UPDATE controller SET beat = beat + 1 WHERE id = $1 AND alive = 1 RETURNING beat")
        .bind(id)
        .find(conn, |row| row.get("beat"))
        .await
}

/// Notes that a controller is dead, unless it has told that it is alive since its counter stood at `beat`.
///
/// # Errors
/// If the database fails.
pub async fn update_dead(conn: &mut Connection, id: ControllerId, beat: u64) -> Result<bool, StoreError> {
    query("UPDATE controller SET alive = NULL WHERE id = $1 AND beat = $2 AND alive = 1")
        .bind(id)
        .bind(beat)
        .took(conn)
        .await
}

/// Removes a controller that leaves, and all that were found dead.
///
/// # Errors
/// If the database fails.
pub async fn delete(conn: &mut Connection, id: ControllerId) -> Result<(), StoreError> {
    query("DELETE FROM controller WHERE id = $1 OR alive IS NULL").bind(id).run(conn).await.map(|_| ())
}

fn read(row: &Row) -> Result<Controller, StoreError> {
    Ok(Controller {
        id: row.get("id")?,
        name: row.get("name")?,
        version: row.get("version")?,
        beat: row.get("beat")?,
        started_at: row.get("started_at")?,
    })
}
