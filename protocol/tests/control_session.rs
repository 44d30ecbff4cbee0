//! The control stream's two ends, driven against each other under virtual time: a link with latency that may
//! die without a word, and peers that send anything at any time.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::VecDeque;
use std::time::Duration;

use fleetward_protocol::digest::Digest;
use fleetward_protocol::id::{BootId, JournalId, RunId};
use fleetward_protocol::message::{AgentMessage, ControllerMessage, Hello, Welcome};
use fleetward_protocol::session::{
    AgentEvent, AgentSession, ControllerEvent, ControllerSession, HANDSHAKE_TIMEOUT, Monotonic, SessionError,
};
use fleetward_protocol::text::{List, Text};
use fleetward_protocol::time::Timestamp;
use proptest::prelude::*;
use uuid::Uuid;

fn hello() -> Hello {
    Hello {
        agent_version: Text::of("0"),
        boot: BootId::from_uuid(Uuid::nil()),
        journal: JournalId::from_uuid(Uuid::nil()),
        kinds: List::default(),
        features: List::default(),
        held: List::default(),
        facts: Digest::of(b""),
        clock: Timestamp::from_millis(0),
    }
}

fn welcome(heartbeat_ms: u32, silence_ms: u32) -> Welcome {
    Welcome {
        controller_version: Text::of("0"),
        clock: Timestamp::from_millis(0),
        heartbeat_ms,
        silence_ms,
        quarantined: false,
        features: List::default(),
        facts_known: false,
        keep_s: 0,
    }
}

fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// Two ends and the link between them.
struct Pair {
    now: Monotonic,
    latency: Duration,
    /// From here on the link delivers nothing.
    dies_at: Option<Monotonic>,
    welcome: Welcome,
    agent: AgentSession,
    controller: ControllerSession,
    up: VecDeque<(Monotonic, AgentMessage)>,
    down: VecDeque<(Monotonic, ControllerMessage)>,
    round_trips: Vec<Duration>,
    heartbeats: u32,
    agent_ended: Option<(Monotonic, SessionError)>,
    controller_ended: Option<(Monotonic, SessionError)>,
}

impl Pair {
    fn new(latency: Duration, welcome: Welcome) -> Self {
        let now = Monotonic::default();
        Self {
            now,
            latency,
            dies_at: None,
            welcome,
            agent: AgentSession::new(hello(), now),
            controller: ControllerSession::new(now),
            up: VecDeque::new(),
            down: VecDeque::new(),
            round_trips: Vec::new(),
            heartbeats: 0,
            agent_ended: None,
            controller_ended: None,
        }
    }

    fn run_until(&mut self, end: Monotonic) {
        loop {
            self.transmit();
            let timeouts = [
                self.agent_ended.is_none().then(|| self.agent.poll_timeout()),
                self.controller_ended.is_none().then(|| self.controller.poll_timeout()),
                self.up.front().map(|(at, _)| *at),
                self.down.front().map(|(at, _)| *at),
            ];
            let Some(next) = timeouts.into_iter().flatten().min().filter(|&next| next <= end) else {
                self.now = end;
                return;
            };
            assert!(next >= self.now, "asked to be woken in the past");
            self.now = next;
            self.deliver();
            if self.agent_ended.is_none()
                && let Err(error) = self.agent.handle_timeout(self.now, Timestamp::from_millis(7))
            {
                self.agent_ended = Some((self.now, error));
            }
            if self.controller_ended.is_none()
                && let Err(error) = self.controller.handle_timeout(self.now)
            {
                self.controller_ended = Some((self.now, error));
            }
        }
    }

    fn transmit(&mut self) {
        let dead = self.dies_at.is_some_and(|at| self.now >= at);
        let arrives = self.now + self.latency;
        while let Some(message) = self.agent.poll_transmit() {
            if !dead {
                self.up.push_back((arrives, message));
            }
        }
        while let Some(message) = self.controller.poll_transmit() {
            if !dead {
                self.down.push_back((arrives, message));
            }
        }
    }

