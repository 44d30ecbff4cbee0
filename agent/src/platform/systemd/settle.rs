//! Whether a service that was started stays so.

use std::time::Duration;

use fleetward_protocol::action::unit::UnitName;
use tokio::time::{Instant, sleep_until};

use super::{Systemd, SystemdError, UNIT, interface, property};
use crate::platform::stop::{Stop, Why};

/// Between two looks: whoever dies in between has another process, or was counted.
const LOOK: Duration = Duration::from_millis(250);

/// How watching a service ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Settled {
    /// It was up for the whole time.
    Stayed,
    /// It ended, failed, or was started again by systemd.
    Died,
    /// This process was asked to stop before the time was over.
    Left(Why),
}

/// What would change if the service died.
#[derive(Debug, Clone, Copy)]
struct Life {
    /// Its main process.
    pid: u32,
    /// How often systemd has started it again by itself.
    restarts: u32,
}

impl Life {
    /// Whether the service has gone on as it was. One that stays active behind its end (`RemainAfterExit=`, systemd.service(5)) has no
    /// process then.
    const fn goes_on(self, now: Self) -> bool {
        self.restarts == now.restarts && (self.pid == now.pid || now.pid == 0)
    }
}

impl Systemd {
    /// Watches a service that runs for this time. One that ends and is active all the same was meant to.
    ///
    /// # Errors
    /// If systemd does not tell.
    pub fn watch(&self, unit: &UnitName, span: Duration, stop: &mut Stop) -> Result<Settled, SystemdError> {
        self.runtime.block_on(async {
            let path = self.load(unit).await?;
            let (path, own) = (path.as_str(), interface(unit.as_str()));
            let look = || async {
                let active = property::<String>(&self.connection, path, UNIT, "ActiveState").await?;
                let pid = property::<u32>(&self.connection, path, &own, "MainPID").await?;
                let restarts = property::<u32>(&self.connection, path, &own, "NRestarts").await?;
                let is_up = matches!(active.as_deref(), Some("active" | "reloading" | "refreshing"));
                let life = Life { pid: pid.unwrap_or(0), restarts: restarts.unwrap_or(0) };
                Ok::<Option<Life>, SystemdError>(is_up.then_some(life))
            };
            let end = Instant::now() + span;
            let Some(first) = look().await? else { return Ok(Settled::Died) };
            loop {
                if let Some(why) = stop.requested() {
                    return Ok(Settled::Left(why));
                }
                let now = Instant::now();
                if now >= end {
                    return Ok(Settled::Stayed);
                }
                sleep_until(end.min(now + LOOK)).await;
                if !look().await?.is_some_and(|now| first.goes_on(now)) {
                    return Ok(Settled::Died);
                }
            }
        })
    }
}
