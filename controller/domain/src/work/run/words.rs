//! Where a run stands, in words.

use std::fmt;

use fleetward_protocol::run::LostCause;

use super::{Cause, Failure, RunState, refusal};

/// For people: `failed with exit code 3`.
impl fmt::Display for RunState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Failed(Failure::Exit(code)) => write!(f, "failed with exit code {code}"),
            Self::Failed(Failure::Signal(signal)) => write!(f, "failed by signal {signal}"),
            Self::TimedOut => f.write_str("timed out"),
            Self::Cancelled(Cause::Requested) => f.write_str("cancelled"),
            Self::Cancelled(Cause::Halted) => f.write_str("cancelled: too many hosts failed"),
            Self::Cancelled(Cause::HostRevoked) => f.write_str("cancelled: the host was revoked or retired"),
            Self::Cancelled(Cause::PreviousStepFailed) => {
                f.write_str("cancelled: the step before it did not succeed")
            }
            Self::Cancelled(Cause::HostOffline) => f.write_str("skipped: the host was offline"),
            Self::Refused(refusal) => write!(f, "refused: {}", refusal::detail(refusal)),
            Self::Expired => f.write_str("expired: not started before the deadline"),
            Self::Lost(LostCause::Reboot) => f.write_str("lost: the host was rebooted or lost power"),
            Self::Lost(LostCause::SupervisorGone) => f.write_str("lost: the run's supervisor disappeared"),
            Self::Lost(LostCause::JournalGone) => f.write_str("lost: the host no longer knows the run"),
            Self::Lost(LostCause::SpoolUnreadable) => {
                f.write_str("lost: the host could not read the run's output back")
            }
            Self::Lost(LostCause::HostGone) => f.write_str("lost: the host was retired or revoked meanwhile"),
            Self::Lost(LostCause::Unknown) => {
                f.write_str("lost: for a reason that this version of the controller does not know")
            }
            Self::Cancelled(Cause::Unknown) => {
                f.write_str("cancelled: for a reason that this version of the controller does not know")
            }
            state => f.write_str(state.status().as_str()),
        }
    }
}
