//! Putting an inventory in force: what it says is compared with what is there, and the difference is written.
//!
//! A host's identity is its client ID. An entry is the host with its client ID, whatever that was called
//! before and whoever declared it, also one that was retired; failing that, the active git host of its name, which has
//! then got a new identity and has to enrol again. What nobody claims and came from git is retired, and its name is free. An entry with the name, but not the
//! client ID, of a host that the API made is a problem, not a guess. A name that its host leaves is free for another
//! in the same inventory, so hosts can exchange theirs.

use std::collections::{HashMap, HashSet};

use fleetward_domain::fleet::inventory::{
    Inventory, InventoryHost, InventoryScript, Problem, Severity, share,
};
use fleetward_protocol::client_id::ClientId;
use fleetward_protocol::id::{HostId, TenantId};
use fleetward_protocol::name::{HostName, ScriptName};
use fleetward_protocol::time::Timestamp;
use fleetward_store::fleet::host::{Declaration, Declared, Enrolment, Lifecycle, NewHost, Source};
use fleetward_store::fleet::script;
use fleetward_store::fleet::script::{Listed, Script};
use fleetward_store::fleet::sync::{Changes, Counts, Departures};
use fleetward_store::fleet::{certificate, host, token};
use fleetward_store::{Connection, Scope, StoreError};
use uuid::Uuid;

#[cfg(test)]
mod tests;

/// What became of an inventory.
#[derive(Debug, Default)]
pub(super) struct Applied {
    pub(super) counts: Counts,
    pub(super) hosts_added: Vec<HostName>,
    pub(super) hosts_changed: Vec<HostName>,
    pub(super) hosts_retired: Vec<HostName>,
    pub(super) scripts_added: Vec<ScriptName>,
    pub(super) scripts_changed: Vec<ScriptName>,
    pub(super) scripts_retired: Vec<ScriptName>,
    /// Hosts whose rows differ from before and that may stay connected.
    pub(super) touched: Vec<HostId>,
    /// Hosts that are to be cut off: retired, or of another identity now.
    pub(super) gone: Vec<HostId>,
}

/// What is to be done about hosts.
#[derive(Debug, Default)]
struct HostPlan<'i> {
    /// How many active hosts came from git before.
    active: usize,
    insert: Vec<&'i InventoryHost>,
    update: Vec<(Declared, &'i InventoryHost)>,
    retire: Vec<Declared>,
    problems: Vec<Problem>,
}

/// A host that is another than before.
struct ChangedHost {
    before: Declared,
    declared: Declaration,
}

impl ChangedHost {
    /// `None` if everything is as it was.
    fn of((before, entry): (Declared, &InventoryHost)) -> Option<Self> {
        let declared = declaration(entry);
        let is_the_same = is_own(&before) && before.declared == declared;
        (!is_the_same).then_some(Self { before, declared })
    }
}

/// Why an inventory is not put in force.
#[derive(Debug)]
pub(super) enum Refused {
    /// It cannot be.
    Problems(Vec<Problem>),
    /// It takes away so much that a person has to accept it first.
    Waits(Departures),
}

/// Whether a person has seen what this commit takes away, and wants it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Acceptance {
    /// Not yet.
    Wanting,
    /// Yes.
    Given,
}

