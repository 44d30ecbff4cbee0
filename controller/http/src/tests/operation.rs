//! Operations and runs.

use std::cell::Cell;
use std::collections::BTreeSet;

use axum::http::StatusCode;
use fleetward_domain::people::permission::Role;
use fleetward_domain::work::run::RunState;
use fleetward_protocol::id::RunId;
use fleetward_protocol::output::Stream;
use fleetward_store::testing::execute;
use fleetward_store::work::batch::{RunChange, Write};
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use serde_json::{Value, json};

use super::site::{TestSite, custody, moved, written};

/// Another version, or somebody with access to the database, wrote what this build cannot read.
#[tokio::test]
async fn one_operation_that_cannot_be_read_hides_no_other() {
    let site = TestSite::new().await;
    site.script("baseline").await;
    site.enrolled_host("web-1").await;
    for _ in 0..3 {
        site.operation("web-1").await;
    }
    let damage = "UPDATE operation_step SET params = '{' WHERE operation_id = (SELECT id FROM operation WHERE number = 1); \
        UPDATE operation_step SET kind = 'levitate' WHERE operation_id = (SELECT id FROM operation WHERE number = 2); \
        DELETE FROM operation_step WHERE operation_id = (SELECT id FROM operation WHERE number = 3); \
        UPDATE run SET state = 'paused', detail = '{\"status\":\"paused\",\"since\":7}' \
          WHERE operation_id = (SELECT id FROM operation WHERE number = 2); \
        UPDATE operation SET policy = '{\"concurrency\":\"many\"}' WHERE number = 1; \
        UPDATE operation SET policy = '', status = 'failed', ended_at = 1 WHERE number = 3";
    execute(site.app.store(), damage).await;
    let listed = site.get("/api/v1/operations").await;
    let listed = listed["items"].as_array().unwrap();
    let steps: Vec<_> =
        listed.iter().map(|one| (&one["steps"][0]["kind"], &one["steps"][0]["params"])).collect();
    assert_eq!(steps[0], (&json!(null), &json!(null)));
    assert_eq!((steps[1].0, &steps[1].1["name"]), (&json!("levitate"), &json!("baseline")));
    assert_eq!(steps[2], (&json!("script"), &json!({})));
    let rollouts: Vec<_> = listed.iter().map(|one| &one["rollout"]).collect();
    assert_eq!((rollouts[0], rollouts[2]), (&json!({}), &json!({})));
    assert_eq!(rollouts[1]["concurrency"], 50);
    assert_eq!(listed[0]["status_detail"], "what is stored of its rollout cannot be read");
    let detail = listed[2]["status_detail"].as_str().unwrap();
    assert!(detail.contains("starts nothing of it; stop it, or let"), "{detail}");
    for number in ["OP-1", "OP-2", "OP-3"] {
        assert_eq!(site.get(&format!("/api/v1/operations/{number}")).await["number"], number);
        let runs = site.get(&format!("/api/v1/operations/{number}/runs")).await;
        let run = &runs["items"][0];
        let known = ["script", "levitate", "unknown"][number.as_bytes()[3] as usize - usize::from(b'1')];
        assert_eq!(run["kind"], known, "{run}");
        assert_eq!(run["state"], if number == "OP-2" { "lost" } else { "queued" }, "{run}");
        site.get(&format!("/api/v1/runs/{}", run["id"].as_str().unwrap())).await;
    }
}

