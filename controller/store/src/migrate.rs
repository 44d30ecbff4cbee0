//! Forward-only migrations: one text per step, the same for both engines but for the words in braces.
//!
//! A step that was applied is never edited; its digest is kept and compared. A database that knows a later
//! step than this build is refused: going back would lose data.

use fleetward_protocol::digest::Digest;
use fleetward_protocol::time::Timestamp;
use sqlx::{AnyConnection, AssertSqlSafe, Executor as _};

use super::query::query;
use crate::{Engine, StoreError};

struct Step {
    number: i64,
    name: &'static str,
    text: &'static str,
}

const STEPS: &[Step] =
    &[Step { number: 1, name: "initial", text: include_str!("../migrations/0001_initial.sql") }];

// Any number will do as long as no other program locks it in the same database.
const ADVISORY_LOCK: &str = "SELECT pg_advisory_xact_lock(7443744300)";

const LEDGER: &str = "CREATE TABLE IF NOT EXISTS schema_step (
  number BIGINT PRIMARY KEY, name TEXT NOT NULL, digest TEXT NOT NULL, applied_at BIGINT NOT NULL)";

/// Brings the schema up to this build, inside the caller's transaction.
pub(super) async fn apply(
    conn: &mut AnyConnection,
    engine: Engine,
    now: Timestamp,
) -> Result<(), StoreError> {
    if engine == Engine::Postgres {
        conn.execute(ADVISORY_LOCK).await?;
    }
    conn.execute(LEDGER).await?;
    let applied = query("SELECT number, digest FROM schema_step ORDER BY number")
        .list_of(conn, |row| Ok((row.get::<i64>("number")?, row.get::<Digest>("digest")?)))
        .await?;
    let newest = STEPS.last().map_or(0, |step| step.number);
    if let Some((number, _)) = applied.iter().find(|(number, _)| *number > newest) {
        return Err(StoreError::Schema(format!(
            "it has step {number}, this build knows {newest}; install the newer fleetward-controller again"
        )));
    }
    for step in STEPS {
        let digest = Digest::of(step.text.as_bytes());
        match applied.iter().find(|(number, _)| *number == step.number) {
            Some((_, known)) if *known == digest => {}
            Some(_) => {
                return Err(StoreError::Schema(format!(
                    "step {} ({}) was applied with another text",
                    step.number, step.name
                )));
            }
            None => {
                sqlx::raw_sql(AssertSqlSafe(written_for(engine, step.text, now))).execute(&mut *conn).await?;
                query("INSERT INTO schema_step (number, name, digest, applied_at) VALUES ($1, $2, $3, $4)")
                    .bind(step.number)
                    .bind(step.name)
                    .bind(digest)
                    .bind(now)
                    .run(conn)
                    .await?;
            }
        }
    }
    Ok(())
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

    /// SQLite cannot change a `CHECK`: the usual way round, a new table in the place of the old one, deletes the rows of all
    /// tables that refer to it, for `ON DELETE CASCADE` cannot be switched off inside of a transaction.
    #[test]
    fn no_step_lists_words_or_rebuilds_a_table() {
        for Step { name, text, .. } in STEPS {
            let text = text.to_uppercase();
            for line in text.lines().filter(|line| line.contains("CHECK")) {
                assert!(!line.contains("IN ('"), "{name}: {line}");
            }
            assert!(!text.contains("DROP TABLE") && !text.contains("RENAME TO"), "{name}");
        }
    }
}
