//! The controller's end of the control stream.

use std::collections::VecDeque;
use std::time::Duration;

use super::{HANDSHAKE_TIMEOUT, Monotonic, SessionError};
use crate::message::{AgentMessage, ControllerMessage, Hello, Welcome};
use crate::time::Timestamp;

/// What the controller must know of, beside what it must send.
#[derive(Debug, Clone, PartialEq)]
pub enum ControllerEvent {
    /// The first message: decide, then call [`ControllerSession::welcome`].
    Hello(Hello),
    /// The host is alive, and this is its clock. The answer is already queued.
    Heartbeat {
        /// The host's clock.
        clock: Timestamp,
    },
    /// A message for the layer above: facts, renewal, notice.
    Message(AgentMessage),
    /// The agent stops on purpose.
    Goodbye,
}

/// Speaks the control stream for a controller.
#[derive(Debug)]
pub struct ControllerSession {
    state: State,
    outbox: VecDeque<ControllerMessage>,
    last_heard: Monotonic,
    last_seq: u64,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum State {
    AwaitingHello,
    AwaitingDecision,
    Established { silence: Duration },
}

impl ControllerSession {
    /// A session on a freshly authenticated connection.
    #[must_use]
    pub const fn new(now: Monotonic) -> Self {
        Self { state: State::AwaitingHello, outbox: VecDeque::new(), last_heard: now, last_seq: 0 }
    }

    /// Queues a message behind what is already to be sent.
    pub fn send(&mut self, message: ControllerMessage) {
        self.outbox.push_back(message);
    }

    /// Establishes the session.
    pub fn welcome(&mut self, welcome: Welcome) {
        self.state = State::Established { silence: Duration::from_millis(u64::from(welcome.silence_ms)) };
        self.outbox.push_front(ControllerMessage::Welcome(welcome));
    }

    /// The next message to send; none before the welcome.
    pub fn poll_transmit(&mut self) -> Option<ControllerMessage> {
        if matches!(self.state, State::Established { .. }) { self.outbox.pop_front() } else { None }
    }

    /// When [`handle_timeout`](Self::handle_timeout) wants to be called next.
    #[must_use]
    pub fn poll_timeout(&self) -> Monotonic {
        self.last_heard + self.silence()
    }

    /// Takes a message from the agent.
    ///
    /// # Errors
    /// If the message may not come now; the connection should be closed.
    pub fn handle_message(
        &mut self,
        message: AgentMessage,
        now: Monotonic,
    ) -> Result<ControllerEvent, SessionError> {
        self.last_heard = now;
        match (self.state, message) {
            (State::AwaitingHello, AgentMessage::Hello(hello)) => {
                self.state = State::AwaitingDecision;
                Ok(ControllerEvent::Hello(hello))
            }
            (State::AwaitingHello, message) => {
                Err(SessionError::Unexpected { message: name(&message), state: "before the hello" })
            }
            // Nothing more may come, and nothing is queued as an answer, until there is a decision.
            (State::AwaitingDecision, message) => {
                Err(SessionError::Unexpected { message: name(&message), state: "before the welcome" })
            }
            (_, AgentMessage::Hello(_)) => {
                Err(SessionError::Unexpected { message: "hello", state: "after the hello" })
            }
            (_, AgentMessage::Heartbeat { seq, clock }) => {
                if seq != self.last_seq + 1 {
                    return Err(SessionError::Unexpected { message: "heartbeat", state: "out of order" });
                }
                self.last_seq = seq;
                self.outbox.push_back(ControllerMessage::Heartbeat { seq });
                Ok(ControllerEvent::Heartbeat { clock })
            }
            (_, AgentMessage::Goodbye) => Ok(ControllerEvent::Goodbye),
            (_, message) => Ok(ControllerEvent::Message(message)),
        }
    }

    /// Notices silence.
    ///
    /// # Errors
    /// [`SessionError::Silent`] when nothing was heard for too long; the host is offline.
    pub fn handle_timeout(&mut self, now: Monotonic) -> Result<(), SessionError> {
        let silence = self.silence();
        if now >= self.last_heard + silence { Err(SessionError::Silent(silence)) } else { Ok(()) }
    }

    const fn silence(&self) -> Duration {
        match self.state {
            State::Established { silence } => silence,
            State::AwaitingHello | State::AwaitingDecision => HANDSHAKE_TIMEOUT,
        }
    }
}

const fn name(message: &AgentMessage) -> &'static str {
    match message {
        AgentMessage::Hello(_) => "hello",
        AgentMessage::Heartbeat { .. } => "heartbeat",
        AgentMessage::Facts(_) => "facts",
        AgentMessage::Renew { .. } => "renewal",
        AgentMessage::Notice { .. } => "notice",
        AgentMessage::Goodbye => "goodbye",
        AgentMessage::Upkeep(_) => "upkeep",
    }
}
