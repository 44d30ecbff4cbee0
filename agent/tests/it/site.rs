//! The kind `site`, with the real nginx: what is written, taken back, refused, and left alone.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::{MetadataExt as _, symlink};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use fleetward_protocol::action::Preview;
use fleetward_protocol::run::Outcome;
use serde_json::{Value, json};

use crate::nginx::{free_port, get, web};

pub(crate) fn with(site: &Value, more: Value) -> Value {
    let mut site = site.clone();
    let (Value::Object(site_fields), Value::Object(more)) = (&mut site, more) else { panic!("objects") };
    site_fields.extend(more);
    site
}

fn only(verb: &str) -> Value {
    json!({ "name": "shop", "verb": verb })
}

#[tokio::test]
async fn a_site_comes_and_changes_and_goes() {
    let Some(web) = web("a site") else { return };
    web.start();
    let report = web.done(&web.site("one")).await;
    assert_eq!(
        (&report["changed"], &report["reloaded"], &report["running"]),
        (&json!(true), &json!(true), &json!(true))
    );
    assert_eq!((&report["before"], &report["after"]), (&json!("absent"), &json!("enabled")));
    assert_eq!(web.body().as_deref(), Some("one"));
    assert_eq!(web.names(), ["sites-available/shop", "sites-enabled/shop"]);
    let report = web.done(&web.site("two")).await;
    assert_eq!((&report["before"], web.body().as_deref()), (&json!("enabled"), Some("two")));
    for (verb, before, after) in [
        ("disable", "enabled", "disabled"),
        ("enable", "disabled", "enabled"),
        ("remove", "enabled", "absent"),
    ] {
        let report = web.done(&only(verb)).await;
        assert_eq!(
            (&report["before"], &report["after"], &report["changed"]),
            (&json!(before), &json!(after), &json!(true))
        );
        assert_eq!(web.body().is_some(), after == "enabled", "{verb}");
    }
    assert_eq!(web.names(), [""; 0]);
}

/// What is as it is wanted is not touched: no file is written, and no worker is sent home.
#[tokio::test]
async fn the_second_time_nothing_is_done() {
    let Some(web) = web("a site that is there") else { return };
    web.start();
    web.done(&web.site("one")).await;
    let file = web.path("sites-available/shop");
    let (inode, log) =
        (fs::metadata(&file).unwrap().ino(), fs::read_to_string(web.path("error.log")).unwrap());
    let (outcome, output) = web.ask(&web.site("one")).await;
    assert_eq!(outcome, Outcome::Exited(0));
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(said.contains("unchanged: site shop is enabled"), "{said}");
    assert_eq!(output.report.unwrap()["changed"], json!(false));
    assert_eq!(fs::metadata(&file).unwrap().ino(), inode);
    assert_eq!(fs::read_to_string(web.path("error.log")).unwrap(), log);
    assert_eq!(web.done(&only("remove")).await["changed"], json!(true));
    assert_eq!(web.done(&only("remove")).await["changed"], json!(false));
}

#[tokio::test]
async fn what_nginx_would_not_take_is_never_in_place() {
    let Some(web) = web("a site that nginx does not take") else { return };
    web.start();
    web.done(&web.site("one")).await;
    // As a person makes it.
    fs::remove_file(web.path("sites-enabled/shop")).unwrap();
    symlink("../sites-available/shop", web.path("sites-enabled/shop")).unwrap();
    let inode = fs::metadata(web.path("sites-available/shop")).unwrap().ino();
    let bad = with(&web.site("two"), json!({ "snippets": ["no_such_directive on;"] }));
    let (outcome, said) = web.fails(&bad).await;
    assert_eq!(outcome, Outcome::Exited(1), "nothing was there to be undone");
    assert!(said.contains("unknown directive \"no_such_directive\""), "{said}");
    assert!(
        said.contains(&format!("{}:", web.path("sites-enabled/shop").display())),
        "in the words of the real file: {said}"
    );
    assert_eq!(fs::metadata(web.path("sites-available/shop")).unwrap().ino(), inode);
    assert_eq!(web.body().as_deref(), Some("one"));
    assert_eq!(web.names(), ["sites-available/shop", "sites-enabled/shop"], "and nothing is left beside it");
}

