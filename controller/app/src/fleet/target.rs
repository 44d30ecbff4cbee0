//! Targets: which hosts an expression means, seen with what is connected now.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use fleetward_domain::fleet::enrolment::{NotEnrolled, Standing, require_enrolled};
use fleetward_domain::fleet::target::{HostView, NoTarget, Target, TargetError};
use fleetward_protocol::id::HostId;
use fleetward_store::fleet::host::{self, Status};
use fleetward_store::{Scope, StoreError};
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use crate::App;
use crate::fleet::enrolment::standing_of;
use crate::fleet::group::{self, GroupError};
use crate::people::access::{Permit, Read};

/// A host that an expression means.
#[derive(Debug, Clone)]
pub struct Selected {
    /// The host.
    pub host: host::Target,
    /// Whether it would start at once.
    pub status: Status,
    /// Whether it may be run on.
    pub standing: Standing,
}

/// Why an expression means no hosts.
#[derive(Debug, thiserror::Error)]
pub enum SelectError {
    /// It cannot be read.
    #[error("the target expression cannot be read: {0}")]
    Syntax(TargetError),
    /// It means nothing.
    #[error(transparent)]
    Nothing(#[from] NoTarget),
    /// What a group means in it is not clear.
    #[error(transparent)]
    Group(GroupError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A defect of this program.
    #[error("the selection ended unexpectedly; the log has the reason")]
    Panicked(#[source] tokio::task::JoinError),
}

/// What to do with targets that are not enrolled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotEnrolledHosts {
    /// Refuse what is asked, naming them (P13).
    Refuse,
    /// Leave them out.
    LeaveOut,
}

/// How many selections run at once. Each keeps a thread busy for up to its budget of steps.
const SELECTIONS: usize = 2;
/// How long a selection waits for those before it.
const WAIT: Duration = Duration::from_secs(10);

/// The places for selections: they are computed on threads of their own, never on those that serve connections.
#[derive(Debug)]
pub(crate) struct Selections(Arc<Semaphore>);

impl Selections {
    pub(crate) fn new() -> Self {
        Self(Arc::new(Semaphore::new(SELECTIONS)))
    }
}

/// The hosts an expression selects now, by name.
///
/// # Errors
/// [`SelectError`].
pub async fn preview(
    app: &App,
    permit: &Permit<Read>,
    expression: &str,
) -> Result<Vec<Selected>, SelectError> {
    select(app, &permit.scope(), expression).await
}

pub(crate) async fn select(app: &App, scope: &Scope, expression: &str) -> Result<Vec<Selected>, SelectError> {
    let target = Target::parse(expression).map_err(SelectError::Syntax)?;
    // The place first: hosts that are loaded and wait would fill the memory.
    let place = timeout(WAIT, Arc::clone(&app.selections().0).acquire_owned());
    let Ok(Ok(place)) = place.await else { return Err(StoreError::Busy.into()) };
    let (target, scope) = group::explain(app, scope, target).await.map_err(|error| match error {
        GroupError::Store(error) => SelectError::Store(error),
        error => SelectError::Group(error),
    })?;
    let hosts = {
        let mut conn = app.store().search().await?;
        host::all_for_targets(&mut conn, &scope).await?
    };
    let connected: HashSet<HostId> = app.fleet().presences().keys().copied().collect();
    let chosen = spawn_blocking(move || {
        // Whoever gives up waiting does not end the selection; its budget does.
        let _place = place;
        choose(&target, hosts, &connected)
    });
    match chosen.await {
        Ok(chosen) => Ok(chosen?),
        Err(error) => Err(SelectError::Panicked(error)),
    }
}

/// Those of the selected hosts that are enrolled, and how many were left out because they are not.
///
/// # Errors
/// [`NotEnrolled`], if hosts are not to be left out, or none would be left.
pub(crate) fn enrolled(
    mut selected: Vec<Selected>,
    not_enrolled: NotEnrolledHosts,
) -> Result<(Vec<Selected>, u32), NotEnrolled> {
    let matched = selected.len();
    let may_run = |target: &Selected| target.standing.may_run();
    if not_enrolled == NotEnrolledHosts::LeaveOut && selected.iter().any(may_run) {
        selected.retain(may_run);
    }
    require_enrolled(selected.iter().map(|target| (&target.host.name, target.standing)))?;
    let left_out = u32::try_from(matched - selected.len()).unwrap_or(u32::MAX);
    Ok((selected, left_out))
}

fn choose(
    target: &Target,
    hosts: Vec<host::Target>,
    connected: &HashSet<HostId>,
) -> Result<Vec<Selected>, NoTarget> {
    let status =
        |host: &host::Target| if connected.contains(&host.id) { Status::Online } else { Status::Offline };
    let views: Vec<HostView<'_>> = hosts
        .iter()
        .map(|host| HostView {
            name: host.name.as_str(),
            kind: &host.host_type,
            provider: &host.provider,
            status: match status(host) {
                Status::Online => "online",
                Status::Offline => "offline",
            },
            enrolment: standing_of(host.lifecycle, host.enrolment).as_str(),
            tags: host.tags.iter().map(fleetward_protocol::name::Tag::as_str).collect(),
            facts: host.facts.as_ref(),
            upkeep: host.upkeep.as_ref(),
        })
        .collect();
    let chosen = target.select(&views)?;
    drop(views);
    let mut chosen = chosen.into_iter().peekable();
    let mut meant = |at: usize| chosen.next_if_eq(&at).is_some();
    Ok(hosts
        .into_iter()
        .enumerate()
        .filter(|(at, _)| meant(*at))
        .map(|(_, host)| Selected {
            status: status(&host),
            standing: standing_of(host.lifecycle, host.enrolment),
            host,
        })
        .collect())
}
