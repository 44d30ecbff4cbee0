//! Forward-only migrations: one text per step, the same for both engines but for the words in braces.
//!
//! A step that was applied is never edited; its digest is kept and compared. A database that knows a later
//! step than this build is refused: going back would lose data.
//!
//! SQLite can change little in a table but add columns. What it cannot is done by a new table in the place of the old one, in
//! a text of its own ([`Text::Each`]). While steps are taken there, references are not enforced (and so nothing cascades);
//! before they are committed every row is looked at for what it refers to.

use std::collections::BTreeMap;

use fleetward_protocol::digest::Digest;
use fleetward_protocol::id::ControllerId;
use fleetward_protocol::time::Timestamp;
use sqlx::{AnyConnection, AssertSqlSafe, Executor as _};

use super::query::query;
use crate::fleet::controller;
use crate::{Engine, StoreError, setting};

/// One change of the schema.
#[derive(Debug, Clone, Copy)]
pub(super) struct Step {
    pub(super) number: i64,
    pub(super) name: &'static str,
    pub(super) text: Text,
}

/// A change of the schema to what a build needs.
#[derive(Debug, Clone, Copy)]
pub(super) struct Migration<'a> {
    pub(super) steps: &'a [Step],
    pub(super) now: Timestamp,
    /// The place that the controller still has when the schema changes.
    pub(super) place: Option<ControllerId>,
}

/// What a step does.
#[derive(Debug, Clone, Copy)]
pub(super) enum Text {
    /// The same on both engines.
    Both(&'static str),
    /// On each engine its own.
    #[cfg_attr(not(test), expect(dead_code, reason = "the first step that needs it is yet to come"))]
    Each { sqlite: &'static str, postgres: &'static str },
}

/// The steps of this build.
pub(super) const STEPS: &[Step] =
    &[Step { number: 1, name: "initial", text: Text::Both(include_str!("../migrations/0001_initial.sql")) }];

/// What stands before the first step and has this shape for good: builds of any age read it to find out about each other.
const FOUNDATION: &str = include_str!("../migrations/foundation.sql");

// Any number will do as long as no other program locks it in the same database.
const ADVISORY_LOCK: &str = "SELECT pg_advisory_xact_lock(7443744300)";

/// Makes what stands before the first step, inside the caller's transaction.
pub(super) async fn found(conn: &mut AnyConnection, engine: Engine) -> Result<(), StoreError> {
    if engine == Engine::Postgres {
        conn.execute(ADVISORY_LOCK).await?;
    }
    if !is_founded(conn, engine).await? {
        let text = written_for(engine, FOUNDATION, Timestamp::from_millis(0));
        sqlx::raw_sql(AssertSqlSafe(text)).execute(conn).await?;
    }
    Ok(())
}

/// The steps that are yet to be taken.
pub(super) async fn pending<'a>(
    conn: &mut AnyConnection,
    engine: Engine,
    steps: &'a [Step],
) -> Result<&'a [Step], StoreError> {
    if !is_founded(conn, engine).await? {
        return Ok(steps);
    }
    let applied = query("SELECT number, digest FROM schema_step ORDER BY number")
        .list_of(conn, |row| Ok((row.get::<i64>("number")?, row.get::<Digest>("digest")?)))
        .await?;
    let newest = steps.last().map_or(0, |step| step.number);
    if let Some((number, _)) = applied.iter().find(|(number, _)| *number > newest) {
        return Err(StoreError::Schema(format!(
            "it has step {number}, this build knows {newest}; install the newer fleetward-controller again"
        )));
    }
    for ((number, known), step) in applied.iter().zip(steps) {
        if *number != step.number || *known != step.digest(engine) {
            return Err(StoreError::Schema(format!(
                "step {} ({}) was applied with another text",
                step.number, step.name
            )));
        }
    }
    Ok(steps.get(applied.len()..).unwrap_or_default())
}

