//! The control stream, driven: hello, heartbeats, facts, renewal, and the streams that the controller opens.

use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use fleetward_protocol::action::KINDS;
use fleetward_protocol::digest::Digest;
use fleetward_protocol::facts::{Facts, Upkeep};
use fleetward_protocol::message::{AgentMessage, ControllerMessage, FEATURES, Hello, UPKEEP, Welcome};
use fleetward_protocol::query::QUERY_KINDS;
use fleetward_protocol::session::{AgentEvent, AgentSession, SessionError};
use fleetward_protocol::text::{List, Text, Word};
use fleetward_protocol::wire::MAX_CONTROL_FRAME;
use quinn::{Connection, ConnectionError, ReadError, RecvStream, SendStream, WriteError};
use rustls_pki_types::CertificateDer;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::backoff::Cause;
use super::dial::{IDLE_STREAMS, cause_of};
use super::frame::{FrameError, FrameReader, FrameWriter};
use super::{Link, LinkState, stopped, stream, upkeep};
use crate::config::{self, Address};
use crate::identity::Request;
use crate::platform::{clock, facts};

/// How often the facts are looked at.
const FACTS_EVERY: Duration = Duration::from_secs(300);
/// How soon a renewal that was refused or lost is tried again.
const RENEW_AGAIN: Duration = Duration::from_secs(600);
/// The most streams a controller may have open at once.
const MAX_STREAMS: u32 = 1024;

/// Why a session ended.
#[derive(Debug, thiserror::Error)]
pub(super) enum Ended {
    /// The agent stops.
    #[error("the agent stops")]
    Shutdown,
    /// The controller broke the protocol, or was silent.
    #[error(transparent)]
    Session(#[from] SessionError),
    /// The controller sent something else than a message.
    #[error("the controller broke the protocol")]
    Frame(#[source] FrameError),
    /// The controller asked for it.
    #[error("the controller asked to connect to another one")]
    Moved,
    /// The connection is gone.
    #[error("the connection ended: {detail}")]
    Closed {
        /// In words.
        detail: String,
        /// What it means for the next attempt, if it means anything.
        cause: Option<Cause>,
    },
}

/// Speaks until something ends it.
pub(super) async fn speak(
    link: &Arc<Link>,
    address: &Address,
    connection: &Connection,
    mut shutdown: watch::Receiver<bool>,
) -> Ended {
    let start = Instant::now();
    let (send, receive) = match connection.open_bi().await {
        Ok(streams) => streams,
        Err(error) => return closed(&error),
    };
    let facts = facts::read();
    let mut control = Control {
        link,
        address,
        start,
        session: AgentSession::new(hello(link, &facts), clock::monotonic(start)),
        reader: FrameReader::new(MAX_CONTROL_FRAME),
        writer: FrameWriter::new(MAX_CONTROL_FRAME),
        facts: facts.digest(link.boot),
        facts_known: false,
        upkeep: None,
        facts_due: start,
        renewal: None,
        renewal_due: start,
        allowed: IDLE_STREAMS,
    };
    let mut streams = JoinSet::new();
    let ended = control.drive(connection, send, receive, &mut streams, &mut shutdown).await;
    link.runs.hold_kept();
    ended
}

struct Control<'a> {
    link: &'a Arc<Link>,
    address: &'a Address,
    start: Instant,
    session: AgentSession,
    reader: FrameReader,
    writer: FrameWriter,
    /// What the controller was told last, in the hello or in full.
    facts: Digest,
    /// Whether it has them in full.
    facts_known: bool,
    /// What it was told that the host needs; `None` if it takes no such message.
    upkeep: Option<Option<Upkeep>>,
    facts_due: Instant,
    renewal: Option<Request>,
    renewal_due: Instant,
    allowed: u32,
}

impl Control<'_> {
    async fn drive(
        &mut self,
        connection: &Connection,
        mut send: SendStream,
        mut receive: RecvStream,
        streams: &mut JoinSet<()>,
        shutdown: &mut watch::Receiver<bool>,
    ) -> Ended {
        loop {
            while let Some(message) = self.session.poll_transmit() {
                if let Err(error) = self.writer.push(&message) {
                    return Ended::Frame(error);
                }
            }
            let due = tokio::time::Instant::from_std(self.due());
            let event = tokio::select! {
                message = self.reader.next(&mut receive) => match message {
                    Ok(Some(message)) => self.handle_message(message),
                    Ok(None) => Err(Ended::Closed { detail: "the controller ended the control stream".into(), cause: None }),
                    Err(error) => Err(failed(error)),
                },
                written = self.writer.write(&mut send), if !self.writer.is_empty() => written.map_err(failed),
                stream = connection.accept_bi(), if self.session.is_established() => match stream {
                    Ok((send, receive)) => {
                        streams.spawn(stream::serve(connection.clone(), send, receive, Arc::clone(self.link)));
                        self.allow_streams(connection, streams);
                        Ok(())
                    }
                    Err(error) => Err(closed(&error)),
                },
                Some(_) = streams.join_next() => {
                    self.allow_streams(connection, streams);
                    Ok(())
                }
                () = tokio::time::sleep_until(due) => self.handle_timeout(),
                () = stopped(shutdown) => {
                    self.say_goodbye(&mut send).await;
                    Err(Ended::Shutdown)
                }
            };
            if let Err(ended) = event {
                return ended;
            }
        }
    }

