//! When timers are due, and what they start.

use std::time::Duration;

use fleetward_protocol::query::timers::{TimerItem, due};
use fleetward_protocol::text::Text;
use zbus::{Connection, OwnedObjectPath};

use super::units::{Loaded, Units, each};
use super::{MANAGER, PATH, SystemdError, UNIT, ask, interface, microseconds, property};
use crate::platform::clock;

const TIMER: &str = "org.freedesktop.systemd1.Timer";

impl Units {
    /// What these timers of the list are, in their order. All of them are asked about at the same time: whoever has many asks for
    /// [`AT_ONCE`](super::units::AT_ONCE) after each other.
    ///
    /// # Errors
    /// If systemd does not tell.
    pub async fn read_timers(&self, timers: Vec<Loaded>) -> Result<Vec<TimerItem>, SystemdError> {
        each(
            self.connection(),
            timers,
            |connection, timer| async move { read_timer(&connection, &timer).await },
        )
        .await
    }
}

async fn read_timer(connection: &Connection, timer: &Loaded) -> Result<TimerItem, SystemdError> {
    let path = timer.path();
    let time = async |name| {
        let at: Option<u64> = property(connection, path, TIMER, name).await?;
        // It was never, or will never be.
        Ok::<_, SystemdError>(at.filter(|at| !matches!(*at, 0 | u64::MAX)))
    };
    let (last, next, next_of_boot, starts, file) = tokio::try_join!(
        time("LastTriggerUSec"),
        time("NextElapseUSecRealtime"),
        time("NextElapseUSecMonotonic"),
        property::<String>(connection, path, TIMER, "Unit"),
        property::<String>(connection, path, UNIT, "UnitFileState"),
    )?;
    let starts = starts.unwrap_or_default();
    let (starts_active, result) = match starts.as_str() {
        "" => (None, None),
        starts => read_started(connection, starts).await?,
    };
    let of_boot = next_of_boot.map(Duration::from_micros);
    Ok(TimerItem {
        name: Text::of(&timer.name),
        active: Text::of(&timer.active),
        next: due(clock::now(), clock::uptime(), next.map(microseconds), of_boot),
        last: last.map(microseconds),
        starts: Text::of(starts),
        starts_active: starts_active.map(Text::of),
        result: result.map(Text::of),
        file: file.filter(|file| !file.is_empty()).map(Text::of),
        description: Text::of(&timer.description),
    })
}

/// Whether what a timer starts is active, and how it last went. Its timer keeps it loaded.
async fn read_started(
    connection: &Connection,
    unit: &str,
) -> Result<(Option<String>, Option<String>), SystemdError> {
    let path = match ask::<OwnedObjectPath>(connection, PATH, MANAGER, "GetUnit", &(unit,)).await {
        Ok(path) => path,
        // It is not loaded, or there is none of this name.
        Err(SystemdError::Refused { .. }) => return Ok((None, None)),
        Err(error) => return Err(error),
    };
    let own = interface(unit);
    tokio::try_join!(
        property::<String>(connection, path.as_str(), UNIT, "ActiveState"),
        property::<String>(connection, path.as_str(), &own, "Result"),
    )
}