/// Takes the steps that are yet to be taken, inside the caller's transaction, if `check` has nothing against the settings that are
/// there. On SQLite its references must not be enforced.
pub(super) async fn apply<E: From<StoreError>>(
    conn: &mut AnyConnection,
    engine: Engine,
    migration: Migration<'_>,
    check: impl FnOnce(&BTreeMap<String, String>) -> Result<(), E>,
) -> Result<(), E> {
    found(conn, engine).await?;
    check(&setting::list(conn).await?)?;
    Ok(take(conn, engine, migration).await?)
}

pub(super) async fn take(
    conn: &mut AnyConnection,
    engine: Engine,
    Migration { steps, now, place }: Migration<'_>,
) -> Result<(), StoreError> {
    // Keeps it, too: whoever would find this controller dead waits for the row.
    if let Some(place) = place
        && controller::update_beat(conn, place).await?.is_none()
    {
        return Err(StoreError::TakenOver);
    }
    for step in pending(conn, engine, steps).await? {
        let text = written_for(engine, step.text(engine), now);
        sqlx::raw_sql(AssertSqlSafe(text)).execute(&mut *conn).await?;
        query("INSERT INTO schema_step (number, name, digest, applied_at) VALUES ($1, $2, $3, $4)")
            .bind(step.number)
            .bind(step.name)
            .bind(step.digest(engine))
            .bind(now)
            .run(conn)
            .await?;
    }
    if engine == Engine::Sqlite {
        let dangling = query("PRAGMA foreign_key_check").first(conn).await?;
        if let Some(row) = dangling {
            let (table, parent): (String, String) = (row.get("table")?, row.get("parent")?);
            return Err(StoreError::Schema(format!(
                "a row of `{table}` refers to one of `{parent}` that is not there; restore the database from a backup"
            )));
        }
    }
    Ok(())
}

async fn is_founded(conn: &mut AnyConnection, engine: Engine) -> Result<bool, StoreError> {
    let question = match engine {
        Engine::Sqlite => "SELECT COUNT(*) AS n FROM sqlite_master WHERE name = 'schema_step'",
        Engine::Postgres => "SELECT COUNT(to_regclass('schema_step')) AS n",
    };
    Ok(query(question).find(conn, |row| row.get::<i64>("n")).await?.is_some_and(|found| found > 0))
}

impl Step {
    const fn text(&self, engine: Engine) -> &'static str {
        match (self.text, engine) {
            (Text::Both(text), _)
            | (Text::Each { sqlite: text, .. }, Engine::Sqlite)
            | (Text::Each { postgres: text, .. }, Engine::Postgres) => text,
        }
    }

    fn digest(&self, engine: Engine) -> Digest {
        Digest::of(self.text(engine).as_bytes())
    }
}

fn written_for(engine: Engine, text: &str, now: Timestamp) -> String {
    let (text_type, blob_type) = match engine {
        // Byte order everywhere: cursors compare in SQL, and lists must not depend on a server's locale.
        Engine::Postgres => ("TEXT COLLATE \"C\"", "BYTEA"),
        Engine::Sqlite => ("TEXT", "BLOB"),
    };
    text.replace("{text}", text_type)
        .replace("{blob}", blob_type)
        .replace("{now}", &now.as_millis().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// SQLite cannot change a `CHECK`, and a table that is rebuilt there is changed in place on PostgreSQL.
    #[test]
    fn no_step_lists_words_and_one_text_for_both_rebuilds_no_table() {
        for Step { name, text, .. } in STEPS {
            let (texts, is_shared) = match text {
                Text::Both(text) => (vec![text], true),
                Text::Each { sqlite, postgres } => (vec![sqlite, postgres], false),
            };
            for text in texts {
                let text = text.to_uppercase();
                for line in text.lines().filter(|line| line.contains("CHECK")) {
                    assert!(!line.contains("IN ('"), "{name}: {line}");
                }
                let rebuilds = text.contains("DROP TABLE") || text.contains("RENAME TO");
                assert!(!(is_shared && rebuilds), "{name}");
            }
        }
    }
}
