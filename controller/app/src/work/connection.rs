//! A host's connection, from its certificate to its departure.

mod admission;
mod budget;
mod report;
mod seat;
mod twin;

pub use admission::{Admitted, NotAdmitted, admit};
pub use budget::{HostBudgets, is_cut_off_told, record_cut_off};
pub use report::{renew, take_facts, take_notice, take_upkeep};
pub use seat::HeldSeat;
pub use twin::TwinWatches;

use std::collections::HashMap;
use std::collections::hash_map::Entry as Slot;
use std::net::SocketAddr;
use std::time::Duration;

use fleetward_domain::bucket::TooMany;
use fleetward_domain::fleet::budget::Expense;
use fleetward_domain::people::refusal::{Source, Telling};
use fleetward_domain::work::run::{Cause, RunEvent, RunState, RunStatus};
use fleetward_protocol::id::{OperationId, RunId};
use fleetward_protocol::message::{FEATURES, Hello, Welcome};
use fleetward_protocol::printable::to_line;
use fleetward_protocol::text::{List, Text};
use fleetward_store::fleet::host::{self, Connected, Enrolment, Host};
use fleetward_store::work::run::{self, Run};
use fleetward_store::{Connection, Scope, StoreError};
use tokio::sync::mpsc;
use tracing::warn;

use crate::App;
use crate::fleet::online::{Attach, FleetEvent, HostCommand, Newcomer, PreparedDispatch};
use crate::people::actor::Actor;
use crate::people::audit::Entry;
use crate::refusal;
use crate::secret::SecretBox;
use crate::work::order::{OrderError, Orders};
use crate::work::recorder::RunTransition;

/// How often an agent says that it is there.
const HEARTBEAT: Duration = Duration::from_secs(3);
/// Silence after which a host is offline.
const SILENCE: Duration = Duration::from_secs(9);
/// A difference of clocks above which people are told.
const NOTABLE_SKEW_MS: u64 = 30_000;

/// Why a session is not established.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// The certificate is not good any more.
    #[error(transparent)]
    NotAdmitted(#[from] NotAdmitted),
    /// The host has connected too often lately.
    #[error("the host connects too often; try again in {} s", .0.retry_after.as_secs())]
    TooOften(TooMany),
    /// What the host holds could not be found out.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// An established session.
#[derive(Debug)]
pub struct Session {
    /// Its place in the fleet.
    pub seat: HeldSeat,
    /// What the host will be asked for.
    pub commands: mpsc::UnboundedReceiver<HostCommand>,
    /// The answer to the hello.
    pub welcome: Welcome,
    /// The runs whose streams are to be opened.
    pub attach: Vec<Attach>,
    /// The runs that the host may forget.
    pub forget: Vec<RunId>,
}

/// How a session ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Departure {
    /// The agent stopped on purpose.
    Goodbye,
    /// The connection was closed, or the controller stops.
    Disconnected,
    /// Nothing was heard for too long.
    Silent,
    /// The agent said what it may not say.
    BrokeProtocol,
    /// The certificate that the connection was opened with ended.
    Expired,
    /// A newer connection took over.
    Superseded,
    /// The host was revoked or retired.
    Revoked,
}

