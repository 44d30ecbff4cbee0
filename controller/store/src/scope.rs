//! Which tenants' rows a caller may see.

use fleetward_protocol::id::TenantId;

/// The tenant filter that every query on tenants' data carries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scope {
    /// Rows of these tenants only. An empty list sees nothing.
    Tenants(Vec<TenantId>),
    /// Every row; only for the system itself (dispatch, retention), never for a request.
    Everything,
}

impl Scope {
    /// The rows of one tenant.
    #[must_use]
    pub fn of(tenant: TenantId) -> Self {
        Self::Tenants(vec![tenant])
    }

    /// Whether rows of `tenant` are visible.
    #[must_use]
    pub fn includes(&self, tenant: TenantId) -> bool {
        match self {
            Self::Tenants(tenants) => tenants.contains(&tenant),
            Self::Everything => true,
        }
    }
}
