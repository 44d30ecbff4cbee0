//! What is true of a host: the facts that inventory, targeting and the console show. The layout never changes
//! within an ALPN version: a struct has no room for more, so new facts travel in a message of their own.

use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::id::BootId;
use crate::text::{List, Word};
use crate::wire::{self, MAX_CONTROL_FRAME};

/// The most file systems, and the most addresses, that facts name.
pub const MAX_LISTED: usize = 64;

/// The facts of one host at one time.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Facts {
    /// The kernel's host name (uname(2)).
    #[cfg_attr(feature = "schema", schema(value_type = String))]
    pub hostname: Word,
    /// `ID` of os-release(5), such as `debian`.
    #[cfg_attr(feature = "schema", schema(value_type = String))]
    pub os: Word,
    /// `VERSION_ID` of os-release(5), such as `12`; empty on rolling releases.
    #[cfg_attr(feature = "schema", schema(value_type = String))]
    pub os_version: Word,
    /// `PRETTY_NAME` of os-release(5).
    #[cfg_attr(feature = "schema", schema(value_type = String))]
    pub os_name: Word,
    /// Kernel release.
    #[cfg_attr(feature = "schema", schema(value_type = String))]
    pub kernel: Word,
    /// Machine architecture, such as `x86_64`.
    #[cfg_attr(feature = "schema", schema(value_type = String))]
    pub arch: Word,
    /// CPU model; empty where the kernel does not tell.
    #[cfg_attr(feature = "schema", schema(value_type = String))]
    pub cpu_model: Word,
    /// CPUs usable by this host.
    pub cpus: u32,
    /// Memory, in bytes, within the host's own limit where it has one.
    pub memory_total: u64,
    /// Memory available without swapping, in bytes.
    pub memory_available: u64,
    /// Swap, in bytes.
    pub swap_total: u64,
    /// Mounted file systems that hold data.
    #[cfg_attr(feature = "schema", schema(value_type = Vec<Disk>))]
    pub disks: List<Disk, MAX_LISTED>,
    /// Addresses that are not loopback or link-local, in text form.
    #[cfg_attr(feature = "schema", schema(value_type = Vec<String>))]
    pub addresses: List<Word, MAX_LISTED>,
    /// Seconds since boot.
    pub uptime_s: u64,
    /// Virtualisation as systemd-detect-virt(1) names it (`kvm`, `lxc`, `none`, …).
    #[cfg_attr(feature = "schema", schema(value_type = String))]
    pub virtualisation: Word,
    /// Load averages over 1, 5 and 15 minutes, in hundredths.
    pub load: [u32; 3],
    /// Whether a package update asks for a reboot (`/run/reboot-required`).
    pub reboot_required: bool,
}

impl Facts {
    /// The digest of what does not change by itself all the time, in this boot: facts with the same one are no news. By it a
    /// controller knows, at each new connection, whether it has them already. A log file that grows is no news, a disk
    /// that fills up by a hundredth is, and so is a tenth of the memory.
    #[must_use]
    pub fn digest(&self, boot: BootId) -> Digest {
        let parts = |available: u64, of: u64, total: u64| available.saturating_mul(of).checked_div(total);
        let disks = self.disks.iter().map(|disk| Disk {
            available: parts(disk.available, 100, disk.total).unwrap_or(0),
            ..disk.clone()
        });
        let lasting = Self {
            memory_available: parts(self.memory_available, 10, self.memory_total).unwrap_or(0),
            disks: List::of(disks),
            uptime_s: 0,
            load: [0; 3],
            ..self.clone()
        };
        // Within its lists' limits it fits; of what does not, the digest is one that no controller has.
        Digest::of(&wire::encode(&(boot, lasting), MAX_CONTROL_FRAME).unwrap_or_default())
    }
}

/// What a host needs of those who look after it, as far as it knows; facts of a message of their own
/// ([`AgentMessage::Upkeep`](crate::message::AgentMessage::Upkeep)).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Upkeep {
    /// Whether something keeps its clock right, as `timedatectl` tells it.
    pub time_synchronised: Option<bool>,
    /// How many packages have a newer version, by the lists that apt fetched last; absent where there is no apt, and until they
    /// were counted.
    pub updates: Option<u32>,
    /// For how many of them a newer version fixes security.
    pub security_updates: Option<u32>,
}

/// One mounted file system.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Disk {
    /// Where it is mounted.
    #[cfg_attr(feature = "schema", schema(value_type = String))]
    pub mount: Word,
    /// Its type, such as `ext4`.
    #[cfg_attr(feature = "schema", schema(value_type = String))]
    pub file_system: Word,
    /// Size, in bytes.
    pub total: u64,
    /// Space available to unprivileged users, in bytes.
    pub available: u64,
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::text::Text;

    #[test]
    fn the_digest_is_of_what_lasts() {
        let facts = Facts {
            hostname: Text::of("web-1"),
            os: Word::default(),
            os_version: Word::default(),
            os_name: Word::default(),
            kernel: Word::default(),
            arch: Word::default(),
            cpu_model: Word::default(),
            cpus: 1,
            memory_total: 1000,
            memory_available: 510,
            swap_total: 1,
            disks: List::of([Disk {
                mount: Text::of("/"),
                file_system: Text::of("ext4"),
                total: 1000,
                available: 511,
            }]),
            addresses: List::default(),
            uptime_s: 1,
            virtualisation: Word::default(),
            load: [1; 3],
            reboot_required: false,
        };
        let boot = BootId::from_uuid(Uuid::from_u128(1));
        let digest = facts.digest(boot);
        let with = |memory_available, available| Facts {
            memory_available,
            disks: List::of([Disk { available, ..facts.disks[0].clone() }]),
            uptime_s: 2,
            load: [2; 3],
            ..facts.clone()
        };
        assert_eq!(with(599, 519).digest(boot), digest);
        assert_ne!(with(499, 519).digest(boot), digest);
        assert_ne!(with(599, 509).digest(boot), digest);
        assert_ne!(Facts { reboot_required: true, ..facts.clone() }.digest(boot), digest);
        assert_ne!(facts.digest(BootId::from_uuid(Uuid::from_u128(2))), digest, "the uptime begins anew");
    }
}
