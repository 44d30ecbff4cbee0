//! What is said of a kind, and what is sent for it.

use clap::Parser as _;
use expect_test::expect;
use fleetward_api::testing::of_everything;
use serde_json::json;

use super::*;
use crate::args::Cli;
use crate::client::double::{answer, serve};

fn kind() -> Value {
    json!({
        "name": "paint", "family": "action", "summary": "Paint a host.", "permission": "run", "idempotent": true,
        "timeout_s": 90, "follows": false, "parameters": of_everything(),
        "answer": { "type": "object", "required": ["changed"], "properties": {
            "changed": { "type": "boolean", "description": "Whether anything was done." },
        } },
    })
}

#[test]
fn a_kind_is_described_by_its_schema_alone() {
    let kind: Kind = serde_json::from_value(kind()).unwrap();
    let out = Out::new(&Cli::parse_from(["fleetward", "version", "--color", "never"]).globals);
    expect![[r#"
        Kind        paint
        Family      action
        Does        Paint a host.
        Permission  run
        Again       doing it again changes nothing more
        Dry run     no
        Time limit  1 min 30 s
        Usage       fleetward do paint what=TEXT mode=fast|slow [at=TIME] [count=NUMBER] [deep:=JSON] [kind=a|b] [labels.NAME=TEXT]… [maybe=fast|slow] [names=TEXT]… [on=true|false] [share=NUMBER] [stairs:=JSON] [tree:=JSON] [ways=TEXT]… --on EXPR
        Example     fleetward do paint what=nginx mode=fast --on EXPR

        Parameters:
        Everything.

        NAME        TYPE                REQUIRED  DESCRIPTION
        what        text                yes
        mode        fast | slow         yes       How.
        at          time
        count       whole number                  How often. (3 when absent)
        deep        object
          a         text                          Inside.
        kind        a | b                         Which.
        labels      names with texts
        maybe       fast | slow                   A mode.
        names       list of texts
        on          true | false
        share       number
        stairs      list of objects               Each.
          way       up | down           yes       Whereto.
          rails     names with objects
            height  whole number                  In cm.
        tree        JSON
        ways        list of up | down

        stairs.way:
          up  To the top.

        ways:
          up  To the top.

        Its report:
        NAME     TYPE          DESCRIPTION
        changed  true | false  Whether anything was done.
    "#]].assert_eq(&described(&kind, &out));
}

/// Runs a command against a controller with the kind `paint` that refuses to preview anything; what it was asked.
async fn run(line: &[&str]) -> (Failure, Vec<String>) {
    let refusal = r#"{"error":"no","code":"INVALID","details":{},"timestamp":"2026-01-02T03:04:05.000Z"}"#;
    let mut other = kind();
    other["name"] = json!("animate");
    other["parameters"] = json!({ "properties": { "mode": { "enum": ["tame", "wild"] } } });
    let kinds = answer("200 OK", &json!({ "items": [kind(), other] }).to_string());
    let (address, mut requests) = serve(vec![vec![kinds, answer("400 Bad Request", refusal)]]).await;
    let address = address.to_string();
    let globals = ["fleetward", "--quiet", "--token", "secret", "--controller", &address];
    let words = globals.into_iter().chain(line.iter().copied());
    let failure = crate::dispatch(Cli::try_parse_from(words).unwrap()).await.unwrap_err();
    let mut asked = Vec::new();
    while let Ok(request) = requests.try_recv() {
        asked.push(request);
    }
    (failure, asked)
}

#[tokio::test]
async fn what_is_typed_is_sent_as_a_step_of_the_kind() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), r#"{ "what": "door", "mode": "slow", "count": 1 }"#).unwrap();
    let path = file.path().to_str().unwrap();
    let line = ["do", "paint", "count=2", "labels.a=b", "--params", path, "--on", "all", "--yes"];
    let (_, asked) = run(&line).await;
    assert!(asked[1].starts_with("POST /api/v1/targets/preview HTTP/1.1\r\n"), "{}", asked[1]);
    let body: Value = serde_json::from_str(asked[1].split("\r\n\r\n").nth(1).unwrap()).unwrap();
    let params = json!({ "what": "door", "mode": "slow", "count": 2, "labels": { "a": "b" } });
    assert_eq!(body["steps"], json!([{ "kind": "paint", "params": params }]));
}

