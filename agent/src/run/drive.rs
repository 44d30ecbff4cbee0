//! One task per run, from acceptance to the last word.

use std::io::{self, ErrorKind};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use fleetward_protocol::id::RunId;
use fleetward_protocol::message::{Dispatch, Finished};
use fleetward_protocol::run::{CancelCause, Fate, Left, LostCause, Outcome, Refusal};
use fleetward_protocol::text::Text;
use fleetward_protocol::time::Timestamp;
use tokio::process::Child;
use tokio::sync::{oneshot, watch};

use super::attach::Attachment;
use super::outcome::{End, not_prepared};
use super::queue::Admission;
use super::supervisor::command;
use super::work::Work;
use super::{Progress, Shared, Stage, Watched, prepare, resume, spool};
use crate::gate;
use crate::journal::{Entry, JournalError};
use crate::platform::clock;

/// A run that is over sooner is told in one word, from its acceptance to its end, and costs the controller one commit.
/// After this, whatever there is to tell is told as it comes.
const SHORT: Duration = Duration::from_millis(10);

/// A run on its way.
pub(super) struct Drive {
    pub(super) shared: Arc<Shared>,
    pub(super) run: RunId,
    pub(super) progress: watch::Sender<Progress>,
    pub(super) cancelled: watch::Receiver<Option<CancelCause>>,
}

/// Whether the journal has the run's acceptance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Journalled {
    Yes,
    No,
}

/// What became of a supervisor that fell silent.
enum Supervised {
    /// It is gone, or has said its last word.
    No,
    /// It is there.
    Again(Attachment),
    /// That cannot be told now.
    Unknown,
}

/// Takes a dispatched run in; the stage tells what comes of it. With a cancel request it is written down and not started.
pub(super) fn accept(
    shared: &Arc<Shared>,
    run: RunId,
    dispatch: Dispatch,
    cancel: Option<CancelCause>,
) -> watch::Receiver<Progress> {
    let now = clock::now();
    let remaining = Duration::from_millis(dispatch.remaining_ms);
    let work = Work::open(&dispatch.order, dispatch.contents.into_vec());
    let deadline = work.as_ref().map_or(now, |work| work.order.deadline.min(now + remaining));
    let Watched { progress, watched, cancelled } = shared.hold(run, Stage::Accepting, 0, deadline, cancel);
    let drive = Drive { shared: Arc::clone(shared), run, progress, cancelled };
    let checked = work.and_then(|work| match work {
        Work { order, .. } if order.run != run => {
            Err(Refusal::Malformed { detail: Text::of("the order is for another run") })
        }
        work => gate::check_time(&work.order, remaining).map(|()| work),
    });
    match checked {
        Ok(work) => shared.spawn(drive.fresh(work, dispatch.order, deadline)),
        Err(refusal) => drive.refuse_unaccepted(refusal),
    }
    watched
}

impl Drive {
    /// A run that is not in the journal yet.
    async fn fresh(mut self, work: Work, order: Vec<u8>, deadline: Timestamp) {
        if self.is_cancelled() {
            return self.refuse_fresh(Refusal::CancelledBeforeStart).await;
        }
        let ready = match prepare::check(&self.shared, &work, clock::now()).await {
            Ok(ready) => ready,
            Err(refusal) => return self.refuse_fresh(refusal).await,
        };
        let accepted = Entry::Accepted { run: self.run, order, contents: work.contents.clone(), deadline };
        match self.admit(&ready) {
            Err(refusal) => return self.refuse_fresh(refusal).await,
            Ok(None) => self.start(work, ready, Some(accepted)).await,
            Ok(Some(turn)) => {
                drop((work, ready));
                if let Err(error) = self.shared.journal.append(vec![accepted], clock::now()).await {
                    self.refuse_fresh(not_journalled(&error)).await;
                } else {
                    self.set(Stage::Waiting);
                    self.wait(turn, deadline).await;
                }
            }
        }
        self.shared.release(self.run);
    }

    /// A run that an earlier life of the agent accepted and did not start. It may have been started all the same, and this
    /// be a state of the host from before (a snapshot, a backup): so it waits until the controller has opened it.
    pub(super) async fn resume(mut self, confirmed: oneshot::Receiver<()>, deadline: Timestamp) {
        let too_late = tokio::time::sleep(deadline.since(clock::now()));
        let refusal = tokio::select! {
            biased;
            () = cancellation(&mut self.cancelled) => Some(Refusal::CancelledBeforeStart),
            word = confirmed => match word {
                Ok(()) => None,
                Err(_) => return,
            },
            () = too_late => Some(Refusal::DeadlinePassed),
        };
        if let Some(refusal) = refusal {
            self.shared.table().unconfirmed.remove(&self.run);
            return self.refuse_accepted(refusal).await;
        }
        let ready = match self.read_work().await {
            Ok(work) => prepare::check(&self.shared, &work, clock::now()).await,
            Err(refusal) => Err(refusal),
        };
        match ready {
            Err(refusal) => self.refuse_accepted(refusal).await,
            Ok(ready) => match self.admit(&ready) {
                Err(refusal) => self.refuse_accepted(refusal).await,
                Ok(None) => self.start_held().await,
                Ok(Some(turn)) => self.wait(turn, deadline).await,
            },
        }
        self.shared.release(self.run);
    }

