//! The writer: gathers, decides each run's next state, commits, tells.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use fleetward_domain::work::operation::OperationStatus;
use fleetward_domain::work::run::{RunEvent, RunState};
use fleetward_protocol::id::{OperationId, RunId};
use fleetward_protocol::time::Timestamp;
use fleetward_store::work::batch::{self, Append, RunChange, Write, Written};
use fleetward_store::work::{operation, run};
use fleetward_store::{Scope, StoreError};
use tokio::sync::{mpsc, watch};
use tokio::time::sleep;
use tracing::{debug, error, info, warn};

use super::{Committed, Entry, Halted, Parts, Report, Request, StatusChange, failure};
use crate::fleet::online::FleetEvent;
use crate::inbox::RunStateChange;

/// Entries taken into one transaction at most.
const BATCH: usize = 1024;
/// Bytes of output after which a transaction takes no more. A reader is given whole commits, so this is also what each
/// of them holds at a time, fast or slow.
const COMMIT: usize = 1 << 20;
/// How long to wait before a transaction that failed is tried again; doubled each time.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

pub(super) struct Writer {
    parts: Parts,
    /// The states of runs that have not ended, as they are committed. A cache: the store decides.
    states: HashMap<RunId, RunState>,
}

/// How many of the first entries go into one transaction: at least one.
fn one_commit(entries: &[Entry]) -> usize {
    let mut bytes = 0_usize;
    let fits = |entry: &&Entry| {
        let fits = bytes < COMMIT;
        if let Request::Report { report: Report::Output { bytes: output, .. }, .. } = &entry.what {
            bytes += output.len();
        }
        fits
    };
    entries.iter().take_while(fits).count()
}

/// What one entry of a batch comes to.
enum Effect {
    /// A write to the store, at this place among the batch's writes.
    Write {
        at: usize,
        run: RunId,
        operation: OperationId,
        after: After,
    },
    /// Nothing to write: the state is what it was.
    Unchanged {
        run: RunId,
        operation: OperationId,
        state: RunState,
        feed: Option<Sender>,
    },
    /// What was reported cannot have happened.
    Impossible {
        run: RunId,
        operation: OperationId,
        state: Option<RunState>,
        feed: Option<Sender>,
    },
    Status(StatusChange),
}

/// What is to be told when a write has been committed.
enum After {
    State { state: RunState, feed: Option<Sender> },
    Output { feed: Sender, state: RunState, entry: (u64, u64) },
}

type Sender = Arc<watch::Sender<Committed>>;

/// Output that a host's stream reported.
struct OutputReport<'a> {
    run: RunId,
    operation: OperationId,
    offset: u64,
    bytes: &'a Bytes,
    feed: Sender,
}

/// A batch before it is written.
#[derive(Default)]
struct PlannedBatch {
    writes: Vec<Write>,
    effects: Vec<Effect>,
    /// States within the batch.
    states: HashMap<RunId, RunState>,
}

impl Writer {
    pub(super) fn new(parts: Parts) -> Self {
        Self { parts, states: HashMap::new() }
    }

    pub(super) async fn run(mut self, mut queue: mpsc::Receiver<Entry>, mut stopped: watch::Receiver<bool>) {
        let mut entries = Vec::with_capacity(BATCH);
        loop {
            tokio::select! {
                biased;
                taken = queue.recv_many(&mut entries, BATCH) => {
                    if taken == 0 {
                        return;
                    }
                    while !entries.is_empty() {
                        let rest = entries.split_off(one_commit(&entries));
                        self.record(&mut entries).await;
                        entries = rest;
                    }
                }
                // What is queued goes first: the queue is closed, drained, and then empty.
                () = told(&mut stopped) => queue.close(),
            }
        }
    }

