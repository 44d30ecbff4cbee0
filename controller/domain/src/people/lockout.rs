//! Lockout: five wrong passwords within five minutes lock for five minutes.
//!
//! What is locked is a name for the party that guessed at it, or a login that guessed at its owner's password: never
//! a name for everybody, which would let anyone who knows it shut its owner out. The value is small, and holds only
//! failures that can still matter. Deliberately absent: who is locked, which is the key it is kept under.

use std::time::Duration;

use fleetward_protocol::time::Timestamp;

/// Failures within [`WINDOW`] that lock.
pub const MAX_FAILURES: usize = 5;
/// How long a failure counts.
pub const WINDOW: Duration = Duration::from_secs(5 * 60);
/// How long a lock lasts.
pub const LOCK: Duration = Duration::from_secs(5 * 60);

/// What is remembered of somebody's wrong passwords.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Lockout {
    /// Failures that still count, oldest first; fewer than [`MAX_FAILURES`].
    failures: Vec<Timestamp>,
    locked_until: Option<Timestamp>,
}

/// A password that may not even be tried now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("locked after {MAX_FAILURES} wrong passwords from here; try again in {} s", .retry_after.as_secs())]
pub struct Locked {
    /// When the lock ends.
    pub until: Timestamp,
    /// How long that is from now, rounded up to whole seconds.
    pub retry_after: Duration,
}

impl Lockout {
    /// Whether a password may be tried. To be asked before the password is looked at, so that a lock tells nothing
    /// about it.
    ///
    /// # Errors
    /// [`Locked`] while the lock lasts.
    pub fn check(&self, now: Timestamp) -> Result<(), Locked> {
        match self.locked_until {
            // A lock that seems to last longer was set before the clock was set back: nobody is held up until then.
            Some(until) if now < until && until.since(now) <= LOCK => {
                let seconds = until.since(now).as_millis().div_ceil(1000);
                let retry_after = Duration::from_secs(u64::try_from(seconds).unwrap_or(u64::MAX));
                Err(Locked { until, retry_after })
            }
            _ => Ok(()),
        }
    }

    /// A password was wrong. While it is locked nothing more is counted, so the lock does not grow.
    #[must_use]
    pub fn handle_failure(mut self, now: Timestamp) -> Self {
        if self.check(now).is_err() {
            return self;
        }
        self.locked_until = None;
        self.failures.retain(|&at| is_recent(at, now));
        self.failures.push(now);
        if self.failures.len() >= MAX_FAILURES {
            self.failures.clear();
            self.locked_until = Some(now + LOCK);
        }
        self
    }

    /// A password was right: nothing is remembered.
    #[must_use]
    pub fn handle_success(self) -> Self {
        Self::default()
    }

    /// When the lock ends or ended; `None` if it was not locked since the last success.
    #[must_use]
    pub const fn locked_until(&self) -> Option<Timestamp> {
        self.locked_until
    }

    /// Whether anything of it matters at `now`; otherwise it may be forgotten.
    #[must_use]
    pub fn matters(&self, now: Timestamp) -> bool {
        self.failures(now) > 0 || self.check(now).is_err()
    }

    /// How many failures count at `now`.
    #[must_use]
    pub fn failures(&self, now: Timestamp) -> usize {
        self.failures.iter().filter(|&&at| is_recent(at, now)).count()
    }
}

/// Whether a failure still counts; one of the future does if the clocks differ by less than the window.
fn is_recent(at: Timestamp, now: Timestamp) -> bool {
    now.since(at) < WINDOW && at.since(now) < WINDOW
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_millis(1_700_000_000_000 + seconds * 1000)
    }

    #[test]
    fn the_fifth_failure_locks_for_five_minutes() {
        let mut lockout = Lockout::default();
        for second in 0..4 {
            lockout = lockout.handle_failure(at(second));
            assert_eq!(lockout.check(at(second)), Ok(()));
        }
        lockout = lockout.handle_failure(at(10));
        assert_eq!(
            lockout.check(at(11)),
            Err(Locked { until: at(310), retry_after: Duration::from_secs(299) })
        );
        assert_eq!(lockout.check(at(310)), Ok(()));
        assert_eq!(lockout.failures(at(310)), 0);
    }

    #[test]
    fn a_clock_that_is_set_back_locks_nobody_out_for_longer() {
        let year = 365 * 86_400;
        let mut lockout = Lockout::default();
        for second in 0..5 {
            lockout = lockout.handle_failure(at(year + second));
        }
        assert!(lockout.check(at(year + 5)).is_err());
        assert_eq!(lockout.check(at(0)), Ok(()));
        lockout = lockout.handle_failure(at(0));
        assert_eq!((lockout.failures(at(1)), lockout.check(at(1))), (1, Ok(())));
        let mut early = Lockout::default();
        for second in 0..4 {
            early = early.handle_failure(at(year + second));
        }
        assert_eq!(early.handle_failure(at(0)).check(at(1)), Ok(()), "failures of the future do not count");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]

        /// Against a model that remembers every attempt: locked exactly when the last five counted failures
        /// fell within five minutes, for exactly five minutes.
        #[test]
        fn p2_every_failure_counts_and_five_in_five_minutes_lock(
            steps in prop::collection::vec((0i64..200, prop::bool::weighted(0.9)), 1..80)
        ) {
            let mut lockout = Lockout::default();
            let (mut counted, mut locked_until, mut second) = (Vec::new(), None, 0);
            for (gap, fails) in steps {
                second += gap;
                let locked = locked_until.is_some_and(|until| second < until);
                prop_assert_eq!(lockout.check(at(second)).is_err(), locked, "second {}", second);
                if locked {
                    lockout = lockout.handle_failure(at(second));
                    continue;
                }
                if !fails {
                    counted.clear();
                    lockout = lockout.handle_success();
                    continue;
                }
                counted.push(second);
                lockout = lockout.handle_failure(at(second));
                let recent = counted.iter().filter(|&&then| second - then < 300).count();
                if recent >= MAX_FAILURES {
                    counted.clear();
                    locked_until = Some(second + 300);
                } else {
                    prop_assert_eq!(lockout.failures(at(second)), recent);
                }
            }
        }
    }
}
