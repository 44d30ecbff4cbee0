//! Tells in the database that this controller is alive; where nobody else can reach the database, nobody is told.

use fleetward_app::fleet::controller::{BEAT, Tenure};
use fleetward_store::{Store, StoreError};
use tokio_util::sync::CancellationToken;
use tracing::{error, warn};

use super::Ticks;

/// Tells it until the controller stops, or was found dead; then it cancels `found_dead`.
pub async fn run(store: Store, tenure: Tenure, found_dead: CancellationToken, stopping: CancellationToken) {
    let mut ticks = Ticks::every(BEAT, stopping);
    while ticks.next().await.is_some() {
        match tenure.beat(&store).await {
            Ok(()) => {}
            Err(StoreError::TakenOver) => {
                error!("controller.found_dead_by_another");
                return found_dead.cancel();
            }
            Err(error) => warn!(%error, "controller.beat_not_written"),
        }
    }
}
