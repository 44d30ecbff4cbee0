//! A kind that nobody wrote anything for but its contract goes through the whole API.

use axum::http::StatusCode;
use fleetward_domain::people::permission::Role;
use fleetward_domain::work::operation::OperationStatus;
use fleetward_domain::work::run::RunState;
use fleetward_protocol::event::{Event, StepState};
use fleetward_protocol::output::Stream;
use fleetward_protocol::text::Text;
use serde_json::{Value, json};

use super::follow::{Client, move_to};
use super::site::{TestSite, custody, moved, written};

const CREATE: &str = "/api/v1/operations";

fn levitate(params: &Value) -> Value {
    json!({ "steps": [{ "kind": "levitate", "params": params }], "on": "all" })
}

#[tokio::test]
async fn a_kind_is_listed_with_what_it_takes_and_tells() {
    let site = TestSite::new().await;
    let listed = site.get("/api/v1/kinds").await;
    let listed = listed["items"].as_array().unwrap();
    let names: Vec<&str> = listed.iter().map(|kind| kind["name"].as_str().unwrap()).collect();
    assert!(names.is_sorted() && names.contains(&"levitate") && names.len() > 1, "{names:?}");
    let kind = listed.iter().find(|kind| kind["name"] == "levitate").unwrap();
    assert_eq!((&kind["family"], &kind["permission"]), (&json!("action"), &json!("manage_hosts")));
    assert_eq!((&kind["idempotent"], &kind["timeout_s"]), (&json!(true), &json!(7)));
    assert_eq!(kind["parameters"]["properties"]["height"]["type"], "integer");
    assert_eq!(kind["answer"]["required"], json!(["reached"]));
    let first = site.get("/api/v1/kinds?limit=1").await;
    let rest = site.get(&format!("/api/v1/kinds?cursor={}", first["next_cursor"].as_str().unwrap())).await;
    assert_eq!(rest["items"].as_array().unwrap().len() + 1, listed.len());
}

#[tokio::test]
async fn its_parameters_and_its_permission_are_checked_before_the_first_host() {
    let site = TestSite::new().await;
    site.enrolled_host("web-1").await;
    let operator = site.login_as("olga", Role::Operator).await;
    for path in [CREATE, "/api/v1/targets/preview"] {
        for (params, told) in [
            (json!({}), "missing field `height`"),
            (json!({ "height": "high" }), "invalid type"),
            (json!({ "height": 1, "speed": 2 }), "unknown field `speed`"),
            (json!({ "height": 101 }), "101 m is too high"),
        ] {
            let refused = site.call("POST", path, Some(levitate(&params))).await;
            assert_eq!(
                (refused.status, refused.code().as_str()),
                (StatusCode::BAD_REQUEST, "INVALID_ACTION")
            );
            let refused = refused.json();
            assert_eq!(refused["details"]["kind"], "levitate");
            assert!(refused["error"].as_str().unwrap().contains(told), "{refused}");
        }
        let refused = site.call_as(&operator, "POST", path, Some(levitate(&json!({ "height": 1 })))).await;
        assert_eq!((refused.status, refused.code().as_str()), (StatusCode::FORBIDDEN, "FORBIDDEN"), "{path}");
    }
    let unknown =
        site.call("POST", CREATE, Some(json!({ "steps": [{ "kind": "levitat" }], "on": "all" }))).await;
    assert_eq!((unknown.status, unknown.code().as_str()), (StatusCode::NOT_FOUND, "KIND_NOT_FOUND"));
    assert!(unknown.json()["error"].as_str().unwrap().contains("did you mean `levitate`"));
    assert_eq!(site.get(CREATE).await["items"], json!([]), "nothing of it was planned");
}

