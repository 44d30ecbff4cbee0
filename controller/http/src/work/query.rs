//! Queries: looking at something on hosts.

use std::collections::{HashMap, VecDeque};

use axum::extract::{RawQuery, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use axum::response::sse::Event;
use fleetward_api::work::kind::params::{self, Assignment};
use fleetward_api::work::kind::schema::{Field, Shape, fields};
use fleetward_api::work::query::{QueryCreate, QueryCut, QueryEnd, QueryHost, QueryItem, QueryState};
use fleetward_app::fleet::host;
use fleetward_app::fleet::target::NotEnrolledHosts;
use fleetward_app::work::query::{self, Answer, Answers, Asked, MAX_FOLLOWED, QueryError};
use fleetward_domain::bucket::TooMany;
use fleetward_protocol::name::HostName;
use fleetward_protocol::query::{Fields, InvalidQuery};
use futures_util::{Stream, StreamExt as _};
use serde::Serialize;
use serde_json::Value;
use utoipa::IntoParams;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::Site;
use crate::caller::Allowed;
use crate::document::Failure;
use crate::error::ApiError;
use crate::extract::{Json, Path};
use crate::lasting::Unread;
use crate::work::kind::schema;
use crate::work::rollout::not_enrolled;
use crate::{lines, parameter, sse};
use fleetward_app::people::access::ReadOutput;

/// The routes of this noun.
pub(crate) fn router() -> OpenApiRouter<Site> {
    OpenApiRouter::new().routes(routes!(create)).routes(routes!(ask_one))
}

/// Whether to go on with what changes: the one query parameter that is none of the kind's own.
const FOLLOW: &str = "follow";

/// `GET /hosts/{name}/queries/{kind}`.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "only describes the parameters; `asked` reads them")]
struct KindQuery {
    /// The kind's own parameters, each by its name, with values of the type that `GET /kinds` says: a list is given value by
    /// value, with the name repeated; names with values as `labels.NAME=VALUE`; whatever is deeper as `name:=JSON`.
    #[param(style = Form, explode, required = false, value_type = HashMap<String, String>)]
    params: HashMap<String, String>,
    /// Whether the host goes on to tell what changes, until the request is closed; only for kinds that can.
    follow: Option<bool>,
}

/// Looks at something on hosts, and changes nothing.
///
/// Server-sent events: `item` (data: `QueryItem`), one for each thing that a host has, and later for what changes;
/// `host` (data: `QueryHost`), how far a host has come, the last one also why no further; and after the last
/// answer one `end` (data: `QueryEnd`), after which the stream closes. A stream without an `end` was cut off. Events have
/// no `id`: whoever lost the stream asks again. Closing the request ends the query on every host.
///
/// So many hosts are asked at the same time, the others after them; with `follow` all at once, and 200 at the most.
/// Whoever takes nothing of what is told for about five minutes finds `cut: unread` in the `end`; what follows for 12 hours
/// ends with `cut: limit`.
///
/// With `Accept: application/x-ndjson` (or `application/jsonl`) the same comes as JSON lines: `{"event": "item", "data": …}` and
/// so on, and `{"event": "alive"}` while nothing happens for 15 seconds. What was cut off ends as a broken body then.
#[utoipa::path(
    post, path = "/queries", operation_id = "queryCreate", tag = "query",
    request_body = QueryCreate,
    responses((status = 200, description = "The events.", content(
        (String = "text/event-stream"), (String = "application/x-ndjson"),
    )), Failure),
)]
async fn create(
    State(site): State<Site>,
    permit: Allowed<ReadOutput>,
    headers: HeaderMap,
    Json(request): Json<QueryCreate>,
) -> Result<Response, ApiError> {
    let QueryCreate { kind, params, on, skip_not_enrolled, follow } = request;
    let not_enrolled = not_enrolled(skip_not_enrolled);
    answer(&site, &permit, &headers, Asked { kind, params, on, not_enrolled, follow }).await
}

/// Looks at something on one host, and changes nothing.
///
/// The same as `POST /queries` with this host as the target, with the same answer; parameters stand in the query string.
#[utoipa::path(
    get, path = "/hosts/{name}/queries/{kind}", operation_id = "hostQuery", tag = "query",
    params(
        ("name" = String, Path, description = "The host's name."),
        ("kind" = String, Path, description = "The kind of query, as `GET /kinds` lists them."),
        KindQuery,
    ),
    responses((status = 200, description = "The events.", content(
        (String = "text/event-stream"), (String = "application/x-ndjson"),
    )), Failure),
)]
async fn ask_one(
    State(site): State<Site>,
    permit: Allowed<ReadOutput>,
    Path((name, kind)): Path<(HostName, String)>,
    RawQuery(given): RawQuery,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let (params, follow) = asked(&site, &kind, given.as_deref().unwrap_or_default())?;
    // A host that is not there is no target that means nothing: it is told as by every address of a host.
    let on = host::get(&site.app, &permit, &name).await?.host.declared.name.to_string();
    let not_enrolled = NotEnrolledHosts::Refuse;
    answer(&site, &permit, &headers, Asked { kind, params, on, not_enrolled, follow }).await
}

