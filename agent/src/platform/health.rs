//! How the host does at the moment, beside its [facts](super::facts): what changes all the time.

use std::fs::{self, File};
use std::io::Read as _;
use std::path::Path;
use std::time::Duration;

use super::clock;

/// The most of such a file that is read.
const MAX_FILE: u64 = 64 << 10;

/// What processes wait for, by the names of the kernel's files (PSI, `Documentation/accounting/psi.rst`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resource {
    /// Time on a CPU.
    Cpu,
    /// Memory.
    Memory,
    /// Disks.
    Io,
}

/// Share of the last five minutes in which something waited for it, in hundredths of a percent. None where the kernel does not
/// count that.
#[must_use]
pub fn read_pressure(resource: Resource) -> Option<u32> {
    let name = match resource {
        Resource::Cpu => "cpu",
        Resource::Memory => "memory",
        Resource::Io => "io",
    };
    parse_pressure(&read(Path::new("/proc/pressure").join(name))?)
}

// `some avg10=0.00 avg60=0.12 avg300=1.05 total=123`
fn parse_pressure(text: &str) -> Option<u32> {
    let some = text.lines().find_map(|line| line.strip_prefix("some "))?;
    let share = some.split_ascii_whitespace().find_map(|field| field.strip_prefix("avg300="))?;
    let (whole, parts) = share.split_once('.')?;
    let (whole, parts): (u32, u32) = (whole.parse().ok()?, parts.get(..2)?.parse().ok()?);
    whole.checked_mul(100)?.checked_add(parts)
}

/// Swap that is in use, in bytes.
#[must_use]
pub fn read_swap_used() -> u64 {
    parse_swap_used(&read("/proc/meminfo").unwrap_or_default())
}

fn parse_swap_used(text: &str) -> u64 {
    field(text, "SwapTotal").unwrap_or(0).saturating_sub(field(text, "SwapFree").unwrap_or(0))
}

/// Memory that is this process's alone, in bytes.
#[must_use]
pub fn read_memory(pid: u32) -> Option<u64> {
    field(&read(format!("/proc/{pid}/status"))?, "RssAnon")
}

/// For how long this process has been there.
#[must_use]
pub fn read_age(pid: u32) -> Option<Duration> {
    clock::read_age(Path::new(&format!("/proc/{pid}/stat")))
}

/// The size of everything in a directory that is a file, in bytes; of a file its own.
#[must_use]
pub fn read_size(path: &Path) -> Option<u64> {
    let is = fs::symlink_metadata(path).ok()?;
    if !is.is_dir() {
        return Some(is.len());
    }
    let files = fs::read_dir(path).ok()?.flatten().filter_map(|entry| entry.metadata().ok());
    Some(files.filter(fs::Metadata::is_file).map(|file| file.len()).fold(0, u64::saturating_add))
}

fn read(path: impl AsRef<Path>) -> Option<String> {
    let mut content = Vec::new();
    File::open(path).ok()?.take(MAX_FILE).read_to_end(&mut content).ok()?;
    Some(String::from_utf8_lossy(&content).into_owned())
}

/// `Name:   123 kB`, in bytes.
fn field(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    line.split_ascii_whitespace().next()?.parse::<u64>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn pressure_is_that_of_five_minutes() {
        let text = "some avg10=0.00 avg60=0.12 avg300=1.05 total=123\nfull avg10=0.00 avg60=0.00 avg300=9.99 total=9\n";
        assert_eq!(parse_pressure(text), Some(105));
        assert_eq!(parse_pressure("some avg10=0.00 avg60=0.00 avg300=100.00 total=1\n"), Some(10_000));
        assert_eq!(parse_pressure("full avg10=0.00 avg60=0.00 avg300=9.99 total=9\n"), None);
    }

    #[test]
    fn swap_in_use_is_what_is_not_free() {
        assert_eq!(parse_swap_used("SwapTotal:  2048 kB\nSwapFree:   1024 kB\n"), 1 << 20);
        assert_eq!(parse_swap_used("MemTotal: 1 kB\n"), 0);
    }

    proptest! {
        #[test]
        fn whatever_stands_there_is_read_or_passed_over(text in "(some |avg300=|SwapTotal:|[0-9]{1,25}|\\.|\n| ){0,12}") {
            parse_pressure(&text);
            parse_swap_used(&text);
        }
    }

    #[test]
    fn we_have_memory_and_an_age() {
        let ours = std::process::id();
        assert!(read_memory(ours).is_some_and(|bytes| bytes > 4096));
        assert!(
            read_age(ours).is_some_and(|age| age < clock::uptime() + Duration::from_secs(3600 * 24 * 3650))
        );
        assert_eq!(read_age(u32::MAX), None);
        assert_eq!(read_memory(u32::MAX), None);
    }
}
