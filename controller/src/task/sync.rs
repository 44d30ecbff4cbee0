//! Synchronises inventories when their interval has passed, and when a repository was set.
//!
//! Takes no input and may be run at any time: what is due is read from the store.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::app::sync::Syncer;

/// The longest nap: a repository that another controller set is seen then.
const NAP: Duration = Duration::from_secs(60);

/// Runs until `stopping`; an attempt under way is ended and noted first.
pub(crate) async fn run(syncer: Syncer, stopping: CancellationToken) {
    loop {
        let work = syncer.sync_due();
        tokio::pin!(work);
        let due = tokio::select! {
            due = &mut work => due,
            () = stopping.cancelled() => {
                syncer.stop();
                work.await
            }
        };
        if stopping.is_cancelled() {
            return;
        }
        let wait = match due {
            Ok(next) => next.map_or(NAP, |next| next.min(NAP)),
            Err(error) => {
                tracing::error!(error = &error as &dyn std::error::Error, "sync.task_failed");
                NAP
            }
        };
        tokio::select! {
            () = stopping.cancelled() => return syncer.stop(),
            () = syncer.settings_changed() => {}
            () = tokio::time::sleep(wait) => {}
        }
    }
}
