//! What the log says of runs that failed: each once, when its end is committed.

use fleetward_domain::work::run::RunStatus;
use fleetward_store::work::batch::Ended;
use tracing::warn;

/// Writes a line for every run among these that failed, and for no other.
pub(super) fn log<'a>(ended: impl IntoIterator<Item = &'a Ended>) {
    for Ended { operation, run, host, client, step, state } in ended {
        if is_failure(state.status()) {
            warn!(%operation, %run, %host, %client, step, reason = state.to_string(), "run.failed");
        }
    }
}

/// Whether a run that ended so is to be looked at by somebody. One that was cancelled ended as somebody wished.
const fn is_failure(status: RunStatus) -> bool {
    matches!(
        status,
        RunStatus::Failed | RunStatus::TimedOut | RunStatus::Refused | RunStatus::Expired | RunStatus::Lost
    )
}
