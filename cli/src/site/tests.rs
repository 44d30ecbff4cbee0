//! What is asked, and what is done.

use clap::Parser as _;
use serde_json::{Value, json};

use crate::args::Cli;
use crate::client::double::{Step, answer, serve};
use crate::render::Out;

/// The last thing that the controller is asked by a command.
async fn asked(line: &str, first: Step) -> Value {
    let end = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\nevent: end\ndata: {\"hosts\":0,\"answered\":0}\n\n";
    let (address, mut requests) = serve(vec![vec![first, Step::Break(end.to_owned())]]).await;
    let line = format!("fleetward --quiet --token secret --controller {address} {line}");
    drop(crate::dispatch(Cli::try_parse_from(line.split(' ')).unwrap()).await);
    let mut last = String::new();
    while let Ok(request) = requests.try_recv() {
        last = request;
    }
    serde_json::from_str(last.split("\r\n\r\n").nth(1).unwrap()).unwrap()
}

#[tokio::test]
async fn options_become_parameters_of_queries() {
    let kind = |name: &str, shows: &str| {
        json!({
            "name": name, "family": "query", "summary": "Look.", "permission": "read", "idempotent": true, "timeout_s": 10,
            "follows": false, "shows": shows, "parameters": { "type": "object" }, "answer": { "type": "object" },
        })
    };
    let known = json!({ "items": [kind("sites", "table"), kind("certificates", "table"), kind("site-errors", "entries")] });
    for (line, kind, params) in [
        ("site list --on all", "sites", json!({})),
        ("site list *.example.com --on all", "sites", json!({ "pattern": "*.example.com" })),
        ("site show shop --on all", "sites", json!({ "pattern": "shop" })),
        ("site errors --on all", "site-errors", json!({})),
        ("site errors shop --on all -n 200", "site-errors", json!({ "site": "shop", "lines": 200 })),
        ("site certificates --on all --days 21", "certificates", json!({ "days": 21 })),
    ] {
        let body = asked(line, answer("200 OK", &known.to_string())).await;
        assert_eq!(
            (&body["kind"], &body["params"], &body["on"]),
            (&json!(kind), &params, &json!("all")),
            "{line}"
        );
    }
}

#[tokio::test]
async fn a_file_and_verbs_become_steps() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("shop.yaml");
    std::fs::write(&file, "name: shop\nserver_names: [a]\nlocations: [{ path: /, deny: true }]\n").unwrap();
    let file = file.display();
    let described =
        json!({ "name": "shop", "server_names": ["a"], "locations": [{ "path": "/", "deny": true }] });
    let with = |name: &str| {
        let mut described = described.clone();
        described[name] = json!(true);
        described
    };
    for (line, params) in [
        (format!("site apply -f {file} --on all --yes"), described.clone()),
        (format!("site apply -f {file} --on all --yes --start"), with("start")),
        (format!("site test -f {file} --on all --replace-edited"), with("replace_edited")),
        ("site rm shop --on all --yes".to_owned(), json!({ "name": "shop", "verb": "remove" })),
        ("site enable shop --on all --yes".to_owned(), json!({ "name": "shop", "verb": "enable" })),
    ] {
        // The controller refuses, and what was asked for is seen.
        let refusal = json!({ "error": "no", "code": "FORBIDDEN", "details": {}, "timestamp": "2026-01-02T03:04:05.000Z" });
        let body = asked(&line, answer("403 Forbidden", &refusal.to_string())).await;
        assert_eq!(body["steps"], json!([{ "kind": "site", "params": params }]), "{line}");
    }
}

#[test]
fn an_error_reads_like_a_line_of_a_log() {
    let out = Out::new(&Cli::parse_from(["fleetward", "version", "--color", "never"]).globals);
    let line = |item: Value| super::error_line(&"web-1".parse().unwrap(), item.as_object().unwrap(), &out);
    let item = json!({
        "number": 1, "time": "2026/01/02 03:04:05", "level": "error", "site": "shop", "log": "/var/log/nginx/error.log",
        "message": "open() \u{1b}[2J failed",
    });
    assert_eq!(line(item), "web-1 2026/01/02 03:04:05 error shop: open() ␛[2J failed\n");
    assert_eq!(line(json!({ "number": 2, "message": "and more", "log": "/a" })), "web-1 and more\n");
}
