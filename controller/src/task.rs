//! Background work: one idempotent task per file. A task takes no input and may be run at any time; what is due
//! it finds out itself.

pub mod beat;
mod certificate;
mod expiry;
mod inventory;
mod presence;
mod refusal;
mod retention;
mod space;
mod sync;

use std::sync::Arc;
use std::time::Duration;

use fleetward_app::App;
use fleetward_pki::Rotating;
use tokio::time::{Interval, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config::Config;

/// The server certificates in use.
#[derive(Debug, Clone)]
pub struct Certificates {
    /// The agents' port's.
    pub link: Arc<Rotating>,
    /// The web's; there is none without TLS.
    pub web: Option<Arc<Rotating>>,
}

/// Starts all tasks. They end when `stopping` is cancelled.
pub fn start(
    app: &App,
    config: &Config,
    certificates: Certificates,
    tasks: &TaskTracker,
    stopping: &CancellationToken,
) {
    let vital = app.vital();
    let may_end = || {
        let stopping = stopping.clone();
        move || stopping.is_cancelled()
    };
    tasks.spawn(vital.watch("presence", may_end(), presence::run(app.clone(), stopping.clone())));
    tasks.spawn(vital.watch("expiry", may_end(), expiry::run(app.clone(), stopping.clone())));
    tasks.spawn(vital.watch("inventory", may_end(), inventory::run(app.clone(), stopping.clone())));
    tasks.spawn(vital.watch("refusal", may_end(), refusal::run(app.clone(), stopping.clone())));
    tasks.spawn(vital.watch(
        "retention",
        may_end(),
        retention::run(app.clone(), config.retention.clone(), stopping.clone()),
    ));
    tasks.spawn(vital.watch(
        "space",
        may_end(),
        space::run(app.clone(), config.data.clone(), config.retention.free_space, stopping.clone()),
    ));
    tasks.spawn(vital.watch("sync", may_end(), sync::run(app.syncer().clone(), stopping.clone())));
    tasks.spawn(vital.watch(
        "certificate",
        may_end(),
        certificate::run(app.clone(), config.clone(), certificates, stopping.clone()),
    ));
}

/// When a task is due: at once, and then a period after it was due last.
struct Ticks {
    interval: Interval,
    stopping: CancellationToken,
}

impl Ticks {
    fn every(period: Duration, stopping: CancellationToken) -> Self {
        let mut interval = interval(period);
        interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self { interval, stopping }
    }

    /// Waits until the task is due; `None` when the controller stops.
    async fn next(&mut self) -> Option<()> {
        tokio::select! {
            biased;
            () = self.stopping.cancelled() => None,
            _ = self.interval.tick() => Some(()),
        }
    }
}