    /// A run that an earlier life of the agent started, and whose supervisor answered.
    pub(super) async fn reattach(mut self, attachment: Attachment, at: Timestamp) {
        tracing::info!(run_id = %self.run, "run_reattached");
        self.watch(attachment, None, at).await;
        self.shared.release(self.run);
    }

    pub(super) fn is_cancelled(&self) -> bool {
        self.cancelled.borrow().is_some()
    }

    /// A place now, or the promise of one. None of both for who wants the host alone while others are at work.
    fn admit(&self, ready: &prepare::Ready) -> Result<Option<oneshot::Receiver<()>>, Refusal> {
        let mut table = self.shared.table();
        let admission = match table.queue.others(self.run) {
            others if others > 0 && ready.plan.rehearses_alone => Admission::Busy(others),
            _ => table.queue.admit(self.run, ready.plan.resources.clone()),
        };
        let promised = match admission {
            Admission::Now => None,
            Admission::Later => {
                let (turn, promised) = oneshot::channel();
                table.turns.insert(self.run, turn);
                Some(promised)
            }
            Admission::Busy(others) => {
                let are = if others == 1 { "run is" } else { "runs are" };
                return Err(Refusal::Busy {
                    detail: Text::of(format_args!(
                        "it wants the host alone, and {others} {are} under way there; ask again when they have ended, or with \
                         `while_busy` where the kind takes that"
                    )),
                });
            }
        };
        let promoted = table.queue.set_capacity(ready.capacity());
        table.give_turns(promoted);
        Ok(promised)
    }

    /// Until the run's turn comes, it is cancelled, or it is too late.
    async fn wait(&mut self, turn: oneshot::Receiver<()>, deadline: Timestamp) {
        let too_late = tokio::time::sleep(deadline.since(clock::now()));
        let refusal = tokio::select! {
            biased;
            () = cancellation(&mut self.cancelled) => Refusal::CancelledBeforeStart,
            turn = turn => match turn {
                Ok(()) => return self.start_held().await,
                Err(_) => return,
            },
            () = too_late => Refusal::DeadlinePassed,
        };
        self.shared.table().turns.remove(&self.run);
        self.refuse_accepted(refusal).await;
    }

    /// Starts a run whose acceptance is in the journal.
    async fn start_held(&mut self) {
        let checked = match self.read_work().await {
            Ok(work) => prepare::check(&self.shared, &work, clock::now()).await.map(|ready| (work, ready)),
            Err(refusal) => Err(refusal),
        };
        match checked {
            Ok((work, ready)) => self.start(work, ready, None).await,
            Err(refusal) => self.refuse_accepted(refusal).await,
        }
    }

    pub(super) async fn read_work(&self) -> Result<Work, Refusal> {
        let accepted = self.shared.journal.read(self.run).await;
        let accepted = accepted.map_err(|error| Refusal::SpawnFailed { detail: Text::of(error) })?;
        Work::open(&accepted.order, accepted.contents)
    }

    /// Starts the run: `started` is in the journal before the supervisor goes.
    async fn start(&mut self, work: Work, ready: prepare::Ready, accepted: Option<Entry>) {
        let journalled = if accepted.is_none() { Journalled::Yes } else { Journalled::No };
        if self.is_cancelled() {
            return self.refuse(Refusal::CancelledBeforeStart, journalled).await;
        }
        let directory = self.shared.directory(self.run);
        let at = clock::now();
        let boot = self.shared.host.boot;
        let started = Entry::Started { run: self.run, at, boot, resumable: ready.plan.resumable };
        let written = self.shared.journal.append(accepted.into_iter().chain([started]).collect(), at);
        // The supervisor gets ready while the journal is written, and waits for the word that it is.
        let spawned = self.prepare(&work, &ready, &directory).await;
        if let Err(error) = written.await {
            // Not told to go, the supervisor ends without having started anything.
            drop(spawned);
            self.shared.remove_directory(self.run);
            return self.refuse(not_journalled(&error), journalled).await;
        }
        let (mut attachment, child) = match spawned {
            Ok(spawned) => spawned,
            Err(error) => return self.refuse_accepted(not_prepared(&error)).await,
        };
        // If it is gone already, what it left in the directory tells why.
        drop(attachment.send(command::GO).await);
        let operation = work.order.operation;
        tracing::info!(run_id = %self.run, operation_id = %operation, kind = work.action.kind, issuer = %work.order.issuer, "run_started");
        // What the run was given is not kept for as long as it takes.
        drop((work, ready));
        self.watch(attachment, Some(child), at).await;
    }

