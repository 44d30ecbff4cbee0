//! Why a command failed, and the exit code that says so to scripts.

use std::io;
use std::process::ExitCode;

use fleetward_api::error::{ErrorBody, code};

use crate::client::trust::Untrusted;
use crate::render::neutral;

/// How a command ended that did not fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    /// All of it succeeded.
    Success,
    /// It was done, and what it did on the hosts or in the repository failed somewhere.
    Failed,
    /// The operation was stopped.
    Stopped,
    /// The user left with Ctrl-C.
    Interrupted,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(match exit {
            Exit::Success => 0,
            Exit::Failed => 1,
            Exit::Stopped => 5,
            Exit::Interrupted => 130,
        })
    }
}

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// The command line asks for something that cannot be.
    #[error("{0}")]
    Usage(String),
    /// No login, or one that has ended.
    #[error("{0}")]
    LoggedOut(String),
    /// The controller said no.
    // Several lines where it points at a place in an expression.
    #[error("{}", neutral::block(&body.error).trim_end())]
    Refused {
        /// The HTTP status.
        status: u16,
        /// Why.
        body: Box<ErrorBody>,
    },
    /// The controller could not be talked to.
    #[error("cannot reach the controller at {url}")]
    Unreachable {
        /// Where it should be.
        url: String,
        /// What the network said.
        #[source]
        source: io::Error,
    },
    /// Whoever answers is not a controller, or not one of this version.
    #[error("{url} does not answer like a Fleetward controller: {}", neutral::quote(problem))]
    NotAController {
        /// Who was asked.
        url: String,
        /// What was odd.
        problem: String,
    },
    /// Whoever answers could not prove that it is the controller.
    #[error(transparent)]
    Untrusted(Box<Untrusted>),
    /// The user said no to a question.
    #[error("nothing was done")]
    Declined,
    /// The reader of standard output is gone.
    #[error("standard output was closed")]
    PipeClosed,
    /// Anything else.
    #[error(transparent)]
    Other(#[from] anyhow::Error),
}

impl Failure {
    /// Whether the controller may be back in a moment.
    pub(crate) const fn is_passing(&self) -> bool {
        matches!(self, Self::Unreachable { .. } | Self::Refused { status: 429 | 500..=599, .. })
    }

    /// Whether the controller's no may be about hosts that were named or meant, and not about who asks or what.
    pub(crate) fn is_about_hosts(&self) -> bool {
        matches!(self, Self::Refused { status: 400..=499, body }
            if body.code.starts_with("HOST_") || body.code == code::UNKNOWN_TARGETS)
    }

    /// The exit code that tells scripts.
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::Other(_) | Self::Declined => 1,
            Self::Usage(_) => 2,
            Self::LoggedOut(_) => 3,
            // The request names a host that cannot take part: nothing about who asks.
            Self::Refused { status: 400..=499, body } if body.code.starts_with("HOST_") => 2,
            Self::Refused { status: 401 | 403 | 423, .. } => 3,
            // The controller is well; a host did not do what was asked.
            Self::Refused { status: 500..=599, body } if body.code.starts_with("HOST_") => 1,
            Self::Refused { status: 400..=499, .. } => 2,
            Self::Refused { .. }
            | Self::Unreachable { .. }
            | Self::NotAController { .. }
            | Self::Untrusted(_) => 4,
            // As a shell reports a process that SIGPIPE ended.
            Self::PipeClosed => 141,
        }
    }
}

/// Writing to standard output failed: a closed pipe is not worth a message.
pub(crate) fn output(error: io::Error) -> Failure {
    if error.kind() == io::ErrorKind::BrokenPipe {
        Failure::PipeClosed
    } else {
        Failure::Other(anyhow::Error::new(error).context("cannot write the output"))
    }
}