/// The parameters that a query string gives to a kind, and whether to follow.
fn asked(site: &Site, kind: &str, given: &str) -> Result<(Fields, bool), ApiError> {
    // What is no kind takes no parameters, and is refused by whoever knows what it may be instead.
    let Some(known) = site.app.queries().kinds().iter().find(|known| known.name == kind) else {
        return Ok((Fields::new(), false));
    };
    let mut fields = fields(&schema(&known.parameters));
    fields.push(Field {
        name: FOLLOW.to_owned(),
        shape: Shape::Switch,
        required: false,
        description: String::new(),
        default: None,
        example: None,
        meanings: Vec::new(),
    });
    let (mut assignments, mut problems) = (Vec::new(), Vec::new());
    for (name, value) in form_urlencoded::parse(given.as_bytes()) {
        match Assignment::new(&name, &value) {
            Ok(assignment) if assignment.field(&fields).is_none() => {
                let names: Vec<String> = fields.iter().map(|field| field.name.clone()).collect();
                return Err(parameter::unknown(&name, &names));
            }
            Ok(assignment) => assignments.push(assignment),
            Err(problem) => problems.push(problem),
        }
    }
    let refused = |problems: Vec<String>| {
        ApiError::invalid("INVALID_QUERY", problems.join("; "))
            .detail("kind", kind)
            .detail("problems", problems)
    };
    if !problems.is_empty() {
        return Err(refused(problems));
    }
    let mut params = params::build(&fields, Fields::new(), &assignments).map_err(refused)?;
    let follow = params.remove(FOLLOW).is_some_and(|follow| follow == Value::Bool(true));
    Ok((params, follow))
}

/// Asks, and answers as the client would have it.
async fn answer(
    site: &Site,
    permit: &Allowed<ReadOutput>,
    headers: &HeaderMap,
    asked: Asked,
) -> Result<Response, ApiError> {
    let told = stream(query::ask(&site.app, permit, asked).await?);
    Ok(match lines::are_wanted(headers) {
        true => lines::respond(site, permit.lasting(), told),
        false => sse::respond(site, permit.lasting(), told.map(|told| told.event()), Unread::Waits),
    })
}

/// One thing that is told, as its line has it.
#[derive(Debug, Serialize)]
#[serde(tag = "event", content = "data", rename_all = "snake_case")]
enum Told {
    Item(QueryItem),
    Host(QueryHost),
    End(QueryEnd),
}

impl Told {
    /// The same as a server-sent event.
    fn event(&self) -> Event {
        match self {
            Self::Item(item) => sse::event("item", item),
            Self::Host(host) => sse::event("host", host),
            Self::End(end) => sse::event("end", end),
        }
    }
}

/// What is told, one by one: the next answer is taken when the last part of this one was.
fn stream(answers: Answers) -> impl Stream<Item = Told> + Send + 'static {
    futures_util::stream::unfold((answers, VecDeque::new()), |(mut answers, mut queue)| async move {
        loop {
            if let Some(part) = queue.pop_front() {
                answers.took_part(queue.len());
                return Some((part, (answers, queue)));
            }
            queue.extend(parts_of(answers.next().await?));
        }
    })
}

fn parts_of(told: Answer) -> Vec<Told> {
    let item = |host, key: fleetward_protocol::query::Key, item| {
        Told::Item(QueryItem { host, key: key.into(), item })
    };
    match told {
        Answer::Items { host, items } => {
            items.into_iter().map(|(key, fields)| item(host.clone(), key, Some(fields))).collect()
        }
        Answer::Gone { host, keys } => keys.into_iter().map(|key| item(host.clone(), key, None)).collect(),
        Answer::Host { host, state, detail } => {
            vec![Told::Host(QueryHost { host, state: state_view(state), detail })]
        }
        Answer::End { hosts, left_out, answered, cut } => {
            let detail = cut.map(|cut| cut.to_string());
            vec![Told::End(QueryEnd { hosts, left_out, answered, cut: cut.map(cut_view), detail })]
        }
    }
}

const fn cut_view(cut: query::Cut) -> QueryCut {
    match cut {
        query::Cut::Limit => QueryCut::Limit,
        query::Cut::Unread => QueryCut::Unread,
    }
}

const fn state_view(state: query::State) -> QueryState {
    match state {
        query::State::Complete => QueryState::Complete,
        query::State::Ended => QueryState::Ended,
        query::State::Offline => QueryState::Offline,
        query::State::Refused => QueryState::Refused,
        query::State::Failed => QueryState::Failed,
    }
}

impl From<QueryError> for ApiError {
    fn from(error: QueryError) -> Self {
        let text = error.to_string();
        match error {
            QueryError::NotTaken(error) => error.into(),
            QueryError::NoKind { kind, .. } => {
                let text = format!("{text}; `fleetward kind list` shows those there are");
                Self::not_found("KIND_NOT_FOUND", text).detail("kind", kind.as_str())
            }
            QueryError::Action(kind) => Self::invalid("NOT_A_QUERY", text).detail("kind", kind.as_str()),
            QueryError::Invalid(
                InvalidQuery::Unsupported { kind } | InvalidQuery::Malformed { kind, .. },
            ) => Self::invalid("INVALID_QUERY", text).detail("kind", kind),
            QueryError::Denied(error) => error.into(),
            QueryError::NotFollowed(kind) => Self::invalid("NOT_FOLLOWED", text).detail("kind", kind),
            QueryError::Select(error) => error.into(),
            QueryError::NotEnrolled(error) => error.into(),
            QueryError::TooManyFollowed(hosts) => {
                Self::invalid("TOO_MANY_FOLLOWED", text).detail("hosts", hosts).detail("most", MAX_FOLLOWED)
            }
            QueryError::Busy | QueryError::OwnBusy => {
                Self::new(StatusCode::TOO_MANY_REQUESTS, "TOO_MANY_QUERIES", text)
            }
            QueryError::TooOften(TooMany { retry_after }) => {
                Self::new(StatusCode::TOO_MANY_REQUESTS, "TOO_MANY_QUERIES", text).retry_after(retry_after)
            }
            QueryError::TooLarge(_) => Self::invalid("INVALID_QUERY", text),
            QueryError::Store(error) => error.into(),
        }
    }
}
