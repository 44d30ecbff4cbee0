//! Looks at the room left in the data directory: with too little, new work is refused before what runs already
//! cannot be stored.

use std::time::Duration;

use nix::sys::statvfs::statvfs;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::Ticks;
use crate::app::App;

const INTERVAL: Duration = Duration::from_secs(5);

pub(super) async fn run(app: App, stopping: CancellationToken) {
    let mut ticks = Ticks::every(INTERVAL, stopping);
    let mut was_enough = true;
    while ticks.next().await.is_some() {
        let config = app.config();
        let free = match statvfs(&config.data) {
            Ok(found) => found.blocks_available().saturating_mul(found.fragment_size()),
            Err(error) => {
                debug!(%error, "space.unknown");
                continue;
            }
        };
        let is_enough = free >= config.retention.free_space;
        app.health().note_space(is_enough);
        match (was_enough, is_enough) {
            (true, false) => warn!(free, wanted = config.retention.free_space, "space.too_little"),
            (false, true) => info!(free, "space.enough_again"),
            _ => {}
        }
        was_enough = is_enough;
    }
}
