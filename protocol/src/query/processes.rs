//! Which processes a host has, and what they take of it.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Contract, Key, Shows};
use crate::action::Privilege;
use crate::choice::choices;
use crate::name::LinuxUser;
use crate::object::{Class, Object};
use crate::text::{Text, Word};
use crate::time::Timestamp;

/// How many processes are listed when nothing is said.
pub const DEFAULT_COUNT: u16 = 20;
/// The most processes that are listed.
pub const MAX_COUNT: u16 = 4096;

/// Which processes are listed: those that take the most. The agent's own that looks is not among them.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Processes {
    /// Of what they take the most; processor time when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schema(inline))]
    pub most: Option<Most>,
    /// So many, 1 to 4,096; 20 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schema(minimum = 1, maximum = 4096, example = 20))]
    pub count: Option<u16>,
    /// Of this Linux user only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schema(value_type = Option<String>, example = "www-data", max_length = 32))]
    pub user: Option<LinuxUser>,
}

choices! {
    /// What processes take of a host.
    pub enum Most {
        /// Processor time, while the host is looked at: half a second.
        Cpu = "cpu",
        /// Memory.
        Memory = "memory",
    }
}

/// A process. Its command line is not told: command lines hold passwords.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct ProcessItem {
    /// Its number.
    pub pid: u32,
    /// What it calls itself.
    #[cfg_attr(feature = "schema", schema(value_type = String, example = "nginx"))]
    pub name: Word,
    /// The Linux user it is.
    #[cfg_attr(feature = "schema", schema(value_type = String, example = "www-data"))]
    pub user: Word,
    /// The share of one processor that it took while the host was looked at, in hundredths of a percent: 15,000 is one and a half.
    pub cpu_share: u32,
    /// For how long processors have worked for it, in milliseconds.
    pub cpu_ms: u64,
    /// Memory of it that is in RAM, in bytes; memory that it shares with others counts for each.
    pub memory: u64,
    /// How many threads it has.
    pub threads: u32,
    /// `R` runs, `S` sleeps, `D` waits for a disk, `Z` has ended and nobody has asked how, `T` is stopped (proc_pid_stat(5)).
    #[cfg_attr(feature = "schema", schema(value_type = String, example = "S"))]
    pub state: Text<4>,
    /// The process that started it, or took it over; 0 is the kernel.
    pub parent: u32,
    /// The unit of systemd that it belongs to; absent for the kernel's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schema(value_type = Option<String>, example = "nginx.service"))]
    pub unit: Option<Word>,
    /// When it was started, by the host's clock.
    #[cfg_attr(feature = "schema", schema(inline))]
    pub since: Timestamp,
}

impl Contract for Processes {
    const KIND: &'static str = "processes";
    const SUMMARY: &'static str = "List the processes that take the most processor time or memory.";
    const PRIVILEGE: Privilege = Privilege::Observe;
    const FOLLOWS: bool = false;
    const SHOWS: Shows = Shows::Table;
    const OBJECTS: &'static [Class] = &[Class::Users];
    const DEFAULT_TIMEOUT: Duration = Duration::from_secs(30);
    const MAX_ITEMS: usize = MAX_COUNT as usize;
    const MAX_BYTES: usize = 8 << 20;

    type Item = ProcessItem;

    fn key(item: &ProcessItem) -> Key {
        Text::of(item.pid)
    }

    fn touches(&self) -> Vec<Object> {
        self.user.iter().map(|user| Object::named(Class::Users, user)).collect()
    }

    fn shown(item: &ProcessItem) -> Option<Object> {
        Some(Object::named(Class::Users, &item.user))
    }

    fn validate(&self) -> Result<(), String> {
        match self.count {
            Some(count) if !(1..=MAX_COUNT).contains(&count) => {
                Err(format!("`count` is {count}; name a number from 1 to {MAX_COUNT}"))
            }
            _ => Ok(()),
        }
    }
}

impl Processes {
    /// How many are listed.
    #[must_use]
    pub fn count(&self) -> usize {
        self.count.unwrap_or(DEFAULT_COUNT).into()
    }

    /// Whether a process of this user is meant.
    #[must_use]
    pub fn means(&self, user: &str) -> bool {
        self.user.as_ref().is_none_or(|meant| meant.as_str() == user)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::action::ActionRequest;
    use crate::query::{MAX_ITEM, Query};

    #[test]
    fn what_cannot_be_meant_is_refused() {
        for (params, told) in [
            (r#"{"count":0}"#, "from 1 to 4096"),
            (r#"{"count":4097}"#, "from 1 to 4096"),
            (r#"{"most":"disk"}"#, "disk"),
            (r#"{"user":"a b"}"#, "user"),
        ] {
            let request = ActionRequest { kind: "processes".into(), params: params.into() };
            let error = Query::parse(&request).unwrap_err().to_string();
            assert!(error.contains("`processes`") && error.contains(told), "{error}");
        }
        let asked = Processes { user: Some("deploy".parse().unwrap()), ..Processes::default() };
        assert_eq!((asked.means("deploy"), asked.means("root"), asked.count()), (true, false, 20));
        assert_eq!(asked.touches(), [Object::named(Class::Users, "deploy")]);
    }

    #[test]
    fn the_largest_item_fits() {
        let item = ProcessItem {
            pid: u32::MAX,
            name: Text::of("\"".repeat(255)),
            user: Text::of("\"".repeat(255)),
            cpu_share: u32::MAX,
            cpu_ms: u64::MAX,
            memory: u64::MAX,
            threads: u32::MAX,
            state: Text::of("\"\"\"\""),
            parent: u32::MAX,
            unit: Some(Text::of("\"".repeat(255))),
            since: Timestamp::from_millis(i64::MAX),
        };
        assert_eq!(Processes::key(&item), u32::MAX.to_string().as_str());
        assert!(serde_json::to_string(&item).unwrap().len() <= MAX_ITEM);
    }
}