/// The answer to the first request may be lost, and the commit it spoke of too: the id is the client's.
#[tokio::test]
async fn who_asks_again_with_the_same_id_gets_the_same_operation() {
    let site = TestSite::new().await;
    site.script("baseline").await;
    site.enrolled_host("web-1").await;
    let id = |millis: i64| {
        let millis = u64::try_from(site.app.now().as_millis() + millis).unwrap();
        uuid::Builder::from_unix_timestamp_millis(millis, &[7; 10]).into_uuid().to_string()
    };
    let body = |id: &str, on: &str| json!({ "id": id, "scripts": [{ "name": "baseline" }], "on": on });
    let ask = |body: Value| site.call("POST", "/api/v1/operations", Some(body));
    let created = ask(body(&id(0), "web-1")).await;
    assert_eq!(created.status, StatusCode::CREATED, "{created:?}");
    assert_eq!(created.json()["id"], id(0));
    let runs = format!("/api/v1/operations/{}/runs", id(0));
    let run = site.call("GET", &runs, None).await.json()["items"][0]["id"].clone();
    let operation = id(0).parse().unwrap();
    let client = site.call("GET", "/api/v1/hosts/web-1", None).await.json()["client_id"].clone();
    let derived = RunId::derived(operation, &client.as_str().unwrap().parse().unwrap(), 0);
    assert_eq!(run, derived.to_string(), "whoever plans it anew makes the same runs");

    // What has changed since changes nothing: it is the request of then.
    site.call("POST", "/api/v1/hosts/web-1/retire", None).await;
    let again = ask(body(&id(0), "web-1")).await;
    assert_eq!((again.status, &again.json()["number"]), (StatusCode::CREATED, &json!("OP-1")));
    assert_eq!(
        site.call("GET", "/api/v1/operations", None).await.json()["items"].as_array().unwrap().len(),
        1
    );

    for (request, code) in [
        (body(&id(0), "web-*"), "ID_TAKEN"),
        (body(&id(25 * 3_600_000), "web-1"), "INVALID_ID"),
        (body(&id(-25 * 3_600_000), "web-1"), "INVALID_ID"),
        (body("00000000-0000-4000-8000-000000000000", "web-1"), "INVALID_ID"),
    ] {
        assert_eq!(ask(request.clone()).await.code(), code, "{request}");
    }
    // Nor does anybody learn of another's.
    let other = site.login_as("olga", Role::Operator).await;
    let refused = site.call_as(&other, "POST", "/api/v1/operations", Some(body(&id(0), "web-1"))).await;
    assert_eq!(refused.code(), "ID_TAKEN");
}

