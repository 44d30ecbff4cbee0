//! Tenants: their names, for those who may see them.

use std::collections::HashMap;

use fleetward_protocol::id::TenantId;
use fleetward_protocol::name::TenantName;
use fleetward_store::people::tenant;
use fleetward_store::{Scope, StoreError};

use crate::App;

/// The names of the tenants in scope.
///
/// # Errors
/// If the store fails.
pub async fn names(app: &App, scope: &Scope) -> Result<HashMap<TenantId, TenantName>, StoreError> {
    let mut conn = app.store().read().await?;
    let tenants = tenant::list(&mut conn, scope).await?;
    Ok(tenants.into_iter().map(|tenant| (tenant.id, tenant.name)).collect())
}