/// Takes the host's seat and finds out what it holds.
///
/// The certificate is looked at before the seat is taken, so that a revoked one drives nobody out, and again after
/// it: whoever revokes it commits first and then closes the seat, so in either order one of the two is noticed.
///
/// # Errors
/// If the host connects too often, the certificate is not good any more, or the store fails; the seat is free again
/// then.
pub async fn join(
    app: &App,
    admitted: &Admitted,
    hello: &Hello,
    remote: SocketAddr,
) -> Result<Session, JoinError> {
    app.budgets().admit(app, admitted.host, Expense::Connection).map_err(JoinError::TooOften)?;
    admit(app, &admitted.identity).await?;
    let now = app.now();
    let clock_skew_ms = hello.clock.as_millis().saturating_sub(now.as_millis());
    let newcomer = Newcomer {
        host: admitted.host,
        tenant: admitted.tenant,
        journal: hello.journal,
        boot: hello.boot,
        remote,
        clock_skew_ms,
    };
    // The seat first: a run that is handed out from now on is sent to this session, and one that was handed out
    // before is found in the store.
    let joined = app.fleet().join(newcomer, now);
    let seat = HeldSeat::new(app.clone(), joined.seat);
    let held = async {
        admit(app, &admitted.identity).await?;
        Ok::<_, JoinError>(take_up(app, admitted, hello).await?)
    };
    let held = match held.await {
        Ok(held) => held,
        Err(error) => {
            seat.leave(Departure::Disconnected, &error.to_string());
            return Err(error);
        }
    };
    let is_twin = twin::note(app, admitted, hello, remote, joined.superseded.as_ref()).await;
    // Of two machines that take the seat from each other it is told once, with both sides.
    if let Some(older) = joined.superseded.filter(|_| !is_twin) {
        record_superseded(app, admitted, older.remote, remote).await;
    }
    if clock_skew_ms.unsigned_abs() > NOTABLE_SKEW_MS {
        warn!(host = %admitted.name, clock_skew_ms, "connection.clock_skew");
    }
    let connected = Connected {
        agent_version: hello.agent_version.clone(),
        boot: hello.boot,
        journal: hello.journal,
        kinds: hello.kinds.clone(),
        clock_skew_ms,
    };
    app.presences().note_online(admitted.host, connected, now);
    app.fleet().announce(FleetEvent::Host { tenant: admitted.tenant, host: admitted.host });
    if !held.quarantined {
        app.dispatcher().host_online(admitted.host);
    }
    let millis = |span: Duration| u32::try_from(span.as_millis()).unwrap_or(u32::MAX);
    Ok(Session {
        seat,
        commands: joined.commands,
        welcome: Welcome {
            controller_version: Text::of(env!("CARGO_PKG_VERSION")),
            clock: now,
            heartbeat_ms: millis(HEARTBEAT),
            silence_ms: millis(SILENCE),
            quarantined: held.quarantined,
            features: List::of(FEATURES.iter().map(|&feature| Text::of(feature))),
            facts_known: held.facts_known,
            keep_s: u32::try_from(app.settings().kept_on_hosts.as_secs()).unwrap_or(u32::MAX),
        },
        attach: held.attach,
        forget: held.forget,
    })
}

/// Records that a connection took the place of an older one, or counts it.
async fn record_superseded(app: &App, admitted: &Admitted, older: SocketAddr, newer: SocketAddr) {
    const KIND: &str = "host.superseded";
    let entry = || {
        Entry::new(KIND, Actor::Host(admitted.name.clone()), &admitted.name)
            .tenant(admitted.tenant)
            .with("older", older.to_string())
            .with("newer", newer.to_string())
    };
    if refusal::record(app, KIND, Source::Host(admitted.host), entry).await == Telling::Now {
        warn!(host = %admitted.name, %older, %newer, "connection.superseded");
    }
}

/// Records that a peer was turned away, or counts it; which of both.
pub async fn record_refused_peer(app: &App, remote: SocketAddr, reason: &str) -> Telling {
    const KIND: &str = "link.refused";
    let entry = || {
        let shown = to_line(reason, 300);
        Entry::new(KIND, Actor::Unknown { remote: Some(remote.ip()) }, remote).with("reason", shown)
    };
    refusal::record(app, KIND, refusal::stranger(Some(remote.ip())), entry).await
}

/// What a host holds, seen from here.
struct Held {
    quarantined: bool,
    facts_known: bool,
    attach: Vec<Attach>,
    forget: Vec<RunId>,
}

