//! Operations: one request to do something on hosts.

use std::collections::BTreeMap;

use fleetward_protocol::digest::Digest;
use fleetward_protocol::id::OperationId;
use fleetward_protocol::name::{LinuxUser, ScriptName, UserName};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::{IntoParams, ToSchema};

use crate::time::Time;
use crate::work::run::RunState;

/// `POST /operations`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct OperationCreate {
    /// The operation's id, made by the client: a UUID of version 7, of now. Whoever sends the same request again with the
    /// same id gets the same operation, whatever became of the first answer; nothing runs twice. One is made when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub id: Option<OperationId>,
    /// The plan that is submitted, as `POST /plans` gave it: Base64. Then exactly what was planned is done, or nothing: if
    /// hosts, scripts or settings have changed since, the request is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plan: Option<String>,
    /// What is done on each host, in this order: actions of any kind that `GET /kinds` lists.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub steps: Vec<StepCall>,
    /// Scripts to run on each host, in this order: short for steps of the kind `script`, each with the environment,
    /// directory and user below. Either these or `steps`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub scripts: Vec<ScriptCall>,
    /// Where: a target expression.
    pub on: String,
    /// Whether hosts among them that are not enrolled are left out; when not, one of them is a refusal. Hosts that
    /// are only offline stay.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub skip_not_enrolled: bool,
    /// Whether each host only tells what it would change, as its run's report: `changes`, none where all is as wanted. For
    /// kinds with `dry_run`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub dry_run: bool,
    /// How.
    #[serde(default)]
    pub rollout: Rollout,
    /// Environment for each of `scripts`. Every one has to declare each variable; others take the permission
    /// `override`, and what shells and loaders take as code is never taken.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub environment: BTreeMap<String, String>,
    /// Working directory of each of `scripts`; the user's home when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub directory: Option<String>,
    /// As whom each of `scripts` runs; the script's own user when absent. Every script has to declare it among its
    /// `users`; others take the permission `override`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub user: Option<LinuxUser>,
    /// Why; shown in history and audit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// One step: an action and its parameters.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct StepCall {
    /// The kind of action.
    #[schema(example = "unit")]
    pub kind: String,
    /// Its parameters, as `GET /kinds` describes them.
    #[serde(default)]
    #[schema(value_type = Object)]
    pub params: Map<String, Value>,
}

/// One script and its arguments.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ScriptCall {
    /// Its id.
    #[schema(value_type = String)]
    pub name: ScriptName,
    /// Its arguments; never joined, never interpreted.
    #[serde(default)]
    pub arguments: Vec<String>,
}

/// How an operation spreads over its hosts. Absent fields take the controller's defaults.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
pub struct Rollout {
    /// Hosts at the same time; 50 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, maximum = 10000)]
    pub concurrency: Option<u32>,
    /// Hosts per batch, as a count (`10`) or a share (`25%`), at least `1` or `1%`; a batch ends before the next begins. All at once when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(example = "25%")]
    pub batch: Option<String>,
    /// Hosts that run first and must all succeed, as a count or a share, at least `1` or `1%`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(example = "1")]
    pub canary: Option<String>,
    /// How many hosts may fail, as a count or a share rounded down; when one more has failed, nothing more is started.
    /// `0` stops at the first failure. Hosts that are under way then go on, and may fail too. All may fail when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(example = "3")]
    pub max_failures: Option<String>,
    /// Seconds each run may take; what its script or its kind says when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_s: Option<u32>,
    /// Seconds from now after which nothing more is started; 86400 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline_s: Option<u32>,
    /// What to do with hosts that are offline; `wait` when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub offline: Option<Offline>,
    /// Whether a host goes on with its next step after one failed; no when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub continue_on_failure: Option<bool>,
}

/// What to do with hosts that are offline.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Offline {
    /// Start when they return, until the deadline.
    Wait,
    /// Leave them out.
    Skip,
}

/// An operation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Operation {
    /// Its id.
    #[schema(value_type = String)]
    pub id: OperationId,
    /// Its number in the tenant, as people say it: `OP-17`. Accepted wherever the id is.
    #[schema(example = "OP-17")]
    pub number: String,
    /// What each host does, in this order.
    pub steps: Vec<OperationStep>,
    /// Where, as it was asked.
    pub on: String,
    /// How many of those hosts were left out because they were not enrolled.
    pub left_out: u32,
    /// Whether its hosts only tell what they would change.
    #[serde(default)]
    pub dry_run: bool,
    /// How, with defaults filled in.
    pub rollout: Rollout,
    /// Where it stands.
    pub status: OperationStatus,
    /// Why it stands there, in words, where that is not plain: too many hosts failed, runs wait for their turn.
    pub status_detail: Option<String>,
    /// Its runs by state.
    pub counts: Vec<StateCount>,
    /// Its hosts.
    pub hosts: u32,
    /// Who asked.
    #[schema(value_type = String)]
    pub created_by: UserName,
    /// Why.
    pub reason: Option<String>,
    /// When it was asked.
    pub created_at: Time,
    /// When its first run was dispatched.
    pub started_at: Option<Time>,
    /// When its last run ended.
    pub ended_at: Option<Time>,
    /// Nothing is started after this.
    pub deadline: Time,
    /// Counts up with every change; the id of the operation's latest event.
    pub seq: u64,
}

/// A step as an operation carries it out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct OperationStep {
    /// The kind of action, such as `script`.
    #[schema(example = "unit")]
    pub kind: String,
    /// What it is about, in a few words.
    #[schema(example = "restart nginx.service")]
    pub subject: String,
    /// SHA-256 of kind and parameters as they are shown: the same work has the same digest.
    #[schema(value_type = String)]
    pub digest: Digest,
    /// Its parameters as they were decided. In the place of what may be a secret, or is long, stands an object with a
    /// `digest`: the same value has the same digest, and nobody can guess it from that.
    #[schema(value_type = Object)]
    pub params: Map<String, Value>,
}

/// How many runs are in a state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct StateCount {
    /// The state.
    pub state: RunState,
    /// How many.
    pub count: u32,
}

/// Where an operation stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum OperationStatus {
    /// No run has been dispatched.
    Queued,
    /// Some run has not ended.
    Running,
    /// Every run succeeded.
    Success,
    /// No run succeeded.
    Failed,
    /// Some runs succeeded.
    Partial,
    /// A person stopped it.
    Stopped,
}

/// `GET /operations`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct OperationQuery {
    /// Only operations in this status.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[param(inline)]
    pub status: Option<OperationStatus>,
    /// Only operations with a step of this kind.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// Only operations with a step in whose subject this is found, in any case: `nginx` finds `restart nginx.service`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    /// Only operations with a run on this host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// Only operations created at or after this time (RFC 3339).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[param(value_type = Option<String>)]
    pub from: Option<Time>,
    /// Only operations created before this time (RFC 3339).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[param(value_type = Option<String>)]
    pub to: Option<Time>,
    /// Rows at most: 1 to 1000, 100 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
    /// `next_cursor` of the page before. The newest operation comes first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
}
