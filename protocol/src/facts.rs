//! What is true of a host: the facts that inventory, targeting and the console show. The layout never changes
//! within an ALPN version: a struct has no room for more, so new facts travel in a message of their own.

use serde::{Deserialize, Serialize};

/// The facts of one host at one time.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Facts {
    /// The kernel's host name (uname(2)).
    pub hostname: String,
    /// `ID` of os-release(5), such as `debian`.
    pub os: String,
    /// `VERSION_ID` of os-release(5), such as `12`; empty on rolling releases.
    pub os_version: String,
    /// `PRETTY_NAME` of os-release(5).
    pub os_name: String,
    /// Kernel release.
    pub kernel: String,
    /// Machine architecture, such as `x86_64`.
    pub arch: String,
    /// CPU model; empty where the kernel does not tell.
    pub cpu_model: String,
    /// CPUs usable by this host.
    pub cpus: u32,
    /// Memory, in bytes, within the host's own limit where it has one.
    pub memory_total: u64,
    /// Memory available without swapping, in bytes.
    pub memory_available: u64,
    /// Swap, in bytes.
    pub swap_total: u64,
    /// Mounted file systems that hold data.
    pub disks: Vec<Disk>,
    /// Addresses that are not loopback or link-local, in text form.
    pub addresses: Vec<String>,
    /// Seconds since boot.
    pub uptime_s: u64,
    /// Virtualisation as systemd-detect-virt(1) names it (`kvm`, `lxc`, `none`, …).
    pub virtualisation: String,
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
    pub mount: String,
    /// Its type, such as `ext4`.
    pub file_system: String,
    /// Size, in bytes.
    pub total: u64,
    /// Space available to unprivileged users, in bytes.
    pub available: u64,
}
