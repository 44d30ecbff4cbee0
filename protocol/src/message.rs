//! Every message of an enrolled agent's connection. All enums here are append-only.
//!
//! The agent opens the *control stream*, a bidirectional stream, first: [`AgentMessage`] up,
//! [`ControllerMessage`] down. Everything else is a bidirectional stream that the controller opens and whose
//! first frame is a [`StreamKind`]; a kind the agent does not know is reset with
//! [`close::UNSUPPORTED`](crate::wire::close::UNSUPPORTED). On a run's stream [`RunDown`] goes down and
//! [`RunUp`] up; its first message is [`RunDown::Open`]. On a query's stream [`OpenQuery`] goes down, once, and [`QueryUp`]
//! up; the query lasts as long as the controller does not end its direction.
//!
//! Identity is never in a message: it is the client certificate's.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

use crate::digest::Digest;
use crate::facts::{Facts, Upkeep};
use crate::id::{BootId, JournalId, RunId};
use crate::order::MAX_CONTENTS;
use crate::query::{Key, MAX_ITEM};
use crate::run::{CancelCause, Left, Outcome, Refusal};
use crate::text::{Line, List, Text, Word};
use crate::time::Timestamp;
use crate::wire::{self, DecodeError, EncodeError};

/// The most runs a [`Hello`] names; an agent that holds more names the oldest.
pub const MAX_HELD: usize = 8192;
/// The most kinds that a [`Hello`] names.
pub const MAX_KINDS: usize = 128;
/// The most features that either end names.
pub const MAX_FEATURES: usize = 64;
/// The most controllers that a host is told of.
pub const MAX_CONTROLLERS: usize = 16;
/// The most items in one message.
pub const MAX_ITEMS: usize = 256;
/// The feature of those who can be sent from one controller to another: [`ControllerMessage::Controllers`] and
/// [`ControllerMessage::Move`].
pub const MOVE: &str = "move";
/// The feature of those who tell, and take, what a host needs: [`AgentMessage::Upkeep`].
pub const UPKEEP: &str = "upkeep";
/// The features that this build offers. What both ends name may be used: so a message that can get no more fields has a
/// successor.
pub const FEATURES: &[&str] = &[MOVE, UPKEEP];

/// From the agent, on the control stream.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum AgentMessage {
    /// The first message.
    Hello(Hello),
    /// "Still here"; answered by [`ControllerMessage::Heartbeat`] with the same number.
    Heartbeat {
        /// Counts up from 1.
        seq: u64,
        /// The host's clock, to notice skew.
        clock: Timestamp,
    },
    /// What is true of the host; sent after the welcome and whenever it changed.
    Facts(Box<Facts>),
    /// Asks for a new certificate for the same identity.
    Renew {
        /// PKCS#10, DER.
        #[serde(with = "serde_bytes")]
        csr: Vec<u8>,
    },
    /// Something an operator should know: an orphan found at start, a spool that could not be read.
    Notice {
        /// One paragraph of plain text.
        text: Line,
    },
    /// The agent stops on purpose (restart, upgrade, shutdown). Runs go on.
    Goodbye,
    /// What the host needs; sent after the welcome and whenever it changed, to those who have the feature `upkeep`.
    Upkeep(Upkeep),
}

/// The agent's first message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// The agent's package version.
    pub agent_version: Word,
    /// This boot of the host.
    pub boot: BootId,
    /// This life of the host's journal.
    pub journal: JournalId,
    /// The kinds of action and of query that this agent knows.
    pub kinds: List<Word, MAX_KINDS>,
    /// What this agent can do beyond the first release, by name.
    pub features: List<Word, MAX_FEATURES>,
    /// Runs the journal holds.
    pub held: List<RunId, MAX_HELD>,
    /// The digest of what is true of the host now ([`Facts::digest`]).
    pub facts: Digest,
    /// The host's clock.
    pub clock: Timestamp,
}

/// From the controller, on the control stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ControllerMessage {
    /// The answer to a hello: the session is established.
    Welcome(Welcome),
    /// The answer to a heartbeat.
    Heartbeat {
        /// The number of the heartbeat it answers.
        seq: u64,
    },
    /// These runs are known and finished here: their output and result are committed.
    Forget {
        /// The runs to clean up.
        runs: List<RunId, MAX_HELD>,
    },
    /// The answer to [`AgentMessage::Renew`].
    Renewed {
        /// The new certificate first, then its issuer; DER.
        chain: Vec<serde_bytes::ByteBuf>,
    },
    /// A renewal that was not granted.
    RenewRefused {
        /// Why, for the host's log.
        reason: Line,
    },
    /// The controllers of this fleet, as HOST:PORT, in no order; for hosts whose owner names none. To those that have the
    /// feature `move`.
    Controllers {
        /// Where they listen.
        addresses: List<Word, MAX_CONTROLLERS>,
    },
    /// Asks the agent to leave, and to connect to another controller of its list if there is one. To those that have the
    /// feature `move`.
    Move,
}