#[tokio::test]
async fn an_operation_is_asked_for_and_stopped() {
    let site = TestSite::new().await;
    site.script("baseline").await;
    site.enrolled_host("web-1").await;
    site.enrolled_host("web-2").await;
    site.call("POST", "/api/v1/hosts", Some(json!({ "name": "new-1", "type": "VM" }))).await;

    let ask = |body| site.call("POST", "/api/v1/operations", Some(body));
    let call = json!([{ "name": "baseline" }]);
    for (body, status, code) in [
        (json!({ "scripts": [], "on": "all" }), 400, "INVALID_STEPS"),
        (json!({ "on": "all" }), 400, "INVALID_STEPS"),
        (json!({ "steps": [{ "kind": "fly" }], "on": "web-*" }), 404, "KIND_NOT_FOUND"),
        (json!({ "steps": [{ "kind": "script" }], "on": "web-*" }), 400, "INVALID_ACTION"),
        (
            json!({ "steps": [{ "kind": "script", "params": { "name": "nothing" } }], "on": "web-*" }),
            404,
            "SCRIPT_NOT_FOUND",
        ),
        (
            json!({ "steps": [{ "kind": "script", "params": { "digest": "00" } }], "on": "web-*" }),
            400,
            "INVALID_ACTION",
        ),
        (
            json!({ "steps": [{ "kind": "unit", "params": { "unit": "a b", "verb": "stop" } }], "on": "web-*" }),
            400,
            "INVALID_ACTION",
        ),
        (
            json!({ "steps": [{ "kind": "unit", "params": {} }], "scripts": call, "on": "web-*" }),
            400,
            "INVALID_STEPS",
        ),
        (
            json!({ "steps": [{ "kind": "unit", "params": {} }], "user": "root", "on": "web-*" }),
            400,
            "INVALID_STEPS",
        ),
        (json!({ "scripts": [{ "name": "nothing" }], "on": "web-*" }), 404, "SCRIPT_NOT_FOUND"),
        (json!({ "scripts": call, "on": "web-*", "reason": "x".repeat(1001) }), 400, "INVALID_FIELD"),
        (json!({ "scripts": call, "on": "web-9" }), 400, "UNKNOWN_TARGETS"),
        (json!({ "scripts": call, "on": "tag:nothing" }), 400, "NO_TARGETS"),
        (json!({ "scripts": call, "on": "web-* &" }), 400, "INVALID_TARGETS"),
        (json!({ "scripts": call, "on": "all" }), 403, "HOST_NOT_ENROLLED"),
        (json!({ "scripts": call, "on": "web-*", "rollout": { "batch": "many" } }), 400, "INVALID_FIELD"),
        (json!({ "scripts": call, "on": "web-*", "rollout": { "batch": "0" } }), 400, "INVALID_ROLLOUT"),
        (json!({ "scripts": call, "on": "web-*", "rollout": { "concurrency": 0 } }), 400, "INVALID_FIELD"),
        (
            json!({ "scripts": call, "on": "web-*", "rollout": { "concurrency": 99999 } }),
            429,
            "CONCURRENCY_EXCEEDED",
        ),
        (json!({ "scripts": call, "on": "web-*", "rollout": { "concurency": 1 } }), 400, "UNKNOWN_FIELD"),
    ] {
        let answer = ask(body.clone()).await;
        assert_eq!((answer.status.as_u16(), answer.code().as_str()), (status, code), "{body}");
    }
    // P13: those that are not enrolled are named.
    let refused = ask(json!({ "scripts": call, "on": "all" })).await.json();
    assert_eq!(refused["details"]["hosts"], json!([{ "host": "new-1", "standing": "pending" }]));

    let body = json!({
        "scripts": [{ "name": "baseline", "arguments": ["--dry-run"] }], "on": "web-*", "reason": "because",
        "rollout": { "batch": "50%", "canary": "1", "max_failures": "3", "timeout_s": 60 },
    });
    let created = ask(body).await;
    assert_eq!(created.status, StatusCode::CREATED);
    let created = created.json();
    assert_eq!(
        (&created["number"], &created["status"], &created["hosts"]),
        (&json!("OP-1"), &json!("queued"), &json!(2))
    );
    assert_eq!(created["counts"], json!([{ "state": "queued", "count": 2 }]));
    assert_eq!(created["steps"][0]["params"]["arguments"], json!(["--dry-run"]));
    assert_eq!((&created["reason"], &created["created_by"]), (&json!("because"), &json!("ada")));
    let rollout = json!({
        "concurrency": 50, "batch": "50%", "canary": "1", "max_failures": "3", "timeout_s": 60, "deadline_s": 86400,
        "offline": "wait", "continue_on_failure": false,
    });
    assert_eq!(created["rollout"], rollout);

    let id = created["id"].as_str().unwrap();
    for name in [id, "OP-1", "op-1"] {
        assert_eq!(site.get(&format!("/api/v1/operations/{name}")).await["id"], created["id"]);
    }
    let missing = site.call("GET", "/api/v1/operations/OP-9", None).await;
    assert_eq!(missing.code(), "OPERATION_NOT_FOUND");
    assert!(missing.json()["error"].as_str().unwrap().contains("`fleetward op list`"), "{missing:?}");
    assert_eq!(created["status_detail"], "2 runs wait for their turn, or for their hosts");
    assert_eq!(site.call("GET", "/api/v1/operations/seventeen", None).await.code(), "INVALID_OPERATION_ID");
    let runs = site.get("/api/v1/operations/OP-1/runs").await;
    let hosts: Vec<&str> =
        runs["items"].as_array().unwrap().iter().map(|run| run["host"].as_str().unwrap()).collect();
    assert_eq!(hosts, ["web-1", "web-2"]);
    assert_eq!(runs["items"][0]["state_detail"], "waiting for host");
    let one = site.get("/api/v1/operations/OP-1/runs?host=web-2&state=queued").await;
    assert_eq!(one["items"].as_array().unwrap().len(), 1);

    for (query, count) in [
        ("status=queued", 1),
        ("status=failed", 0),
        ("kind=script&subject=baseline", 1),
        ("kind=script", 1),
        ("subject=baseline", 1),
        ("subject=Line", 1),
        ("subject=%25", 0),
        ("subject=b_seline", 0),
        ("kind=unit", 0),
        ("kind=unit&subject=baseline", 0),
        ("subject=other", 0),
        ("subject=%00baseline", 0),
        ("host=web-2", 1),
        ("host=new-1", 0),
        ("from=2023-11-14T22:13:20Z", 1),
        ("to=2023-11-14T22:13:20Z", 0),
    ] {
        let page = site.get(&format!("/api/v1/operations?{query}")).await;
        assert_eq!(page["items"].as_array().unwrap().len(), count, "{query}");
    }

    for (kind, told) in
        [("unti", "did you mean `unit`? kinds are "), ("%1b", "script, daemon-reload, unit, ")]
    {
        let refused = site.call("GET", &format!("/api/v1/operations?kind={kind}"), None).await;
        assert_eq!((refused.status.as_u16(), refused.code().as_str()), (400, "INVALID_PARAMETER"));
        assert!(refused.json()["error"].as_str().unwrap().contains(told), "{refused:?}");
    }

    let viewer = site.login_as("vera", fleetward_domain::people::permission::Role::Viewer).await;
    assert_eq!(site.call_as(&viewer, "POST", "/api/v1/operations/OP-1/stop", None).await.code(), "FORBIDDEN");
    let stopped = site.call("POST", "/api/v1/operations/OP-1/stop", None).await;
    assert_eq!(stopped.status, StatusCode::OK, "{stopped:?}");
    assert_eq!(
        site.call("POST", "/api/v1/operations/OP-1/stop", None).await.code(),
        "OPERATION_NOT_STOPPABLE"
    );
}