#[tokio::test]
async fn its_steps_and_its_report_are_shown() {
    let site = TestSite::new().await;
    site.enrolled_host("web-1").await;
    let asked = levitate(&json!({ "height": 12 }));
    let preview = site.call("POST", "/api/v1/targets/preview", Some(asked.clone())).await.json();
    assert_eq!(preview["subjects"], json!(["to 12 m"]), "as the operation will say");
    let created = site.call("POST", CREATE, Some(asked)).await;
    assert_eq!(created.status, StatusCode::CREATED, "{created:?}");
    let created = created.json();
    let step = &created["steps"][0];
    assert_eq!((&step["kind"], &step["subject"]), (&json!("levitate"), &json!("to 12 m")));
    assert_eq!(step["params"], json!({ "height": 12 }));
    let audited = site.get("/api/v1/audit?limit=1").await["items"][0].clone();
    assert_eq!(audited["details"]["steps"][0]["params"], json!({ "height": 12 }));

    let id = created["id"].as_str().unwrap().parse().unwrap();
    let runs = site.get(&format!("{CREATE}/{id}/runs")).await;
    let run = &runs["items"][0];
    assert_eq!(
        (&run["kind"], &run["subject"], &run["digest"]),
        (&step["kind"], &step["subject"], &step["digest"])
    );
    assert_eq!(run["report"], json!(null));
    let run = run["id"].as_str().unwrap().parse().unwrap();

    let event =
        Event { step: Text::of("lift"), state: StepState::Done, percent: None, words: Text::of("up") };
    let (told, end) = written(
        id,
        run,
        0,
        &[
            (Stream::Stdout, b"lifting\n"),
            (Stream::Event, &event.encode().unwrap()),
            // What is no event, and no report, breaks nothing.
            (Stream::Event, b"\"nonsense\""),
            (Stream::Report, b"[1]"),
            (Stream::Report, br#"{"reached": 11}"#),
        ],
    );
    let (again, _) =
        written(id, run, end, &[(Stream::Report, br#"{"reached": 12}"#), (Stream::Report, b"{")]);
    site.commit(vec![
        moved(id, run, RunState::Queued, RunState::Dispatched(custody())),
        moved(id, run, RunState::Dispatched(custody()), RunState::Running(custody())),
        told,
    ])
    .await;
    assert_eq!(site.get(&format!("/api/v1/runs/{run}")).await["report"], json!({ "reached": 11 }));
    site.commit(vec![again, moved(id, run, RunState::Running(custody()), RunState::Succeeded)]).await;
    move_to(&site, id, OperationStatus::Running).await;
    move_to(&site, id, OperationStatus::Success).await;

    let shown = site.get(&format!("/api/v1/runs/{run}")).await;
    assert_eq!((&shown["report"], &shown["output_bytes"]), (&json!({ "reached": 12 }), &json!(8)));
    let listed = site.get(&format!("{CREATE}/{id}/runs")).await;
    assert_eq!(listed["items"][0]["report"], shown["report"]);

    let mut client = Client::connect(&site, &format!("{CREATE}/{id}/events"), None).await;
    let (mut pieces, mut reports) = (Vec::new(), Vec::new());
    while let Some(event) = client.next().await {
        match event.kind.as_str() {
            "output" => pieces.extend(event.data["pieces"].as_array().unwrap().clone()),
            "run" => reports.push(event.data["report"].clone()),
            _ => assert_eq!(event.data["steps"][0]["kind"], "levitate"),
        }
    }
    assert_eq!(reports.last(), Some(&json!({ "reached": 12 })));
    let texts: Vec<_> = pieces.iter().filter_map(|piece| piece["text"].as_str()).collect();
    assert_eq!(texts, ["lifting\n"]);
    let steps: Vec<_> = pieces.iter().filter(|piece| piece["step"].is_object()).collect();
    assert_eq!(steps.len(), 1);
    assert_eq!(steps[0]["step"], json!({ "step": "lift", "state": "done", "words": "up" }));
    assert_eq!(steps[0]["stream"], json!(null));
    let log = site.call("GET", &format!("/api/v1/runs/{run}/output"), None).await;
    assert_eq!(log.bytes, b"lifting\n");
    let name = log.headers["content-disposition"].to_str().unwrap();
    assert_eq!(name, "attachment; filename=\"web-1-to-12-m.log\"");
}

/// What a dry run tells of files' content is output: who may read what is there, and no output, is not told.
#[tokio::test]
async fn lines_of_files_in_a_report_are_shown_only_to_who_may_read_output() {
    let site = TestSite::new().await;
    site.enrolled_host("web-1").await;
    let created = site.call("POST", CREATE, Some(levitate(&json!({ "height": 12 })))).await.json();
    let id = created["id"].as_str().unwrap().parse().unwrap();
    let runs = format!("{CREATE}/{id}/runs");
    let run = site.get(&runs).await["items"][0]["id"].as_str().unwrap().parse().unwrap();
    let whole = json!({
        "changes": [
            { "what": "write /etc/app.conf", "after": "mode 0600", "diff": ["-password=x", "+password=y"] },
            { "what": "start app" },
        ],
        "left_out": 1,
    });
    let (told, _) = written(id, run, 0, &[(Stream::Report, whole.to_string().as_bytes())]);
    site.commit(vec![
        moved(id, run, RunState::Queued, RunState::Dispatched(custody())),
        moved(id, run, RunState::Dispatched(custody()), RunState::Running(custody())),
        told,
    ])
    .await;
    let reporter = site.login_as("rita", Role::Reporter).await;
    let viewer = site.login_as("vera", Role::Viewer).await;
    let mut part = whole.clone();
    part["changes"][0].as_object_mut().unwrap().remove("diff");
    for (who, expected) in [(reporter, part), (viewer, whole)] {
        let one = site.call_as(&who, "GET", &format!("/api/v1/runs/{run}"), None).await.json();
        assert_eq!(one["report"], expected);
        let listed = site.call_as(&who, "GET", &runs, None).await.json();
        assert_eq!(listed["items"][0]["report"], expected);
    }
}
