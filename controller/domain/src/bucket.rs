//! What may be used up and comes back with time: a bucket of tokens.
//!
//! The time is the wall clock's; where it is set back, what was left stays left and nothing is handed out twice.

use std::time::Duration;

use fleetward_protocol::time::Timestamp;

/// How much there is of something, and how fast it comes back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// At once, after a long rest.
    pub burst: u32,
    /// How long it takes until all of it is there again.
    pub refill: Duration,
}

/// Something of which there is no more now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("too many attempts; try again in {} s", .retry_after.as_secs())]
pub struct TooMany {
    /// How long until there is one again, in whole seconds.
    pub retry_after: Duration,
}

/// What is left of a rate.
#[derive(Debug, Clone, Copy)]
pub struct Bucket {
    tokens: f64,
    at: Timestamp,
}

impl Rate {
    /// So many in each minute, and no more at once.
    #[must_use]
    pub const fn per_minute(burst: u32) -> Self {
        Self { burst, refill: Duration::from_secs(60) }
    }

    /// What comes back in this time.
    fn after(self, time: Duration) -> f64 {
        time.as_secs_f64() * f64::from(self.burst.max(1)) / self.refill.as_secs_f64().max(1.0)
    }
}

impl Bucket {
    /// Nothing was used yet.
    #[must_use]
    pub fn full(rate: Rate, now: Timestamp) -> Self {
        Self { tokens: f64::from(rate.burst), at: now }
    }

    /// Takes one out, if there is one.
    ///
    /// # Errors
    /// [`TooMany`] if there is none.
    pub fn take(&mut self, rate: Rate, now: Timestamp) -> Result<(), TooMany> {
        self.tokens = self.refilled(rate, now);
        self.at = now;
        if self.tokens >= 1.0 {
            self.tokens -= 1.0;
            return Ok(());
        }
        let longest = rate.refill.as_secs_f64().max(1.0);
        let wait = (1.0 - self.tokens) * longest / f64::from(rate.burst.max(1));
        Err(TooMany { retry_after: Duration::from_secs_f64(wait.ceil().clamp(1.0, longest)) })
    }

    /// Whether nothing is missing any more: such a bucket need not be remembered.
    #[must_use]
    pub fn is_full(&self, rate: Rate, now: Timestamp) -> bool {
        self.refilled(rate, now) >= f64::from(rate.burst)
    }

    fn refilled(&self, rate: Rate, now: Timestamp) -> f64 {
        (self.tokens + rate.after(now.since(self.at))).min(f64::from(rate.burst))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const START: Timestamp = Timestamp::from_millis(1_700_000_000_000);

    #[test]
    fn who_is_told_when_to_come_again_gets_it_then() {
        let rate = Rate { burst: 6, refill: Duration::from_secs(3600) };
        let mut bucket = Bucket::full(rate, START);
        assert_eq!((0..9).filter(|_| bucket.take(rate, START).is_ok()).count(), 6);
        let TooMany { retry_after } = bucket.take(rate, START).unwrap_err();
        assert_eq!(retry_after, Duration::from_secs(600));
        bucket.take(rate, START + retry_after).unwrap();
        bucket.take(rate, START + retry_after).unwrap_err();
        assert!(!bucket.is_full(rate, START + Duration::from_secs(3600)));
        assert!(bucket.is_full(rate, START + Duration::from_secs(4200)));
    }

    proptest! {
        /// Whatever the rate and wherever the clock jumps: no more than the burst and what came back since.
        #[test]
        fn no_clock_gives_more_than_burst_and_rate(
            burst in 1u32..50,
            refill in 1u64..10_000,
            seconds in prop::collection::vec(0i64..20_000, 1..400),
        ) {
            let rate = Rate { burst, refill: Duration::from_secs(refill) };
            let mut bucket = Bucket::full(rate, START);
            let at = |second: i64| Timestamp::from_millis(START.as_millis() + second * 1000);
            let taken = seconds.iter().filter(|&&second| bucket.take(rate, at(second)).is_ok()).count();
            let forward: i64 = std::iter::once(&0).chain(&seconds).zip(&seconds).map(|(a, b)| (b - a).max(0)).sum();
            let most = f64::from(burst) + forward as f64 * f64::from(burst) / refill as f64;
            prop_assert!(taken as f64 <= most + 1e-6, "{taken} of {most}");
        }
    }
}
