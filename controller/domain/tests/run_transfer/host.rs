//! A model of a host: journal, spool and result files survive everything but a wipe; processes survive the
//! agent; the agent's memory survives nothing.

use std::collections::{BTreeMap, BTreeSet};

use fleetward_protocol::digest::Digest;
use fleetward_protocol::id::{BootId, JournalId, RunId};
use fleetward_protocol::message::{AgentMessage, ControllerMessage, Finished, Hello, RunDown, RunUp};
use fleetward_protocol::order::Order;
use fleetward_protocol::output::{Record, Records, Stream};
use fleetward_protocol::run::{CancelCause, LostCause, Outcome, Refusal};
use fleetward_protocol::session::{
    AgentEvent, AgentSession, Monotonic, RunSource, SourceEvent, SourceTransmit,
};
use fleetward_protocol::text::{List, Text};
use fleetward_protocol::time::Timestamp;
use uuid::Uuid;

use crate::controller::Controller;
use crate::link::{CONTROL, Link, read};
use crate::{DEADLINE, Truth};

type Truths = BTreeMap<RunId, Truth>;

pub(crate) struct Host {
    lives: u128,
    boot: u128,
    journal: u128,
    entries: BTreeMap<RunId, Entry>,
    spools: BTreeMap<RunId, Spool>,
    /// Written by a run's supervisor when its process has ended.
    results: BTreeMap<RunId, Outcome>,
    pub(crate) processes: BTreeSet<RunId>,
    /// Whether it takes new runs: a reason to refuse that comes and goes.
    pub(crate) has_room: bool,
    agent: Option<Agent>,
}

/// A run in the journal.
struct Entry {
    /// The boot in which it was marked as started.
    started: Option<u128>,
    refused: Option<Refusal>,
    finished: Option<Finished>,
}

#[derive(Default)]
struct Spool {
    bytes: Vec<u8>,
    synced: usize,
}

#[derive(Default)]
struct Agent {
    /// Marked as started, and to be spawned next.
    to_spawn: BTreeSet<RunId>,
    to_kill: BTreeSet<RunId>,
    /// Accepted by an earlier agent: not started before the controller opens them.
    unconfirmed: BTreeSet<RunId>,
    session: Option<AgentSession>,
    sources: BTreeMap<u32, (RunId, RunSource)>,
}

impl Host {
    pub(crate) fn new() -> Self {
        Self {
            lives: 0,
            boot: 0,
            journal: 0,
            entries: BTreeMap::new(),
            spools: BTreeMap::new(),
            results: BTreeMap::new(),
            processes: BTreeSet::new(),
            has_room: true,
            agent: Some(Agent::default()),
        }
    }

    pub(crate) fn is_clean(&self) -> bool {
        self.entries.is_empty() && self.spools.is_empty() && self.results.is_empty()
    }

    pub(crate) fn may_connect(&self) -> bool {
        self.agent.as_ref().is_some_and(|agent| agent.session.is_none())
    }

    pub(crate) fn connect(&mut self, link: &mut Link, now: Timestamp) {
        let hello = Hello {
            agent_version: Text::of("0"),
            boot: BootId::from_uuid(Uuid::from_u128(self.boot)),
            journal: JournalId::from_uuid(Uuid::from_u128(self.journal)),
            kinds: List::of([Text::of("script")]),
            features: List::default(),
            held: List::of(self.entries.keys().copied()),
            facts: Digest::of(b""),
            clock: now,
        };
        let mut session = AgentSession::new(hello, Monotonic::default());
        while let Some(message) = session.poll_transmit() {
            link.send_up::<AgentMessage>(CONTROL, &message);
        }
        self.agent.as_mut().unwrap().session = Some(session);
    }

    /// Gives the connection up; what was sent before may still arrive.
    pub(crate) fn disconnect(&mut self, link: &mut Option<Link>) {
        if let Some(link) = link {
            link.host_is_gone = true;
        }
        if let Some(agent) = &mut self.agent {
            agent.session = None;
            agent.sources.clear();
        }
    }

