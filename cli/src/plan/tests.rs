//! What a plan's file must say.

use fleetward_api::error::code;
use fleetward_protocol::time::Timestamp;
use serde_json::{Value, json};

use super::*;
use crate::args::Cli;
use crate::client::double::{Step, answer, serve};
use clap::Parser as _;

const FROM: i64 = 1_767_323_045_000;

/// A plan as a controller makes it.
fn planned() -> Value {
    let id = "01900000-0000-7000-8000-000000000001";
    let clients =
        ["FLEET-00000000-0000-4000-8000-000000000001", "FLEET-00000000-0000-4000-8000-000000000002"];
    let step = Digest::of(b"step");
    let targets: Vec<Target> = clients
        .iter()
        .map(|client| Target { client: client.parse().unwrap(), steps: List::of([step]) })
        .collect();
    let draft = Draft {
        operation: id.parse().unwrap(),
        issuer: fleetward_protocol::text::Text::of("ada"),
        not_before: Timestamp::from_millis(FROM),
        deadline: Timestamp::from_millis(FROM + 60_000),
        policy: Digest::of(b"policy"),
    };
    let bytes = Planned::new(draft, &targets).unwrap().plan;
    json!({
        "operation": { "id": id, "plan": STANDARD.encode(&bytes), "on": "all", "scripts": [{ "name": "patch" }] },
        "digest": Digest::of(&bytes).to_string(),
        "steps": [{ "kind": "script", "subject": "patch", "digest": "0".repeat(64), "params": {}, "order_digest": step.to_string() }],
        "hosts": [{ "name": "web-1", "client_id": clients[0] }, { "name": "web-2", "client_id": clients[1] }],
        "left_out": 0,
        "not_before": "2026-01-02T03:04:05.000Z",
        "deadline": "2026-01-02T03:05:05.000Z",
    })
}

fn read_back(plan: &Value) -> Result<Plan, Failure> {
    parse("plan.json", plan.to_string().as_bytes())
}

#[test]
fn what_a_plan_shows_is_what_it_would_start() {
    read_back(&planned()).unwrap();
    let changes: [(&str, Value); 8] = [
        ("/hosts", json!([])),
        ("/hosts/1/client_id", json!("FLEET-00000000-0000-4000-8000-000000000003")),
        ("/steps/0/order_digest", json!("1".repeat(64))),
        ("/steps", json!([])),
        ("/digest", json!("1".repeat(64))),
        ("/deadline", json!("2026-01-03T03:05:05.000Z")),
        ("/not_before", json!("2026-01-01T03:05:05.000Z")),
        ("/operation/id", json!("01900000-0000-7000-8000-000000000002")),
    ];
    for (place, value) in changes {
        let mut plan = planned();
        *plan.pointer_mut(place).unwrap() = value;
        let told = read_back(&plan).unwrap_err().to_string();
        assert!(told.contains("are not those that it would start"), "{place}: {told}");
    }
}

#[test]
fn what_is_no_plan_is_told_with_the_file() {
    for (text, why) in [("", "EOF"), ("[]", "invalid length"), (r#"{"operation": 7}"#, "invalid type")] {
        let told = parse("plan.json", text.as_bytes()).unwrap_err().to_string();
        assert!(told.starts_with("plan.json is no plan: ") && told.contains(why), "{told}");
        assert!(told.ends_with("make one with `fleetward run SCRIPT --on EXPR --plan FILE`"), "{told}");
    }
    for (value, why) in [(Value::Null, "has no `plan`"), (json!("%"), "Base64"), (json!("AAAA"), "")] {
        let mut plan = planned();
        plan["operation"]["plan"] = value;
        let told = read_back(&plan).unwrap_err().to_string();
        assert!(told.starts_with("plan.json is no plan: ") && told.contains(why), "{told}");
    }
}

/// Submits the plan of a file to a controller that answers as given; what came of it, and what was asked.
async fn submitted(file: &Value, answers: Vec<Step>) -> (Result<Exit, Failure>, Vec<String>) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("plan.json");
    std::fs::write(&path, file.to_string()).unwrap();
    let (address, mut requests) = serve(vec![answers]).await;
    let line = "fleetward --quiet --token secret submit --yes --detach --controller";
    let words = line.split(' ').map(str::to_owned);
    let line = words.chain([address.to_string(), path.display().to_string()]);
    let result = crate::dispatch(Cli::try_parse_from(line).unwrap()).await;
    let mut asked = Vec::new();
    while let Ok(request) = requests.try_recv() {
        asked.push(request);
    }
    (result, asked)
}

fn refused(status: &str, code: &str) -> Step {
    let at = "2026-01-02T03:04:05.000Z";
    answer(status, &json!({ "error": "no", "code": code, "timestamp": at }).to_string())
}

