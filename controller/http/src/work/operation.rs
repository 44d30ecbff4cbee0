//! Operations: asking for one, following it, stopping it.

use std::collections::VecDeque;

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use axum::response::sse::Event;
use fleetward_api::error::code;
use fleetward_api::page::Page;
use fleetward_api::time::Time;
use fleetward_api::work::operation::{Operation, OperationCreate, OperationQuery};
use fleetward_api::work::run::{Run, RunQuery};
use fleetward_app::work::follow::{FollowError, Follower, InvalidPosition, OperationChange, Position};
use fleetward_app::work::operation::{self, InvalidReference, OperationError, Overview, Reference};
use fleetward_app::work::run;
use fleetward_domain::fleet::contract::{Breach, Fault};
use fleetward_domain::fleet::enrolment::{NotEnrolled, Standing};
use fleetward_domain::work::operation::InvalidPolicy;
use fleetward_protocol::action::InvalidAction;
use fleetward_protocol::id::OperationId;
use fleetward_protocol::name::HostName;
use fleetward_protocol::printable::to_line;
use fleetward_protocol::suggest::nearest;
use fleetward_store as store;
use futures_util::Stream;
use serde::Deserialize;
use serde_json::{Value, json};
use utoipa::IntoParams;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::Site;
use crate::caller::Allowed;
use crate::document::{Failure, IdempotencyKey};
use crate::error::ApiError;
use crate::extract::{Json, Path, Query};
use crate::idempotency::KEY;
use crate::lasting::Unread;
use crate::page::{page, request};
use crate::sse::{self, LastEventId, last_event_id};
use crate::work::output::output_event;
use crate::work::rollout::asked;
use crate::work::view::{operation_view, run_view};
use fleetward_app::people::access::{Permit, Read, ReadOutput, Run as RunScripts};

/// What is looked for at the most of a kind or a subject, in characters.
const MAX_SOUGHT: usize = 512;

/// `GET /operations/{id}/events`.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct EventQuery {
    /// Only output of this host; `operation` and `run` events of all.
    #[serde(default)]
    #[param(value_type = Option<String>)]
    host: Option<HostName>,
    /// Where to begin, for clients that cannot set `Last-Event-ID`: after the event with this id.
    #[serde(default)]
    after: Option<String>,
}

/// The routes of this noun.
pub(crate) fn router() -> OpenApiRouter<Site> {
    OpenApiRouter::new()
        .routes(routes!(create, list))
        .routes(routes!(get))
        .routes(routes!(run_list))
        .routes(routes!(events))
        .routes(routes!(stop))
}

/// Does something on hosts.
///
/// The operation's `id` is made by the client. Whoever does not know what became of a request sends it again with the
/// same id: it is answered with the same operation, and nothing runs twice.
#[utoipa::path(
    post, path = "/operations", operation_id = "operationCreate", tag = "operation",
    request_body = OperationCreate,
    responses((status = 201, description = "Accepted: its runs are queued.", body = Operation), Failure),
)]
async fn create(
    State(site): State<Site>,
    permit: Allowed<RunScripts>,
    headers: HeaderMap,
    Json(mut request): Json<OperationCreate>,
) -> Result<(StatusCode, Json<Operation>), ApiError> {
    if request.id.is_none() {
        request.id = id_of(&headers)?;
    }
    let created = operation::create(&site.app, &permit, asked(request)?).await?;
    let created = operation::overview(&site.app, &permit, created).await?;
    Ok((StatusCode::CREATED, Json(operation_view(&created)?)))
}

/// The operation's id, where it came as the key that other requests take.
fn id_of(headers: &HeaderMap) -> Result<Option<OperationId>, ApiError> {
    let Some(key) = headers.get(KEY) else { return Ok(None) };
    let id = key.to_str().ok().and_then(|key| key.parse().ok());
    id.map(Some).ok_or_else(|| {
        let text = "an operation's `Idempotency-Key` is its id, a UUID of version 7; better send it as `id`";
        ApiError::invalid("INVALID_IDEMPOTENCY_KEY", text.to_owned())
    })
}

