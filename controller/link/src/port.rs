//! What every connection of the port works with.

use std::net::SocketAddr;

use fleetward_app::App;
use fleetward_app::people::attempt::party;
use fleetward_app::work::connection;
use fleetward_domain::people::refusal::Telling;
use fleetward_protocol::digest::Digest;
use fleetward_protocol::session::Monotonic;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::buffer::Buffers;

/// The port, as its connections know it.
pub(super) struct Port {
    pub(super) app: App,
    pub(super) stopping: CancellationToken,
    /// For the output of runs.
    pub(super) buffers: Buffers,
    started: Instant,
}

impl Port {
    pub(super) fn new(app: App, stopping: CancellationToken) -> Self {
        Self { app, stopping, buffers: Buffers::kept(), started: Instant::now() }
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
        let app = &self.app;
        app.attempts().enrolments.admit_party(party(Some(remote.ip())), app.now()).is_ok()
    }

    /// Whether one more enrolment with this token may be tried now, from wherever.
    pub(super) fn admits_token(&self, secret: &[u8]) -> bool {
        let app = &self.app;
        app.attempts().enrolments.admit_stranger(Digest::of(secret), app.now()).is_ok()
    }

    /// Logs and audits that a peer was turned away: the first few of a minute, and the others in sum.
    pub(super) async fn refused(&self, remote: SocketAddr, reason: &str) {
        if connection::record_refused_peer(&self.app, remote, reason).await == Telling::Now {
            warn!(%remote, reason, "link.refused");
        }
    }
}
