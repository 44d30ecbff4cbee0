//! Which run may start now: a cap on runs at once, and exclusion per resource. Pure.
//!
//! First come, first served, except that a run that waits for a resource does not hold up a later one that
//! needs none of it. One that wants the host alone ([`ALONE`]) waits for nobody: it is refused while others are at work, and
//! while it is, nobody else starts.

use std::collections::{BTreeMap, VecDeque};

use fleetward_protocol::action::ALONE;
use fleetward_protocol::id::RunId;
use fleetward_protocol::name::ResourceName;

/// Runs that hold a place, and runs that wait for one.
#[derive(Debug)]
pub struct Queue {
    capacity: usize,
    holding: BTreeMap<RunId, Vec<ResourceName>>,
    waiting: VecDeque<(RunId, Vec<ResourceName>)>,
}

/// The answer to a run that wants to start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admission {
    /// It holds a place now.
    Now,
    /// It waits; [`Queue::release`] or [`Queue::set_capacity`] will name it.
    Later,
    /// It wants the host alone, and so many others are at work. It was not taken in.
    Busy(usize),
}

impl Queue {
    /// An empty queue for `capacity` runs at once.
    #[must_use]
    pub const fn new(capacity: usize) -> Self {
        Self { capacity, holding: BTreeMap::new(), waiting: VecDeque::new() }
    }

    /// Takes a run in, to start now if nothing speaks against it.
    pub fn admit(&mut self, run: RunId, resources: Vec<ResourceName>) -> Admission {
        let others = self.others(run);
        if others > 0 && is_alone(&resources) {
            return Admission::Busy(others);
        }
        self.waiting.push_back((run, resources));
        if self.promote().contains(&run) { Admission::Now } else { Admission::Later }
    }

    /// How many other runs hold a place.
    #[must_use]
    pub fn others(&self, run: RunId) -> usize {
        self.holding.keys().filter(|other| **other != run).count()
    }

    /// Takes in a run that is running already, whatever the capacity.
    pub fn adopt(&mut self, run: RunId, resources: Vec<ResourceName>) {
        self.holding.insert(run, resources);
    }

    /// The run does not hold or want a place any longer; returns the runs that hold one now because of it.
    pub fn release(&mut self, run: RunId) -> Vec<RunId> {
        self.holding.remove(&run);
        self.waiting.retain(|(waiting, _)| *waiting != run);
        self.promote()
    }

    /// Changes the cap; returns the runs that hold a place now because of it.
    pub fn set_capacity(&mut self, capacity: usize) -> Vec<RunId> {
        self.capacity = capacity;
        self.promote()
    }

    /// Runs that hold a place.
    #[must_use]
    pub fn holding(&self) -> usize {
        self.holding.len()
    }

    /// Runs that wait.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    fn promote(&mut self) -> Vec<RunId> {
        let mut promoted = Vec::new();
        let mut at = 0;
        while self.holding.len() < self.capacity && at < self.waiting.len() {
            if self.is_blocked(at) {
                at += 1;
            } else if let Some((run, resources)) = self.waiting.remove(at) {
                self.holding.insert(run, resources);
                promoted.push(run);
            }
        }
        promoted
    }

    /// Whether a holder, or an earlier waiter, wants the same resource.
    fn is_blocked(&self, at: usize) -> bool {
        let Some((_, wanted)) = self.waiting.get(at) else { return true };
        if self.holding.values().any(|held| is_alone(held)) {
            return true;
        }
        let earlier = self.waiting.iter().take(at).map(|(_, resources)| resources);
        self.holding.values().chain(earlier).flatten().any(|resource| wanted.contains(resource))
    }
}

fn is_alone(resources: &[ResourceName]) -> bool {
    resources.iter().any(|resource| resource.as_str() == ALONE)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn run(number: u128) -> RunId {
        RunId::from_uuid(uuid::Uuid::from_u128(number))
    }

    fn resources(names: &[&str]) -> Vec<ResourceName> {
        names.iter().map(|name| name.parse().unwrap()).collect()
    }

    #[test]
    fn a_waiter_for_a_resource_holds_up_only_its_like() {
        let mut queue = Queue::new(2);
        assert_eq!(queue.admit(run(1), resources(&["apt"])), Admission::Now);
        assert_eq!(queue.admit(run(2), resources(&["apt"])), Admission::Later);
        assert_eq!(queue.admit(run(3), vec![]), Admission::Now);
        assert_eq!(queue.admit(run(4), vec![]), Admission::Later);
        assert_eq!(queue.release(run(3)), [run(4)]);
        assert_eq!(queue.release(run(1)), [run(2)]);
        assert_eq!(queue.release(run(2)), []);
        assert_eq!((queue.holding(), queue.waiting()), (1, 0));
    }

    #[test]
    fn who_wants_the_host_alone_is_refused_or_keeps_others_waiting() {
        let mut queue = Queue::new(8);
        assert_eq!(queue.admit(run(1), vec![]), Admission::Now);
        assert_eq!(queue.admit(run(2), resources(&[ALONE])), Admission::Busy(1));
        assert_eq!((queue.holding(), queue.waiting()), (1, 0), "it was not taken in");
        assert_eq!(queue.release(run(1)), []);
        assert_eq!(queue.admit(run(2), resources(&[ALONE])), Admission::Now);
        assert_eq!(queue.admit(run(3), vec![]), Admission::Later);
        assert_eq!(queue.admit(run(4), resources(&[ALONE])), Admission::Busy(1));
        // What goes on behind a restart of the host holds its place, whoever else does.
        queue.adopt(run(5), resources(&["apt"]));
        assert_eq!(queue.release(run(5)), []);
        assert_eq!(queue.release(run(2)), [run(3)]);
    }

    proptest! {
        #[test]
        fn never_too_many_never_two_of_one_resource_and_all_get_their_turn(
            wants in proptest::collection::vec(proptest::collection::vec(0_u8..4, 0..3), 1..40),
            capacity in 1_usize..5,
            order in proptest::collection::vec(any::<proptest::sample::Index>(), 40),
        ) {
            let mut queue = Queue::new(capacity);
            let mut holding = Vec::new();
            let mut started = 0;
            for (number, wants) in wants.iter().enumerate() {
                let names = wants.iter().map(|name| format!("r{name}").parse().unwrap()).collect();
                if queue.admit(run(number as u128), names) == Admission::Now {
                    holding.push(run(number as u128));
                    started += 1;
                }
            }
            let mut order = order.into_iter().cycle();
            while !holding.is_empty() {
                prop_assert!(holding.len() <= capacity);
                let held: Vec<_> = queue.holding.values().flatten().collect();
                let mut distinct = held.clone();
                distinct.sort();
                distinct.dedup();
                let doubles_within = queue.holding.values().map(|held| {
                    let mut own = held.clone();
                    own.sort();
                    own.dedup();
                    held.len() - own.len()
                }).sum::<usize>();
                prop_assert_eq!(distinct.len() + doubles_within, held.len());
                let done = holding.swap_remove(order.next().unwrap().index(holding.len()));
                let next = queue.release(done);
                started += next.len();
                holding.extend(next);
            }
            prop_assert_eq!(started, wants.len());
        }
    }
}