/// Writes the difference within the caller's transaction, or says why not; nothing is written then.
pub(super) async fn apply(
    conn: &mut Connection,
    tenant: TenantId,
    inventory: &Inventory,
    commit: &str,
    acceptance: Acceptance,
    now: Timestamp,
) -> Result<Result<Applied, Refused>, StoreError> {
    let mut applied = Applied::default();
    let declared = host::all_declared(conn, tenant).await?;
    let scripts = script::list(conn, &Scope::of(tenant), Listed::WithRetired).await?;
    let mut plan = plan_hosts(declared, &inventory.hosts, says_nothing(inventory, "links"));
    // Client IDs are unique in the whole store; whose the other one is, is not for this tenant to know.
    let others = plan.update.iter().filter(|(before, entry)| before.declared.client_id != entry.client_id);
    let new: Vec<&InventoryHost> =
        plan.insert.iter().copied().chain(others.map(|(_, entry)| *entry)).collect();
    let clients: Vec<&ClientId> = new.iter().map(|entry| &entry.client_id).collect();
    let elsewhere: HashSet<ClientId> =
        host::clients_elsewhere(conn, tenant, &clients).await?.into_iter().collect();
    for entry in new.into_iter().filter(|entry| elsewhere.contains(&entry.client_id)) {
        let message = format!("{} belongs to a host of another tenant", entry.client_id);
        plan.problems.push(host_problem(entry, "enrollment.clientId", message));
    }
    let active: Vec<&ScriptName> =
        scripts.iter().filter(|script| script.retired_at.is_none()).map(|script| &script.name).collect();
    let leaving = match says_nothing(inventory, "scripts") {
        true if !active.is_empty() => {
            plan.problems.push(missing_file("scripts"));
            Vec::new()
        }
        true => Vec::new(),
        false => {
            let stay: HashSet<&ScriptName> = inventory.scripts.iter().map(|script| &script.name).collect();
            active.iter().filter(|name| !stay.contains(*name)).map(|name| (*name).clone()).collect()
        }
    };
    if !plan.problems.is_empty() {
        return Ok(Err(Refused::Problems(plan.problems)));
    }
    let hosts = plan.departures();
    let waits = share::needs_acceptance(plan.active, hosts.len())
        || share::needs_acceptance(active.len(), leaving.len());
    if waits && acceptance == Acceptance::Wanting {
        return Ok(Err(Refused::Waits(Departures::new(&hosts, plan.active, &leaving, active.len()))));
    }
    write_hosts(conn, tenant, plan, &mut applied, now).await?;
    if !says_nothing(inventory, "scripts") {
        write_scripts(conn, tenant, scripts, &inventory.scripts, commit, &mut applied, now).await?;
    }
    let count = |list: usize| u32::try_from(list).unwrap_or(u32::MAX);
    applied.counts = Counts {
        hosts: count(inventory.hosts.len()),
        scripts: count(inventory.scripts.len()),
        changes: Changes {
            hosts_added: count(applied.hosts_added.len()),
            hosts_changed: count(applied.hosts_changed.len()),
            hosts_retired: count(applied.hosts_retired.len()),
            scripts_added: count(applied.scripts_added.len()),
            scripts_changed: count(applied.scripts_changed.len()),
            scripts_retired: count(applied.scripts_retired.len()),
        },
    };
    Ok(Ok(applied))
}

impl HostPlan<'_> {
    /// The hosts from git that are cut off: those that leave, and those that lose the identity they enrolled with.
    fn departures(&self) -> Vec<HostName> {
        let replaced = self.update.iter().filter(|(before, entry)| {
            is_own(before)
                && before.enrolment != Enrolment::Pending
                && before.declared.client_id != entry.client_id
        });
        let replaced = replaced.map(|(before, _)| before.declared.name.clone());
        let mut names: Vec<HostName> =
            self.retire.iter().map(|host| host.declared.name.clone()).chain(replaced).collect();
        names.sort();
        names
    }
}

impl Applied {
    /// Whether anything is different from before.
    pub(super) fn has_changes(&self) -> bool {
        self.counts.changes != Changes::default()
    }
}

