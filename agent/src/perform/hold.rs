//! What a process works on stays its own until it has ended.
//!
//! A run's resources are let go when its supervisor has gone, and a supervisor can be killed: the process that it watched works on,
//! to its end or back to where it began. Whoever comes next waits for that.

use std::collections::BTreeSet;
use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::{Duration, SystemTime};

use fleetward_protocol::digest::Digest;
use fleetward_protocol::name::ResourceName;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::os::fd::AsFd as _;

use super::teller::Teller;
use crate::platform::files;
use crate::platform::stop::Stop;

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
            if let Some(lock) = lock(&path)? {
                // From now on it is in use, also for whoever removes what is not. Without that it goes sooner.
                drop(lock.set_modified(SystemTime::now()));
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
    remove_unused(&directory);
    Ok(Held { _locks: locks })
}

/// The lock at this path; `None` if another process has it.
fn lock(path: &Path) -> Result<Option<File>, String> {
    loop {
        let Some(lock) = files::lock_exclusively(path).map_err(|error| error.to_string())? else {
            return Ok(None);
        };
        // Between its opening and its locking it may have been removed: then whoever comes next would lock another one.
        if is_at(&lock, path).map_err(|error| format!("look at {}: {error}", path.display()))? {
            return Ok(Some(lock));
        }
    }
}

/// Whether this file is the one at the path.
fn is_at(file: &File, path: &Path) -> io::Result<bool> {
    let identity = |metadata: &Metadata| (metadata.dev(), metadata.ino());
    match std::fs::symlink_metadata(path) {
        Ok(there) => Ok(identity(&there) == identity(&file.metadata()?)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Removes locks that nobody had for long: there is one for each resource that was ever worked on. What cannot be removed stays, and
/// is in nobody's way.
fn remove_unused(directory: &Path) {
    let is_unused = |metadata: io::Result<Metadata>| {
        let age = metadata.and_then(|metadata| metadata.modified()).map(|modified| modified.elapsed());
        age.is_ok_and(|age| age.is_ok_and(|age| age > UNUSED))
    };
    for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
        let path = entry.path();
        if is_unused(entry.metadata())
            && let Ok(Some(lock)) = lock(&path)
            // Somebody may have had it meanwhile.
            && is_unused(lock.metadata())
        {
            drop(std::fs::remove_file(&path));
        }
    }
}

fn pause(stop: &Stop) -> io::Result<()> {
    match poll(&mut [PollFd::new(stop.as_fd(), PollFlags::POLLIN)], PollTimeout::from(RETRY)) {
        Ok(_) | Err(nix::errno::Errno::EINTR) => Ok(()),
        Err(error) => Err(error.into()),
    }
}
