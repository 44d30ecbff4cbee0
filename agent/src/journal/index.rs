//! What the entries of a journal amount to. Pure.

use std::collections::BTreeMap;

use fleetward_protocol::id::{BootId, JournalId, RunId};
use fleetward_protocol::run::Refusal;
use fleetward_protocol::time::Timestamp;

use super::Entry;

/// Where a record stands in the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Span {
    /// Of its first byte.
    pub(super) offset: u64,
    /// Header and body.
    pub(super) length: u64,
}

/// A run that the journal knows and that is not forgotten.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Known {
    /// How far it has come.
    pub phase: Phase,
    /// Not started after this, by the host's clock.
    pub deadline: Timestamp,
    pub(super) accepted: Span,
}

/// How far a run has come, as far as the journal knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Phase {
    /// Accepted, and neither started nor refused.
    Accepted,
    /// Started, in this boot. How it ended is in its directory.
    Started {
        /// The host's clock.
        at: Timestamp,
        /// The boot, or that in which it was taken up last.
        boot: BootId,
        /// How often it was taken up in a later boot; `None` if it cannot be.
        taken_up: Option<u8>,
    },
    /// Refused after it was accepted.
    Refused(Refusal),
}

/// The sum of all entries.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Index {
    journal: Option<JournalId>,
    runs: BTreeMap<RunId, Known>,
    forgotten: BTreeMap<RunId, Timestamp>,
}

impl Index {
    pub(super) const fn journal(&self) -> Option<JournalId> {
        self.journal
    }

    pub(super) const fn runs(&self) -> &BTreeMap<RunId, Known> {
        &self.runs
    }

    pub(super) const fn forgotten(&self) -> &BTreeMap<RunId, Timestamp> {
        &self.forgotten
    }

    /// Takes the next entry, which stands at `span`. What contradicts an earlier entry changes nothing: the
    /// first word about a run counts.
    pub(super) fn apply(&mut self, entry: &Entry, span: Span) {
        match entry {
            Entry::Opened { journal } => {
                self.journal.get_or_insert(*journal);
            }
            Entry::Accepted { run, deadline, .. } => {
                if !self.forgotten.contains_key(run) {
                    let known = Known { phase: Phase::Accepted, deadline: *deadline, accepted: span };
                    self.runs.entry(*run).or_insert(known);
                }
            }
            Entry::Started { run, at, boot, resumable } => {
                let started = Phase::Started { at: *at, boot: *boot, taken_up: resumable.then_some(0) };
                self.change(*run, started, |phase| *phase == Phase::Accepted);
            }
            Entry::TakenUp { run, boot } => {
                if let Some(Phase::Started { boot: last, taken_up: Some(times), .. }) =
                    self.runs.get_mut(run).map(|known| &mut known.phase)
                {
                    (*last, *times) = (*boot, times.saturating_add(1));
                }
            }
            // Also after `started`: then its supervisor could not even be spawned.
            Entry::Refused { run, refusal } => {
                let refused = Phase::Refused(refusal.clone());
                self.change(*run, refused, |phase| !matches!(phase, Phase::Refused(_)));
            }
            Entry::Forgotten { run, until } => {
                self.runs.remove(run);
                self.forgotten.insert(*run, *until);
            }
        }
    }

    /// The entries of a journal that knows what this one does at `now`, but for its runs that wait and its id.
    ///
    /// None of these runs can be taken up: the orders stay behind, and the controller gives the runs of another journal up.
    pub(super) fn ended_or_started(&self, now: Timestamp) -> impl Iterator<Item = Entry> {
        let mut index = self.clone();
        for known in index.runs.values_mut() {
            if let Phase::Started { taken_up, .. } = &mut known.phase {
                *taken_up = None;
            }
        }
        index.compacted(now).into_iter().filter_map(|kept| match kept {
            Kept::Entry(Entry::Opened { .. }) | Kept::Record(_) => None,
            Kept::Entry(entry) => Some(entry),
        })
    }

    /// The entries of a journal that means the same at `now`, with the spans of the records to copy unchanged.
    pub(super) fn compacted(&self, now: Timestamp) -> Vec<Kept> {
        let opened = self.journal.map(|journal| Kept::Entry(Entry::Opened { journal }));
        let forgotten = self.forgotten.iter().filter(|(_, until)| **until > now);
        let forgotten =
            forgotten.map(|(run, until)| Kept::Entry(Entry::Forgotten { run: *run, until: *until }));
        let runs = self.runs.iter().flat_map(|(run, known)| {
            let run = *run;
            let (order, contents, deadline) = (Vec::new(), Vec::new(), known.deadline);
            let bare = Kept::Entry(Entry::Accepted { run, order, contents, deadline });
            match &known.phase {
                Phase::Accepted => vec![Kept::Record(known.accepted)],
                Phase::Started { at, boot, taken_up } => {
                    let (at, boot, resumable) = (*at, *boot, taken_up.is_some());
                    let accepted = if resumable { Kept::Record(known.accepted) } else { bare };
                    let started = Kept::Entry(Entry::Started { run, at, boot, resumable });
                    let again = (0..taken_up.unwrap_or(0)).map(|_| Kept::Entry(Entry::TakenUp { run, boot }));
                    [accepted, started].into_iter().chain(again).collect()
                }
                Phase::Refused(refusal) => {
                    vec![bare, Kept::Entry(Entry::Refused { run, refusal: refusal.clone() })]
                }
            }
        });
        opened.into_iter().chain(forgotten).chain(runs).collect()
    }

    /// Roughly the bytes that a compacted journal would take.
    pub(super) fn live_bytes(&self) -> u64 {
        let runs: u64 = self
            .runs
            .values()
            .map(|known| match known.phase {
                Phase::Accepted => known.accepted.length,
                Phase::Started { taken_up: Some(_), .. } => known.accepted.length + 160,
                Phase::Started { .. } | Phase::Refused(_) => 160,
            })
            .sum();
        runs + 48 * self.forgotten.len() as u64 + 64
    }

    fn change(&mut self, run: RunId, to: Phase, may_leave: fn(&Phase) -> bool) {
        if let Some(known) = self.runs.get_mut(&run)
            && may_leave(&known.phase)
        {
            known.phase = to;
        }
    }
}

/// A part of a compacted journal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Kept {
    /// Written anew.
    Entry(Entry),
    /// Copied from the old file.
    Record(Span),
}
