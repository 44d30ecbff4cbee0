//! Query parameters that a route does not know are refused, not ignored: a misspelt filter must not show everything.
//!
//! What a route knows is what the document says of it, so this holds for every route, whether it reads a parameter
//! or none. Where the document has an object for parameters of any name, the route refuses those that it does not know.

use std::collections::HashMap;
use std::sync::Arc;

use axum::extract::{MatchedPath, Request, State};
use axum::http::Method;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use utoipa::openapi::path::{Operation, Parameter, ParameterIn};
use utoipa::openapi::schema::{AdditionalProperties, Schema};
use utoipa::openapi::{OpenApi, RefOr};

use super::error::ApiError;

/// The query parameters of every route of the document that takes none but those that it names.
#[derive(Debug)]
pub(super) struct Parameters(HashMap<(Method, String), Vec<String>>);

impl Parameters {
    /// As the document says.
    pub(super) fn of(document: &OpenApi) -> Self {
        let mut known = HashMap::new();
        for (path, item) in &document.paths.paths {
            for (method, operation) in [
                (Method::GET, &item.get),
                (Method::POST, &item.post),
                (Method::PUT, &item.put),
                (Method::PATCH, &item.patch),
                (Method::DELETE, &item.delete),
            ] {
                if let Some(operation) = operation.as_ref().filter(|operation| !takes_any(operation)) {
                    known.insert((method, path.clone()), names(operation));
                }
            }
        }
        Self(known)
    }

    /// The first parameter of the request that its route does not know, and those it knows.
    fn unknown(&self, request: &Request) -> Option<(String, &[String])> {
        let query = request.uri().query()?;
        let path = request.extensions().get::<MatchedPath>()?.as_str().to_owned();
        // What answers GET answers HEAD.
        let method = if request.method() == Method::HEAD { Method::GET } else { request.method().clone() };
        let known = self.0.get(&(method, path))?;
        form_urlencoded::parse(query.as_bytes())
            .map(|(name, _)| name)
            .find(|name| !known.iter().any(|known| known == name))
            .map(|name| (name.into_owned(), known.as_slice()))
    }
}

fn parameters(operation: &Operation) -> impl Iterator<Item = &Parameter> {
    let parameters = operation.parameters.iter().flatten();
    parameters
        .filter_map(|parameter| match parameter {
            RefOr::T(parameter) => Some(parameter),
            // None is made here; one that is would take its parameter away, and a test would say so.
            RefOr::Ref(_) => None,
        })
        .filter(|parameter| parameter.parameter_in == ParameterIn::Query)
}

fn names(operation: &Operation) -> Vec<String> {
    parameters(operation).map(|parameter| parameter.name.clone()).collect()
}

/// Whether it takes parameters of any name: one stands for them all, an object whose names are theirs (OpenAPI 3.1,
/// "Style Values": `form` with `explode`).
fn takes_any(operation: &Operation) -> bool {
    parameters(operation).any(|parameter| match &parameter.schema {
        Some(RefOr::T(Schema::Object(object))) => matches!(
            object.additional_properties.as_deref(),
            Some(AdditionalProperties::RefOr(_) | AdditionalProperties::FreeForm(true))
        ),
        _ => false,
    })
}

/// Refuses a request with a parameter that its route does not know.
pub(super) async fn refuse_unknown(
    State(parameters): State<Arc<Parameters>>,
    request: Request,
    next: Next,
) -> Response {
    match parameters.unknown(&request) {
        Some((name, known)) => unknown(&name, known).into_response(),
        None => next.run(request).await,
    }
}

/// What is told of a parameter that a route does not know.
pub(super) fn unknown(name: &str, known: &[String]) -> ApiError {
    let name: String = name.chars().take(80).collect();
    let known = match known {
        [] => "this address takes none".to_owned(),
        known => format!("this address takes {}", known.join(", ")),
    };
    let message = format!("there is no query parameter `{name}` here; {known}; check its spelling");
    ApiError::invalid("UNKNOWN_PARAMETER", message).detail("parameter", name)
}
