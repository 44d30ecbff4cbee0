//! The recorder's way in: many changes of runs and pieces of output, of several operations, in one
//! transaction.
//!
//! Every operation in the batch takes one seq, whatever the batch holds of it. Within a run the writes apply in
//! the given order, and a reader that sees a run's new state has its output in the same seq or an earlier one.
//! Operations are taken in the order of their ids, so that parallel batches cannot deadlock.

mod tally;

use std::collections::{BTreeMap, HashMap};

use bytes::Bytes;
use fleetward_domain::work::run::{RunState, RunStatus};
use fleetward_protocol::client_id::ClientId;
use fleetward_protocol::id::{HostId, OperationId, RunId, TenantId};
use fleetward_protocol::run::Left;
use fleetward_protocol::time::Timestamp;

use crate::query::query;
use crate::work::output::{BULKY, Files, MAX_ROW, Part, SMALL, Tail, insert_row, load_tails, update_row};
use crate::work::report;
use crate::work::run::{exit_code, read_state};
use crate::work::state;
use crate::{Connection, StoreError};
use tally::Tally;

/// One thing to write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Write {
    /// A run changed its state.
    Run(RunChange),
    /// A run's output log grew.
    Output(Append),
}

/// A run's step from one state to another, by compare-and-set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunChange {
    /// The operation.
    pub operation: OperationId,
    /// The run.
    pub run: RunId,
    /// The state it must be in.
    pub from: RunState,
    /// The state it is in afterwards. May be the same, to count an attachment.
    pub to: RunState,
    /// When: written beside the new status, if the status is new.
    pub at: Timestamp,
    /// How long it took, if it ended.
    pub duration_ms: Option<u64>,
    /// What its process left running, if it ended.
    pub left: Option<Left>,
    /// Streams opened for it since.
    pub attached: u32,
}

/// A piece of a run's output log: whole records, so that it can be counted what of it the run wrote.
#[derive(Clone, PartialEq, Eq)]
pub struct Append {
    /// The operation.
    pub operation: OperationId,
    /// The run.
    pub run: RunId,
    /// Where the piece begins.
    pub offset: u64,
    /// The bytes.
    pub bytes: Bytes,
}

/// What came of one write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Written {
    /// The run is in its new state.
    Changed,
    /// The run was in this other state; nothing was changed.
    Stale(RunState),
    /// The log ends here now; pieces that were known before count as written.
    Appended {
        /// The end, in bytes.
        end: u64,
    },
    /// The piece would leave a gap, or the run has ended; nothing was written.
    Misplaced {
        /// Where the log ends.
        end: u64,
    },
    /// There is no such run in that operation.
    Missing,
}

/// What a batch did.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Committed {
    /// The seq that each operation took.
    pub seqs: BTreeMap<OperationId, u64>,
    /// What came of each write, in their order.
    pub written: Vec<Written>,
    /// The runs that ended, each once.
    pub ended: Vec<Ended>,
}

/// A run that ended with this batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    /// The operation.
    pub operation: OperationId,
    /// The run.
    pub run: RunId,
    /// The host it was meant for.
    pub host: HostId,
    /// The client ID that host was to have.
    pub client: ClientId,
    /// The step of the operation, from 0.
    pub step: u32,
    /// What it ended as.
    pub state: RunState,
}

impl std::fmt::Debug for Append {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Append")
            .field("run", &self.run)
            .field("offset", &self.offset)
            .field("length", &self.bytes.len())
            .finish_non_exhaustive()
    }
}

impl Write {
    const fn subject(&self) -> (OperationId, RunId) {
        match self {
            Self::Run(change) => (change.operation, change.run),
            Self::Output(append) => (append.operation, append.run),
        }
    }
}

