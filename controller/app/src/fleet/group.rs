//! Groups of hosts: target expressions under a name.
//!
//! A group is no list: whoever uses it means the hosts that its expression means at that moment.

use std::collections::BTreeMap;

use fleetward_domain::fleet::target::{Target, TargetError};
use fleetward_protocol::name::GroupName;
use fleetward_protocol::printable::is_line;
use fleetward_store::fleet::group::{self, Group};
use fleetward_store::{Scope, StoreError};

use crate::App;
use crate::people::access::{ManageHosts, Permit, Read};
use crate::people::audit::{self, Entry};

/// The most groups of a tenant.
pub const MAX_GROUPS: usize = 500;
/// The longest description, in bytes.
pub const MAX_DESCRIPTION: usize = 200;

/// Why something was not done with a group.
#[derive(Debug, thiserror::Error)]
pub enum GroupError {
    /// There is none of this name that the caller may see.
    #[error("there is no group `{0}`; `fleetward group list` shows those there are")]
    NotFound(GroupName),
    /// Several tenants of the caller have one.
    #[error("several of your tenants have a group `{0}`; name the tenant")]
    Ambiguous(GroupName),
    /// Its expression cannot be read.
    #[error("the target expression cannot be read: {0}")]
    Syntax(#[from] TargetError),
    /// Its expression names another group.
    #[error("a group cannot name another one; write what `@{0}` means in its place")]
    Nested(GroupName),
    /// Its description is too long, or not printable.
    #[error("a description is one printable line of at most {MAX_DESCRIPTION} bytes")]
    Description,
    /// The tenant has as many as it may.
    #[error("there are {MAX_GROUPS} groups already; delete one that nobody uses (`fleetward group list`)")]
    TooMany,
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The groups that the caller may see, by name.
///
/// # Errors
/// If the store fails.
pub async fn list(app: &App, permit: &Permit<Read>) -> Result<Vec<Group>, StoreError> {
    group::list(&mut *app.store().read().await?, &permit.scope()).await
}

/// One group.
///
/// # Errors
/// [`GroupError::NotFound`] or [`GroupError::Ambiguous`].
pub async fn get(app: &App, permit: &Permit<Read>, name: &GroupName) -> Result<Group, GroupError> {
    let mut found = group::list_named(&mut *app.store().read().await?, &permit.scope(), name).await?;
    match (found.pop(), found.is_empty()) {
        (Some(group), true) => Ok(group),
        (Some(_), false) => Err(GroupError::Ambiguous(name.clone())),
        (None, _) => Err(GroupError::NotFound(name.clone())),
    }
}

/// Sets a group of the caller's tenant. The same once more changes nothing.
///
/// # Errors
/// [`GroupError`]: then nothing is changed.
pub async fn set(
    app: &App,
    permit: &Permit<ManageHosts>,
    name: GroupName,
    expression: String,
    description: String,
) -> Result<Group, GroupError> {
    if let Some(other) = Target::parse(&expression)?.groups().into_iter().next() {
        return Err(GroupError::Nested(other.clone()));
    }
    if description.len() > MAX_DESCRIPTION || !is_line(&description) {
        return Err(GroupError::Description);
    }
    let (now, tenant) = (app.now(), permit.tenant());
    let mut tx = app.store().write().await?;
    let all = group::list(&mut tx, &Scope::of(tenant)).await?;
    let before = all.iter().find(|group| group.name == name);
    if let Some(before) = before
        && before.expression == expression
        && before.description == description
    {
        return Ok(before.clone());
    }
    if before.is_none() && all.len() >= MAX_GROUPS {
        return Err(GroupError::TooMany);
    }
    let created_at = before.map_or(now, |before| before.created_at);
    let updated_by = permit.caller().name.clone();
    let entry = Entry::new("group.set", permit.actor(), &name).tenant(tenant).with("on", expression.as_str());
    let group = Group { tenant, name, expression, description, updated_by, created_at, updated_at: now };
    group::update(&mut tx, &group).await?;
    audit::record(&mut tx, entry, now).await?;
    tx.commit().await?;
    Ok(group)
}

/// The expression, knowing what the groups that it names mean in this scope. Groups that there are not stay unexplained.
///
/// # Errors
/// [`GroupError::Ambiguous`], or if the store fails.
pub(crate) async fn explain(app: &App, scope: &Scope, target: Target) -> Result<Target, GroupError> {
    if target.groups().is_empty() {
        return Ok(target);
    }
    let mut meanings = BTreeMap::new();
    let mut conn = app.store().read().await?;
    for name in target.groups() {
        let mut found = group::list_named(&mut conn, scope, name).await?;
        let Some(group) = found.pop() else { continue };
        if !found.is_empty() {
            return Err(GroupError::Ambiguous(name.clone()));
        }
        meanings.insert(name.clone(), Target::parse(&group.expression)?);
    }
    Ok(target.with_groups(&meanings))
}

/// Deletes a group of the caller's tenant. Operations that were started on it have their hosts already.
///
/// # Errors
/// [`GroupError::NotFound`].
pub async fn delete(app: &App, permit: &Permit<ManageHosts>, name: &GroupName) -> Result<(), GroupError> {
    let (now, tenant) = (app.now(), permit.tenant());
    let mut tx = app.store().write().await?;
    if !group::delete(&mut tx, tenant, name).await? {
        return Err(GroupError::NotFound(name.clone()));
    }
    audit::record(&mut tx, Entry::new("group.deleted", permit.actor(), name).tenant(tenant), now).await?;
    tx.commit().await?;
    Ok(())
}
