//! The order: the canonical bytes that describe a run's authority.
//!
//! What, where, and until when. The bytes an agent receives are the bytes that were made when the run was
//! planned, so that a signature over them means the same thing on both ends. [`Order::encode`] is the only way
//! to make them and [`Order::decode`] the only way to read them.

use serde::{Deserialize, Serialize};

use crate::action::ActionRequest;
use crate::client_id::ClientId;
use crate::id::{OperationId, RunId};
use crate::time::Timestamp;
use crate::wire::{self, DecodeError, EncodeError};

/// The largest encoded order, in bytes.
pub const MAX_ORDER: usize = 1 << 20;

/// A run's authority.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Order {
    /// The run this order is for; it starts at most once.
    pub run: RunId,
    /// The operation it belongs to.
    pub operation: OperationId,
    /// The only host that may carry it out.
    pub client: ClientId,
    /// What to do.
    pub action: ActionRequest,
    /// Not started after this.
    pub deadline: Timestamp,
    /// What it may use.
    pub limits: Limits,
}

/// What a run may use on its host. Zero means no limit of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Wall-clock time from start until its process tree is stopped, in milliseconds. Never zero.
    pub timeout_ms: u64,
    /// Time between SIGTERM and SIGKILL, in milliseconds.
    pub grace_ms: u64,
    /// Output kept, in bytes of both streams together; above it the middle is dropped and marked.
    pub output: u64,
    /// Memory, in bytes.
    pub memory: u64,
    /// CPU, in thousandths of one core.
    pub cpu_milli: u32,
    /// Processes and threads.
    pub tasks: u32,
}

impl Limits {
    /// The limits when a request names none: five minutes, ten seconds of grace, 4 GiB of output.
    pub const DEFAULT: Self =
        Self { timeout_ms: 300_000, grace_ms: 10_000, output: 4 << 30, memory: 0, cpu_milli: 0, tasks: 0 };
}

impl Order {
    /// The canonical bytes.
    ///
    /// # Errors
    /// If they would exceed [`MAX_ORDER`].
    pub fn encode(&self) -> Result<Vec<u8>, EncodeError> {
        wire::encode(self, MAX_ORDER)
    }

    /// Reads the canonical bytes back.
    ///
    /// # Errors
    /// If they are over-long, truncated, followed by anything, or not an order.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        wire::decode(bytes, MAX_ORDER)
    }
}
