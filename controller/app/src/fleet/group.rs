//! Groups of hosts: target expressions under a name.
//!
//! A group is no list: whoever uses it means the hosts that its expression means at that moment.

use std::collections::BTreeMap;

use fleetward_domain::fleet::target::{Target, TargetError};
use fleetward_protocol::name::GroupName;
use fleetward_protocol::printable::is_line;
use fleetward_store::fleet::group::{self, Group};
use fleetward_store::people::tenant;
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
    /// It is another tenant's than a group beside it in an expression.
    #[error(
        "the group `{0}` is another tenant's than those before it; ask for the hosts of each tenant by itself"
    )]
    Mixed(GroupName),
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
    // Who sets another one at the same time counts this one.
    tenant::lock(&mut tx, tenant).await?;
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

/// The expression, knowing what the groups that it names mean in this scope, and the scope of the hosts that it may mean. Groups
/// that there are not stay unexplained.
///
/// A group is one tenant's, and says nothing of the hosts of others: an expression that names one means hosts of its tenant.
///
/// # Errors
/// [`GroupError::Ambiguous`], [`GroupError::Mixed`], or if the store fails.
pub(crate) async fn explain(app: &App, scope: &Scope, target: Target) -> Result<(Target, Scope), GroupError> {
    if target.groups().is_empty() {
        return Ok((target, scope.clone()));
    }
    let mut meanings = BTreeMap::new();
    let mut tenant = None;
    let mut conn = app.store().read().await?;
    for name in target.groups() {
        let mut found = group::list_named(&mut conn, scope, name).await?;
        let Some(group) = found.pop() else { continue };
        if !found.is_empty() {
            return Err(GroupError::Ambiguous(name.clone()));
        }
        if tenant.replace(group.tenant).is_some_and(|before| before != group.tenant) {
            return Err(GroupError::Mixed(name.clone()));
        }
        meanings.insert(name.clone(), Target::parse(&group.expression)?);
    }
    Ok((target.with_groups(&meanings), tenant.map_or_else(|| scope.clone(), Scope::of)))
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use fleetward_domain::people::permission::{Grant, Grants, Role};
    use fleetward_store::testing::postgres;
    use tokio::time::timeout;

    use super::*;
    use crate::fleet::host::{self, Addition};
    use crate::fleet::target;
    use crate::testing::TestApp;

    /// On SQLite, then on PostgreSQL.
    async fn on_both(test: &str, body: impl AsyncFn(TestApp)) {
        body(TestApp::start().await).await;
        if let Some(store) = postgres(test).await {
            body(TestApp::start_on(&store.url).await).await;
            store.finish().await;
        }
    }

    async fn put(
        test: &TestApp,
        permit: &Permit<ManageHosts>,
        name: &str,
        on: &str,
    ) -> Result<Group, GroupError> {
        set(test.app(), permit, name.parse().unwrap(), on.to_owned(), String::new()).await
    }

    #[tokio::test]
    async fn a_group_means_hosts_of_its_tenant_only() {
        on_both("groups of tenants", async |test: TestApp| {
            let here = test.permit::<ManageHosts>();
            let elsewhere = test.permit_elsewhere::<ManageHosts>("other").await;
            test.add_host("web-1").await;
            let addition = Addition {
                name: "web-2".parse().unwrap(),
                client_id: None,
                kind: "VM".to_owned(),
                provider: String::new(),
                tags: Vec::new(),
            };
            host::add(test.app(), &elsewhere, addition, None).await.unwrap();
            for (permit, name) in
                [(&here, "mine"), (&elsewhere, "theirs"), (&here, "both"), (&elsewhere, "both")]
            {
                put(&test, permit, name, "web-*").await.unwrap();
            }
            let mut of_both = here.caller().clone();
            let grant = |tenant| Grant { tenant, role: Role::Admin };
            of_both.grants = Grants::new(vec![grant(here.tenant()), grant(elsewhere.tenant())]);
            let of_both = of_both.permit::<Read>().unwrap();
            let chosen = async |on: &str| {
                let selected = target::preview(test.app(), &of_both, on).await?;
                let names = selected.into_iter().map(|selected| selected.host.name.to_string());
                Ok::<_, target::SelectError>(names.collect::<Vec<_>>())
            };
            assert_eq!(chosen("web-*").await.unwrap(), ["web-1", "web-2"]);
            assert_eq!(chosen("@mine").await.unwrap(), ["web-1"]);
            assert_eq!(chosen("@theirs").await.unwrap(), ["web-2"]);
            let told = chosen("@both").await.unwrap_err();
            assert!(matches!(told, target::SelectError::Group(GroupError::Ambiguous(_))), "{told}");
            let told = chosen("@mine or @theirs").await.unwrap_err();
            assert!(matches!(told, target::SelectError::Group(GroupError::Mixed(_))), "{told}");
        })
        .await;
    }

    #[tokio::test]
    async fn of_several_groups_that_are_set_at_once_no_more_come_than_may() {
        on_both("groups at once", async |test: TestApp| {
            let permit = test.permit::<ManageHosts>();
            let one = put(&test, &permit, "g-0", "all").await.unwrap();
            let mut tx = test.app().store().write().await.unwrap();
            for number in 1..MAX_GROUPS - 1 {
                let name = format!("g-{number}").parse().unwrap();
                group::update(&mut tx, &Group { name, ..one.clone() }).await.unwrap();
            }
            tx.commit().await.unwrap();
            // Another one is on its way, and whoever comes now counts it, too.
            let mut other = test.app().store().write().await.unwrap();
            tenant::lock(&mut other, permit.tenant()).await.unwrap();
            group::update(&mut other, &Group { name: "other".parse().unwrap(), ..one }).await.unwrap();
            let mut set = std::pin::pin!(put(&test, &permit, "too-many", "all"));
            assert!(timeout(Duration::from_millis(300), &mut set).await.is_err());
            other.commit().await.unwrap();
            assert!(matches!(set.await, Err(GroupError::TooMany)));
        })
        .await;
    }
}
