//! The host's end of one run's stream: sends what the journal and the spool hold, from the acknowledged offset.

use super::SessionError;
use crate::message::{Finished, RunDown, RunUp};
use crate::run::{CancelCause, Refusal};
use crate::time::Timestamp;
use crate::wire::MAX_OUTPUT_PIECE;

/// What to put on the stream next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SourceTransmit {
    /// This message.
    Message(RunUp),
    /// [`RunUp::Output`] with exactly these bytes of the spool. They exist: `offset + length` was announced by
    /// [`RunSource::handle_spooled`].
    Output {
        /// Where the piece begins in the log.
        offset: u64,
        /// How long it is; [`MAX_OUTPUT_PIECE`] at most.
        length: usize,
    },
}

/// What the host must do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SourceEvent {
    /// The log before this offset is committed at the controller.
    Acknowledged(u64),
    /// Stop the run, or do not start it.
    Cancel(CancelCause),
    /// Everything is committed: drop the run.
    Forget,
}

/// Speaks one run's stream for a host. Made after the stream's [`OpenRun`](crate::message::OpenRun) was read
/// and looked up in the journal.
#[derive(Debug)]
pub struct RunSource {
    unsent: Unsent,
    sent: u64,
    spooled: u64,
    finished: Option<Finished>,
    /// The final message is sent; nothing may follow it.
    ended: bool,
}

/// The messages due before output, in order.
#[derive(Debug)]
struct Unsent {
    accepted: bool,
    started: Option<Timestamp>,
    last_word: Option<RunUp>,
}

impl RunSource {
    /// A source that sends output from `offset`, which the controller named when it opened the stream.
    #[must_use]
    pub const fn new(offset: u64) -> Self {
        let unsent = Unsent { accepted: false, started: None, last_word: None };
        Self { unsent, sent: offset, spooled: offset, finished: None, ended: false }
    }

    /// The journal holds the run.
    pub const fn handle_accepted(&mut self) {
        self.unsent.accepted = true;
    }

    /// The journal says it was started.
    pub const fn handle_started(&mut self, at: Timestamp) {
        self.unsent.started = Some(at);
    }

    /// The spool is this long now, in bytes. Lengths only grow; a shorter one is ignored.
    pub const fn handle_spooled(&mut self, length: u64) {
        if length > self.spooled {
            self.spooled = length;
        }
    }

    /// The run ended; the spool durably has its final length, and ends with a whole record: one that was torn
    /// when the power or the supervisor went away has been cut off.
    ///
    /// A spool that lost its end with the host's power may be shorter than what was sent from it before. The
    /// controller's copy is the longer one then, and it is the one that counts: the result announces its length.
    pub fn handle_finished(&mut self, finished: Finished) {
        self.handle_spooled(finished.log_length);
        let log_length = finished.log_length.max(self.sent);
        self.finished = Some(Finished { log_length, ..finished });
    }

    /// The run will not start.
    pub fn handle_refused(&mut self, refusal: Refusal) {
        self.unsent.last_word = Some(RunUp::Refused(refusal));
    }

    /// The journal does not know the run, and was given nothing to start it with.
    pub fn handle_unknown(&mut self) {
        self.unsent.last_word = Some(RunUp::Unknown);
    }

    /// Takes a message from the controller.
    ///
    /// # Errors
    /// If it opens the stream again, or acknowledges what was never sent; the stream should be reset.
    pub const fn handle_message(&mut self, message: &RunDown) -> Result<SourceEvent, SessionError> {
        match message {
            RunDown::Open(_) => Err(SessionError::Unexpected { message: "open", state: "on an open stream" }),
            RunDown::Acknowledge { offset } if *offset > self.sent => {
                Err(SessionError::BeyondEnd { offset: *offset, end: self.sent })
            }
            RunDown::Acknowledge { offset } => Ok(SourceEvent::Acknowledged(*offset)),
            RunDown::Cancel { cause } => Ok(SourceEvent::Cancel(*cause)),
            RunDown::Forget => Ok(SourceEvent::Forget),
        }
    }

