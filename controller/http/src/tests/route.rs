//! What is true of every route.

use std::fs;
use std::path::Path;

use axum::body::Body;
use axum::http::{Request, StatusCode};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::site::{Answer, METRICS_TOKEN, TestSite, method};

/// Routes that answer without a credential, each for a reason.
const OPEN: &[(&str, &str)] = &[
    // How one gets a credential.
    ("post", "/api/v1/auth/login"),
    // Load balancers and the package's own check have none, and learn one word.
    ("get", "/health"),
];

fn document() -> Value {
    serde_json::from_str(&crate::openapi().unwrap()).unwrap()
}

/// Every route of the document, with its variable parts filled in.
fn routes() -> Vec<(String, String)> {
    let document = document();
    let mut routes = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for method in item.as_object().unwrap().keys() {
            routes.push((method.clone(), path.clone()));
        }
    }
    routes
}

fn filled(path: &str) -> String {
    path.replace("{id}", "00000000-0000-7000-8000-000000000009")
        .replace("{name}", "web-1")
        .replace("{kind}", "units")
}

#[test]
fn the_openapi_document_is_the_one_checked_in() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../openapi.json");
    let made = crate::openapi().unwrap();
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        fs::write(&path, &made).unwrap();
    }
    let held = fs::read_to_string(&path).unwrap();
    assert!(held == made, "controller/openapi.json is stale; run the test again with UPDATE_EXPECT=1");
}

/// Whoever reads a list asks for pages of it, the command line every list: one that took no `limit` would be refused.
#[test]
fn every_list_takes_limit_and_cursor() {
    let document = document();
    let mut lists = 0;
    for (path, item) in document["paths"].as_object().unwrap() {
        let answer = &item["get"]["responses"]["200"]["content"]["application/json"]["schema"]["$ref"];
        if !answer.as_str().is_some_and(|answer| answer.contains("/Page_")) {
            continue;
        }
        lists += 1;
        let parameters = item["get"]["parameters"].as_array().map(Vec::as_slice).unwrap_or_default();
        for name in ["limit", "cursor"] {
            let is_it = |parameter: &&Value| parameter["name"] == name && parameter["in"] == "query";
            assert!(parameters.iter().any(|parameter| is_it(&parameter)), "{path} takes no `{name}`");
        }
    }
    assert!(lists >= 6, "{lists} lists found");
}

#[test]
fn operation_ids_are_unique() {
    let document = document();
    let items = document["paths"].as_object().unwrap().values();
    let ids = items
        .flat_map(|item| item.as_object().unwrap().values())
        .map(|operation| operation["operationId"].as_str().unwrap().to_owned());
    let mut ids: Vec<String> = ids.collect();
    let count = ids.len();
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), count);
}

#[tokio::test]
async fn no_route_answers_without_a_credential() {
    let site = TestSite::new().await;
    let mut open = Vec::new();
    for (verb, path) in routes() {
        for credential in [None, Some("Bearer fws_forged"), Some("Basic YWRhOmFkYQ==")] {
            let mut request = Request::builder().method(method(&verb.to_uppercase())).uri(filled(&path));
            request = request.header("content-type", "application/json");
            if let Some(credential) = credential {
                request = request.header("authorization", credential);
            }
            let answer = Answer::read(site.send(request.body(Body::from("{}")).unwrap()).await).await;
            if answer.status == StatusCode::UNAUTHORIZED {
                answer.code();
                assert_eq!(answer.headers["www-authenticate"], "Bearer");
            } else if !open.contains(&(verb.clone(), path.clone())) {
                open.push((verb.clone(), path.clone()));
            }
        }
    }
    let reviewed: Vec<(String, String)> =
        OPEN.iter().map(|(verb, path)| ((*verb).to_owned(), (*path).to_owned())).collect();
    assert_eq!(open, reviewed, "a route answers without a credential");
}

#[tokio::test]
async fn no_route_ignores_a_parameter_it_does_not_know() {
    let site = TestSite::new().await;
    for (verb, path) in routes() {
        for query in ["x=1", "limitt=7", "x"] {
            let path = format!("{}?{query}", filled(&path));
            let answer = site.call(&verb.to_uppercase(), &path, Some(json!({}))).await;
            assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{verb} {path}: {answer:?}");
            assert_eq!(answer.code(), "UNKNOWN_PARAMETER", "{verb} {path}");
        }
    }
    let misspelt = site.call("GET", "/api/v1/hosts?stauts=online", None).await.json();
    let text = misspelt["error"].as_str().unwrap();
    assert!(text.contains("`stauts`") && text.contains("status"), "{text}");
}