    pub(crate) fn crash_agent(&mut self, link: &mut Option<Link>, truth: &mut Truths) {
        self.disconnect(link);
        if let Some(agent) = self.agent.take() {
            // Marked as started and never spawned: the next agent cannot tell.
            for run in agent.to_spawn {
                truth.get_mut(&run).unwrap().may_be_lost = true;
            }
        }
    }

    /// A new agent looks at what the journal, the supervisors and the result files say.
    pub(crate) fn start_agent(&mut self) {
        if self.agent.is_some() {
            return;
        }
        let unstarted = self.entries.iter().filter(|(_, entry)| entry.started.is_none());
        let unconfirmed = unstarted.map(|(run, _)| *run).collect();
        self.agent = Some(Agent { unconfirmed, ..Agent::default() });
        for (run, entry) in &mut self.entries {
            let (Some(boot), None) = (entry.started, &entry.finished) else { continue };
            if self.processes.contains(run) || self.results.contains_key(run) {
                continue;
            }
            // A record that was torn by the loss of power is cut off, and what is left is synced: the journal
            // is about to vouch for its length.
            if let Some(spool) = self.spools.get_mut(run) {
                let mut records = Records::new(&spool.bytes);
                records.by_ref().for_each(|record| assert!(record.is_ok()));
                let whole = records.consumed();
                spool.bytes.truncate(whole);
                spool.synced = whole;
            }
            let cause = if boot == self.boot { LostCause::SupervisorGone } else { LostCause::Reboot };
            entry.finished = Some(finished(Outcome::Lost(cause), self.spools.get(run)));
        }
    }

    /// Power is lost: processes die, and what was not synced may be gone.
    pub(crate) fn reboot(&mut self, link: &mut Option<Link>, choice: u16, truth: &mut Truths) {
        self.crash_agent(link, truth);
        self.boot += 1;
        for run in std::mem::take(&mut self.processes) {
            truth.get_mut(&run).unwrap().may_be_lost = true;
        }
        for spool in self.spools.values_mut() {
            let unsynced = spool.bytes.len() - spool.synced;
            spool.bytes.truncate(spool.synced + usize::from(choice) % (unsynced + 1));
        }
    }

    /// Reinstalled: nothing is left, and the journal begins a new life.
    pub(crate) fn wipe(&mut self, link: &mut Option<Link>, truth: &mut Truths) {
        self.crash_agent(link, truth);
        for run in self.entries.keys() {
            truth.get_mut(run).unwrap().may_be_lost = true;
        }
        // An order on its way when the disk was wiped is lost, too: nobody can tell that it never arrived.
        truth.values_mut().for_each(|truth| truth.may_be_lost = true);
        self.lives += 1;
        *self =
            Self { lives: self.lives, boot: self.boot + 1, journal: self.lives, agent: None, ..Self::new() };
    }

    pub(crate) fn receive(&mut self, stream: u32, frame: &[u8], controller: &Controller, truth: &mut Truths) {
        let Some(agent) = &mut self.agent else { return };
        if stream == CONTROL {
            let Some(session) = &mut agent.session else { return };
            let message = read::<ControllerMessage>(frame);
            if let AgentEvent::Message(ControllerMessage::Forget { runs }) =
                session.handle_message(message, Monotonic::default()).unwrap()
            {
                runs.into_vec().into_iter().for_each(|run| self.forget(run, controller));
            }
            return;
        }
        let message = read::<RunDown>(frame);
        if let RunDown::Open(open) = message {
            let dispatch = open.dispatch.map(|dispatch| {
                let order = Order::open(&dispatch.order).unwrap();
                assert_eq!(order.run, open.run);
                dispatch.remaining_ms
            });
            let unconfirmed = self.agent.as_mut().unwrap().unconfirmed.remove(&open.run);
            if unconfirmed && (open.started || open.offset > 0) {
                self.entries.remove(&open.run);
            }
            if open.cancel.is_some() {
                self.cancel(open.run, truth);
            }
            self.open(stream, open.run, open.offset, open.cancel, dispatch);
            return;
        }
        let Some((run, source)) = agent.sources.get_mut(&stream) else { return };
        let run = *run;
        match source.handle_message(&message).unwrap() {
            SourceEvent::Acknowledged(offset) => {
                let committed = controller.store[&run].log.len() as u64;
                assert!(offset <= committed, "acknowledged before it was committed");
            }
            SourceEvent::Cancel(_) => self.cancel(run, truth),
            SourceEvent::Forget => self.forget(run, controller),
        }
    }

