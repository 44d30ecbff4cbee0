//! Lists timers.

use fleetward_protocol::object::{Class, Object};
use fleetward_protocol::query::timers::Timers;

use super::look::Look;
use super::teller::{Stop, Teller};
use super::units::problem;
use crate::platform::systemd::units::{AT_ONCE, Units};

impl Look for Timers {
    async fn look(&self, _follow: bool, teller: &mut Teller<Self>) -> Result<(), Stop> {
        let bus = Units::connect().await.map_err(problem)?;
        let mut timers = bus.list(None).await.map_err(problem)?;
        timers.retain(|timer| {
            let is_allowed = || teller.allowed().allows(&Object::named(Class::Units, &timer.name));
            timer.load != "not-found" && self.means(&timer.name) && is_allowed()
        });
        let mut timers = timers.into_iter();
        loop {
            let some: Vec<_> = timers.by_ref().take(AT_ONCE).collect();
            if some.is_empty() {
                return Ok(());
            }
            for item in bus.read_timers(some).await.map_err(problem)? {
                teller.item(&item).await?;
            }
        }
    }
}
