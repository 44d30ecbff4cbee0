//! Attempts of people who have not proved who they are, and what is remembered of them: limits at both doors, and the
//! locks of those who guess.
//!
//! **What it promises.** Memory is bounded, whatever is attempted, and nothing is written down for a stranger's attempt
//! but its refusal, in sum (`refusal`). Guesses of one party at one name are looked at one after the other, so that
//! parallel ones meet the lock; they hold up nobody else. After a restart nobody is locked.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use fleetward_domain::people::attempt::{AttemptLimit, Party, Rates, TooMany};
use fleetward_domain::people::lockout::Lockout;
use fleetward_protocol::digest::Digest;
use fleetward_protocol::id::SessionId;
use fleetward_protocol::name::UserName;
use fleetward_protocol::time::Timestamp;
use tokio::sync::OwnedMutexGuard;

/// How many times the rate of one party all together have, at the door they knock at.
const ALL: u32 = 20;
/// How many times the rate of one party there are for one identity, of all who are not known.
const IDENTITY: u32 = 2;
/// Guessers remembered at most. Those that count have failed within the last five minutes: at the default rates all
/// strangers together reach less than half of it.
const MAX_GUESSERS: usize = 8192;
/// Passwords of one guesser that may wait for each other.
const MAX_TURNS: usize = 8;
/// When to come again if somebody else's password is looked at first.
const SOON: Duration = Duration::from_secs(2);

/// Limits and locks of both doors.
#[derive(Debug)]
pub struct Attempts {
    /// Of enrolments.
    pub enrolments: Door,
    /// Of logins.
    pub logins: Door,
    guessers: Mutex<HashMap<Guesser, Slot>>,
}

/// Where strangers knock.
#[derive(Debug)]
pub struct Door(Mutex<AttemptLimit>);

/// Whose wrong passwords are counted together.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Guesser {
    /// A party that wants to log in as somebody, whether there is such a user or not.
    At(UserName, Party),
    /// A login that is asked for its owner's password again.
    Within(SessionId),
}

/// What is remembered of a guesser. Whoever holds it looks at a password; the next one waits.
pub type Turn = OwnedMutexGuard<Lockout>;

type Slot = Arc<tokio::sync::Mutex<Lockout>>;

impl Attempts {
    /// Nothing was attempted yet. The rates are those of one party per minute.
    #[must_use]
    pub fn new(enrolments: u32, logins: u32, now: Timestamp) -> Self {
        Self {
            enrolments: Door::new(enrolments, now),
            logins: Door::new(logins, now),
            guessers: Mutex::new(HashMap::new()),
        }
    }

    /// Waits for the guesser's turn.
    ///
    /// # Errors
    /// [`TooMany`] if too many wait already.
    pub async fn turn(&self, guesser: Guesser, now: Timestamp) -> Result<Turn, TooMany> {
        let slot = self.slot(guesser, now)?;
        Ok(slot.lock_owned().await)
    }

    fn slot(&self, guesser: Guesser, now: Timestamp) -> Result<Slot, TooMany> {
        let mut guessers = self.guessers.lock().unwrap_or_else(PoisonError::into_inner);
        if guessers.len() >= MAX_GUESSERS && !guessers.contains_key(&guesser) {
            // Under this mutex nobody begins to hold a slot that the map alone holds.
            guessers.retain(|_, slot| {
                Arc::strong_count(slot) > 1 || slot.try_lock().is_ok_and(|lockout| lockout.matters(now))
            });
            if guessers.len() >= MAX_GUESSERS {
                return Err(TooMany { retry_after: SOON });
            }
        }
        let slot = guessers.entry(guesser).or_default();
        // One is the map's, one is held by whose turn it is.
        if Arc::strong_count(slot) >= 1 + 1 + MAX_TURNS {
            return Err(TooMany { retry_after: SOON });
        }
        Ok(Arc::clone(slot))
    }
}

impl Door {
    fn new(per_minute: u32, now: Timestamp) -> Self {
        let rates = Rates {
            party: per_minute,
            identity: per_minute.saturating_mul(IDENTITY),
            all: per_minute.saturating_mul(ALL),
        };
        Self(Mutex::new(AttemptLimit::new(rates, now)))
    }

    /// Whether one more attempt of this party may go on: asked before anything is done for it.
    ///
    /// # Errors
    /// [`TooMany`] if it may not.
    pub fn admit_party(&self, party: Party, now: Timestamp) -> Result<(), TooMany> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).admit_party(party, now)
    }

    /// Whether one more attempt at this identity by somebody who is not known may go on.
    ///
    /// # Errors
    /// [`TooMany`] if it may not.
    pub fn admit_stranger(&self, identity: Digest, now: Timestamp) -> Result<(), TooMany> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).admit_stranger(identity, now)
    }
}

/// Whose attempt it is. Those whose address is not known are one party.
#[must_use]
pub fn party(remote: Option<IpAddr>) -> Party {
    Party::of(remote.unwrap_or(IpAddr::V6(Ipv6Addr::UNSPECIFIED)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_millis(1_700_000_000_000);

    fn guesser(number: u32) -> Guesser {
        Guesser::At("ada".parse().unwrap(), Party::of(IpAddr::V4(number.into())))
    }

    #[tokio::test]
    async fn what_is_remembered_of_guessers_is_bounded_and_locks_are_kept() {
        let attempts = Attempts::new(30, 30, NOW);
        let mut turn = attempts.turn(guesser(0), NOW).await.unwrap();
        for _ in 0..5 {
            *turn = std::mem::take(&mut *turn).handle_failure(NOW);
        }
        drop(turn);
        for number in 1..30_000 {
            drop(attempts.turn(guesser(number), NOW).await.unwrap());
        }
        assert!(attempts.guessers.lock().unwrap().len() <= MAX_GUESSERS);
        assert!(attempts.turn(guesser(0), NOW).await.unwrap().check(NOW).is_err());
        // All that count are kept; whoever else comes has to wait until one of them counts no more.
        for number in 1.. {
            match attempts.turn(guesser(number), NOW).await {
                Ok(mut turn) => *turn = std::mem::take(&mut *turn).handle_failure(NOW),
                Err(TooMany { .. }) => break,
            }
        }
        let later = NOW + Duration::from_secs(300);
        assert!(attempts.turn(guesser(u32::MAX), later).await.unwrap().check(later).is_ok());
        assert_eq!(attempts.guessers.lock().unwrap().len(), 1);
    }

    #[tokio::test]
    async fn turns_that_wait_are_few() {
        let attempts = Attempts::new(30, 30, NOW);
        let _held = attempts.turn(guesser(1), NOW).await.unwrap();
        let waiting: Vec<_> = (0..MAX_TURNS).map(|_| attempts.slot(guesser(1), NOW).unwrap()).collect();
        attempts.slot(guesser(1), NOW).unwrap_err();
        attempts.turn(guesser(2), NOW).await.unwrap();
        drop(waiting);
        attempts.slot(guesser(1), NOW).unwrap();
    }
}
