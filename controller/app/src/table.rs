//! Table queries, for other programs.

use fleetward_domain::people::permission::Permission;
use fleetward_store::table::{self, TableQuery, TableRows};
use fleetward_store::{Scope, StoreError};

use super::App;
use crate::people::access::{Denied, Permit, Read};

/// The table made of the audit log, which not everybody who sees hosts may see.
const AUDITED: &str = "tbl_recent_activity";

/// Why a query was not answered.
#[derive(Debug, thiserror::Error)]
pub enum TableError {
    /// The table takes another permission.
    #[error(transparent)]
    Denied(#[from] Denied),
    /// The query is wrong, or the store failed.
    #[error(transparent)]
    Table(#[from] table::TableError),
}

/// Answers a query with rows of the caller's tenants.
///
/// # Errors
/// [`TableError`].
pub async fn query(app: &App, permit: &Permit<Read>, asked: &TableQuery) -> Result<TableRows, TableError> {
    let scope = if asked.table == AUDITED {
        Scope::Tenants(permit.caller().granted(Permission::Audit)?)
    } else {
        permit.scope()
    };
    let mut conn = app.store().search().await.map_err(|error: StoreError| table::TableError::from(error))?;
    Ok(table::list(&mut conn, &scope, asked).await?)
}
