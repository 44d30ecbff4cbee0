//! Writes down who is connected: changes soon, and once a minute when each was last heard of.

use std::time::Duration;

use fleetward_app::App;
use fleetward_app::fleet::presence;
use tokio::time::{MissedTickBehavior, interval, sleep};
use tokio_util::sync::CancellationToken;
use tracing::warn;

/// How long changes gather before they are written.
const GATHER: Duration = Duration::from_millis(20);
const MINUTE: Duration = Duration::from_secs(60);
const PAUSE_AFTER_FAILURE: Duration = Duration::from_secs(2);

pub(super) async fn run(app: App, stopping: CancellationToken) {
    let mut minute = interval(MINUTE);
    minute.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let written = tokio::select! {
            () = stopping.cancelled() => break,
            () = app.presences().wait() => {
                sleep(GATHER).await;
                presence::write_pending(&app).await.map(|_| ())
            }
            _ = minute.tick() => presence::write_all(&app).await,
        };
        if let Err(error) = written {
            warn!(%error, "presence.not_written");
            sleep(PAUSE_AFTER_FAILURE).await;
        }
    }
    // The sessions have ended by now: who was connected is offline.
    if let Err(error) = presence::write_pending(&app).await {
        warn!(%error, "presence.not_written");
    }
}
