//! The clock of the HTTP rim: requests bring the time into the controller here.

use std::time::{SystemTime, UNIX_EPOCH};

use fleetward_protocol::time::Timestamp;

/// The time. A clock before 1970 reads as 1970.
pub(super) fn now() -> Timestamp {
    let elapsed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp::from_millis(i64::try_from(elapsed.as_millis()).unwrap_or(i64::MAX))
}
