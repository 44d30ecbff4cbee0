//! A run's life: one execution of one action on one host.
//!
//! [`RunState`] changes only by [`RunState::apply`]. What it promises:
//! - A run leaves `queued` at most once, so an order for it is handed to one journal only.
//! - A state that [is final](RunStatus::is_final) never changes; what the host says later is taken note of and
//!   changes nothing.
//! - The host's word beats the controller's: a cancel of a run that the host may have is kept as a wish
//!   beside its state, and the run ends as what really happened.
//! - Repeated reports of a host change nothing, so they may be delivered again after a reconnect.
//!
//! [`TRANSITIONS`] is the whole table; `docs/run-life.md` is printed from it. Deliberately absent: output,
//! offsets and times, which are no decisions.

mod left;
pub mod refusal;
mod words;

use std::fmt;
use std::str::FromStr;

use fleetward_protocol::id::JournalId;
use fleetward_protocol::run::{CancelCause, LostCause, Outcome, Refusal};
use fleetward_protocol::time::Timestamp;
use serde::{Deserialize, Serialize};

pub use left::describe_left;

/// Where a run stands, with what belongs to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RunState {
    /// Nothing was sent: it waits for its turn, for the step before it, or for its host.
    Queued,
    /// An order may have reached the host.
    Dispatched(Custody),
    /// The host has it durably.
    Accepted(Custody),
    /// The host marked it as started.
    Running(Custody),
    /// It ended by itself with exit code 0.
    Succeeded,
    /// It ended by itself otherwise.
    Failed(Failure),
    /// Its own time limit passed and its process tree was stopped.
    TimedOut,
    /// It was stopped, or never started, because somebody or something wanted so.
    Cancelled(Cause),
    /// The host would not start it; nothing was executed.
    Refused(Refusal),
    /// It was not started before the operation's deadline.
    Expired,
    /// It may have been started, and how it ended cannot be known.
    Lost(LostCause),
}

/// The hold of a host on a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Custody {
    /// The life of the host's journal that the order went to. A host that comes back with another cannot
    /// know what became of the run.
    pub journal: JournalId,
    /// A cancel request, to be delivered whenever the host is connected.
    pub cancel: Option<Cause>,
}

/// How a run failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Failure {
    /// It ended by itself with this exit code, which is not 0.
    Exit(i32),
    /// It was ended by this signal, which neither a timeout nor a cancel sent.
    Signal(i32),
}

/// Why a run should not run, or not go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// A person or program asked for it.
    Requested,
    /// The operation's failure threshold was reached, or a canary failed.
    Halted,
    /// The host was revoked or retired.
    HostRevoked,
    /// An earlier step of the operation did not succeed on this host.
    PreviousStepFailed,
    /// The host was offline, and the operation skips such hosts.
    HostOffline,
    /// A cause that a later controller stored, and this one does not know.
    Unknown,
}

/// A [`RunState`] without its data: what is filtered and counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RunStatus {
    /// [`RunState::Queued`]
    Queued,
    /// [`RunState::Dispatched`]
    Dispatched,
    /// [`RunState::Accepted`]
    Accepted,
    /// [`RunState::Running`]
    Running,
    /// [`RunState::Succeeded`]
    Succeeded,
    /// [`RunState::Failed`]
    Failed,
    /// [`RunState::TimedOut`]
    TimedOut,
    /// [`RunState::Cancelled`]
    Cancelled,
    /// [`RunState::Refused`]
    Refused,
    /// [`RunState::Expired`]
    Expired,
    /// [`RunState::Lost`]
    Lost,
}

