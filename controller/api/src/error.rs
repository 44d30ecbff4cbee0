//! Errors: one shape for every failed request.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::time::Time;

/// The body of every answer with a status of 400 or above.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ErrorBody {
    /// What failed and what to do next, for a person.
    #[schema(example = "host `web-9` is not enrolled; run `fleetward host token web-9` and enrol it")]
    pub error: String,
    /// What failed, for a program. Never renamed.
    #[schema(example = "HOST_NOT_ENROLLED")]
    pub code: String,
    /// What the code is about: names, fields, positions.
    #[serde(default)]
    pub details: serde_json::Map<String, serde_json::Value>,
    /// When, by the controller's clock.
    pub timestamp: Time,
}