/// Where the sites are included from another file, nginx has its say when the change is in place: and it is put back.
#[tokio::test]
async fn what_nginx_does_not_take_in_place_is_put_back() {
    let Some(web) = web("a site included from afar") else { return };
    fs::write(web.path("conf.d/all.conf"), "include sites-enabled/*;\n").unwrap();
    web.configure("include conf.d/*.conf;\n    include sites-enabled/none*;");
    fs::write(web.path("files/all"), "include sites-enabled/*;\n").unwrap();
    web.configure("include files/all;");
    web.start();
    web.done(&web.site("one")).await;
    let bad = with(&web.site("two"), json!({ "snippets": ["no_such_directive on;"] }));
    let (outcome, said) = web.fails(&bad).await;
    assert_eq!(outcome, Outcome::Exited(2), "it was undone");
    assert!(said.contains("unknown directive"), "{said}");
    assert_eq!(web.done(&web.site("one")).await["after"], json!("enabled"));
    assert_eq!(web.body().as_deref(), Some("one"));
    let new = with(&bad, json!({ "name": "other" }));
    assert_eq!(web.fails(&new).await.0, Outcome::Exited(2));
    assert_eq!(web.names(), ["conf.d/all.conf", "files/all", "sites-available/shop", "sites-enabled/shop"]);
}

/// nginx is sent its signal, and says in its log alone that it goes on with what it had.
#[tokio::test]
async fn a_port_that_another_program_has_takes_the_change_back() {
    let Some(web) = web("a port that is taken") else { return };
    web.start();
    web.done(&web.site("one")).await;
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let site = with(
        &web.site("two"),
        json!({ "listen": [
        { "address": "127.0.0.1", "port": web.port }, { "address": "127.0.0.1", "port": port } ] }),
    );
    let (outcome, said) = web.fails(&site).await;
    assert_eq!(outcome, Outcome::Exited(2), "{said}");
    assert!(said.contains("Address already in use") && said.contains("goes on with what it had"), "{said}");
    assert_eq!(web.body().as_deref(), Some("one"));
    assert!(web.nginx(&["-t"]));
    let text = fs::read_to_string(web.path("sites-available/shop")).unwrap();
    assert!(text.contains("one") && !text.contains("two"), "{text}");
}

#[tokio::test]
async fn a_probe_that_is_not_answered_as_it_should_be_takes_the_change_back() {
    let Some(web) = web("a probe") else { return };
    web.start();
    let good = with(&web.site("one"), json!({ "probe": { "path": "/health" } }));
    assert_eq!(web.done(&good).await["probed"], json!(200));
    let bad = with(&web.site("two"), json!({ "probe": { "status": 204 } }));
    let (outcome, said) = web.fails(&bad).await;
    assert_eq!(outcome, Outcome::Exited(2), "{said}");
    assert!(said.contains("was answered with 200, and not with 204"), "{said}");
    assert_eq!(web.body().as_deref(), Some("one"));
    let new = with(&bad, json!({ "name": "other", "server_names": ["other.example.com"] }));
    let (outcome, output) = web.ask(&new).await;
    assert_eq!(outcome, Outcome::Exited(2));
    let report = output.report.unwrap();
    assert_eq!(
        (&report["before"], &report["after"], &report["changed"], &report["reloaded"], &report["running"]),
        (&json!("absent"), &json!("absent"), &json!(false), &json!(false), &json!(true))
    );
    assert_eq!(web.names(), ["sites-available/shop", "sites-enabled/shop"]);
}

