//! A model of the controller: what it commits survives it, its queue, sinks and session do not.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use fleetward_domain::work::run::{Cause, RunEvent, RunState, RunStatus};
use fleetward_protocol::action::ActionRequest;
use fleetward_protocol::client_id::ClientId;
use fleetward_protocol::digest::Digest;
use fleetward_protocol::id::{JournalId, OperationId, RunId};
use fleetward_protocol::message::{
    AgentMessage, ControllerMessage, Dispatch, Hello, OpenRun, RunDown, RunUp, Welcome,
};
use fleetward_protocol::order::{Authority, Draft, Limits, Planned, Sealed, Step, Target};
use fleetward_protocol::run::{LostCause, Outcome};
use fleetward_protocol::session::{
    ControllerEvent, ControllerSession, Monotonic, RunSink, SinkEvent, continuation,
};
use fleetward_protocol::text::{List, Text};
use fleetward_protocol::time::Timestamp;
use uuid::Uuid;

use crate::DEADLINE;
use crate::link::{CONTROL, Link, read};

/// A run's durable row.
pub(crate) struct Stored {
    pub(crate) state: RunState,
    pub(crate) log: Vec<u8>,
}

pub(crate) struct Controller {
    pub(crate) store: BTreeMap<RunId, Stored>,
    pub(crate) is_up: bool,
    /// What the sinks handed out and no transaction has taken yet.
    queue: VecDeque<(RunId, SinkEvent)>,
    session: Option<ControllerSession>,
    journal: Option<JournalId>,
    sinks: BTreeMap<u32, (RunId, RunSink)>,
}

impl Controller {
    pub(crate) fn new(runs: BTreeSet<RunId>) -> Self {
        let row = |run| (run, Stored { state: RunState::Queued, log: Vec::new() });
        Self {
            store: runs.into_iter().map(row).collect(),
            is_up: true,
            queue: VecDeque::new(),
            session: None,
            journal: None,
            sinks: BTreeMap::new(),
        }
    }

    pub(crate) fn start(&mut self) {
        self.is_up = true;
    }

    pub(crate) fn crash(&mut self, link: &mut Option<Link>) {
        self.disconnect(link);
        self.queue.clear();
        self.is_up = false;
    }

    pub(crate) fn connect(&mut self) {
        self.forget_link();
        self.session = Some(ControllerSession::new(Monotonic::default()));
    }

    /// Gives the connection up. What its sinks handed out stays queued.
    pub(crate) fn disconnect(&mut self, link: &mut Option<Link>) {
        if let Some(link) = link {
            link.controller_is_gone = true;
        }
        self.forget_link();
    }

    fn forget_link(&mut self) {
        self.session = None;
        self.journal = None;
        self.sinks.clear();
    }

    /// One transaction of one event.
    pub(crate) fn apply(&mut self, run: RunId, event: &RunEvent, now: Timestamp) {
        if self.is_up {
            let stored = self.store.get_mut(&run).unwrap();
            if let Ok(state) = stored.state.clone().apply(event, now) {
                stored.state = state;
            }
        }
    }

    /// Hands a queued run out: commits first, sends then, or crashes in between.
    pub(crate) fn dispatch(&mut self, run: RunId, now: Timestamp, link: &mut Option<Link>, crashes: bool) {
        let (Some(journal), true) = (self.journal, self.is_up) else { return };
        if self.store[&run].state != RunState::Queued {
            return;
        }
        self.apply(run, &RunEvent::Dispatched { journal, deadline: DEADLINE }, now);
        if crashes {
            self.crash(link);
        } else if self.store[&run].state != RunState::Queued {
            self.open(run, now, link.as_mut().unwrap());
        }
    }

    pub(crate) fn send_cancel(&self, run: RunId, link: &mut Link) {
        let cancel = self.store[&run].state.custody().and_then(|custody| custody.cancel);
        for (&stream, (of, _)) in &self.sinks {
            if let (true, Some(cause)) = (*of == run, cancel) {
                link.send_down(stream, &RunDown::Cancel { cause: cause.to_wire() });
            }
        }
    }

    pub(crate) fn receive(&mut self, stream: u32, frame: &[u8], now: Timestamp, link: &mut Link) {
        if stream == CONTROL {
            let Some(session) = &mut self.session else { return };
            let event = session.handle_message(read::<AgentMessage>(frame), Monotonic::default()).unwrap();
            if let ControllerEvent::Hello(hello) = event {
                self.welcome(&hello, now, link);
            }
        } else if let Some((run, sink)) = self.sinks.get_mut(&stream) {
            match sink.handle_message(read::<RunUp>(frame)).unwrap() {
                SinkEvent::Nothing => {}
                event => self.queue.push_back((*run, event)),
            }
        }
    }

