//! Removes old operations and their output, and old audit events: by age, and above a total size the oldest first. In
//! small batches, so that nobody waits for it.

use std::time::Duration;

use fleetward_app::App;
use fleetward_app::people::audit;
use fleetward_protocol::id::OperationId;
use fleetward_protocol::time::Timestamp;
use fleetward_store::StoreError;
use fleetward_store::work::{operation, output};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::Ticks;
use crate::config::Retention;

const INTERVAL: Duration = Duration::from_secs(3600);
/// Operations looked at together.
const OPERATIONS: u32 = 20;
/// Rows of output removed per transaction.
const ROWS: u32 = 64;

pub(super) async fn run(app: App, retention: Retention, stopping: CancellationToken) {
    let mut ticks = Ticks::every(INTERVAL, stopping.clone());
    while ticks.next().await.is_some() {
        let swept = tokio::select! {
            () = stopping.cancelled() => return,
            swept = sweep(&app, &retention) => swept,
        };
        match swept {
            Ok(0) => {}
            Ok(removed) => info!(operations = removed, "retention.removed"),
            Err(error) => warn!(%error, "retention.failed"),
        }
        let removed = tokio::select! {
            () = stopping.cancelled() => return,
            removed = audit::remove_old(&app) => removed,
        };
        match removed {
            Ok(0) => {}
            Ok(removed) => info!(events = removed, "retention.audit_removed"),
            Err(error) => error!(%error, "retention.audit_failed"),
        }
    }
}

async fn sweep(app: &App, retention: &Retention) -> Result<u64, StoreError> {
    let now = app.now();
    // Of operations that were removed right before a crash.
    output::delete_orphaned_files(app.store()).await?;
    let mut removed = 0;
    loop {
        let doomed = oldest_before(app, now - retention.operations).await?;
        if doomed.is_empty() {
            break;
        }
        removed += remove(app, doomed).await?;
    }
    loop {
        let mut conn = app.store().read().await?;
        let total = output::total(&mut conn).await?;
        drop(conn);
        if total <= retention.output {
            return Ok(removed);
        }
        let doomed = oldest_before(app, now).await?;
        if doomed.is_empty() {
            // What is left belongs to operations that have not ended.
            return Ok(removed);
        }
        removed += remove(app, doomed.into_iter().take(1)).await?;
    }
}

async fn oldest_before(app: &App, before: Timestamp) -> Result<Vec<OperationId>, StoreError> {
    let mut conn = app.store().read().await?;
    operation::list_ended_before(&mut conn, before, OPERATIONS).await
}

async fn remove(app: &App, doomed: impl IntoIterator<Item = OperationId>) -> Result<u64, StoreError> {
    let mut removed = 0;
    for id in doomed {
        loop {
            let mut tx = app.store().write().await?;
            let rows = output::delete(&mut tx, id, ROWS).await?;
            if rows == 0 {
                removed += u64::from(operation::delete(&mut tx, id).await?);
                tx.commit().await?;
                output::delete_files(app.store(), id).await?;
                break;
            }
            tx.commit().await?;
            // Whoever waits for the writer goes first.
            tokio::task::yield_now().await;
        }
    }
    Ok(removed)
}
