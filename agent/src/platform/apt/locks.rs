//! Who holds the locks of apt and dpkg.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd as _;
use std::path::Path;

use fleetward_protocol::text::{Line, Text};

use super::Apt;

/// Which locks are asked about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Locks {
    /// Those that a change of packages takes.
    Packages,
    /// The one that a refresh of the lists takes.
    Lists,
}

impl Apt {
    /// Who holds one of these locks, in words; `None` if nobody does. It takes none, and waits for none.
    #[must_use]
    pub fn read_holder(&self, locks: Locks) -> Option<Line> {
        let files = match locks {
            Locks::Lists => vec![self.lists.join("lock")],
            // dpkg's own comes second: a dpkg that apt did not start holds both.
            Locks::Packages => {
                vec![self.admin.join("lock-frontend"), self.admin.join("lock"), self.archives.join("lock")]
            }
        };
        files.iter().find_map(|file| {
            let holder = read_holder(file).ok()??;
            Some(Text::of(format_args!("{} is held by {}", file.display(), name(holder))))
        })
    }
}

/// The process that has a lock on the file (fcntl(2), `F_GETLK`).
fn read_holder(path: &Path) -> io::Result<Option<i32>> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    // SAFETY: all fields of a flock may be zero: the whole file, from its beginning.
    let mut lock: libc::flock = unsafe { std::mem::zeroed() };
    lock.l_type = libc::F_WRLCK as libc::c_short;
    // SAFETY: the descriptor is open, and the kernel reads and writes one structure.
    if unsafe { libc::fcntl(file.as_raw_fd(), libc::F_GETLK, &raw mut lock) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok((i32::from(lock.l_type) != libc::F_UNLCK).then_some(lock.l_pid))
}

/// A process as a person finds it.
fn name(pid: i32) -> String {
    match std::fs::read_to_string(format!("/proc/{pid}/comm")) {
        Ok(name) => format!("{} (process {pid})", name.trim()),
        // Of another container, or gone by now.
        Err(_) => format!("process {pid}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_holds_what_is_not_there_or_not_locked() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("lock");
        assert_eq!(read_holder(&path).unwrap(), None);
        File::create(&path).unwrap();
        assert_eq!(read_holder(&path).unwrap(), None);
    }
}
