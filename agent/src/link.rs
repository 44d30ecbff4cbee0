//! The connection to the controller: dial, back off, speak. The only place that knows quinn.
//!
//! **What it promises.** Identity is proven by certificates both ways, whatever name or address was dialled.
//! A malformed frame closes the connection with an error code. Runs are not touched by any of it.
//!
//! **Deliberately absent.** A switch to skip verification. Listening.

pub mod backoff;
mod dial;
mod enrolment;
mod frame;
mod query;
mod run;
mod session;
mod stream;
pub mod takeover;
mod tls;
pub(crate) mod upkeep;

pub use dial::{DialError, SERVER_NAME, resolve};
pub use enrolment::{EnrolLinkError, exchange_enrolment};

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use fleetward_protocol::id::{BootId, JournalId};
use fleetward_protocol::printable::to_line;
use fleetward_protocol::time::Timestamp;
use fleetward_protocol::wire::close;
use rand::seq::SliceRandom as _;
use tokio::sync::watch;

use crate::config::{self, Address, Paths};
use crate::identity::Identity;
use crate::platform::clock;
use crate::query::{Counted, Queries};
use crate::run::Runs;
use backoff::{Backoff, Cause};
use session::Ended;
use takeover::Takeovers;

/// A connection that lasted this long was a good one.
const HEALTHY: Duration = Duration::from_secs(30);

/// How the link is doing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LinkState {
    /// It has not connected yet, or tries again.
    Connecting {
        /// Why the last attempt or connection ended, if there was one.
        last_error: Option<String>,
    },
    /// The session is established.
    Connected {
        /// The controller's address.
        controller: String,
        /// Since when, by the host's clock.
        since: Timestamp,
        /// Whether the host waits for approval.
        quarantined: bool,
        /// The controller's clock minus the host's, in milliseconds, at the welcome.
        skew_ms: i64,
    },
}

/// What a link works with.
#[derive(Debug)]
pub struct Link {
    /// The agent's files.
    pub paths: Paths,
    /// Who this host is.
    pub identity: Mutex<Arc<Identity>>,
    /// The runs of this host.
    pub runs: Runs,
    /// What is asked of this host.
    pub queries: Queries,
    /// This boot.
    pub boot: BootId,
    /// This life of the journal.
    pub journal: JournalId,
    /// What an operator should know, told once at the first welcome.
    pub notices: Mutex<Vec<String>>,
    /// The controller that it was connected to last.
    pub left: Mutex<Option<String>>,
    /// How the link is doing.
    pub state: watch::Sender<LinkState>,
    /// How often another connection with this identity took over.
    pub takeovers: watch::Sender<Takeovers>,
    /// The updates that there are, since they were counted.
    pub updates: watch::Receiver<Option<Counted>>,
}

impl Link {
    /// Keeps the host connected until `shutdown` turns true.
    pub async fn run(self: Arc<Self>, mut shutdown: watch::Receiver<bool>) {
        let mut backoff = Backoff::new();
        while !*shutdown.borrow() {
            let (cause, detail) = self.connect_once(shutdown.clone()).await;
            if cause == Cause::Superseded {
                self.note_takeover();
            }
            self.state.send_replace(LinkState::Connecting { last_error: Some(detail.clone()) });
            if cause == Cause::Shutdown {
                return;
            }
            let delay = backoff.next_delay(cause, Instant::now(), rand::random());
            tracing::info!(cause = ?cause, error = detail, delay_ms = delay.as_millis(), "disconnected");
            tokio::select! {
                () = tokio::time::sleep(delay) => {}
                () = stopped(&mut shutdown) => return,
            }
        }
    }

    /// One attempt at every address, and the life of the connection that comes of it.
    async fn connect_once(self: &Arc<Self>, mut shutdown: watch::Receiver<bool>) -> (Cause, String) {
        let controllers = match config::read_controllers(&self.paths) {
            Ok(controllers) if controllers.is_empty() => {
                return (Cause::Unreachable, "no controller is configured in agent.toml".into());
            }
            Ok(controllers) => in_turn(controllers, self.left().as_deref(), &mut rand::rng()),
            Err(error) => return (Cause::Unreachable, chain(&error)),
        };
        let identity = self.identity();
        let mut failures = Vec::new();
        for address in &controllers {
            let dialled = tokio::select! {
                dialled = dial::dial(address, &identity) => dialled,
                () = stopped(&mut shutdown) => return (Cause::Shutdown, Ended::Shutdown.to_string()),
            };
            match dialled {
                Ok(dialled) => return self.speak(address, dialled, shutdown).await,
                Err(error) => failures.push((error.cause(), format!("{address}: {}", chain(&error)))),
            }
        }
        let cause = failures.last().map_or(Cause::Unreachable, |(cause, _)| *cause);
        let texts: Vec<_> = failures.into_iter().map(|(_, text)| text).collect();
        (cause, texts.join("; "))
    }

