//! Lists the units of systemd, and tells what becomes of them.
//!
//! Of a unit that changes often its last state is told, a few times in a second at the most: what changed is noted as it is
//! heard, and looked at in rounds.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use fleetward_protocol::object::{Class, Object};
use fleetward_protocol::query::Contract as _;
use fleetward_protocol::query::units::{UnitItem, Units};
use fleetward_protocol::text::Text;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

use super::look::Look;
use super::teller::{Stop, Teller};
use crate::platform::systemd::SystemdError;
use crate::platform::systemd::units::{self as systemd, Loaded, Signal, Signals};

/// From the beginning of one round to that of the next, at least.
const ROUND: Duration = Duration::from_millis(250);
/// Of more units than this it is easier to look at all of them.
const MANY: usize = 256;

impl Look for Units {
    async fn look(&self, follow: bool, teller: &mut Teller<Self>) -> Result<(), Stop> {
        let bus = systemd::Units::connect().await.map_err(problem)?;
        let mut told = UnitTable { asked: self, bus, items: BTreeMap::new() };
        if !follow {
            return told.round(&Touched::Everything, teller).await;
        }
        // Heard before the first look, so that nothing falls between the two.
        let signals = told.bus.signals().await.map_err(problem)?;
        let (touched, heard) = (RefCell::new(Touched::nothing()), Notify::new());
        // Both at once: systemd's answers come behind its signals, and whoever waits for a slow reader still hears.
        tokio::select! {
            error = listen(signals, &touched, &heard) => Err(problem(error)),
            stop = told.follow(&touched, &heard, teller) => stop,
        }
    }
}

/// What has changed since it was looked at.
#[derive(Debug, PartialEq, Eq)]
enum Touched {
    Units(BTreeSet<String>),
    Everything,
}

impl Touched {
    const fn nothing() -> Self {
        Self::Units(BTreeSet::new())
    }

    fn note(&mut self, signal: Signal) {
        match (&mut *self, signal) {
            (Self::Units(names), Signal::Unit(name)) if names.len() < MANY => {
                names.insert(name);
            }
            // One that is known already is not one more.
            (Self::Units(names), Signal::Unit(name)) if names.contains(&name) => {}
            _ => *self = Self::Everything,
        }
    }
}

/// Notes what systemd says, until it cannot be heard any more.
async fn listen(mut signals: Signals, touched: &RefCell<Touched>, heard: &Notify) -> SystemdError {
    loop {
        match signals.next().await {
            Ok(signal) => {
                touched.borrow_mut().note(signal);
                heard.notify_one();
            }
            Err(error) => return error,
        }
    }
}

/// What was told so far.
struct UnitTable<'a> {
    asked: &'a Units,
    bus: systemd::Units,
    items: BTreeMap<String, UnitItem>,
}

impl UnitTable<'_> {
    async fn follow(
        &mut self,
        touched: &RefCell<Touched>,
        heard: &Notify,
        teller: &mut Teller<Units>,
    ) -> Result<(), Stop> {
        self.round(&Touched::Everything, teller).await?;
        teller.complete().await?;
        loop {
            heard.notified().await;
            let next = Instant::now() + ROUND;
            let now = touched.replace(Touched::nothing());
            self.round(&now, teller).await?;
            sleep_until(next).await;
        }
    }

    /// Looks at what was touched, and tells what is not as it was told.
    async fn round(&mut self, touched: &Touched, teller: &mut Teller<Units>) -> Result<(), Stop> {
        let names: Option<Vec<&str>> = match touched {
            Touched::Everything => None,
            // No name would mean every name.
            Touched::Units(names) if names.is_empty() => return Ok(()),
            Touched::Units(names) => Some(names.iter().map(String::as_str).collect()),
        };
        let mut there = BTreeSet::new();
        let mut meant = self.bus.list(names.as_deref()).await.map_err(problem)?;
        meant.retain(|Loaded { name, load, active, .. }| {
            let is_allowed = || teller.allowed().allows(&Object::named(Class::Units, name));
            self.asked.means(name, load, active) && is_allowed()
        });
        let mut meant = meant.into_iter().peekable();
        loop {
            let some = systemd::next_at_once(&mut meant);
            if some.is_empty() {
                break;
            }
            let names: Vec<String> = some.iter().map(|unit| unit.name.clone()).collect();
            there.extend(names.iter().cloned());
            for (name, item) in names.into_iter().zip(self.bus.read(some).await.map_err(problem)?) {
                self.tell(name, item, teller).await?;
            }
        }
        let touches = |name: &String| match touched {
            Touched::Everything => true,
            Touched::Units(names) => names.contains(name),
        };
        let gone: Vec<String> =
            self.items.keys().filter(|name| touches(name) && !there.contains(*name)).cloned().collect();
        for name in &gone {
            self.items.remove(name);
        }
        teller.gone(gone.iter().map(Text::of).collect()).await
    }

    /// Tells of a unit, unless it is in the state that was told.
    async fn tell(&mut self, name: String, item: UnitItem, teller: &mut Teller<Units>) -> Result<(), Stop> {
        if self.items.get(&name).is_some_and(|told| told.is_as(&item)) {
            return Ok(());
        }
        teller.item(&item).await?;
        self.items.insert(name, item);
        if self.items.len() > Units::MAX_ITEMS {
            return Err(Stop::failed(format_args!(
                "there are more than {} units by now; ask for less",
                Units::MAX_ITEMS
            )));
        }
        Ok(())
    }
}

/// Why systemd did not tell, and what to do about it.
pub(super) fn problem(error: SystemdError) -> Stop {
    let advice = match &error {
        SystemdError::Bus(_) | SystemdError::Runtime(_) => {
            "this kind needs a host that runs systemd and the D-Bus message bus: see `systemctl status dbus`"
        }
        SystemdError::Silent => "see `systemctl status dbus` on the host, and ask again when it answers",
        SystemdError::Ended => "ask again",
        SystemdError::Refused { .. } | SystemdError::Replaces { .. } | SystemdError::Strange(_) => {
            "see `systemctl list-units` and `journalctl --unit=fleetward-agent` on the host"
        }
    };
    Stop::failed(format_args!("{error}; {advice}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_changes_often_is_noted_once_and_too_much_is_everything() {
        let mut touched = Touched::nothing();
        for number in 0..10_000 {
            touched.note(Signal::Unit(format!("{}.service", number % MANY)));
        }
        assert!(matches!(&touched, Touched::Units(names) if names.len() == MANY), "{touched:?}");
        touched.note(Signal::Unit("one-more.service".into()));
        assert_eq!(touched, Touched::Everything);
        touched.note(Signal::Unit("a.service".into()));
        assert_eq!(touched, Touched::Everything);
    }
}