/// The words that a person reads are covered by no digest: the controller has to say the same.
#[tokio::test]
async fn a_plan_whose_words_were_altered_is_not_submitted() {
    let changes: [(&str, Value, &str); 8] = [
        (
            "/hosts/1/name",
            json!("test-2"),
            "the host FLEET-00000000-0000-4000-8000-000000000002 is test-2, the controller web-2",
        ),
        (
            "/steps/0/subject",
            json!("look around"),
            "step 1 is `look around` (script), the controller `patch` (script)",
        ),
        ("/steps/0/kind", json!("unit"), "step 1 is `patch` (unit), the controller `patch` (script)"),
        ("/steps/0/params", json!({ "x": 1 }), "step 1, `patch`, has other parameters"),
        ("/steps/0/digest", json!("1".repeat(64)), "step 1, `patch`, has other parameters"),
        ("/left_out", json!(3), "left out is 3, the controller 0"),
        // A character that a terminal acts on is shown, not sent to it.
        ("/steps/0/subject", json!("\u{1b}[2J"), "step 1 is `␛[2J`"),
        ("/steps/0/subject", json!(""), "step 1 is `` (script)"),
    ];
    for (place, value, difference) in changes {
        let mut file = planned();
        *file.pointer_mut(place).unwrap() = value;
        let answers =
            vec![refused("404 Not Found", "OPERATION_NOT_FOUND"), answer("200 OK", &planned().to_string())];
        let (result, asked) = submitted(&file, answers).await;
        let failure = result.unwrap_err();
        let told = failure.to_string();
        assert!(told.contains(difference) && told.contains("nothing was started"), "{place}: {told}");
        assert_eq!(failure.exit_code(), 2);
        assert!(asked[1].starts_with("POST /api/v1/plans "), "{}", asked[1]);
        let body: Value = serde_json::from_str(asked[1].split("\r\n\r\n").nth(1).unwrap()).unwrap();
        assert_eq!((body.get("plan"), &body["id"]), (None, &planned()["operation"]["id"]), "it is made anew");
        assert_eq!(asked.len(), 2, "nothing was started");
    }
}

/// What the inventory says otherwise by now is named, too.
#[test]
fn what_changed_since_a_plan_was_made_is_named() {
    let file: Plan = serde_json::from_value(planned()).unwrap();
    let now = |change: &dyn Fn(&mut Value)| {
        let mut now = planned();
        change(&mut now);
        compared("plan.json", file.clone(), serde_json::from_value(now).unwrap())
    };
    // Its times are new each time.
    let shown = now(&|now| now["deadline"] = json!("2026-02-02T03:04:05.000Z")).unwrap();
    assert_eq!(shown, file);
    let gone = now(&|now| drop(now["hosts"].as_array_mut().unwrap().pop())).unwrap_err().to_string();
    assert!(
        gone.contains("the host web-2 (FLEET-00000000-0000-4000-8000-000000000002) is only in the file"),
        "{gone}"
    );
    let more = now(&|now| {
        let host = json!({ "name": "web-3", "client_id": "FLEET-00000000-0000-4000-8000-000000000003" });
        now["hosts"].as_array_mut().unwrap().push(host);
    });
    let more = more.unwrap_err().to_string();
    assert!(
        more.contains("the host web-3 (FLEET-00000000-0000-4000-8000-000000000003) is not in the file"),
        "{more}"
    );
    let turned = now(&|now| now["hosts"].as_array_mut().unwrap().reverse()).unwrap_err().to_string();
    assert!(turned.contains("the list of hosts is another"), "{turned}");
    let steps = now(&|now| drop(now["steps"].as_array_mut().unwrap().pop())).unwrap_err().to_string();
    assert!(steps.contains("the number of steps is 1, the controller 0"), "{steps}");
}

/// Whoever asks again for what was started is told of it, whatever has changed since.
#[tokio::test]
async fn a_plan_that_was_started_is_not_compared_again() {
    let answers = vec![
        answer("200 OK", &crate::operation::tests::operation().to_string()),
        refused("409 Conflict", code::ID_TAKEN),
    ];
    let (result, asked) = submitted(&planned(), answers).await;
    let told = result.unwrap_err().to_string();
    assert!(told.contains("is not what OP-1 was started from: the file was changed"), "{told}");
    let lines: Vec<&str> = asked.iter().map(|request| request.split(" HTTP").next().unwrap()).collect();
    let id = "01900000-0000-7000-8000-000000000001";
    assert_eq!(lines, [&format!("GET /api/v1/operations/{id}"), "POST /api/v1/operations"]);
}