/// Something that happened to a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RunEvent {
    /// The controller is about to hand the order to this journal. Persist the new state before sending.
    Dispatched {
        /// The journal that the connected host named in its hello.
        journal: JournalId,
        /// The operation's deadline, after which nothing is handed out.
        deadline: Timestamp,
    },
    /// The host has it durably.
    Accepted,
    /// The host will not start it.
    Refused(Refusal),
    /// The host marked it as started.
    Started,
    /// It ended on the host.
    Finished(Outcome),
    /// The host's journal does not know it.
    Unknown,
    /// The host says that its journal has it.
    Held {
        /// The journal's life.
        journal: JournalId,
    },
    /// The controller cannot make its order; why.
    NotOrdered(Refusal),
    /// The host came back with this journal.
    Reconnected {
        /// The journal's life.
        journal: JournalId,
    },
    /// Somebody or something wants it stopped. Ends a queued run at once; for a run that the host may have it
    /// is a request, kept until the host reports.
    Cancel(Cause),
    /// The operation's deadline passed. Ends a queued run; the host itself enforces it for the others.
    Expire {
        /// The deadline.
        deadline: Timestamp,
    },
    /// The host will never come back: it was retired or revoked.
    HostGone,
}

/// An event that cannot happen to a run in its state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("`{event}` cannot happen to a run that is {status}")]
pub struct Illegal {
    /// The state it was in.
    pub status: RunStatus,
    /// The event's name.
    pub event: &'static str,
}

/// Every change of status, by event. What is not here does not change the status, or is [`Illegal`].
pub const TRANSITIONS: &[(RunStatus, &str, RunStatus)] = {
    use RunStatus::{
        Accepted, Cancelled, Dispatched, Expired, Failed, Lost, Queued, Refused, Running, Succeeded, TimedOut,
    };
    &[
        (Queued, "dispatched", Dispatched),
        (Queued, "cancel", Cancelled),
        (Queued, "expire", Expired),
        (Queued, "host gone", Cancelled),
        (Queued, "held", Dispatched),
        (Queued, "not ordered", Refused),
        (Dispatched, "accepted", Accepted),
        (Dispatched, "started", Running),
        (Accepted, "started", Running),
        (Dispatched, "refused", Refused),
        (Dispatched, "refused", Expired),
        (Dispatched, "refused", Cancelled),
        (Accepted, "refused", Refused),
        (Accepted, "refused", Expired),
        (Accepted, "refused", Cancelled),
        (Dispatched, "finished", Succeeded),
        (Dispatched, "finished", Failed),
        (Dispatched, "finished", TimedOut),
        (Dispatched, "finished", Cancelled),
        (Dispatched, "finished", Lost),
        (Accepted, "finished", Succeeded),
        (Accepted, "finished", Failed),
        (Accepted, "finished", TimedOut),
        (Accepted, "finished", Cancelled),
        (Accepted, "finished", Lost),
        (Running, "finished", Succeeded),
        (Running, "finished", Failed),
        (Running, "finished", TimedOut),
        (Running, "finished", Cancelled),
        (Running, "finished", Lost),
        (Dispatched, "unknown", Lost),
        (Accepted, "unknown", Lost),
        (Running, "unknown", Lost),
        (Dispatched, "reconnected", Lost),
        (Accepted, "reconnected", Lost),
        (Running, "reconnected", Lost),
        (Dispatched, "host gone", Lost),
        (Accepted, "host gone", Lost),
        (Running, "host gone", Lost),
    ]
};

impl RunState {
    /// The state after the event.
    ///
    /// # Errors
    /// [`Illegal`] if the event cannot happen in this state: a report about a run that was never handed out,
    /// or a second hand-out. Nothing may be sent to a host then.
    pub fn apply(self, event: &RunEvent, now: Timestamp) -> Result<Self, Illegal> {
        let illegal = Illegal { status: self.status(), event: event.name() };
        match self {
            Self::Queued => Self::apply_queued(event, now).ok_or(illegal),
            Self::Dispatched(custody) => match event {
                RunEvent::Dispatched { journal, .. } if *journal == custody.journal => Ok(self),
                RunEvent::Accepted => Ok(Self::Accepted(custody)),
                RunEvent::Started => Ok(Self::Running(custody)),
                RunEvent::Refused(refusal) => Ok(Self::refused(custody, refusal)),
                event => Self::apply_held(custody, event, Self::Dispatched).ok_or(illegal),
            },
            Self::Accepted(custody) => match event {
                RunEvent::Accepted => Ok(self),
                RunEvent::Started => Ok(Self::Running(custody)),
                RunEvent::Refused(refusal) => Ok(Self::refused(custody, refusal)),
                event => Self::apply_held(custody, event, Self::Accepted).ok_or(illegal),
            },
            Self::Running(custody) => match event {
                RunEvent::Accepted | RunEvent::Started => Ok(self),
                event => Self::apply_held(custody, event, Self::Running).ok_or(illegal),
            },
            // Final. A late report or cancel request changes nothing, but a hand-out would start what has ended.
            _ if matches!(event, RunEvent::Dispatched { .. }) => Err(illegal),
            _ => Ok(self),
        }
    }

