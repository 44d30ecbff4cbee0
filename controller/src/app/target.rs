//! Targets: which hosts an expression means, seen with what is connected now.

use fleetward_domain::enrolment::Standing;
use fleetward_domain::target::{HostView, NoTarget, Target, TargetError};

use super::App;
use super::access::Permit;
use super::enrolment::standing_of;
use super::fleet::Fleet;
use crate::store::host::{self, Status};
use crate::store::{Reader, Scope, StoreError};

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
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The hosts an expression selects now, by name.
///
/// # Errors
/// [`SelectError`].
pub async fn preview(app: &App, permit: &Permit, expression: &str) -> Result<Vec<Selected>, SelectError> {
    let mut conn = app.store().search().await?;
    select(&mut conn, app.fleet(), &permit.scope(), expression).await
}

pub(super) async fn select(
    conn: &mut impl Reader,
    fleet: &Fleet,
    scope: &Scope,
    expression: &str,
) -> Result<Vec<Selected>, SelectError> {
    let target = Target::parse(expression).map_err(SelectError::Syntax)?;
    let hosts = host::all_for_targets(conn, scope).await?;
    let connected = fleet.presences();
    let status =
        |host: &host::Target| if connected.contains_key(&host.id) { Status::Online } else { Status::Offline };
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
        })
        .collect();
    let chosen = target.select(&views)?;
    Ok(chosen
        .into_iter()
        .filter_map(|index| hosts.get(index))
        .map(|host| Selected {
            status: status(host),
            standing: standing_of(host.lifecycle, host.enrolment),
            host: host.clone(),
        })
        .collect())
}
