//! The controller's end of one run's stream: takes each byte of the output log once, in order, and
//! acknowledges what was committed.

use super::SessionError;
use crate::message::{Finished, RunDown, RunUp};
use crate::run::Refusal;
use crate::time::Timestamp;

/// What the controller must persist.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SinkEvent {
    /// The host will start the run at most once from now on.
    Accepted,
    /// The host will not start the run.
    Refused(Refusal),
    /// The host started the run.
    Started {
        /// The host's clock.
        at: Timestamp,
    },
    /// Bytes that continue the log exactly where the last ones ended.
    Output {
        /// Where they begin.
        offset: u64,
        /// The bytes; never empty.
        bytes: Vec<u8>,
    },
    /// The run ended; every byte of its log has been handed out before.
    Finished(Finished),
    /// The host's journal does not know the run.
    Unknown,
    /// A repetition; nothing to do.
    Nothing,
}

/// Speaks one run's stream for a controller.
#[derive(Debug)]
pub struct RunSink {
    received: u64,
    committed: u64,
    ended: bool,
}

impl RunSink {
    /// A sink whose committed copy of the log ends at `offset`, the offset the stream is opened with.
    #[must_use]
    pub const fn new(offset: u64) -> Self {
        Self { received: offset, committed: offset, ended: false }
    }

    /// Takes a message from the host.
    ///
    /// # Errors
    /// If it leaves a gap, or comes after the end, or ends at another length than was received; the stream
    /// should be reset and opened again from the committed offset.
    pub fn handle_message(&mut self, message: RunUp) -> Result<SinkEvent, SessionError> {
        if self.ended {
            return Err(SessionError::Unexpected { message: "message", state: "after the run's last" });
        }
        match message {
            RunUp::Accepted => Ok(SinkEvent::Accepted),
            RunUp::Started { at } => Ok(SinkEvent::Started { at }),
            RunUp::Output { offset, bytes } => self.handle_output(offset, bytes),
            RunUp::Refused(refusal) => self.end(SinkEvent::Refused(refusal)),
            RunUp::Unknown => self.end(SinkEvent::Unknown),
            RunUp::Finished(finished) if finished.log_length != self.received => {
                Err(SessionError::WrongLength { announced: finished.log_length, received: self.received })
            }
            RunUp::Finished(finished) => self.end(SinkEvent::Finished(finished)),
        }
    }

    /// The log is committed up to `offset`; returns the acknowledgement to send, if it says anything new.
    pub fn handle_committed(&mut self, offset: u64) -> Option<RunDown> {
        (offset > self.committed && offset <= self.received).then(|| {
            self.committed = offset;
            RunDown::Acknowledge { offset }
        })
    }

    /// The run's final state is committed; returns what lets the host clean up.
    #[must_use]
    pub const fn handle_result_committed(&self) -> RunDown {
        RunDown::Forget
    }

    /// Where the received log ends.
    #[must_use]
    pub const fn received(&self) -> u64 {
        self.received
    }

    fn handle_output(&mut self, offset: u64, mut bytes: Vec<u8>) -> Result<SinkEvent, SessionError> {
        if offset > self.received {
            return Err(SessionError::Gap { offset, expected: self.received });
        }
        let known = usize::try_from(self.received - offset).unwrap_or(usize::MAX);
        if known >= bytes.len() {
            return Ok(SinkEvent::Nothing);
        }
        bytes.drain(..known);
        let offset = self.received;
        self.received += bytes.len() as u64;
        Ok(SinkEvent::Output { offset, bytes })
    }

    const fn end(&mut self, event: SinkEvent) -> Result<SinkEvent, SessionError> {
        self.ended = true;
        Ok(event)
    }
}
