//! Sessions: how long a login is good for.
//!
//! The same rule for console sessions and for JWTs. Deliberately absent: the signature, which is checked where
//! the key is, and revocation, which is a row in the store.

use std::time::Duration;

use fleetward_protocol::time::Timestamp;

/// How long a login is good for.
pub const LIFETIME: Duration = Duration::from_secs(24 * 60 * 60);

/// How far in the future a login may seem to have been issued, when two controllers' clocks differ.
pub const SKEW: Duration = Duration::from_secs(30);

/// Why a login is no longer, or not yet, good. Both are answered with 401.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SessionRefusal {
    /// Its time is over.
    #[error("the login has expired; log in again")]
    Expired,
    /// It was issued in the future: a forgery, or a clock that was set back.
    #[error("the login was issued in the future; check the clocks, then log in again")]
    NotYetValid,
}

/// When a login issued at `issued` ends.
#[must_use]
pub fn expires_at(issued: Timestamp) -> Timestamp {
    issued + LIFETIME
}

/// Whether a login issued at `issued` is good at `now`.
///
/// # Errors
/// [`SessionRefusal`] if it is not.
pub fn check(issued: Timestamp, now: Timestamp) -> Result<(), SessionRefusal> {
    if now >= expires_at(issued) {
        Err(SessionRefusal::Expired)
    } else if issued > now + SKEW {
        Err(SessionRefusal::NotYetValid)
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const DAY: i64 = 24 * 60 * 60 * 1000;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(512))]

        #[test]
        fn p1_a_login_is_good_for_exactly_24_hours(issued in 0i64..=4_000_000_000_000, offset in -2 * DAY..=2 * DAY) {
            let (from, now) = (Timestamp::from_millis(issued), Timestamp::from_millis(issued + offset));
            prop_assert_eq!(check(from, now).is_ok(), (-30_000..DAY).contains(&offset));
        }

        #[test]
        fn p3_an_expired_login_is_refused_as_expired(issued in 0i64..=4_000_000_000_000, late in 0..=365 * DAY) {
            let now = expires_at(Timestamp::from_millis(issued)) + Duration::from_millis(late.unsigned_abs());
            prop_assert_eq!(check(Timestamp::from_millis(issued), now), Err(SessionRefusal::Expired));
        }
    }

    #[test]
    fn p1_the_last_millisecond_counts() {
        let issued = Timestamp::from_millis(0);
        assert_eq!(check(issued, Timestamp::from_millis(DAY - 1)), Ok(()));
        assert_eq!(check(issued, Timestamp::from_millis(DAY)), Err(SessionRefusal::Expired));
        assert_eq!(check(Timestamp::from_millis(30_001), issued), Err(SessionRefusal::NotYetValid));
    }
}
