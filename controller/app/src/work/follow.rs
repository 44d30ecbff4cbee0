//! Following an operation: what changed since a position, and waiting for more.
//!
//! **What it promises.** Read from position to position, an operation's output is complete and comes once,
//! whatever connections broke in between. Runs and the operation come as they are now; states that came and
//! went between two reads are skipped. One reader holds one bounded batch in memory; a slow one slows nobody.
//!
//! **Deliberately absent.** Any queue between the recorder and a reader: `live` only says that there is more.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::str::FromStr;

use fleetward_domain::work::operation::RunCounts;
use fleetward_protocol::id::{OperationId, RunId};
use fleetward_protocol::name::HostName;
use fleetward_store::work::operation::Operation;
use fleetward_store::work::output::Piece;
use fleetward_store::work::report;
use fleetward_store::work::run::Run;
use fleetward_store::work::step::{self, Step};
use fleetward_store::{self as store, Scope, StoreError};
use tokio::sync::watch;

use crate::App;
use crate::people::access::{Permit, ReadOutput};
use crate::work::operation::Overview;
use crate::work::run;

/// About how many bytes of output one batch holds.
const OUTPUT_BUDGET: usize = 256 << 10;
/// About how many runs one batch holds.
const RUN_BUDGET: u32 = 500;
/// About how many bytes of reports one batch holds. Each may have 64 KiB, and one commit may end a thousand runs.
const REPORT_BUDGET: u64 = 1 << 20;

/// How far an operation was read: everything of the commits below `seq`, and of the commit `seq` itself the first
/// `pieces` pieces of output. A commit's pieces never change, so the position stays exact.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Position {
    seq: u64,
    pieces: u64,
}

/// Text that is not a position.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not the id of an event of this stream; begin without one")]
pub struct InvalidPosition(String);

/// Why an operation cannot be followed.
#[derive(Debug, thiserror::Error)]
pub enum FollowError {
    /// Not from there.
    #[error(transparent)]
    Position(#[from] InvalidPosition),
    /// The store failed, or there is no such operation.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Something to tell a reader.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OperationChange {
    /// The operation, as it is now.
    Operation(Box<Overview>),
    /// A run, as it is now.
    Run(Box<run::Overview>),
    /// A run wrote this.
    Output {
        /// Its host.
        host: HostName,
        /// What it wrote.
        piece: Piece,
    },
    /// Nothing follows: the operation, as it ended.
    End(Box<Overview>),
}

/// Reads an operation from a position to its end.
#[derive(Debug)]
pub struct Follower {
    app: App,
    scope: Scope,
    operation: OperationId,
    steps: Vec<Step>,
    position: Position,
    /// The runs of the commit at the position that were told, where its reports are too much for one batch.
    told: HashSet<RunId>,
    latest: watch::Receiver<u64>,
    hosts: HashMap<RunId, HostName>,
    shown: Option<(Operation, RunCounts)>,
    /// Whether a run was told since they were counted.
    has_moved: bool,
    ended: bool,
}

/// How far one batch goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Upto {
    /// Every commit up to this one.
    All(u64),
    /// Every commit before this one, and of it the output and some of the runs.
    Part(u64),
}

impl Upto {
    const fn seq(self) -> u64 {
        match self {
            Self::All(seq) | Self::Part(seq) => seq,
        }
    }

    /// Whether nothing is left of the commit `latest` and those before it.
    const fn has_reached(self, latest: u64) -> bool {
        matches!(self, Self::All(seq) if seq >= latest)
    }
}

impl Position {
    /// The beginning.
    pub const START: Self = Self { seq: 0, pieces: 0 };

    /// Everything up to and including the commit `seq`.
    #[must_use]
    pub const fn after(seq: u64) -> Self {
        Self { seq: seq.saturating_add(1), pieces: 0 }
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.pieces {
            0 => write!(f, "{}", self.seq.saturating_sub(1)),
            pieces => write!(f, "{}-{pieces}", self.seq),
        }
    }
}

