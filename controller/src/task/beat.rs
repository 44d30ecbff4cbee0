//! Tells in the database that this controller is alive; where nobody else can reach the database, nobody is told.

use fleetward_app::continuity::Continuity;
use fleetward_app::fleet::controller::{self, BEAT};
use fleetward_protocol::id::ControllerId;
use fleetward_store::Store;
use tokio_util::sync::CancellationToken;
use tracing::{error, warn};

use super::Ticks;

/// Tells it until the controller stops, or was found dead; then it cancels `found_dead`. A count that goes back was committed and lost.
pub async fn run(
    store: Store,
    id: ControllerId,
    continuity: Continuity,
    found_dead: CancellationToken,
    stopping: CancellationToken,
) {
    let mut ticks = Ticks::every(BEAT, stopping);
    let mut last = 0;
    while ticks.next().await.is_some() {
        match controller::beat(&store, id).await {
            // Others of this controller's writes count it on as well, and nothing counts it back.
            Ok(Some(beat)) if beat > last => last = beat,
            Ok(Some(beat)) => continuity.tell_of("the controller's beat", Some(beat), last),
            Ok(None) => {
                error!("controller.found_dead_by_another");
                return found_dead.cancel();
            }
            Err(error) => warn!(%error, "controller.beat_not_written"),
        }
    }
}
