//! The Debian root that all hosts are overlaid on: built once by debootstrap, never changed afterwards.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result};

use crate::process;

const SUITE: &str = "bookworm";

/// What a host has beside a minimal Debian: what the packages under test need, what tests look at hosts with, and what
/// the peers in benchmarks need (sshd, python3).
const PACKAGES: [&str; 18] = [
    "ca-certificates",
    "dbus",
    "dbus-user-session",
    "git",
    "iproute2",
    "iptables",
    "iputils-ping",
    "libpam-systemd",
    "libssl3",
    "nginx-light",
    "openssh-server",
    "procps",
    "python3",
    "python3-apt",
    "sudo",
    "systemd",
    "systemd-sysv",
    "udev",
];

/// Units that are off in every host: they would contact the network or spend CPU that benchmarks count. Tests start
/// nginx and ssh where they want them.
const DISABLED: [&str; 2] = ["nginx.service", "ssh.service"];
const MASKED: [&str; 6] = [
    "apt-daily-upgrade.timer",
    "apt-daily.timer",
    "dpkg-db-backup.timer",
    "e2scrub_all.timer",
    "e2scrub_reap.service",
    "fstrim.timer",
];

/// The base root of the package list above, built if it is not there yet.
pub(super) fn ensure_base(directory: &Path) -> Result<PathBuf> {
    let root = directory.join(format!("base-{SUITE}-{}", fingerprint()));
    fs::create_dir_all(directory).with_context(|| format!("create {}", directory.display()))?;
    let lock = File::create(directory.join("base.lock"))?;
    lock.lock().context("wait for another build of the base root")?;
    if root.is_dir() {
        return Ok(root);
    }
    // Only a finished root gets its name, so a build that was interrupted is never used.
    let unfinished = directory.join("base.unfinished");
    if unfinished.exists() {
        fs::remove_dir_all(&unfinished).with_context(|| format!("remove {}", unfinished.display()))?;
    }
    let archives = directory.join("archives");
    fs::create_dir_all(&archives)?;
    process::succeed(
        Command::new("debootstrap")
            .arg("--variant=minbase")
            .arg(format!("--include={}", PACKAGES.join(",")))
            .arg(format!("--cache-dir={}", archives.canonicalize()?.display()))
            .arg(SUITE)
            .arg(&unfinished)
            .env("DEBIAN_FRONTEND", "noninteractive"),
        Duration::from_secs(900),
    )
    .context("build the lab's Debian root")?;
    let mut systemctl = Command::new("systemctl");
    systemctl.arg("--quiet").arg("--root").arg(&unfinished);
    process::succeed(systemctl.arg("disable").args(DISABLED), Duration::from_secs(60))?;
    let units = unfinished.join("etc/systemd/system");
    for unit in MASKED {
        std::os::unix::fs::symlink("/dev/null", units.join(unit)).with_context(|| format!("mask {unit}"))?;
    }
    let mut systemctl = Command::new("systemctl");
    systemctl.arg("--quiet").arg("--root").arg(&unfinished);
    process::succeed(systemctl.args(["enable", "systemd-networkd.service"]), Duration::from_secs(60))?;
    // Keys are a host's own: sshd makes them when a test starts it.
    for entry in fs::read_dir(unfinished.join("etc/ssh"))? {
        let path = entry?.path();
        if path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("ssh_host_")) {
            fs::remove_file(path)?;
        }
    }
    fs::rename(&unfinished, &root)?;
    Ok(root)
}

/// Changes when the recipe changes, so that an old root is not mistaken for the new one.
fn fingerprint() -> String {
    // FNV-1a: a name, not a defence.
    let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
    for byte in PACKAGES.iter().chain(&DISABLED).chain(&MASKED).flat_map(|word| word.bytes().chain([0])) {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    }
    format!("{:08x}", hash >> 32)
}