#[tokio::test]
async fn each_operation_of_a_page_has_its_own_counts() {
    let site = TestSite::new().await;
    site.script("baseline").await;
    for name in ["web-1", "web-2", "web-3"] {
        site.enrolled_host(name).await;
    }
    site.app.dispatcher().shutdown();
    site.app.dispatcher().stopped().await;
    let mut expected = Vec::new();
    for (on, counts) in [
        ("web-1", json!([{ "state": "succeeded", "count": 1 }])),
        ("all", json!([{ "state": "queued", "count": 2 }, { "state": "succeeded", "count": 1 }])),
        ("web-2 | web-3", json!([{ "state": "queued", "count": 1 }, { "state": "succeeded", "count": 1 }])),
    ] {
        let id = site.operation(on).await["id"].as_str().unwrap().to_owned();
        let run = &site.get(&format!("/api/v1/operations/{id}/runs")).await["items"][0]["id"];
        let run = run.as_str().unwrap().parse().unwrap();
        site.commit(vec![moved(id.parse().unwrap(), run, RunState::Queued, RunState::Succeeded)]).await;
        assert_eq!(site.get(&format!("/api/v1/operations/{id}")).await["counts"], counts);
        expected.insert(0, (id, counts));
    }
    let page = site.get("/api/v1/operations?limit=3").await;
    let listed: Vec<_> = page["items"].as_array().unwrap().iter().collect();
    for (listed, (id, counts)) in listed.iter().zip(&expected) {
        assert_eq!((listed["id"].as_str(), &listed["counts"]), (Some(id.as_str()), counts));
    }
    assert_eq!(listed.len(), expected.len());
}

#[tokio::test]
async fn output_is_downloaded_byte_for_byte() {
    let site = TestSite::new().await;
    site.script("baseline").await;
    site.enrolled_host("web-1").await;
    let created = site.operation("web-1").await;
    let operation = created["id"].as_str().unwrap().parse().unwrap();
    let runs = site.get("/api/v1/operations/OP-1/runs").await;
    let text = runs["items"][0]["id"].as_str().unwrap().to_owned();
    let run = text.parse().unwrap();

    site.commit(vec![
        moved(operation, run, RunState::Queued, RunState::Dispatched(custody())),
        moved(operation, run, RunState::Dispatched(custody()), RunState::Running(custody())),
    ])
    .await;
    let (mut out, mut err, mut at) = (Vec::new(), Vec::new(), 0);
    for round in 0..40_u32 {
        let noise: Vec<u8> = (0..30_000_u32).map(|byte| (byte.wrapping_mul(round + 7) >> 3) as u8).collect();
        let warning = format!("warning {round}\n");
        let (write, end) =
            written(operation, run, at, &[(Stream::Stdout, &noise), (Stream::Stderr, warning.as_bytes())]);
        out.extend(noise);
        err.extend(warning.into_bytes());
        at = end;
        site.commit(vec![write]).await;
    }
    for (query, wanted) in [("stdout", &out), ("stderr", &err)] {
        let answer = site.call("GET", &format!("/api/v1/runs/{text}/output?stream={query}"), None).await;
        assert_eq!(answer.status, StatusCode::OK);
        assert_eq!(answer.headers["content-type"], "application/octet-stream");
        assert_eq!(answer.headers["content-disposition"], "attachment; filename=\"web-1-baseline.log\"");
        assert!(answer.bytes == *wanted, "{query} differs");
    }
    let both = site.call("GET", &format!("/api/v1/runs/{text}/output"), None).await;
    assert_eq!(both.bytes.len(), out.len() + err.len());
    let shown = site.get(&format!("/api/v1/runs/{text}")).await;
    assert_eq!((&shown["state"], &shown["output_bytes"]), (&json!("running"), &json!(out.len() + err.len())));
    let none = site.call("GET", "/api/v1/runs/00000000-0000-7000-8000-000000000009/output", None).await;
    assert_eq!((none.status, none.code().as_str()), (StatusCode::NOT_FOUND, "RUN_NOT_FOUND"));
}