#[tokio::test]
async fn what_others_wrote_is_not_touched() {
    let Some(web) = web("sites of others") else { return };
    let foreign = format!(
        "server {{ listen 127.0.0.1:{}; server_name shop.example.com; return 200 theirs; }}\n",
        web.port
    );
    fs::write(web.path("sites-available/theirs"), &foreign).unwrap();
    symlink("../sites-available/theirs", web.path("sites-enabled/theirs")).unwrap();
    web.start();
    for verb in ["ensure", "remove", "enable", "disable"] {
        let site = match verb {
            "ensure" => with(&web.site("ours"), json!({ "name": "theirs" })),
            verb => json!({ "name": "theirs", "verb": verb }),
        };
        let (outcome, said) = web.fails(&site).await;
        assert!(outcome == Outcome::Exited(1) && said.contains("was not written by this agent"), "{said}");
    }
    assert_eq!(fs::read_to_string(web.path("sites-available/theirs")).unwrap(), foreign);
    // The same name on the same port is what somebody may have meant, and may not.
    let report = web.done(&web.site("ours")).await;
    let warning = report["warnings"][0].as_str().unwrap();
    assert!(warning.contains("sites-enabled/theirs answers to shop.example.com"), "{warning}");
    // A link to elsewhere, and a file where the link would be.
    fs::write(web.path("files/elsewhere"), "").unwrap();
    symlink(web.path("files/elsewhere"), web.path("sites-enabled/linked")).unwrap();
    fs::write(web.path("sites-enabled/filed"), "").unwrap();
    for name in ["linked", "filed"] {
        let (_, said) = web.fails(&with(&web.site("x"), json!({ "name": name }))).await;
        assert!(said.contains("is no link to"), "{said}");
    }
    // What was written here, and changed by hand since.
    let file = web.path("sites-available/shop");
    let text = fs::read_to_string(&file).unwrap() + "# mine\n";
    fs::write(&file, &text).unwrap();
    for site in [web.site("new"), only("remove")] {
        let (_, said) = web.fails(&site).await;
        assert!(said.contains("was changed on the host since") && said.contains("replace_edited"), "{said}");
    }
    assert_eq!(fs::read_to_string(&file).unwrap(), text);
    web.done(&with(&web.site("new"), json!({ "replace_edited": true }))).await;
    assert!(!fs::read_to_string(&file).unwrap().contains("# mine"));
}

#[tokio::test]
async fn a_configuration_that_others_broke_is_not_made_worse() {
    let Some(web) = web("a broken nginx") else { return };
    fs::write(web.path("sites-enabled/broken"), "server {\n    lisen 80;\n}\n").unwrap();
    let (outcome, said) = web.fails(&web.site("one")).await;
    assert_eq!(outcome, Outcome::Exited(1));
    assert!(
        said.contains("unknown directive \"lisen\"") && said.contains("with this change and without it"),
        "{said}"
    );
    assert_eq!(web.names(), ["sites-enabled/broken"]);
    web.configure("");
    let (_, said) = web.fails(&web.site("one")).await;
    assert!(said.contains("includes no directory of sites") && said.contains("sites-enabled/*"), "{said}");
}

#[tokio::test]
async fn a_stopped_nginx_is_told_and_not_started() {
    let Some(web) = web("a stopped nginx") else { return };
    for (params, words) in [
        (web.site("one"), "answers when nginx is started"),
        (only("disable"), "is disabled, also when nginx is started"),
        (only("remove"), "is gone, also when nginx is started"),
        (web.site("one"), "answers when nginx is started"),
    ] {
        let (outcome, output) = web.ask(&params).await;
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert_eq!(outcome, Outcome::Exited(0), "{said}");
        assert!(said.contains(words), "{said}");
        let report = output.report.unwrap();
        assert_eq!(
            (&report["changed"], &report["running"], &report["reloaded"]),
            (&json!(true), &json!(false), &json!(false))
        );
    }
    assert_eq!(web.body(), None);
    web.start();
    assert_eq!(web.body().as_deref(), Some("one"));
    assert_eq!(web.done(&web.site("one")).await["changed"], json!(false));
    web.kill();
    // Without a message bus nobody can start it: what was there is put back.
    let start = with(&web.site("two"), json!({ "start": true }));
    let (outcome, said) = web.fails(&start).await;
    assert_eq!(outcome, Outcome::Exited(2), "{said}");
    assert!(fs::read_to_string(web.path("sites-available/shop")).unwrap().contains("one"));
}

