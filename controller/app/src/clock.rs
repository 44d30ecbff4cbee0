//! The time, as the app is given it: the system's, or a test's.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fleetward_protocol::time::Timestamp;
use fleetward_store::{Store, StoreError};

/// The clock that deadlines are decided by: the database's, wherever several machines could have one each. Cheap to clone; every
/// clone is the same one.
#[derive(Debug, Clone)]
pub struct DeadlineClock {
    clock: Clock,
    /// How far the database's clock was ahead when it was read last, in milliseconds.
    ahead: Arc<AtomicI64>,
}

impl DeadlineClock {
    /// One that is this clock until the database's is read.
    #[must_use]
    pub fn new(clock: Clock) -> Self {
        Self { clock, ahead: Arc::default() }
    }

    /// The time, as of what was read last.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        let ahead = self.ahead.load(Ordering::Relaxed);
        Timestamp::from_millis(self.clock.now().as_millis().saturating_add(ahead))
    }

    /// Reads the database's clock; returns what it says. A clock that a test moves is everybody's, and stays.
    ///
    /// # Errors
    /// If the store fails.
    pub async fn read(&self, store: &Store) -> Result<Timestamp, StoreError> {
        match self.clock {
            Clock::System => self.compare(store).await,
            Clock::Manual(_) => Ok(self.now()),
        }
    }

    /// As [`Self::read`], whatever clock this is.
    pub(crate) async fn compare(&self, store: &Store) -> Result<Timestamp, StoreError> {
        let here = self.clock.now();
        let there = store.time(here).await?;
        // The answer took its time: that much it may be behind, and never ahead.
        self.ahead.store(there.as_millis().saturating_sub(self.clock.now().as_millis()), Ordering::Relaxed);
        Ok(there)
    }
}

/// A clock. Cheap to clone; clones of a manual clock are one clock.
#[derive(Debug, Clone)]
pub enum Clock {
    /// The system's.
    System,
    /// One that only moves when told to.
    Manual(Arc<AtomicI64>),
}

impl Clock {
    /// A clock that stands at `at`.
    #[must_use]
    pub fn manual(at: Timestamp) -> Self {
        Self::Manual(Arc::new(AtomicI64::new(at.as_millis())))
    }

    /// The time.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        match self {
            Self::System => {
                let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
                Timestamp::from_millis(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
            }
            Self::Manual(millis) => Timestamp::from_millis(millis.load(Ordering::SeqCst)),
        }
    }

    /// Moves a manual clock on; the system's goes by itself.
    pub fn advance(&self, span: Duration) {
        if let Self::Manual(millis) = self {
            millis.fetch_add(i64::try_from(span.as_millis()).unwrap_or(i64::MAX), Ordering::SeqCst);
        }
    }
    /// Sets a manual clock, also back, as a system's clock may be.
    pub fn set(&self, at: Timestamp) {
        if let Self::Manual(millis) = self {
            millis.store(at.as_millis(), Ordering::SeqCst);
        }
    }
}

#[cfg(test)]
mod tests {
    use fleetward_store::on_both_engines;

    use super::*;

    on_both_engines! {
        async fn deadlines_are_decided_by_the_clock_of_the_database(store: Store) {
            // This machine's is a day ahead.
            let system = Clock::System.now();
            let deadlines = DeadlineClock::new(Clock::manual(system + Duration::from_secs(86_400)));
            deadlines.compare(&store).await.unwrap();
            let ahead = deadlines.now().as_millis() - system.as_millis();
            match store.engine() {
                fleetward_store::Engine::Sqlite => assert_eq!(ahead, 86_400_000),
                fleetward_store::Engine::Postgres => assert!((-1000..600_000).contains(&ahead), "{ahead}"),
            }
        }
    }
}
