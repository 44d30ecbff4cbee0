//! Queries: looking at something on hosts, now.
//!
//! **What it promises.** A query changes nothing and leaves nothing behind but an audit event. What it holds is bounded: so many
//! queries at once, so many hosts asked at the same time, so much that waits for whoever listens, and for how long. It ends
//! with its [`Answers`].
//!
//! **Deliberately absent.** Anything that is kept, or asked again: whoever wants to know more asks again.

mod answers;

use std::collections::HashMap;
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use fleetward_domain::bucket::{Bucket, Rate, TooMany};
use fleetward_domain::fleet::enrolment::NotEnrolled;
use fleetward_domain::people::permission::Permission;
use fleetward_protocol::action::{ActionRequest, KINDS};
use fleetward_protocol::client_id::ClientId;
use fleetward_protocol::digest::Digest;
use fleetward_protocol::id::{HostId, UserId};
use fleetward_protocol::name::HostName;
use fleetward_protocol::order::{Authority, Draft, Limits, Planned, Sealed, Step, Target};
use fleetward_protocol::query::{Bounds, Fields, InvalidQuery, Kind, QUERY_KINDS, Query, catalogue};
use fleetward_protocol::suggest::nearest;
use fleetward_protocol::text::{List, Text, Word};
use fleetward_protocol::time::Timestamp;
use fleetward_protocol::wire::EncodeError;
use fleetward_store::{Scope, StoreError};
use serde_json::Value;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio::time::sleep;
use tracing::info;

use crate::App;
use crate::fleet::online::{Fleet, HostCommand, Look, Seen};
use crate::fleet::target::{self, NotEnrolledHosts, SelectError, Selected};
use crate::health::NotTaken;
use crate::people::access::{Denied, Permit, ReadOutput};
use crate::people::audit::{self, Entry};
use crate::work::dispatch::GRACE_AFTER_START;
use crate::work::operation::made_id;

use answers::Reading;
pub use answers::{Answer, Answers, Cut, State};

/// The most queries that are open at once.
const MAX_OPEN: usize = 64;
/// The most of them that one person has open.
const MAX_OWN: usize = 16;
/// How often one person may ask: each query leaves a line in the audit log.
const RATE: Rate = Rate::per_minute(120);
/// The most of a target expression that is kept in the audit log, in characters.
const MAX_KEPT: usize = 1000;
/// The most hosts of one query that are asked at the same time.
const AT_ONCE: NonZeroUsize = NonZeroUsize::new(50).unwrap();
/// The most hosts that one query follows: each keeps a stream open.
pub const MAX_FOLLOWED: usize = 200;
/// How long a query follows at the most. Who logs in again asks again.
const LONGEST: Duration = Duration::from_secs(12 * 60 * 60);
/// How long the hosts of one query may be asked one after the other.
const LIFE: Duration = Duration::from_secs(60 * 60);
/// What waits for whoever listens, in messages; of each host waits one more.
const AHEAD: usize = 4;

/// What a person asks.
#[derive(Debug, Clone)]
pub struct Asked {
    /// The kind of query.
    pub kind: String,
    /// Its parameters.
    pub params: Fields,
    /// Where: a target expression.
    pub on: String,
    /// What to do with hosts among them that are not enrolled.
    pub not_enrolled: NotEnrolledHosts,
    /// Whether to go on with what changes.
    pub follow: bool,
}