    /// What to send next; `None` until something happens.
    pub fn poll_transmit(&mut self) -> Option<SourceTransmit> {
        if self.ended {
            return None;
        }
        if let Some(message) = self.unsent.next() {
            self.ended = matches!(message, RunUp::Refused(_) | RunUp::Unknown);
            return Some(SourceTransmit::Message(message));
        }
        if self.sent < self.spooled {
            let offset = self.sent;
            let length =
                usize::try_from(self.spooled - self.sent).unwrap_or(usize::MAX).min(MAX_OUTPUT_PIECE);
            self.sent += length as u64;
            return Some(SourceTransmit::Output { offset, length });
        }
        let finished = self.finished.take()?;
        self.ended = true;
        Some(SourceTransmit::Message(RunUp::Finished(finished)))
    }
}

impl Unsent {
    fn next(&mut self) -> Option<RunUp> {
        if std::mem::take(&mut self.accepted) {
            return Some(RunUp::Accepted);
        }
        if let Some(at) = self.started.take() {
            return Some(RunUp::Started { at });
        }
        self.last_word.take()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::{LostCause, Outcome};

    fn lost(log_length: u64) -> Finished {
        let outcome = Outcome::Lost(LostCause::Reboot);
        Finished { outcome, at: Timestamp::from_millis(0), duration_ms: 0, log_length, left: None }
    }

    fn transmitted(source: &mut RunSource) -> Vec<SourceTransmit> {
        std::iter::from_fn(|| source.poll_transmit()).collect()
    }

    #[test]
    fn a_controller_with_the_longer_copy_is_told_its_length() {
        let mut source = RunSource::new(100);
        source.handle_spooled(40);
        source.handle_finished(lost(40));
        assert_eq!(transmitted(&mut source), [SourceTransmit::Message(RunUp::Finished(lost(100)))]);
    }

    #[test]
    fn nothing_follows_a_final_message() {
        let mut source = RunSource::new(0);
        source.handle_refused(Refusal::CancelledBeforeStart);
        source.handle_refused(Refusal::CancelledBeforeStart);
        let refused = RunUp::Refused(Refusal::CancelledBeforeStart);
        assert_eq!(transmitted(&mut source), [SourceTransmit::Message(refused)]);
        source.handle_refused(Refusal::DeadlinePassed);
        source.handle_started(Timestamp::from_millis(0));
        source.handle_finished(lost(0));
        assert_eq!(transmitted(&mut source), []);
    }

    #[test]
    fn the_result_waits_for_the_last_byte_of_output() {
        let mut source = RunSource::new(0);
        source.handle_accepted();
        source.handle_started(Timestamp::from_millis(0));
        let length = MAX_OUTPUT_PIECE as u64 + 5;
        source.handle_finished(lost(length));
        assert_eq!(
            transmitted(&mut source),
            [
                SourceTransmit::Message(RunUp::Accepted),
                SourceTransmit::Message(RunUp::Started { at: Timestamp::from_millis(0) }),
                SourceTransmit::Output { offset: 0, length: MAX_OUTPUT_PIECE },
                SourceTransmit::Output { offset: MAX_OUTPUT_PIECE as u64, length: 5 },
                SourceTransmit::Message(RunUp::Finished(lost(length))),
            ]
        );
    }

    #[test]
    fn an_acknowledgement_of_what_was_never_sent_is_an_error() {
        let mut source = RunSource::new(10);
        let acknowledged =
            |source: &mut RunSource, offset| source.handle_message(&RunDown::Acknowledge { offset });
        assert_eq!(acknowledged(&mut source, 10), Ok(SourceEvent::Acknowledged(10)));
        assert_eq!(acknowledged(&mut source, 11), Err(SessionError::BeyondEnd { offset: 11, end: 10 }));
    }
}
