//! Whether the store still has what this controller has seen committed.
//!
//! A failover of PostgreSQL to a standby that was behind, or a backup that is put back under a controller that lives, takes
//! commits away. The controller's memory is ahead of the store then: what it has acknowledged to hosts is gone, and no host says it
//! again, for none says a new hello. So it notices, and ends in order: started anew it knows no more than the store does, and every
//! host that comes back tells what it has.
//!
//! **How.** An operation's `seq` only grows, and each commit takes its own. A store that shows a lower one than was seen committed,
//! or a commit of this controller that took a seq which an earlier one of it had taken, proves the loss. So does the count of the
//! controller's own beats, where it has one.
//!
//! **What it promises.** No commit that is on its way looks like a loss: what is compared with the store is what was known before
//! the store was read.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use fleetward_protocol::id::OperationId;
use tokio_util::sync::CancellationToken;
use tracing::error;

/// What was seen committed of operations. Cheap to clone; all clones are one.
#[derive(Debug, Clone, Default)]
pub struct Continuity(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    seen: Mutex<HashMap<OperationId, Seen>>,
    /// The highest count of beats that this controller committed.
    beat: AtomicU64,
    broken: CancellationToken,
}

/// The seqs that were seen committed of one operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Seen {
    /// The highest, whoever committed it.
    latest: u64,
    /// The highest of those that the recorder committed, which come in their order.
    recorded: u64,
    /// The one that another than the recorder committed last, here.
    committed: u64,
}

impl Continuity {
    /// Returns when commits are known to be lost: the controller must end.
    pub async fn broken(&self) {
        self.0.broken.cancelled().await;
    }

    /// Whether commits are known to be lost.
    #[must_use]
    pub fn is_broken(&self) -> bool {
        self.0.broken.is_cancelled()
    }

    /// The recorder committed this seq of an operation, after all that it had committed before.
    pub(crate) fn note_recorded(&self, operation: OperationId, seq: u64) {
        // An operation that is gone takes none.
        if seq == 0 {
            return;
        }
        let before = self.raise(operation, seq, |seen| &mut seen.recorded);
        // One that was committed before another's is perhaps heard of only after it: that is no loss, the same seq is.
        if seq <= before.recorded || seq == before.committed {
            self.tell(operation, Some(seq), before.latest);
        }
    }

    /// Another one than the recorder committed this seq of an operation, here.
    pub(crate) fn note_committed(&self, operation: OperationId, seq: u64) {
        let before = self.raise(operation, seq, |seen| &mut seen.committed);
        if seq == before.recorded || seq == before.committed {
            self.tell(operation, Some(seq), before.latest);
        }
    }

    /// The store was seen to have this seq of an operation.
    pub(crate) fn note_stored(&self, operation: OperationId, seq: u64) {
        self.raise(operation, seq, |seen| &mut seen.latest);
    }

    /// Takes note of a seq as the latest, and as this; what was known before.
    fn raise(&self, operation: OperationId, seq: u64, this: fn(&mut Seen) -> &mut u64) -> Seen {
        let mut all = self.seen();
        let seen = all.entry(operation).or_default();
        let before = *seen;
        seen.latest = seen.latest.max(seq);
        let this = this(seen);
        *this = seq.max(*this);
        before
    }

    /// The highest seq of each operation that is known to be committed now. To be taken before the store is read.
    pub(crate) fn latest(&self) -> HashMap<OperationId, u64> {
        self.seen().iter().map(|(operation, seen)| (*operation, seen.latest)).collect()
    }

    /// Compares what was known before the store was read with what it has of an operation: this seq, or nothing.
    pub(crate) fn compare(&self, operation: OperationId, before: u64, stored: Option<u64>) {
        if stored.is_none_or(|stored| stored < before) {
            self.tell(operation, stored, before);
        }
    }

    /// This controller committed this count of its beats.
    pub(crate) fn note_beat(&self, beat: u64) {
        self.0.beat.fetch_max(beat, Ordering::SeqCst);
    }

    /// Compares what was committed of this controller's beats with the count that its next one was given by the store, in a
    /// transaction that no other beat can overtake.
    pub(crate) fn compare_beat(&self, beat: u64) {
        let committed = self.0.beat.load(Ordering::SeqCst);
        if beat <= committed {
            self.tell_of("the controller's beat", Some(beat), committed);
        }
    }

    /// Forgets all operations but these.
    pub(crate) fn retain(&self, is_kept: impl Fn(&OperationId) -> bool) {
        self.seen().retain(|operation, _| is_kept(operation));
    }

    fn tell(&self, operation: OperationId, stored: Option<u64>, seen: u64) {
        self.tell_of(&format!("operation {operation}"), stored, seen);
    }

    /// Something that only grows, and was seen committed, is lower in the store or not there: ends the wait of [`Self::broken`].
    fn tell_of(&self, what: &str, stored: Option<u64>, seen: u64) {
        if !self.is_broken() {
            error!(
                what,
                stored,
                seen,
                remedy = "the controller starts anew, and hosts tell it what they have; require a synchronous standby \
                          (`synchronous_standby_names`), or restore backups only while the controller is stopped",
                "controller.commits_lost"
            );
            self.0.broken.cancel();
        }
    }