/// Operations, the newest first.
#[utoipa::path(
    get, path = "/operations", operation_id = "operationList", tag = "operation",
    params(OperationQuery),
    responses((status = 200, description = "One page of operations.", body = Page<Operation>), Failure),
)]
async fn list(
    State(site): State<Site>,
    permit: Allowed<Read>,
    Query(asked): Query<OperationQuery>,
) -> Result<Json<Page<Operation>>, ApiError> {
    let parse_error = |parameter: &str, error: String| {
        ApiError::invalid("INVALID_PARAMETER", format!("query parameter `{parameter}`: {error}"))
            .detail("parameter", parameter)
    };
    // What is not printable is no kind and no subject, and no text for a database either.
    let kind = asked.kind.map(|kind| to_line(&kind, MAX_SOUGHT));
    if let Some(kind) = &kind {
        let known = site.app.kinds().iter().map(|known| known.name);
        check_kind(kind, known.collect()).map_err(|error| parse_error("kind", error))?;
    }
    let filter = store::work::operation::Filter {
        statuses: asked.status.map(crate::work::view::stored_status).into_iter().collect(),
        kind,
        subject: asked.subject.map(|subject| to_line(&subject, MAX_SOUGHT)),
        host: asked
            .host
            .map(|name| name.parse().map_err(|error| parse_error("host", format!("{error}"))))
            .transpose()?,
        from: asked.from.map(|time| time.timestamp()),
        to: asked.to.map(|time| time.timestamp()),
    };
    let found = operation::list(&site.app, &permit, &filter, &request(asked.limit, asked.cursor)?).await?;
    let views = found.items.iter().map(operation_view);
    let items = views.collect::<Result<_, _>>()?;
    Ok(Json(Page { items, next_cursor: found.next.map(|cursor| cursor.as_str().to_owned()) }))
}

/// Whether there is such a kind of action: a filter that is mistyped would find nothing, and not say why.
fn check_kind(kind: &str, known: Vec<&str>) -> Result<(), String> {
    if known.contains(&kind) {
        return Ok(());
    }
    let meant = nearest(kind, known.iter().copied());
    let meant = meant.map(|meant| format!("did you mean `{meant}`? ")).unwrap_or_default();
    Err(format!("there is no kind of action `{kind}`; {meant}kinds are {}", known.join(", ")))
}

/// One operation.
#[utoipa::path(
    get, path = "/operations/{id}", operation_id = "operationGet", tag = "operation",
    params(("id" = String, Path, description = "The operation's id, or its number such as `OP-17`.")),
    responses((status = 200, description = "The operation.", body = Operation), Failure),
)]
async fn get(
    State(site): State<Site>,
    permit: Allowed<Read>,
    Path(id): Path<String>,
) -> Result<Json<Operation>, ApiError> {
    let found = operation::get(&site.app, &permit, reference(&id)?).await?;
    let found = operation::overview(&site.app, &permit, found).await?;
    operation_view(&found).map(Json)
}

/// An operation's runs, by host and step.
#[utoipa::path(
    get, path = "/operations/{id}/runs", operation_id = "operationRunList", tag = "operation",
    params(("id" = String, Path, description = "The operation's id, or its number such as `OP-17`."), RunQuery),
    responses((status = 200, description = "One page of runs.", body = Page<Run>), Failure),
)]
async fn run_list(
    State(site): State<Site>,
    permit: Allowed<Read>,
    Path(id): Path<String>,
    Query(asked): Query<RunQuery>,
) -> Result<Json<Page<Run>>, ApiError> {
    let host = asked.host.map(|name| name.parse::<HostName>()).transpose().map_err(|error| {
        ApiError::invalid("INVALID_PARAMETER", format!("query parameter `host`: {error}"))
            .detail("parameter", "host")
    })?;
    let operation = operation::get(&site.app, &permit, reference(&id)?).await?;
    let states: Vec<_> = asked.state.map(crate::work::view::stored_state).into_iter().collect();
    let wanted = request(asked.limit, asked.cursor)?;
    let found = run::list(&site.app, &permit, operation.id, &states, host.as_ref(), &wanted).await?;
    Ok(Json(page(found, |run| run_view(&site.app, &permit, &run))))
}

/// An operation, live.
///
/// Server-sent events: `operation` (data: `Operation`), `run` (data: `Run`), `output` (data: `OutputEvent`),
/// and after the operation's end one `end` (data: `Operation`), after which the stream closes. `id` is the
/// operation's `seq`, or `seq-n` inside of one commit; it is opaque. A client that reconnects with it as
/// `Last-Event-ID` misses no output and sees none twice; without it everything since the beginning is sent. The stream of a client that takes
/// nothing for five minutes while something waits for it is closed.
#[utoipa::path(
    get, path = "/operations/{id}/events", operation_id = "operationEvents", tag = "operation",
    params(("id" = String, Path, description = "The operation's id, or its number such as `OP-17`."), EventQuery, LastEventId),
    responses((status = 200, description = "The events.", body = String, content_type = "text/event-stream"), Failure),
)]
async fn events(
    State(site): State<Site>,
    permit: Allowed<ReadOutput>,
    Path(id): Path<String>,
    Query(asked): Query<EventQuery>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let operation = operation::get(&site.app, &permit, reference(&id)?).await?;
    let position = match last_event_id(&headers)?.or(asked.after.as_deref()) {
        Some(text) => text.parse()?,
        None => Position::START,
    };
    let follower = Follower::new(&site.app, &permit, operation.id, position).await?;
    let reader = Reader { site: site.clone(), permit: permit.permit().clone(), host: asked.host };
    let events = stream(reader, follower);
    Ok(sse::respond(&site, permit.lasting(), events, Unread::Ends))
}