    /// Makes the run's directory, and a supervisor ready for the word to go.
    async fn prepare(
        &self,
        work: &Work,
        ready: &prepare::Ready,
        directory: &Path,
    ) -> io::Result<(Attachment, Child)> {
        prepare::prepare(&self.shared, work, ready)?;
        let (mut attachment, child) = self.shared.start_supervisor(directory)?;
        let given = ready.given();
        let Err(error) = attachment.hand_over(&given).await else { return Ok((attachment, child)) };
        // Somebody killed it, or the kernel for want of memory, while it waited. Without the word to go it has started
        // nothing, so another one can.
        tracing::warn!(run_id = %self.run, %error, "supervisor_died_before_its_run");
        drop((attachment, child));
        self.shared.remove_directory(self.run);
        prepare::prepare(&self.shared, work, ready)?;
        let (mut attachment, child) = Attachment::start(&self.shared.host.supervisor, directory)?;
        attachment.hand_over(&given).await?;
        Ok((attachment, child))
    }

    /// From the supervisor's start to its last word.
    pub(super) async fn watch(&mut self, mut attachment: Attachment, child: Option<Child>, at: Timestamp) {
        let directory = self.shared.directory(self.run);
        let mut cancel_sent = false;
        let mut known = self.progress.borrow().clone();
        let mut held_back = known.stage == Stage::Accepting;
        if held_back {
            known.stage = Stage::Waiting;
        }
        let short = tokio::time::sleep(SHORT);
        tokio::pin!(short);
        loop {
            let heard = tokio::select! {
                heard = attachment.hear() => heard,
                () = &mut short, if held_back => {
                    held_back = false;
                    self.tell(&known);
                    continue;
                }
                () = cancellation(&mut self.cancelled), if !cancel_sent => {
                    cancel_sent = true;
                    drop(attachment.send(command::CANCEL).await);
                    continue;
                }
            };
            let output = std::fs::metadata(directory.join(spool::SPOOL)).map_or(0, |file| file.len());
            if heard.over {
                match self.is_supervised(&directory) {
                    Supervised::No => break,
                    Supervised::Again(found) => {
                        attachment = found;
                        // What was sent over the old connection may not have been read.
                        cancel_sent = false;
                    }
                    // Better no word than a wrong one: the next life of the agent will know.
                    Supervised::Unknown => return self.tell(&known),
                }
                continue;
            }
            if heard.started {
                known.stage = Stage::Running { at };
            }
            known.output = known.output.max(output);
            if !held_back {
                self.tell(&known);
            }
        }
        self.conclude(&directory, at, LostCause::SupervisorGone);
        if let Some(mut child) = child {
            // Collected aside, so that the process's own exit does not delay the result.
            tokio::spawn(async move { drop(child.wait().await) });
        }
    }

