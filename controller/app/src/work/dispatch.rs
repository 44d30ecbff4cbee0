//! The dispatcher: carries out what each operation's rollout decides.
//!
//! One task holds a [`Rollout`](fleetward_domain::work::rollout::Rollout) for every operation that has not ended. It is
//! told what happens (hosts come and go, runs move on, somebody stops an operation), asks the rollouts what to do,
//! and hands the decisions to the recorder. Only when the recorder has committed that a run is in a host's hands is
//! the order sent: an order that may have reached a host is never forgotten.
//!
//! **What it promises.** It keeps nothing that the store does not hold: started anew, it goes on where it was.
//! It never waits for a host.

mod active;
mod look;
#[cfg(test)]
mod tests;

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use fleetward_domain::work::operation::OperationStatus;
use fleetward_domain::work::run::RunEvent;
use fleetward_protocol::id::{HostId, OperationId};
use fleetward_protocol::time::Timestamp;
use fleetward_store::fleet::host;
use fleetward_store::work::operation;
use fleetward_store::{Scope, StoreError};
use tokio::time::{MissedTickBehavior, interval, sleep};
use tracing::{debug, error, info, warn};

use self::active::{Active, Eligible};
use crate::App;
use crate::fleet::online::NotSent;
use crate::inbox::{Inbox, Message, RunStateChange};
use crate::work::recorder::{Halted, RunTransition, StatusChange};

/// How long hosts are given to come back after a restart: before operations skip those that are offline, and while
/// queries say so.
pub(crate) const GRACE_AFTER_START: Duration = Duration::from_secs(20);
/// The longest time between two looks at the clock while something is due; a clock that steps is noticed.
const TICK: Duration = Duration::from_secs(1);
/// Messages taken before the rollouts are asked.
const GATHER: usize = 256;
/// How often the store is looked at for operations that nobody spoke of, and for ends of runs: the answer to the commit of a new
/// one may have been lost, and a controller whose place this one took may have committed some more.
const LOOK: Duration = Duration::from_secs(5);

/// Takes up the operations that have not ended, and starts the task.
pub(crate) async fn start(app: &App, inbox: Inbox) -> Result<(), StoreError> {
    let unfinished = operation::list_unfinished_ids(&mut *app.store().read().await?).await?;
    let mut task = Task::new(app.clone());
    for operation in unfinished {
        task.activate(operation.id).await;
    }
    if !task.active.is_empty() {
        info!(operations = task.active.len(), "dispatcher.resumed");
    }
    // It ends only where it is told to, or where commits are lost.
    tokio::spawn(app.vital().watch("dispatcher", || true, task.run(inbox)));
    Ok(())
}

struct Task {
    app: App,
    active: HashMap<OperationId, Active>,
    /// Those that ended here lately, and at how many looks the store has said so.
    ended: HashMap<OperationId, u32>,
    /// Those that could not be taken up so far, of which that was said.
    unloadable: HashSet<OperationId>,
    by_host: HashMap<HostId, HashSet<OperationId>>,
    /// Hosts that are offline are not skipped before this moment: no host has come back right after the start.
    skip_from: Timestamp,
}

impl Task {
    fn new(app: App) -> Self {
        Self {
            skip_from: app.deadlines().now() + GRACE_AFTER_START,
            app,
            active: HashMap::new(),
            ended: HashMap::new(),
            unloadable: HashSet::new(),
            by_host: HashMap::new(),
        }
    }

