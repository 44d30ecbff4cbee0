//! Taking requests apart: bodies, queries and paths become typed values here, or a 400 that names the field.
//!
//! A field that nobody knows is refused, not ignored: a misspelt `concurrency` must not run on everything.

use axum::Json as AxumJson;
use axum::extract::rejection::PathRejection;
use axum::extract::{FromRequest, FromRequestParts, OptionalFromRequest, Path as AxumPath, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::body;
use super::error::ApiError;

/// A JSON body, in either direction.
#[derive(Debug, Clone, Copy)]
pub(super) struct Json<T>(pub(super) T);

/// The query string.
#[derive(Debug, Clone, Copy)]
pub(super) struct Query<T>(pub(super) T);

/// The variable parts of the path.
#[derive(Debug, Clone, Copy)]
pub(super) struct Path<T>(pub(super) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Json<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, _: &S) -> Result<Self, ApiError> {
        require_json(request.headers())?;
        parse_json(&body::read(request.into_body()).await?).map(Self)
    }
}

impl<S: Send + Sync, T: DeserializeOwned> OptionalFromRequest<S> for Json<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, _: &S) -> Result<Option<Self>, ApiError> {
        let content_type = require_json(request.headers());
        let body = body::read(request.into_body()).await?;
        if body.is_empty() {
            return Ok(None);
        }
        content_type?;
        parse_json(&body).map(|value| Some(Self(value)))
    }
}

impl<T: Serialize> IntoResponse for Json<T> {
    fn into_response(self) -> Response {
        AxumJson(self.0).into_response()
    }
}

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Query<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        parse_query(parts.uri.query().unwrap_or_default()).map(Self)
    }
}

impl<S: Send + Sync, T: DeserializeOwned + Send> FromRequestParts<S> for Path<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        match AxumPath::from_request_parts(parts, state).await {
            Ok(AxumPath(value)) => Ok(Self(value)),
            Err(PathRejection::FailedToDeserializePathParams(error)) => {
                let text = error.body_text();
                let text = text.trim_start_matches("Invalid URL: ").to_owned();
                Err(ApiError::invalid("INVALID_PATH", format!("the address is not valid: {text}")))
            }
            Err(error) => Err(ApiError::internal(&error)),
        }
    }
}

fn require_json(headers: &HeaderMap) -> Result<(), ApiError> {
    let given = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let essence = given.split(';').next().unwrap_or_default().trim();
    if essence.eq_ignore_ascii_case("application/json") {
        return Ok(());
    }
    Err(ApiError::new(
        StatusCode::UNSUPPORTED_MEDIA_TYPE,
        "UNSUPPORTED_MEDIA_TYPE",
        "the body must be JSON; send it with `Content-Type: application/json`",
    ))
}

fn parse_json<T: DeserializeOwned>(body: &[u8]) -> Result<T, ApiError> {
    let mut unknown = None;
    let mut note = |path: serde_ignored::Path<'_>| {
        unknown.get_or_insert_with(|| path.to_string());
    };
    let mut json = serde_json::Deserializer::from_slice(body);
    let mut track = serde_path_to_error::Track::new();
    let parsed = T::deserialize(serde_ignored::Deserializer::new(
        serde_path_to_error::Deserializer::new(&mut json, &mut track),
        &mut note,
    ));
    let parsed = parsed.and_then(|value| json.end().map(|()| value));
    let error = match (parsed, unknown) {
        (Ok(value), None) => return Ok(value),
        (Ok(_), Some(field)) => return Err(unknown_field(&field)),
        (Err(error), _) => error,
    };
    let (line, column) = (error.line(), error.column());
    let text = error.to_string();
    let text = text.split(" at line ").next().unwrap_or(&text);
    match error.classify() {
        serde_json::error::Category::Data => {
            let path = track.path().to_string();
            let field = field_of(&path, text);
            let message = match field.as_str() {
                "" => format!("the body is not as expected: {text}"),
                field => format!("field `{field}`: {text}"),
            };
            Err(ApiError::invalid("INVALID_FIELD", message)
                .detail("field", field)
                .detail("line", line)
                .detail("column", column))
        }
        _ => Err(ApiError::invalid(
            "MALFORMED_JSON",
            format!("the body is not JSON: {text} (line {line}, column {column})"),
        )
        .detail("line", line)
        .detail("column", column)),
    }
}