/// Whatever is asked for: if one of the targets is not enrolled, all such are listed and nothing is planned (P13);
/// otherwise there is an operation with an id, queued, and with one queued run for each script and host (P14).
#[test]
fn p13_p14_an_operation_is_queued_whole_or_refused_with_all_that_is_not_enrolled() {
    use fleetward_store::fleet::host::{self, Enrolment};
    use fleetward_store::testing::NOW;

    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let site = runtime.block_on(TestSite::new());
    let standings = [
        Enrolment::Enrolled,
        Enrolment::Enrolled,
        Enrolment::Enrolled,
        Enrolment::Pending,
        Enrolment::Quarantined,
        Enrolment::Revoked,
    ];
    runtime.block_on(async {
        for script in ["s0", "s1", "s2"] {
            site.script(script).await;
        }
        for (number, standing) in standings.into_iter().enumerate() {
            let body = json!({ "name": format!("h{number}"), "type": "VM" });
            let added = site.call("POST", "/api/v1/hosts", Some(body)).await.json();
            let id = added["host"]["id"].as_str().unwrap().parse().unwrap();
            let mut tx = site.app.store().write().await.unwrap();
            host::update_enrolment(&mut tx, id, Enrolment::Pending, standing, NOW).await.unwrap();
            tx.commit().await.unwrap();
        }
    });
    let planned = Cell::new(0_usize);
    let refused = Cell::new(0_usize);
    let enrolled = prop::collection::btree_set(0..3_usize, 0..3);
    let others = prop_oneof![Just(BTreeSet::new()), prop::collection::btree_set(3..6_usize, 1..4),];
    let targets = (enrolled, others).prop_map(|(enrolled, others)| &enrolled | &others);
    let targets = targets.prop_filter("a target", |targets| !targets.is_empty());
    TestRunner::new(ProptestConfig::with_cases(200))
        .run(&(targets, 1..4_usize), |(targets, scripts)| {
            let names: Vec<String> = targets.iter().map(|number| format!("h{number}")).collect();
            let scripts: Vec<Value> =
                (0..scripts).map(|number| json!({ "name": format!("s{number}") })).collect();
            let body = json!({ "scripts": scripts, "on": names.join(" | ") });
            let answer = runtime.block_on(site.call("POST", "/api/v1/operations", Some(body)));
            let listed: Vec<Value> = targets
                .iter()
                .filter(|&&number| standings[number] != Enrolment::Enrolled)
                .map(
                    |&number| json!({ "host": format!("h{number}"), "standing": standings[number].as_str() }),
                )
                .collect();
            if !listed.is_empty() {
                refused.set(refused.get() + 1);
                prop_assert_eq!(answer.status, StatusCode::FORBIDDEN);
                prop_assert_eq!(answer.code(), "HOST_NOT_ENROLLED");
                prop_assert_eq!(&answer.json()["details"]["hosts"], &Value::Array(listed));
                // The next one's number shows that nothing was left behind.
                return Ok(());
            }
            planned.set(planned.get() + 1);
            prop_assert_eq!(answer.status, StatusCode::CREATED, "{:?}", answer);
            let created = answer.json();
            let number = format!("OP-{}", planned.get());
            prop_assert_eq!((&created["number"], &created["status"]), (&json!(number), &json!("queued")));
            let id = created["id"].as_str().unwrap();
            let shown = runtime.block_on(site.get(&format!("/api/v1/operations/{id}")));
            prop_assert_eq!((&shown["id"], &shown["status"]), (&json!(id), &json!("queued")));
            let runs = runtime.block_on(site.get(&format!("/api/v1/operations/{id}/runs")));
            let found: Vec<(Value, Value, Value)> = runs["items"]
                .as_array()
                .unwrap()
                .iter()
                .map(|run| (run["host"].clone(), run["subject"].clone(), run["state"].clone()))
                .collect();
            let expected: Vec<(Value, Value, Value)> = names
                .iter()
                .flat_map(|host| {
                    scripts.iter().map(move |call| (json!(host), call["name"].clone(), json!("queued")))
                })
                .collect();
            prop_assert_eq!(found, expected);
            Ok(())
        })
        .unwrap();
    assert!(planned.get() >= 50 && refused.get() >= 50, "{planned:?} {refused:?}");
}