    fn due(&self) -> Instant {
        let session = self.start + self.session.poll_timeout().0;
        if self.session.is_established() {
            session.min(self.facts_due).min(self.renewal_due)
        } else {
            session
        }
    }

    fn handle_message(&mut self, message: ControllerMessage) -> Result<(), Ended> {
        match self.session.handle_message(message, clock::monotonic(self.start))? {
            AgentEvent::Established(welcome) => self.handle_welcome(&welcome),
            AgentEvent::RoundTrip(span) => tracing::trace!(micros = span.as_micros(), "round_trip"),
            AgentEvent::Message(ControllerMessage::Forget { runs }) => {
                for run in runs.into_vec() {
                    let ours = self.link.runs.clone();
                    // Each by itself: one that is kept for a while must not keep the others.
                    tokio::spawn(async move { ours.forget(run).await });
                }
            }
            AgentEvent::Message(ControllerMessage::Controllers { addresses }) => self.learn(&addresses),
            AgentEvent::Message(ControllerMessage::Move) => return Err(Ended::Moved),
            AgentEvent::Message(ControllerMessage::Renewed { chain }) => self.handle_renewed(chain),
            AgentEvent::Message(ControllerMessage::RenewRefused { reason }) => {
                self.renewal = None;
                tracing::warn!(%reason, "renewal_refused");
            }
            // The session keeps these to itself.
            AgentEvent::Message(ControllerMessage::Welcome(_) | ControllerMessage::Heartbeat { .. }) => {}
        }
        Ok(())
    }

    fn handle_welcome(&mut self, welcome: &Welcome) {
        let now = clock::now();
        let skew_ms = welcome.clock.as_millis().saturating_sub(now.as_millis());
        tracing::info!(
            controller = %self.address,
            version = %welcome.controller_version,
            quarantined = welcome.quarantined,
            skew_ms,
            "connected"
        );
        self.link.state.send_replace(LinkState::Connected {
            controller: self.address.to_string(),
            since: now,
            quarantined: welcome.quarantined,
            skew_ms,
        });
        let notices = std::mem::take(&mut *self.link.notices.lock().unwrap_or_else(PoisonError::into_inner));
        for text in notices {
            self.session.send(AgentMessage::Notice { text: Text::of(&text) });
        }
        self.link.runs.keep(welcome.keep_s);
        self.facts_known = welcome.facts_known;
        self.upkeep = welcome.features.iter().any(|feature| feature == UPKEEP).then_some(None);
        self.facts_due = Instant::now();
        self.renewal_due = self.renewal_time();
    }

    fn handle_timeout(&mut self) -> Result<(), Ended> {
        self.session.handle_timeout(clock::monotonic(self.start), clock::now())?;
        let now = Instant::now();
        if self.session.is_established() && now >= self.facts_due {
            self.facts_due = now + FACTS_EVERY;
            let facts = facts::read();
            let digest = facts.digest(self.link.boot);
            if !self.facts_known || digest != self.facts {
                self.session.send(AgentMessage::Facts(Box::new(facts)));
                (self.facts, self.facts_known) = (digest, true);
            }
            let upkeep = upkeep::read(*self.link.updates.borrow());
            if self.upkeep.is_some_and(|told| told != Some(upkeep)) {
                self.session.send(AgentMessage::Upkeep(upkeep));
                self.upkeep = Some(Some(upkeep));
            }
        }
        if self.session.is_established() && now >= self.renewal_due {
            if clock::now() >= self.link.identity().validity.renew_at() {
                self.renewal_due = now + RENEW_AGAIN;
                self.ask_for_renewal();
            } else {
                self.renewal_due = self.renewal_time();
            }
        }
        Ok(())
    }

