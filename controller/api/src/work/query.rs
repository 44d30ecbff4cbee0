//! Queries: looking at something on hosts, now.

use fleetward_protocol::name::HostName;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;

/// `POST /queries`. The answer is a stream of server-sent events: `item` (data: [`QueryItem`]), `host` (data:
/// [`QueryHost`]) and at last `end` (data: [`QueryEnd`]).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct QueryCreate {
    /// The kind of query.
    #[schema(example = "units")]
    pub kind: String,
    /// Its parameters, as `GET /kinds` describes them.
    #[serde(default)]
    #[schema(value_type = Object)]
    pub params: Map<String, Value>,
    /// Where: a target expression. Hosts that are not connected do not answer.
    pub on: String,
    /// Whether hosts among them that are not enrolled are left out; when not, one of them is a refusal.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub skip_not_enrolled: bool,
    /// Whether hosts go on to tell what changes, until the request is closed; only for kinds that can.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub follow: bool,
}

/// The data of an `item` event: one thing that a host has, as it is now.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct QueryItem {
    /// The host.
    #[schema(value_type = String)]
    pub host: HostName,
    /// What it is called there; a later item with the same key takes the place of this one.
    pub key: String,
    /// What it is; absent when the host does not have it any more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub item: Option<Map<String, Value>>,
}

/// The data of a `host` event: how far a host has come with its answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct QueryHost {
    /// The host.
    #[schema(value_type = String)]
    pub host: HostName,
    /// How far.
    pub state: QueryState,
    /// Why it did not answer, or not completely, and what to do next.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}

/// How far a host has come with its answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum QueryState {
    /// All items there are now have been told; what follows are changes.
    Complete,
    /// The answer has ended as it should.
    Ended,
    /// The host is not connected.
    Offline,
    /// The host would not answer.
    Refused,
    /// The answer broke off.
    Failed,
}

/// The data of the `end` event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct QueryEnd {
    /// How many hosts were asked, or should have been.
    pub hosts: u32,
    /// How many were left out because they are not enrolled.
    #[serde(default)]
    pub left_out: u32,
    /// How many of them told all there was, and did not break off later.
    pub answered: u32,
    /// Why it ended before all hosts did; absent when it did not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cut: Option<QueryCut>,
    /// The same in words, and what to do next.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}

/// Why a query ended before its hosts did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum QueryCut {
    /// It lasted as long as one may.
    Limit,
    /// Nobody took what was told.
    Unread,
}
