//! What stands in a host's row of its facts.
//!
//! These are the store's own fields: what travels may change, what is stored may not. A field that is not known here is passed
//! over, one that is missing is empty, and what is not printable (nothing that came by the wire) is cut: a row never
//! keeps a list from being shown.

use fleetward_protocol::facts::{Disk, Facts, Upkeep};
use fleetward_protocol::text::{List, Text};
use serde::{Deserialize, Serialize};

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct Stored {
    hostname: String,
    os: String,
    os_version: String,
    os_name: String,
    kernel: String,
    arch: String,
    cpu_model: String,
    cpus: u32,
    memory_total: u64,
    memory_available: u64,
    swap_total: u64,
    disks: Vec<StoredDisk>,
    addresses: Vec<String>,
    uptime_s: u64,
    virtualisation: String,
    load: [u32; 3],
    reboot_required: bool,
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct StoredDisk {
    mount: String,
    file_system: String,
    total: u64,
    available: u64,
}

/// Facts as they are stored.
pub(super) fn write(facts: &Facts) -> String {
    let disk = |disk: &Disk| StoredDisk {
        mount: disk.mount.as_str().to_owned(),
        file_system: disk.file_system.as_str().to_owned(),
        total: disk.total,
        available: disk.available,
    };
    let stored = Stored {
        hostname: facts.hostname.as_str().to_owned(),
        os: facts.os.as_str().to_owned(),
        os_version: facts.os_version.as_str().to_owned(),
        os_name: facts.os_name.as_str().to_owned(),
        kernel: facts.kernel.as_str().to_owned(),
        arch: facts.arch.as_str().to_owned(),
        cpu_model: facts.cpu_model.as_str().to_owned(),
        cpus: facts.cpus,
        memory_total: facts.memory_total,
        memory_available: facts.memory_available,
        swap_total: facts.swap_total,
        disks: facts.disks.iter().map(disk).collect(),
        addresses: facts.addresses.iter().map(|address| address.as_str().to_owned()).collect(),
        uptime_s: facts.uptime_s,
        virtualisation: facts.virtualisation.as_str().to_owned(),
        load: facts.load,
        reboot_required: facts.reboot_required,
    };
    // Strings, numbers and flags only: nothing that JSON could not hold.
    serde_json::to_string(&stored).unwrap_or_default()
}

/// Reads facts; none if the text is not of that shape. They are told again when they, or the boot, have changed.
pub(super) fn read(text: &str) -> Option<Facts> {
    let stored: Stored = serde_json::from_str(text).ok()?;
    let disk = |disk: StoredDisk| Disk {
        mount: Text::of(disk.mount),
        file_system: Text::of(disk.file_system),
        total: disk.total,
        available: disk.available,
    };
    Some(Facts {
        hostname: Text::of(stored.hostname),
        os: Text::of(stored.os),
        os_version: Text::of(stored.os_version),
        os_name: Text::of(stored.os_name),
        kernel: Text::of(stored.kernel),
        arch: Text::of(stored.arch),
        cpu_model: Text::of(stored.cpu_model),
        cpus: stored.cpus,
        memory_total: stored.memory_total,
        memory_available: stored.memory_available,
        swap_total: stored.swap_total,
        disks: List::of(stored.disks.into_iter().map(disk)),
        addresses: List::of(stored.addresses.into_iter().map(Text::of)),
        uptime_s: stored.uptime_s,
        virtualisation: Text::of(stored.virtualisation),
        load: stored.load,
        reboot_required: stored.reboot_required,
    })
}

/// What a host needs, as it is stored.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct StoredUpkeep {
    time_synchronised: Option<bool>,
    updates: Option<u32>,
    security_updates: Option<u32>,
}

/// What a host needs, as it is stored.
pub(super) fn write_upkeep(upkeep: &Upkeep) -> String {
    let Upkeep { time_synchronised, updates, security_updates } = *upkeep;
    // Numbers and flags only.
    serde_json::to_string(&StoredUpkeep { time_synchronised, updates, security_updates }).unwrap_or_default()
}

/// Reads what a host needs; none if the text is not of that shape.
pub(super) fn read_upkeep(text: &str) -> Option<Upkeep> {
    let stored: StoredUpkeep = serde_json::from_str(text).ok()?;
    let StoredUpkeep { time_synchronised, updates, security_updates } = stored;
    Some(Upkeep { time_synchronised, updates, security_updates })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is stored is read for good: the text is never changed, whatever the wire calls a field.
    #[test]
    fn stored_facts_keep_their_text() {
        let facts = Facts {
            hostname: Text::of("web-1"),
            os: Text::of("debian"),
            os_version: Text::of("12"),
            os_name: Text::of("Debian GNU/Linux 12"),
            kernel: Text::of("6.1.0"),
            arch: Text::of("x86_64"),
            cpu_model: Text::of("EPYC"),
            cpus: 2,
            memory_total: 8,
            memory_available: 4,
            swap_total: 1,
            disks: List::of([Disk {
                mount: Text::of("/"),
                file_system: Text::of("ext4"),
                total: 10,
                available: 5,
            }]),
            addresses: List::of([Text::of("192.0.2.7")]),
            uptime_s: 60,
            virtualisation: Text::of("kvm"),
            load: [1, 2, 3],
            reboot_required: true,
        };
        let stored = write(&facts);
        expect_test::expect![[r#"{"hostname":"web-1","os":"debian","os_version":"12","os_name":"Debian GNU/Linux 12","kernel":"6.1.0","arch":"x86_64","cpu_model":"EPYC","cpus":2,"memory_total":8,"memory_available":4,"swap_total":1,"disks":[{"mount":"/","file_system":"ext4","total":10,"available":5}],"addresses":["192.0.2.7"],"uptime_s":60,"virtualisation":"kvm","load":[1,2,3],"reboot_required":true}"#]].assert_eq(&stored);
        assert_eq!(read(&stored), Some(facts));
    }

    #[test]
    fn what_is_stored_of_upkeep_keeps_its_text() {
        let upkeep = Upkeep { time_synchronised: Some(true), updates: Some(7), security_updates: None };
        let stored = write_upkeep(&upkeep);
        assert_eq!(stored, r#"{"time_synchronised":true,"updates":7,"security_updates":null}"#);
        assert_eq!(read_upkeep(&stored), Some(upkeep));
        let newer = read_upkeep(r#"{"time_synchronised":false,"firmware":{"updates":1}}"#);
        assert_eq!(newer, Some(Upkeep { time_synchronised: Some(false), ..Upkeep::default() }));
        assert_eq!(read_upkeep(r#"{"updates":"many"}"#), None);
    }

    #[test]
    fn facts_of_another_build_are_read_as_far_as_they_are_understood() {
        let facts = read(r#"{"hostname":"web-1","gpus":[{"model":"x"}],"disks":[{"mount":"/","inodes":7}]}"#)
            .unwrap();
        assert_eq!((facts.hostname.as_str(), facts.disks[0].mount.as_str(), facts.cpus), ("web-1", "/", 0));
        assert_eq!(read(r#"{"cpus":"many"}"#), None);
    }
}