/// What a run may end as, with how the API shows it: state, exit code, signal.
fn ends() -> impl Strategy<Value = (RunState, (&'static str, Value, Value))> {
    use fleetward_domain::work::run::{Cause, Failure};
    use fleetward_protocol::run::{LostCause, Refusal};
    prop_oneof![
        Just((RunState::Succeeded, ("succeeded", json!(0), Value::Null))),
        (1..256_i32)
            .prop_map(|code| (RunState::Failed(Failure::Exit(code)), ("failed", json!(code), Value::Null))),
        (1..65_i32).prop_map(|signal| (
            RunState::Failed(Failure::Signal(signal)),
            ("failed", Value::Null, json!(signal))
        )),
        Just((RunState::TimedOut, ("timed_out", Value::Null, Value::Null))),
        Just((RunState::Cancelled(Cause::Requested), ("cancelled", Value::Null, Value::Null))),
        Just((RunState::Refused(Refusal::NotBash), ("refused", Value::Null, Value::Null))),
        Just((RunState::Expired, ("expired", Value::Null, Value::Null))),
        Just((RunState::Lost(LostCause::Reboot), ("lost", Value::Null, Value::Null))),
    ]
}

/// What the API shows of an operation that ended is what happened, for each of its targets: how the run ended, with
/// its code or signal and how long it took, and its output byte for byte, each stream for itself.
#[test]
fn p16_p33_the_view_has_every_result_and_all_output() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let site = runtime.block_on(TestSite::new());
    runtime.block_on(async {
        site.script("baseline").await;
        for number in 0..5 {
            site.enrolled_host(&format!("h{number}")).await;
        }
        // Nothing is started by itself: these runs' fates are drawn.
        site.app.dispatcher().shutdown();
        site.app.dispatcher().stopped().await;
    });
    let pieces = prop::collection::vec((any::<bool>(), prop::collection::vec(any::<u8>(), 1..60)), 0..5);
    let fates = prop::collection::vec((ends(), pieces, 0..10_000_000_u64), 1..6);
    TestRunner::new(ProptestConfig::with_cases(100))
        .run(&fates, |fates| {
            let names: Vec<String> = (0..fates.len()).map(|number| format!("h{number}")).collect();
            let created = runtime.block_on(site.operation(&names.join(",")));
            let id = created["id"].as_str().unwrap();
            let operation = id.parse().unwrap();
            let runs = runtime.block_on(site.get(&format!("/api/v1/operations/{id}/runs")));
            let runs: Vec<String> = runs["items"]
                .as_array()
                .unwrap()
                .iter()
                .map(|run| run["id"].as_str().unwrap().to_owned())
                .collect();
            for (text, ((end, _), pieces, took)) in runs.iter().zip(&fates) {
                let run = text.parse().unwrap();
                let held = RunState::Running(custody());
                let mut writes = vec![
                    moved(operation, run, RunState::Queued, RunState::Dispatched(custody())),
                    moved(operation, run, RunState::Dispatched(custody()), held.clone()),
                ];
                let mut at = 0;
                for (to_stderr, bytes) in pieces {
                    let stream = if *to_stderr { Stream::Stderr } else { Stream::Stdout };
                    let (write, end) = written(operation, run, at, &[(stream, bytes)]);
                    writes.push(write);
                    at = end;
                }
                let Write::Run(change) = moved(operation, run, held, end.clone()) else { unreachable!() };
                writes.push(Write::Run(RunChange { duration_ms: Some(*took), ..change }));
                runtime.block_on(site.commit(writes));
            }
            let shown = runtime.block_on(site.get(&format!("/api/v1/operations/{id}/runs?limit=2")));
            prop_assert_eq!(shown["items"].as_array().unwrap().len(), fates.len().min(2));
            let shown = runtime.block_on(site.get(&format!("/api/v1/operations/{id}/runs")));
            let shown = shown["items"].as_array().unwrap();
            prop_assert_eq!(shown.len(), fates.len());
            for ((row, name), ((_, (state, code, signal)), pieces, took)) in
                shown.iter().zip(&names).zip(&fates)
            {
                prop_assert_eq!((&row["host"], &row["state"]), (&json!(name), &json!(state)));
                prop_assert_eq!((&row["exit_code"], &row["signal"]), (code, signal));
                prop_assert_eq!(&row["duration_ms"], &json!(took));
                prop_assert!(row["ended_at"].is_string(), "{}", row);
                for (stream, wanted) in [("stdout", false), ("stderr", true)] {
                    let path = format!("/api/v1/runs/{}/output?stream={stream}", row["id"].as_str().unwrap());
                    let output = runtime.block_on(site.call("GET", &path, None)).bytes;
                    let wrote: Vec<u8> = pieces
                        .iter()
                        .filter(|(to_stderr, _)| *to_stderr == wanted)
                        .flat_map(|(_, bytes)| bytes.clone())
                        .collect();
                    prop_assert_eq!(output, wrote);
                }
            }
            Ok(())
        })
        .unwrap();
}

