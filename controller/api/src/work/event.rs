//! Server-sent events.
//!
//! `GET /operations/{id}/events` sends `operation`, `run` and `output` events and, after the operation's end,
//! one `end` event; then it closes. `id:` is the operation's `seq`, or within one commit of several pieces of
//! output `seq-n`; to a client it is opaque. One that reconnects with it as `Last-Event-ID` misses no output and
//! sees none twice. `operation` and `run` events carry the whole current object; states that came and went while
//! nobody listened are not replayed.
//!
//! `GET /events` sends `host` and `operation` events of the tenant, and `resync` when the listener was too
//! slow: load the lists again.

use fleetward_protocol::id::RunId;
use fleetward_protocol::name::HostName;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::time::Time;
use crate::work::run::OutputStream;

/// The data of an `output` event: some of what a run wrote.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct OutputEvent {
    /// The run.
    #[schema(value_type = String)]
    pub run: RunId,
    /// Its host.
    #[schema(value_type = String)]
    pub host: HostName,
    /// The pieces, in the order they were written.
    pub pieces: Vec<OutputPiece>,
}

/// One piece of output.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct OutputPiece {
    /// Where it came from; absent where bytes were dropped or a step is told.
    pub stream: Option<OutputStream>,
    /// When it was written, by the host's clock.
    pub at: Time,
    /// The text, when the bytes are valid UTF-8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// The bytes in base64, when they are not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base64: Option<String>,
    /// How many bytes the output limit, or a full disk, dropped here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dropped: Option<u64>,
    /// What a typed action told of one of its steps here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<StepEvent>,
}

/// A step of a typed action began, got on, or ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct StepEvent {
    /// Which step.
    #[schema(example = "restart")]
    pub step: String,
    /// How far it has come.
    pub state: StepState,
    /// How much of it is done, from 0 to 100, where that can be told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(maximum = 100)]
    pub percent: Option<u8>,
    /// What there is to say of it.
    pub words: String,
}

/// How far a step has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum StepState {
    /// It begins.
    Began,
    /// It goes on.
    Going,
    /// It is done, and something was changed by it or learned.
    Done,
    /// There was nothing to do.
    Unchanged,
    /// It failed.
    Failed,
    /// What it had changed was put back.
    Undone,
}
