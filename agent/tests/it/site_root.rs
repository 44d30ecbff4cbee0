//! The kind `site` and the files that it has: roots, of which what is beneath is served and nothing else, and logs.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, symlink};

use fleetward_protocol::run::Outcome;
use serde_json::json;

use crate::nginx::web;
use crate::site::with;

/// What is beneath a root is served, and nothing beside it, whatever a request says.
#[tokio::test]
async fn no_request_leads_out_of_a_root() {
    let Some(web) = web("requests and roots") else { return };
    web.start();
    let root = web.path("files/public");
    fs::create_dir(&root).unwrap();
    fs::write(root.join("index.html"), "home").unwrap();
    fs::write(web.path("files/secret"), "secret").unwrap();
    let location = |path: &str, matches: &str, fallback: &str| json!({ "path": path, "match": matches, "static": { "root": root, "fallback": fallback } });
    for (path, matches, fallback) in
        [("/", "prefix", "/..$arg_x"), ("/", "prefix", "/../secret"), ("^/(.*)$", "regex", "/../$1")]
    {
        let refused = web
            .refused(&with(&web.site(""), json!({ "locations": [location(path, matches, fallback)] })))
            .await;
        assert!(refused.contains("is not a fallback"), "{refused}");
    }
    // A group of a regular expression that is called as nginx's own variable.
    let locations = [
        location("/", "prefix", "=404"),
        location("^/a(?<args>.*)$", "regex", "/$is_args$args"),
        location("/app/", "prefix", "/index.html$is_args$args"),
    ];
    web.done(&with(&web.site(""), json!({ "locations": locations }))).await;
    for path in ["/a../secret", "/app/x?y=1", "/app/x"] {
        let (head, body) = web.get("shop.example.com", path).unwrap();
        assert!(head.contains(" 200 ") && body == "home", "{path}: {head}");
    }
}

/// Whoever writes beneath a root may lead nginx out of it by a link; not where the owner names the directories.
#[tokio::test]
async fn a_link_beneath_a_root_leads_nowhere_where_the_owner_names_directories() {
    let Some(web) = web("links beneath roots") else { return };
    web.start();
    fs::create_dir_all(web.path("files/releases/1")).unwrap();
    fs::write(web.path("files/releases/1/index.html"), "home").unwrap();
    fs::write(web.path("secret"), "secret").unwrap();
    symlink("releases/1", web.path("files/current")).unwrap();
    symlink(&web.top, web.path("files/releases/1/out")).unwrap();
    symlink(web.path("secret"), web.path("files/releases/1/secret")).unwrap();
    let files = json!({ "root": web.path("files/current") });
    let site = with(&web.site(""), json!({ "locations": [{ "path": "/", "static": files }] }));
    web.done(&site).await;
    assert_eq!(web.get("shop.example.com", "/out/secret").unwrap().1, "secret");
    let rule = format!("[policy.rules.site]\npaths = [\"{}\"]\n", web.path("files").display());
    fs::write(web.machine.paths().config, rule).unwrap();
    web.done(&site).await;
    // Of a link that is a directory the kernel says that it is none.
    let (head, _) = web.get("shop.example.com", "/out/secret").unwrap();
    assert!(head.contains(" 404 "), "{head}");
    let (head, _) = web.get("shop.example.com", "/secret").unwrap();
    assert!(head.contains(" 403 "), "{head}");
    // The root itself may be a link, for where it leads was looked at.
    assert_eq!(web.get("shop.example.com", "/").unwrap().1, "home");
}

/// A test of nginx opens all logs, and makes those that are not there.
#[tokio::test]
async fn a_dry_run_makes_no_log_and_a_real_one_makes_one_that_people_can_read() {
    let Some(web) = web("logs of a site") else { return };
    web.start();
    let logs = |directory: &str| {
        let at = |name: &str| web.path(directory).join(name);
        with(&web.site("one"), json!({ "access_log": at("access.log"), "error_log": at("errors.log") }))
    };
    let (outcome, _) = web.rehearse(&logs("files")).await;
    assert_eq!((outcome, web.names()), (Outcome::Exited(0), vec![]));
    let (outcome, output) = web.rehearse(&logs("nowhere")).await;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(outcome, Outcome::Exited(1), "{said}");
    assert!(said.contains("nowhere/") && said.contains("No such file"), "{said}");
    web.done(&logs("files")).await;
    for name in ["files/access.log", "files/errors.log"] {
        assert_eq!(fs::metadata(web.path(name)).unwrap().mode() & 0o777, 0o644, "{name}");
    }
}
