//! One identity on two machines: how it is noticed, and how a host that moves, restarts or is set up again is not
//! accused of it.
//!
//! A machine is known by its boot and by the life of its journal. Neither comes back: a reboot makes a boot that never
//! was, and a new journal is one that never was. So an identity that was at one pair, then at another, and is at the
//! first again, is at both (containers share their kernel's boot, and have journals of their own). A perfect copy has
//! both in common; it gives itself away when several times within minutes a newcomer from another address takes the
//! place of a session that is alive. Two such copies behind one address are not seen here; their agents tell.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::time::Duration;

use fleetward_protocol::id::{BootId, JournalId};
use fleetward_protocol::time::Timestamp;
use serde::{Deserialize, Serialize};

/// Machines that are remembered of one host.
const MACHINES: usize = 4;
/// Takeovers from the one address to the other and back that prove two copies.
const TAKEOVERS: usize = 4;
/// Within which they must be.
const TAKEOVERS_WITHIN: Duration = Duration::from_secs(10 * 60);
/// Without a change for so long, it is over.
pub const OVER_AFTER: Duration = Duration::from_secs(15 * 60);
/// How often it is written down at most while it lasts.
const REFRESH: Duration = Duration::from_secs(60);

/// A session that begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Arrival {
    /// The boot of the machine.
    pub boot: BootId,
    /// The life of its journal.
    pub journal: JournalId,
    /// From where it comes.
    pub address: IpAddr,
    /// Whether it takes the place of a session that was heard of a moment ago.
    pub replaces: Replaces,
}

/// What was in the seat before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Replaces {
    /// A session that was heard of a moment ago.
    Living,
    /// None, or one that had been silent.
    Nothing,
}

/// One of the machines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine {
    /// Its boot.
    pub boot: BootId,
    /// The life of its journal.
    pub journal: JournalId,
    /// From where it came last.
    pub address: IpAddr,
    /// When it first came.
    pub first_seen: Timestamp,
    /// When it last came.
    pub last_seen: Timestamp,
}

/// One identity on two machines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Twins {
    /// Both of them; the one that came last is the second.
    pub machines: [Machine; 2],
    /// Since when it is known.
    pub since: Timestamp,
    /// When the one last came after the other.
    pub at: Timestamp,
    /// How often.
    pub changes: u64,
}

/// What is remembered of one host's sessions: a few of the last.
#[derive(Debug, Default)]
pub struct TwinWatch {
    /// Distinct ones, the current one last.
    machines: Vec<Machine>,
    /// Living sessions that were replaced from another address by what seems to be the same machine.
    takeovers: VecDeque<(Timestamp, IpAddr)>,
    twins: Option<Twins>,
    written: Option<Timestamp>,
}

impl Twins {
    /// Whether it still goes on.
    #[must_use]
    pub fn is_current(&self, now: Timestamp) -> bool {
        now.since(self.at) < OVER_AFTER
    }
}

impl TwinWatch {
    /// Takes note of a session that begins; what is to be written down, if anything is. Where that fails,
    /// [`not_written`](Self::not_written) is to be called.
    #[must_use]
    pub fn handle(&mut self, arrival: Arrival, now: Timestamp) -> Option<Twins> {
        let current = self.machines.last().copied();
        let proof = self.look(arrival, now);
        if self.twins.is_some_and(|twins| !twins.is_current(now)) {
            self.twins = None;
            self.written = None;
        }
        let newest = *self.machines.last()?;
        // While it is known, each change between the two is part of it; before, there must be a proof.
        let is_change =
            proof || self.twins.is_some() && current.is_some_and(|current| !current.is_same(&newest));
        if !is_change {
            return None;
        }
        let other = current?;
        let (since, changes) = self.twins.map_or((now, 0), |twins| (twins.since, twins.changes));
        let twins = Twins { machines: [other, newest], since, at: now, changes: changes + 1 };
        self.twins = Some(twins);
        if self.written.is_some_and(|at| now >= at && now < at + REFRESH) {
            return None;
        }
        self.written = Some(now);
        Some(twins)
    }

