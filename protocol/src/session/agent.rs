//! The agent's end of the control stream.

use std::collections::VecDeque;
use std::time::Duration;

use super::{HANDSHAKE_TIMEOUT, Monotonic, SessionError};
use crate::message::{AgentMessage, ControllerMessage, Hello, Welcome};
use crate::time::Timestamp;

/// What the agent must know of, beside what it must send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AgentEvent {
    /// The session is established.
    Established(Welcome),
    /// A heartbeat was answered after this long.
    RoundTrip(Duration),
    /// A message for the layer above: forget, renewal.
    Message(ControllerMessage),
}

/// Speaks the control stream for an agent.
#[derive(Debug)]
pub struct AgentSession {
    state: State,
    outbox: VecDeque<AgentMessage>,
    last_heard: Monotonic,
}

#[derive(Debug)]
enum State {
    AwaitingWelcome,
    Established {
        interval: Duration,
        silence: Duration,
        next_heartbeat: Monotonic,
        seq: u64,
        pending: Option<(u64, Monotonic)>,
    },
}

impl AgentSession {
    /// A session on a fresh connection; the hello is the first thing to send.
    #[must_use]
    pub fn new(hello: Hello, now: Monotonic) -> Self {
        Self {
            state: State::AwaitingWelcome,
            outbox: VecDeque::from([AgentMessage::Hello(hello)]),
            last_heard: now,
        }
    }

    /// Whether the welcome has come.
    #[must_use]
    pub const fn is_established(&self) -> bool {
        matches!(self.state, State::Established { .. })
    }

    /// Queues a message behind what is already to be sent.
    pub fn send(&mut self, message: AgentMessage) {
        self.outbox.push_back(message);
    }

    /// The next message to send. Before the welcome that is the hello alone.
    pub fn poll_transmit(&mut self) -> Option<AgentMessage> {
        let hello_first = matches!(self.outbox.front(), Some(AgentMessage::Hello(_)));
        if self.is_established() || hello_first { self.outbox.pop_front() } else { None }
    }

    /// When [`handle_timeout`](Self::handle_timeout) wants to be called next.
    #[must_use]
    pub fn poll_timeout(&self) -> Monotonic {
        match &self.state {
            State::AwaitingWelcome => self.last_heard + HANDSHAKE_TIMEOUT,
            State::Established { silence, next_heartbeat, .. } => {
                (*next_heartbeat).min(self.last_heard + *silence)
            }
        }
    }

    /// Takes a message from the controller.
    ///
    /// # Errors
    /// If the message may not come now; the connection should be closed.
    pub fn handle_message(
        &mut self,
        message: ControllerMessage,
        now: Monotonic,
    ) -> Result<AgentEvent, SessionError> {
        self.last_heard = now;
        match (&mut self.state, message) {
            (State::AwaitingWelcome, ControllerMessage::Welcome(welcome)) => {
                // Bounds keep a confused controller from silencing or spinning the host.
                let interval = Duration::from_millis(u64::from(welcome.heartbeat_ms.clamp(100, 3_600_000)));
                let silence = Duration::from_millis(u64::from(welcome.silence_ms)).max(interval * 2);
                self.state = State::Established {
                    interval,
                    silence,
                    next_heartbeat: now + interval,
                    seq: 0,
                    pending: None,
                };
                Ok(AgentEvent::Established(welcome))
            }
            (State::AwaitingWelcome, message) => {
                Err(SessionError::Unexpected { message: name(&message), state: "before the welcome" })
            }
            (State::Established { .. }, message @ ControllerMessage::Welcome(_)) => {
                Err(SessionError::Unexpected { message: name(&message), state: "in an established session" })
            }
            (State::Established { pending, .. }, ControllerMessage::Heartbeat { seq }) => {
                match pending.take() {
                    Some((expected, sent)) if expected == seq => {
                        Ok(AgentEvent::RoundTrip(now.0.saturating_sub(sent.0)))
                    }
                    _ => Err(SessionError::Unexpected {
                        message: "heartbeat",
                        state: "that answers none of ours",
                    }),
                }
            }
            (State::Established { .. }, message) => Ok(AgentEvent::Message(message)),
        }
    }

    /// Does what is due: queues a heartbeat, or notices silence. `clock` goes into the heartbeat.
    ///
    /// # Errors
    /// [`SessionError::Silent`] when nothing was heard for too long; the connection should be closed.
    pub fn handle_timeout(&mut self, now: Monotonic, clock: Timestamp) -> Result<(), SessionError> {
        match &mut self.state {
            State::AwaitingWelcome if now >= self.last_heard + HANDSHAKE_TIMEOUT => {
                Err(SessionError::Silent(HANDSHAKE_TIMEOUT))
            }
            State::AwaitingWelcome => Ok(()),
            State::Established { silence, .. } if now >= self.last_heard + *silence => {
                Err(SessionError::Silent(*silence))
            }
            State::Established { interval, next_heartbeat, seq, pending, .. } => {
                if now >= *next_heartbeat {
                    *next_heartbeat = now + *interval;
                    // One heartbeat is on its way at a time; an unanswered one is what silence is measured by.
                    if pending.is_none() {
                        *seq += 1;
                        *pending = Some((*seq, now));
                        self.outbox.push_back(AgentMessage::Heartbeat { seq: *seq, clock });
                    }
                }
                Ok(())
            }
        }
    }
}

const fn name(message: &ControllerMessage) -> &'static str {
    match message {
        ControllerMessage::Welcome(_) => "welcome",
        ControllerMessage::Heartbeat { .. } => "heartbeat",
        ControllerMessage::Forget { .. } => "forget",
        ControllerMessage::Renewed { .. } => "renewed",
        ControllerMessage::RenewRefused { .. } => "renewal refusal",
        ControllerMessage::Controllers { .. } => "controllers",
        ControllerMessage::Move => "move",
    }
}
