//! A run that a restart of its host cut off, and whose kind can go on.
//!
//! **What it promises.** It goes on only once the controller has said how much of its output it has: a host that lost power
//! may have less, and offsets never go back. Each attempt is in the journal, durably, before it begins, and there are
//! few of them: a run that takes its host down each time comes to an end. Its time limit counts from its first start, by
//! the wall clock. Whoever cancelled it meanwhile is heard first.

use std::io;
use std::path::Path;
use std::time::Duration;

use fleetward_protocol::action::Action;
use fleetward_protocol::output::Stream;
use fleetward_protocol::run::{LostCause, Outcome, Refusal};
use fleetward_protocol::time::Timestamp;
use tokio::process::Child;
use tokio::sync::oneshot;

use super::attach::Attachment;
use super::drive::{Drive, lost, write_end};
use super::outcome::End;
use super::prepare::{self, Ready};
use super::spec::Spec;
use super::spool::{self, Spool};
use super::supervisor::command;
use super::work::Work;
use crate::journal::{Entry, steps};
use crate::platform::clock;

/// So often a run goes on at most.
const ATTEMPTS: u8 = 3;

/// What is known of a run that was cut off.
#[derive(Debug, Clone, Copy)]
pub(super) struct CutOff {
    /// When it was first started.
    pub(super) at: Timestamp,
    /// Not started after this.
    pub(super) deadline: Timestamp,
    /// How often it has gone on.
    pub(super) taken_up: u8,
}

/// Whether a run was opened before its time was over. Afterwards it holds no place, and does not go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Time {
    Left,
    Over,
}

/// Why a run does not go on: how it ends, and what is said of it behind where it stood.
struct Over(Outcome, String);

impl Drive {
    /// Goes on with the run when the controller has opened it, from `opened` on as far as the controller has its output.
    pub(super) async fn take_up(mut self, mut opened: oneshot::Receiver<u64>, cut: CutOff) {
        let work = self.read_work().await;
        if let Ok(work) = &work
            && let Ok(action) = Action::parse(&work.action)
        {
            self.shared.table().queue.adopt(self.run, action.needs().resources);
        }
        let ends = work.as_ref().map_or(cut.deadline, |work| time_ends(work.order.limits.timeout_ms, cut));
        let in_time = tokio::select! {
            biased;
            offset = &mut opened => Some(offset),
            () = tokio::time::sleep(ends.since(clock::now())) => None,
        };
        let (offset, time) = match in_time {
            Some(offset) => (offset, Time::Left),
            None => {
                // A controller that has lost the operation may never open it, and others wait for its place and its resources.
                self.shared.release(self.run);
                (opened.await, Time::Over)
            }
        };
        // Else the controller has forgotten it.
        if let Ok(offset) = offset {
            self.go_on(work, offset, cut, time).await;
        }
        self.shared.release(self.run);
    }

    async fn go_on(&mut self, work: Result<Work, Refusal>, offset: u64, cut: CutOff, time: Time) {
        let directory = self.shared.directory(self.run);
        let at = cut.at;
        let length = spool::read_sound_length(&directory.join(spool::SPOOL));
        if !length.is_ok_and(|length| length >= offset) {
            return self.end(lost(&directory, at, LostCause::Reboot), at);
        }
        match self.start_again(work, cut, time, &directory).await {
            Ok((attachment, child)) => self.watch(attachment, Some(child), at).await,
            Err(Over(outcome, words)) => self.end(end(&directory, at, outcome, &words), at),
        }
    }

    async fn start_again(
        &self,
        work: Result<Work, Refusal>,
        cut: CutOff,
        time: Time,
        directory: &Path,
    ) -> Result<(Attachment, Child), Over> {
        let lost = |words: String| Over(Outcome::Lost(LostCause::Reboot), words);
        if self.is_cancelled() {
            return Err(Over(
                Outcome::Cancelled,
                "cancelled meanwhile, and nothing more was done".to_owned(),
            ));
        }
        if cut.taken_up >= ATTEMPTS {
            return Err(lost(format!("it was taken up {ATTEMPTS} times, and is not again")));
        }
        let refused = |refusal: &Refusal| lost(format!("it cannot be taken up: {}", in_words(refusal)));
        let work = work.map_err(|refusal| refused(&refusal))?;
        // It was started in time; how long it may take is looked at here.
        let ready = prepare::check(&self.shared, &work, cut.at).await.map_err(|refusal| refused(&refusal))?;
        let now = clock::now();
        let left = match (time_left(ready.timeout_ms, now.since(cut.at)), time) {
            (Some(0), Time::Over) => {
                return Err(lost("its deadline passed meanwhile, and it has no time limit".to_owned()));
            }
            (None, _) | (_, Time::Over) => {
                let words = "its time limit passed meanwhile, and nothing more was done";
                return Err(Over(Outcome::TimedOut, words.to_owned()));
            }
            (Some(left), Time::Left) => left,
        };
        let taken_up = Entry::TakenUp { run: self.run, boot: self.shared.host.boot };
        let written = self.shared.journal.append(vec![taken_up], now).await;
        written.map_err(|error| lost(format!("it cannot be taken up: {error}")))?;
        let started = self.supervise_again(&work, &ready.resume(left), directory).await;
        let (mut attachment, child) =
            started.map_err(|error| lost(format!("it cannot be taken up: {error}")))?;
        // If it is gone already, what it left in the directory tells why.
        drop(attachment.send(command::GO).await);
        let (operation, times) = (work.order.operation, cut.taken_up + 1);
        tracing::info!(run_id = %self.run, operation_id = %operation, kind = work.action.kind, times, "run_taken_up");
        Ok((attachment, child))
    }

