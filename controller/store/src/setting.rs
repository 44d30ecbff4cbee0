//! Single values of the controller itself, such as its identity. Secrets do not belong here.

use std::collections::BTreeMap;

use fleetward_protocol::time::Timestamp;

use super::query::{Row, query};
use crate::{Connection, StoreError};

/// All settings, by name.
///
/// # Errors
/// If the database fails.
pub async fn list(conn: &mut Connection) -> Result<BTreeMap<String, String>, StoreError> {
    let read = |row: &Row| Ok((row.get::<String>("name")?, row.get::<String>("value")?));
    let all = query("SELECT name, value FROM setting").list_of(conn, read).await?;
    Ok(all.into_iter().collect())
}

/// The value of a setting, if it was ever set.
///
/// # Errors
/// If the database fails.
pub async fn find(conn: &mut Connection, name: &str) -> Result<Option<String>, StoreError> {
    query("SELECT value FROM setting WHERE name = $1").bind(name).find(conn, |row| row.get("value")).await
}

/// Sets a setting.
///
/// # Errors
/// If the database fails.
pub async fn update(
    conn: &mut Connection,
    name: &str,
    value: &str,
    now: Timestamp,
) -> Result<(), StoreError> {
    query(
        "INSERT INTO setting (name, value, updated_at) VALUES ($1, $2, $3) \
         ON CONFLICT (name) DO UPDATE SET value = excluded.value, updated_at = excluded.updated_at",
    )
    .bind(name)
    .bind(value)
    .bind(now)
    .run(conn)
    .await
    .map(|_| ())
}

/// Sets a setting that was never set; whether it was not, so that of two who try at once one wins.
///
/// # Errors
/// If the database fails.
pub async fn insert(
    conn: &mut Connection,
    name: &str,
    value: &str,
    now: Timestamp,
) -> Result<bool, StoreError> {
    query("INSERT INTO setting (name, value, updated_at) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING")
        .bind(name)
        .bind(value)
        .bind(now)
        .took(conn)
        .await
}

/// Removes a setting, as if it had never been set.
///
/// # Errors
/// If the database fails.
pub async fn delete(conn: &mut Connection, name: &str) -> Result<(), StoreError> {
    query("DELETE FROM setting WHERE name = $1").bind(name).run(conn).await.map(|_| ())
}
