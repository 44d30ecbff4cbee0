//! How long to wait before the next attempt. Pure: time and randomness come from the caller.
//!
//! Full jitter: a fleet that lost its controller at one moment does not come back at one moment. While an
//! outage is young the window stays small, so that the whole fleet is back within twelve seconds of a
//! controller's restart; one that lasts is asked about less often.

use std::time::{Duration, Instant};

/// Why there is no connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// A connection that had lasted was lost, or its controller restarts.
    Lost,
    /// Nobody answered, or not for long.
    Unreachable,
    /// Somebody answered and would not have us: revoked, unknown, or speaking otherwise.
    Refused,
    /// Another agent has taken over this identity.
    Superseded,
    /// The agent itself stops.
    Shutdown,
}

const BASE: Duration = Duration::from_millis(500);
const YOUNG_CAP: Duration = Duration::from_secs(6);
const OLD_CAP: Duration = Duration::from_secs(30);
/// An outage older than this is not a restart.
const YOUNG: Duration = Duration::from_secs(10 * 60);
/// At least this long before asking again what was refused.
const REFUSED: Duration = Duration::from_secs(15);
/// Two agents with one identity must not chase each other.
const SUPERSEDED: Duration = Duration::from_secs(60);

/// The memory between attempts.
#[derive(Debug, Default)]
pub struct Backoff {
    attempts: u32,
    since: Option<Instant>,
}

impl Backoff {
    /// Nothing has failed yet.
    #[must_use]
    pub const fn new() -> Self {
        Self { attempts: 0, since: None }
    }

    /// How long to wait, given why there is no connection; `random` is uniform.
    pub fn next_delay(&mut self, cause: Cause, now: Instant, random: u32) -> Duration {
        if cause == Cause::Lost {
            *self = Self::new();
        }
        let since = *self.since.get_or_insert(now);
        let cap = if now.saturating_duration_since(since) < YOUNG { YOUNG_CAP } else { OLD_CAP };
        let window = BASE.saturating_mul(1 << self.attempts.min(10)).min(cap);
        self.attempts = self.attempts.saturating_add(1);
        let jitter = window.mul_f64(f64::from(random) / f64::from(u32::MAX));
        match cause {
            Cause::Shutdown => Duration::ZERO,
            Cause::Lost | Cause::Unreachable => jitter,
            Cause::Refused => REFUSED + jitter,
            Cause::Superseded => SUPERSEDED + jitter,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn windows_grow_to_the_cap_and_a_long_outage_is_asked_about_less() {
        let start = Instant::now();
        let mut backoff = Backoff::new();
        let mut delay = |cause, at| backoff.next_delay(cause, start + at, u32::MAX).as_millis();
        let windows: Vec<_> = (0..6).map(|_| delay(Cause::Unreachable, Duration::ZERO)).collect();
        assert_eq!(windows, [500, 1000, 2000, 4000, 6000, 6000]);
        assert_eq!(delay(Cause::Unreachable, YOUNG), 30_000);
        assert_eq!(delay(Cause::Lost, YOUNG), 500);
        assert_eq!(delay(Cause::Superseded, YOUNG), 61_000);
    }

    proptest! {
        #[test]
        fn a_fleet_is_back_within_twelve_seconds(randoms in proptest::collection::vec(any::<u32>(), 1..40)) {
            // An attempt lasts three seconds and covers them by retransmission; what matters is the wait between.
            let start = Instant::now();
            let mut backoff = Backoff::new();
            let mut at = start;
            for random in randoms {
                let delay = backoff.next_delay(Cause::Unreachable, at, random);
                if at < start + YOUNG {
                    prop_assert!(delay <= Duration::from_secs(6));
                }
                at += delay + super::super::dial::ATTEMPT;
            }
        }
    }
}