fn plan_hosts<'i>(existing: Vec<Declared>, entries: &'i [InventoryHost], is_silent: bool) -> HostPlan<'i> {
    let is_active = |host: &&Declared| host.lifecycle == Lifecycle::Active;
    let mut plan =
        HostPlan { active: existing.iter().filter(|host| is_own(host)).count(), ..HostPlan::default() };
    if is_silent {
        if plan.active > 0 {
            plan.problems.push(missing_file("links"));
        }
        return plan;
    }
    // Of those with one client ID the active one, or else the latest: ids grow with time.
    let mut by_client: HashMap<&ClientId, &Declared> = HashMap::new();
    for host in existing.iter().filter(|host| !is_active(host)).chain(existing.iter().filter(is_active)) {
        by_client.insert(&host.declared.client_id, host);
    }
    let by_name: HashMap<&HostName, &Declared> =
        existing.iter().filter(is_active).map(|host| (&host.declared.name, host)).collect();
    let claimed: HashMap<HostId, &InventoryHost> =
        entries.iter().filter_map(|entry| Some((by_client.get(&entry.client_id)?.id, entry))).collect();
    let mut kept: HashSet<HostId> = claimed.keys().copied().collect();
    for entry in entries {
        let same_client = by_client.get(&entry.client_id).copied();
        // A host whose own entry gives it another name leaves this one.
        let same_name = by_name.get(&entry.name).copied();
        let same_name =
            same_name.filter(|host| claimed.get(&host.id).is_none_or(|claim| claim.name == entry.name));
        match (same_client, same_name) {
            (Some(host), Some(other)) if host.id == other.id => plan.update.push((host.clone(), entry)),
            (_, Some(other)) if other.source == Source::Api => plan.problems.push(clash(entry, other)),
            // The other one has no entry any more: it is retired, and its name is free.
            (Some(host), _) => plan.update.push((host.clone(), entry)),
            (None, Some(other)) => {
                kept.insert(other.id);
                plan.update.push((other.clone(), entry));
            }
            (None, None) => plan.insert.push(entry),
        }
    }
    plan.retire = existing.iter().filter(|host| is_own(host) && !kept.contains(&host.id)).cloned().collect();
    plan
}

/// Whether the repository's last word on the host is that it is there.
fn is_own(host: &Declared) -> bool {
    host.source == Source::Git && host.lifecycle == Lifecycle::Active
}

async fn write_hosts(
    conn: &mut Connection,
    tenant: TenantId,
    plan: HostPlan<'_>,
    applied: &mut Applied,
    now: Timestamp,
) -> Result<(), StoreError> {
    for retired in plan.retire {
        if !host::update_retired(conn, retired.id, now).await? {
            return Err(changed(&retired));
        }
        token::delete_unused(conn, retired.id).await?;
        applied.gone.push(retired.id);
        applied.hosts_retired.push(retired.declared.name);
    }
    for (before, entry) in &plan.update {
        if before.declared.name != entry.name {
            host::update_nameless(conn, before.id).await?;
        }
    }
    let changes: Vec<ChangedHost> = plan.update.into_iter().filter_map(ChangedHost::of).collect();
    let declared: Vec<_> = changes.iter().map(|change| (change.before.id, &change.declared)).collect();
    // Whatever happened to them since the plan was made, from here to the commit nobody else changes them.
    if let Some(missing) = host::update_all(conn, tenant, &declared, now).await? {
        let of = |change: &&ChangedHost| change.before.id == missing;
        return Err(changes
            .iter()
            .find(of)
            .map_or(StoreError::NotFound { what: "the host" }, |change| changed(&change.before)));
    }
    for ChangedHost { before, declared } in changes {
        if before.source == Source::Api
            && !host::update_source(conn, before.id, Source::Api, Source::Git, now).await?
        {
            return Err(changed(&before));
        }
        let is_other = before.declared.client_id != declared.client_id;
        let told = if is_other { &mut applied.gone } else { &mut applied.touched };
        told.push(before.id);
        if is_other {
            // The certificate speaks for the identity before: it must not speak for this one.
            certificate::update_revoked(
                conn,
                before.id,
                None,
                "the inventory gave the host another client ID",
                now,
            )
            .await?;
            // On PostgreSQL it may have enrolled, or been revoked, since the plan was made.
            let is = host::get_by_id(conn, &Scope::of(tenant), before.id).await?.enrolment;
            if !host::update_enrolment(conn, before.id, is, Enrolment::Pending, now).await? {
                return Err(changed(&before));
            }
        }
        let is_back = before.lifecycle == Lifecycle::Retired;
        let list = if is_back { &mut applied.hosts_added } else { &mut applied.hosts_changed };
        list.push(declared.name);
    }
    let new = |entry: &InventoryHost| NewHost {
        id: HostId::from_uuid(Uuid::now_v7()),
        tenant,
        declared: declaration(entry),
        source: Source::Git,
        enrolment: Enrolment::Pending,
    };
    let added: Vec<NewHost> = plan.insert.into_iter().map(new).collect();
    host::insert_all(conn, &added, now).await?;
    for host in added {
        applied.touched.push(host.id);
        applied.hosts_added.push(host.declared.name);
    }
    Ok(())
}

