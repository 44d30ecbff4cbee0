//! What is asked of this host and changes nothing: queries.
//!
//! **What for.** Each query is carried out by a short-lived process of our own executable (`fleetward-agent look`): what it
//! needs to look is in no resting agent, and what goes wrong in it ends one answer.
//!
//! **What it promises.** A query passes the same gate as a run. An answer is bounded in time, in what it brings and in how
//! many there are at once, and ends with whoever listens: nobody looks for nobody. Nothing of it is taken faster than it
//! is sent on.
//!
//! To add a kind: a file beside `units.rs` that implements `Look`, its `mod` here, and one line in `carry_out`.

mod certificates;
mod file;
mod file_list;
mod file_read;
mod file_stat;
mod host_status;
mod logins;
mod look;
mod mounts;
mod packages;
mod processes;
mod site_errors;
mod sites;
mod sockets;
mod teller;
mod timers;
mod unit_log;
mod unit_show;
mod units;
mod updates;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use fleetward_protocol::action::{ActionRequest, Actor};
use fleetward_protocol::message::{OpenQuery, QueryUp};
use fleetward_protocol::order::Authority;
use fleetward_protocol::query::{InvalidQuery, Query};
use fleetward_protocol::run::Refusal;
use fleetward_protocol::text::Text;
use fleetward_protocol::wire::{self, MAX_QUERY_FRAME};
use serde::{Deserialize, Serialize};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout_at};

pub use look::{LOOK, look};
use look::{Voice, conclude};
pub use updates::Counted;

use crate::config::Allowed;
use crate::gate;
use crate::link::chain;
use crate::platform::clock;
use crate::platform::looker::Looker;
use crate::platform::users::{self, Identity};
use crate::run::Runs;

/// So many queries are answered at once.
pub const MAX_AT_ONCE: usize = 8;

/// Looks at what a query asks for.
async fn carry_out(query: &Query, follow: bool, voice: Voice) {
    match query {
        Query::Units(units) => conclude(units, follow, voice).await,
        Query::FileList(list) => conclude(list, follow, voice).await,
        Query::FileStat(stat) => conclude(stat, follow, voice).await,
        Query::FileRead(read) => conclude(read, follow, voice).await,
        Query::Packages(packages) => conclude(packages, follow, voice).await,
        Query::UnitLog(log) => conclude(log, follow, voice).await,
        Query::UnitShow(show) => conclude(show, follow, voice).await,
        Query::Timers(timers) => conclude(timers, follow, voice).await,
        Query::Sites(sites) => conclude(sites, follow, voice).await,
        Query::Certificates(certificates) => conclude(certificates, follow, voice).await,
        Query::SiteErrors(errors) => conclude(errors, follow, voice).await,
        Query::Sockets(sockets) => conclude(sockets, follow, voice).await,
        Query::Mounts(mounts) => conclude(mounts, follow, voice).await,
        Query::Logins(logins) => conclude(logins, follow, voice).await,
        Query::HostStatus(status) => conclude(status, follow, voice).await,
        Query::Processes(processes) => conclude(processes, follow, voice).await,
    }
}

/// The queries of this host. Cloning shares them.
#[derive(Debug, Clone)]
pub struct Queries {
    runs: Runs,
    places: Arc<Semaphore>,
}

/// A query that is being answered. Dropping it ends it.
#[derive(Debug)]
pub struct Answer {
    looker: Looker,
    /// What it said that is no whole message yet.
    said: Vec<u8>,
    follow: bool,
    patience: Duration,
    due: Due,
    is_over: bool,
    _place: OwnedSemaphorePermit,
}

/// When all there is now must have been told. What whoever listens takes for what was told is no time of the host's.
#[derive(Debug)]
struct Due {
    /// `None` once all was told.
    at: Option<Instant>,
    /// When something was told last, until more is asked for.
    told: Option<Instant>,
}

impl Due {
    /// More is asked for: by when it must be told.
    fn resume(&mut self, now: Instant) -> Option<Instant> {
        if let (Some(told), Some(at)) = (self.told.take(), &mut self.at) {
            *at += now - told;
        }
        self.at
    }
}

/// What the looking process is asked.
#[derive(Debug, Serialize, Deserialize)]
struct Asked {
    request: ActionRequest,
    follow: bool,
    allowed: Allowed,
    /// Who it becomes before it looks, if not the agent's own user.
    identity: Option<Identity>,
    agent: Agent,
}

/// The agent that the looking process belongs to.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Agent {
    pid: u32,
    /// Where it has its things.
    state: PathBuf,
}

impl Queries {
    /// The queries of the host that these runs are of.
    #[must_use]
    pub fn new(runs: Runs) -> Self {
        Self { runs, places: Arc::new(Semaphore::new(MAX_AT_ONCE)) }
    }

