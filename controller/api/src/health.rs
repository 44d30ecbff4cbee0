//! The controller's own health. Needs no login.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// `GET /health`: 200 while `status` is `healthy`, 503 otherwise.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Health {
    /// `healthy`, or what is wrong: `store_unavailable`, `store_read_only`, `storage_failed`, `disk_full`, `stopping`.
    pub status: String,
    /// The controller's version.
    pub version: String,
}