/// The controller's first message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Welcome {
    /// The controller's package version.
    pub controller_version: Word,
    /// The controller's clock.
    pub clock: Timestamp,
    /// How often the agent sends a heartbeat, in milliseconds.
    pub heartbeat_ms: u32,
    /// Silence after which either end gives the connection up, in milliseconds.
    pub silence_ms: u32,
    /// Whether the host waits for approval: it may connect, and nothing is dispatched to it.
    pub quarantined: bool,
    /// What this controller can do beyond the first release, by name.
    pub features: List<Word, MAX_FEATURES>,
    /// Whether the controller holds the facts that the hello's digest is of: they need not be sent.
    pub facts_known: bool,
    /// For how long the host keeps a run that was committed and may be forgotten, in seconds: a controller that loses its
    /// last commits, or is restored from a backup, asks for it again. The host's owner may say otherwise.
    pub keep_s: u32,
}

/// What a stream opened by the controller carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum StreamKind {
    /// One run: [`RunDown`] and [`RunUp`].
    Run,
    /// Asks what the host's client-ID file says now. Nothing more goes down; one [`ClientIdReport`] comes up.
    ClientId,
    /// One query: [`OpenQuery`] and [`QueryUp`].
    Query,
}

/// The answer to [`StreamKind::ClientId`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ClientIdReport {
    /// The file's first line, without surrounding white space; it need not be a client ID.
    Found(Text<MAX_CLIENT_ID_LINE>),
    /// There is no such file.
    Missing,
    /// The file could not be read.
    Unreadable {
        /// The operating system's reason.
        detail: Line,
    },
}

/// The most bytes of a client-ID file that a [`ClientIdReport`] carries.
pub const MAX_CLIENT_ID_LINE: usize = 256;

/// From the controller, on a run's stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum RunDown {
    /// The first message.
    Open(OpenRun),
    /// Everything before this offset of the run's output log is committed; the host may drop it.
    Acknowledge {
        /// Bytes from the start of the log.
        offset: u64,
    },
    /// Stop the run's whole process tree, or do not start it.
    Cancel {
        /// On whose behalf.
        cause: CancelCause,
    },
    /// The result is committed; the host may drop everything about the run.
    Forget,
}

/// Opens a run's stream: a dispatch, or the continuation of one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenRun {
    /// The run.
    pub run: RunId,
    /// Where the controller's committed copy of the output log ends.
    pub offset: u64,
    /// Whether the controller knows that the run was started. A journal that holds it as not started is older than that
    /// (a snapshot, a backup): the run is not started from it, and is answered by [`RunUp::Unknown`].
    pub started: bool,
    /// That the run should stop, if that is known by now. The host obeys it before anything else: a run that it has not
    /// started is not started, whether it comes with a dispatch or is known already.
    pub cancel: Option<CancelCause>,
    /// Present while the controller has no proof that the host accepted the run. A journal that knows the run
    /// answers from what it knows and ignores this; one that does not starts it. Absent, an unknown run is
    /// answered by [`RunUp::Unknown`].
    pub dispatch: Option<Dispatch>,
}

/// What is needed to start a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dispatch {
    /// The bytes of an [order](crate::order::Order::open).
    #[serde(with = "serde_bytes")]
    pub order: Vec<u8>,
    /// The contents that the order names by digest, in its order.
    pub contents: List<ByteBuf, MAX_CONTENTS>,
    /// Time left until the order's deadline by the controller's clock, in milliseconds: hosts' clocks differ.
    pub remaining_ms: u64,
}

/// From the agent, on a run's stream. `Accepted`, `Started` and `Finished` (or `Refused`, or `Unknown`) come
/// in this order, each at most once per stream, and are repeated on a new stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum RunUp {
    /// The run is durably in the journal; it will start at most once.
    Accepted,
    /// It will not start, and nothing was executed. Final.
    Refused(Refusal),
    /// It is durably marked as started.
    Started {
        /// The host's clock.
        at: Timestamp,
    },
    /// A piece of the output log.
    Output {
        /// Where the piece begins in the log.
        offset: u64,
        /// Bytes of the log ([`crate::output`]), [`MAX_OUTPUT_PIECE`](crate::wire::MAX_OUTPUT_PIECE) at most.
        bytes: Bytes,
    },
    /// It ended. Comes after the last piece of output. Final.
    Finished(Finished),
    /// The journal does not know the run. Final.
    Unknown,
}

/// What stands before the bytes in the body of a [`RunUp::Output`]: the variant, the offset, the length.
const OUTPUT_HEAD: usize = size_of::<u32>() + 2 * size_of::<u64>();

