//! What the log says of requests that failed.

use std::cell::Cell;
use std::io;
use std::sync::{Arc, Mutex};

use axum::body::Body;
use axum::http::Request;
use proptest::prelude::*;
use proptest::test_runner::TestRunner;

use super::site::TestSite;

/// Everything that was logged.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Log {
    fn take(&self) -> String {
        String::from_utf8(std::mem::take(&mut self.0.lock().unwrap())).unwrap()
    }
}

/// Whatever is asked while the database is away, the log has the failure with its time, the request and the cause,
/// under the id that the answer names.
#[test]
fn p35_failures_are_logged_with_time_and_context() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let site = runtime.block_on(TestSite::new());
    runtime.block_on(site.app.store().clone().close()).unwrap();
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt().json().with_writer(move || writer.clone()).finish();
    let collection = prop::sample::select(vec!["hosts", "operations", "scripts", "runs"]);
    let failures = Cell::new(0);
    tracing::subscriber::with_default(subscriber, || {
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
                let lines = log.take();
                if !answer.status().is_server_error() {
                    // No such route, and nothing that failed.
                    prop_assert!(answer.status().is_client_error() && !lines.contains("request.failed"));
                    return Ok(());
                }
                let failed: Vec<serde_json::Value> = lines
                    .lines()
                    .map(|line| serde_json::from_str(line).unwrap())
                    .filter(|line: &serde_json::Value| line["fields"]["message"] == "request.failed")
                    .collect();
                failures.set(failures.get() + 1);
                prop_assert_eq!(failed.len(), 1, "{}", lines);
                let line = &failed[0];
                prop_assert_eq!(&line["span"]["id"], &id);
                prop_assert_eq!(&line["span"]["path"], &path);
                prop_assert_eq!(&line["span"]["method"], "GET");
                prop_assert!(line["fields"]["error"].as_str().is_some_and(|error| !error.is_empty()));
                let time = line["timestamp"].as_str().unwrap();
                prop_assert!(time.parse::<fleetward_api::time::Time>().is_ok(), "{}", time);
                Ok(())
            })
            .unwrap();
    });
    assert!(failures.get() >= 100, "{failures:?}");
}
