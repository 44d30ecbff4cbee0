//! One operation that has not ended, in the dispatcher's memory.

use std::collections::HashMap;

use fleetward_domain::work::operation::{Intent, OperationStatus, RolloutPolicy};
use fleetward_domain::work::rollout::{PlannedHost, Presence, Rollout, RolloutPlan};
use fleetward_domain::work::run::{Cause, RunEvent, RunState};
use fleetward_protocol::client_id::ClientId;
use fleetward_protocol::id::{HostId, OperationId, RunId, TenantId};
use fleetward_protocol::time::Timestamp;
use fleetward_store::Connection;
use fleetward_store::work::operation::Operation;
use fleetward_store::work::run;
use tracing::error;

use crate::fleet::online::{Attach, Fleet, HostCommand};
use crate::secret::SecretBox;
use crate::work::order::{OrderError, Orders};
use crate::work::recorder::{Halted, RunTransition};

/// Whether a host may be given runs now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Eligible {
    /// It is connected and enrolled.
    Yes,
    /// It is not.
    No,
}

/// An operation that has not ended.
#[derive(Debug)]
pub(super) struct Active {
    pub(super) id: OperationId,
    pub(super) tenant: TenantId,
    pub(super) deadline: Timestamp,
    pub(super) rollout: Rollout,
    /// The status that is committed, or on its way to be.
    pub(super) status: OperationStatus,
    pub(super) wake_at: Option<Timestamp>,
    /// Up to which seq the ends of its runs are known here, whoever committed them.
    pub(super) seq: u64,
    /// Whether it is known here that somebody asked to stop it.
    stopping: bool,
    halted: bool,
    /// What orders are made of; or why there are none, and never will be.
    orders: Result<Orders, OrderError>,
    runs: HashMap<RunId, Planned>,
}

#[derive(Debug)]
struct Planned {
    host: HostId,
    client: ClientId,
    step: u32,
    state: RunState,
    /// Why the plan means its host; dropped when it was handed out.
    proof: Vec<u8>,
    /// Its hand-out is with the recorder; when it is committed, the order is sent.
    sending: bool,
}

impl Active {
    pub(super) async fn load(
        conn: &mut Connection,
        secrets: &SecretBox,
        operation: Operation,
        skip_from: Timestamp,
        eligible: impl Fn(HostId) -> Eligible,
    ) -> Result<Self, OrderError> {
        let intent = if operation.stop_requested_at.is_some() { Intent::Stop } else { Intent::Proceed };
        let policy = match (operation.policy, intent) {
            (Ok(policy), _) => policy,
            // What is stopped starts nothing, by whatever policy: it can be ended.
            (Err(_), Intent::Stop) => RolloutPolicy::default(),
            (Err(detail), Intent::Proceed) => return Err(OrderError::Policy { detail }),
        };
        let orders = match Orders::load(conn, secrets, operation.id).await {
            Err(error) if !error.is_lasting() => return Err(error),
            orders => orders,
        };
        let mut proofs = run::list_proofs(conn, operation.id).await?;
        let rows = run::list_all(conn, operation.id).await?;
        let mut hosts: Vec<PlannedHost> = Vec::new();
        let mut runs = HashMap::with_capacity(rows.len());
        for row in rows {
            let entry = (row.id, row.state.clone());
            match hosts.last_mut() {
                // Rows come host by host, in the order of the steps.
                Some(planned) if planned.host == row.host => planned.runs.push(entry),
                _ => {
                    let presence = match eligible(row.host) {
                        Eligible::Yes => Presence::Online,
                        Eligible::No => Presence::Offline,
                    };
                    hosts.push(PlannedHost { host: row.host, presence, runs: vec![entry] });
                }
            }
            let planned = Planned {
                host: row.host,
                client: row.client_id,
                step: row.step,
                state: row.state,
                proof: proofs.remove(&row.id).unwrap_or_default(),
                sending: false,
            };
            runs.insert(row.id, planned);
        }
        let rollout = Rollout::new(RolloutPlan {
            policy,
            deadline: operation.deadline,
            skip_offline_from: operation.created_at.max(skip_from),
            intent,
            hosts,
        });
        Ok(Self {
            id: operation.id,
            tenant: operation.tenant,
            deadline: operation.deadline,
            rollout,
            status: operation.status,
            wake_at: None,
            seq: operation.seq,
            stopping: intent == Intent::Stop,
            halted: operation.halted_at.is_some(),
            orders,
            runs,
        })
    }

