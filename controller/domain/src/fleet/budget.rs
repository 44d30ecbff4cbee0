//! What a host may make the controller write: so much at once, so much in the long run, however often it connects.
//!
//! A host that works as it should never meets these limits. One that is broken, or in the wrong hands, has a
//! certificate all the same, and everything that it says costs a transaction: beyond its budget it is counted instead
//! of stored, and who goes far beyond is cut off. The budget is the host's, not the connection's: a new connection
//! brings nothing back.

use std::collections::HashMap;
use std::time::Duration;

use fleetward_protocol::id::HostId;
use fleetward_protocol::time::Timestamp;

use crate::bucket::{Bucket, Rate, TooMany};

/// Something of a host that costs the controller a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expense {
    /// It connects: its presence is written.
    Connection,
    /// It reports something to an operator: its row and an audit event.
    Notice,
    /// It reports its facts: its row.
    Facts,
    /// It tells what it needs: its row.
    Upkeep,
    /// It asks for a certificate: a row and an audit event, also if it is refused.
    Renewal,
    /// It was cut off, and its operator is told so.
    CutOff,
}

/// Connections: an agent whose network comes and goes makes some twenty in a minute.
const CONNECTIONS: Rate = Rate { burst: 120, refill: Duration::from_secs(240) };
/// Notices: an agent tells what it found when it started, and then hardly anything.
const NOTICES: Rate = Rate { burst: 40, refill: Duration::from_secs(20 * 60) };
/// Facts: an agent looks every five minutes whether they changed, and tells them at each connection.
const FACTS: Rate = Rate { burst: 10, refill: Duration::from_secs(5 * 60) };
/// What it needs: an agent tells it at each connection, and when it changed. What is known already is not written.
const UPKEEP: Rate = Rate { burst: 130, refill: Duration::from_secs(240) };
/// Renewals: an agent asks once in a third of a certificate's life, and every ten minutes while it is refused.
const RENEWALS: Rate = Rate { burst: 6, refill: Duration::from_secs(3600) };
/// Being told of a host that was cut off.
const CUTS: Rate = Rate { burst: 1, refill: Duration::from_secs(3600) };
/// Messages beyond the budgets that are only counted; whoever sends more is cut off.
const EXCESS: Rate = Rate::per_minute(300);
/// How often hosts that rest are forgotten at most, for that looks at all.
const PRUNE: Duration = Duration::from_secs(60);

/// What may be done with a message of a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Allowance {
    /// Store it.
    Within,
    /// Count it, and store nothing. After this time there is budget again.
    Beyond(TooMany),
    /// Count it and cut the host off: this is a flood.
    Flood,
}

/// A host sends far more than it may: it is to be cut off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("too many messages: far more than an agent sends")]
pub struct Flood;

/// What is left of all hosts' budgets. One small record for each host that used some of it lately.
#[derive(Debug, Default)]
pub struct Budgets {
    hosts: HashMap<HostId, Budget>,
    pruned: Option<Timestamp>,
}

#[derive(Debug, Clone, Copy)]
struct Budget {
    connections: Bucket,
    notices: Bucket,
    facts: Bucket,
    upkeep: Bucket,
    renewals: Bucket,
    cuts: Bucket,
    excess: Bucket,
}

impl Budgets {
    /// Takes an expense from the host's budget, if it is in there. For what can wait until it is; what is sent again
    /// and again belongs to [`spend`](Self::spend).
    ///
    /// # Errors
    /// [`TooMany`] if the budget is used up.
    pub fn admit(&mut self, host: HostId, expense: Expense, now: Timestamp) -> Result<(), TooMany> {
        self.prune(now);
        self.hosts.entry(host).or_insert_with(|| Budget::full(now)).take(expense, now)
    }

    /// Takes note of a message of the host that costs this; what is to be done with it.
    pub fn spend(&mut self, host: HostId, expense: Expense, now: Timestamp) -> Allowance {
        match self.admit(host, expense, now) {
            Ok(()) => Allowance::Within,
            Err(too_many) => {
                self.exceed(host, now).map_or(Allowance::Flood, |()| Allowance::Beyond(too_many))
            }
        }
    }

    /// Takes note of a message of the host that is only counted, whatever the reason.
    ///
    /// # Errors
    /// [`Flood`] if there were too many of them.
    pub fn exceed(&mut self, host: HostId, now: Timestamp) -> Result<(), Flood> {
        let budget = self.hosts.entry(host).or_insert_with(|| Budget::full(now));
        budget.excess.take(EXCESS, now).map_err(|_| Flood)
    }

    fn prune(&mut self, now: Timestamp) {
        if self.pruned.is_none_or(|then| now < then || now >= then + PRUNE) {
            self.pruned = Some(now);
            self.hosts.retain(|_, budget| !budget.is_full(now));
        }
    }
}

impl Expense {
    const fn rate(self) -> Rate {
        match self {
            Self::Connection => CONNECTIONS,
            Self::Notice => NOTICES,
            Self::Facts => FACTS,
            Self::Upkeep => UPKEEP,
            Self::Renewal => RENEWALS,
            Self::CutOff => CUTS,
        }
    }
}

