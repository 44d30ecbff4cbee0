//! The look at the store, for what nobody tells the dispatcher: what another controller has committed, and what is no more.

use std::collections::{BTreeMap, HashSet};

use fleetward_domain::work::run::RunState;
use fleetward_protocol::id::{OperationId, RunId};
use fleetward_store::work::operation::{self, Unfinished};
use fleetward_store::work::run;
use fleetward_store::{Connection, StoreError};
use tracing::{debug, info, warn};

use super::Task;
use crate::inbox::RunStateChange;

/// For how many looks an operation that ended is watched: a failover that takes its end away begins it anew in the store.
const WATCHED: u32 = 120;

/// What the store has.
struct Found {
    unfinished: Vec<Unfinished>,
    /// The seqs of those that have not ended here and have there.
    ended: BTreeMap<OperationId, u64>,
    /// Ends of runs that nobody told of.
    missed: Vec<RunStateChange>,
    /// Up to which seq of each operation that was read.
    upto: Vec<(OperationId, u64)>,
}

impl Task {
    /// Takes up what is in the store and not here; notices what was and is no more.
    pub(super) async fn look(&mut self, due: &mut HashSet<OperationId>) {
        // What comes after this moment may not be in what is read.
        let before = self.app.continuity().latest();
        let found = match self.look_up().await {
            Ok(found) => found,
            // It is looked at again.
            Err(error) => return debug!(%error, "dispatcher.look_failed"),
        };
        let stored: BTreeMap<OperationId, u64> =
            found.unfinished.iter().map(|operation| (operation.id, operation.seq)).collect();
        for (operation, seq) in before {
            let there = stored.get(&operation).or_else(|| found.ended.get(&operation)).copied();
            // What has ended on both sides is no longer looked at.
            if self.active.contains_key(&operation) || there.is_some() {
                self.app.continuity().compare(operation, seq, there);
            }
        }
        if self.app.continuity().is_broken() {
            return;
        }
        for moved in found.missed {
            debug!(run = %moved.run, "dispatcher.missed_an_end");
            // A final state has no order and no cancel request to send.
            let _ = self.handle_moved(moved, due);
        }
        for (id, seq) in found.upto {
            if let Some(active) = self.active.get_mut(&id) {
                active.seq = active.seq.max(seq);
                self.app.continuity().note_stored(id, seq);
            }
        }
        for operation in found.unfinished.iter().filter(|operation| operation.stop_requested) {
            if let Some(active) = self.active.get_mut(&operation.id)
                && active.stop()
            {
                info!(operation = %operation.id, "dispatcher.found_a_stop");
                due.insert(operation.id);
            }
        }
        self.ended.retain(|id, looks| {
            // What has ended here says so in the store in a moment.
            *looks = if stored.contains_key(id) { 0 } else { *looks + 1 };
            *looks <= WATCHED
        });
        let known = |id: &OperationId| self.active.contains_key(id) || self.ended.contains_key(id);
        self.app.continuity().retain(known);
        let unfinished = found.unfinished.iter().map(|operation| operation.id);
        let new: Vec<_> = unfinished.filter(|id| !known(id)).collect();
        self.unloadable.retain(|id| stored.contains_key(id));
        for id in new {
            if !self.unloadable.contains(&id) {
                info!(operation = %id, "dispatcher.found");
            }
            self.activate(id).await;
            due.insert(id);
        }
    }

    /// What the store has of operations that have not ended, there or here. Another controller may have committed an end after
    /// this one had loaded the operation.
    async fn look_up(&self) -> Result<Found, StoreError> {
        self.app.deadlines().read(self.app.store()).await?;
        let mut conn = self.app.store().read().await?;
        let unfinished = operation::list_unfinished_ids(&mut conn).await?;
        let there: HashSet<OperationId> = unfinished.iter().map(|operation| operation.id).collect();
        let others: Vec<OperationId> = self.active.keys().copied().filter(|id| !there.contains(id)).collect();
        let ended = operation::list_seqs(&mut conn, &others).await?;
        let seqs = unfinished.iter().map(|operation| (operation.id, operation.seq));
        let mut found = Found { missed: Vec::new(), upto: Vec::new(), ended, unfinished: Vec::new() };
        for (id, seq) in seqs.chain(found.ended.iter().map(|(id, seq)| (*id, *seq))) {
            // One that cannot be read keeps no other from being looked at.
            match self.missed(&mut conn, id, seq).await {
                Ok(missed) => {
                    found.missed.extend(missed);
                    found.upto.push((id, seq));
                }
                // On this connection no other would be read either.
                Err(error @ (StoreError::Unavailable(_) | StoreError::ReadOnly(_))) => return Err(error),
                Err(error) => warn!(operation = %id, %error, "dispatcher.ends_not_read"),
            }
        }
        found.unfinished = unfinished;
        Ok(found)
    }

    /// The ends of an operation's runs that are not known here, up to `seq`.
    async fn missed(
        &self,
        conn: &mut Connection,
        id: OperationId,
        seq: u64,
    ) -> Result<Vec<RunStateChange>, StoreError> {
        let Some(active) = self.active.get(&id).filter(|active| active.seq < seq) else {
            return Ok(Vec::new());
        };
        let is_news =
            |(run, _): &(RunId, RunState)| active.known(*run).is_some_and(|state| !state.status().is_final());
        let ended = run::list_ended_since(conn, id, active.seq).await?.into_iter();
        Ok(ended.filter(is_news).map(|(run, state)| RunStateChange { operation: id, run, state }).collect())
    }
}