/// Why nothing is asked.
#[derive(Debug, thiserror::Error)]
pub enum QueryError {
    /// Nothing is taken now: who asked could not be written down.
    #[error(transparent)]
    NotTaken(#[from] NotTaken),
    /// There is no such kind of query.
    #[error("there is no kind of query `{kind}`{}", .nearest.map(|name| format!("; did you mean `{name}`?")).unwrap_or_default())]
    NoKind {
        /// The kind asked for.
        kind: Word,
        /// One that was perhaps meant.
        nearest: Option<&'static str>,
    },
    /// The kind changes something.
    #[error(
        "`{0}` changes something: it is not asked, but done as a step of an operation, as by `fleetward do`"
    )]
    Action(Word),
    /// Its parameters do not fit.
    #[error(transparent)]
    Invalid(InvalidQuery),
    /// The caller may not look at this.
    #[error(transparent)]
    Denied(#[from] Denied),
    /// The kind tells what there is, and not what changes.
    #[error("`{0}` tells what there is now, and cannot follow what changes; ask without following")]
    NotFollowed(&'static str),
    /// The targets mean no hosts.
    #[error(transparent)]
    Select(#[from] SelectError),
    /// Some hosts are not enrolled (P13).
    #[error(transparent)]
    NotEnrolled(#[from] NotEnrolled),
    /// More hosts than can be followed.
    #[error(
        "{0} hosts are more than the {MAX_FOLLOWED} that one query can follow; choose fewer, or ask without following"
    )]
    TooManyFollowed(usize),
    /// Too many are open already.
    #[error(
        "{MAX_OPEN} queries are open already, and no more at once are answered; ask again when one has ended"
    )]
    Busy,
    /// The caller has too many open already.
    #[error("you have {MAX_OWN} queries open already, and nobody may have more; end one of them first")]
    OwnBusy,
    /// The caller asks too often.
    #[error(
        "you have asked {} queries within a minute, and nobody may ask more; ask again in {} s",
        RATE.burst,
        .0.retry_after.as_secs()
    )]
    TooOften(#[from] TooMany),
    /// The order cannot be made.
    #[error("what is asked is too large for an order")]
    TooLarge(#[source] EncodeError),
    /// Who asked could not be written down.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<InvalidQuery> for QueryError {
    fn from(error: InvalidQuery) -> Self {
        match error {
            InvalidQuery::Unsupported { kind } if KINDS.contains(&kind.as_str()) => {
                Self::Action(Text::of(kind))
            }
            InvalidQuery::Unsupported { kind } => {
                let nearest = nearest(&kind, QUERY_KINDS.iter().copied());
                Self::NoKind { kind: Text::of(kind), nearest }
            }
            error @ InvalidQuery::Malformed { .. } => Self::Invalid(error),
        }
    }
}

/// The kinds of query, and where those that are open are counted.
#[derive(Debug)]
pub struct Queries {
    places: Arc<Semaphore>,
    people: Mutex<HashMap<UserId, Person>>,
    kinds: Vec<Kind>,
    /// When this controller started.
    started: Timestamp,
}

/// What one person may ask.
#[derive(Debug)]
struct Person {
    bucket: Bucket,
    places: Arc<Semaphore>,
}

/// That a query may be open, while this is held.
type Place = [OwnedSemaphorePermit; 2];

impl Queries {
    pub(crate) fn new(started: Timestamp) -> Self {
        let places = Arc::new(Semaphore::new(MAX_OPEN));
        Self { places, people: Mutex::default(), kinds: catalogue(), started }
    }

    /// A place for one more query of this person.
    fn enter(&self, user: UserId, now: Timestamp) -> Result<Place, QueryError> {
        let mut people = self.people.lock().unwrap_or_else(PoisonError::into_inner);
        // Whoever has rested and has nothing open need not be remembered.
        people.retain(|_, person| !person.bucket.is_full(RATE, now) || Arc::strong_count(&person.places) > 1);
        let person = people.entry(user).or_insert_with(|| Person {
            bucket: Bucket::full(RATE, now),
            places: Arc::new(Semaphore::new(MAX_OWN)),
        });
        person.bucket.take(RATE, now)?;
        let own = Arc::clone(&person.places).try_acquire_owned().map_err(|_| QueryError::OwnBusy)?;
        let place = Arc::clone(&self.places).try_acquire_owned().map_err(|_| QueryError::Busy)?;
        Ok([own, place])
    }

    /// The kinds of query that this controller knows.
    #[must_use]
    pub fn kinds(&self) -> &[Kind] {
        &self.kinds
    }
}

/// Asks hosts.
///
/// # Errors
/// [`QueryError`]; nobody was asked then.
pub async fn ask(app: &App, permit: &Permit<ReadOutput>, asked: Asked) -> Result<Answers, QueryError> {
    app.health().check()?;
    let params = Value::Object(asked.params).to_string();
    let query = Query::parse(&ActionRequest { kind: asked.kind, params })?;
    permit.require(Permission::from(query.privilege()))?;
    let bounds = query.bounds();
    if asked.follow && !bounds.follows {
        return Err(QueryError::NotFollowed(query.kind()));
    }
    let place = app.queries().enter(permit.caller().user, app.now())?;
    let selected = target::select(app, &Scope::of(permit.tenant()), &asked.on).await?;
    let (selected, left_out) = target::enrolled(selected, asked.not_enrolled)?;
    if asked.follow && selected.len() > MAX_FOLLOWED {
        return Err(QueryError::TooManyFollowed(selected.len()));
    }
    // What else is known of them, such as their facts, is let go: it would be kept for as long as the query is open.
    let mut hosts: Vec<AskedHost> = selected.into_iter().map(AskedHost::from).collect();
    hosts.shrink_to_fit();
    let request = query.request()?;
    let params = serde_json::from_str::<Value>(&request.params).unwrap_or_default();
    let asking = Arc::new(Asking::plan(app, permit, request, bounds, asked.follow, &hosts)?);
    let entry = Entry::new("query.asked", permit.actor(), query.kind())
        .tenant(permit.tenant())
        .with("params", params)
        .with("on", asked.on.chars().take(MAX_KEPT).collect::<String>())
        .with("hosts", hosts.len())
        .with("left_out", left_out)
        .with("follow", asked.follow);
    audit::record_first(app, entry).await?;
    info!(kind = query.kind(), hosts = hosts.len(), follow = asked.follow, "query.asked");
    let (tell, told) = mpsc::channel(AHEAD);
    let reading = Arc::new(Reading::default());
    let mut task = JoinSet::new();
    task.spawn(ask_all(asking, hosts, left_out, (tell, Arc::clone(&reading)), place));
    Ok(Answers::new(told, reading, task))
}

/// A host that is asked: as little of it as that takes.
#[derive(Debug)]
struct AskedHost {
    id: HostId,
    name: HostName,
    client: ClientId,
}

impl From<Selected> for AskedHost {
    fn from(Selected { host, .. }: Selected) -> Self {
        Self { id: host.id, name: host.name, client: host.client_id }
    }
}

/// What is asked of every host.
#[derive(Debug)]
struct Asking {
    fleet: Fleet,
    planned: Planned,
    step: Vec<u8>,
    not_before: Timestamp,
    deadline: Timestamp,
    bounds: Bounds,
    follow: bool,
    /// What is said of a host that is not connected.
    absence: Option<&'static str>,
    /// How many hosts have told all there was, and have not broken off since.
    answered: AtomicU32,
}

impl Asking {
    fn plan(
        app: &App,
        permit: &Permit<ReadOutput>,
        request: ActionRequest,
        bounds: Bounds,
        follow: bool,
        hosts: &[AskedHost],
    ) -> Result<Self, QueryError> {
        let timeout_ms = u64::try_from(bounds.timeout.as_millis()).unwrap_or(u64::MAX);
        let limits = Limits { timeout_ms, ..Limits::of(&[]) };
        let step = Step {
            authority: Authority::Query(request),
            limits: limits.to_list(),
            contents: List::default(),
        };
        let step = step.encode().map_err(QueryError::TooLarge)?;
        let targets: Vec<Target> = hosts.iter().map(|host| target_of(host, &step)).collect();
        let (not_before, deadline) = (app.now(), app.now() + LIFE);
        let draft = Draft {
            operation: made_id(not_before),
            issuer: Text::of(&permit.caller().name),
            not_before,
            deadline,
            // There is no rollout.
            policy: Digest::of(b""),
        };
        let planned = Planned::new(draft, &targets).map_err(QueryError::TooLarge)?;
        let is_new = not_before.since(app.queries().started) < GRACE_AFTER_START;
        let absence =
            is_new.then_some("the controller has just started, and hosts are coming back; ask again");
        let fleet = app.fleet().clone();
        Ok(Self {
            fleet,
            planned,
            step,
            not_before,
            deadline,
            bounds,
            follow,
            absence,
            answered: AtomicU32::new(0),
        })
    }

    /// The order of the host at this place.
    fn order(&self, place: u32, host: &AskedHost) -> Result<Vec<u8>, EncodeError> {
        let sealed = Sealed {
            plan: self.planned.plan.clone(),
            signatures: List::default(),
            target: target_of(host, &self.step),
            proof: self.planned.proof(place),
            position: 0,
            step: self.step.clone(),
        };
        sealed.encode()
    }

    /// Asks the host, if it is there.
    fn begin(&self, place: u32, host: &AskedHost) -> Result<mpsc::Receiver<Seen>, (State, Option<String>)> {
        let order = self.order(place, host).map_err(|error| (State::Failed, Some(error.to_string())))?;
        // One message: a host whose answers nobody takes is not heard any longer.
        let (answers, seen) = mpsc::channel(1);
        let Self { not_before, deadline, bounds, follow, absence, .. } = *self;
        let look = Look { order, not_before, deadline, follow, bounds, answers };
        let away = |_| (State::Offline, absence.map(str::to_owned));
        self.fleet.send(host.id, HostCommand::Look(look)).map_err(away)?;
        Ok(seen)
    }
}

fn target_of(host: &AskedHost, step: &[u8]) -> Target {
    Target { client: host.client.clone(), steps: List::of([Digest::of(step)]) }
}

/// Asks one host after the other, so many at the same time, and tells the end.
async fn ask_all(
    asking: Arc<Asking>,
    hosts: Vec<AskedHost>,
    left_out: u32,
    (tell, reading): (mpsc::Sender<Answer>, Arc<Reading>),
    place: Place,
) {
    let count = u32::try_from(hosts.len()).unwrap_or(u32::MAX);
    let most = if asking.follow { MAX_FOLLOWED } else { AT_ONCE.get() };
    let mut running: JoinSet<()> = JoinSet::new();
    let all = async {
        for (place, host) in (0..).zip(hosts) {
            while running.len() >= most && running.join_next().await.is_some() {}
            let (asking, tell) = (Arc::clone(&asking), tell.clone());
            running.spawn(async move { ask_one(&asking, place, &host, &tell).await });
        }
        while running.join_next().await.is_some() {}
    };
    let cut = tokio::select! {
        () = all => None,
        () = sleep(LONGEST) => Some(Cut::Limit),
        () = reading.stalls(&tell) => Some(Cut::Unread),
    };
    // The hosts are let go at once, and so is the place: whoever does not read may not read for long.
    running.shutdown().await;
    drop(place);
    if let Some(cut) = cut {
        info!(reason = cut.as_str(), hosts = count, "query.cut");
    }
    let answered = asking.answered.load(Ordering::Relaxed);
    let _ = tell.send(Answer::End { hosts: count, left_out, answered, cut }).await;
}

/// Asks a host, tells what it says, and counts it while it has told all there was.
async fn ask_one(asking: &Asking, place: u32, host: &AskedHost, tell: &mpsc::Sender<Answer>) {
    let name = &host.name;
    let state = |state, detail| Answer::Host { host: name.clone(), state, detail };
    let mut seen = match asking.begin(place, host) {
        Ok(seen) => seen,
        Err((how, detail)) => {
            let _ = tell.send(state(how, detail)).await;
            return;
        }
    };
    let mut is_complete = false;
    loop {
        let (told, is_last) = match seen.recv().await {
            Some(Seen::Items(items)) => (Answer::Items { host: name.clone(), items }, false),
            Some(Seen::Gone(keys)) => (Answer::Gone { host: name.clone(), keys }, false),
            Some(Seen::Complete) => {
                if !std::mem::replace(&mut is_complete, true) {
                    asking.answered.fetch_add(1, Ordering::Relaxed);
                }
                if !asking.follow {
                    continue;
                }
                (state(State::Complete, None), false)
            }
            Some(Seen::Ended) => (state(State::Ended, None), true),
            broken => {
                if is_complete {
                    asking.answered.fetch_sub(1, Ordering::Relaxed);
                }
                let (how, detail) = match broken {
                    Some(Seen::Refused(detail)) => (State::Refused, detail),
                    Some(Seen::Failed(detail)) => (State::Failed, detail),
                    _ => (State::Failed, "the connection to the host was lost; ask again".to_owned()),
                };
                (state(how, Some(detail)), true)
            }
        };
        // Nobody listening any more ends this with the task.
        if tell.send(told).await.is_err() || is_last {
            return;
        }
    }
}