    /// Whether the host starts this run only after the controller has opened it.
    pub(crate) fn waits_for_word_of(&self, run: RunId) -> bool {
        let waits = |agent: &Agent| agent.unconfirmed.contains(&run);
        self.entries
            .get(&run)
            .is_none_or(|entry| entry.started.is_none() && self.agent.as_ref().is_none_or(waits))
    }

    fn open(
        &mut self,
        stream: u32,
        run: RunId,
        offset: u64,
        cancel: Option<CancelCause>,
        dispatch: Option<u64>,
    ) {
        let mut source = RunSource::new(offset);
        if let (None, Some(remaining_ms)) = (self.entries.get(&run), dispatch) {
            // A refusal is written down like an acceptance: if the answer is lost, or still waits for its commit
            // when the order comes again, it must be the same answer.
            let refused = match (cancel, remaining_ms, self.has_room) {
                (_, 0, _) => Some(Refusal::DeadlinePassed),
                (Some(_), ..) => Some(Refusal::CancelledBeforeStart),
                (None, _, false) => Some(Refusal::DiskFull),
                (None, _, true) => None,
            };
            self.entries.insert(run, Entry { started: None, refused, finished: None });
        }
        match self.entries.get(&run) {
            None => source.handle_unknown(),
            Some(Entry { refused: Some(refusal), .. }) => source.handle_refused(refusal.clone()),
            Some(entry) => {
                source.handle_accepted();
                if entry.started.is_some() {
                    source.handle_started(Timestamp::from_millis(0));
                }
                source.handle_spooled(self.spools.get(&run).map_or(0, |spool| spool.bytes.len() as u64));
                if let Some(finished) = &entry.finished {
                    source.handle_finished(finished.clone());
                }
            }
        }
        self.agent.as_mut().unwrap().sources.insert(stream, (run, source));
    }

    fn cancel(&mut self, run: RunId, truth: &mut Truths) {
        let Some(entry) = self.entries.get_mut(&run) else { return };
        if entry.started.is_none() {
            entry.refused.get_or_insert(Refusal::CancelledBeforeStart);
            let refusal = entry.refused.clone().unwrap();
            self.tell(run, |source| source.handle_refused(refusal.clone()));
        } else if self.processes.remove(&run) {
            self.finish(run, Outcome::Cancelled, truth);
        } else if let Some(agent) = self.agent.as_mut().filter(|agent| agent.to_spawn.contains(&run)) {
            agent.to_kill.insert(run);
        }
    }

    fn forget(&mut self, run: RunId, controller: &Controller) {
        assert!(
            controller.store[&run].state.status().is_final(),
            "forgotten before the result was committed"
        );
        self.entries.remove(&run);
        self.spools.remove(&run);
        self.results.remove(&run);
        self.agent.as_mut().unwrap().sources.retain(|_, (of, _)| *of != run);
    }

    /// The durable mark comes first, the process second.
    pub(crate) fn mark_started(&mut self, run: RunId, now: Timestamp) {
        let Some(agent) = &mut self.agent else { return };
        let Some(entry) = self.entries.get_mut(&run) else { return };
        if entry.started.is_some() || entry.refused.is_some() {
            return;
        }
        if now >= DEADLINE {
            entry.refused = Some(Refusal::DeadlinePassed);
            self.tell(run, |source| source.handle_refused(Refusal::DeadlinePassed));
            return;
        }
        if agent.unconfirmed.contains(&run) {
            return;
        }
        entry.started = Some(self.boot);
        agent.to_spawn.insert(run);
        self.tell(run, |source| source.handle_started(now));
    }