/// Every parameter that the document promises is one that its route reads.
#[tokio::test]
async fn every_parameter_of_the_document_is_known_to_its_route() {
    let site = TestSite::new().await;
    let document = document();
    for (verb, path) in routes().into_iter().filter(|(_, path)| path != "/api/v1/events") {
        for parameter in document["paths"][&path][&verb]["parameters"].as_array().into_iter().flatten() {
            // An object stands for parameters of other names.
            if parameter["in"] == "query" && parameter["schema"]["type"] != "object" {
                let path = format!("{}?{}=", filled(&path), parameter["name"].as_str().unwrap());
                let answer = site.call(&verb.to_uppercase(), &path, Some(json!({}))).await;
                let is_known = answer.status.is_success() || answer.code() != "UNKNOWN_PARAMETER";
                assert!(is_known, "{verb} {path}: {answer:?}");
            }
        }
    }
}

#[tokio::test]
async fn a_viewer_changes_nothing() {
    use fleetward_domain::people::permission::Role;
    let site = TestSite::new().await;
    let viewer = site.login_as("vera", Role::Viewer).await;
    let reporter = site.login_as("ria", Role::Reporter).await;
    // Reads in the shape of a POST, and what concerns nobody but the caller.
    let allowed = ["/targets/preview", "/tables/query", "/queries", "/verify", "/auth/"];
    // Logging out would end the test's own login; the fleet's events do not end.
    for (verb, path) in
        routes().into_iter().filter(|(_, path)| !path.ends_with("/logout") && path != "/api/v1/events")
    {
        let answer = site.call_as(&viewer, &verb.to_uppercase(), &filled(&path), Some(json!({}))).await;
        let reads = verb == "get" || allowed.iter().any(|part| path.contains(part));
        let is_forbidden = answer.status == StatusCode::FORBIDDEN;
        // The audit log is for administrators.
        assert_eq!(is_forbidden, !reads || path.ends_with("/audit"), "{verb} {path}: {answer:?}");
        if is_forbidden {
            assert_eq!(answer.code(), "FORBIDDEN");
        }
    }
    for path in ["/api/v1/runs/00000000-0000-7000-8000-000000000009/output", "/api/v1/operations/OP-1/events"]
    {
        assert_eq!(site.call_as(&reporter, "GET", path, None).await.code(), "FORBIDDEN");
    }
}

#[tokio::test]
async fn failures_outside_of_handlers_have_the_same_shape() {
    let site = TestSite::new().await;
    for (verb, path, status, code) in [
        ("GET", "/api/v1/nothing", 404, "NO_SUCH_ROUTE"),
        ("GET", "/api", 404, "NO_SUCH_ROUTE"),
        ("PUT", "/api/v1/hosts", 405, "METHOD_NOT_ALLOWED"),
        ("DELETE", "/health", 405, "METHOD_NOT_ALLOWED"),
        ("GET", "/api/v1/hosts/a%20b", 400, "INVALID_PATH"),
        ("GET", "/api/v1/runs/7", 400, "INVALID_PATH"),
        ("GET", "/api/v1/hosts?limit=0", 400, "INVALID_LIMIT"),
        ("GET", "/api/v1/hosts?cursor=nonsense", 400, "INVALID_CURSOR"),
        ("GET", "/assets/gone.js", 404, "NO_SUCH_FILE"),
    ] {
        let answer = site.call(verb, path, None).await;
        assert_eq!(answer.status.as_u16(), status, "{verb} {path}: {answer:?}");
        assert_eq!(answer.code(), code, "{verb} {path}");
    }
    let long = json!({ "name": "x".repeat(2 << 20) });
    let answer = site.call("POST", "/api/v1/hosts", Some(long)).await;
    assert_eq!((answer.status, answer.code().as_str()), (StatusCode::PAYLOAD_TOO_LARGE, "BODY_TOO_LARGE"));
    let request = Request::post("/api/v1/hosts").header("authorization", format!("Bearer {}", site.token));
    let answer = Answer::read(site.send(request.body(Body::from("name=web-1")).unwrap()).await).await;
    assert_eq!(
        (answer.status, answer.code().as_str()),
        (StatusCode::UNSUPPORTED_MEDIA_TYPE, "UNSUPPORTED_MEDIA_TYPE")
    );
}

#[tokio::test]
async fn answers_tell_browsers_what_not_to_do() {
    let site = TestSite::new().await;
    for path in ["/api/v1/hosts", "/health", "/hosts/web-1", "/api/docs/", "/api/v1/nothing"] {
        let answer = site.call("GET", path, None).await;
        let policy = answer.headers["content-security-policy"].to_str().unwrap();
        assert!(policy.contains("frame-ancestors 'none'"), "{path}: {policy}");
        assert!(!policy.contains("script-src 'self' 'unsafe"), "{path}: {policy}");
        assert_eq!(answer.headers["x-content-type-options"], "nosniff");
        assert!(!answer.headers.contains_key("access-control-allow-origin"));
    }
    let hosts = site.call("GET", "/api/v1/hosts", None).await;
    assert_eq!(hosts.headers["cache-control"], "no-store");
}

