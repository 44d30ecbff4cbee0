//! Target expressions: previewing what an operation would run on.

use fleetward_protocol::name::{HostName, ScriptName};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::host::{Enrolment, Status};

/// `POST /targets/preview`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TargetPreviewRequest {
    /// The expression, such as `tag:prod & !web-9`.
    pub on: String,
    /// The scripts that would run; checked too when given.
    #[serde(default)]
    #[schema(value_type = Vec<String>)]
    pub scripts: Vec<ScriptName>,
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
