//! Refusals, told in sum: the first few of a kind and a source in each minute are told one by one, the others as a
//! number when the minute is over. So whoever is refused ten thousand times cannot fill the log with it, and yet
//! nothing goes uncounted. A source is a party that is not known, or a host that is.

use std::collections::{BTreeMap, HashMap};

use fleetward_protocol::id::HostId;
use fleetward_protocol::time::Timestamp;

use crate::people::attempt::Party;

/// Refusals of one kind and source that are told one by one in a minute.
pub const TOLD_OF_SOURCE: u32 = 10;
/// Refusals of one kind, of whomever, that are told one by one in a minute.
pub const TOLD_OF_KIND: u32 = 60;
/// Sources that get a sum of their own in a minute and kind: those with the most.
pub const SUMS_OF_KIND: usize = 10;
/// Sources that are counted one by one in a minute and kind.
const MAX_SOURCES: usize = 1024;
/// Sums that wait to be written; beyond it the waiting ones become one for each kind.
const MAX_WAITING: usize = 256;
const MINUTE_MS: i64 = 60_000;

/// Where what is refused comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Source {
    /// Somebody who has not proved who they are.
    Party(Party),
    /// A host, by its certificate.
    Host(HostId),
}

/// What is to be done with a refusal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Telling {
    /// Tell it.
    Now,
    /// It was counted, and is told with others.
    InSum,
}

/// Refusals that were not told one by one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sum {
    /// What was refused, such as `login.refused`.
    pub kind: &'static str,
    /// To whom; absent for everybody who has no sum of their own.
    pub source: Option<Source>,
    /// How often, beside those that were told.
    pub more: u64,
    /// The beginning of the minute, or of the first of several.
    pub since: Timestamp,
}

/// What was refused in this minute, and the sums of those before.
#[derive(Debug, Default)]
pub struct Tally {
    minute: i64,
    kinds: BTreeMap<&'static str, Kind>,
    waiting: Vec<Sum>,
}

#[derive(Debug, Default)]
struct Kind {
    told: u32,
    sources: HashMap<Source, Count>,
    others: u64,
}

#[derive(Debug, Clone, Copy, Default)]
struct Count {
    told: u32,
    more: u64,
}

impl Tally {
    /// Takes note of a refusal.
    pub fn note(&mut self, kind: &'static str, source: Source, now: Timestamp) -> Telling {
        self.add(kind, source, TOLD_OF_SOURCE, now)
    }

    /// Takes note of a refusal that is told in sum in any case.
    pub fn count(&mut self, kind: &'static str, source: Source, now: Timestamp) {
        let _ = self.add(kind, source, 0, now);
    }

    fn add(&mut self, kind: &'static str, source: Source, tellable: u32, now: Timestamp) -> Telling {
        self.turn_to(now);
        let kind = self.kinds.entry(kind).or_default();
        if kind.sources.len() >= MAX_SOURCES && !kind.sources.contains_key(&source) {
            kind.others += 1;
            return Telling::InSum;
        }
        let count = kind.sources.entry(source).or_default();
        if count.told < tellable && kind.told < TOLD_OF_KIND {
            count.told += 1;
            kind.told += 1;
            return Telling::Now;
        }
        count.more += 1;
        Telling::InSum
    }

    /// The sums of the minutes that are over. They are to be given back if they could not be written.
    #[must_use]
    pub fn take_due(&mut self, now: Timestamp) -> Vec<Sum> {
        self.turn_to(now);
        std::mem::take(&mut self.waiting)
    }

    /// All sums, also of the minute that is not over: at the end.
    #[must_use]
    pub fn take_all(&mut self) -> Vec<Sum> {
        self.close();
        std::mem::take(&mut self.waiting)
    }

    /// Takes back what could not be written.
    pub fn give_back(&mut self, sums: Vec<Sum>) {
        self.waiting.splice(0..0, sums);
        self.shorten();
    }

    /// The minute is over when the clock shows another one, wherever it was set.
    fn turn_to(&mut self, now: Timestamp) {
        let minute = now.as_millis().div_euclid(MINUTE_MS);
        if minute != self.minute {
            self.close();
            self.minute = minute;
        }
    }

