//! Runs: reading what is stored of them.

use fleetward_domain::work::operation::RunCounts;
use fleetward_domain::work::run::RunStatus;
use fleetward_protocol::id::{OperationId, RunId};
use fleetward_protocol::name::HostName;
use fleetward_store::StoreError;
use fleetward_store::page::{Page, PageRequest};
use fleetward_store::work::output;
use fleetward_store::work::run::{self, Run};

use super::App;
use super::access::Permit;

/// An operation's runs in its own order.
///
/// # Errors
/// If the cursor is not from this list, or the store fails.
pub async fn list(
    app: &App,
    permit: &Permit,
    operation: OperationId,
    states: &[RunStatus],
    host: Option<&HostName>,
    page: &PageRequest,
) -> Result<Page<Run>, StoreError> {
    let mut conn = app.store().search().await?;
    run::list(&mut conn, &permit.scope(), operation, states, host, page).await
}

/// How many runs an operation has in each state.
///
/// # Errors
/// If the store fails.
pub async fn counts(app: &App, permit: &Permit, operation: OperationId) -> Result<RunCounts, StoreError> {
    let mut conn = app.store().read().await?;
    run::count(&mut conn, &permit.scope(), operation).await
}

/// One run.
///
/// # Errors
/// [`StoreError::NotFound`] if the caller may not see it.
pub async fn get(app: &App, permit: &Permit, id: RunId) -> Result<Run, StoreError> {
    let mut conn = app.store().read().await?;
    run::get(&mut conn, &permit.scope(), id).await
}

/// Some of a run's output log from `offset` on: about `budget` bytes, none at its end.
///
/// # Errors
/// If the store fails.
pub async fn read_output(
    app: &App,
    permit: &Permit,
    id: RunId,
    offset: u64,
    budget: usize,
) -> Result<Vec<u8>, StoreError> {
    let mut conn = app.store().read().await?;
    output::read(&mut conn, app.store().files(), &permit.scope(), id, offset, budget).await
}