    fn apply_queued(event: &RunEvent, now: Timestamp) -> Option<Self> {
        match event {
            RunEvent::Dispatched { journal, deadline } if now < *deadline => {
                Some(Self::Dispatched(Custody { journal: *journal, cancel: None }))
            }
            RunEvent::Cancel(cause) => Some(Self::Cancelled(*cause)),
            RunEvent::Expire { deadline } if now >= *deadline => Some(Self::Expired),
            RunEvent::HostGone => Some(Self::Cancelled(Cause::HostRevoked)),
            // It was handed out, and the commit that said so was lost: what a host has is never called "not started".
            RunEvent::Held { journal } => Some(Self::Dispatched(Custody { journal: *journal, cancel: None })),
            RunEvent::NotOrdered(refusal) => Some(Self::Refused(refusal.clone())),
            RunEvent::Reconnected { .. } => Some(Self::Queued),
            _ => None,
        }
    }

    /// What happens in the same way to every run that the host may have.
    fn apply_held(custody: Custody, event: &RunEvent, same: fn(Custody) -> Self) -> Option<Self> {
        match event {
            RunEvent::Finished(outcome) => Some(Self::finished(custody, outcome)),
            RunEvent::Unknown => Some(Self::Lost(LostCause::JournalGone)),
            RunEvent::Reconnected { journal } if *journal != custody.journal => {
                Some(Self::Lost(LostCause::JournalGone))
            }
            RunEvent::HostGone => Some(Self::Lost(LostCause::HostGone)),
            // The first request stays: it is the one that may have been delivered.
            RunEvent::Cancel(cause) => {
                Some(same(Custody { cancel: custody.cancel.or(Some(*cause)), ..custody }))
            }
            RunEvent::Reconnected { .. } | RunEvent::Expire { .. } => Some(same(custody)),
            // It was ordered once: what the host says of it counts.
            RunEvent::Held { .. } | RunEvent::NotOrdered(_) => Some(same(custody)),
            RunEvent::Dispatched { .. } | RunEvent::Accepted | RunEvent::Started | RunEvent::Refused(_) => {
                None
            }
        }
    }

    fn refused(custody: Custody, refusal: &Refusal) -> Self {
        match refusal {
            Refusal::DeadlinePassed => Self::Expired,
            Refusal::CancelledBeforeStart => Self::Cancelled(custody.cancel.unwrap_or(Cause::Requested)),
            refusal => Self::Refused(refusal.clone()),
        }
    }

    fn finished(custody: Custody, outcome: &Outcome) -> Self {
        match outcome {
            Outcome::Exited(0) => Self::Succeeded,
            Outcome::Exited(code) => Self::Failed(Failure::Exit(*code)),
            Outcome::Signalled(signal) => Self::Failed(Failure::Signal(*signal)),
            Outcome::TimedOut => Self::TimedOut,
            Outcome::Cancelled => Self::Cancelled(custody.cancel.unwrap_or(Cause::Requested)),
            Outcome::Lost(cause) => Self::Lost(*cause),
        }
    }