/// Writes a batch inside the caller's transaction; nothing of it is true before that is committed. Bulky output
/// goes to `files` ([`Store::files`](crate::Store::files)), where it is durable before this returns.
///
/// # Errors
/// If the database or a file cannot be written; the transaction must be dropped then.
pub async fn write(
    conn: &mut Connection,
    files: &Files,
    writes: Vec<Write>,
) -> Result<Committed, StoreError> {
    let mut seqs: BTreeMap<OperationId, u64> = writes.iter().map(|write| (write.subject().0, 0)).collect();
    for (operation, seq) in &mut seqs {
        // An operation that is gone keeps seq 0; its runs are missing too.
        *seq = query("UPDATE operation SET seq = seq + 1 WHERE id = $1 RETURNING seq")
            .bind(operation)
            .find(conn, |row| row.get("seq"))
            .await?
            .unwrap_or(0);
    }
    let mut runs = load(conn, &writes).await?;
    let written = writes.into_iter().map(|write| apply(&mut runs, write)).collect();
    let mut bulky = Vec::new();
    if files.are_used() {
        bulky = runs.iter_mut().flat_map(|(id, run)| run.take_bulky(*id)).collect();
    }
    // Neither counts before the caller commits, so they need not wait for each other.
    let (filed, flushed) = tokio::join!(files.write(bulky), flush(conn, runs, &seqs));
    filed?;
    let ended = flushed?;
    Ok(Committed { seqs, written, ended })
}

/// Writes what the batch made of the runs; returns those that ended.
async fn flush(
    conn: &mut Connection,
    runs: BTreeMap<RunId, LockedRun>,
    seqs: &BTreeMap<OperationId, u64>,
) -> Result<Vec<Ended>, StoreError> {
    let mut ended = Vec::new();
    let mut counts: BTreeMap<OperationId, (u64, u64)> = BTreeMap::new();
    for (id, run) in runs {
        let seq = seqs.get(&run.operation).copied().unwrap_or(0);
        if run.has_ended() {
            let (succeeded, failed) = counts.entry(run.operation).or_default();
            *(if run.state == RunState::Succeeded { succeeded } else { failed }) += 1;
            ended.push(run.ended(id));
        }
        run.flush(conn, id, seq).await?;
    }
    for (operation, (succeeded, failed)) in counts {
        query("UPDATE operation SET succeeded = succeeded + $2, failed = failed + $3 WHERE id = $1")
            .bind(operation)
            .bind(succeeded)
            .bind(failed)
            .run(conn)
            .await?;
    }
    Ok(ended)
}

/// A run while the batch is applied to it.
#[derive(Debug)]
struct LockedRun {
    operation: OperationId,
    tenant: TenantId,
    host: HostId,
    client: ClientId,
    step: u32,
    stored: RunState,
    stored_text: String,
    stored_end: u64,
    state: RunState,
    times: Times,
    duration_ms: Option<u64>,
    left: Option<Left>,
    attached: u32,
    stored_lost: u64,
    /// What the new records hold.
    tally: Tally,
    changed: bool,
    end: u64,
    tail_offset: u64,
    tail: Option<Tail>,
    stretches: Vec<Stretch>,
}

/// Pieces of output that follow each other and become one row.
#[derive(Debug)]
struct Stretch {
    offset: u64,
    length: usize,
    pieces: Vec<Bytes>,
    place: Place,
}

/// Where a stretch of output is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Row,
    File,
}

#[derive(Debug, Default)]
struct Times {
    dispatched: Option<Timestamp>,
    accepted: Option<Timestamp>,
    started: Option<Timestamp>,
    ended: Option<Timestamp>,
}