/// Somebody put a file in place, or an earlier attempt did before it was cut off, and no worker has read it.
#[tokio::test]
async fn a_file_that_no_worker_has_read_is_read() {
    let Some(web) = web("a file that nginx has not read") else { return };
    web.done(&web.site("one")).await;
    let one = fs::read_to_string(web.path("sites-available/shop")).unwrap();
    web.done(&web.site("two")).await;
    web.start();
    // As long as the clocks of files and processes may be apart.
    let began = std::time::Instant::now();
    while began.elapsed().as_millis() < 150 {
        web.rehearse(&web.site("three")).await;
    }
    fs::write(web.path("sites-available/shop"), one).unwrap();
    assert_eq!(web.body().as_deref(), Some("two"));
    let (_, output) = web.rehearse(&web.site("one")).await;
    let preview: Preview = serde_json::from_value(output.report.unwrap()).unwrap();
    assert_eq!(
        preview.changes.iter().map(|change| change.what.as_str()).collect::<Vec<_>>(),
        ["reload nginx"]
    );
    let report = web.done(&web.site("one")).await;
    assert_eq!((&report["reloaded"], web.body().as_deref()), (&json!(true), Some("one")));
    assert_eq!(web.done(&web.site("one")).await["changed"], json!(false));
}

/// What nginx reads was removed by hand, or by an attempt that was cut off: it serves the site as long as nobody reloads it.
#[tokio::test]
async fn a_site_that_is_gone_and_still_served_is_not_served_any_more() {
    for (includes, read, verb) in [
        ("include sites-enabled/*;", "sites-enabled/shop", "disable"),
        ("include sites-enabled/*;", "sites-enabled/shop", "remove"),
        ("include conf.d/*.conf;", "conf.d/shop.conf", "remove"),
    ] {
        let Some(web) = web("a site that nginx still serves") else { return };
        web.configure(includes);
        web.start();
        web.done(&web.site("one")).await;
        // As long as the clocks of files and processes may be apart.
        let began = std::time::Instant::now();
        while began.elapsed().as_millis() < 150 {
            web.rehearse(&web.site("one")).await;
        }
        fs::remove_file(web.path(read)).unwrap();
        if verb == "remove" {
            drop(fs::remove_file(web.path("sites-available/shop")));
        }
        assert_eq!(web.body().as_deref(), Some("one"));
        let (_, output) = web.rehearse(&only(verb)).await;
        let preview: Preview = serde_json::from_value(output.report.unwrap()).unwrap();
        assert_eq!(
            preview.changes.iter().map(|change| change.what.as_str()).collect::<Vec<_>>(),
            ["reload nginx"]
        );
        let report = web.done(&only(verb)).await;
        assert_eq!((&report["reloaded"], web.body()), (&json!(true), None), "{verb}");
        assert_eq!(web.done(&only(verb)).await["changed"], json!(false));
    }
}

#[tokio::test]
async fn a_dry_run_tells_the_difference_and_changes_nothing() {
    let Some(web) = web("a dry run of a site") else { return };
    web.start();
    let preview =
        |output: crate::host::Output| -> Preview { serde_json::from_value(output.report.unwrap()).unwrap() };
    let (outcome, output) = web.rehearse(&web.site("one")).await;
    assert_eq!(outcome, Outcome::Exited(0));
    let told: Vec<String> = preview(output).changes.iter().map(|change| change.what.to_string()).collect();
    let file = |directory: &str| web.path(directory).join("shop").display().to_string();
    let expected = [
        format!("write {}", file("sites-available")),
        format!("link {}", file("sites-enabled")),
        "reload nginx".into(),
    ];
    assert_eq!(told, expected);
    assert_eq!((web.names(), web.body()), (vec![], None));
    web.done(&web.site("one")).await;
    let (_, output) = web.rehearse(&web.site("one")).await;
    assert_eq!(preview(output).changes.len(), 0);
    let (_, output) = web.rehearse(&web.site("two")).await;
    let diff: Vec<String> = preview(output).changes[0].diff.iter().map(ToString::to_string).collect();
    assert!(
        diff.iter().any(|line| line == "-        return 200 one;")
            && diff.iter().any(|line| line == "+        return 200 two;"),
        "{diff:?}"
    );
    let (outcome, _) =
        web.rehearse(&with(&web.site("two"), json!({ "snippets": ["no_such_directive on;"] }))).await;
    assert_eq!(outcome, Outcome::Exited(1));
    assert_eq!(web.body().as_deref(), Some("one"));
}