/// The console, the CLI and programs all show these words.
#[tokio::test]
async fn where_a_run_stands_is_told_in_words() {
    use fleetward_domain::work::run::{Cause, Custody};
    use fleetward_protocol::run::{LostCause, Refusal};

    let site = TestSite::new().await;
    site.script("baseline").await;
    site.enrolled_host("web-1").await;
    site.app.dispatcher().shutdown();
    site.app.dispatcher().stopped().await;
    let held = custody();
    let unwanted = Custody { cancel: Some(Cause::Requested), ..held };
    for (state, words) in [
        (RunState::Queued, Some("waiting for host")),
        (RunState::Dispatched(held), Some("the host is not connected; it will say whether it has the run")),
        (
            RunState::Accepted(held),
            Some("the host is not connected; it has the run, and starts it by itself"),
        ),
        (
            RunState::Running(held),
            Some("the host is not connected; the run goes on there, and its output follows"),
        ),
        (RunState::Running(unwanted), Some("to be stopped when the host returns")),
        (RunState::Succeeded, None),
        (RunState::Expired, Some("not started before the deadline")),
        (RunState::Refused(Refusal::DeadlinePassed), Some("the deadline passed before it could start")),
        (RunState::Cancelled(Cause::Halted), Some("too many hosts failed")),
        (RunState::Cancelled(Cause::PreviousStepFailed), Some("the step before it did not succeed")),
        (RunState::Lost(LostCause::Reboot), Some("the host was rebooted or lost power")),
        (RunState::Lost(LostCause::SupervisorGone), Some("the run's supervisor disappeared")),
        (RunState::Lost(LostCause::JournalGone), Some("the host no longer knows the run")),
        (RunState::Lost(LostCause::SpoolUnreadable), Some("the host could not read the run's output back")),
        (RunState::Lost(LostCause::HostGone), Some("the host was retired or revoked meanwhile")),
    ] {
        let created = site.operation("web-1").await;
        let id = created["id"].as_str().unwrap();
        let path = format!("/api/v1/operations/{id}/runs");
        let run = site.get(&path).await["items"][0]["id"].as_str().unwrap().parse().unwrap();
        if state != RunState::Queued {
            site.commit(vec![moved(id.parse().unwrap(), run, RunState::Queued, state.clone())]).await;
        }
        let shown = site.get(&path).await;
        assert_eq!(shown["items"][0]["state_detail"].as_str(), words, "{state:?}");
    }
}

/// A run has two lengths when its script left somebody who held its output open. The words say why.
#[tokio::test]
async fn what_a_script_left_running_is_told_beside_its_state() {
    use fleetward_domain::work::run::Failure;
    use fleetward_protocol::run::{Fate, Left};

    let site = TestSite::new().await;
    site.script("baseline").await;
    site.enrolled_host("web-1").await;
    site.app.dispatcher().shutdown();
    site.app.dispatcher().stopped().await;
    let words = "left 2 processes running; they held its output open for 5.0 s more, and what they write is no \
                 longer kept";
    let failed = format!("failed with exit code 3; {words}");
    for (state, told) in [(RunState::Succeeded, words), (RunState::Failed(Failure::Exit(3)), failed.as_str())]
    {
        let created = site.operation("web-1").await;
        let id = created["id"].as_str().unwrap();
        let path = format!("/api/v1/operations/{id}/runs");
        let run = site.get(&path).await["items"][0]["id"].as_str().unwrap().parse().unwrap();
        let Write::Run(change) = moved(id.parse().unwrap(), run, RunState::Queued, state) else {
            unreachable!()
        };
        let left = Some(Left { processes: 2, held_ms: 5004, fate: Fate::Unkept });
        site.commit(vec![Write::Run(RunChange { duration_ms: Some(3), left, ..change })]).await;
        let shown = &site.get(&path).await["items"][0];
        assert_eq!(shown["state_detail"], told);
        assert_eq!(shown["duration_ms"], 3);
        assert_eq!(shown["left"], json!({ "processes": 2, "held_ms": 5004, "fate": "unkept" }));
    }
}

