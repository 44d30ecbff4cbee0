//! Limits on attempts: per address, per identity, and in all, so that guessing costs more time than it is worth.
//!
//! One type for every door that strangers may knock at: logins and enrolments. Its memory is bounded whatever they
//! do.

use std::collections::HashMap;
use std::fmt;
use std::hash::Hash;
use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use fleetward_protocol::digest::Digest;
use fleetward_protocol::time::Timestamp;
use serde::{Deserialize, Serialize};

use crate::bucket::{Bucket, Rate};

pub use crate::bucket::TooMany;

/// Addresses, and identities, remembered at most.
const MAX_REMEMBERED: usize = 4096;
/// How often the quiet ones are forgotten at most, for that looks at all.
const PRUNE: Duration = Duration::from_secs(1);

/// Who attempts count for: what one party has, an IPv4 address or an IPv6 network of 64 bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(from = "IpAddr", into = "IpAddr")]
pub struct Party(IpAddr);

/// Attempts per minute. A burst of one minute's worth is allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rates {
    /// Of one party.
    pub party: u32,
    /// For one identity, whoever tries: a user's name, a token.
    pub identity: u32,
    /// Of all together.
    pub all: u32,
}

/// What is left of the rates.
#[derive(Debug)]
pub struct AttemptLimit {
    rates: Rates,
    all: Bucket,
    parties: Shares<Party>,
    identities: Shares<Digest>,
}

#[derive(Debug)]
struct Shares<K> {
    buckets: HashMap<K, Bucket>,
    pruned: Option<Timestamp>,
}

impl Party {
    /// Whose address this is.
    #[must_use]
    pub fn of(address: IpAddr) -> Self {
        Self(match address.to_canonical() {
            IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() >> 64 << 64)),
            address => address,
        })
    }
}

impl From<IpAddr> for Party {
    fn from(address: IpAddr) -> Self {
        Self::of(address)
    }
}

impl From<Party> for IpAddr {
    fn from(party: Party) -> Self {
        party.0
    }
}

impl fmt::Display for Party {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            IpAddr::V4(address) => address.fmt(f),
            IpAddr::V6(network) => write!(f, "{network}/64"),
        }
    }
}

impl AttemptLimit {
    /// Nothing was attempted yet.
    #[must_use]
    pub fn new(rates: Rates, now: Timestamp) -> Self {
        Self {
            rates,
            all: Bucket::full(Rate::per_minute(rates.all), now),
            parties: Shares::new(),
            identities: Shares::new(),
        }
    }

    /// Takes note of an attempt of a party; whether it may go on. To be asked before anything is done for it. (Of more
    /// parties than can be remembered the newest are not counted one by one; the limit of all is theirs.)
    ///
    /// # Errors
    /// [`TooMany`] if it may not.
    pub fn admit_party(&mut self, party: Party, now: Timestamp) -> Result<(), TooMany> {
        self.parties.take(party, Rate::per_minute(self.rates.party), now)
    }

    /// Takes note of an attempt at an identity by somebody who is not known; whether it may go on. What is refused to
    /// one identity does not use up the share of all.
    ///
    /// # Errors
    /// [`TooMany`] if it may not.
    pub fn admit_stranger(&mut self, identity: Digest, now: Timestamp) -> Result<(), TooMany> {
        self.identities.take(identity, Rate::per_minute(self.rates.identity), now)?;
        self.all.take(Rate::per_minute(self.rates.all), now)
    }
}

impl<K: Eq + Hash> Shares<K> {
    fn new() -> Self {
        Self { buckets: HashMap::new(), pruned: None }
    }

    fn take(&mut self, key: K, rate: Rate, now: Timestamp) -> Result<(), TooMany> {
        if self.buckets.len() >= MAX_REMEMBERED && !self.buckets.contains_key(&key) {
            self.prune(rate, now);
            if self.buckets.len() >= MAX_REMEMBERED {
                return Ok(());
            }
        }
        self.buckets.entry(key).or_insert_with(|| Bucket::full(rate, now)).take(rate, now)
    }

