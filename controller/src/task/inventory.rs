//! Cuts off hosts that left the inventory, or whose enrolment is not good any more, after each synchronisation.

use std::time::Duration;

use fleetward_app::App;
use fleetward_app::fleet::host::cut_off;
use fleetward_store::fleet::host::{self, Enrolment, Filter, Host, Lifecycle, Sort};
use fleetward_store::page::{Direction, PageRequest};
use fleetward_store::{Scope, StoreError};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

const PAGE: u32 = 500;
const PAUSE_AFTER_FAILURE: Duration = Duration::from_secs(5);

pub(super) async fn run(app: App, stopping: CancellationToken) {
    let mut changes = app.syncer().changes();
    // What changed while the controller was down is looked at once.
    changes.mark_changed();
    loop {
        tokio::select! {
            () = stopping.cancelled() => return,
            changed = changes.changed() => if changed.is_err() {
                return;
            }
        }
        match sweep(&app).await {
            Ok(0) => {}
            Ok(hosts) => info!(hosts, "inventory.cut_off"),
            Err(error) => {
                warn!(%error, "inventory.sweep_failed");
                tokio::time::sleep(PAUSE_AFTER_FAILURE).await;
                changes.mark_changed();
            }
        }
    }
}

/// Cuts off who should be; how many were connected.
async fn sweep(app: &App) -> Result<u32, StoreError> {
    let mut page = PageRequest::first(PAGE);
    let mut connected = 0;
    loop {
        let mut conn = app.store().read().await?;
        let sort = (Sort::Name, Direction::Ascending);
        let hosts = host::list(&mut conn, &Scope::Everything, &Filter::default(), sort, &page).await?;
        drop(conn);
        for host in hosts.items.iter().filter(|host| !may_be_connected(host)) {
            connected += u32::from(app.fleet().presence(host.id).is_some());
            cut_off(app, host);
        }
        match hosts.next {
            Some(next) => page.after = Some(next),
            None => return Ok(connected),
        }
    }
}

fn may_be_connected(host: &Host) -> bool {
    let has_certificate = matches!(host.enrolment, Enrolment::Enrolled | Enrolment::Quarantined);
    // A host that has never enrolled has nothing to be cut off from.
    host.lifecycle == Lifecycle::Active && (has_certificate || host.journal.is_none())
}