/// Whoever asks meanwhile gets an answer, the old one or the new one, and never none.
#[tokio::test]
async fn no_request_fails_while_a_site_changes() {
    let Some(web) = web("requests during changes") else { return };
    web.start();
    web.done(&web.site("body 0")).await;
    let (is_over, asked) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let clients: Vec<_> = (0..4)
        .map(|_| {
            let (is_over, asked, port) = (Arc::clone(&is_over), Arc::clone(&asked), web.port);
            std::thread::spawn(move || {
                let mut failed = Vec::new();
                while !is_over.load(Ordering::Relaxed) {
                    let answer = get(port, "shop.example.com", "/");
                    if !answer
                        .as_deref()
                        .is_some_and(|answer| answer.contains(" 200 ") && answer.contains("body "))
                    {
                        failed.push(format!("{answer:?}"));
                    }
                    asked.fetch_add(1, Ordering::Relaxed);
                }
                failed
            })
        })
        .collect();
    for number in 1..=10 {
        web.done(&web.site(&format!("body {number}"))).await;
        assert_eq!(web.body(), Some(format!("body {number}")), "what answers is the new one");
    }
    is_over.store(true, Ordering::Relaxed);
    let failed: Vec<String> = clients.into_iter().flat_map(|client| client.join().unwrap()).collect();
    assert_eq!(failed, [""; 0]);
    assert!(asked.load(Ordering::Relaxed) > 100, "{asked:?}");
}

#[tokio::test]
async fn users_and_files_and_servers_behind_it_are_served() {
    let Some(web) = web("what sites do") else { return };
    web.start();
    fs::write(web.path("files/index.html"), "home").unwrap();
    let behind = free_port();
    let backend = json!({
        "name": "backend", "server_names": ["b"], "listen": [{ "address": "127.0.0.1", "port": behind }],
        "locations": [{ "path": "/", "reply": { "status": 200, "body": "$host $http_x_forwarded_proto $http_x_own $request_uri" } }],
    });
    web.done(&backend).await;
    let site = with(
        &web.site(""),
        json!({
            // apr1 of `secret`
            "auth": { "users": ["ada:$apr1$abcdefgh$G.HAWRH/gc01W36hwm5Mq/"] },
            "headers": [{ "name": "X-Site", "value": "a \"b\"; c" }, { "name": "X-Both", "value": "site" }],
            "rate": { "per_second": 1000, "burst": 1000 },
            "max_body_mib": 1,
            "error_log": web.path("shop.log"),
            "access_log": "off",
            "locations": [
                { "path": "/", "static": { "root": web.path("files"), "fallback": "/index.html", "expires": "1h" } },
                { "path": "/api/", "headers": [{ "name": "x-both", "value": "location" }], "snippets": ["auth_basic off;"],
                  "proxy": { "upstreams": [{ "server": format!("127.0.0.1:{behind}"), "weight": 2, "max_fails": 3, "fail_timeout_s": 5 },
                             { "server": "127.0.0.1:1", "backup": true }],
                             "websocket": true, "buffering": false, "read_timeout_s": 5, "headers": [{ "name": "X-Own", "value": "$scheme" }] } },
                { "path": "\\.secret$", "match": "regex", "deny": true },
                { "path": "/old", "match": "exact", "redirect": { "to": "https://new.example.com$request_uri" } },
            ],
        }),
    );
    web.done(&site).await;
    let (head, body) = web.get("shop.example.com", "/api/x?y=1").unwrap();
    assert_eq!(body, "shop.example.com http http /api/x?y=1");
    assert!(
        head.contains("X-Site: a \"b\"; c")
            && head.contains("x-both: location")
            && !head.contains("X-Both: site"),
        "{head}"
    );
    assert!(web.get("shop.example.com", "/").unwrap().0.contains(" 401 "));
    assert!(web.get("shop.example.com", "/x.secret").unwrap().0.contains(" 403 "));
    let (head, _) = web.get("shop.example.com", "/old?a=b").unwrap();
    assert!(head.contains(" 301 ") && head.contains("Location: https://new.example.com/old?a=b"), "{head}");
    let users = fs::metadata(web.path("fleetward/shop.htpasswd")).unwrap();
    assert_eq!(users.mode() & 0o777, 0o640);
    // Nobody is asked for a password any more, and the file of users goes.
    let open = with(&site, json!({ "auth": null }));
    web.done(&open).await;
    let (head, body) = web.get("shop.example.com", "/nowhere").unwrap();
    assert!(head.contains(" 200 ") && head.contains("max-age=3600") && body == "home", "{head}");
    assert!(!web.path("fleetward/shop.htpasswd").exists());
}

