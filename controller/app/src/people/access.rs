//! Who is calling, and the proof that they may.

use std::marker::PhantomData;
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

/// A permission, as a type.
pub trait Need: Send + Sync + 'static {
    /// Which.
    const PERMISSION: Permission;
}

macro_rules! needs {
    ($($name:ident,)+) => {$(
        #[doc = concat!("[`Permission::", stringify!($name), "`], as a type.")]
        #[derive(Debug)]
        pub enum $name {}

        impl Need for $name {
            const PERMISSION: Permission = Permission::$name;
        }
    )+};
}

needs! { Read, ReadOutput, Run, ManageHosts, ManageRepo, Audit, }

/// The proof that a caller has the permission `N`. Made by [`Caller::permit`] only, so a function that takes one cannot be
/// called without the permission, nor with another one.
pub struct Permit<N> {
    caller: Caller,
    tenants: Vec<TenantId>,
    tenant: TenantId,
    need: PhantomData<fn() -> N>,
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
    pub fn permit<N: Need>(self) -> Result<Permit<N>, Denied> {
        let tenants = self.granted(N::PERMISSION)?;
        let tenant = *tenants.first().ok_or(Denied::NotGranted(N::PERMISSION))?;
        Ok(Permit { caller: self, tenants, tenant, need: PhantomData })
    }

    /// The tenants in which the caller has the permission: one at least.
    ///
    /// # Errors
    /// [`Denied`] if no grant gives it, or the password is a one-time one.
    pub fn granted(&self, permission: Permission) -> Result<Vec<TenantId>, Denied> {
        if self.must_change_password {
            return Err(Denied::MustChangePassword);
        }
        let tenants = self.grants.tenants(permission);
        if tenants.is_empty() { Err(Denied::NotGranted(permission)) } else { Ok(tenants) }
    }

    /// The caller, as the audit log names them.
    #[must_use]
    pub fn actor(&self) -> Actor {
        Actor::User { name: self.name.clone(), remote: self.remote }
    }
}

impl<N: Need> Permit<N> {
    /// Who.
    #[must_use]
    pub const fn caller(&self) -> &Caller {
        &self.caller
    }

    /// That the caller has another permission too, in the [tenant](Self::tenant) of this one: what a kind takes is known only
    /// when the kind is.
    ///
    /// # Errors
    /// [`Denied::NotGranted`].
    pub fn require(&self, permission: Permission) -> Result<(), Denied> {
        match self.allows(self.tenant, permission) {
            true => Ok(()),
            false => Err(Denied::NotGranted(permission)),
        }
    }

    /// Whether the caller has another permission too, in the tenant of a row: what that shows may be more than the row.
    #[must_use]
    pub fn allows(&self, tenant: TenantId, permission: Permission) -> bool {
        self.caller.grants.allow(tenant, permission)
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

// By hand: whoever may is no part of `N`, which is a name and no value.
impl<N> Clone for Permit<N> {
    fn clone(&self) -> Self {
        let Self { caller, tenants, tenant, need } = self;
        Self { caller: caller.clone(), tenants: tenants.clone(), tenant: *tenant, need: *need }
    }
}

impl<N: Need> std::fmt::Debug for Permit<N> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { caller, tenants, tenant, need: _ } = self;
        let mut shown = f.debug_struct("Permit");
        shown.field("permission", &N::PERMISSION).field("caller", caller);
        shown.field("tenants", tenants).field("tenant", tenant).finish()
    }
}
