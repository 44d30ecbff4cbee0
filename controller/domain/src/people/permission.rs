//! Permission: what a role may do, and in which tenants.
//!
//! A user holds grants; a grant is a role in one tenant. What is not granted is not allowed. The controller's
//! HTTP layer asks through an extractor type per permission, and the store filters by the tenants that
//! [`Grants::tenants`] returns. Deliberately absent: permissions given to a person directly.

use std::fmt;
use std::str::FromStr;

use fleetward_protocol::action::Privilege;
use fleetward_protocol::id::TenantId;
use serde::{Deserialize, Serialize};

/// What a person is to a tenant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Sees what there is and how it went, not what it printed.
    Reporter,
    /// Sees everything but the audit log.
    Viewer,
    /// Also runs scripts.
    Operator,
    /// May do everything.
    Admin,
}

/// One thing to be allowed or not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Permission {
    /// See hosts, scripts, operations, results.
    Read,
    /// See what scripts printed: it may hold what nobody thought of as secret.
    ReadOutput,
    /// Start and stop operations.
    Run,
    /// Give scripts variables and users that they do not declare.
    Override,
    /// Add, change, approve, revoke and retire hosts; make enrolment tokens.
    ManageHosts,
    /// Set and sync the inventory repository.
    ManageRepo,
    /// Add, change and remove users, their grants and their tokens.
    ManageUsers,
    /// Read the audit log.
    Audit,
}

impl Permission {
    /// Every permission.
    pub const ALL: [Self; 8] = [
        Self::Read,
        Self::ReadOutput,
        Self::Run,
        Self::Override,
        Self::ManageHosts,
        Self::ManageRepo,
        Self::ManageUsers,
        Self::Audit,
    ];
}

impl Role {
    /// Every role, the weakest first.
    pub const ALL: [Self; 4] = [Self::Reporter, Self::Viewer, Self::Operator, Self::Admin];

    /// The role's stable name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Reporter => "reporter",
            Self::Viewer => "viewer",
            Self::Operator => "operator",
            Self::Admin => "admin",
        }
    }

    /// Whether the role includes the permission: the whole table.
    #[must_use]
    pub const fn allows(self, permission: Permission) -> bool {
        match permission {
            Permission::Read => true,
            Permission::ReadOutput => matches!(self, Self::Viewer | Self::Operator | Self::Admin),
            Permission::Run => matches!(self, Self::Operator | Self::Admin),
            Permission::Override
            | Permission::ManageHosts
            | Permission::ManageRepo
            | Permission::ManageUsers
            | Permission::Audit => matches!(self, Self::Admin),
        }
    }
}

impl From<Privilege> for Permission {
    /// What a person needs to ask for an action or a query of this privilege.
    fn from(privilege: Privilege) -> Self {
        match privilege {
            Privilege::Operate => Self::Run,
            Privilege::Administer => Self::ManageHosts,
            Privilege::Observe => Self::ReadOutput,
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Text that is not a role.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a role; the roles are reporter, viewer, operator and admin")]
pub struct InvalidRole(String);

impl FromStr for Role {
    type Err = InvalidRole;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let named = |role: &Self| role.as_str() == text;
        Self::ALL.into_iter().find(named).ok_or_else(|| InvalidRole(text.chars().take(40).collect()))
    }
}

/// A role in one tenant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Grant {
    /// Where.
    pub tenant: TenantId,
    /// As what.
    pub role: Role,
}

/// Everything a user was granted.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Grants(Vec<Grant>);

impl Grants {
    /// The grants of one user; several in one tenant add up.
    #[must_use]
    pub const fn new(grants: Vec<Grant>) -> Self {
        Self(grants)
    }

    /// Whether the permission is granted in the tenant.
    #[must_use]
    pub fn allow(&self, tenant: TenantId, permission: Permission) -> bool {
        self.0.iter().any(|grant| grant.tenant == tenant && grant.role.allows(permission))
    }

    /// The tenants in which the permission is granted, each once: what a query may see.
    #[must_use]
    pub fn tenants(&self, permission: Permission) -> Vec<TenantId> {
        let granted = self.0.iter().filter(|grant| grant.role.allows(permission));
        let mut tenants: Vec<_> = granted.map(|grant| grant.tenant).collect();
        tenants.sort_unstable();
        tenants.dedup();
        tenants
    }

    /// The grants themselves.
    #[must_use]
    pub fn as_slice(&self) -> &[Grant] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use expect_test::expect;
    use proptest::prelude::*;
    use uuid::Uuid;

    use super::*;

    fn tenant(number: u128) -> TenantId {
        TenantId::from_uuid(Uuid::from_u128(number))
    }

    #[test]
    fn the_whole_table() {
        let mut table = String::new();
        for role in Role::ALL {
            let allowed: Vec<_> =
                Permission::ALL.into_iter().filter(|&permission| role.allows(permission)).collect();
            writeln!(table, "{role}: {allowed:?}").unwrap();
            assert_eq!(role.as_str().parse(), Ok(role));
        }
        expect![[r#"
            reporter: [Read]
            viewer: [Read, ReadOutput]
            operator: [Read, ReadOutput, Run]
            admin: [Read, ReadOutput, Run, Override, ManageHosts, ManageRepo, ManageUsers, Audit]
        "#]]
        .assert_eq(&table);
        assert!("root".parse::<Role>().is_err());
    }

    proptest! {
        #[test]
        fn a_grant_never_reaches_into_another_tenant(
            grants in prop::collection::vec((0u128..4, prop::sample::select(&Role::ALL[..])), 0..6),
            wanted in 0u128..5,
            permission in prop::sample::select(&Permission::ALL[..]),
        ) {
            let granted = grants.iter().any(|&(at, role)| at == wanted && role.allows(permission));
            let grants = Grants::new(grants.iter().map(|&(at, role)| Grant { tenant: tenant(at), role }).collect());
            prop_assert_eq!(grants.allow(tenant(wanted), permission), granted);
            prop_assert_eq!(grants.tenants(permission).contains(&tenant(wanted)), granted);
        }

        #[test]
        fn a_stronger_role_may_do_what_a_weaker_one_may(permission in prop::sample::select(&Permission::ALL[..])) {
            for pair in Role::ALL.windows(2) {
                prop_assert!(!pair[0].allows(permission) || pair[1].allows(permission));
            }
        }
    }
}