#[tokio::test]
async fn where_there_are_no_links_files_have_other_names() {
    let Some(web) = web("a host without sites-enabled") else { return };
    web.configure("include conf.d/*.conf;");
    web.start();
    web.done(&web.site("one")).await;
    assert_eq!((web.names(), web.body().as_deref()), (vec!["conf.d/shop.conf".to_owned()], Some("one")));
    let report = web.done(&only("disable")).await;
    assert_eq!(
        (web.names(), &report["after"]),
        (vec!["conf.d/shop.conf.disabled".to_owned()], &json!("disabled"))
    );
    assert_eq!(web.body(), None);
    web.done(&only("enable")).await;
    assert_eq!(web.body().as_deref(), Some("one"));
    web.done(&only("disable")).await;
    web.done(&web.site("two")).await;
    assert_eq!((web.names(), web.body().as_deref()), (vec!["conf.d/shop.conf".to_owned()], Some("two")));
    web.done(&only("remove")).await;
    assert_eq!(web.names(), [""; 0]);
}

/// nginx is gone when it should read the change: it does not come up by itself, and the change is not left behind.
#[tokio::test]
async fn an_nginx_that_dies_meanwhile_is_told() {
    let Some(web) = web("an nginx that dies") else { return };
    web.start();
    web.done(&web.site("one")).await;
    let master = web.master().unwrap();
    crate::restart::kill_with_children(master);
    // Its process id still stands in its file.
    let report = web.done(&web.site("two")).await;
    assert_eq!(report["running"], json!(false));
}

/// What the owner allows is what is there, and not what a name says.
#[tokio::test]
async fn a_link_does_not_lead_out_of_what_the_owner_allows() {
    let Some(web) = web("paths and links") else { return };
    let rule = format!(
        "[policy.rules.site]\npaths = [\"{}\"]\nsnippets = [\"gzip\"]\n",
        web.path("files").display()
    );
    fs::write(web.machine.paths().config, rule).unwrap();
    symlink("/etc", web.path("files/out")).unwrap();
    let log = |path: &str| with(&web.site("one"), json!({ "error_log": web.path("files").join(path) }));
    // A link whose target is not there yet: nginx would make it.
    let made = web.path("made");
    symlink(&made, web.path("files/dangling")).unwrap();
    for path in ["out/error.log", "out/new/error.log", "dangling", "dangling/error.log"] {
        let (outcome, _) = web.rehearse(&log(path)).await;
        assert_eq!(outcome, Outcome::Exited(1), "{path}");
        let (_, said) = web.fails(&log(path)).await;
        assert!(said.contains("leads out of the directories"), "{said}");
    }
    assert_eq!(web.names(), ["files/dangling", "files/out"]);
    web.done(&with(&log("error.log"), json!({ "snippets": ["gzip on;"] }))).await;
    for (site, told) in [
        (with(&web.site("x"), json!({ "error_log": "/var/log/x" })), "does not name `/var/log/x`"),
        (
            with(&web.site("x"), json!({ "snippets": ["if ($host) { include /etc/x; }"] })),
            "does not name `if`",
        ),
    ] {
        let refused = web.refused(&site).await;
        assert!(refused.contains(told), "{refused}");
    }
}

/// The largest site that there may be is remembered while it changes, and told apart from one that is too large.
#[tokio::test]
async fn a_large_site_changes_and_one_that_is_too_large_is_refused() {
    let Some(web) = web("a large site") else { return };
    web.start();
    let site = |count: usize, letter: &str| {
        let body = letter.repeat(1900);
        let reply = |at: usize| json!({ "path": format!("/{at}"), "match": "exact", "reply": { "status": 200, "body": body } });
        with(&web.site(""), json!({ "locations": (0..count).map(reply).collect::<Vec<_>>() }))
    };
    for letter in ["a", "b"] {
        web.done(&site(54, letter)).await;
        assert_eq!(web.get("shop.example.com", "/53").unwrap().1, letter.repeat(1900));
    }
    let (outcome, said) = web.fails(&site(60, "c")).await;
    assert_eq!(outcome, Outcome::Exited(1));
    assert!(said.contains("make several sites of it"), "{said}");
}