/// Who reads the events of an operation.
struct Reader {
    site: Site,
    permit: Permit<ReadOutput>,
    /// Whose output alone is read.
    host: Option<HostName>,
}

impl Reader {
    fn events_of(&self, changes: Vec<(OperationChange, Position)>) -> Vec<Event> {
        let mut events = Vec::with_capacity(changes.len());
        let host = self.host.as_ref();
        let operation = |kind: &str, operation: &Overview| {
            operation_view(operation).map(|view| sse::event(kind, &view)).ok()
        };
        let run = |run: &run::Overview| run_view(&self.site.app, &self.permit, run);
        for (change, position) in changes {
            let event = match &change {
                OperationChange::Output { host: of, .. } if host.is_some_and(|wanted| wanted != of) => None,
                OperationChange::Output { host, piece } => {
                    Some(sse::event("output", &output_event(host, piece)))
                }
                OperationChange::Run(found) => Some(sse::event("run", &run(found))),
                OperationChange::Operation(found) => operation("operation", found),
                OperationChange::End(found) => operation("end", found),
            };
            events.extend(event.map(|event| event.id(position.to_string())));
        }
        events
    }
}

/// The changes as events, one at a time: the next batch is read when the last event of this one was taken.
fn stream(reader: Reader, follower: Follower) -> impl Stream<Item = Event> + Send + 'static {
    let start = (reader, follower, VecDeque::new());
    futures_util::stream::unfold(start, |(reader, mut follower, mut queue)| async move {
        loop {
            if let Some(event) = queue.pop_front() {
                return Some((event, (reader, follower, queue)));
            }
            match follower.next().await {
                Ok(Some(changes)) => queue.extend(reader.events_of(changes)),
                Ok(None) => return None,
                Err(error) => {
                    // The client comes back with the id of its last event.
                    tracing::warn!(%error, "operation.events_broke");
                    return None;
                }
            }
        }
    })
}

/// Stops an operation: nothing more is started, and what runs is ended.
///
/// What a host has that cannot be reached is stopped when it returns. 409 if it has ended, or is being stopped.
#[utoipa::path(
    post, path = "/operations/{id}/stop", operation_id = "operationStop", tag = "operation",
    params(("id" = String, Path, description = "The operation's id, or its number such as `OP-17`."), IdempotencyKey),
    responses((status = 200, description = "The operation as it is now.", body = Operation), Failure),
)]
async fn stop(
    State(site): State<Site>,
    permit: Allowed<RunScripts>,
    Path(id): Path<String>,
) -> Result<Json<Operation>, ApiError> {
    let stopped = operation::stop(&site.app, &permit, reference(&id)?).await?;
    let stopped = operation::overview(&site.app, &permit, stopped).await?;
    operation_view(&stopped).map(Json)
}

fn reference(text: &str) -> Result<Reference, ApiError> {
    Ok(text.parse()?)
}