impl FromStr for Position {
    type Err = InvalidPosition;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parsed = match text.split_once('-') {
            None => text.parse().ok().map(Self::after),
            Some((seq, pieces)) => match (seq.parse(), pieces.parse()) {
                (Ok(seq), Ok(pieces)) => Some(Self { seq, pieces }),
                _ => None,
            },
        };
        parsed.ok_or_else(|| InvalidPosition(text.chars().take(40).collect()))
    }
}

impl Follower {
    /// Follows an operation that the caller may read, from a position.
    ///
    /// # Errors
    /// [`FollowError::Position`] if it lies behind all that there is: it is another store's, or was told before commits were lost.
    /// [`StoreError::NotFound`] if there is no such operation in the caller's scope.
    pub async fn new(
        app: &App,
        permit: &Permit<ReadOutput>,
        operation: OperationId,
        position: Position,
    ) -> Result<Self, FollowError> {
        let scope = permit.scope();
        // Watched before it is read, so that no commit falls between the two.
        let latest = app.live().watch(operation);
        let mut conn = app.store().read().await?;
        let latest_seq = store::work::operation::get(&mut conn, &scope, operation).await?.seq;
        if position > Position::after(latest_seq) {
            return Err(InvalidPosition(position.to_string()).into());
        }
        let steps = step::list(&mut *conn, &scope, operation).await?;
        drop(conn);
        Ok(Self {
            app: app.clone(),
            scope,
            operation,
            steps,
            position,
            told: HashSet::new(),
            latest,
            hosts: HashMap::new(),
            shown: None,
            has_moved: true,
            ended: false,
        })
    }

    /// The next changes, each with the position after it, in their order; waits until there are some. `None`
    /// after the end.
    ///
    /// # Errors
    /// If the store cannot be read, or the operation was removed meanwhile.
    pub async fn next(&mut self) -> Result<Option<Vec<(OperationChange, Position)>>, StoreError> {
        while !self.ended {
            self.latest.borrow_and_update();
            let before = self.position;
            let changes = self.read().await?;
            if !changes.is_empty() {
                return Ok(Some(changes));
            }
            if self.position != before {
                continue;
            }
            // Fails only when nobody can announce any more: the controller is stopping.
            if self.latest.changed().await.is_err() {
                return Ok(None);
            }
        }
        Ok(None)
    }

    async fn read(&mut self) -> Result<Vec<(OperationChange, Position)>, StoreError> {
        // Of one moment: what is committed while this is read waits as a whole, counts as well as runs.
        let mut conn = self.app.store().snapshot().await?;
        let (scope, id) = (&self.scope, self.operation);
        let operation = store::work::operation::get(&mut conn, scope, id).await?;
        let since = self.position.seq.saturating_sub(1);
        let mut upto = operation.seq;
        let mut runs = store::work::run::list_since(&mut conn, scope, id, since, RUN_BUDGET).await?;
        if runs.len() >= RUN_BUDGET as usize {
            upto = runs.last().map_or(upto, |run| run.seq.min(upto));
        }
        let files = self.app.store().files();
        let output =
            store::work::output::list_since(&mut conn, files, scope, id, since, OUTPUT_BUDGET).await?;
        if output.more {
            upto = upto.min(output.upto);
        }
        let at = self.position.seq;
        runs.retain(|run| run.seq <= upto && !(run.seq == at && self.told.contains(&run.id)));
        let told: Vec<RunId> = runs.iter().filter(|run| run.output_end > 0).map(|run| run.id).collect();
        let sizes = report::list_sizes(&mut *conn, scope, &told).await?;
        let upto = cut(&mut runs, &sizes, upto);
        self.has_moved |= !runs.is_empty();
        // Counting looks at every run; it is needed only when one has moved, and told only with all that there is.
        let counts = match &self.shown {
            Some((_, counts)) if !self.has_moved => *counts,
            _ if !upto.has_reached(operation.seq) => RunCounts::default(),
            _ => store::work::run::count(&mut conn, scope, id).await?,
        };
        for run in &runs {
            self.hosts.insert(run.id, run.host_name.clone());
        }
        for piece in &output.pieces {
            if !self.hosts.contains_key(&piece.run) {
                let run = store::work::run::get(&mut conn, scope, piece.run).await?;
                self.hosts.insert(run.id, run.host_name);
            }
        }
        let runs = run::overviews(&mut *conn, scope, &self.steps, runs).await?;
        drop(conn);
        Ok(self.arrange(operation, counts, runs, output.pieces, upto))
    }