    async fn supervise_again(
        &self,
        work: &Work,
        ready: &Ready,
        directory: &Path,
    ) -> io::Result<(Attachment, Child)> {
        prepare::prepare_again(&self.shared, work, ready)?;
        let (mut attachment, child) = Attachment::start(&self.shared.host.supervisor, directory)?;
        attachment.hand_over(&ready.given()).await?;
        Ok((attachment, child))
    }
}

/// When the time of a run with this limit is over: without one when it would not be started any more.
fn time_ends(limit_ms: u64, cut: CutOff) -> Timestamp {
    match limit_ms {
        0 => cut.deadline,
        limit => cut.at + Duration::from_millis(limit),
    }
}

/// What is left of a time limit, in milliseconds; `None` if nothing is. Zero is no limit.
fn time_left(limit_ms: u64, elapsed: Duration) -> Option<u64> {
    let elapsed = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX);
    match limit_ms {
        0 => Some(0),
        limit => limit.checked_sub(elapsed).filter(|left| *left > 0),
    }
}

/// What a supervisor's last word means: one that could not go on with its run has not refused it. It had been started.
pub(super) fn settle(directory: &Path, at: Timestamp, last: End) -> End {
    match last {
        End::Refused(refusal) if Spec::read(directory).is_ok_and(|spec| spec.resumed) => {
            let words = format!("it cannot be taken up: {}", in_words(&refusal));
            end(directory, at, Outcome::Lost(LostCause::Reboot), &words)
        }
        last => last,
    }
}

/// Ends a run that does not go on: with a line about where it stood, behind its output.
fn end(directory: &Path, at: Timestamp, outcome: Outcome, words: &str) -> End {
    let place = steps::read_place(directory);
    let line = format!("fleetward: the host restarted while this run was {place}; {words}\n");
    let now = clock::now();
    let told = Spool::resume(directory, 0, 0).and_then(|mut spool| {
        spool.append(Stream::Stderr, now, line.as_bytes());
        spool.finish(now)
    });
    let length = told.or_else(|error| {
        tracing::warn!(%error, words, "end_not_told_in_the_output");
        let path = directory.join(spool::SPOOL);
        spool::ensure_durable(&path).and_then(|()| spool::read_sound_length(&path))
    });
    match length {
        Ok(length) => write_end(directory, at, outcome, length),
        Err(_) => lost(directory, at, LostCause::Reboot),
    }
}

/// Why a host would not go on with a run.
fn in_words(refusal: &Refusal) -> String {
    match refusal {
        Refusal::NotAllowed { rule: words }
        | Refusal::SpawnFailed { detail: words }
        | Refusal::Malformed { detail: words } => words.to_string(),
        Refusal::Unsupported { kind } => format!("this agent does not know the kind `{kind}`"),
        Refusal::DiskFull => "the disk that holds the agent's state has no room".to_owned(),
        Refusal::ClientIdMissing => "the file with the host's client ID is missing".to_owned(),
        Refusal::ClientIdMismatch { found } => format!("the host's client ID is another now ({found})"),
        Refusal::NoSuchUser { user } => {
            format!("the user {user} does not exist, or the agent may not become it")
        }
        refusal => format!("the host does not start it now ({refusal:?})"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_limit_goes_on_while_the_host_is_off() {
        let second = Duration::from_secs(1);
        assert_eq!(time_left(0, 100 * second), Some(0), "no limit");
        assert_eq!(time_left(5_000, 2 * second), Some(3_000));
        assert_eq!(time_left(5_000, 5 * second), None);
        assert_eq!(time_left(5_000, Duration::MAX), None);
    }
}
