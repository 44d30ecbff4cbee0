//! Runs: reading what is stored of them.

use fleetward_domain::work::run::RunStatus;
use fleetward_protocol::digest::Digest;
use fleetward_protocol::id::{OperationId, RunId};
use fleetward_protocol::name::HostName;
use fleetward_store::page::{Page, PageRequest};
use fleetward_store::work::run::{self, Run};
use fleetward_store::work::step::{self, Step};
use fleetward_store::work::{output, report};
use fleetward_store::{Reader, Scope, StoreError};
use tracing::warn;

use crate::App;
use crate::people::access::{Need, Permit, Read, ReadOutput};

/// A run, with what is shown beside it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Overview {
    /// The run.
    pub run: Run,
    /// The step of its operation that it carries out.
    pub step: Step,
    /// What it told when it ended, as JSON.
    pub report: Option<String>,
}

/// What is shown beside runs of one operation.
///
/// # Errors
/// If the store fails.
pub(crate) async fn overviews(
    conn: &mut impl Reader,
    scope: &Scope,
    steps: &[Step],
    runs: Vec<Run>,
) -> Result<Vec<Overview>, StoreError> {
    // What has no output has no report.
    let told: Vec<RunId> = runs.iter().filter(|run| run.output_end > 0).map(|run| run.id).collect();
    let mut reports = report::list(conn, scope, &told).await?;
    let overview = |run: Run| {
        let step = usize::try_from(run.step).ok().and_then(|step| steps.get(step)).cloned();
        let step = step.unwrap_or_else(|| missing_step(&run));
        Overview { step, report: reports.remove(&run.id), run }
    };
    Ok(runs.into_iter().map(overview).collect())
}

/// What is shown for a step that is not there: one row must not hide all others.
fn missing_step(run: &Run) -> Step {
    warn!(run = %run.id, operation = %run.operation, step = run.step, "run.step_missing");
    Step {
        kind: "unknown".to_owned(),
        subject: "a step that is missing in the database".to_owned(),
        digest: Digest::of(b""),
        params: "{}".to_owned(),
    }
}

/// An operation's runs in its own order.
///
/// # Errors
/// If the cursor is not from this list, or the store fails.
pub async fn list(
    app: &App,
    permit: &Permit<Read>,
    operation: OperationId,
    states: &[RunStatus],
    host: Option<&HostName>,
    page: &PageRequest,
) -> Result<Page<Overview>, StoreError> {
    let (mut conn, scope) = (app.store().search().await?, permit.scope());
    let Page { items, next } = run::list(&mut conn, &scope, operation, states, host, page).await?;
    let steps = step::list(&mut conn, &scope, operation).await?;
    Ok(Page { items: overviews(&mut conn, &scope, &steps, items).await?, next })
}

/// One run.
///
/// # Errors
/// [`StoreError::NotFound`] if the caller may not see it.
pub async fn get(app: &App, permit: &Permit<impl Need>, id: RunId) -> Result<Overview, StoreError> {
    let (mut conn, scope) = (app.store().read().await?, permit.scope());
    let run = run::get(&mut conn, &scope, id).await?;
    let steps = step::list(&mut *conn, &scope, run.operation).await?;
    let mut found = overviews(&mut *conn, &scope, &steps, vec![run]).await?;
    found.pop().ok_or(StoreError::NotFound { what: "the run" })
}

/// Some of a run's output log from `offset` on: about `budget` bytes, none at its end.
///
/// # Errors
/// If the store fails.
pub async fn read_output(
    app: &App,
    permit: &Permit<ReadOutput>,
    id: RunId,
    offset: u64,
    budget: usize,
) -> Result<Vec<u8>, StoreError> {
    let mut conn = app.store().read().await?;
    output::read(&mut conn, app.store().files(), &permit.scope(), id, offset, budget).await
}
