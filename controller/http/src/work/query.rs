//! Queries: looking at something on hosts.

use std::collections::VecDeque;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use axum::response::sse::Event;
use fleetward_api::work::query::{QueryCreate, QueryCut, QueryEnd, QueryHost, QueryItem, QueryState};
use fleetward_app::work::query::{self, Answer, Answers, Asked, MAX_FOLLOWED, QueryError};
use fleetward_domain::bucket::TooMany;
use fleetward_protocol::query::InvalidQuery;
use futures_util::Stream;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::Site;
use crate::caller::Allowed;
use crate::document::Failure;
use crate::error::ApiError;
use crate::extract::Json;
use crate::sse;
use crate::work::rollout::not_enrolled;
use fleetward_app::people::access::ReadOutput;

/// The routes of this noun.
pub(crate) fn router() -> OpenApiRouter<Site> {
    OpenApiRouter::new().routes(routes!(create))
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
#[utoipa::path(
    post, path = "/queries", operation_id = "queryCreate", tag = "query",
    request_body = QueryCreate,
    responses((status = 200, description = "The events.", body = String, content_type = "text/event-stream"), Failure),
)]
async fn create(
    State(site): State<Site>,
    permit: Allowed<ReadOutput>,
    Json(request): Json<QueryCreate>,
) -> Result<Response, ApiError> {
    let QueryCreate { kind, params, on, skip_not_enrolled, follow } = request;
    let not_enrolled = not_enrolled(skip_not_enrolled);
    let asked = Asked { kind, params, on, not_enrolled, follow };
    let answers = query::ask(&site.app, &permit, asked).await?;
    Ok(sse::respond(&site, permit.lasting(), stream(answers)))
}

/// What is told as events: the next is taken when the last event of this one was.
fn stream(answers: Answers) -> impl Stream<Item = Event> + Send + 'static {
    futures_util::stream::unfold((answers, VecDeque::new()), |(mut answers, mut queue)| async move {
        loop {
            if let Some(event) = queue.pop_front() {
                answers.took_part(queue.len());
                return Some((event, (answers, queue)));
            }
            queue.extend(events_of(answers.next().await?));
        }
    })
}

fn events_of(told: Answer) -> Vec<Event> {
    let item = |host, key: fleetward_protocol::query::Key, item| {
        sse::event("item", &QueryItem { host, key: key.into(), item })
    };
    match told {
        Answer::Items { host, items } => {
            items.into_iter().map(|(key, fields)| item(host.clone(), key, Some(fields))).collect()
        }
        Answer::Gone { host, keys } => keys.into_iter().map(|key| item(host.clone(), key, None)).collect(),
        Answer::Host { host, state, detail } => {
            vec![sse::event("host", &QueryHost { host, state: state_view(state), detail })]
        }
        Answer::End { hosts, left_out, answered, cut } => {
            let detail = cut.map(|cut| cut.to_string());
            vec![sse::event("end", &QueryEnd { hosts, left_out, answered, cut: cut.map(cut_view), detail })]
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
        }
    }
}
