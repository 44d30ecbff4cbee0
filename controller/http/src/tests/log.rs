//! What the log says of requests that failed.

use std::cell::Cell;

use axum::body::Body;
use axum::http::Request;
use fleetward_app::testing::Log;
use proptest::prelude::*;
use proptest::test_runner::TestRunner;

use super::site::{Answer, TestSite};

/// Whatever is asked while the database is away, the log has the failure with its time, the request and the cause,
/// under the id that the answer names.
#[test]
fn p35_failures_are_logged_with_time_and_context() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let site = runtime.block_on(TestSite::new());
    runtime.block_on(site.app.store().clone().close()).unwrap();
    let log = Log::default();
    let collection = prop::sample::select(vec!["hosts", "operations", "scripts", "runs"]);
    let failures = Cell::new(0);
    tracing::subscriber::with_default(log.subscriber(), || {
        TestRunner::new(ProptestConfig::with_cases(100))
            .run(&(collection, "[a-z0-9-]{1,20}", "[ -~]{0,20}"), |(collection, name, agent)| {
                let path = format!("/api/v1/{collection}/{name}");
                let request = Request::get(&path)
                    .header("authorization", format!("Bearer {}", site.token))
                    .header("user-agent", agent)
                    .body(Body::empty())
                    .unwrap();
                let answer = runtime.block_on(site.send(request));
                let id = answer.headers()["x-request-id"].to_str().unwrap().to_owned();
                let failed = log.take("request.failed");
                if !answer.status().is_server_error() {
                    // No such route, and nothing that failed.
                    prop_assert!(answer.status().is_client_error() && failed.is_empty());
                    return Ok(());
                }
                failures.set(failures.get() + 1);
                prop_assert_eq!(failed.len(), 1);
                // P36 holds for what is the controller's own fault, too.
                runtime.block_on(Answer::read(answer)).code();
                let line = &failed[0];
                prop_assert_eq!(&line["span"]["id"], &id);
                prop_assert_eq!(&line["span"]["path"], &path);
                prop_assert_eq!(&line["span"]["method"], "GET");
                prop_assert!(line["fields"]["error"].as_str().is_some_and(|error| !error.is_empty()));
                Ok(())
            })
            .unwrap();
    });
    assert!(failures.get() >= 100, "{failures:?}");
}