    pub(super) fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    /// Somebody asked to stop it; whether that was not known here.
    pub(super) fn stop(&mut self) -> bool {
        self.rollout.handle_stop();
        !std::mem::replace(&mut self.stopping, true)
    }

    /// Its hosts; each may come several times.
    pub(super) fn hosts(&self) -> impl Iterator<Item = HostId> {
        self.runs.values().map(|planned| planned.host)
    }

    /// The runs on a host that have not ended.
    pub(super) fn unfinished_on(&self, host: HostId) -> impl Iterator<Item = (RunId, RunState)> {
        self.runs
            .iter()
            .filter(move |(_, planned)| planned.host == host && !planned.state.status().is_final())
            .map(|(run, planned)| (*run, planned.state.clone()))
    }

    /// The change that puts a run into its host's hands. `None` if the host is not connected; the rollout knows
    /// that then.
    pub(super) fn hand_out(&mut self, run: RunId, fleet: &Fleet) -> Option<RunTransition> {
        let planned = self.runs.get_mut(&run)?;
        let made = match &self.orders {
            Ok(orders) => orders
                .prepare(self.id, &planned.client, planned.step, &planned.proof)
                .map_err(|error| error.refusal()),
            Err(error) => Err(error.refusal()),
        };
        let known = Some(planned.state.clone());
        if let Err(refusal) = made {
            // Better an end with a reason than a run that waits for ever, or a host that cannot be asked for anything.
            return Some(RunTransition {
                operation: self.id,
                run,
                event: RunEvent::NotOrdered(refusal),
                known,
            });
        }
        match fleet.presence(planned.host) {
            Some(presence) => {
                planned.sending = true;
                let event = RunEvent::Dispatched { journal: presence.journal, deadline: self.deadline };
                Some(RunTransition { operation: self.id, run, event, known })
            }
            None => {
                self.rollout.handle_run_changed(run, &planned.state);
                self.rollout.handle_host_offline(planned.host);
                None
            }
        }
    }

    /// A run's state, where it is known better here than in the recorder.
    pub(super) fn known(&self, run: RunId) -> Option<RunState> {
        // While a hand-out is on its way the recorder knows better.
        self.runs.get(&run).filter(|planned| !planned.sending).map(|planned| planned.state.clone())
    }

    /// Takes note of a run's committed state. Returns what its host is to be told: the order, if this is the
    /// commit of a hand-out; a cancel request, if this is the commit of one.
    pub(super) fn note(&mut self, run: RunId, state: &RunState) -> Option<(HostId, HostCommand)> {
        let planned = self.runs.get_mut(&run)?;
        let before = std::mem::replace(&mut planned.state, state.clone());
        let was_sending = std::mem::take(&mut planned.sending);
        let custody = state.custody()?;
        let cancel = custody.cancel.map(Cause::to_wire);
        if !was_sending || !matches!(state, RunState::Dispatched(_)) {
            let is_new = before.custody().is_some_and(|before| before.cancel.is_none());
            return cancel.filter(|_| is_new).map(|cause| (planned.host, HostCommand::Cancel { run, cause }));
        }
        let proof = std::mem::take(&mut planned.proof);
        let orders = self.orders.as_ref().ok()?;
        match orders.prepare(self.id, &planned.client, planned.step, &proof) {
            Ok(dispatch) => {
                let attach = Attach {
                    run,
                    operation: self.id,
                    offset: 0,
                    started: false,
                    journal: custody.journal,
                    dispatch: Some(dispatch),
                    cancel,
                };
                Some((planned.host, HostCommand::Attach(attach)))
            }
            Err(error) => {
                // It could be made before the hand-out.
                error!(%run, %error, "dispatcher.order_failed");
                None
            }
        }
    }

    /// Whether the rollout was halted since the last time.
    pub(super) fn note_halted(&mut self) -> Halted {
        if self.rollout.is_halted() && !std::mem::replace(&mut self.halted, true) {
            Halted::Now
        } else {
            Halted::No
        }
    }
}