async fn load(conn: &mut Connection, writes: &[Write]) -> Result<BTreeMap<RunId, LockedRun>, StoreError> {
    let mut operations: HashMap<RunId, OperationId> = HashMap::new();
    let mut small: Vec<RunId> = Vec::new();
    for write in writes {
        let (operation, run) = write.subject();
        operations.insert(run, operation);
        if matches!(write, Write::Output(append) if append.bytes.len() < SMALL) {
            small.push(run);
        }
    }
    small.sort_unstable();
    small.dedup();
    let mut ids: Vec<RunId> = operations.keys().copied().collect();
    ids.sort_unstable();
    let mut runs = BTreeMap::new();
    for batch in ids.chunks(500) {
        let select = query(
            "SELECT id, operation_id, tenant_id, host_id, client_id, step, detail, output_end, output_tail, \
             output_lost \
             FROM run WHERE id IN ",
        )
        .list(batch.iter());
        // The text for one run comes again and again; it need not be parsed each time.
        let select = if batch.len() == 1 { select } else { select.once() };
        let rows = select.all(conn).await?;
        for row in &rows {
            let (id, operation) = (row.get::<RunId>("id")?, row.get("operation_id")?);
            if operations.get(&id) != Some(&operation) {
                continue;
            }
            let state = read_state(row)?;
            let end = row.get("output_end")?;
            runs.insert(
                id,
                LockedRun {
                    operation,
                    tenant: row.get("tenant_id")?,
                    host: row.get("host_id")?,
                    client: row.get("client_id")?,
                    step: row.get("step")?,
                    stored: state.clone(),
                    stored_text: row.get("detail")?,
                    stored_end: end,
                    state,
                    times: Times::default(),
                    duration_ms: None,
                    left: None,
                    attached: 0,
                    stored_lost: row.get("output_lost")?,
                    tally: Tally::default(),
                    changed: false,
                    end,
                    tail_offset: row.get("output_tail")?,
                    tail: None,
                    stretches: Vec::new(),
                },
            );
        }
    }
    for batch in small.chunks(500) {
        for (run, tail) in load_tails(conn, batch).await? {
            if let Some(live) = runs.get_mut(&run) {
                live.tail = Some(tail);
            }
        }
    }
    Ok(runs)
}

fn apply(runs: &mut BTreeMap<RunId, LockedRun>, write: Write) -> Written {
    let (operation, run) = write.subject();
    match runs.get_mut(&run).filter(|live| live.operation == operation) {
        None => Written::Missing,
        Some(live) => match write {
            Write::Run(change) => live.apply_change(change),
            Write::Output(append) => live.apply_append(append),
        },
    }
}

impl LockedRun {
    fn apply_change(&mut self, change: RunChange) -> Written {
        if self.state != change.from {
            return Written::Stale(self.state.clone());
        }
        let status = change.to.status();
        if status != self.state.status() {
            let at = Some(change.at);
            match status {
                RunStatus::Queued => {}
                RunStatus::Dispatched => self.times.dispatched = at,
                RunStatus::Accepted => self.times.accepted = at,
                RunStatus::Running => self.times.started = at,
                _ => self.times.ended = at,
            }
        }
        self.state = change.to;
        self.duration_ms = change.duration_ms.or(self.duration_ms);
        self.left = change.left.or(self.left);
        self.attached += change.attached;
        self.changed = true;
        Written::Changed
    }

    fn apply_append(&mut self, append: Append) -> Written {
        let Append { offset, mut bytes, .. } = append;
        if offset > self.end {
            return Written::Misplaced { end: self.end };
        }
        let known = usize::try_from(self.end - offset).unwrap_or(usize::MAX);
        if known >= bytes.len() {
            return Written::Appended { end: self.end };
        }
        if self.state.status().is_final() {
            return Written::Misplaced { end: self.end };
        }
        let mut news = bytes.split_off(known);
        let tally = Tally::of(&news);
        // What is missing is told at once, like a change of state; so is a report.
        self.changed |= tally.lost > 0 || tally.report.is_some();
        self.tally.add(tally);
        while !news.is_empty() {
            self.push(news.split_to(news.len().min(MAX_ROW)));
        }
        Written::Appended { end: self.end }
    }

    /// Takes a piece of [`MAX_ROW`] bytes at most.
    fn push(&mut self, piece: Bytes) {
        let (offset, length) = (self.end, piece.len());
        self.end += length as u64;
        match self.stretches.last_mut().filter(|stretch| stretch.length + length <= MAX_ROW) {
            Some(stretch) => {
                stretch.length += length;
                stretch.pieces.push(piece);
            }
            None => self.stretches.push(Stretch { offset, length, pieces: vec![piece], place: Place::Row }),
        }
    }

    fn has_ended(&self) -> bool {
        self.state.status().is_final() && !self.stored.status().is_final()
    }

