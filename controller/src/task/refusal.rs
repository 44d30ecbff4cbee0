//! Writes what was refused in sum: soon after each minute, and at the end.

use std::time::Duration;

use fleetward_app::App;
use fleetward_app::refusal;
use tokio_util::sync::CancellationToken;

use super::Ticks;

const INTERVAL: Duration = Duration::from_secs(5);

pub(super) async fn run(app: App, stopping: CancellationToken) {
    let mut ticks = Ticks::every(INTERVAL, stopping);
    while ticks.next().await.is_some() {
        refusal::write_due(&app).await;
    }
    // Both ports are closed by now.
    refusal::write_all(&app).await;
}
