//! Runs: one step on one host.

use fleetward_protocol::digest::Digest;
use fleetward_protocol::id::{OperationId, RunId};
use fleetward_protocol::name::HostName;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::{IntoParams, ToSchema};

use crate::time::Time;

/// A run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Run {
    /// Its id.
    #[schema(value_type = String)]
    pub id: RunId,
    /// Its operation.
    #[schema(value_type = String)]
    pub operation: OperationId,
    /// Its host.
    #[schema(value_type = String)]
    pub host: HostName,
    /// Which of the operation's steps it is, from 0.
    pub step: u32,
    /// The kind of action.
    #[schema(example = "unit")]
    pub kind: String,
    /// What it is about, in a few words: a script's name, `restart nginx.service`.
    pub subject: String,
    /// SHA-256 of kind and parameters as they are shown: the same work has the same digest.
    #[schema(value_type = String)]
    pub digest: Digest,
    /// Where it stands.
    pub state: RunState,
    /// Where it stands, in words a person understands: `waiting for host`, `exit code 3`, `host was rebooted`.
    pub state_detail: Option<String>,
    /// The exit code, if it ended by itself.
    pub exit_code: Option<i32>,
    /// The signal that ended it.
    pub signal: Option<i32>,
    /// When it was dispatched.
    pub dispatched_at: Option<Time>,
    /// When it started, by the controller's clock.
    pub started_at: Option<Time>,
    /// When it ended, by the controller's clock.
    pub ended_at: Option<Time>,
    /// How long it took, by the host's clock, in milliseconds.
    pub duration_ms: Option<u64>,
    /// What its process left running, if that held its output open after the process's own end.
    pub left: Option<Left>,
    /// What a typed action told when it ended, as `GET /kinds` describes it; absent until then, and of kinds that tell
    /// nothing. The lines of files in it (`diff` of a dry run's changes) are output: they are left out for who may not read that.
    #[schema(value_type = Option<Object>)]
    pub report: Option<Map<String, Value>>,
    /// Bytes of output kept, both streams together, as the run wrote them.
    pub output_bytes: u64,
    /// Bytes of output dropped by its output limit or for want of room on its host.
    pub output_dropped: u64,
    /// How often the host's connection was lost and the run's stream attached again.
    pub reattached: u32,
    /// The operation's `seq` of its latest change.
    pub seq: u64,
}

/// Processes that held a run's output open after its process's own end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Left {
    /// How many there were when the wait for them ended, or when they were stopped. 0 if nobody knows: they need not
    /// belong to the run.
    pub processes: u32,
    /// From the process's own end to the run's end, by the host's clock, in milliseconds.
    pub held_ms: u64,
    /// What became of them.
    pub fate: Fate,
}

/// What became of processes that held a run's output open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Fate {
    /// They let go of it by themselves. All of it is kept.
    LetGo,
    /// They go on. What they write is read, and no longer kept.
    Unkept,
    /// They go on, and nobody reads what they write: most programs end when they write again.
    CutOff,
    /// They were stopped on request.
    Stopped,
    /// They were killed and did not end in time.
    Unstoppable,
}

/// Where a run stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum RunState {
    /// Planned; not sent to its host.
    Queued,
    /// Sent; the host has not said that it has it.
    Dispatched,
    /// In the host's journal; it will start at most once.
    Accepted,
    /// Started.
    Running,
    /// Ended with exit code 0.
    Succeeded,
    /// Ended with another exit code or by a signal.
    Failed,
    /// Stopped at its time limit.
    TimedOut,
    /// Stopped, or never started, on request.
    Cancelled,
    /// The host would not start it.
    Refused,
    /// The deadline passed before it could start.
    Expired,
    /// The host cannot know how it ended.
    Lost,
}

/// `GET /operations/{id}/runs`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct RunQuery {
    /// Only runs in this state.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[param(inline)]
    pub state: Option<RunState>,
    /// Only runs on this host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// Rows at most: 1 to 1000, 100 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
    /// `next_cursor` of the page before. Ordered by host, then step.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
}

/// `GET /runs/{id}/output`: raw bytes, streamed.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct OutputQuery {
    /// Only this stream; both, in the order they were written, when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[param(inline)]
    pub stream: Option<OutputStream>,
}

/// Where output came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum OutputStream {
    /// File descriptor 1.
    Stdout,
    /// File descriptor 2.
    Stderr,
}
