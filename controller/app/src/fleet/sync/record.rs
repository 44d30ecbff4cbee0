//! How an attempt ends: the inventory, the history and the audit event in one transaction.

use fleetward_domain::fleet::inventory::{Inventory, Problem};
use fleetward_protocol::time::Timestamp;
use fleetward_store::fleet::repository::Repository;
use fleetward_store::{self as store, Scope, StoreError, Tx};

use super::apply::{Acceptance, Applied, Refused, apply};
use super::{Ended, Failure, History, Learned, Sync, SyncError, SyncStatus, Syncer, settings, warnings};
use crate::fleet::host::cut_off_from;
use crate::fleet::online::FleetEvent;
use crate::people::actor::Actor;
use crate::people::audit::{self, Entry};

/// The most names that one audit event lists; the counts are always whole.
const MAX_NAMES: usize = 100;

impl Syncer {
    /// Puts an inventory in force, or says what stands against it.
    pub(super) async fn put_in_force(
        &self,
        sync: &mut Sync,
        by: &Actor,
        repository: &Repository,
        learned: &Learned,
        inventory: Inventory,
        acceptance: Acceptance,
    ) -> Result<Result<(), Failure>, SyncError> {
        let parts = &self.0.parts;
        let Some(fetched) = &learned.fetched else {
            return Ok(Err(Failure::Repository("nothing was fetched".to_owned())));
        };
        let mut tx = parts.store.write().await?;
        let now = parts.clock.now();
        let scope = Scope::of(sync.tenant);
        let current = store::fleet::repository::find(&mut tx, &scope, sync.tenant).await?;
        if current.is_none_or(|now| (&now.url, &now.branch) != (&repository.url, &repository.branch)) {
            let changed = "the repository's settings were changed meanwhile; synchronise again";
            return Ok(Err(Failure::Repository(changed.to_owned())));
        }
        let applied = match apply(&mut tx, sync.tenant, &inventory, &fetched.commit, acceptance, now).await {
            Ok(Ok(applied)) => applied,
            Ok(Err(Refused::Problems(problems))) => return Ok(Err(Failure::Files(problems))),
            Ok(Err(Refused::Waits(departures))) => return Ok(Err(Failure::Waits(departures))),
            // Somebody took a name in between; the next attempt sees it.
            Err(StoreError::Conflict { what }) => return Ok(Err(Failure::Repository(what))),
            Err(error) => return Err(error.into()),
        };
        sync.commit = Some(fetched.commit.clone());
        sync.problems = warnings(&repository.branch, learned, &inventory);
        sync.counts = applied.counts;
        sync.status = SyncStatus::Succeeded;
        store::fleet::repository::update_good(&mut tx, sync.tenant, &fetched.commit, now).await?;
        let is_moved = learned.previous.as_deref() != Some(fetched.commit.as_str());
        if is_moved || applied.has_changes() || is_personal(by) {
            let entry = describe(entry("repository.synced", by, sync), &applied, fetched.history);
            let entry = if acceptance == Acceptance::Given { entry.with("accepted", true) } else { entry };
            audit::record(&mut tx, entry, now).await?;
        }
        if let Some(host_key) = &fetched.first_host_key {
            let sealed =
                settings::record_host_key(&mut tx, &parts.secrets, repository, host_key, now).await?;
            if sealed {
                let entry = entry("repository.host_key_recorded", by, sync);
                audit::record(&mut tx, entry.with("fingerprint", host_key.to_string()), now).await?;
            }
        }
        self.end(tx, sync, now).await?;
        for host in &applied.touched {
            parts.fleet.announce(FleetEvent::Host { tenant: sync.tenant, host: *host });
        }
        for host in &applied.gone {
            cut_off_from(&parts.fleet, &parts.dispatcher, sync.tenant, *host);
        }
        if applied.has_changes() {
            self.0.changes.send_modify(|count| *count += 1);
        }
        Ok(Ok(()))
    }