    /// A watch that goes on where another one wrote this down: a controller was restarted.
    #[must_use]
    pub fn resume(twins: Twins) -> Self {
        Self {
            machines: twins.machines.to_vec(),
            twins: Some(twins),
            written: Some(twins.at),
            ..Self::default()
        }
    }

    /// What was to be written down was not: it is due again.
    pub fn not_written(&mut self) {
        self.written = None;
    }

    /// Whether it is known, and goes on.
    #[must_use]
    pub fn is_current(&self, now: Timestamp) -> bool {
        self.twins.is_some_and(|twins| twins.is_current(now))
    }

    /// Remembers the session; whether it proves that there are two machines.
    fn look(&mut self, arrival: Arrival, now: Timestamp) -> bool {
        let Arrival { boot, journal, address, replaces } = arrival;
        let mut machine = Machine { boot, journal, address, first_seen: now, last_seen: now };
        match self.machines.iter().position(|known| known.is_same(&machine)) {
            Some(at) if at + 1 == self.machines.len() => {
                let before = self.machines[at].address;
                self.machines[at].address = address;
                self.machines[at].last_seen = now;
                replaces == Replaces::Living && before != address && self.goes_back_and_forth(before, now)
            }
            Some(at) => {
                machine.first_seen = self.machines.remove(at).first_seen;
                self.machines.push(machine);
                true
            }
            None => {
                if self.machines.len() == MACHINES {
                    self.machines.remove(0);
                }
                self.machines.push(machine);
                false
            }
        }
    }

    /// Takes note of a living session that was replaced from another address; whether that has gone back and forth too
    /// often for one machine.
    fn goes_back_and_forth(&mut self, from: IpAddr, now: Timestamp) -> bool {
        self.takeovers.retain(|(at, _)| now.since(*at) < TAKEOVERS_WITHIN && *at <= now);
        if self.takeovers.len() == TAKEOVERS {
            self.takeovers.pop_front();
        }
        self.takeovers.push_back((now, from));
        let returns = self.takeovers.iter().zip(self.takeovers.iter().skip(2));
        self.takeovers.len() == TAKEOVERS && returns.into_iter().all(|((_, one), (_, again))| one == again)
    }
}