/// Only a kind knows which of its parameters are secret: none is shown before an operation is there.
#[test]
fn what_is_about_to_be_done_is_told_in_the_controllers_words_and_without_parameters() {
    let asked = json!({
        "steps": [{ "kind": "paint", "params": { "what": "hunter2", "labels": { "a": "hunter2" } } }],
        "on": "all", "dry_run": true,
    });
    let asked = serde_json::from_value(asked).unwrap();
    let told = |subjects: Value| {
        let hosts = json!([{ "name": "web-1", "status": "online", "enrolment": "enrolled" }]);
        let preview = json!({ "hosts": hosts, "online": 1, "not_enrolled": 0, "subjects": subjects });
        crate::start::heading(&asked, None, &serde_json::from_value(preview).unwrap())
    };
    assert_eq!(told(json!(["the \u{1b}door", "a wall"])), "dry run: the ␛door, a wall on 1 host: web-1");
    // A controller that tells no subjects.
    assert_eq!(told(json!([])), "dry run: paint on 1 host: web-1");
}

/// Whoever mistypes is told so, and not first that nobody is at a terminal.
#[tokio::test]
async fn what_is_wrong_is_told_before_who_would_agree_to_it() {
    let (failure, asked) = run(&["do", "paint", "waht=x", "--on", "all"]).await;
    assert!(failure.to_string().contains("`waht` is not known"), "{failure}");
    assert_eq!(asked.len(), 1);
    let (failure, _) = run(&["file", "put", "/nowhere", "web-1:/etc/motd"]).await;
    assert!(failure.to_string().contains("cannot read /nowhere"), "{failure}");
}

#[tokio::test]
async fn what_cannot_be_meant_is_told_before_anything_is_sent() {
    let (failure, asked) = run(&["do", "paint", "waht=x", "--on", "all", "--yes"]).await;
    assert_eq!((failure.exit_code(), asked.len()), (2, 1));
    for word in ["a:={", "=a", "a"] {
        let (failure, asked) = run(&["do", "paint", word, "--on", "all", "--yes"]).await;
        assert_eq!((failure.exit_code(), asked.len()), (2, 1), "{word}");
    }
    let (failure, _) = run(&["do", "paint", "door", "slow", "--on", "all", "--yes"]).await;
    expect![[r#"
        `door` names no parameter: write KEY=VALUE
        `slow` names no parameter: write KEY=VALUE
        Did you mean: fleetward do paint what=door mode=slow --on EXPR
        Usage: fleetward do paint what=TEXT mode=fast|slow [at=TIME] [count=NUMBER] [deep:=JSON] [kind=a|b] [labels.NAME=TEXT]… [maybe=fast|slow] [names=TEXT]… [on=true|false] [share=NUMBER] [stairs:=JSON] [tree:=JSON] [ways=TEXT]… --on EXPR
        Example: fleetward do paint what=nginx mode=fast --on EXPR
        `fleetward kind show paint` tells what each means."#]].assert_eq(&failure.to_string());
    let (failure, _) = run(&["do", "paint", "what=a", "mode=wild", "--on", "all", "--yes"]).await;
    let told = "`mode=wild` is for another kind: `fleetward do animate`";
    assert!(failure.to_string().contains(told), "{failure}");
    let (failure, _) = run(&["do", "paint", "waht=x", "--on", "all", "--yes"]).await;
    expect![[r#"
        `waht` is not known; did you mean `what`?
        `what` is missing: text
        `mode` is missing: fast | slow
        Usage: fleetward do paint what=TEXT mode=fast|slow [at=TIME] [count=NUMBER] [deep:=JSON] [kind=a|b] [labels.NAME=TEXT]… [maybe=fast|slow] [names=TEXT]… [on=true|false] [share=NUMBER] [stairs:=JSON] [tree:=JSON] [ways=TEXT]… --on EXPR
        Example: fleetward do paint what=nginx mode=fast --on EXPR
        `fleetward kind show paint` tells what each means."#]].assert_eq(&failure.to_string());
    let (failure, _) = run(&["do", "pain", "--on", "all", "--yes"]).await;
    assert!(failure.to_string().contains("knows no action `pain`; did you mean `paint`?"), "{failure}");
    let (failure, _) = run(&["ask", "paint", "--on", "all"]).await;
    assert_eq!(failure.to_string(), "`paint` is an action: use `fleetward do paint`");
    let (failure, _) = run(&["do", "paint", "--params", "/nowhere", "--on", "all", "--yes"]).await;
    assert!(failure.to_string().contains("cannot read /nowhere"), "{failure}");
}