/// P34, through the API: whatever is asked for, exactly the operations that are so are listed, newest first (P32).
#[test]
fn p34_filters_are_exact() {
    use std::time::Duration;

    use fleetward_domain::work::operation::OperationStatus;
    use fleetward_protocol::id::OperationId;

    use fleetward_store::work::operation as rows;

    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let site = runtime.block_on(TestSite::new());
    let made: Vec<(String, OperationStatus, i64)> = runtime.block_on(async {
        site.script("baseline").await;
        site.enrolled_host("web-1").await;
        // The statuses are made up here: whoever derives them from runs would put them right.
        site.app.dispatcher().shutdown();
        site.app.dispatcher().stopped().await;
        let mut made = Vec::new();
        for number in 0..18_usize {
            site.clock.advance(Duration::from_secs(10));
            let created = site.operation("all").await;
            let id = created["id"].as_str().unwrap().to_owned();
            let status = OperationStatus::ALL[number % 6];
            if status != OperationStatus::Queued {
                let operation: OperationId = id.parse().unwrap();
                let mut tx = site.app.store().write().await.unwrap();
                rows::update_status(&mut tx, operation, OperationStatus::Queued, status, site.app.now())
                    .await
                    .unwrap()
                    .unwrap();
                tx.commit().await.unwrap();
            }
            made.push((id, status, site.app.now().as_millis()));
        }
        made
    });
    let bound = || prop::option::of(0_i64..200_000);
    let status = prop::option::of(prop::sample::select(&OperationStatus::ALL[..]));
    TestRunner::new(ProptestConfig::with_cases(128))
        .run(&(status, bound(), bound(), 1..20_u32), |(status, from, to, limit)| {
            let start = fleetward_store::testing::NOW.as_millis();
            let at = |offset: i64| {
                let time = fleetward_protocol::time::Timestamp::from_millis(start + offset);
                fleetward_api::time::Time::from(time).to_string()
            };
            let mut query = format!("limit={limit}");
            status.inspect(|status| query.push_str(&format!("&status={status}")));
            from.inspect(|from| query.push_str(&format!("&from={}", at(*from))));
            to.inspect(|to| query.push_str(&format!("&to={}", at(*to))));
            let mut listed: Vec<String> = Vec::new();
            let mut cursor = String::new();
            loop {
                let page = runtime.block_on(site.get(&format!("/api/v1/operations?{query}{cursor}")));
                listed.extend(
                    page["items"]
                        .as_array()
                        .unwrap()
                        .iter()
                        .map(|row| row["id"].as_str().unwrap().to_owned()),
                );
                match page["next_cursor"].as_str() {
                    Some(next) => cursor = format!("&cursor={next}"),
                    None => break,
                }
            }
            let expected: Vec<String> = made
                .iter()
                .rev()
                .filter(|(_, is, _)| status.is_none_or(|status| status == *is))
                .filter(|(.., when)| {
                    from.is_none_or(|from| *when >= start + from) && to.is_none_or(|to| *when < start + to)
                })
                .map(|(id, ..)| id.clone())
                .collect();
            prop_assert_eq!(listed, expected);
            Ok(())
        })
        .unwrap();
}

/// A host is its id: it takes its history along under another name, and who gets the old name has none of it.
#[tokio::test]
async fn a_hosts_operations_are_found_by_the_name_it_has_now() {
    use fleetward_store::Scope;
    use fleetward_store::fleet::host;

    let site = TestSite::new().await;
    site.script("baseline").await;
    site.enrolled_host("web-1").await;
    site.operation("web-1").await;
    let count = async |name: &str| {
        let found = site.get(&format!("/api/v1/operations?host={name}")).await;
        found["items"].as_array().unwrap().len()
    };
    assert_eq!(count("web-1").await, 1);
    let mut tx = site.app.store().write().await.unwrap();
    let found = host::get(&mut tx, &Scope::Everything, &"web-1".parse().unwrap()).await.unwrap();
    let renamed = host::Declaration { name: "db-1".parse().unwrap(), ..found.declared };
    assert!(host::update(&mut tx, found.tenant, found.id, &renamed, site.app.now()).await.unwrap());
    tx.commit().await.unwrap();
    // Nobody has the old name: who looks for it means the host that had it.
    assert_eq!((count("db-1").await, count("web-1").await), (1, 1));
    site.enrolled_host("web-1").await;
    assert_eq!((count("db-1").await, count("web-1").await), (1, 0));
}
