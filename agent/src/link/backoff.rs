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

    /// Random numbers for a whole fleet (splitmix64).
    fn chance(state: &mut u64) -> u32 {
        *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (*state ^ (*state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        ((mixed ^ (mixed >> 27)) >> 32) as u32
    }

    proptest! {
        /// Whatever came before, the next delay is spread evenly over its whole window.
        #[test]
        fn jitter_is_spread_over_the_whole_window(
            before in 0..12_u32,
            cause in proptest::sample::select(vec![Cause::Lost, Cause::Unreachable, Cause::Refused, Cause::Superseded]),
        ) {
            let start = Instant::now();
            let delay = |random| {
                let mut backoff = Backoff::new();
                for _ in 0..before {
                    backoff.next_delay(Cause::Unreachable, start, 0);
                }
                backoff.next_delay(cause, start, random)
            };
            let (least, most) = (delay(0), delay(u32::MAX));
            prop_assert!(most - least >= BASE);
            let mut tenths = [0_u32; 10];
            for number in 0..1000_u32 {
                let share = (delay(u32::MAX / 1000 * number) - least).div_duration_f64(most - least);
                tenths[((share * 10.0) as usize).min(9)] += 1;
            }
            prop_assert!(tenths.iter().all(|count| (99..=102).contains(count)), "{:?}", tenths);
        }

    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(40))]

        /// A controller that comes back after any outage is not met by a herd: the fleet's next attempts are spread,
        /// no tenth of a second sees more than a twentieth of it, and nobody waits for longer than promised.
        #[test]
        fn a_fleet_does_not_come_back_as_a_herd(outage in 30..7200_u64, mut seed in any::<u64>()) {
            const FLEET: usize = 1000;
            let lost = Instant::now();
            let back = lost + Duration::from_secs(outage);
            let mut slices = std::collections::BTreeMap::<u128, usize>::new();
            for _ in 0..FLEET {
                let mut backoff = Backoff::new();
                let mut at = lost + backoff.next_delay(Cause::Lost, lost, chance(&mut seed));
                while at < back {
                    let failed = at + super::super::dial::ATTEMPT;
                    at = failed + backoff.next_delay(Cause::Unreachable, failed, chance(&mut seed));
                }
                let waited = at - back;
                prop_assert!(waited <= super::super::dial::ATTEMPT + OLD_CAP);
                // The last attempt that failed may have ended when the loss was young no more.
                let is_young = back + super::super::dial::ATTEMPT < lost + YOUNG;
                prop_assert!(!is_young || waited <= super::super::dial::ATTEMPT + YOUNG_CAP);
                *slices.entry(waited.as_millis() / 100).or_default() += 1;
            }
            let fullest = slices.values().max().copied().unwrap_or_default();
            prop_assert!(fullest <= FLEET / 20, "{} of {} within a tenth of a second", fullest, FLEET);
        }

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