    /// Notes that an attempt failed or waits; the inventory in force stays.
    pub(super) async fn note_refusal(
        &self,
        sync: &mut Sync,
        by: &Actor,
        before: Option<&Sync>,
        failure: Failure,
    ) -> Result<(), SyncError> {
        sync.status = SyncStatus::Failed;
        match failure {
            Failure::Repository(text) => sync.failure = Some(text),
            Failure::Files(problems) => sync.problems = problems,
            Failure::Waits(departures) => {
                sync.status = SyncStatus::Waiting;
                sync.departures = Some(departures);
            }
        }
        match &sync.departures {
            Some(leaving) => tracing::warn!(
                tenant = %sync.tenant, url = %sync.url, branch = %sync.branch, commit = sync.commit.as_deref(),
                hosts = leaving.hosts.count, scripts = leaving.scripts.count, "sync.waits"
            ),
            None => tracing::warn!(
            tenant = %sync.tenant, url = %sync.url, branch = %sync.branch, commit = sync.commit.as_deref(),
            failure = sync.failure.as_deref(), problems = sync.problems.len(),
            first_problem = sync.problems.first().map(Problem::to_string), "sync.failed"
            ),
        }
        let mut tx = self.0.parts.store.write().await?;
        let now = self.0.parts.clock.now();
        // A repository that stays broken is one event, not one for every interval.
        let is_news = before.is_none_or(|before| {
            (before.status, &before.failure, &before.problems, &before.departures)
                != (sync.status, &sync.failure, &sync.problems, &sync.departures)
                || (sync.status == SyncStatus::Waiting && before.commit != sync.commit)
        });
        if is_news || is_personal(by) {
            let problems: Vec<String> = sync.problems.iter().take(10).map(Problem::to_string).collect();
            let entry = match &sync.departures {
                Some(leaving) => entry("repository.sync_waits", by, sync)
                    .with("hosts_leaving", leaving.hosts.count)
                    .with("scripts_leaving", leaving.scripts.count),
                None => entry("repository.sync_failed", by, sync)
                    .with("failure", sync.failure.clone())
                    .with("problems", problems),
            };
            audit::record(&mut tx, entry, now).await?;
        }
        self.end(tx, sync, now).await
    }

    async fn end(&self, mut tx: Tx, sync: &mut Sync, now: Timestamp) -> Result<(), SyncError> {
        sync.ended_at = Some(now);
        let ended = Ended {
            status: sync.status,
            at: now,
            commit: sync.commit.clone(),
            failure: sync.failure.clone(),
            problems: sync.problems.clone(),
            counts: sync.counts,
            departures: sync.departures.clone(),
        };
        store::fleet::sync::update_ended(&mut tx, sync.id, &ended).await?;
        tx.commit().await?;
        Ok(())
    }
}

/// Whether a person asked for it: then the audit log says so even if nothing changed.
fn is_personal(by: &Actor) -> bool {
    !matches!(by, Actor::System)
}

fn describe(mut entry: Entry, applied: &Applied, history: History) -> Entry {
    let lists = [
        ("hosts_added", names(&applied.hosts_added)),
        ("hosts_changed", names(&applied.hosts_changed)),
        ("hosts_retired", names(&applied.hosts_retired)),
        ("scripts_added", names(&applied.scripts_added)),
        ("scripts_changed", names(&applied.scripts_changed)),
        ("scripts_retired", names(&applied.scripts_retired)),
    ];
    for (key, names) in lists.into_iter().filter(|(_, names)| !names.is_empty()) {
        entry = entry.with(&format!("{key}_count"), names.len());
        entry = entry.with(key, names.into_iter().take(MAX_NAMES).collect::<Vec<_>>());
    }
    if history == History::Rewritten { entry.with("history_rewritten", true) } else { entry }
}

fn names<T: ToString>(names: &[T]) -> Vec<String> {
    names.iter().map(ToString::to_string).collect()
}

fn entry(kind: &'static str, by: &Actor, sync: &Sync) -> Entry {
    let entry =
        Entry::new(kind, by.clone(), &sync.url).tenant(sync.tenant).with("branch", sync.branch.clone());
    match &sync.commit {
        Some(commit) => entry.with("commit", commit.clone()),
        None => entry,
    }
}
