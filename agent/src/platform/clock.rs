//! The host's clocks, read at the rim and passed on as values.

use std::path::Path;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use fleetward_protocol::digest::Digest;
use fleetward_protocol::id::BootId;
use fleetward_protocol::session::Monotonic;
use fleetward_protocol::time::Timestamp;
use uuid::Uuid;

/// The wall clock.
#[must_use]
pub fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    Timestamp::from_millis(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}

/// Time since `start` on the clock that never steps.
#[must_use]
pub fn monotonic(start: Instant) -> Monotonic {
    Monotonic(start.elapsed())
}

/// The time of this boot, on the clock that never steps and that the system's journal has beside each line
/// (CLOCK_MONOTONIC).
#[must_use]
pub fn uptime() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the kernel writes one structure. This clock is always there (clock_gettime(2)).
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut time) };
    let (seconds, nanos) = (u64::try_from(time.tv_sec), u32::try_from(time.tv_nsec));
    Duration::new(seconds.unwrap_or(0), nanos.unwrap_or(0))
}

/// Whether something keeps the wall clock right; `None` where the kernel does not tell. As `timedatectl` has it
/// (`NTPSynchronized` of org.freedesktop.timedate1(5)): whatever does it tells the kernel how far off the clock may be.
#[must_use]
pub fn read_is_synchronised() -> Option<bool> {
    /// 16 seconds, in microseconds: where the kernel itself holds a clock that nobody sets for unsynchronised (adjtimex(2)).
    const FAR_OFF: libc::c_long = 16_000_000;
    // SAFETY: all zeros is a value of this structure of numbers; without modes it asks, and sets nothing.
    let mut state: libc::timex = unsafe { std::mem::zeroed() };
    // SAFETY: the kernel writes one structure.
    let told = unsafe { libc::adjtimex(&raw mut state) };
    (told >= 0).then_some(state.maxerror < FAR_OFF)
}

/// How long ago the process was started that this proc_pid_stat(5) is of.
#[must_use]
pub fn read_age(stat: &Path) -> Option<Duration> {
    let ticks = read_start_time(stat)?;
    let in_second = nix::unistd::sysconf(nix::unistd::SysconfVar::CLK_TCK).ok()??;
    let millis = ticks.checked_mul(1000)?.checked_div(u64::try_from(in_second).ok()?)?;
    // Started after the boot, which counts the time asleep.
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the kernel writes one structure. This clock is always there (clock_gettime(2)).
    unsafe { libc::clock_gettime(libc::CLOCK_BOOTTIME, &raw mut time) };
    let now = Duration::from_secs(u64::try_from(time.tv_sec).ok()?);
    Some(now.saturating_sub(Duration::from_millis(millis)))
}

/// This boot of the host. In a container the kernel's boot id outlives the container's own restart, so the
/// start time of its first process counts too.
///
/// # Errors
/// If `/proc` cannot be read.
pub fn read_boot() -> std::io::Result<BootId> {
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
    let first = read_start_time(Path::new("/proc/1/stat")).unwrap_or(0);
    let digest = Digest::of(format!("{} {first}", boot.trim()).as_bytes());
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&digest.as_bytes()[..16]);
    Ok(BootId::from_uuid(uuid::Builder::from_custom_bytes(bytes).into_uuid()))
}

/// A fresh identifier, sortable by creation time.
#[must_use]
pub fn fresh_uuid() -> Uuid {
    Uuid::now_v7()
}

// Field 22 of proc_pid_stat(5), in clock ticks after boot. The name in parentheses may hold anything.
fn read_start_time(path: &Path) -> Option<u64> {
    let stat = std::fs::read_to_string(path).ok()?;
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_ascii_whitespace().nth(19)?.parse().ok()
}