    async fn run(mut self, mut inbox: Inbox) {
        let mut messages = Vec::with_capacity(GATHER);
        let mut due: HashSet<OperationId> = self.active.keys().copied().collect();
        let mut look = interval(LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            if self.app.continuity().is_broken() {
                // What is decided from here on would be decided by what is no more.
                return;
            }
            let wake = self.advance(&mut due).await;
            let pause = async {
                match wake {
                    Some(at) => {
                        sleep(at.since(self.app.deadlines().now()).clamp(Duration::from_millis(1), TICK))
                            .await
                    }
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                taken = inbox.0.recv_many(&mut messages, GATHER) => {
                    let is_over = messages.iter().any(|message| matches!(message, Message::Shutdown));
                    if taken == 0 || is_over {
                        return;
                    }
                    for message in messages.drain(..) {
                        self.handle(message, &mut due).await;
                    }
                }
                _ = look.tick() => self.look(&mut due).await,
                () = self.app.continuity().broken() => {}
                () = pause => {
                    // Whether something is over is asked of the database's clock, and not of how this one was hours ago.
                    if let Err(error) = self.app.deadlines().read(self.app.store()).await {
                        debug!(%error, "dispatcher.clock_not_read");
                    }
                    let now = self.app.deadlines().now();
                    let timed = self.active.iter().filter(|(_, active)| active.wake_at.is_some_and(|at| at <= now));
                    due.extend(timed.map(|(operation, _)| *operation));
                }
            }
        }
    }

    async fn handle(&mut self, message: Message, due: &mut HashSet<OperationId>) {
        match message {
            Message::Created(operation) => {
                self.activate(operation).await;
                due.insert(operation);
            }
            Message::Stop(operation) => {
                if let Some(active) = self.active.get_mut(&operation) {
                    active.stop();
                    due.insert(operation);
                }
            }
            Message::Online(host) => {
                self.for_host(host, due, |active| active.rollout.handle_host_online(host))
            }
            Message::Offline(host) => {
                self.for_host(host, due, |active| active.rollout.handle_host_offline(host));
            }
            Message::Gone(host) => self.give_up(host, due).await,
            Message::Moved(moved) => {
                let changes = moved.into_iter().filter_map(|moved| self.handle_moved(moved, due)).collect();
                self.apply(changes).await;
            }
            // Looked for before.
            Message::Shutdown => {}
        }
    }

    fn for_host(&mut self, host: HostId, due: &mut HashSet<OperationId>, mut tell: impl FnMut(&mut Active)) {
        for operation in self.by_host.get(&host).into_iter().flatten() {
            if let Some(active) = self.active.get_mut(operation) {
                tell(active);
                due.insert(*operation);
            }
        }
    }

    /// Every run of a host that is given up ends, in whatever state it is.
    async fn give_up(&mut self, host: HostId, due: &mut HashSet<OperationId>) {
        let mut changes = Vec::new();
        self.for_host(host, due, |active| {
            active.rollout.handle_host_offline(host);
            changes.extend(active.unfinished_on(host).map(|(run, state)| RunTransition {
                operation: active.id,
                run,
                event: RunEvent::HostGone,
                known: Some(state),
            }));
        });
        self.apply(changes).await;
    }

    /// Takes note of a run's state, and sends its order if that is the commit of a hand-out.
    fn handle_moved(
        &mut self,
        moved: RunStateChange,
        due: &mut HashSet<OperationId>,
    ) -> Option<RunTransition> {
        let active = self.active.get_mut(&moved.operation)?;
        let send = active.note(moved.run, &moved.state);
        active.rollout.handle_run_changed(moved.run, &moved.state);
        due.insert(moved.operation);
        let (host, command) = send?;
        debug!(run = %moved.run, %host, "dispatcher.tells_host");
        match self.app.fleet().send(host, command) {
            Ok(()) => None,
            Err(NotSent::Offline) => {
                // Its committed state says that the host may have it: when the host is back, its stream is opened.
                debug!(run = %moved.run, "dispatcher.host_left");
                None
            }
            Err(NotSent::OtherJournal(journal)) => Some(RunTransition {
                operation: moved.operation,
                run: moved.run,
                event: RunEvent::Reconnected { journal },
                known: None,
            }),
        }
    }

    /// Asks the rollouts that are due, and carries their decisions out. Returns when to ask again.
    async fn advance(&mut self, due: &mut HashSet<OperationId>) -> Option<Timestamp> {
        while !due.is_empty() {
            let (mut changes, mut statuses) = (Vec::new(), Vec::new());
            for operation in std::mem::take(due) {
                statuses.extend(self.poll(operation, &mut changes, due));
            }
            self.apply(changes).await;
            for status in statuses {
                if self.app.recorder().apply_status(status).await.is_err() {
                    debug!("dispatcher.recorder_stopped");
                }
            }
        }
        self.active.values().filter_map(|active| active.wake_at).min()
    }

    /// Asks a rollout; returns how its operation's status changes, after what is to change of its runs.
    fn poll(
        &mut self,
        operation: OperationId,
        changes: &mut Vec<RunTransition>,
        due: &mut HashSet<OperationId>,
    ) -> Option<StatusChange> {
        let active = self.active.get_mut(&operation)?;
        let decisions = active.rollout.poll(self.app.deadlines().now());
        active.wake_at = decisions.wake_at;
        // Committed with its first hand-out, rather than by itself while the host is at work; it never goes back.
        let mut begun = active.status != OperationStatus::Queued;
        for run in decisions.start {
            match active.hand_out(run, self.app.fleet()) {
                Some(change) => {
                    changes.push(change);
                    begun = true;
                }
                None => {
                    // The host left between its last event and now.
                    due.insert(operation);
                }
            }
        }
        for (run, cause) in decisions.cancel {
            // A host that has the run is told when the cancel request is committed, or when its stream is opened again.
            let known = active.known(run);
            changes.push(RunTransition { operation, run, event: RunEvent::Cancel(cause), known });
        }
        for run in decisions.expire {
            let event = RunEvent::Expire { deadline: active.deadline };
            changes.push(RunTransition { operation, run, event, known: None });
        }
        let halted = active.note_halted();
        let status = match active.rollout.status() {
            OperationStatus::Queued if begun => OperationStatus::Running,
            status => status,
        };
        let moved = (status != active.status || halted == Halted::Now).then(|| {
            let from = std::mem::replace(&mut active.status, status);
            StatusChange { tenant: active.tenant, operation, from, to: status, halted }
        });
        if decisions.finished.is_some() {
            self.deactivate(operation);
        }
        moved
    }

    async fn apply(&self, changes: Vec<RunTransition>) {
        if self.app.recorder().apply(changes).await.is_err() {
            debug!("dispatcher.recorder_stopped");
        }
    }

    async fn activate(&mut self, id: OperationId) {
        if self.active.contains_key(&id) {
            return;
        }
        match self.load(id).await {
            Ok(active) => {
                self.unloadable.remove(&id);
                for host in active.hosts() {
                    self.by_host.entry(host).or_default().insert(id);
                }
                self.active.insert(id, active);
            }
            // It stays as it is in the store, and is looked for again, every few seconds: said once.
            Err(error) if self.unloadable.insert(id) => {
                error!(operation = %id, %error, "dispatcher.load_failed");
            }
            Err(error) => debug!(operation = %id, %error, "dispatcher.load_failed"),
        }
    }

    async fn load(&self, id: OperationId) -> Result<Active, crate::work::order::OrderError> {
        let mut conn = self.app.store().read().await?;
        let operation = operation::get(&mut conn, &Scope::Everything, id).await?;
        let hosts = host::all_for_targets(&mut conn, &Scope::of(operation.tenant)).await?;
        let approved: HashSet<HostId> = hosts
            .iter()
            .filter(|host| host.enrolment == host::Enrolment::Enrolled)
            .map(|host| host.id)
            .collect();
        let fleet = self.app.fleet();
        let eligible = |host: HostId| {
            if approved.contains(&host) && fleet.presence(host).is_some() {
                Eligible::Yes
            } else {
                Eligible::No
            }
        };
        self.app.continuity().note_stored(id, operation.seq);
        let active = Active::load(&mut conn, self.app.secrets(), operation, self.skip_from, eligible).await?;
        if active.is_empty() {
            warn!(operation = %id, "dispatcher.operation_without_runs");
        }
        Ok(active)
    }

    fn deactivate(&mut self, operation: OperationId) {
        let Some(active) = self.active.remove(&operation) else { return };
        self.ended.insert(operation, 0);
        for host in active.hosts() {
            if let Some(operations) = self.by_host.get_mut(&host) {
                operations.remove(&operation);
                if operations.is_empty() {
                    self.by_host.remove(&host);
                }
            }
        }
    }
}