    /// Whether somebody still supervises a run whose supervisor fell silent: the loss of a connection is not the
    /// loss of a process.
    fn is_supervised(&self, directory: &Path) -> Supervised {
        if !matches!(End::read(directory), Ok(None)) {
            return Supervised::No;
        }
        match Attachment::connect(directory) {
            Ok(attachment) => Supervised::Again(attachment),
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::ConnectionRefused) => {
                Supervised::No
            }
            Err(error) => {
                tracing::error!(run_id = %self.run, %error, "supervisor_unreachable");
                Supervised::Unknown
            }
        }
    }

    /// Tells how a started run ended: as its supervisor wrote, or that nobody can know.
    pub(super) fn conclude(&self, directory: &Path, at: Timestamp, otherwise: LostCause) {
        let end = match End::read(directory) {
            Ok(Some(end)) if spool::vouches(directory, &end) => resume::settle(directory, at, end),
            Ok(Some(_)) => lost(directory, at, LostCause::SpoolUnreadable),
            Ok(None) => lost(directory, at, otherwise),
            Err(_) => lost(directory, at, LostCause::SpoolUnreadable),
        };
        self.end(end, at);
    }

    /// Tells that a started run ended so.
    pub(super) fn end(&self, end: End, at: Timestamp) {
        tracing::info!(run_id = %self.run, end = ?end, "run_ended");
        if let End::Finished(Finished { left: Some(Left { fate: Fate::Unkept, .. }), .. }) = &end {
            self.shared.ensure_drains_within_limits();
        }
        let (stage, output) = stage_of(end, at);
        self.progress.send_modify(|progress| {
            progress.stage = stage;
            progress.output = progress.output.max(output);
        });
    }

    fn tell(&self, known: &Progress) {
        self.progress.send_if_modified(|progress| {
            let is_news = progress != known;
            progress.clone_from(known);
            is_news
        });
    }

    fn set(&self, stage: Stage) {
        self.progress.send_modify(|progress| progress.stage = stage);
    }

    async fn refuse(&self, refusal: Refusal, journalled: Journalled) {
        match journalled {
            Journalled::Yes => self.refuse_accepted(refusal).await,
            Journalled::No => self.refuse_fresh(refusal).await,
        }
    }

    /// A run that the journal does not know. It is written down as accepted and refused, and held until the
    /// controller has committed the refusal: the reason may pass, and the same order may come again while the
    /// answer to the first still waits for its commit. It must not be started then.
    async fn refuse_fresh(&self, refusal: Refusal) {
        tracing::warn!(run_id = %self.run, ?refusal, "run_refused");
        let now = clock::now();
        let deadline = self.shared.table().runs.get(&self.run).map_or(now, |held| held.deadline);
        let entries = vec![
            Entry::Accepted { run: self.run, order: Vec::new(), contents: Vec::new(), deadline },
            Entry::Refused { run: self.run, refusal: refusal.clone() },
        ];
        if let Err(error) = self.shared.journal.append(entries, now).await {
            // On a full disk, say. It is held in memory; a restart forgets it.
            tracing::warn!(run_id = %self.run, error = &error as &dyn std::error::Error, "refusal_not_journalled");
        }
        self.set(Stage::Refused { refusal, accepted: false });
    }

    /// An order that is refused for what it is. It need not be remembered: it is refused again as often as it comes.
    fn refuse_unaccepted(&self, refusal: Refusal) {
        tracing::warn!(run_id = %self.run, ?refusal, "run_refused");
        self.shared.table().runs.remove(&self.run);
        self.set(Stage::Refused { refusal, accepted: false });
    }

    async fn refuse_accepted(&self, refusal: Refusal) {
        tracing::warn!(run_id = %self.run, ?refusal, "run_refused");
        let entry = Entry::Refused { run: self.run, refusal: refusal.clone() };
        if let Err(error) = self.shared.journal.append(vec![entry], clock::now()).await {
            // After a restart it would wait again, and be refused again or start: it has not started so far.
            tracing::error!(run_id = %self.run, error = &error as &dyn std::error::Error, "refusal_not_journalled");
        }
        self.set(Stage::Refused { refusal, accepted: true });
    }
}

/// What an end means for those who watch the run, and the length of its output log.
pub(super) fn stage_of(end: End, at: Timestamp) -> (Stage, u64) {
    match end {
        End::Finished(end) => {
            let output = end.log_length;
            (Stage::Finished { started: at, end }, output)
        }
        End::Refused(refusal) => (Stage::Refused { refusal, accepted: true }, 0),
    }
}

/// Writes down that a run's end cannot be known; its output stays as far as it is whole.
pub(super) fn lost(directory: &Path, at: Timestamp, cause: LostCause) -> End {
    let path = directory.join(spool::SPOOL);
    // Durable first: the result is about to vouch for this length, and must not outlive it.
    let (log_length, cause) =
        match spool::ensure_durable(&path).and_then(|()| spool::read_sound_length(&path)) {
            Ok(length) => (length, cause),
            Err(_) => (0, LostCause::SpoolUnreadable),
        };
    write_end(directory, at, Outcome::Lost(cause), log_length)
}

/// Writes down how a run ended, in its supervisor's place.
pub(super) fn write_end(directory: &Path, at: Timestamp, outcome: Outcome, log_length: u64) -> End {
    let now = clock::now();
    let duration_ms = u64::try_from(now.since(at).as_millis()).unwrap_or(u64::MAX);
    let end = End::Finished(Finished { outcome, at: now, duration_ms, log_length, left: None });
    if let Err(error) = end.write(directory) {
        // The same will be found again after the next start.
        tracing::warn!(%error, "result_not_written");
    }
    end
}

async fn cancellation(cancelled: &mut watch::Receiver<Option<CancelCause>>) {
    if cancelled.wait_for(Option::is_some).await.is_err() {
        // Nobody can cancel it any more.
        std::future::pending().await
    }
}

fn not_journalled(error: &JournalError) -> Refusal {
    if error.is_disk_full() {
        return Refusal::DiskFull;
    }
    let cause = std::error::Error::source(error).map(|cause| format!(": {cause}")).unwrap_or_default();
    Refusal::SpawnFailed { detail: Text::of(format_args!("{error}{cause}")) }
}