impl Budget {
    fn full(now: Timestamp) -> Self {
        Self {
            connections: Bucket::full(CONNECTIONS, now),
            notices: Bucket::full(NOTICES, now),
            facts: Bucket::full(FACTS, now),
            upkeep: Bucket::full(UPKEEP, now),
            renewals: Bucket::full(RENEWALS, now),
            cuts: Bucket::full(CUTS, now),
            excess: Bucket::full(EXCESS, now),
        }
    }

    fn take(&mut self, expense: Expense, now: Timestamp) -> Result<(), TooMany> {
        let bucket = match expense {
            Expense::Connection => &mut self.connections,
            Expense::Notice => &mut self.notices,
            Expense::Facts => &mut self.facts,
            Expense::Upkeep => &mut self.upkeep,
            Expense::Renewal => &mut self.renewals,
            Expense::CutOff => &mut self.cuts,
        };
        bucket.take(expense.rate(), now)
    }

    fn is_full(&self, now: Timestamp) -> bool {
        self.connections.is_full(CONNECTIONS, now)
            && self.notices.is_full(NOTICES, now)
            && self.facts.is_full(FACTS, now)
            && self.upkeep.is_full(UPKEEP, now)
            && self.renewals.is_full(RENEWALS, now)
            && self.cuts.is_full(CUTS, now)
            && self.excess.is_full(EXCESS, now)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use uuid::Uuid;

    use super::*;

    const START: Timestamp = Timestamp::from_millis(1_700_000_000_000);
    const EXPENSES: [Expense; 6] = [
        Expense::Connection,
        Expense::Notice,
        Expense::Facts,
        Expense::Upkeep,
        Expense::Renewal,
        Expense::CutOff,
    ];

    fn host(number: u128) -> HostId {
        HostId::from_uuid(Uuid::from_u128(number))
    }

    #[test]
    fn an_agent_that_works_as_it_should_never_meets_a_limit() {
        let mut budgets = Budgets::default();
        // It starts with forty notices; then its network comes and goes for ten minutes, and a renewal is refused.
        for _ in 0..40 {
            assert_eq!(budgets.spend(host(1), Expense::Notice, START), Allowance::Within);
        }
        for second in (0..600).step_by(3) {
            budgets.admit(host(1), Expense::Connection, START + Duration::from_secs(second)).unwrap();
            let upkeep = budgets.spend(host(1), Expense::Upkeep, START + Duration::from_secs(second));
            assert_eq!(upkeep, Allowance::Within);
        }
        for minute in (0..600).step_by(10) {
            let now = START + Duration::from_secs(minute * 60);
            assert_eq!(budgets.spend(host(1), Expense::Renewal, now), Allowance::Within);
        }
    }

    #[test]
    fn a_flood_is_counted_and_then_cut_off_and_a_new_connection_brings_nothing_back() {
        let mut budgets = Budgets::default();
        let answers: Vec<_> = (0..342).map(|_| budgets.spend(host(1), Expense::Notice, START)).collect();
        let count = |wanted: fn(&Allowance) -> bool| answers.iter().filter(|&answer| wanted(answer)).count();
        assert_eq!(count(|answer| *answer == Allowance::Within), 40);
        assert_eq!(count(|answer| matches!(answer, Allowance::Beyond(_))), 300);
        assert_eq!(count(|answer| *answer == Allowance::Flood), 2);
        assert_eq!(budgets.spend(host(1), Expense::Notice, START), Allowance::Flood);
        assert_eq!(budgets.spend(host(2), Expense::Notice, START), Allowance::Within, "another host");
    }

    #[test]
    fn hosts_that_rest_are_forgotten() {
        let mut budgets = Budgets::default();
        for number in 0..5000 {
            budgets.admit(host(number), Expense::Connection, START).unwrap();
        }
        assert_eq!(budgets.hosts.len(), 5000);
        budgets.admit(host(0), Expense::Connection, START + Duration::from_secs(3600)).unwrap();
        assert_eq!(budgets.hosts.len(), 1);
    }

    proptest! {
        /// Whatever a host sends and however the clock runs, forgetting included: of no kind more is stored than its
        /// burst and what came back, and what is not stored is counted.
        #[test]
        fn what_is_stored_is_bounded(
            steps in prop::collection::vec((0usize..6, 0u128..3, 0u64..120), 1..1500)
        ) {
            let mut budgets = Budgets::default();
            let mut stored = HashMap::<(u128, usize), u32>::new();
            let mut now = START;
            for (kind, who, gap) in steps {
                now = now + Duration::from_secs(gap);
                if budgets.spend(host(who), EXPENSES[kind], now) == Allowance::Within {
                    *stored.entry((who, kind)).or_default() += 1;
                }
            }
            for ((_, kind), stored) in stored {
                let rate = EXPENSES[kind].rate();
                let came_back = now.since(START).as_secs_f64() * f64::from(rate.burst) / rate.refill.as_secs_f64();
                prop_assert!(f64::from(stored) <= f64::from(rate.burst) + came_back + 1e-6);
            }
            prop_assert!(budgets.hosts.len() <= 3);
        }
    }
}
