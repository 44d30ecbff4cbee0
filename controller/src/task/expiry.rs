//! Removes what has ended: sessions, tokens, certificates.

use std::time::Duration;

use fleetward_app::App;
use fleetward_store::StoreError;
use fleetward_store::fleet::{certificate, token};
use fleetward_store::people::session;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::Ticks;

const INTERVAL: Duration = Duration::from_secs(600);
/// Spent tokens and ended certificates are kept for a while: a refusal then says what happened to them.
const KEPT: Duration = Duration::from_secs(30 * 86_400);

pub(super) async fn run(app: App, stopping: CancellationToken) {
    let mut ticks = Ticks::every(INTERVAL, stopping);
    while ticks.next().await.is_some() {
        match sweep(&app).await {
            Ok(removed) => debug!(removed, "expiry.swept"),
            Err(error) => warn!(%error, "expiry.failed"),
        }
    }
}

async fn sweep(app: &App) -> Result<u64, StoreError> {
    let now = app.now();
    let mut tx = app.store().write().await?;
    let removed = session::delete_expired(&mut tx, now).await?
        + token::delete_spent(&mut tx, now - KEPT).await?
        + certificate::delete_expired(&mut tx, now - KEPT).await?;
    tx.commit().await?;
    Ok(removed)
}
