//! Looks at the room left in the data directory: with too little, new work is refused before what runs already
//! cannot be stored.

use std::path::PathBuf;
use std::time::Duration;

use fleetward_app::App;
use nix::sys::statvfs::statvfs;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::Ticks;

const INTERVAL: Duration = Duration::from_secs(5);

pub(super) async fn run(app: App, data: PathBuf, wanted: u64, stopping: CancellationToken) {
    let mut ticks = Ticks::every(INTERVAL, stopping);
    let mut was_enough = true;
    while ticks.next().await.is_some() {
        let free = match statvfs(&data) {
            Ok(found) => found.blocks_available().saturating_mul(found.fragment_size()),
            Err(error) => {
                debug!(%error, "space.unknown");
                continue;
            }
        };
        let is_enough = free >= wanted;
        app.health().note_space(is_enough);
        app.health().note_read_only(app.store().is_read_only());
        match (was_enough, is_enough) {
            (true, false) => warn!(free, wanted, "space.too_little"),
            (false, true) => info!(free, "space.enough_again"),
            _ => {}
        }
        was_enough = is_enough;
    }
}
