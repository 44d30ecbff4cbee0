//! The time, as the app is given it: the system's, or a test's.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fleetward_protocol::time::Timestamp;

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
