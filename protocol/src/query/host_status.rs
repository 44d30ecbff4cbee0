//! How a host is, in one item.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Contract, Key, Shows};
use crate::action::Privilege;
use crate::object::{Class, Object};
use crate::text::{List, Text, Word};
use crate::time::Timestamp;

/// The most packages that are told to ask for a reboot, and the most units that are told to have failed.
pub const MAX_NAMED: usize = 12;

/// How the host is. It takes no parameters.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct HostStatus {}

/// How the host is now. What is absent, the host does not tell.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(default)]
pub struct HostStatusItem {
    /// The kernel's host name.
    #[cfg_attr(feature = "schema", schema(value_type = String))]
    pub hostname: Word,
    /// The system, as it calls itself.
    #[cfg_attr(feature = "schema", schema(value_type = String, example = "Debian GNU/Linux 12 (bookworm)"))]
    pub os_name: Word,
    /// Kernel release.
    #[cfg_attr(feature = "schema", schema(value_type = String))]
    pub kernel: Word,
    /// Virtualisation as systemd-detect-virt(1) names it (`kvm`, `lxc`, `none`, …).
    #[cfg_attr(feature = "schema", schema(value_type = String))]
    pub virtualisation: Word,
    /// Since when it is up.
    #[cfg_attr(feature = "schema", schema(inline))]
    pub up_since: Option<Timestamp>,
    /// Seconds since boot.
    pub uptime_s: u64,
    /// CPUs usable by this host.
    pub cpus: u32,
    /// Load averages over 1, 5 and 15 minutes, in hundredths.
    pub load: [u32; 3],
    /// Share of the last five minutes in which something waited for a CPU, in hundredths of a percent (PSI; the host keeps no
    /// longer view).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_pressure: Option<u32>,
    /// The same for memory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_pressure: Option<u32>,
    /// The same for disks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub io_pressure: Option<u32>,
    /// Memory, in bytes, within the host's own limit where it has one.
    pub memory_total: u64,
    /// Memory available without swapping, in bytes.
    pub memory_available: u64,
    /// Swap, in bytes.
    pub swap_total: u64,
    /// Swap that is in use, in bytes.
    pub swap_used: u64,
    /// Whether something keeps the clock right: the kernel knows it to be off by less than 16 seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub time_synchronised: Option<bool>,
    /// Whether a package update asks for a reboot (`/run/reboot-required`).
    pub reboot_required: bool,
    /// Which packages do, the first 12.
    #[serde(skip_serializing_if = "is_empty")]
    #[cfg_attr(feature = "schema", schema(value_type = Vec<String>))]
    pub reboot_packages: List<Text<128>, MAX_NAMED>,
    /// `running` where all is well; `degraded`, `starting`, `maintenance`, … in the words of systemd.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schema(value_type = Option<String>))]
    pub system: Option<Word>,
    /// How many units failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failed_units: Option<u32>,
    /// Packages that have a newer version, by the lists that apt fetched last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub updates: Option<u32>,
    /// How many of these fix security.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub security_updates: Option<u32>,
    /// The agent's version.
    #[cfg_attr(feature = "schema", schema(value_type = String))]
    pub agent_version: Word,
    /// Seconds since the agent was started.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub agent_uptime_s: Option<u64>,
    /// Memory that is the agent's alone, in bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub agent_memory: Option<u64>,
    /// The controller that it is connected to.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schema(value_type = Option<String>))]
    pub agent_controller: Option<Word>,
    /// Since when.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schema(inline))]
    pub agent_connected_since: Option<Timestamp>,
    /// The size of the agent's journal, in bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub agent_journal: Option<u64>,
    /// What is free on the disk on which it has its journal and the output of runs, in bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub agent_free: Option<u64>,
}

impl Contract for HostStatus {
    const KIND: &'static str = "host-status";
    const SUMMARY: &'static str =
        "Show how a host is: load, memory, pending reboots and updates, and its agent.";
    const PRIVILEGE: Privilege = Privilege::Observe;
    const FOLLOWS: bool = false;
    const SHOWS: Shows = Shows::Table;
    const OBJECTS: &'static [Class] = &[];
    // apt is asked what there is to upgrade, and may have to read all its lists anew.
    const DEFAULT_TIMEOUT: Duration = Duration::from_secs(60);
    const MAX_ITEMS: usize = 1;
    const MAX_BYTES: usize = 64 << 10;

    type Item = HostStatusItem;

    fn key(_: &HostStatusItem) -> Key {
        Text::of("host")
    }

    fn touches(&self) -> Vec<Object> {
        Vec::new()
    }

    fn shown(_: &HostStatusItem) -> Option<Object> {
        None
    }

    fn validate(&self) -> Result<(), String> {
        Ok(())
    }
}

fn is_empty(packages: &List<Text<128>, MAX_NAMED>) -> bool {
    packages.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::query::MAX_ITEM;

    #[test]
    fn the_largest_item_fits() {
        let word = || Word::of("\"".repeat(255));
        let item = HostStatusItem {
            hostname: word(),
            os_name: word(),
            kernel: word(),
            virtualisation: word(),
            reboot_packages: List::of((0..99).map(|_| Text::of("\"".repeat(128)))),
            system: Some(word()),
            agent_version: word(),
            agent_controller: Some(word()),
            ..HostStatusItem::default()
        };
        let length = serde_json::to_string(&item).unwrap().len() + 20 * 30;
        assert!(length <= MAX_ITEM, "{length}");
    }
}
