//! Who is calling, and the proof that they may.

use std::net::IpAddr;

use fleetward_domain::people::permission::{Grants, Permission};
use fleetward_protocol::id::{SessionId, TenantId, UserId};
use fleetward_protocol::name::UserName;
use fleetward_protocol::time::Timestamp;
use fleetward_store::Scope;

use crate::people::actor::Actor;

/// An authenticated user.
#[derive(Debug, Clone)]
pub struct Caller {
    /// Who.
    pub user: UserId,
    /// By name.
    pub name: UserName,
    /// The login or token used.
    pub session: SessionId,
    /// When it ends by itself; a token may have no end.
    pub ends_at: Option<Timestamp>,
    /// What they were granted.
    pub grants: Grants,
    /// Whether the one-time password must be replaced before anything else.
    pub must_change_password: bool,
    /// From where.
    pub remote: Option<IpAddr>,
}

/// The proof that a caller may do something. Made by [`Caller::permit`] only.
#[derive(Debug, Clone)]
pub struct Permit {
    caller: Caller,
    permission: Permission,
    tenants: Vec<TenantId>,
    tenant: TenantId,
}

/// Why a caller may not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    /// The one-time password must be replaced first.
    #[error("the one-time password must be changed first; use `fleetward login` or the console")]
    MustChangePassword,
    /// No grant allows it.
    #[error("your role does not allow this; it takes the permission {0:?}")]
    NotGranted(Permission),
}

impl Caller {
    /// The proof that the caller has the permission somewhere; where, is its scope.
    ///
    /// # Errors
    /// [`Denied`] if no grant gives it, or the password is a one-time one.
    pub fn permit(self, permission: Permission) -> Result<Permit, Denied> {
        if self.must_change_password {
            return Err(Denied::MustChangePassword);
        }
        let tenants = self.grants.tenants(permission);
        let tenant = *tenants.first().ok_or(Denied::NotGranted(permission))?;
        Ok(Permit { caller: self, permission, tenants, tenant })
    }

    /// The caller, as the audit log names them.
    #[must_use]
    pub fn actor(&self) -> Actor {
        Actor::User { name: self.name.clone(), remote: self.remote }
    }
}

impl Permit {
    /// Who.
    #[must_use]
    pub const fn caller(&self) -> &Caller {
        &self.caller
    }

    /// What was asked for.
    #[must_use]
    pub const fn permission(&self) -> Permission {
        self.permission
    }

    /// Whose rows may be seen or changed.
    #[must_use]
    pub fn scope(&self) -> Scope {
        Scope::Tenants(self.tenants.clone())
    }

    /// Where new rows go: the first tenant the permission is granted in.
    #[must_use]
    pub const fn tenant(&self) -> TenantId {
        self.tenant
    }

    /// The caller, as the audit log names them.
    #[must_use]
    pub fn actor(&self) -> Actor {
        self.caller.actor()
    }
}
