//! How the controller is: what `/health` says, and whether new work is taken.
//!
//! Trouble is found where it happens (the recorder's commits, the look at the disk) and noted here; it is
//! forgotten as soon as the same thing succeeds again, without anybody's help.

use fleetward_store::StoreError;
use tokio::sync::watch;

/// What is wrong, if anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Condition {
    /// Nothing.
    Healthy,
    /// The database cannot be reached.
    StoreUnavailable,
    /// The database takes no writes: a standby, or set read only.
    StoreReadOnly,
    /// The database's disk cannot be read or written.
    StorageFailed,
    /// There is no room for what hosts report.
    DiskFull,
    /// The controller is shutting down.
    Stopping,
}

/// New work that is not taken now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotTaken {
    /// There is too little room for its output.
    #[error(
        "the controller's disk is full; free some space and try again, running operations go on by themselves"
    )]
    DiskFull,
    /// The database's disk cannot be read or written.
    #[error(
        "the controller cannot read or write its disk; see whether the disk is full, over a quota or failing, and try \
         again: running operations go on by themselves"
    )]
    StorageFailed,
    /// The database takes no writes.
    #[error(
        "the controller's database takes no writes: it is a standby, as an old primary is after a failover, or was set read \
         only; promote it, or let the controller's `database` lead to the primary"
    )]
    StoreReadOnly,
    /// The database cannot be reached.
    #[error("the controller's database is unavailable; try again in a moment")]
    StoreUnavailable,
    /// The controller is shutting down.
    #[error("the controller is stopping; try again in a moment")]
    Stopping,
}

const STORE: u8 = 1;
const DISK_COMMIT: u8 = 2;
const DISK_SPACE: u8 = 4;
const STOPPING: u8 = 8;
const STORAGE: u8 = 16;
const READ_ONLY: u8 = 32;

/// What is wrong at the moment, as independent observations.
#[derive(Debug)]
pub struct Health(watch::Sender<u8>);

impl Health {
    pub(super) fn new() -> Self {
        Self(watch::channel(0).0)
    }

    /// The worst that is wrong now.
    #[must_use]
    pub fn condition(&self) -> Condition {
        condition(*self.0.borrow())
    }

    /// Returns when the worst that is wrong is what is waited for.
    pub async fn reached(&self, is_wanted: impl Fn(Condition) -> bool) {
        // The sender is `self`: it is not dropped meanwhile.
        let _ = self.0.subscribe().wait_for(|bits| is_wanted(condition(*bits))).await;
    }

    /// Whether new work is taken.
    ///
    /// # Errors
    /// [`NotTaken`], with what a person can do.
    pub fn check(&self) -> Result<(), NotTaken> {
        match self.condition() {
            Condition::Healthy => Ok(()),
            Condition::StoreUnavailable => Err(NotTaken::StoreUnavailable),
            Condition::StoreReadOnly => Err(NotTaken::StoreReadOnly),
            Condition::StorageFailed => Err(NotTaken::StorageFailed),
            Condition::DiskFull => Err(NotTaken::DiskFull),
            Condition::Stopping => Err(NotTaken::Stopping),
        }
    }

    /// A commit was tried.
    pub(super) fn note_commit(&self, result: Result<(), &StoreError>) {
        match result {
            Ok(()) => self.clear(STORE | STORAGE | DISK_COMMIT | READ_ONLY),
            Err(StoreError::DiskFull(_)) => self.set(DISK_COMMIT),
            Err(StoreError::Storage(_)) => self.set(STORAGE),
            Err(StoreError::ReadOnly(_)) => self.set(READ_ONLY),
            Err(_) => self.set(STORE),
        }
    }

    /// The disk was looked at.
    pub fn note_space(&self, is_enough: bool) {
        if is_enough { self.clear(DISK_SPACE) } else { self.set(DISK_SPACE) }
    }

    /// The database's connections were looked at.
    pub fn note_read_only(&self, is_read_only: bool) {
        if is_read_only { self.set(READ_ONLY) } else { self.clear(READ_ONLY) }
    }

    /// The controller begins to shut down.
    pub fn note_stopping(&self) {
        self.set(STOPPING);
    }

    fn set(&self, bits: u8) {
        self.0.send_if_modified(|wrong| std::mem::replace(wrong, *wrong | bits) & bits != bits);
    }

    fn clear(&self, bits: u8) {
        self.0.send_if_modified(|wrong| std::mem::replace(wrong, *wrong & !bits) & bits != 0);
    }
}

const fn condition(bits: u8) -> Condition {
    if bits & STOPPING != 0 {
        Condition::Stopping
    } else if bits & (DISK_COMMIT | DISK_SPACE) != 0 {
        Condition::DiskFull
    } else if bits & STORAGE != 0 {
        Condition::StorageFailed
    } else if bits & READ_ONLY != 0 {
        Condition::StoreReadOnly
    } else if bits & STORE != 0 {
        Condition::StoreUnavailable
    } else {
        Condition::Healthy
    }
}

impl Condition {
    /// The stable name in the API.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Healthy => "healthy",
            Self::StoreUnavailable => "store_unavailable",
            Self::StoreReadOnly => "store_read_only",
            Self::StorageFailed => "storage_failed",
            Self::DiskFull => "disk_full",
            Self::Stopping => "stopping",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use fleetward_store::testing::failed_disk;

    #[test]
    fn a_failing_disk_is_not_called_full_and_is_forgotten_with_the_next_commit() {
        let health = Health::new();
        health.note_commit(Err(&failed_disk()));
        assert_eq!(
            (health.condition(), health.check()),
            (Condition::StorageFailed, Err(NotTaken::StorageFailed))
        );
        health.note_space(false);
        assert_eq!(health.condition(), Condition::DiskFull, "what is known of the cause is said");
        health.note_space(true);
        health.note_commit(Ok(()));
        assert_eq!(health.check(), Ok(()));
    }
}
