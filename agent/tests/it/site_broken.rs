//! The kind `site` where nginx does not take its configuration before anything is done.

use std::fs;

use fleetward_protocol::run::Outcome;
use serde_json::{Value, json};

use crate::nginx::{Web, web};
use crate::site_query::{certificate, secure};

/// A site of ours works, and then its certificate is gone.
async fn broken(test: &str) -> Option<Web> {
    let web = web(test)?;
    web.start();
    certificate(&web, "a", &["secure.example.com"]);
    web.done(&secure(&web)).await;
    fs::remove_file(web.path("files/a.pem")).unwrap();
    assert!(!web.nginx(&["-t"]));
    Some(web)
}

/// The same site without TLS.
fn plain(web: &Web) -> Value {
    let mut site = web.site("plain");
    site["name"] = json!("secure");
    site
}

#[tokio::test]
async fn a_site_that_breaks_nginx_is_mended_by_what_mends_it() {
    for verb in ["disable", "remove", "ensure"] {
        let Some(web) = broken("mending a site").await else { return };
        let change = if verb == "ensure" { plain(&web) } else { json!({ "name": "secure", "verb": verb }) };
        let (outcome, output) = web.rehearse(&change).await;
        assert_eq!(outcome, Outcome::Exited(0), "{verb}: {}", String::from_utf8_lossy(&output.stderr));
        assert!(!web.nginx(&["-t"]), "a dry run does nothing");
        let report = web.done(&change).await;
        assert!(web.nginx(&["-t"]), "{verb}");
        assert_eq!((&report["changed"], &report["reloaded"]), (&json!(true), &json!(true)), "{verb}");
        assert_eq!(report["warnings"], json!(["nginx did not take its configuration before this change"]));
        assert_eq!(web.body(), (verb == "ensure").then(|| "plain".to_owned()), "{verb}");
    }
}

#[tokio::test]
async fn what_does_not_mend_it_is_not_done() {
    let Some(web) = broken("a change beside a broken site").await else { return };
    let names = web.names();
    for (change, words) in [
        (web.site("one"), "with this change and without it"),
        (secure(&web), "nginx does not take its configuration"),
    ] {
        let (outcome, said) = web.fails(&change).await;
        assert_eq!(outcome, Outcome::Exited(1), "{said}");
        assert!(
            said.contains(words) && said.contains("a.pem") && said.contains("nothing was done"),
            "{said}"
        );
    }
    assert_eq!(web.names(), names);
}

/// The files are as they were, and nginx does not take them: it goes on with what it has read.
#[tokio::test]
async fn what_mends_it_and_does_not_answer_is_told_to_be_half_undone() {
    let Some(web) = broken("a mended site that does not answer").await else { return };
    let mut change = plain(&web);
    change["probe"] = json!({ "status": 204 });
    let (outcome, output) = web.ask(&change).await;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(outcome, Outcome::Exited(3), "{said}");
    assert!(said.contains("does not take what was there before"), "{said}");
    assert!(fs::read_to_string(web.path("sites-available/secure")).unwrap().contains("ssl_certificate"));
    assert_eq!(web.body().as_deref(), Some("plain"));
    let report = output.report.unwrap();
    assert_eq!(
        (&report["changed"], &report["after"], &report["reloaded"], &report["running"]),
        (&json!(false), &json!("enabled"), &json!(true), &json!(true))
    );
}