    fn welcome(&mut self, hello: &Hello, now: Timestamp, link: &mut Link) {
        self.journal = Some(hello.journal);
        let runs: Vec<_> = self.store.keys().copied().collect();
        for &run in &runs {
            if self.store[&run].state.custody().is_some() {
                self.apply(run, &RunEvent::Reconnected { journal: hello.journal }, now);
            }
        }
        let session = self.session.as_mut().unwrap();
        session.welcome(Welcome {
            controller_version: Text::of("0"),
            clock: now,
            heartbeat_ms: 3000,
            silence_ms: 9000,
            quarantined: false,
            features: List::default(),
            facts_known: false,
            keep_s: 0,
        });
        let ended = |run: &RunId| self.store[run].state.status().is_final();
        let runs_to_forget: Vec<_> = hello.held.iter().copied().filter(ended).collect();
        session.send(ControllerMessage::Forget { runs: List::of(runs_to_forget) });
        while let Some(message) = session.poll_transmit() {
            link.send_down(CONTROL, &message);
        }
        for run in runs {
            if self.store[&run].state.custody().is_some() {
                self.open(run, now, link);
            }
        }
    }

    /// Opens a run's stream, with the order only while there is no proof that the host has it.
    fn open(&mut self, run: RunId, now: Timestamp, link: &mut Link) {
        let stored = &self.store[&run];
        let is_unproven = stored.state.status() == RunStatus::Dispatched;
        let dispatch = is_unproven.then(|| Dispatch {
            order: order(run),
            contents: List::default(),
            remaining_ms: u64::try_from(DEADLINE.since(now).as_millis()).unwrap(),
        });
        let offset = stored.log.len() as u64;
        let stream = link.open();
        let started = stored.state.status() == RunStatus::Running;
        let cancel = stored.state.custody().and_then(|custody| custody.cancel).map(Cause::to_wire);
        link.send_down(stream, &RunDown::Open(OpenRun { run, offset, started, cancel, dispatch }));
        self.sinks.insert(stream, (run, RunSink::new(offset)));
    }

    /// One transaction over the oldest of the queue, then what it allows to be said.
    pub(crate) fn commit(&mut self, events: usize, now: Timestamp, link: &mut Option<Link>) {
        for _ in 0..events.min(self.queue.len()) {
            let Some((run, event)) = self.queue.pop_front() else { return };
            let stored = self.store.get_mut(&run).unwrap();
            let event = match event {
                SinkEvent::Output { offset, bytes } => {
                    let news = continuation(stored.log.len() as u64, offset, &bytes).unwrap();
                    stored.log.extend_from_slice(news);
                    continue;
                }
                SinkEvent::Nothing => continue,
                SinkEvent::Accepted => RunEvent::Accepted,
                SinkEvent::Started { .. } => RunEvent::Started,
                SinkEvent::Refused(refusal) => RunEvent::Refused(refusal),
                SinkEvent::Unknown => panic!("the host forgot {run}"),
                SinkEvent::Finished(finished) => {
                    // Only where the power went can the host's copy be the shorter one: what it sent before and
                    // this queue still held when the stream was opened again counts, too.
                    let stored = stored.log.len() as u64;
                    let is_cut = finished.outcome == Outcome::Lost(LostCause::Reboot);
                    assert!(finished.log_length == stored || (is_cut && finished.log_length < stored));
                    RunEvent::Finished(finished.outcome)
                }
            };
            stored.state = stored.state.clone().apply(&event, now).unwrap();
        }
        let Some(link) = link else { return };
        for (&stream, (run, sink)) in &mut self.sinks {
            let stored = &self.store[run];
            if let Some(acknowledgement) = sink.handle_committed(stored.log.len() as u64) {
                link.send_down(stream, &acknowledgement);
            }
            if stored.state.status().is_final() {
                link.send_down(stream, &sink.handle_result_committed());
            }
        }
    }
}

pub(crate) fn operation(number: usize) -> OperationId {
    OperationId::from_uuid(Uuid::from_u128(number as u128 + 1))
}

pub(crate) fn client() -> ClientId {
    ClientId::issued(Uuid::nil())
}

/// The order of a run, which is the only one of its operation.
fn order(run: RunId) -> Vec<u8> {
    let operation = (0..).map(operation).find(|operation| RunId::derived(*operation, &client(), 0) == run);
    let action = ActionRequest { kind: "script".to_owned(), params: "{}".to_owned() };
    let step = Step {
        authority: Authority::Run(action),
        limits: Limits::DEFAULT.to_list(),
        contents: List::default(),
    };
    let step = step.encode().unwrap();
    let draft = Draft {
        operation: operation.unwrap(),
        issuer: Text::of("model"),
        not_before: Timestamp::from_millis(0),
        deadline: DEADLINE,
        policy: Digest::of(b""),
    };
    let target = Target { client: client(), steps: List::of([Digest::of(&step)]) };
    let planned = Planned::new(draft, std::slice::from_ref(&target)).unwrap();
    let proof = planned.proof(0);
    let sealed = Sealed { plan: planned.plan, signatures: List::default(), target, proof, position: 0, step };
    sealed.encode().unwrap()
}
