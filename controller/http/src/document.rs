//! The OpenAPI document, made from the handlers themselves.
//!
//! `controller/openapi.json` is this document, checked in; a test compares the two. The console's client is
//! generated from it. **Deliberately absent:** anything written by hand about a single route, which would be
//! true only until the route changes.

use std::collections::BTreeMap;

use fleetward_api::error::ErrorBody;
use fleetward_api::work::event::OutputEvent;
use fleetward_api::work::query::{QueryEnd, QueryHost, QueryItem};
use utoipa::openapi::schema::{ArrayItems, Schema};
use utoipa::openapi::security::{ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::openapi::{ContentBuilder, OpenApi as Document, Ref, RefOr, Response, ResponseBuilder};
use utoipa::{IntoParams, IntoResponses, Modify, OpenApi};

use super::caller::COOKIE;

/// What is true of the whole document; the routes are collected from the routers.
#[derive(OpenApi)]
#[openapi(
    info(
        title = "Fleetward",
        description = "Runs scripts on a fleet of hosts: inventory, operations, live output.\n\n\
            Every failed request answers with an `ErrorBody`. Lists are paged: pass `next_cursor` back as `cursor`. \
            A `POST` that changes something may carry an `Idempotency-Key`; sent again with the same key within 24 \
            hours, the request is answered as it was and not carried out again. Where nothing is changed the key is \
            ignored. An answer above 64 KiB is not kept: the repetition is answered with 409 \
            `IDEMPOTENCY_ANSWER_NOT_KEPT` and the first `status`. A user has 10000 keys within 24 hours; a further \
            one is answered with 429. Requests that change something and authenticate by \
            cookie must carry `Origin`, as browsers do, or the header `X-Fleetward-Console: 1`.",
    ),
    components(schemas(ErrorBody, OutputEvent, QueryItem, QueryHost, QueryEnd)),
    security(("bearer" = []), ("cookie" = [])),
    modifiers(&Schemes),
    tags(
        (name = "auth", description = "Logging in, and who one is."),
        (name = "host", description = "Managed machines."),
        (name = "script", description = "Scripts from the inventory repository."),
        (name = "repo", description = "The inventory repository."),
        (name = "target", description = "Target expressions."),
        (name = "kind", description = "What may be asked of hosts."),
        (name = "operation", description = "Requests to do something on hosts."),
        (name = "query", description = "Looking at something on hosts."),
        (name = "run", description = "One step on one host."),
        (name = "table", description = "Filtered, sorted, paged rows for other programs."),
        (name = "audit", description = "What changed, and what was refused."),
        (name = "event", description = "Live changes of the fleet."),
        (name = "health", description = "The controller itself."),
    )
)]
struct Base;

/// The document before any route: what the routers add theirs to.
#[must_use]
pub(super) fn base() -> Document {
    Base::openapi()
}

/// How requests are authenticated.
struct Schemes;

impl Modify for Schemes {
    fn modify(&self, document: &mut Document) {
        let bearer = HttpBuilder::new()
            .scheme(HttpAuthScheme::Bearer)
            .description(Some("The token of a login."))
            .build();
        let cookie = ApiKeyValue::with_description(COOKIE, "Set at login; HttpOnly, SameSite=Strict.");
        let components = document.components.get_or_insert_default();
        components.add_security_scheme("bearer", SecurityScheme::Http(bearer));
        components.add_security_scheme("cookie", SecurityScheme::ApiKey(ApiKey::Cookie(cookie)));
    }
}

/// Every answer with a status of 400 or above, in a route's description.
pub(super) struct Failure;

impl IntoResponses for Failure {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        let body = ContentBuilder::new().schema(Some(Ref::from_schema_name("ErrorBody"))).build();
        let response = ResponseBuilder::new()
            .description("It failed: what, and what to do next.")
            .content("application/json", body)
            .build();
        BTreeMap::from([("default".to_owned(), RefOr::T(response))])
    }
}

/// The header that makes a repeated `POST` harmless, in a route's description.
#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
#[expect(dead_code, reason = "only describes the header; `idempotency` reads it")]
pub(super) struct IdempotencyKey {
    /// 1 to 255 visible ASCII characters, unique to this request; a UUID is good.
    #[param(rename = "Idempotency-Key")]
    key: Option<String>,
}

/// Lets the rows of `Page_X` refer to `X`: utoipa writes them out again in every page.
pub(super) fn finish(mut document: Document) -> Document {
    let Some(components) = &mut document.components else { return document };
    let names: Vec<String> = components.schemas.keys().cloned().collect();
    for name in names {
        let Some(item) = name.strip_prefix("Page_").filter(|item| components.schemas.contains_key(*item))
        else {
            continue;
        };
        let reference = RefOr::Ref(Ref::from_schema_name(item));
        if let Some(RefOr::T(Schema::Object(page))) = components.schemas.get_mut(&name)
            && let Some(RefOr::T(Schema::Array(items))) = page.properties.get_mut("items")
        {
            items.items = ArrayItems::RefOrSchema(Box::new(reference));
        }
    }
    document
}