impl From<OperationError> for ApiError {
    fn from(error: OperationError) -> Self {
        let text = error.to_string();
        match error {
            OperationError::NotTaken(error) => error.into(),
            OperationError::Steps => Self::invalid("INVALID_STEPS", text).detail("field", "steps"),
            OperationError::Reason(_) => Self::invalid("INVALID_FIELD", text).detail("field", "reason"),
            OperationError::NoKind { kind, .. } => {
                let text = format!("{text}; `fleetward kind list` shows those there are");
                Self::not_found("KIND_NOT_FOUND", text).detail("kind", kind.as_str())
            }
            OperationError::NoDryRun(kind) => Self::invalid("NO_DRY_RUN", text).detail("kind", kind.as_str()),
            OperationError::Ignorant { kind, hosts } => {
                let hosts: Vec<&str> = hosts.iter().map(HostName::as_str).collect();
                Self::conflict("KIND_UNKNOWN_TO_HOST", text)
                    .detail("kind", kind.as_str())
                    .detail("hosts", hosts)
            }
            OperationError::Denied(error) => error.into(),
            OperationError::NoScript(name) => {
                let text = format!("{text}; `fleetward script list` shows those there are");
                Self::not_found("SCRIPT_NOT_FOUND", text).detail("script", name.as_str())
            }
            OperationError::Contract(breach) => (*breach).into(),
            OperationError::Sealed(error) => Self::internal(&error),
            OperationError::NoId(_) | OperationError::Clock { .. } => {
                Self::invalid("INVALID_ID", text).detail("field", "id")
            }
            OperationError::NoPlan(_) => Self::invalid("INVALID_PLAN", text).detail("field", "plan"),
            OperationError::PlanOfAnother { .. } | OperationError::PlanOfSomebodyElse(_) => {
                Self::conflict("PLAN_OF_ANOTHER", text).detail("field", "plan")
            }
            OperationError::PlanNotNow { not_before, deadline } => Self::conflict("PLAN_NOT_NOW", text)
                .detail("not_before", json!(Time::from(not_before)))
                .detail("deadline", json!(Time::from(deadline))),
            OperationError::PlanChanged { then, now } => {
                Self::conflict("PLAN_CHANGED", text).detail("hosts_then", then).detail("hosts_now", now)
            }
            OperationError::IdTaken(id) => Self::conflict(code::ID_TAKEN, text).detail("id", id.to_string()),
            OperationError::Action(error) => {
                let (InvalidAction::Unsupported { kind } | InvalidAction::Malformed { kind, .. }) = error;
                Self::invalid("INVALID_ACTION", text).detail("kind", kind)
            }
            OperationError::Policy(InvalidPolicy::Concurrency(_)) => {
                Self::new(StatusCode::TOO_MANY_REQUESTS, "CONCURRENCY_EXCEEDED", text)
                    .detail("field", "rollout.concurrency")
            }
            OperationError::Policy(
                InvalidPolicy::EmptyBatch(_)
                | InvalidPolicy::EmptyCanary(_)
                | InvalidPolicy::Deadline
                | InvalidPolicy::Timeout,
            ) => Self::invalid("INVALID_ROLLOUT", text).detail("field", "rollout"),
            OperationError::Select(error) => error.into(),
            OperationError::NotEnrolled(error) => error.into(),
            OperationError::TooManyRuns(runs) => Self::invalid("TOO_MANY_RUNS", text).detail("runs", runs),
            OperationError::TooLarge(_) => {
                let text = format!("{text}; give fewer or shorter parameters");
                Self::invalid("ORDER_TOO_LARGE", text)
            }
            OperationError::NotFound => {
                let text = format!("{text}; `fleetward op list` shows those there are");
                Self::not_found("OPERATION_NOT_FOUND", text)
            }
            OperationError::NotStoppable => Self::conflict("OPERATION_NOT_STOPPABLE", text),
            OperationError::Store(error) => error.into(),
        }
    }
}

impl From<NotEnrolled> for ApiError {
    fn from(error: NotEnrolled) -> Self {
        let text = error.to_string();
        let remedy = match error.hosts.first() {
            Some((name, Standing::Pending)) => {
                format!("enrol them (`fleetward host token {name}` prints the command)")
            }
            Some((name, Standing::Quarantined)) => format!("approve them (`fleetward host approve {name}`)"),
            _ => "enrol them".to_owned(),
        };
        let hosts: Vec<Value> = error
            .hosts
            .into_iter()
            .map(|(name, standing)| json!({ "host": name.as_str(), "standing": standing.as_str() }))
            .collect();
        // P13: every one of them is named.
        let text = format!(
            "{text}; {remedy}, or leave them out with `--skip-not-enrolled` (`skip_not_enrolled` in the API), which keeps \
             hosts that are only offline"
        );
        Self::new(StatusCode::FORBIDDEN, "HOST_NOT_ENROLLED", text).detail("hosts", hosts)
    }
}

impl From<Breach> for ApiError {
    fn from(error: Breach) -> Self {
        let text = format!("{error}\nusage: {}", error.usage);
        let answer = match &error.fault {
            Fault::Undeclared { things } => {
                let names: Vec<String> = things.iter().map(ToString::to_string).collect();
                Self::new(StatusCode::FORBIDDEN, "NOT_DECLARED", text)
                    .detail("permission", "override")
                    .detail("undeclared", names)
            }
            Fault::UnknownFlag { flag, .. }
            | Fault::MissingFlag { flag }
            | Fault::MissingValue { flag }
            | Fault::UnexpectedValue { flag } => {
                Self::invalid("INVALID_ARGUMENTS", text).detail("flag", flag.as_str())
            }
            Fault::FreeArgument { .. } => Self::invalid("INVALID_ARGUMENTS", text),
            Fault::MissingVariable { name } => {
                Self::invalid("MISSING_VARIABLE", text).detail("variable", name.as_str())
            }
        };
        answer.detail("script", error.script.as_str()).detail("usage", error.usage)
    }
}

impl From<InvalidReference> for ApiError {
    fn from(error: InvalidReference) -> Self {
        Self::invalid("INVALID_OPERATION_ID", error.to_string())
    }
}

impl From<FollowError> for ApiError {
    fn from(error: FollowError) -> Self {
        match error {
            FollowError::Position(error) => error.into(),
            FollowError::Store(error) => error.into(),
        }
    }
}

impl From<InvalidPosition> for ApiError {
    fn from(error: InvalidPosition) -> Self {
        Self::invalid("INVALID_EVENT_ID", error.to_string())
    }
}
