//! Has systemd read all its files again.

use fleetward_protocol::action::daemon_reload::{DaemonReload, DaemonReloadReport};
use fleetward_protocol::action::{Change, Preview};

use super::Perform;
use crate::perform::{Cut, Failure, Problem, Steps};
use crate::platform::systemd::{Systemd, SystemdError};

const STEP: &str = "daemon-reload";

impl Perform for DaemonReload {
    fn rehearse(&self, steps: &mut Steps) -> Result<Preview, Failure<Preview>> {
        steps.look("check", "systemd", |_| Systemd::connect().map_err(|error| problem(&error)))?;
        Ok(Preview::of(vec![Change::new(STEP)]))
    }

    fn perform(&self, steps: &mut Steps) -> Result<DaemonReloadReport, Failure<DaemonReloadReport>> {
        let systemd =
            steps.look("check", "systemd", |_| Systemd::connect().map_err(|error| problem(&error)))?;
        reload(&systemd, steps)?;
        Ok(DaemonReloadReport { changed: true })
    }
}

/// Has systemd read its files again, as a step.
pub(super) fn reload(systemd: &Systemd, steps: &mut Steps) -> Result<(), Problem> {
    let work = |_: &mut Steps| systemd.reload().map_err(|error| not_reloaded(&error));
    match steps.cut() {
        // What it had read before may have been put back since.
        Some(Cut::Death) => steps.repeat(STEP, STEP, work),
        // It read them all when the host started.
        Some(Cut::Restart) | None => steps.change(STEP, STEP, |_, _| Ok(Some(())), work),
    }
}

fn not_reloaded(error: &SystemdError) -> Problem {
    Problem::new(
        format_args!("systemd did not read its files again: {error}"),
        "run `systemctl daemon-reload` on the host: it may say more",
    )
}

fn problem(error: &SystemdError) -> Problem {
    Problem::new(
        format_args!("systemd cannot be asked: {error}"),
        "this kind needs a host that runs systemd and the D-Bus message bus: see `systemctl status dbus`",
    )
}