    fn seen(&self) -> MutexGuard<'_, HashMap<OperationId, Seen>> {
        self.0.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use proptest::prelude::*;
    use uuid::Uuid;

    use super::*;

    /// What happens to one operation, its store and its controller.
    #[derive(Debug, Clone)]
    enum Step {
        /// The recorder commits; what it hears of it comes later.
        Record,
        /// The recorder hears of its oldest commit that it has not heard of.
        Hear,
        /// A request of a person commits, and hears of it at once.
        Commit,
        /// Another controller commits.
        Elsewhere,
        /// A look begins: what is known is noted.
        Begin,
        /// The look that began reads the store and compares.
        Read,
        /// A failover that loses this many of the last commits.
        Lose(u64),
    }

    fn steps(lose: BoxedStrategy<Step>) -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            6 => Just(Step::Record),
            6 => Just(Step::Hear),
            1 => Just(Step::Commit),
            2 => Just(Step::Elsewhere),
            3 => Just(Step::Begin),
            3 => Just(Step::Read),
            1 => lose,
        ];
        prop::collection::vec(step, 0..80)
    }

    /// A commit of this controller.
    fn own() -> impl Strategy<Value = Step> {
        prop_oneof![Just(Step::Record), Just(Step::Commit)]
    }

    /// A store with one operation, and what its controller knows.
    struct Model {
        continuity: Continuity,
        operation: OperationId,
        stored: u64,
        unheard: VecDeque<u64>,
        begun: Option<u64>,
    }

    impl Model {
        fn new() -> Self {
            let operation = OperationId::from_uuid(Uuid::from_u128(1));
            let continuity = Continuity::default();
            continuity.note_stored(operation, 1);
            Self { continuity, operation, stored: 1, unheard: VecDeque::new(), begun: None }
        }

        fn apply(&mut self, step: &Step) {
            match step {
                Step::Record => {
                    self.stored += 1;
                    self.unheard.push_back(self.stored);
                }
                Step::Hear => {
                    if let Some(seq) = self.unheard.pop_front() {
                        self.continuity.note_recorded(self.operation, seq);
                    }
                }
                Step::Commit => {
                    self.stored += 1;
                    self.continuity.note_committed(self.operation, self.stored);
                }
                Step::Elsewhere => self.stored += 1,
                Step::Begin => self.begun = self.continuity.latest().get(&self.operation).copied(),
                Step::Read => {
                    if let Some(before) = self.begun.take() {
                        self.continuity.compare(self.operation, before, Some(self.stored));
                        self.continuity.note_stored(self.operation, self.stored);
                    }
                }
                Step::Lose(commits) => self.stored = self.stored.saturating_sub(*commits).max(1),
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1024))]

        /// Whatever commits are on their way while the store is looked at.
        #[test]
        fn nothing_is_lost_where_nothing_was_taken_away(steps in steps(Just(Step::Elsewhere).boxed())) {
            let mut model = Model::new();
            for step in steps {
                model.apply(&step);
                prop_assert!(!model.continuity.is_broken());
            }
        }

        /// What was heard of before the failover and is gone after it is missed: by the next look, or by the next commit.
        #[test]
        fn what_was_heard_of_and_is_gone_is_noticed(
            steps in steps(Just(Step::Elsewhere).boxed()),
            last in own(),
            lost in 1..6_u64,
            commits in prop::collection::vec(own(), 0..9),
        ) {
            let mut model = Model::new();
            for step in &steps {
                model.apply(step);
            }
            // What was done last was heard of.
            model.apply(&last);
            while !model.unheard.is_empty() {
                model.apply(&Step::Hear);
            }
            model.begun = None;
            model.apply(&Step::Lose(lost));
            for commit in &commits {
                model.apply(commit);
                model.apply(&Step::Hear);
            }
            model.apply(&Step::Begin);
            model.apply(&Step::Read);
            prop_assert!(model.continuity.is_broken());
        }
    }

    #[test]
    fn a_seq_that_was_taken_before_is_noticed_whoever_takes_it_and_an_operation_that_is_gone_too() {
        let operation = OperationId::from_uuid(Uuid::from_u128(1));
        let with = |seq| {
            let continuity = Continuity::default();
            continuity.note_recorded(operation, seq);
            continuity
        };
        let person = with(7);
        person.note_committed(operation, 7);
        assert!(person.is_broken());
        let gone = with(7);
        // What was removed with its operation takes no seq; whether that was lost the look finds out.
        gone.note_recorded(operation, 0);
        assert!(!gone.is_broken());
        gone.compare(operation, 7, None);
        assert!(gone.is_broken());
        let forgotten = with(7);
        forgotten.retain(|_| false);
        forgotten.note_recorded(operation, 1);
        assert!(!forgotten.is_broken());
    }
}