    fn close(&mut self) {
        let since = Timestamp::from_millis(self.minute.saturating_mul(MINUTE_MS));
        for (kind, counted) in std::mem::take(&mut self.kinds) {
            let mut sources: Vec<(Source, u64)> = counted
                .sources
                .into_iter()
                .filter(|(_, count)| count.more > 0)
                .map(|(source, count)| (source, count.more))
                .collect();
            sources.sort_unstable_by_key(|&(source, more)| (std::cmp::Reverse(more), source));
            let others: u64 =
                sources.iter().skip(SUMS_OF_KIND).map(|(_, more)| more).sum::<u64>() + counted.others;
            let own = sources.into_iter().take(SUMS_OF_KIND).map(|(source, more)| (Some(source), more));
            let sums = own.chain((others > 0).then_some((None, others)));
            self.waiting.extend(sums.map(|(source, more)| Sum { kind, source, more, since }));
        }
        self.shorten();
    }

    /// While nothing can be written, for hours perhaps, what waits stays small.
    fn shorten(&mut self) {
        if self.waiting.len() <= MAX_WAITING {
            return;
        }
        let mut merged: BTreeMap<&'static str, Sum> = BTreeMap::new();
        for sum in std::mem::take(&mut self.waiting) {
            let Sum { kind, more, since, .. } = sum;
            let all = merged.entry(kind).or_insert(Sum { kind, source: None, more: 0, since });
            all.more = all.more.saturating_add(more);
            all.since = all.since.min(since);
        }
        self.waiting = merged.into_values().collect();
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(millis: i64) -> Timestamp {
        Timestamp::from_millis(1_700_000_040_000 + millis)
    }

    fn party(number: u32) -> Source {
        Source::Party(Party::of(std::net::IpAddr::V4(number.into())))
    }

    #[test]
    fn the_first_few_are_told_and_the_others_in_one_number() {
        let mut tally = Tally::default();
        let told = (0..47).filter(|_| tally.note("login.refused", party(1), at(0)) == Telling::Now).count();
        assert_eq!(told, 10);
        assert_eq!(tally.note("login.refused", party(2), at(59_999)), Telling::Now, "somebody else");
        assert_eq!(tally.note("link.refused", party(1), at(59_999)), Telling::Now, "something else");
        assert_eq!(tally.take_due(at(59_999)), []);
        let sum = Sum { kind: "login.refused", source: Some(party(1)), more: 37, since: at(0) };
        assert_eq!(tally.take_due(at(60_000)), [sum]);
        assert_eq!(tally.note("login.refused", party(1), at(60_000)), Telling::Now, "a new minute");
    }

    #[test]
    fn what_is_only_counted_is_in_the_sum_of_its_host() {
        let (mut tally, host) = (Tally::default(), Source::Host(HostId::from_uuid(uuid::Uuid::nil())));
        (0..37).for_each(|_| tally.count("host.notice", host, at(0)));
        assert_eq!(tally.note("host.notice", party(1), at(0)), Telling::Now);
        let sum = Sum { kind: "host.notice", source: Some(host), more: 37, since: at(0) };
        assert_eq!(tally.take_due(at(60_000)), [sum]);
    }

    #[test]
    fn a_crowd_is_told_in_few_words() {
        let mut tally = Tally::default();
        let told = (0..100_000u32)
            .filter(|&number| tally.note("link.refused", party(number), at(0)) == Telling::Now)
            .count();
        assert_eq!(told, TOLD_OF_KIND as usize);
        let sums = tally.take_all();
        assert_eq!(sums.len(), SUMS_OF_KIND + 1);
        assert_eq!(sums.iter().map(|sum| sum.more).sum::<u64>(), 100_000 - u64::from(TOLD_OF_KIND));
        assert_eq!(sums.last().unwrap().source, None);
    }

    proptest! {
        /// Whatever comes, wherever the clock is set, whether writing works or not: nothing is lost, and what is kept
        /// is bounded.
        #[test]
        fn nothing_goes_uncounted(
            steps in prop::collection::vec((0u8..3, 0u32..40, -90_000i64..90_000, any::<bool>(), any::<bool>()), 1..2000)
        ) {
            const KINDS: [&str; 3] = ["login.refused", "link.refused", "enrolment.refused"];
            let (mut tally, mut now) = (Tally::default(), 0);
            let (mut told, mut summed, mut noted) = (0u64, 0u64, 0u64);
            for (kind, who, gap, takes, writes) in steps {
                now += gap;
                noted += 1;
                told += u64::from(tally.note(KINDS[usize::from(kind)], party(who), at(now)) == Telling::Now);
                if takes {
                    let sums = tally.take_due(at(now));
                    if writes {
                        summed += sums.iter().map(|sum| sum.more).sum::<u64>();
                    } else {
                        tally.give_back(sums);
                    }
                }
                prop_assert!(tally.waiting.len() <= MAX_WAITING);
            }
            summed += tally.take_all().iter().map(|sum| sum.more).sum::<u64>();
            prop_assert_eq!(told + summed, noted);
        }
    }
}
