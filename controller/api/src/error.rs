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

/// The codes that clients of this project act on. Those of both sides are these, so that neither looks for one that the other
/// never sends.
pub mod code {
    /// There is an operation with this id already, and it is another one or somebody else's (409).
    pub const ID_TAKEN: &str = "ID_TAKEN";
    /// A request with this key is being carried out (409).
    pub const IDEMPOTENCY_KEY_IN_USE: &str = "IDEMPOTENCY_KEY_IN_USE";
    /// A target expression means no host (400).
    pub const NO_TARGETS: &str = "NO_TARGETS";
    /// A target expression names hosts that are not there (400).
    pub const UNKNOWN_TARGETS: &str = "UNKNOWN_TARGETS";
}
