//! A service's own control group, as the service manager would delegate it.

use std::path::PathBuf;

use fleetward_agent::platform::cgroup::Delegated;

use crate::host::{run_id, skipped};

/// A group of one hierarchy that the agent may use.
pub(crate) struct Service {
    pub(crate) delegated: Delegated,
    /// Where the runs' groups are made.
    pub(crate) directory: PathBuf,
    /// Its path within the hierarchy.
    pub(crate) path: String,
}

impl Service {
    /// In the hierarchy of this controller, or in the unified one if it is empty. `None` if there is none here, or
    /// no right to make a group in it, which is then said (see [`skipped`]).
    pub(crate) fn new(controller: &str) -> Option<Self> {
        let found = Self::find(controller);
        if found.is_none() {
            let hierarchy = if controller.is_empty() { "unified" } else { controller };
            skipped(
                &format!("a control group of the {hierarchy} hierarchy"),
                "it is not mounted here, or only root may make a group in it",
            );
        }
        found
    }

    fn find(controller: &str) -> Option<Self> {
        let path = format!("/fleetward-test-{}.service", run_id());
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        let delegated = Delegated::locate(&mounts, &format!("8:{controller}:{path}\n"));
        // The first group of a run without a name to speak of is where the mount is.
        let kind = if controller.is_empty() { "cgroup2" } else { "cgroup" };
        let mount = mounts.lines().find_map(|line| {
            let (left, right) = line.split_once(" - ")?;
            let mut right = right.split(' ');
            let found = right.next() == Some(kind)
                && (controller.is_empty() || right.nth(1)?.split(',').any(|each| each == controller));
            found.then(|| left.split(' ').nth(4)).flatten()
        })?;
        let directory = PathBuf::from(mount).join(&path[1..]);
        std::fs::create_dir(&directory).ok()?;
        Some(Self { delegated, directory, path })
    }

    /// Removes it. The supervisor's last act is to remove the run's group; then this one can go.
    pub(crate) async fn remove(self) {
        while std::fs::remove_dir(&self.directory).is_err() {
            tokio::task::yield_now().await;
        }
    }
}
