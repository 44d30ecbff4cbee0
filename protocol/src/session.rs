//! The session as sans-IO machines: bytes and time come in, messages and events go out.
//!
//! [`AgentSession`] and [`ControllerSession`] speak the control stream: hello, welcome, heartbeats, silence.
//! [`RunSource`] (on the host) and [`RunSink`] (on the controller) speak one run's stream: offsets, resume,
//! acknowledgements, result. A connection's end is the end of all its machines; what must survive it is in the
//! host's journal and spool and in the controller's store, from which new machines are made.
//!
//! Vocabulary, after quinn-proto: `handle_*` takes what came from the network, the disk or the clock;
//! `poll_*` gives what to send, or when to wake.
//!
//! Deliberately absent: clocks, sockets, storage. Time is [`Monotonic`], given by the caller.

mod agent;
mod controller;
mod sink;
mod source;

pub use agent::{AgentEvent, AgentSession};
pub use controller::{ControllerEvent, ControllerSession};
pub use sink::{RunSink, SinkEvent, continuation};
pub use source::{RunSource, SourceEvent, SourceTransmit};

use std::time::Duration;

/// Time since a start of the caller's choosing, on a clock that never steps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Monotonic(pub Duration);

impl std::ops::Add<Duration> for Monotonic {
    type Output = Self;

    fn add(self, span: Duration) -> Self {
        Self(self.0.saturating_add(span))
    }
}

/// How long an agent waits for the welcome, and a controller for the hello.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// The peer did something the protocol does not allow, or nothing for too long.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SessionError {
    /// A message that may not come in this state.
    #[error("unexpected {message} {state}")]
    Unexpected {
        /// What came.
        message: &'static str,
        /// When.
        state: &'static str,
    },
    /// A piece of output that does not continue what is known.
    #[error("output at offset {offset} leaves a gap after {expected}")]
    Gap {
        /// Where the piece begins.
        offset: u64,
        /// Where it should begin at the latest.
        expected: u64,
    },
    /// The result says another length than the output had.
    #[error("the result announces {announced} bytes of output, but {received} were received")]
    WrongLength {
        /// By the result.
        announced: u64,
        /// In fact.
        received: u64,
    },
    /// Output that is not a record log.
    #[error("the output log is damaged at offset {offset}")]
    Damaged {
        /// Where the damaged record begins.
        offset: u64,
    },
    /// An offset beyond what was ever sent or received.
    #[error("offset {offset} lies beyond the end of the output at {end}")]
    BeyondEnd {
        /// The offset.
        offset: u64,
        /// The end.
        end: u64,
    },
    /// The peer was silent for too long.
    #[error("nothing was heard for {} s", .0.as_secs())]
    Silent(Duration),
}