/// Somebody else changed a host after the plan was made; the next attempt sees it.
fn changed(host: &Declared) -> StoreError {
    StoreError::Conflict {
        what: format!("`{}` was changed meanwhile; synchronise again", host.declared.name),
    }
}

async fn write_scripts(
    conn: &mut Connection,
    tenant: TenantId,
    existing: Vec<Script>,
    entries: &[InventoryScript],
    commit: &str,
    applied: &mut Applied,
    now: Timestamp,
) -> Result<(), StoreError> {
    let mut existing: HashMap<ScriptName, Script> =
        existing.into_iter().map(|script| (script.name.clone(), script)).collect();
    for entry in entries {
        let before = existing.remove(&entry.name);
        let mut script = Script {
            tenant,
            name: entry.name.clone(),
            digest: entry.digest,
            display_name: entry.title.clone(),
            description: entry.description.clone(),
            emoji: entry.emoji.clone(),
            flags: entry.flags.clone(),
            free_arguments: entry.free_arguments,
            environment: entry.environment.clone(),
            estimated: entry.estimated,
            timeout: entry.timeout,
            user: entry.user.clone(),
            users: entry.users.clone(),
            resources: entry.resources.clone(),
            tags: entry.tags.clone(),
            path: entry.path.as_ref().map(ToString::to_string),
            commit: commit.to_owned(),
            created_at: now,
            updated_at: now,
            retired_at: None,
        };
        if let Some(before) = &before {
            script.created_at = before.created_at;
            // The commit of a script is the one that last changed it.
            let unchanged =
                Script { commit: before.commit.clone(), updated_at: before.updated_at, ..script.clone() };
            if unchanged == *before {
                continue;
            }
        }
        script::insert_content(conn, &entry.content, now).await?;
        script::update(conn, &script).await?;
        let is_new = before.is_none_or(|before| before.retired_at.is_some());
        let list = if is_new { &mut applied.scripts_added } else { &mut applied.scripts_changed };
        list.push(script.name);
    }
    for gone in existing.into_values().filter(|script| script.retired_at.is_none()) {
        script::update_retired(conn, tenant, &gone.name, now).await?;
        applied.scripts_retired.push(gone.name);
    }
    applied.scripts_retired.sort();
    Ok(())
}

fn declaration(entry: &InventoryHost) -> Declaration {
    Declaration {
        name: entry.name.clone(),
        client_id: entry.client_id.clone(),
        host_type: entry.kind.clone(),
        provider: entry.provider.clone(),
        address: Some(entry.address.clone()),
        port: Some(entry.port),
        login_user: Some(entry.user.clone()),
        key_ref: entry.key_ref.clone(),
        proxy_jump: entry.proxy_jump.as_ref().map(ToString::to_string),
        enrolment_required: entry.enrollment_required,
        tags: entry.tags.clone(),
        metadata: entry.metadata.clone(),
    }
}

fn says_nothing(inventory: &Inventory, stem: &str) -> bool {
    inventory.absent.iter().any(|file| file.starts_with(stem))
}

fn missing_file(stem: &str) -> Problem {
    Problem {
        severity: Severity::Error,
        file: format!("{stem}.yaml"),
        line: 0,
        column: 0,
        field: String::new(),
        message: format!(
            "is missing, although what it said is in force; bring it back, or write `{stem}: {{}}` to mean none"
        ),
    }
}

fn clash(entry: &InventoryHost, host: &Declared) -> Problem {
    let message = format!(
        "the name belongs to a host that was added through the API ({}); retire that host (`fleetward host retire {}`), \
         rename this entry, or give it that client ID to take the host over",
        host.declared.client_id, host.declared.name
    );
    host_problem(entry, "", message)
}

fn host_problem(entry: &InventoryHost, field: &str, message: String) -> Problem {
    let path = format!("links.{}.{field}", entry.name);
    Problem {
        severity: Severity::Error,
        file: "links.yaml".to_owned(),
        line: entry.line,
        column: 1,
        field: path.trim_end_matches('.').to_owned(),
        message,
    }
}
