//! Audit events: everything that changed something, and everything that was refused.

use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::time::Time;

/// One event. Events form a hash chain per controller.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct AuditEvent {
    /// Its place in the chain, from 1.
    pub seq: u64,
    /// When.
    pub at: Time,
    /// Who: a user name, `host:<name>`, or `system`.
    pub actor: String,
    /// What, such as `host.enrolled` or `login.refused`.
    pub action: String,
    /// To what: a host, an operation, a user.
    pub subject: Option<String>,
    /// From where: an address.
    pub remote: Option<String>,
    /// Particulars.
    #[serde(default)]
    pub details: serde_json::Map<String, serde_json::Value>,
    /// SHA-256 over the event before and this one, in hexadecimal.
    pub hash: String,
}

/// `GET /audit`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct AuditQuery {
    /// Only events of this action, or, where it ends in a dot, of those that begin with it: `host.`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub action: Option<String>,
    /// Only events of this actor.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub actor: Option<String>,
    /// Only events about this subject.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    /// Only events at or after this time (RFC 3339).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[param(value_type = Option<String>)]
    pub from: Option<Time>,
    /// Only events before this time (RFC 3339).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[param(value_type = Option<String>)]
    pub to: Option<Time>,
    /// Rows at most: 1 to 1000, 100 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
    /// `next_cursor` of the page before. The newest event comes first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
}
