//! What a host reports about a run: why it would not start, and how it ended.
//!
//! The run's whole life, as the controller keeps it, is a state machine in the controller's `domain`; the
//! host only ever reports these facts.

use serde::{Deserialize, Serialize};

use crate::text::Line;

/// How a run that was started ended. Append-only.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// The process ended by itself with this exit code (0 to 255).
    Exited(i32),
    /// The process was ended by this signal, which neither the timeout nor a cancel sent.
    Signalled(i32),
    /// The run's own time limit passed and its process tree was stopped.
    TimedOut,
    /// A cancel was delivered and the process tree was stopped.
    Cancelled,
    /// The host cannot know how it ended.
    Lost(LostCause),
}

/// What a run's script had left running when it ended by itself, and held the run's output open. Whoever let go of
/// the output (a daemon, a unit of the service manager) is not spoken of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Left {
    /// How many processes there were, at the end of the wait for them or when they were stopped. Zero if nobody knows:
    /// whoever holds the output need not belong to the run.
    pub processes: u32,
    /// From the script's own end to the run's end, in milliseconds.
    pub held_ms: u64,
    /// What became of them.
    pub fate: Fate,
}

/// What became of processes that held a run's output open after its script's end. Append-only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Fate {
    /// They let go of the output by themselves. All of it is kept.
    LetGo,
    /// They go on. What they write is read, and is no longer kept.
    Unkept,
    /// They go on, and nobody reads what they write: most programs end when they write again.
    CutOff,
    /// They were stopped on request.
    Stopped,
    /// They were killed and did not end in time.
    Unstoppable,
}

/// Why the end of a started run cannot be known. Append-only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum LostCause {
    /// The host was rebooted, or lost power, while the run was running.
    Reboot,
    /// The process that supervised the run disappeared.
    SupervisorGone,
    /// The host's journal does not know a run that it had accepted (reinstalled, wiped or restored).
    JournalGone,
    /// The run's spool could not be read back.
    SpoolUnreadable,
    /// The controller gave the host up (retired or revoked) while it still had the run. Never on the wire.
    HostGone,
    /// A cause that a later controller stored, and this one does not know. Never on the wire.
    Unknown,
}

/// Why a host would not start a run. Nothing was executed. Append-only.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Refusal {
    /// `/etc/fleetward/client_id` is missing.
    ClientIdMissing,
    /// `/etc/fleetward/client_id`, the certificate and the order do not name the same client ID.
    ClientIdMismatch {
        /// What the file holds, as far as it is readable.
        found: Line,
    },
    /// This agent does not know the kind of action (it is older than the controller).
    Unsupported {
        /// The kind that was asked for.
        kind: Line,
    },
    /// The order or its parameters could not be understood.
    Malformed {
        /// What was wrong.
        detail: Line,
    },
    /// The content that came with the order does not have the digest the order names.
    DigestMismatch,
    /// The host's own policy in `/etc/fleetward/agent.toml` does not allow it.
    NotAllowed {
        /// The rule that said no.
        rule: Line,
    },
    /// The Linux user to run as does not exist, or the agent may not become it.
    NoSuchUser {
        /// The user asked for.
        user: Line,
    },
    /// The working directory does not exist or cannot be entered.
    NoSuchDirectory {
        /// The path asked for.
        path: Line,
    },
    /// The script's first line does not name bash.
    NotBash,
    /// The order's deadline had passed on the host's clock, or on the controller's, before the start.
    DeadlinePassed,
    /// The host has no room to keep the run's output.
    DiskFull,
    /// The process could not be started.
    SpawnFailed {
        /// The operating system's reason.
        detail: Line,
    },
    /// A cancel arrived before the start.
    CancelledBeforeStart,
    /// The order may not be carried out yet.
    NotYet,
    /// The order asks for something else than a run.
    NotARun,
    /// The controller could not make the order. Never on the wire.
    NotOrdered {
        /// Why.
        detail: Line,
    },
    /// The host has as much to do at once as it takes on.
    Busy {
        /// What there is too much of.
        detail: Line,
    },
}

/// Why a controller wants a run stopped. Append-only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum CancelCause {
    /// A person or program asked for it.
    Requested,
    /// The operation's failure threshold was reached.
    Halted,
    /// The host was revoked or retired.
    HostRevoked,
}