impl Machine {
    fn is_same(&self, other: &Self) -> bool {
        (self.boot, self.journal) == (other.boot, other.journal)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use uuid::Uuid;

    use super::*;

    const START: Timestamp = Timestamp::from_millis(1_700_000_000_000);

    fn arrival(boot: u128, journal: u128, address: u8, replaces: Replaces) -> Arrival {
        Arrival {
            boot: BootId::from_uuid(Uuid::from_u128(boot)),
            journal: JournalId::from_uuid(Uuid::from_u128(journal)),
            address: IpAddr::from([192, 0, 2, address]),
            replaces,
        }
    }

    fn at(seconds: u64) -> Timestamp {
        START + Duration::from_secs(seconds)
    }

    #[test]
    fn a_boot_or_a_journal_that_comes_back_proves_two_machines() {
        let pairs = [[(1, 1), (2, 1)], [(1, 1), (1, 2)], [(1, 1), (2, 2)]];
        for [(boot, journal), (other_boot, other_journal)] in pairs {
            let mut watch = TwinWatch::default();
            assert_eq!(watch.handle(arrival(boot, journal, 1, Replaces::Nothing), at(0)), None);
            assert_eq!(watch.handle(arrival(other_boot, other_journal, 2, Replaces::Living), at(60)), None);
            let twins = watch.handle(arrival(boot, journal, 1, Replaces::Living), at(120)).unwrap();
            let addresses = twins.machines.map(|machine| machine.address.to_string());
            assert_eq!(addresses, ["192.0.2.2", "192.0.2.1"]);
            let seen = twins.machines.map(|machine| (machine.first_seen, machine.last_seen));
            assert_eq!(seen, [(at(60), at(60)), (at(0), at(120))]);
        }
    }

    #[test]
    fn perfect_copies_are_known_by_the_living_sessions_that_they_end() {
        let mut watch = TwinWatch::default();
        let found = (0..6).map(|turn: u8| {
            let address = 1 + turn % 2;
            watch.handle(arrival(1, 1, address, Replaces::Living), at(60 * u64::from(turn))).is_some()
        });
        assert_eq!(found.collect::<Vec<_>>(), [false, false, false, false, true, true]);
    }

    #[test]
    fn it_is_written_once_a_minute_and_is_over_when_they_rest() {
        let mut watch = TwinWatch::default();
        let mut come = |boot, second| watch.handle(arrival(boot, boot, 1, Replaces::Living), at(second));
        let written = (0..1200).filter(|&second| come(u128::from(second % 2), second).is_some()).count();
        assert_eq!(written, 20);
        assert_eq!(come(1, 1200 + 2000), None, "the one that stays");
        let again = come(0, 1200 + 2010).unwrap();
        assert_eq!((again.since, again.changes), (at(3210), 1), "a new one");
        watch.not_written();
        assert!(watch.is_current(at(3211)));
        assert!(!watch.is_current(at(3210) + OVER_AFTER));
    }

    /// What one machine may do between two sessions.
    #[derive(Debug, Clone, Copy)]
    enum Step {
        /// Its agent comes again from the same address, before or after its old session was noticed to be dead.
        Again(Replaces),
        /// It is in another network; its old session was silent before.
        Roam(u8),
        /// It crashes and comes back with another address at once, now and then.
        Hop,
        Reboot,
        NewJournal,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            Just(Step::Again(Replaces::Living)),
            Just(Step::Again(Replaces::Nothing)),
            (1u8..3).prop_map(Step::Roam),
            Just(Step::Hop),
            Just(Step::Reboot),
            Just(Step::NewJournal),
        ]
    }

    proptest! {
        /// One machine is never taken for two, whatever it does.
        #[test]
        fn one_machine_is_not_accused(steps in prop::collection::vec((step(), 1u64..200), 1..300)) {
            let (mut watch, mut now) = (TwinWatch::default(), 0);
            let (mut boot, mut journal, mut address, mut hopped) = (1, 1, 1, 0);
            for (step, gap) in steps {
                now += gap;
                let mut replaces = Replaces::Nothing;
                match step {
                    Step::Again(what) => replaces = what,
                    Step::Roam(to) => address = to,
                    // Not three times within minutes.
                    Step::Hop if now > hopped + 300 => {
                        (hopped, address, replaces) = (now, address % 2 + 1, Replaces::Living);
                    }
                    Step::Hop => {}
                    Step::Reboot => boot += 1,
                    Step::NewJournal => journal += 1,
                }
                prop_assert_eq!(watch.handle(arrival(boot, journal, address, replaces), at(now)), None);
            }
        }

        /// Two machines that take the seat from each other are found at the second return at the latest, whatever else
        /// happens to them, and what is remembered stays small.
        #[test]
        fn two_machines_are_found(gaps in prop::collection::vec(1u64..890, 3..100), far in 2u128..5) {
            let (mut watch, mut now, mut found) = (TwinWatch::default(), 0, Vec::new());
            for (turn, gap) in gaps.iter().enumerate() {
                now += gap;
                let machine = if turn % 2 == 0 { 1 } else { far };
                let twins = watch.handle(arrival(machine, 1, machine as u8, Replaces::Living), at(now));
                found.extend(twins);
                prop_assert_eq!(watch.is_current(at(now)), turn >= 2);
                prop_assert!(watch.machines.len() <= MACHINES && watch.takeovers.len() <= TAKEOVERS);
            }
            prop_assert!(found.iter().all(|twins| twins.since == found[0].since), "one finding while it lasts");
        }
    }
}
