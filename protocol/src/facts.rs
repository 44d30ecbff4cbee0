//! What is true of a host: the facts that inventory, targeting and the console show. The layout never changes
//! within an ALPN version: a struct has no room for more, so new facts travel in a message of their own.

use serde::{Deserialize, Serialize};

use crate::text::{List, Word};

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
