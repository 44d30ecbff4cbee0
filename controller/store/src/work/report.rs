//! Reports: what typed actions told when they ended. They stand apart from their runs, which are read and written far more
//! often.

use std::collections::HashMap;

use fleetward_protocol::id::RunId;

use crate::query::{Field, query};
use crate::{Connection, Reader, Scope, StoreError};

/// Keeps a run's report in the place of the one before. It is one JSON object
/// ([`check_report`](fleetward_protocol::event::check_report)).
pub(crate) async fn upsert(conn: &mut Connection, run: RunId, report: &str) -> Result<(), StoreError> {
    query(
        "INSERT INTO run_report (run_id, report) VALUES ($1, $2) \
         ON CONFLICT (run_id) DO UPDATE SET report = EXCLUDED.report",
    )
    .bind(run)
    .bind(report)
    .run(conn)
    .await
    .map(|_| ())
}

/// The reports of those of `runs` that are in scope and have one, as JSON.
///
/// # Errors
/// If the database fails.
pub async fn list(
    conn: &mut impl Reader,
    scope: &Scope,
    runs: &[RunId],
) -> Result<HashMap<RunId, String>, StoreError> {
    of(conn, scope, runs, "p.report").await
}

/// How long the reports of those of `runs` are that are in scope and have one, in bytes: for whoever cannot hold them all.
///
/// # Errors
/// If the database fails.
pub async fn list_sizes(
    conn: &mut impl Reader,
    scope: &Scope,
    runs: &[RunId],
) -> Result<HashMap<RunId, u64>, StoreError> {
    of(conn, scope, runs, "octet_length(p.report)").await
}

/// Something of the reports of those of `runs` that are in scope and have one.
async fn of<T: Field>(
    conn: &mut impl Reader,
    scope: &Scope,
    runs: &[RunId],
    something: &'static str,
) -> Result<HashMap<RunId, T>, StoreError> {
    let mut found = HashMap::new();
    for batch in runs.chunks(500) {
        let select = query("SELECT p.run_id, ")
            .push(something)
            .push(" AS something FROM run_report p JOIN run r ON r.id = p.run_id WHERE p.run_id IN ")
            .list(batch.iter())
            .push(" AND ")
            .scope("r.tenant_id", scope);
        let select = if batch.len() == 1 { select } else { select.once() };
        for row in conn.rows(select).await? {
            found.insert(row.get("run_id")?, row.get("something")?);
        }
    }
    Ok(found)
}