    /// Commits the entries, however long it takes.
    async fn record(&mut self, entries: &mut Vec<Entry>) {
        let mut pause = FIRST_PAUSE;
        loop {
            match self.commit(entries).await {
                Ok(()) => {
                    self.parts.health.note_commit(Ok(()));
                    for entry in entries.drain(..) {
                        if let Request::Barrier(reply) = entry.what {
                            // Whoever asked may have gone.
                            let _ = reply.send(());
                        }
                    }
                    return;
                }
                Err(
                    cause @ (StoreError::DiskFull(_)
                    | StoreError::Storage(_)
                    | StoreError::Unavailable(_)
                    | StoreError::ReadOnly(_)),
                ) => {
                    self.parts.health.note_commit(Err(&cause));
                    warn!(error = %cause, waiting = entries.len(), "recorder.waiting");
                    // The store may have been replaced or gone back meanwhile.
                    self.states.clear();
                    sleep(pause).await;
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
                Err(cause) if entries.len() > 1 => {
                    warn!(error = %cause, "recorder.batch_refused");
                    self.states.clear();
                    // One of them is at fault; the others must not suffer for it.
                    for entry in std::mem::take(entries) {
                        Box::pin(self.record(&mut vec![entry])).await;
                    }
                    return;
                }
                Err(cause) => {
                    error!(error = %cause, "recorder.entry_refused");
                    self.states.clear();
                    entries.drain(..).for_each(refuse);
                    return;
                }
            }
        }
    }

    async fn commit(&mut self, entries: &[Entry]) -> Result<(), StoreError> {
        let now = self.parts.clock.now();
        self.load_states(entries).await?;
        let is_expiry = |entry: &Entry| matches!(&entry.what, Request::RunTransition(change) if matches!(change.event, RunEvent::Expire { .. }));
        // What is over is over by the database's clock, read now.
        if entries.iter().any(is_expiry) {
            self.parts.deadlines.read(&self.parts.store).await?;
        }
        let mut plan = PlannedBatch::default();
        for entry in entries {
            self.plan(&mut plan, entry, now);
        }
        let PlannedBatch { writes, effects, .. } = plan;
        let statuses: Vec<StatusChange> = effects
            .iter()
            .filter_map(|effect| if let Effect::Status(change) = effect { Some(*change) } else { None })
            .collect();
        if writes.is_empty() && statuses.is_empty() {
            self.tell(effects, &batch::Committed::default(), &HashSet::new());
            return Ok(());
        }
        let bytes: usize = writes.iter().map(weight).sum();
        let mut tx = self.parts.store.write().await?;
        let mut committed = batch::write(&mut tx, self.parts.store.files(), writes).await?;
        let mut moved = HashSet::new();
        for change in &statuses {
            let written = write_status(&mut tx, change, now).await?;
            if let Some(seq) = written.status.or(written.halt) {
                committed.seqs.insert(change.operation, seq);
            }
            if written.status.is_some() {
                moved.insert((change.operation, change.to));
            }
        }
        tx.commit().await?;
        self.parts.metrics.committed(committed.written.len(), bytes);
        self.tell(effects, &committed, &moved);
        Ok(())
    }

    /// Reads the states that are needed and not known.
    async fn load_states(&mut self, entries: &[Entry]) -> Result<(), StoreError> {
        let mut conn = None;
        for entry in entries {
            let (id, known) = match &entry.what {
                Request::RunTransition(change) => (change.run, change.known.as_ref()),
                Request::Report { run, .. } => (*run, None),
                Request::Status(_) | Request::Barrier(_) => continue,
            };
            if self.states.contains_key(&id) {
                continue;
            }
            let state = match known {
                Some(state) => state.clone(),
                None => {
                    let conn = match &mut conn {
                        Some(conn) => conn,
                        None => conn.insert(self.parts.store.read().await?),
                    };
                    match run::get(conn, &Scope::Everything, id).await {
                        Ok(run) => run.state,
                        Err(StoreError::NotFound { .. }) => continue,
                        Err(error) => return Err(error),
                    }
                }
            };
            self.states.insert(id, state);
        }
        Ok(())
    }

    /// Decides what an entry comes to.
    fn plan(&self, plan: &mut PlannedBatch, entry: &Entry, now: Timestamp) {
        let (run, operation, event, (duration_ms, left), feed) = match &entry.what {
            // Answered when the batch is committed.
            Request::Barrier(_) => return,
            Request::Status(change) => return plan.effects.push(Effect::Status(*change)),
            Request::RunTransition(change) => {
                (change.run, change.operation, &change.event, (None, None), None)
            }
            Request::Report { run, operation, report, feed } => {
                let (run, operation, feed) = (*run, *operation, Arc::clone(feed));
                match report {
                    Report::Happened { event, duration_ms, left } => {
                        (run, operation, event, (*duration_ms, *left), Some(feed))
                    }
                    Report::Attached => return self.plan_attached(plan, run, operation, now),
                    Report::Output { offset, bytes } => {
                        let report = OutputReport { run, operation, offset: *offset, bytes, feed };
                        return self.plan_output(plan, report);
                    }
                }
            }
        };
        let Some(state) = self.state(plan, run) else {
            return plan.effects.push(Effect::Impossible { run, operation, state: None, feed });
        };
        let at = match event {
            RunEvent::Expire { .. } | RunEvent::Dispatched { .. } => self.parts.deadlines.now(),
            _ => now,
        };
        match state.clone().apply(event, at) {
            Err(illegal) => {
                // A hand-out that came too late is nothing unusual, nor an expiry that came too early: the dispatcher is told the state.
                if !matches!(event, RunEvent::Dispatched { .. } | RunEvent::Expire { .. }) {
                    warn!(%run, %illegal, "recorder.impossible_report");
                }
                plan.effects.push(Effect::Impossible { run, operation, state: Some(state), feed });
            }
            Ok(next) if next == state => {
                plan.effects.push(Effect::Unchanged { run, operation, state, feed });
            }
            Ok(next) => {
                let change = change(run, operation, state, next.clone(), now);
                let write = Write::Run(RunChange { duration_ms, left, ..change });
                plan.states.insert(run, next.clone());
                plan.push(write, run, operation, After::State { state: next, feed });
            }
        }
    }

    fn plan_attached(&self, plan: &mut PlannedBatch, run: RunId, operation: OperationId, now: Timestamp) {
        if let Some(state) = self.state(plan, run).filter(|state| !state.status().is_final()) {
            let change = change(run, operation, state.clone(), state.clone(), now);
            let write = Write::Run(RunChange { attached: 1, ..change });
            plan.push(write, run, operation, After::State { state, feed: None });
        }
    }

    fn plan_output(&self, plan: &mut PlannedBatch, report: OutputReport<'_>) {
        let OutputReport { run, operation, offset, bytes, feed } = report;
        let Some(state) = self.state(plan, run) else {
            return plan.effects.push(Effect::Impossible { run, operation, state: None, feed: Some(feed) });
        };
        let entry = (offset, bytes.len() as u64);
        // The entry keeps the bytes too, so that the batch can be tried again.
        let write = Write::Output(Append { operation, run, offset, bytes: bytes.clone() });
        plan.push(write, run, operation, After::Output { feed, state, entry });
    }

    fn state(&self, plan: &PlannedBatch, run: RunId) -> Option<RunState> {
        plan.states.get(&run).or_else(|| self.states.get(&run)).cloned()
    }

    /// Tells everybody what is committed; `statuses` are those that operations have by it and had not before.
    fn tell(
        &mut self,
        effects: Vec<Effect>,
        committed: &batch::Committed,
        statuses: &HashSet<(OperationId, OperationStatus)>,
    ) {
        failure::log(&committed.ended);
        let mut moved = Vec::new();
        for effect in effects {
            match effect {
                Effect::Write { at, run, operation, after } => {
                    let written = committed.written.get(at).unwrap_or(&Written::Missing);
                    self.tell_written(run, operation, written, after, &mut moved);
                }
                Effect::Unchanged { run, operation, state, feed } => {
                    if let Some(feed) = feed {
                        note(&feed, &state, None);
                    } else {
                        moved.push(RunStateChange { operation, run, state });
                    }
                }
                Effect::Impossible { run, operation, state, feed } => match (feed, state) {
                    (Some(feed), state) => {
                        feed.send_modify(|committed| committed.impossible = true);
                        if let Some(state) = state {
                            note(&feed, &state, None);
                        }
                    }
                    (None, Some(state)) => moved.push(RunStateChange { operation, run, state }),
                    (None, None) => {}
                },
                Effect::Status(change) => {
                    // Not if another one was faster, or an earlier try had been committed all the same.
                    if statuses.contains(&(change.operation, change.to)) {
                        info!(operation = %change.operation, from = %change.from, to = %change.to, "operation.moved");
                        self.parts.metrics.operation_moved(change.to);
                    }
                    // Says no more than that there may be something to read.
                    let event = FleetEvent::Operation { tenant: change.tenant, operation: change.operation };
                    self.parts.fleet.announce(event);
                }
            }
        }
        for (operation, seq) in &committed.seqs {
            self.parts.continuity.note_recorded(*operation, *seq);
            self.parts.live.announce(*operation, *seq);
        }
        self.parts.dispatcher.moved(moved);
    }

    fn tell_written(
        &mut self,
        run: RunId,
        operation: OperationId,
        written: &Written,
        after: After,
        moved: &mut Vec<RunStateChange>,
    ) {
        match (written, after) {
            (Written::Changed, After::State { state, feed }) => {
                if state.status().is_final() {
                    debug!(%run, status = %state.status(), "recorder.run_ended");
                    self.states.remove(&run);
                    self.parts.metrics.run_ended(state.status());
                } else {
                    self.states.insert(run, state.clone());
                }
                if let Some(feed) = feed {
                    note(&feed, &state, None);
                }
                moved.push(RunStateChange { operation, run, state });
            }
            (Written::Appended { end }, After::Output { feed, state, .. }) => note(&feed, &state, Some(*end)),
            (Written::Stale(state), After::State { feed, .. }) => {
                // Another writer was there: its word stands, and the stream says again what it has to say.
                warn!(%run, status = %state.status(), "recorder.stale");
                self.states.remove(&run);
                if let Some(feed) = feed {
                    feed.send_modify(|committed| committed.impossible = true);
                    note(&feed, state, None);
                }
                moved.push(RunStateChange { operation, run, state: state.clone() });
            }
            (written, After::Output { feed, entry: (offset, length), .. }) => {
                warn!(%run, offset, length, ?written, "recorder.output_misplaced");
                self.states.remove(&run);
                feed.send_modify(|committed| match written {
                    Written::Misplaced { end } => {
                        committed.offset = *end;
                        committed.impossible = true;
                    }
                    _ => committed.ended = true,
                });
            }
            (_, After::State { feed, .. }) => {
                // The run was removed with its operation: the host may forget it.
                self.states.remove(&run);
                if let Some(feed) = feed {
                    feed.send_modify(|committed| committed.ended = true);
                }
            }
        }
    }
}

/// Returns when the recorder is to stop, or nobody can tell it any more.
async fn told(stopped: &mut watch::Receiver<bool>) {
    let _ = stopped.wait_for(|stop| *stop).await;
}

impl PlannedBatch {
    fn push(&mut self, write: Write, run: RunId, operation: OperationId, after: After) {
        self.effects.push(Effect::Write { at: self.writes.len(), run, operation, after });
        self.writes.push(write);
    }
}

fn change(run: RunId, operation: OperationId, from: RunState, to: RunState, at: Timestamp) -> RunChange {
    RunChange { operation, run, from, to, at, duration_ms: None, left: None, attached: 0 }
}

/// Tells a stream what is committed.
fn note(feed: &Sender, state: &RunState, end: Option<u64>) {
    use fleetward_domain::work::run::RunStatus;
    feed.send_modify(|committed| {
        if let Some(end) = end {
            committed.offset = end;
        }
        committed.accepted |= !matches!(state.status(), RunStatus::Queued | RunStatus::Dispatched);
        committed.ended |= state.status().is_final();
    });
}

/// An entry that the store will never take: its stream must not wait for it.
fn refuse(entry: Entry) {
    if let Request::Report { feed, .. } = entry.what {
        feed.send_modify(|committed| committed.impossible = true);
    }
}

/// The seqs that came of a change of an operation's status.
#[derive(Debug, Default)]
struct WrittenStatus {
    halt: Option<u64>,
    status: Option<u64>,
}

async fn write_status(
    tx: &mut fleetward_store::Tx,
    change: &StatusChange,
    now: Timestamp,
) -> Result<WrittenStatus, StoreError> {
    let mut written = WrittenStatus::default();
    if change.halted == Halted::Now {
        written.halt = operation::update_halted(tx, change.operation, now).await?;
    }
    if change.from != change.to {
        written.status = operation::update_status(tx, change.operation, change.from, change.to, now).await?;
    }
    Ok(written)
}

fn weight(write: &Write) -> usize {
    match write {
        Write::Output(append) => append.bytes.len(),
        Write::Run(_) => 0,
    }
}