    /// The state without its data.
    #[must_use]
    pub const fn status(&self) -> RunStatus {
        match self {
            Self::Queued => RunStatus::Queued,
            Self::Dispatched(_) => RunStatus::Dispatched,
            Self::Accepted(_) => RunStatus::Accepted,
            Self::Running(_) => RunStatus::Running,
            Self::Succeeded => RunStatus::Succeeded,
            Self::Failed(_) => RunStatus::Failed,
            Self::TimedOut => RunStatus::TimedOut,
            Self::Cancelled(_) => RunStatus::Cancelled,
            Self::Refused(_) => RunStatus::Refused,
            Self::Expired => RunStatus::Expired,
            Self::Lost(_) => RunStatus::Lost,
        }
    }

    /// The host's hold on it; `None` before it was handed out and after it ended.
    #[must_use]
    pub const fn custody(&self) -> Option<Custody> {
        match self {
            Self::Dispatched(custody) | Self::Accepted(custody) | Self::Running(custody) => Some(*custody),
            _ => None,
        }
    }
}

impl RunStatus {
    /// Every status, in the order of a run's life.
    pub const ALL: [Self; 11] = [
        Self::Queued,
        Self::Dispatched,
        Self::Accepted,
        Self::Running,
        Self::Succeeded,
        Self::Failed,
        Self::TimedOut,
        Self::Cancelled,
        Self::Refused,
        Self::Expired,
        Self::Lost,
    ];

    /// The stable name, in the store and in the API.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Dispatched => "dispatched",
            Self::Accepted => "accepted",
            Self::Running => "running",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::TimedOut => "timed_out",
            Self::Cancelled => "cancelled",
            Self::Refused => "refused",
            Self::Expired => "expired",
            Self::Lost => "lost",
        }
    }

    /// Whether it never changes any more.
    #[must_use]
    pub const fn is_final(self) -> bool {
        !matches!(self, Self::Queued | Self::Dispatched | Self::Accepted | Self::Running)
    }

    /// Whether a host has it, or may have it.
    #[must_use]
    pub const fn is_held(self) -> bool {
        matches!(self, Self::Dispatched | Self::Accepted | Self::Running)
    }

    /// Whether it says that something went wrong on the host, and so counts towards a rollout's threshold.
    /// What was cancelled or expired never got its chance.
    #[must_use]
    pub const fn is_failure(self) -> bool {
        matches!(self, Self::Failed | Self::TimedOut | Self::Refused | Self::Lost)
    }
}

impl fmt::Display for RunStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Text that is not a run's status.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a status of a run")]
pub struct InvalidRunStatus(String);

impl FromStr for RunStatus {
    type Err = InvalidRunStatus;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let named = |status: &Self| status.as_str() == text;
        Self::ALL.into_iter().find(named).ok_or_else(|| InvalidRunStatus(text.chars().take(40).collect()))
    }
}

impl RunEvent {
    /// The event's stable name.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Dispatched { .. } => "dispatched",
            Self::Accepted => "accepted",
            Self::Refused(_) => "refused",
            Self::Started => "started",
            Self::Finished(_) => "finished",
            Self::Unknown => "unknown",
            Self::Held { .. } => "held",
            Self::NotOrdered(_) => "not ordered",
            Self::Reconnected { .. } => "reconnected",
            Self::Cancel(_) => "cancel",
            Self::Expire { .. } => "expire",
            Self::HostGone => "host gone",
        }
    }
}

impl Cause {
    /// The stable name, in the store and in the API.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Requested => "requested",
            Self::Halted => "halted",
            Self::HostRevoked => "host_revoked",
            Self::PreviousStepFailed => "previous_step_failed",
            Self::HostOffline => "host_offline",
            Self::Unknown => "unknown",
        }
    }

    /// What the host is told. Causes that only ever end queued runs are told as a request.
    #[must_use]
    pub const fn to_wire(self) -> CancelCause {
        match self {
            Self::Halted => CancelCause::Halted,
            Self::HostRevoked => CancelCause::HostRevoked,
            Self::Requested | Self::PreviousStepFailed | Self::HostOffline | Self::Unknown => {
                CancelCause::Requested
            }
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests;
