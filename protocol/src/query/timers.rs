//! What timers start, and when.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::units::Pattern;
use super::{Contract, Key, Shows};
use crate::action::Privilege;
use crate::object::{Class, Object};
use crate::text::{Text, Word};
use crate::time::Timestamp;

/// Which timers are looked at: those that systemd has loaded.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Timers {
    /// With such a name only: `*` stands for any characters, `?` for one. The type may be left out: `backup` is `backup.timer`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schema(value_type = Option<String>, example = "backup*", max_length = 255))]
    pub pattern: Option<Pattern>,
}

/// A timer as it is now. Times are by the host's clock, also where the timer counts from the boot or from something else.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct TimerItem {
    /// Its whole name.
    #[cfg_attr(feature = "schema", schema(value_type = String, example = "backup.timer"))]
    pub name: Word,
    /// `active`, `inactive`, `failed`, …
    #[cfg_attr(feature = "schema", schema(value_type = String))]
    pub active: Word,
    /// When it is due next; absent if it is not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schema(inline))]
    pub next: Option<Timestamp>,
    /// When it was due last; absent if it never was, as far as the host knows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schema(inline))]
    pub last: Option<Timestamp>,
    /// The unit that it starts.
    #[cfg_attr(feature = "schema", schema(value_type = String))]
    pub starts: Word,
    /// Whether that one is active now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schema(value_type = Option<String>))]
    pub starts_active: Option<Word>,
    /// How that one last went: `success`, `exit-code`, `timeout`, …
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schema(value_type = Option<String>))]
    pub result: Option<Word>,
    /// Whether the timer is started at boot: `enabled`, `disabled`, `static`, …
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schema(value_type = Option<String>))]
    pub file: Option<Word>,
    /// What it is, in the words of its file.
    #[cfg_attr(feature = "schema", schema(value_type = String))]
    pub description: Text<512>,
}

impl Contract for Timers {
    const KIND: &'static str = "timers";
    const SUMMARY: &'static str = "List timers: when they were due, when they will be, and what they start.";
    const PRIVILEGE: Privilege = Privilege::Observe;
    const FOLLOWS: bool = false;
    const SHOWS: Shows = Shows::Table;
    const OBJECTS: &'static [Class] = &[Class::Units];
    const DEFAULT_TIMEOUT: Duration = Duration::from_secs(30);
    const MAX_ITEMS: usize = 4096;
    const MAX_BYTES: usize = 8 << 20;

    type Item = TimerItem;

    fn key(item: &TimerItem) -> Key {
        item.name.clone()
    }

    fn touches(&self) -> Vec<Object> {
        Vec::new()
    }

    fn shown(item: &TimerItem) -> Option<Object> {
        Some(Object::named(Class::Units, &item.name))
    }

    fn validate(&self) -> Result<(), String> {
        Ok(())
    }
}

impl Timers {
    /// Whether a timer of this name is meant.
    #[must_use]
    pub fn means(&self, name: &str) -> bool {
        let Some(stem) = name.strip_suffix(".timer") else { return false };
        self.pattern.as_ref().is_none_or(|pattern| pattern.matches(name) || pattern.matches(stem))
    }
}

/// When a timer is due next by the wall clock: it may have said so by that clock, by the time of the boot, or both; whichever
/// comes first. What is long ago by the time of the boot is due now.
#[must_use]
pub fn due(
    now: Timestamp,
    uptime: Duration,
    at: Option<Timestamp>,
    of_boot: Option<Duration>,
) -> Option<Timestamp> {
    let of_boot = of_boot.map(|due| match due.checked_sub(uptime) {
        Some(left) => now + left,
        None => now - (uptime - due),
    });
    match (at, of_boot) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timers_are_meant_by_their_names_with_and_without_the_type() {
        let named = |pattern: &str| Timers { pattern: Some(pattern.parse().unwrap()) };
        assert!(Timers::default().means("a.timer") && !Timers::default().means("a.service"));
        assert!(named("back*").means("backup.timer") && named("backup.timer").means("backup.timer"));
        assert!(!named("back").means("backup.timer"));
    }

    #[test]
    fn what_comes_first_by_either_clock_is_next() {
        let at = |seconds: i64| Timestamp::from_millis(seconds * 1000);
        let of_boot = |seconds| Some(Duration::from_secs(seconds));
        let due = |wall: Option<i64>, boot| due(at(1000), Duration::from_secs(300), wall.map(at), boot);
        assert_eq!(due(None, None), None);
        assert_eq!(due(Some(1700), None), Some(at(1700)));
        assert_eq!(due(None, of_boot(360)), Some(at(1060)));
        assert_eq!(due(None, of_boot(240)), Some(at(940)));
        assert_eq!(due(Some(1050), of_boot(360)), Some(at(1050)));
        assert_eq!(due(Some(1700), of_boot(360)), Some(at(1060)));
    }
}