#[tokio::test]
async fn the_document_health_and_metrics_are_served() {
    let site = TestSite::new().await;
    let open = Request::get("/api/openapi.json").body(Body::empty()).unwrap();
    let answer = Answer::read(site.send(open).await).await;
    assert_eq!(answer.json()["info"]["title"], "Fleetward");
    let health = Answer::read(site.send(Request::get("/health").body(Body::empty()).unwrap()).await).await;
    assert_eq!((health.status, &health.json()["status"]), (StatusCode::OK, &json!("healthy")));
    site.app.health().note_stopping();
    let health = site.call("GET", "/health", None).await;
    assert_eq!(
        (health.status, &health.json()["status"]),
        (StatusCode::SERVICE_UNAVAILABLE, &json!("stopping"))
    );
    let metrics = site.call("GET", "/metrics", None).await;
    let text = String::from_utf8(metrics.bytes).unwrap();
    assert!(
        text.contains("fleetward_http_requests_total{method=\"GET\",route=\"/health\",status=\"503\"} 1"),
        "{text}"
    );
}

#[tokio::test]
async fn the_monitorings_token_reads_the_figures_and_nothing_else() {
    let site = TestSite::new().await;
    let status = async |path: &str, token: &str| {
        let request = Request::get(path).header("authorization", format!("Bearer {token}"));
        site.send(request.body(Body::empty()).unwrap()).await.status()
    };
    assert_eq!(status("/metrics", METRICS_TOKEN).await, StatusCode::OK);
    assert_eq!(status("/metrics", "another token of that length").await, StatusCode::UNAUTHORIZED);
    assert_eq!(status("/api/v1/hosts", METRICS_TOKEN).await, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn the_figures_of_all_tenants_are_not_for_who_reads_in_one() {
    use fleetward_store::people::tenant;

    let site = TestSite::new().await;
    assert_eq!(site.call("GET", "/metrics", None).await.status, StatusCode::OK);
    let other = tenant::Tenant {
        id: fleetward_protocol::id::TenantId::from_uuid(uuid::Uuid::now_v7()),
        name: "other".parse().unwrap(),
        title: "Other".to_owned(),
        created_at: site.app.now(),
    };
    let mut tx = site.app.store().write().await.unwrap();
    tenant::insert(&mut tx, &other).await.unwrap();
    tx.commit().await.unwrap();
    let refused = site.call("GET", "/metrics", None).await;
    assert_eq!(
        (refused.status, refused.code()),
        (StatusCode::FORBIDDEN, "METRICS_OF_ALL_TENANTS".to_owned())
    );
    assert_eq!(site.call_as(METRICS_TOKEN, "GET", "/metrics", None).await.status, StatusCode::OK);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// Whatever is asked, a failure is an object with code and message.
    #[test]
    fn p36_every_failure_has_code_and_message(
        route in any::<prop::sample::Index>(),
        text in "\\PC{1,20}",
        query in "([a-z_]{1,8}=[ -~]{0,12})?",
        body in prop_oneof![
            Just(String::new()),
            "\\PC{0,40}",
            Just("{}".to_owned()),
            Just("[1]".to_owned()),
            Just("{\"on\":7,\"name\":null,\"scripts\":{}}".to_owned()),
            Just("\u{0}".to_owned()),
        ],
        kind in prop::sample::select(vec!["application/json", "text/plain", "application/json; charset=utf-8"]),
        with_token in any::<bool>(),
    ) {
        thread_local! {
            static SITE: (tokio::runtime::Runtime, TestSite, Vec<(String, String)>) = {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                let site = runtime.block_on(TestSite::new());
                // The fleet's live events do not end.
                let routes = routes().into_iter().filter(|(_, path)| path != "/api/v1/events").collect();
                (runtime, site, routes)
            };
        }
        let (verb, path) = SITE.with(|(_, _, routes)| route.get(routes).clone());
        let encoded: String = form_urlencoded::byte_serialize(text.as_bytes()).collect();
        let encoded = encoded.replace('+', "%20");
        let query: String = query.split_once('=').map(|(name, value)| form_urlencoded::Serializer::new(String::new()).append_pair(name, value).finish()).unwrap_or_default();
        let uri = format!("{}?{query}", path.replace("{id}", &encoded).replace("{name}", &encoded));
        let answer = SITE.with(|(runtime, site, _)| {
            let mut request = Request::builder().method(method(&verb.to_uppercase())).uri(uri).header("content-type", kind);
            if with_token {
                request = request.header("authorization", format!("Bearer {}", site.token));
            }
            let request = request.body(Body::from(body)).unwrap();
            runtime.block_on(async { Answer::read(site.send(request).await).await })
        });
        if answer.status.as_u16() >= 400 {
            prop_assert!(answer.status != StatusCode::INTERNAL_SERVER_ERROR, "{:?}", answer);
            // Health tells what is wrong in its own words.
            if path != "/health" {
                answer.code();
            }
        }
    }
}