    fn prune(&mut self, rate: Rate, now: Timestamp) {
        if self.pruned.is_none_or(|then| now < then || now >= then + PRUNE) {
            self.pruned = Some(now);
            self.buckets.retain(|_, bucket| !bucket.is_full(rate, now));
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_millis(1_700_000_000_000 + seconds * 1000)
    }

    fn party(address: &str) -> Party {
        Party::of(address.parse().unwrap())
    }

    fn limit(party: u32, identity: u32, all: u32) -> AttemptLimit {
        AttemptLimit::new(Rates { party, identity, all }, at(0))
    }

    #[test]
    fn a_party_gets_its_share_and_no_more() {
        let mut limit = limit(6, 100, 100);
        let mut admit = |address: &str, second: i64| {
            limit.admit_party(party(address), at(second)).map_err(|too| too.retry_after)
        };
        let admitted = (0..20).filter(|_| admit("192.0.2.1", 1).is_ok()).count();
        assert_eq!(admitted, 6);
        assert_eq!(admit("192.0.2.1", 1), Err(Duration::from_secs(10)));
        assert!(admit("192.0.2.2", 1).is_ok());
        assert!(admit("::ffff:192.0.2.2", 1).is_ok());
        assert!(admit("::ffff:192.0.2.1", 1).is_err(), "the same party");
        assert!(admit("192.0.2.1", 11).is_ok(), "one every ten seconds");
        assert!(admit("192.0.2.1", 11).is_err());
    }

    #[test]
    fn an_ipv6_network_is_one_party() {
        let mut limit = limit(2, 100, 100);
        let in_network = |host: u128| Party::of(Ipv6Addr::from_bits((0x2001_0db8 << 96) | host).into());
        assert_eq!((0..9).filter(|&host| limit.admit_party(in_network(host), at(0)).is_ok()).count(), 2);
        assert_eq!(in_network(7).to_string(), "2001:db8::/64");
        assert_eq!(serde_json::to_string(&in_network(7)).unwrap(), r#""2001:db8::""#);
    }

    #[test]
    fn an_identity_is_limited_wherever_attempts_come_from_and_leaves_the_others_their_share() {
        let mut limit = limit(100, 5, 12);
        let admitted = |limit: &mut AttemptLimit, name: &str| {
            (0..50).filter(|_| limit.admit_stranger(Digest::of(name.as_bytes()), at(0)).is_ok()).count()
        };
        assert_eq!(admitted(&mut limit, "ada"), 5);
        assert_eq!(admitted(&mut limit, "bob"), 5);
        assert_eq!(admitted(&mut limit, "cyd"), 2, "what is left of twelve");
    }

    #[test]
    fn memory_is_bounded_and_nobody_is_shut_out_by_a_crowd() {
        let mut limit = limit(1000, 10, 10);
        for number in 0..10_000u32 {
            limit.admit_party(Party::of(IpAddr::V4(number.into())), at(0)).unwrap();
            let _ = limit.admit_stranger(Digest::of(&number.to_be_bytes()), at(0));
        }
        assert!(limit.parties.buckets.len() <= MAX_REMEMBERED);
        assert!(limit.identities.buckets.len() <= MAX_REMEMBERED);
        limit.admit_party(Party::of(IpAddr::V4(99_999.into())), at(60)).unwrap();
        assert!(limit.parties.buckets.len() < 10, "the idle ones are forgotten");
    }

    proptest! {
        /// In any hour no more than the burst and the rate, wherever the clock jumps within it.
        #[test]
        fn no_clock_gives_more_than_burst_and_rate(seconds in prop::collection::vec(0i64..3600, 1..400)) {
            let mut limit = limit(3, 100, 100);
            let admitted = seconds.iter().filter(|&&second| {
                limit.admit_party(party("192.0.2.1"), at(second)).is_ok()
            }).count();
            let forward: i64 = seconds.windows(2).map(|pair| (pair[1] - pair[0]).max(0)).sum();
            prop_assert!(admitted as i64 <= 3 + forward * 3 / 60 + 1);
        }
    }
}