    /// Begins to answer a query.
    ///
    /// # Errors
    /// Why it will not be answered.
    pub async fn open(&self, open: &OpenQuery) -> Result<Answer, Refusal> {
        let order = gate::open(&open.order)?;
        gate::check_time(&order, Duration::from_millis(open.remaining_ms))?;
        let Authority::Query(request) = &order.authority else {
            return Err(malformed("the order asks for something else than a query"));
        };
        let query = Query::parse(request).map_err(|error| match error {
            InvalidQuery::Unsupported { kind } => Refusal::Unsupported { kind: Text::of(kind) },
            error @ InvalidQuery::Malformed { .. } => malformed(&error.to_string()),
        })?;
        let host = self.runs.host();
        let kind = query.kind();
        let settings =
            gate::check(&host.paths, &host.client, self.runs.settings(), &order, kind, clock::now())?;
        let account = match query.actor() {
            Actor::Agent => None,
            Actor::Root if host.account.uid == 0 => None,
            Actor::Root => return Err(Refusal::NoSuchUser { user: Text::of("root") }),
            Actor::User(user) => users::account_of(&user, &host.account)?,
        };
        gate::check_user(&host.paths, &settings, &account.as_ref().unwrap_or(&host.account).name)?;
        gate::check_objects(&host.paths, &settings, kind, &query.touches())?;
        let bounds = query.bounds();
        if open.follow && !bounds.follows {
            return Err(malformed(&format!("`{kind}` cannot go on to tell what changes")));
        }
        let place = Arc::clone(&self.places).try_acquire_owned().map_err(|_| Refusal::Busy {
            detail: Text::of(format_args!("it answers {MAX_AT_ONCE} queries already, and no more at once")),
        })?;
        let patience = match order.limits.timeout_ms {
            0 => bounds.timeout,
            millis => bounds.timeout.min(Duration::from_millis(millis)),
        };
        let allowed = settings.policy.allowed(kind);
        let identity = account.as_ref().map(Identity::of);
        let agent = Agent { pid: std::process::id(), state: host.paths.state.clone() };
        let asked = Asked { request: request.clone(), follow: open.follow, allowed, identity, agent };
        let input = wire::frame(&asked, MAX_QUERY_FRAME).map_err(|error| malformed(&chain(&error)))?;
        let looker = Looker::start(&host.supervisor, LOOK, &input, &host.places()).await;
        let looker = looker.map_err(|error| Refusal::SpawnFailed { detail: Text::of(error) })?;
        tracing::info!(operation_id = %order.operation, issuer = %order.issuer, kind, follow = open.follow, "query_opened");
        Ok(Answer {
            looker,
            said: Vec::new(),
            follow: open.follow,
            patience,
            due: Due { at: Some(Instant::now() + patience), told: None },
            is_over: false,
            _place: place,
        })
    }
}

fn malformed(detail: &str) -> Refusal {
    Refusal::Malformed { detail: Text::of(detail) }
}

impl Answer {
    /// What there is to tell next; `None` after the last word. Cancel-safe.
    pub async fn next(&mut self) -> Option<QueryUp> {
        if self.is_over {
            return None;
        }
        let said = match self.due.resume(Instant::now()) {
            Some(due) => match timeout_at(due, self.read()).await {
                Ok(said) => said,
                Err(_) => failed(format_args!(
                    "the host did not tell all within {} s; ask for less",
                    self.patience.as_secs()
                )),
            },
            None => self.read().await,
        };
        match said {
            QueryUp::Complete if self.follow => self.due.at = None,
            QueryUp::Refused(_) | QueryUp::Failed { .. } | QueryUp::Ended => self.is_over = true,
            QueryUp::Complete | QueryUp::Items(_) | QueryUp::Gone(_) => {}
        }
        self.due.told = Some(Instant::now());
        Some(said)
    }

    /// The process that looks, while it lives.
    #[must_use]
    pub fn process(&self) -> Option<u32> {
        self.looker.id()
    }

    async fn read(&mut self) -> QueryUp {
        loop {
            match take(&mut self.said) {
                Ok(Some(said)) => return said,
                Ok(None) => {}
                Err(error) => return failed(format_args!("what it saw cannot be read: {}", chain(&error))),
            }
            match self.looker.read(&mut self.said).await {
                Ok(0) => {
                    let how = self.looker.ended().await;
                    return failed(format_args!("the process that looked has ended ({how}); ask again"));
                }
                Ok(_) => {}
                Err(error) => {
                    return failed(format_args!("the process that looked cannot be heard: {error}"));
                }
            }
        }
    }
}

fn failed(detail: impl std::fmt::Display) -> QueryUp {
    QueryUp::Failed { detail: Text::of(detail) }
}

/// Takes a whole message off the bytes, if there is one.
fn take(bytes: &mut Vec<u8>) -> Result<Option<QueryUp>, wire::DecodeError> {
    let Some(prefix) = bytes.first_chunk() else { return Ok(None) };
    let length = wire::frame_length(*prefix, MAX_QUERY_FRAME)?;
    let Some(body) = bytes.get(4..4 + length) else { return Ok(None) };
    let said = wire::decode(body, MAX_QUERY_FRAME)?;
    bytes.drain(..4 + length);
    if bytes.is_empty() {
        // Between two changes nothing is kept.
        *bytes = Vec::new();
    }
    Ok(Some(said))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slow_reader_takes_no_time_of_the_hosts() {
        let now = Instant::now();
        let after = |seconds| now + Duration::from_secs(seconds);
        let mut due = Due { at: Some(after(30)), told: None };
        assert_eq!(due.resume(after(5)), Some(after(30)), "the host was waited for");
        due.told = Some(after(6));
        assert_eq!(due.resume(after(66)), Some(after(90)), "the reader was");
        assert_eq!(due.resume(after(70)), Some(after(90)), "asked again, the host is waited for");
        due.at = None;
        due.told = Some(after(71));
        assert_eq!(due.resume(after(80)), None, "what changes has no end");
    }
}