    async fn speak(
        self: &Arc<Self>,
        address: &Address,
        dialled: dial::Dialled,
        shutdown: watch::Receiver<bool>,
    ) -> (Cause, String) {
        let began = Instant::now();
        *self.left.lock().unwrap_or_else(PoisonError::into_inner) = Some(address.to_string());
        let connection = dialled.connection.clone();
        let ended = session::speak(self, address, &connection, shutdown).await;
        let (code, cause) = ended.verdict(began.elapsed() >= HEALTHY);
        connection.close(code.into(), ended.to_string().as_bytes());
        // Lets the close frame out before the socket goes.
        drop(tokio::time::timeout(Duration::from_millis(500), dialled.endpoint.wait_idle()).await);
        (cause, chain(&ended))
    }

    /// The controller that this host was connected to last.
    fn left(&self) -> Option<String> {
        self.left.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn note_takeover(&self) {
        let now = clock::now();
        self.takeovers.send_modify(|takeovers| *takeovers = takeovers.with_one(now));
        if let Some(warning) = self.takeovers.borrow().warning(now) {
            tracing::error!(remedy = takeover::REMEDY, "{warning}");
        }
    }

    fn identity(&self) -> Arc<Identity> {
        Arc::clone(&self.identity.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn set_identity(&self, identity: Identity) {
        *self.identity.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(identity);
    }
}

/// The controllers in the order in which to try them: by lot, so that the hosts of one that is gone spread over all the
/// others; the one that was `left` last.
fn in_turn(mut controllers: Vec<Address>, left: Option<&str>, random: &mut impl rand::Rng) -> Vec<Address> {
    controllers.shuffle(random);
    controllers.sort_by_key(|address| left.is_some_and(|left| address.to_string() == left));
    controllers
}

impl Ended {
    /// The code to close the connection with, and what it means for the next attempt.
    fn verdict(&self, lasted_well: bool) -> (u32, Cause) {
        let lost = if lasted_well { Cause::Lost } else { Cause::Unreachable };
        match self {
            Self::Shutdown => (close::DONE, Cause::Shutdown),
            Self::Moved => (close::DONE, lost),
            Self::Session(fleetward_protocol::session::SessionError::Silent(_)) => (close::SILENT, lost),
            Self::Session(_) | Self::Frame(_) => (close::PROTOCOL, Cause::Refused),
            Self::Closed { cause, .. } => (close::DONE, cause.unwrap_or(lost)),
        }
    }
}

/// Connects to a controller as this host, without a session, and leaves again; returns the round-trip time.
///
/// # Errors
/// If it cannot be reached, or one side does not accept the other.
pub async fn probe(address: &Address, identity: &Identity) -> Result<Duration, DialError> {
    let dialled = dial::dial(address, identity).await?;
    let round_trip = dialled.connection.rtt();
    // A controller that does not accept the certificate says so after the handshake.
    let closed = tokio::time::timeout(Duration::from_millis(300), dialled.connection.closed()).await;
    if let Ok(error) = closed {
        return Err(DialError::Handshake(error));
    }
    dialled.connection.close(close::DONE.into(), b"probe");
    drop(tokio::time::timeout(Duration::from_millis(500), dialled.endpoint.wait_idle()).await);
    Ok(round_trip)
}

/// Resolves when the agent is to stop; never, if nobody is left who could say so.
pub(crate) async fn stopped(shutdown: &mut watch::Receiver<bool>) {
    if shutdown.wait_for(|stop| *stop).await.is_err() {
        std::future::pending().await
    }
}

/// What is said of an error at most, in characters: part of it may be the peer's own words.
const MAX_SAID: usize = 1000;

/// An error and its causes, in one printable line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        next = cause.source();
    }
    to_line(&text, MAX_SAID)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use rand::SeedableRng as _;
    use rand::rngs::StdRng;

    use super::*;

    /// Hosts of a controller that is gone do not all go to one neighbour.
    #[test]
    fn the_hosts_of_one_controller_spread_over_all_the_others() {
        let controllers: Vec<Address> =
            ["a", "b", "c", "d"].iter().map(|name| name.parse().unwrap()).collect();
        let left = controllers[1].to_string();
        let mut random = StdRng::seed_from_u64(1);
        let mut first: BTreeMap<String, u32> = BTreeMap::new();
        for _ in 0..3000 {
            let order = in_turn(controllers.clone(), Some(&left), &mut random);
            assert_eq!(order[3].to_string(), left, "the one that is gone is asked last");
            *first.entry(order[0].to_string()).or_default() += 1;
        }
        assert_eq!(first.len(), 3);
        assert!(first.values().all(|hosts| (900..1100).contains(hosts)), "{first:?}");
        assert_eq!(in_turn(controllers[1..2].to_vec(), Some(&left), &mut random), controllers[1..2]);
    }
}
