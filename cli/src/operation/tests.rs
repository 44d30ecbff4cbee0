//! What is asked for an operation, and what is shown of it.

use clap::Parser as _;
use serde_json::{Value, json};

use super::*;
use crate::args::Cli;
use crate::client::double::{answer, serve};

fn raw(value: &Value) -> Box<RawValue> {
    RawValue::from_string(value.to_string()).unwrap()
}

#[test]
fn an_operation_in_json_has_its_runs() {
    let operation = raw(&json!({ "number": "OP-1", "rollout": { "batch": "1" } }));
    for runs in [json!([]), json!([{ "host": "web-1", "report": { "a": [1] } }, { "host": "web-2" }])] {
        let each: Vec<Box<RawValue>> = runs.as_array().unwrap().iter().map(raw).collect();
        let whole: Value = serde_json::from_str(&with_runs(&operation, &each)).unwrap();
        assert_eq!(whole, json!({ "number": "OP-1", "rollout": { "batch": "1" }, "runs": runs }));
    }
}

/// One that has ended.
pub(crate) fn operation() -> Value {
    json!({
        "id": "01890000-0000-7000-8000-00000000000a", "number": "OP-1", "on": "all", "left_out": 0, "rollout": {},
        "steps": [], "status": "success", "counts": [], "hosts": 1, "created_by": "ann",
        "created_at": "2026-01-02T03:04:05.000Z", "deadline": "2026-01-02T03:04:05.000Z", "seq": 1,
    })
}

/// What was asked for is in the answer, whichever form it has.
#[tokio::test]
async fn the_filters_of_a_shown_operation_hold_in_json_too() {
    for format in ["table", "json"] {
        let pages = vec![
            answer("200 OK", &operation().to_string()),
            answer("200 OK", &json!({ "items": [] }).to_string()),
        ];
        let (address, mut requests) = serve(vec![pages]).await;
        let line = "op show OP-1 --state failed --host web-1 --limit 3 --output";
        let line = format!("fleetward --quiet --token secret --controller {address} {line} {format}");
        crate::dispatch(Cli::try_parse_from(line.split(' ')).unwrap()).await.unwrap();
        let (_, runs) = (requests.try_recv().unwrap(), requests.try_recv().unwrap());
        let path = "/api/v1/operations/OP-1/runs?state=failed&host=web-1&limit=3";
        assert!(runs.starts_with(&format!("GET {path} ")), "{format}: {runs}");
    }
}
