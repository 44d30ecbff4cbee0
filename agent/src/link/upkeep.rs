//! What this host needs of those who look after it, told beside its facts.
//!
//! **What it costs.** To count updates takes apt a second of a processor, so that is done only when apt or dpkg have changed
//! something, and not more often than once an hour. An agent that has just started has something better to do, and hosts that were
//! all started at once do it at different times.

use std::time::Duration;

use fleetward_protocol::facts::Upkeep;
use tokio::sync::watch;

use super::stopped;
use crate::platform::{apt, clock};
use crate::query::{Counted, Queries};

/// How often it is looked at whether apt or dpkg have changed something.
const LOOK_EVERY: Duration = Duration::from_secs(300);
/// Between two counts, at least.
const COUNT_EVERY: Duration = Duration::from_secs(3600);
/// From the start of the agent to the first look, at least, and what is added by lot.
const FIRST: [Duration; 2] = [Duration::from_secs(120), Duration::from_secs(600)];

/// Counts the updates that there are, until `stopping` turns true.
pub(crate) async fn count(
    queries: Queries,
    counted: watch::Sender<Option<Counted>>,
    mut stopping: watch::Receiver<bool>,
) {
    let [least, lot] = FIRST;
    let mut wait = least + lot.mul_f64(rand::random());
    let mut seen = None;
    loop {
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = stopped(&mut stopping) => return,
        }
        let now = apt::read_changed();
        if now.is_none() || now == seen {
            wait = LOOK_EVERY;
            continue;
        }
        tokio::select! {
            found = queries.count_updates() => {
                seen = found.and(now);
                counted.send_replace(found);
            }
            () = stopped(&mut stopping) => return,
        }
        wait = COUNT_EVERY;
    }
}

/// What the host needs now, with what was counted last.
pub(super) fn read(counted: Option<Counted>) -> Upkeep {
    Upkeep {
        time_synchronised: clock::read_is_synchronised(),
        updates: counted.map(|counted| counted.updates),
        security_updates: counted.map(|counted| counted.security),
    }
}