    fn deliver(&mut self) {
        if self.dies_at.is_some_and(|at| self.now >= at) {
            self.up.clear();
            self.down.clear();
        }
        while self.up.front().is_some_and(|(at, _)| *at <= self.now) {
            let (_, message) = self.up.pop_front().unwrap();
            match self.controller.handle_message(message, self.now).unwrap() {
                ControllerEvent::Hello(_) => self.controller.welcome(self.welcome.clone()),
                ControllerEvent::Heartbeat { clock } => {
                    assert_eq!(clock, Timestamp::from_millis(7));
                    self.heartbeats += 1;
                }
                ControllerEvent::Message(_) | ControllerEvent::Goodbye => {}
            }
        }
        while self.down.front().is_some_and(|(at, _)| *at <= self.now) {
            let (_, message) = self.down.pop_front().unwrap();
            if let AgentEvent::RoundTrip(time) = self.agent.handle_message(message, self.now).unwrap() {
                self.round_trips.push(time);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn a_living_link_stays_up_and_its_latency_is_known(latency in 0u64..1400, heartbeat in 100u32..4000) {
        let silence = heartbeat.max(2800) * 3;
        let mut pair = Pair::new(millis(latency), welcome(heartbeat, silence));
        pair.run_until(Monotonic(Duration::from_secs(120)));
        prop_assert_eq!(&pair.agent_ended, &None);
        prop_assert_eq!(&pair.controller_ended, &None);
        prop_assert!(pair.heartbeats >= 10);
        prop_assert!(pair.round_trips.iter().all(|time| *time == millis(2 * latency)));
    }

    /// Both ends notice a link that died without a word: not before the silence they agreed on, and not later
    /// than that after the last thing they can have heard.
    #[test]
    fn a_dead_link_is_noticed_within_the_silence(latency in 0u64..900, dies in 2000u64..60_000) {
        let mut pair = Pair::new(millis(latency), welcome(3000, 9000));
        pair.dies_at = Some(Monotonic(millis(dies)));
        pair.run_until(Monotonic(Duration::from_secs(120)));
        for ended in [pair.agent_ended, pair.controller_ended] {
            let Some((at, SessionError::Silent(silence))) = ended else {
                return Err(TestCaseError::fail(format!("{ended:?}")));
            };
            prop_assert_eq!(silence, millis(9000));
            prop_assert!(at <= Monotonic(millis(dies + 9000)), "noticed after {:?}", at);
            // The last thing heard was at most a heartbeat and its way before the end.
            prop_assert!(at + millis(3000 + 2 * latency) >= Monotonic(millis(dies + 9000)));
        }
    }

    #[test]
    fn a_peer_that_never_speaks_is_given_up(welcomes in any::<bool>()) {
        let mut pair = Pair::new(millis(1), welcome(3000, 9000));
        pair.dies_at = Some(Monotonic(millis(u64::from(welcomes))));
        pair.run_until(Monotonic(Duration::from_secs(60)));
        prop_assert_eq!(pair.agent_ended.unwrap().1, SessionError::Silent(HANDSHAKE_TIMEOUT));
        prop_assert!(pair.controller_ended.unwrap().0 <= Monotonic(HANDSHAKE_TIMEOUT + millis(1)));
    }

    /// Whatever a peer sends whenever: an event or an error, bounded answers, and timeouts that can be waited for.
    #[test]
    fn a_controller_survives_any_agent(
        script in prop::collection::vec((any_agent_message(), 0u64..5000, any::<bool>()), 0..60)
    ) {
        let mut now = Monotonic::default();
        let mut session = ControllerSession::new(now);
        let (mut accepted, mut answers) = (0, 0);
        for (message, pause, decides) in script {
            now = now + millis(pause);
            if session.handle_timeout(now).is_err() {
                prop_assert!(session.poll_timeout() <= now);
                break;
            }
            prop_assert!(session.poll_timeout() > now);
            match session.handle_message(message, now) {
                Ok(ControllerEvent::Hello(_)) if decides => session.welcome(welcome(3000, 9000)),
                Ok(_) => accepted += 1,
                Err(_) => break,
            }
            while session.poll_transmit().is_some() {
                answers += 1;
            }
        }
        prop_assert!(answers <= accepted + 1);
    }

    #[test]
    fn an_agent_survives_any_controller(
        script in prop::collection::vec((any_controller_message(), 0u64..5000), 0..60)
    ) {
        let mut now = Monotonic::default();
        let mut session = AgentSession::new(hello(), now);
        let mut established = false;
        for (message, pause) in script {
            now = now + millis(pause);
            if session.handle_timeout(now, Timestamp::from_millis(0)).is_err() {
                break;
            }
            prop_assert!(session.poll_timeout() > now);
            match session.handle_message(message, now) {
                Ok(AgentEvent::Established(_)) => {
                    prop_assert!(!established, "established twice");
                    established = true;
                }
                Ok(_) => prop_assert!(established, "an event before the welcome"),
                Err(_) => break,
            }
            prop_assert_eq!(session.is_established(), established);
            while session.poll_transmit().is_some() {}
        }
    }
}

fn any_agent_message() -> impl Strategy<Value = AgentMessage> {
    prop_oneof![
        3 => Just(AgentMessage::Hello(hello())),
        6 => (0u64..6)
            .prop_map(|seq| AgentMessage::Heartbeat { seq, clock: Timestamp::from_millis(0) }),
        1 => Just(AgentMessage::Renew { csr: Vec::new() }),
        1 => Just(AgentMessage::Goodbye),
        1 => any::<u64>().prop_map(|seq| AgentMessage::Heartbeat { seq, clock: Timestamp::from_millis(i64::MIN) }),
    ]
}

fn any_controller_message() -> impl Strategy<Value = ControllerMessage> {
    prop_oneof![
        3 => (any::<u32>(), any::<u32>())
            .prop_map(|(heartbeat, silence)| ControllerMessage::Welcome(welcome(heartbeat, silence))),
        6 => (0u64..6).prop_map(|seq| ControllerMessage::Heartbeat { seq }),
        1 => Just(ControllerMessage::Forget { runs: List::of([RunId::from_uuid(Uuid::nil())]) }),
        1 => Just(ControllerMessage::RenewRefused { reason: Text::default() }),
    ]
}

#[test]
fn nothing_goes_up_between_hello_and_welcome() {
    let mut session = AgentSession::new(hello(), Monotonic::default());
    session.send(AgentMessage::Goodbye);
    assert!(matches!(session.poll_transmit(), Some(AgentMessage::Hello(_))));
    assert_eq!(session.poll_transmit(), None);
    session.handle_message(ControllerMessage::Welcome(welcome(1, 1)), Monotonic::default()).unwrap();
    assert_eq!(session.poll_transmit(), Some(AgentMessage::Goodbye));
}

#[test]
fn the_welcome_goes_down_first() {
    let mut session = ControllerSession::new(Monotonic::default());
    session.send(ControllerMessage::Heartbeat { seq: 9 });
    assert_eq!(session.poll_transmit(), None);
    session.handle_message(AgentMessage::Hello(hello()), Monotonic::default()).unwrap();
    assert!(session.handle_message(AgentMessage::Goodbye, Monotonic::default()).is_err());
    session.welcome(welcome(1, 1));
    assert!(matches!(session.poll_transmit(), Some(ControllerMessage::Welcome(_))));
}