    pub(crate) fn spawn(&mut self, run: RunId, truth: &mut Truths) {
        let Some(agent) = &mut self.agent else { return };
        if agent.to_spawn.remove(&run) {
            truth.get_mut(&run).unwrap().starts += 1;
            self.processes.insert(run);
            self.spools.insert(run, Spool::default());
            if agent.to_kill.remove(&run) {
                self.cancel(run, truth);
            }
        }
    }

    /// The script writes; its supervisor appends to the spool.
    pub(crate) fn write(&mut self, run: RunId, choice: u16, truth: &mut Truths) {
        if !self.processes.contains(&run) {
            return;
        }
        let payload: Vec<u8> = (0..choice % 3000).map(|at| (at ^ choice) as u8).collect();
        let streams = [Stream::Stdout, Stream::Stderr, Stream::Event, Stream::Report];
        let stream = streams[usize::from(choice % 4)];
        let record = Record { stream, at: Timestamp::from_millis(i64::from(choice)), payload: &payload };
        let spool = self.spools.get_mut(&run).unwrap();
        record.append_to(&mut spool.bytes);
        record.append_to(&mut truth.get_mut(&run).unwrap().log);
        let length = spool.bytes.len() as u64;
        self.tell(run, |source| source.handle_spooled(length));
    }

    /// The script ends by itself.
    pub(crate) fn end(&mut self, run: RunId, choice: u16, truth: &mut Truths) {
        if self.processes.remove(&run) {
            let outcome = match choice % 8 {
                1 | 2 => Outcome::Exited(i32::from(choice % 8)),
                3 => Outcome::Signalled(9),
                _ => Outcome::Exited(0),
            };
            self.finish(run, outcome, truth);
        }
    }

    /// The supervisor syncs the spool first, then the result: a result vouches for the whole log.
    fn finish(&mut self, run: RunId, outcome: Outcome, truth: &mut Truths) {
        truth.get_mut(&run).unwrap().outcome = Some(outcome.clone());
        self.sync(run);
        self.results.insert(run, outcome);
    }

    pub(crate) fn sync(&mut self, run: RunId) {
        if let Some(spool) = self.spools.get_mut(&run) {
            spool.synced = spool.bytes.len();
        }
    }

    /// The agent finds a result and writes it to the journal.
    pub(crate) fn reap(&mut self, run: RunId) {
        if self.agent.is_none() {
            return;
        }
        let (Some(outcome), Some(entry)) = (self.results.get(&run), self.entries.get_mut(&run)) else {
            return;
        };
        if entry.finished.is_none() {
            let finished = finished(outcome.clone(), self.spools.get(&run));
            entry.finished = Some(finished.clone());
            self.tell(run, |source| source.handle_finished(finished.clone()));
        }
    }

    /// Sends one message of one of the open streams.
    pub(crate) fn transmit(&mut self, link: &mut Option<Link>, which: usize) {
        let (Some(link), Some(agent)) = (link, &mut self.agent) else { return };
        let Some(chosen) = which.checked_rem(agent.sources.len()) else { return };
        let Some((&stream, (run, source))) = agent.sources.iter_mut().nth(chosen) else { return };
        match source.poll_transmit() {
            None => {}
            Some(SourceTransmit::Message(message)) => link.send_up(stream, &message),
            Some(SourceTransmit::Output { offset, length }) => {
                let at = usize::try_from(offset).unwrap();
                let bytes = self.spools[run].bytes[at..at + length].to_vec();
                link.send_up(stream, &RunUp::Output { offset, bytes: bytes.into() });
            }
        }
    }

    fn tell(&mut self, run: RunId, what: impl Fn(&mut RunSource)) {
        let Some(agent) = &mut self.agent else { return };
        agent.sources.values_mut().filter(|(of, _)| *of == run).for_each(|(_, source)| what(source));
    }
}

fn finished(outcome: Outcome, spool: Option<&Spool>) -> Finished {
    Finished {
        outcome,
        at: Timestamp::from_millis(0),
        duration_ms: 0,
        log_length: spool.map_or(0, |spool| spool.bytes.len() as u64),
        left: None,
    }
}
