//! What a process works on stays its own until it has ended.
//!
//! A run's resources are let go when its supervisor has gone, and a supervisor can be killed: the process that it watched works on,
//! to its end or back to where it began. Whoever comes next waits for that.

use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::path::Path;
use std::time::Duration;

use fleetward_protocol::digest::Digest;
use fleetward_protocol::name::ResourceName;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::os::fd::AsFd as _;

use super::teller::Teller;
use crate::platform::stop::Stop;
use crate::platform::{files, lock_files};

/// The directory of the locks, in that of the agent's state.
const LOCKS: &str = "locks";
/// Between two attempts.
const RETRY: u16 = 200;
/// How many hexadecimal digits of a resource's digest are the name of its lock: so many that no two resources share one.
const DIGITS: usize = 16;
/// A lock that nobody had for so long is removed.
const UNUSED: Duration = Duration::from_secs(24 * 3600);

/// Locks that are held until this is dropped, or the process ends, however that is.
#[derive(Debug)]
pub(super) struct Held {
    _locks: Vec<File>,
}

/// Waits until nobody else works on these, whom a killed supervisor has left.
///
/// # Errors
/// If a lock cannot be had, or this process is asked to stop before.
pub(super) fn hold(
    state: &Path,
    resources: &[ResourceName],
    stop: &mut Stop,
    teller: &mut Teller,
) -> Result<Held, String> {
    let directory = state.join(LOCKS);
    // In one order, so that no two wait for each other.
    let names: BTreeSet<String> = resources
        .iter()
        .map(|name| Digest::of(name.as_str().as_bytes()).to_string().chars().take(DIGITS).collect())
        .collect();
    if !names.is_empty() {
        files::ensure_directory(&directory, 0o700).map_err(|error| error.to_string())?;
    }
    let mut locks = Vec::new();
    let mut told = false;
    for name in names {
        let path = directory.join(name);
        loop {
            if let Some(lock) = lock_files::lock(&path).map_err(|error| error.to_string())? {
                locks.push(lock);
                break;
            }
            if !told {
                teller.say("waiting for what an earlier run, whose supervisor was killed, still does");
                told = true;
            }
            pause(stop).map_err(|error| error.to_string())?;
            if let Some(why) = stop.requested() {
                return Err(format!("{} while an earlier run was still at work", why.words()));
            }
        }
    }
    // There is one for each resource that was ever worked on.
    lock_files::remove_unused(&directory, UNUSED);
    Ok(Held { _locks: locks })
}

fn pause(stop: &Stop) -> io::Result<()> {
    match poll(&mut [PollFd::new(stop.as_fd(), PollFlags::POLLIN)], PollTimeout::from(RETRY)) {
        Ok(_) | Err(nix::errno::Errno::EINTR) => Ok(()),
        Err(error) => Err(error.into()),
    }
}