    /// Puts what was read in order: of each commit the output first, then the runs; so whoever sees a run's end has seen
    /// what it wrote.
    fn arrange(
        &mut self,
        operation: Operation,
        counts: RunCounts,
        runs: Vec<run::Overview>,
        pieces: Vec<Piece>,
        upto: Upto,
    ) -> Vec<(OperationChange, Position)> {
        let mut changes = Vec::with_capacity(runs.len() + pieces.len() + 1);
        let mut pieces = pieces.into_iter().filter(|piece| piece.seq <= upto.seq()).peekable();
        let mut runs = runs.into_iter().peekable();
        let mut at = self.position;
        loop {
            let next = [pieces.peek().map(|piece| piece.seq), runs.peek().map(|run| run.run.seq)];
            let Some(seq) = next.into_iter().flatten().min() else { break };
            let seen = if at.seq == seq {
                at.pieces
            } else {
                self.told.clear();
                0
            };
            at = Position { seq, pieces: 0 };
            while let Some(piece) = pieces.next_if(|piece| piece.seq == seq) {
                at.pieces += 1;
                if at.pieces > seen
                    && let Some(host) = self.hosts.get(&piece.run)
                {
                    changes.push((OperationChange::Output { host: host.clone(), piece }, at));
                }
            }
            at.pieces = at.pieces.max(seen);
            while let Some(run) = runs.next_if(|run| run.run.seq == seq) {
                self.told.insert(run.run.id);
                changes.push((OperationChange::Run(Box::new(run)), at));
            }
        }
        let caught_up = upto.has_reached(operation.seq);
        if let Upto::All(seq) = upto {
            at = Position::after(seq).max(at);
            self.told.clear();
            // The commit is complete now, so its last change may say so.
            if let Some((_, last)) = changes.last_mut() {
                *last = at;
            }
        }
        self.position = at;
        self.has_moved &= !caught_up;
        if caught_up && !self.shows(&operation, counts) {
            self.shown = Some((operation.clone(), counts));
            changes.push((OperationChange::Operation(Box::new(self.overview(&operation, counts))), at));
        }
        if caught_up && operation.status.is_final() {
            self.ended = true;
            changes.push((OperationChange::End(Box::new(self.overview(&operation, counts))), at));
        }
        changes
    }

    fn overview(&self, operation: &Operation, counts: RunCounts) -> Overview {
        Overview { operation: operation.clone(), steps: self.steps.clone(), counts }
    }

    /// Whether the reader was told all of this but the seq, which every piece of output moves.
    fn shows(&self, operation: &Operation, counts: RunCounts) -> bool {
        self.shown.as_ref().is_some_and(|(shown, shown_counts)| {
            *shown_counts == counts && Operation { seq: operation.seq, ..shown.clone() } == *operation
        })
    }
}

/// Leaves as many of the runs as have about [`REPORT_BUDGET`] of reports, the earliest and one at the least; how far they go,
/// if all of them go up to the commit `upto`.
fn cut(runs: &mut Vec<Run>, sizes: &HashMap<RunId, u64>, upto: u64) -> Upto {
    let mut total = 0;
    let too_many = runs.iter().position(|run| {
        let before = total;
        total += sizes.get(&run.id).copied().unwrap_or(0);
        before > 0 && total > REPORT_BUDGET
    });
    let Some(left_out) = too_many else { return Upto::All(upto) };
    let seq = runs.drain(left_out..).next().map_or(upto, |run| run.seq);
    match runs.last() {
        Some(last) if last.seq == seq => Upto::Part(seq),
        _ => Upto::All(seq.saturating_sub(1)),
    }
}

#[cfg(test)]
mod tests;
