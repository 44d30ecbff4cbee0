//! What every connection of the port works with.

use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};

use fleetward_protocol::session::Monotonic;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::buffer::Buffers;
use super::limit::AttemptLimit;
use crate::app::{App, connection};

/// Refused peers that are audited per minute and address; the others are only logged.
const AUDITED_REFUSALS: u32 = 6;

/// The port, as its connections know it.
pub(super) struct Port {
    pub(super) app: App,
    pub(super) stopping: CancellationToken,
    /// For the output of runs.
    pub(super) buffers: Buffers,
    started: Instant,
    enrolments: Mutex<AttemptLimit>,
    refusals: Mutex<AttemptLimit>,
}

impl Port {
    pub(super) fn new(app: App, stopping: CancellationToken) -> Self {
        let zero = Monotonic::default();
        let enrolments = AttemptLimit::new(app.config().enrolment.attempts_per_minute, zero);
        Self {
            app,
            stopping,
            buffers: Buffers::kept(),
            started: Instant::now(),
            enrolments: Mutex::new(enrolments),
            refusals: Mutex::new(AttemptLimit::new(AUDITED_REFUSALS, zero)),
        }
    }

    /// Time since the port was opened.
    pub(super) fn monotonic(&self) -> Monotonic {
        Monotonic(self.started.elapsed())
    }

    /// When the machines' time `at` is.
    pub(super) fn instant(&self, at: Monotonic) -> Instant {
        self.started + at.0
    }

    /// Whether one more enrolment may be tried from this address now.
    pub(super) fn admits_enrolment(&self, remote: SocketAddr) -> bool {
        let now = self.monotonic();
        self.enrolments.lock().unwrap_or_else(PoisonError::into_inner).admit(remote.ip(), now)
    }

    /// Logs, and audits unless there are too many, that a peer was turned away.
    pub(super) async fn refused(&self, remote: SocketAddr, reason: &str) {
        warn!(%remote, reason, "link.refused");
        let now = self.monotonic();
        let audited = self.refusals.lock().unwrap_or_else(PoisonError::into_inner).admit(remote.ip(), now);
        if audited {
            connection::record_refused_peer(&self.app, remote, reason).await;
        }
    }
}