impl RunUp {
    /// The frame of an [`Output`](Self::Output) without its bytes: exactly `length` of them have to follow. For
    /// whoever can read them right behind it, instead of copying them from one place to the next.
    ///
    /// # Errors
    /// If the frame would exceed `cap` bytes.
    pub fn output_frame(offset: u64, length: usize, cap: usize) -> Result<Vec<u8>, EncodeError> {
        let mut frame = wire::frame(&Self::Output { offset, bytes: Bytes::new() }, cap)?;
        let size = frame.len() - size_of::<u32>() + length;
        let announced = u32::try_from(size).ok().filter(|_| size <= cap);
        let announced = announced.ok_or(EncodeError::TooLong { size, cap })?;
        frame[..size_of::<u32>()].copy_from_slice(&announced.to_le_bytes());
        // The length of the bytes is the last thing before them.
        let at = frame.len() - size_of::<u64>();
        frame[at..].copy_from_slice(&(length as u64).to_le_bytes());
        Ok(frame)
    }

    /// The message whose body is exactly `body`, as [`wire::decode`] has it; but a piece of output stays where it is
    /// instead of being copied.
    ///
    /// # Errors
    /// As [`wire::decode`].
    pub fn decode(body: Bytes, cap: usize) -> Result<Self, DecodeError> {
        match Self::split_output(&body, cap) {
            Some(offset) => Ok(Self::Output { offset, bytes: body.slice(OUTPUT_HEAD..) }),
            None => wire::decode(&body, cap),
        }
    }

    /// The offset of a piece of output that fills the rest of its body.
    fn split_output(body: &[u8], cap: usize) -> Option<u64> {
        let mut head: [u8; OUTPUT_HEAD] = *body.first_chunk().filter(|_| body.len() <= cap)?;
        let length = head.last_chunk_mut::<{ size_of::<u64>() }>()?;
        if u64::from_le_bytes(*length) != (body.len() - OUTPUT_HEAD) as u64 {
            return None;
        }
        *length = [0; size_of::<u64>()];
        // Without its bytes it is a whole message too.
        match wire::decode(&head, cap) {
            Ok(Self::Output { offset, .. }) => Some(offset),
            _ => None,
        }
    }
}

/// The first and only message from the controller on a query's stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenQuery {
    /// The bytes of an [order](crate::order::Order::open) whose authority is a query.
    #[serde(with = "serde_bytes")]
    pub order: Vec<u8>,
    /// Time left until the order's deadline by the controller's clock, in milliseconds.
    pub remaining_ms: u64,
    /// Whether to go on after [`QueryUp::Complete`], and tell what changes.
    pub follow: bool,
}

/// From the agent, on a query's stream. Items come until [`Complete`](Self::Complete); after it, of a query that follows,
/// what changes. One of `Refused`, `Failed` and `Ended` is the last.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum QueryUp {
    /// It will not be answered. Final, and the first.
    Refused(Refusal),
    /// What the host has.
    Items(List<QueryItem, MAX_ITEMS>),
    /// What the host has no more, or what is no longer meant.
    Gone(List<Key, MAX_ITEMS>),
    /// All that there is now was told.
    Complete,
    /// The answer breaks off. Final.
    Failed {
        /// Why, and what to do about it.
        detail: Line,
    },
    /// The answer is whole. Final.
    Ended,
}

/// One thing that a host has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueryItem {
    /// What it is called; it takes the place of an earlier item of that name.
    pub key: Key,
    /// What it is: a JSON object ([`read_item`](crate::query::read_item)).
    pub item: Text<MAX_ITEM>,
}

/// How a run ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finished {
    /// What happened.
    pub outcome: Outcome,
    /// The host's clock at the end.
    pub at: Timestamp,
    /// From the script's start to its own end on the host's monotonic clock, in milliseconds. Of a run that goes on behind a restart of
    /// its host, what passed before that is told by the host's other clock.
    pub duration_ms: u64,
    /// The length of the whole output log, in bytes.
    pub log_length: u64,
    /// What the script left running, if its own end was not the end of its output.
    pub left: Option<Left>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_of_output_can_be_written_in_two_parts() {
        for bytes in [vec![], vec![7; 5], vec![9; 70_000]] {
            let mut frame = RunUp::output_frame(1 << 40, bytes.len(), 80_000).unwrap();
            frame.extend_from_slice(&bytes);
            let message = RunUp::Output { offset: 1 << 40, bytes: bytes.into() };
            assert_eq!(frame, wire::frame(&message, 80_000).unwrap());
        }
        assert!(matches!(
            RunUp::output_frame(0, 100, 100),
            Err(EncodeError::TooLong { size: 120, cap: 100 })
        ));
    }
}