    fn ended(&self, run: RunId) -> Ended {
        Ended {
            operation: self.operation,
            run,
            host: self.host,
            client: self.client.clone(),
            step: self.step,
            state: self.state.clone(),
        }
    }

    /// What belongs into the run's file rather than into rows.
    fn take_bulky(&mut self, run: RunId) -> Vec<Part> {
        let operation = self.operation;
        let bulky = self.stretches.iter_mut().filter(|stretch| stretch.length >= BULKY);
        bulky
            .map(|stretch| {
                stretch.place = Place::File;
                Part { operation, run, offset: stretch.offset, pieces: std::mem::take(&mut stretch.pieces) }
            })
            .collect()
    }

    async fn flush(mut self, conn: &mut Connection, id: RunId, seq: u64) -> Result<(), StoreError> {
        for Stretch { offset, length, pieces, place } in std::mem::take(&mut self.stretches) {
            match self.tail.take() {
                Some(mut tail) if length < SMALL => {
                    tail.push(&pieces.concat(), seq);
                    update_row(conn, id, &tail).await?;
                    self.tail = Some(tail).filter(Tail::is_open);
                }
                _ => {
                    let tail = match place {
                        Place::Row => Tail::begin(offset, pieces.concat(), seq),
                        Place::File => Tail::in_file(offset, length, seq),
                    };
                    self.tail_offset = offset;
                    let open = tail.is_open().then(|| tail.clone());
                    insert_row(conn, id, self.tenant, self.operation, tail).await?;
                    self.tail = open;
                }
            }
        }
        if let Some(report) = self.tally.report.take() {
            report::upsert(conn, id, &report).await?;
        }
        if self.changed {
            self.flush_state(conn, id, seq).await
        } else if self.end > self.stored_end {
            let took = query(
                "UPDATE run SET output_end = $2, output_tail = $3, output_bytes = output_bytes + $4 \
                     WHERE id = $1 AND output_end = $5",
            )
            .bind(id)
            .bind(self.end)
            .bind(self.tail_offset)
            .bind(self.tally.kept)
            .bind(self.stored_end)
            .took(conn)
            .await?;
            must(took)
        } else {
            Ok(())
        }
    }

    async fn flush_state(&self, conn: &mut Connection, id: RunId, seq: u64) -> Result<(), StoreError> {
        let took = query(
            "UPDATE run SET state = $2, detail = $3, exit_code = $4, \
               dispatched_at = COALESCE($5, dispatched_at), accepted_at = COALESCE($6, accepted_at), \
               started_at = COALESCE($7, started_at), ended_at = COALESCE($8, ended_at), \
               duration_ms = COALESCE($9, duration_ms), attached = attached + $10, \
               output_lost = $11, output_end = $12, output_tail = $13, seq = $14, \
               output_bytes = output_bytes + $15, left_running = COALESCE($16, left_running) \
             WHERE id = $1 AND detail = $17 AND output_end = $18",
        )
        .bind(id)
        .bind(self.state.status())
        .bind(state::write(&self.state))
        .bind(exit_code(&self.state))
        .bind(self.times.dispatched)
        .bind(self.times.accepted)
        .bind(self.times.started)
        .bind(self.times.ended)
        .bind(self.duration_ms)
        .bind(self.attached)
        // A host may claim any number: what is more than the column holds is bound as the most that it holds.
        .bind(self.stored_lost.saturating_add(self.tally.lost))
        .bind(self.end)
        .bind(self.tail_offset)
        .bind(seq)
        .bind(self.tally.kept)
        .bind(self.left.as_ref().map(state::write_left))
        .bind(&self.stored_text)
        .bind(self.stored_end)
        .took(conn)
        .await?;
        must(took)
    }
}

/// The operation's row is locked since its seq was taken, so nobody else can have changed the run.
fn must(took: bool) -> Result<(), StoreError> {
    if took {
        Ok(())
    } else {
        Err(StoreError::Conflict { what: "the run was changed by another writer".to_owned() })
    }
}
