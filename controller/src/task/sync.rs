//! Synchronises inventories when their interval has passed, and when a repository was set.
//!
//! Takes no input and may be run at any time: what is due is read from the store.

use std::time::Duration;

use fleetward_app::fleet::sync::Syncer;
use tokio_util::sync::CancellationToken;

/// The longest nap: a repository that another controller set is seen then.
const NAP: Duration = Duration::from_secs(60);

/// Runs until `stopping`; an attempt under way is ended and noted first.
pub(super) async fn run(syncer: Syncer, stopping: CancellationToken) {
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

#[cfg(test)]
mod tests {
    use fleetward_app::fleet::sync::{self, SettingsChange};
    use fleetward_app::testing::TestApp;
    use fleetward_repo::testing::Origin;
    use fleetward_store::page::PageRequest;

    use super::*;

    #[tokio::test]
    async fn the_task_synchronises_what_is_set_and_stops() {
        let test = TestApp::start().await;
        let (app, permit) = (test.app(), test.permit::<fleetward_app::people::access::ManageRepo>());
        let directory = tempfile::tempdir().unwrap();
        let origin = Origin::new(&directory.path().join("origin"));
        let enrolment = "{clientId: FLEET-00000000-0000-4000-8000-000000000001}";
        let host = format!(
            "{{type: VM, host: 192.0.2.1, port: 22, user: ops, tags: [lab], enrollment: {enrolment}}}"
        );
        origin.commit(&[("links.yaml", &format!("links:\n  web-1: {host}\n"))]);
        let stopping = CancellationToken::new();
        let mut changes = app.syncer().changes();
        let task = tokio::spawn(run(app.syncer().clone(), stopping.clone()));
        let change = SettingsChange { url: origin.url(), branch: None, interval: None, credentials: None };
        sync::set(app, &permit, change).await.unwrap();
        changes.changed().await.unwrap();
        stopping.cancel();
        task.await.unwrap();
        let history = sync::history(app, &test.permit(), &PageRequest::first(100)).await.unwrap().items;
        assert_eq!(history[0].triggered_by, "interval");
        // After the stop nothing is fetched any more.
        let after = sync::run(app, &permit, None).await.unwrap();
        assert_eq!(after.failure.as_deref(), Some("the fetch was stopped"));
    }
}
