//! A limit on attempts per address and in all, so that guessing tokens, or filling the audit log with refusals,
//! costs more time than it is worth.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use fleetward_protocol::session::Monotonic;

/// Addresses remembered at most; beyond it, attempts from new ones are refused until some are forgotten.
const MAX_ADDRESSES: usize = 4096;
/// How often addresses are forgotten at most.
const PRUNE: Duration = Duration::from_secs(1);
/// How many times the limit of one address all addresses together may have.
const GLOBAL_FACTOR: u32 = 20;

/// Attempts per minute, per address and in all. A burst of one minute's worth is allowed.
#[derive(Debug)]
pub(super) struct AttemptLimit {
    per_minute: u32,
    all: Bucket,
    addresses: HashMap<IpAddr, Bucket>,
    pruned: Monotonic,
}

#[derive(Debug, Clone, Copy)]
struct Bucket {
    /// Attempts left.
    tokens: f64,
    at: Monotonic,
}

impl AttemptLimit {
    pub(super) fn new(per_minute: u32, now: Monotonic) -> Self {
        let all = Bucket { tokens: f64::from(per_minute.saturating_mul(GLOBAL_FACTOR)), at: now };
        Self { per_minute, all, addresses: HashMap::new(), pruned: now }
    }

    /// Takes note of an attempt; whether it may go on.
    pub(super) fn admit(&mut self, address: IpAddr, now: Monotonic) -> bool {
        let address = accounted(address);
        if self.addresses.len() >= MAX_ADDRESSES && !self.addresses.contains_key(&address) {
            self.prune(now);
            if self.addresses.len() >= MAX_ADDRESSES {
                return false;
            }
        }
        let full = Bucket { tokens: f64::from(self.per_minute), at: now };
        let own = self.addresses.entry(address).or_insert(full);
        // The address first: what is refused there does not use up everybody's share.
        own.take(self.per_minute, now) && self.all.take(self.per_minute.saturating_mul(GLOBAL_FACTOR), now)
    }
}

impl AttemptLimit {
    /// Forgets the addresses that have been quiet; not more often than every second, for that looks at all.
    fn prune(&mut self, now: Monotonic) {
        if now >= self.pruned + PRUNE {
            self.pruned = now;
            let per_minute = self.per_minute;
            self.addresses.retain(|_, bucket| !bucket.is_full(per_minute, now));
        }
    }
}

impl Bucket {
    fn take(&mut self, per_minute: u32, now: Monotonic) -> bool {
        self.tokens = self.refilled(per_minute, now);
        self.at = now;
        let has_one = self.tokens >= 1.0;
        if has_one {
            self.tokens -= 1.0;
        }
        has_one
    }

    fn is_full(&self, per_minute: u32, now: Monotonic) -> bool {
        self.refilled(per_minute, now) >= f64::from(per_minute)
    }

    fn refilled(&self, per_minute: u32, now: Monotonic) -> f64 {
        let span: Duration = now.0.saturating_sub(self.at.0);
        let refill = span.as_secs_f64() * f64::from(per_minute) / 60.0;
        (self.tokens + refill).min(f64::from(per_minute))
    }
}

/// What one party has: an IPv4 address, or an IPv6 network of 64 bits.
fn accounted(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() >> 64 << 64)),
        address => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Monotonic {
        Monotonic(Duration::from_secs(seconds))
    }

    #[test]
    fn an_address_gets_its_share_and_no_more() {
        let mut limit = AttemptLimit::new(6, at(0));
        let one = "192.0.2.1".parse().unwrap();
        let admitted = (0..20).filter(|_| limit.admit(one, at(1))).count();
        assert_eq!(admitted, 6);
        assert!(limit.admit("192.0.2.2".parse().unwrap(), at(1)));
        assert!(limit.admit("::ffff:192.0.2.2".parse().unwrap(), at(1)));
        assert!(!limit.admit("::ffff:192.0.2.1".parse().unwrap(), at(1)), "the same party");
        assert!(limit.admit(one, at(11)), "one every ten seconds");
        assert!(!limit.admit(one, at(11)));
    }

    #[test]
    fn an_ipv6_network_is_one_party_and_all_together_are_limited() {
        let mut limit = AttemptLimit::new(2, at(0));
        let in_network = |network: u128, host: u128| {
            IpAddr::V6(Ipv6Addr::from_bits((0x2001_0db8 << 96) | (network << 64) | host))
        };
        assert_eq!((0..9).filter(|&host| limit.admit(in_network(0, host), at(0))).count(), 2);
        let admitted = (1..1000).filter(|&network| limit.admit(in_network(network, 1), at(0))).count();
        assert_eq!(admitted, 38);
    }

    #[test]
    fn memory_is_bounded() {
        let mut limit = AttemptLimit::new(1000, at(0));
        for number in 0..10_000u32 {
            limit.admit(IpAddr::V4(number.into()), at(0));
        }
        assert!(limit.addresses.len() <= MAX_ADDRESSES);
        assert!(limit.admit(IpAddr::V4(99_999.into()), at(60)), "the idle ones are forgotten");
    }
}