async fn take_up(app: &App, admitted: &Admitted, hello: &Hello) -> Result<Held, StoreError> {
    let mut conn = app.store().read().await?;
    let host = host::get_by_id(&mut conn, &Scope::Everything, admitted.host).await?;
    let facts_known = host::has_facts(&mut conn, admitted.host, &hello.facts).await?;
    let quarantined = is_quarantined(&host);
    let found = run::list_known(&mut conn, &hello.held).await?;
    // The commit of their hand-out was lost (a restore, a failover), and the host has them all the same.
    let adopted: Vec<RunTransition> = found
        .values()
        .filter(|known| known.host == admitted.host && known.status == RunStatus::Queued && !quarantined)
        .map(|known| {
            let event = RunEvent::Held { journal: hello.journal };
            RunTransition { operation: known.operation, run: known.run, event, known: None }
        })
        .collect();
    if !adopted.is_empty() {
        warn!(host = %admitted.name, runs = adopted.len(), "connection.runs_adopted");
        drop(conn);
        // Committed before they are opened: somebody may have cancelled one at this moment. Fails only while the
        // controller stops.
        let _ = app.recorder().apply(adopted).await;
        let _ = app.recorder().settle().await;
        conn = app.store().read().await?;
    }
    let held = run::list_held(&mut conn, admitted.host).await?;
    let (mut attach, mut changes) = (Vec::new(), Vec::new());
    let forget = forgettable(app, admitted, hello, &found);
    let mut orders = HashMap::new();
    let mut lost = 0_usize;
    for run::Held { run, stop_requested } in held {
        let Some(custody) = run.state.custody() else { continue };
        if custody.journal != hello.journal {
            let event = RunEvent::Reconnected { journal: hello.journal };
            let known = Some(run.state);
            changes.push(RunTransition { operation: run.operation, run: run.id, event, known });
            lost += 1;
            continue;
        }
        let dispatch = match run.state {
            RunState::Dispatched(_) if quarantined => continue,
            RunState::Dispatched(_) => prepare(&mut conn, app.secrets(), &mut orders, &run).await?,
            _ => None,
        };
        // A stop stands from its commit on. Its request for this run follows in a moment, and would go behind the order.
        let stopped = stop_requested.then_some(Cause::Requested);
        if stop_requested && custody.cancel.is_none() {
            // Before the host's answer: else the end of its runs would not be that of a stop.
            app.dispatcher().stop(run.operation);
        }
        attach.push(Attach {
            run: run.id,
            operation: run.operation,
            journal: custody.journal,
            offset: run.output_end,
            started: matches!(run.state, RunState::Running(_)),
            dispatch,
            cancel: custody.cancel.or(stopped).map(Cause::to_wire),
        });
    }
    drop(conn);
    if lost > 0 {
        warn!(host = %admitted.name, runs = lost, "connection.journal_changed");
    }
    // Fails only while the controller stops; they are found again at the next start.
    let _ = app.recorder().apply(changes).await;
    Ok(Held { quarantined, facts_known, attach, forget })
}

fn is_quarantined(host: &Host) -> bool {
    host.enrolment != Enrolment::Enrolled
}

/// What the host may drop: what has ended here, and what is so old that it was removed with its operation. A run that this
/// controller does not know otherwise may be one that a restored backup has forgotten: then the host has the only copy.
fn forgettable(
    app: &App,
    admitted: &Admitted,
    hello: &Hello,
    found: &HashMap<RunId, run::Known>,
) -> Vec<RunId> {
    let now = app.now();
    let mut unknown = 0_usize;
    let may_drop = |id: &&RunId| match found.get(id) {
        // What ended without having been handed out, and is there all the same, is more than is known here.
        Some(known) if known.host == admitted.host && known.handed_out => known.status.is_final(),
        Some(known) if known.host == admitted.host && !known.status.is_final() => false,
        _ => {
            let removed = now.since(id.planned_at()) > app.settings().operations_kept;
            unknown += usize::from(!removed);
            removed
        }
    };
    let forget = hello.held.iter().filter(may_drop).copied().collect();
    if unknown > 0 {
        warn!(host = %admitted.name, runs = unknown, "connection.unknown_runs_kept");
    }
    forget
}

/// The order of a run that was handed out and not accepted; each operation is loaded once. `None` if there is none any
/// more: if the host has the run, it needs none.
async fn prepare(
    conn: &mut Connection,
    secrets: &SecretBox,
    loaded: &mut HashMap<OperationId, Option<Orders>>,
    run: &Run,
) -> Result<Option<PreparedDispatch>, StoreError> {
    let orders = match loaded.entry(run.operation) {
        Slot::Occupied(known) => known.into_mut(),
        Slot::Vacant(free) => {
            let orders = Orders::load(conn, secrets, run.operation).await;
            free.insert(or_none(run.id, orders)?)
        }
    };
    let Some(orders) = orders else { return Ok(None) };
    let proof = run::get_proof(conn, run.id).await?;
    or_none(run.id, orders.prepare(run.operation, &run.client_id, run.step, &proof))
}

/// `None` in the place of what can never be made.
fn or_none<T>(run: RunId, made: Result<T, OrderError>) -> Result<Option<T>, StoreError> {
    match made {
        Ok(made) => Ok(Some(made)),
        Err(OrderError::Store(error)) => Err(error),
        Err(error) => {
            warn!(%run, %error, "connection.order_failed");
            Ok(None)
        }
    }
}