/// The field an error is about: serde names a missing one only in its text.
fn field_of(path: &str, text: &str) -> String {
    let path = if path == "." { "" } else { path };
    match text.strip_prefix("missing field `").and_then(|rest| rest.split('`').next()) {
        Some(missing) if path.is_empty() => missing.to_owned(),
        Some(missing) => format!("{path}.{missing}"),
        None => path.to_owned(),
    }
}

fn unknown_field(field: &str) -> ApiError {
    let message = format!("there is no field `{field}`; check its spelling, or update the controller");
    ApiError::invalid("UNKNOWN_FIELD", message).detail("field", field)
}

fn parse_query<T: DeserializeOwned>(query: &str) -> Result<T, ApiError> {
    let mut unknown = None;
    let mut note = |path: serde_ignored::Path<'_>| {
        unknown.get_or_insert_with(|| path.to_string());
    };
    let mut track = serde_path_to_error::Track::new();
    let urlencoded = serde_urlencoded::Deserializer::new(form_urlencoded::parse(query.as_bytes()));
    let parsed = T::deserialize(serde_ignored::Deserializer::new(
        serde_path_to_error::Deserializer::new(urlencoded, &mut track),
        &mut note,
    ));
    match (parsed, unknown) {
        (Ok(value), None) => Ok(value),
        (Ok(_), Some(name)) => {
            let message =
                format!("there is no query parameter `{name}`; check its spelling, or update the controller");
            Err(ApiError::invalid("UNKNOWN_PARAMETER", message).detail("parameter", name))
        }
        (Err(error), _) => {
            let name = field_of(&track.path().to_string(), &error.to_string());
            let message = format!("query parameter `{name}`: {error}");
            Err(ApiError::invalid("INVALID_PARAMETER", message).detail("parameter", name))
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::body::to_bytes;
    use fleetward_api::work::operation::{OperationCreate, OperationQuery};
    use serde_json::{Value, json};

    use super::*;

    async fn body(error: ApiError) -> Value {
        let response = error.into_response();
        serde_json::from_slice(&to_bytes(response.into_body(), usize::MAX).await.unwrap()).unwrap()
    }

    #[tokio::test]
    async fn a_wrong_body_is_answered_with_the_place_of_the_error() {
        let refused = |text: &str| parse_json::<OperationCreate>(text.as_bytes()).unwrap_err();
        for (text, code, field) in [
            (r#"{"scripts":[{"name":"a b"}],"on":"all"}"#, "INVALID_FIELD", json!("scripts[0].name")),
            (r#"{"scripts":[]}"#, "INVALID_FIELD", json!("on")),
            (r#"{"scripts":[{"arguments":[]}],"on":"all"}"#, "INVALID_FIELD", json!("scripts[0].name")),
            (
                r#"{"scripts":[],"on":"all","rollout":{"concurency":1}}"#,
                "UNKNOWN_FIELD",
                json!("rollout.concurency"),
            ),
            (r#"{"scripts":[],"on":"all""#, "MALFORMED_JSON", Value::Null),
            (r#"{"scripts":[],"on":"all"} x"#, "MALFORMED_JSON", Value::Null),
            ("[]", "INVALID_FIELD", json!("")),
        ] {
            let answer = body(refused(text)).await;
            assert_eq!(
                (answer["code"].as_str(), &answer["details"]["field"]),
                (Some(code), &field),
                "{text}: {answer}"
            );
        }
    }

    #[tokio::test]
    async fn a_wrong_query_names_the_parameter() {
        for (query, code, name) in [
            ("status=asleep", "INVALID_PARAMETER", "status"),
            ("limit=many", "INVALID_PARAMETER", "limit"),
            ("from=yesterday", "INVALID_PARAMETER", "from"),
            ("stauts=failed", "UNKNOWN_PARAMETER", "stauts"),
        ] {
            let answer = body(parse_query::<OperationQuery>(query).unwrap_err()).await;
            assert_eq!(answer["code"], code, "{answer}");
            assert_eq!(answer["details"]["parameter"], name, "{answer}");
        }
        let query: OperationQuery = parse_query("limit=7&status=partial").unwrap();
        assert_eq!(query.limit, Some(7));
    }
}
