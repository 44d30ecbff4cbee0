//! A wall clock of its own for each host, which can be stepped.
//!
//! Hosts of a lab share this machine's kernel, whose wall clock has no namespaces. So each program of a host is linked
//! to a small library first that adds what a file says to what the kernel says.

use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use crate::lab::Host;
use crate::process;

const SOURCE: &str = include_str!("clock.c");
const LIBRARY: &str = "usr/lib/chaos-clock.so";
/// Eight bytes, little-endian: the seconds.
const STEP: &str = "var/lib/chaos-clock";
const COMPILE: Duration = Duration::from_secs(60);

/// Compiles the library into a directory.
///
/// # Errors
/// When there is no C compiler, which the linker of Rust programs needs as well.
pub(super) fn compile(directory: &Path) -> Result<PathBuf> {
    let (source, library) = (directory.join("clock.c"), directory.join("clock.so"));
    fs::write(&source, SOURCE)?;
    let mut cc = Command::new("cc");
    cc.args(["-O2", "-Wall", "-Werror", "-shared", "-fPIC", "-o"]).arg(&library).arg(&source);
    process::succeed(&mut cc, COMPILE)?;
    Ok(library)
}

/// Gives a host that is down a clock of its own.
///
/// # Errors
/// When the host is up, or its files cannot be written.
pub(super) fn install(host: &Host, library: &Path) -> Result<()> {
    ensure!(!host.is_up(), "{} is up: it gets its clock while it is down", host.name());
    fs::copy(library, host.root().join(LIBRARY))?;
    fs::write(host.root().join(STEP), 0_i64.to_le_bytes())?;
    fs::write(host.root().join("etc/ld.so.preload"), format!("/{LIBRARY}\n"))?;
    Ok(())
}

/// Lets a host's clock be wrong by that many seconds from now on.
///
/// # Errors
/// When the host did not get a clock, or does not go by it.
pub(super) fn step(host: &Host, seconds: i64) -> Result<()> {
    let path = host.root().join(STEP);
    let file = File::options().write(true).open(&path).with_context(|| path.display().to_string())?;
    // In place: programs have this file mapped.
    file.write_all_at(&seconds.to_le_bytes(), 0)?;
    Ok(())
}

/// By how many seconds a host's clock is wrong.
///
/// # Errors
/// When the host does not tell.
pub(super) fn read_step(host: &Host) -> Result<i64> {
    let there: i64 = host.run(&["date", "+%s"])?.parse()?;
    Ok(there - super::diary::now() / 1000)
}
