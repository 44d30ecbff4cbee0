//! The controller's end of one run's stream: takes each byte of the output log once, in order, and
//! acknowledges what was committed.

use bytes::{Buf as _, Bytes};

use super::SessionError;
use crate::message::{Finished, RunDown, RunUp};
use crate::output::Records;
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
    /// Records that continue the log exactly where the last ones ended. Always whole records, so that what is
    /// committed can be read from any point where a commit ended.
    Output {
        /// Where they begin.
        offset: u64,
        /// The records' bytes; never empty.
        bytes: Bytes,
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
    /// The beginning of a record whose end has not arrived; counted in `received`, not handed out.
    partial: Vec<u8>,
}

impl RunSink {
    /// A sink whose committed copy of the log ends at `offset`, the offset the stream is opened with: the end
    /// of a record, since only whole ones are handed out.
    #[must_use]
    pub const fn new(offset: u64) -> Self {
        Self { received: offset, committed: offset, ended: false, partial: Vec::new() }
    }

    /// Takes a message from the host.
    ///
    /// # Errors
    /// If it leaves a gap, is not a record log, comes after the end, or ends at another length than was
    /// received; the stream should be reset and opened again from the committed offset.
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
            RunUp::Finished(_) if !self.partial.is_empty() => {
                Err(SessionError::Damaged { offset: self.handed_out() })
            }
            RunUp::Finished(finished) => self.end(SinkEvent::Finished(finished)),
        }
    }

    /// The log is committed up to `offset`; returns the acknowledgement to send, if it says anything new.
    pub fn handle_committed(&mut self, offset: u64) -> Option<RunDown> {
        (offset > self.committed && offset <= self.handed_out()).then(|| {
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

    /// Whether the host has said its last word; nothing more is expected from it.
    #[must_use]
    pub const fn has_ended(&self) -> bool {
        self.ended
    }

    fn handle_output(&mut self, offset: u64, mut bytes: Bytes) -> Result<SinkEvent, SessionError> {
        let news = continuation(self.received, offset, &bytes)?.len();
        if news == 0 {
            return Ok(SinkEvent::Nothing);
        }
        bytes.advance(bytes.len() - news);
        self.received += bytes.len() as u64;
        let mut log = if self.partial.is_empty() {
            bytes
        } else {
            self.partial.extend_from_slice(&bytes);
            std::mem::take(&mut self.partial).into()
        };
        let offset = self.received - log.len() as u64;
        let mut records = Records::new(&log);
        for record in &mut records {
            record.map_err(|damaged| SessionError::Damaged { offset: offset + damaged.at as u64 })?;
        }
        let whole = records.consumed();
        // Copied, so that the half of a record does not keep the whole piece in memory.
        self.partial = log.split_off(whole).to_vec();
        Ok(if log.is_empty() { SinkEvent::Nothing } else { SinkEvent::Output { offset, bytes: log } })
    }

    /// Where the last record that was handed out ends.
    const fn handed_out(&self) -> u64 {
        self.received - self.partial.len() as u64
    }

    const fn end(&mut self, event: SinkEvent) -> Result<SinkEvent, SessionError> {
        self.ended = true;
        Ok(event)
    }
}

/// The part of a piece of output that continues a log of `length` bytes; empty if the log has all of it.
///
/// Whoever appends to the log must ask again against the length that is committed: pieces of a stream that was
/// cut off may still be queued when the stream that replaced it delivers the same bytes.
///
/// # Errors
/// [`SessionError::Gap`] if bytes are missing in between.
pub fn continuation(length: u64, offset: u64, bytes: &[u8]) -> Result<&[u8], SessionError> {
    let known = length.checked_sub(offset).ok_or(SessionError::Gap { offset, expected: length })?;
    let known = usize::try_from(known).unwrap_or(usize::MAX);
    Ok(bytes.get(known..).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::output::{MAX_RECORD, Record, Stream};

    fn log(payloads: &[Vec<u8>]) -> Vec<u8> {
        let mut log = Vec::new();
        for (index, payload) in payloads.iter().enumerate() {
            let stream = if index % 3 == 0 { Stream::Stderr } else { Stream::Stdout };
            Record { stream, at: Timestamp::from_millis(1), payload }.append_to(&mut log);
        }
        log
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]

        /// However the log is cut, repeated and interrupted on its way, whole records come out, each once.
        #[test]
        fn p16_whole_records_come_out_once_and_in_order(
            payloads in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..200), 0..20),
            cuts in prop::collection::vec((0usize..300, 0usize..40, prop::bool::weighted(0.1)), 0..60),
        ) {
            let log = log(&payloads);
            let mut sink = RunSink::new(0);
            let mut committed = Vec::new();
            let mut sent = 0;
            let rest = std::iter::once((log.len(), 0, false));
            for (length, repeated, breaks) in cuts.into_iter().chain(rest) {
                if breaks {
                    sink = RunSink::new(committed.len() as u64);
                    sent = committed.len();
                }
                let from = sent - repeated.min(sent);
                let to = (sent + length).min(log.len());
                let message = RunUp::Output { offset: from as u64, bytes: log[from..to].to_vec().into() };
                sent = sent.max(to);
                match sink.handle_message(message).unwrap() {
                    SinkEvent::Output { offset, bytes } => {
                        prop_assert_eq!(offset, committed.len() as u64);
                        let mut records = Records::new(&bytes);
                        prop_assert!(records.by_ref().all(|record| record.is_ok()));
                        prop_assert_eq!(records.consumed(), bytes.len());
                        committed.extend(bytes);
                        let end = committed.len() as u64;
                        prop_assert_eq!(sink.handle_committed(end), Some(RunDown::Acknowledge { offset: end }));
                    }
                    event => prop_assert_eq!(event, SinkEvent::Nothing),
                }
            }
            prop_assert_eq!(committed, log);
        }
    }

    #[test]
    fn what_is_no_log_is_refused_and_half_a_record_is_no_end() {
        let mut sink = RunSink::new(0);
        let noise = RunUp::Output { offset: 0, bytes: vec![0xff; 20].into() };
        assert_eq!(sink.handle_message(noise), Err(SessionError::Damaged { offset: 0 }));

        let mut sink = RunSink::new(0);
        let mut uncountable = log(&[vec![7; 30]]);
        let offset = uncountable.len() as u64;
        Record { stream: Stream::Dropped, at: Timestamp::from_millis(1), payload: b"many" }
            .append_to(&mut uncountable);
        let uncountable = RunUp::Output { offset: 0, bytes: uncountable.into() };
        assert_eq!(sink.handle_message(uncountable), Err(SessionError::Damaged { offset }));

        let mut sink = RunSink::new(0);
        let log = log(&[vec![7; MAX_RECORD]]);
        let half = RunUp::Output { offset: 0, bytes: log[..log.len() / 2].to_vec().into() };
        assert_eq!(sink.handle_message(half), Ok(SinkEvent::Nothing));
        assert_eq!(sink.handle_committed(1), None);
        let finished = Finished {
            outcome: crate::run::Outcome::Exited(0),
            at: Timestamp::from_millis(2),
            duration_ms: 1,
            log_length: (log.len() / 2) as u64,
            left: None,
        };
        assert_eq!(sink.handle_message(RunUp::Finished(finished)), Err(SessionError::Damaged { offset: 0 }));
    }
}
