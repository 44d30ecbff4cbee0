//! What a plan's file must say.

use fleetward_protocol::time::Timestamp;
use serde_json::{Value, json};

use super::*;

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