    /// Takes note of where controllers listen, for the next time.
    fn learn(&self, addresses: &[Word]) {
        let parsed: Result<Vec<Address>, _> = addresses.iter().map(|address| address.parse()).collect();
        // Those that are known already are as good as before, and the one that answers now is never dropped.
        match parsed {
            Ok(addresses) if addresses.is_empty() => {}
            Ok(mut addresses) => {
                if !addresses.contains(self.address) {
                    addresses.push(self.address.clone());
                }
                match config::write_controllers(&self.link.paths, &addresses) {
                    Ok(()) => tracing::debug!(controllers = addresses.len(), "controllers_learnt"),
                    Err(error) => tracing::warn!(error = super::chain(&error), "controllers_not_learnt"),
                }
            }
            Err(error) => tracing::warn!(%error, "controllers_not_learnt"),
        }
    }

    fn ask_for_renewal(&mut self) {
        let request = Request::generate(&self.link.identity().client)
            .and_then(|request| request.save_key(&self.link.paths).map(|()| request));
        match request {
            Ok(request) => {
                tracing::info!("renewal_requested");
                self.session.send(AgentMessage::Renew { csr: request.csr.clone() });
                self.renewal = Some(request);
            }
            Err(error) => tracing::error!(error = super::chain(&error), "renewal_not_possible"),
        }
    }

    fn handle_renewed(&mut self, chain: Vec<serde_bytes::ByteBuf>) {
        let Some(request) = self.renewal.take() else {
            tracing::warn!("renewal_not_asked_for");
            return;
        };
        let chain = chain.into_iter().map(|der| CertificateDer::from(der.into_vec())).collect();
        match request.install(&self.link.paths, chain, self.link.identity().root.clone()) {
            Ok(identity) => {
                self.link.set_identity(identity);
                self.renewal_due = self.renewal_time();
                tracing::info!("certificate_renewed");
            }
            Err(error) => tracing::error!(error = super::chain(&error), "renewal_not_installed"),
        }
    }

    /// When to look whether the certificate in force is due, on the clock that never steps.
    fn renewal_time(&self) -> Instant {
        let left = self.link.identity().validity.renew_at().since(clock::now());
        // An hour at most: the wall clock may step in the meantime.
        Instant::now() + left.min(Duration::from_secs(3600)).max(Duration::from_secs(1))
    }

    /// Keeps twice as many streams allowed as are open.
    fn allow_streams(&mut self, connection: &Connection, streams: &JoinSet<()>) {
        let open = u32::try_from(streams.len()).unwrap_or(MAX_STREAMS);
        let wanted = (open * 2).next_power_of_two().clamp(IDLE_STREAMS, MAX_STREAMS);
        // Lowered only when all is quiet, so that a busy connection does not go up and down.
        if wanted > self.allowed || (open == 0 && self.allowed != IDLE_STREAMS) {
            self.allowed = wanted;
            connection.set_max_concurrent_bi_streams(wanted.into());
        }
    }

    async fn say_goodbye(&mut self, send: &mut SendStream) {
        let goodbye = async {
            self.writer.push(&AgentMessage::Goodbye)?;
            while !self.writer.is_empty() {
                self.writer.write(send).await?;
            }
            drop(send.finish());
            drop(send.stopped().await);
            Ok::<_, FrameError>(())
        };
        // Without an answer the controller will notice by itself.
        drop(tokio::time::timeout(Duration::from_millis(500), goodbye).await);
    }
}

fn hello(link: &Link, facts: &Facts) -> Hello {
    Hello {
        agent_version: Text::of(crate::VERSION),
        boot: link.boot,
        journal: link.journal,
        kinds: List::of(KINDS.iter().chain(QUERY_KINDS).map(|&kind| Text::of(kind))),
        features: List::of(FEATURES.iter().map(|&feature| Text::of(feature))),
        held: List::of(link.runs.held()),
        facts: facts.digest(link.boot),
        clock: clock::now(),
    }
}

fn failed(error: FrameError) -> Ended {
    match error {
        FrameError::Read(ReadError::ConnectionLost(lost))
        | FrameError::Write(WriteError::ConnectionLost(lost)) => closed(&lost),
        error if error.is_malformed() => Ended::Frame(error),
        other => Ended::Closed { detail: super::chain(&other), cause: None },
    }
}

fn closed(error: &ConnectionError) -> Ended {
    Ended::Closed { detail: super::chain(error), cause: cause_of(error) }
}
