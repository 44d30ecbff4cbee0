//! Target expressions: previewing what an operation would run on.

use std::collections::BTreeMap;

use fleetward_protocol::name::{HostName, LinuxUser};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::fleet::host::{Enrolment, Status};
use crate::work::operation::{ScriptCall, StepCall};

/// `POST /targets/preview`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct TargetPreviewRequest {
    /// The expression, such as `tag:prod & !web-9`.
    pub on: String,
    /// What would be done; checked as for the operation when given.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub steps: Vec<StepCall>,
    /// Which scripts would run; checked as for the operation when given, with what follows.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub scripts: Vec<ScriptCall>,
    /// The environment of every run.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub environment: BTreeMap<String, String>,
    /// Working directory of every run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub directory: Option<String>,
    /// As whom every run would run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub user: Option<LinuxUser>,
}

/// The hosts an expression selects now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TargetPreview {
    /// All of them, by name.
    pub hosts: Vec<Target>,
    /// How many are online.
    pub online: u32,
    /// How many may not be run on, because they are not enrolled.
    pub not_enrolled: u32,
    /// What each step would be about, in the order in which they were asked for; empty without steps. Nothing in it is
    /// secret: parameters are not shown.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub subjects: Vec<String>,
}

/// One selected host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Target {
    /// Its name.
    #[schema(value_type = String)]
    pub name: HostName,
    /// Whether it would start at once or wait.
    pub status: Status,
    /// Whether it may be run on.
    pub enrolment: Enrolment,
}
