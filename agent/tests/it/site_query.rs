//! Queries about sites, with the real nginx: what it reads, whoever wrote it.

use std::fs;
use std::os::unix::fs::symlink;
use std::time::Duration;

use fleetward_agent::query::{Answer, Queries};
use fleetward_protocol::action::ActionRequest;
use fleetward_protocol::message::{OpenQuery, QueryUp};
use fleetward_protocol::order::Authority;
use fleetward_protocol::query::certificates::CertificateItem;
use fleetward_protocol::query::read_item;
use fleetward_protocol::query::site_errors::SiteError;
use fleetward_protocol::query::sites::{SiteItem, Writer};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::host::{Request, asking, client, script};
use crate::nginx::{Web, get, web};

async fn next(answer: &mut Answer) -> QueryUp {
    let next = tokio::time::timeout(Duration::from_secs(60), answer.next());
    next.await.expect("it goes on within a minute").expect("it ends with a word")
}

/// The whole answer, or why it broke off.
async fn ask<I: DeserializeOwned>(web: &Web, kind: &str, params: Value) -> Result<Vec<I>, String> {
    let (items, end) = told(web, kind, params).await;
    end.map(|()| items)
}

/// What is told, and why it broke off if it did.
async fn told<I: DeserializeOwned>(web: &Web, kind: &str, params: Value) -> (Vec<I>, Result<(), String>) {
    let typed = Some(ActionRequest { kind: kind.to_owned(), params: params.to_string() });
    let request = Request { typed, ..script("") };
    let order = asking(&client(), Authority::Query, &request).dispatch.unwrap().order;
    let queries = Queries::new(web.life.runs.clone());
    let mut answer = queries.open(&OpenQuery { order, remaining_ms: 60_000, follow: false }).await.unwrap();
    let mut items = Vec::new();
    loop {
        match next(&mut answer).await {
            QueryUp::Items(told) => items.extend(told.into_iter().map(|item| {
                let item = read_item(&item.item).expect("an item is what the controller takes");
                serde_json::from_value::<I>(Value::Object(item)).unwrap()
            })),
            QueryUp::Complete => {}
            QueryUp::Ended => return (items, Ok(())),
            QueryUp::Failed { detail } => return (items, Err(detail.into())),
            other => panic!("{other:?}"),
        }
    }
}

pub(crate) fn certificate(web: &Web, name: &str, names: &[&str]) {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let made = rcgen::generate_simple_self_signed(names).unwrap();
    fs::write(web.path(&format!("files/{name}.pem")), made.cert.pem()).unwrap();
    fs::write(web.path(&format!("files/{name}.key")), made.signing_key.serialize_pem()).unwrap();
}

/// A site with TLS, which answers a probe of its own.
pub(crate) fn secure(web: &Web) -> Value {
    json!({
        "name": "secure", "server_names": ["secure.example.com", "www.example.com"],
        "listen": [{ "address": "127.0.0.1", "port": web.port, "tls": true, "http2": true }],
        "tls": { "certificate": web.path("files/a.pem"), "key": web.path("files/a.key") },
        "error_log": web.path("secure.log"),
        "locations": [{ "path": "/", "proxy": { "upstreams": [{ "server": "127.0.0.1:1" }, { "server": "unix:/run/x.sock" }] } },
            { "path": "/ok", "match": "exact", "reply": { "status": 204 } }],
        "probe": { "path": "/ok", "status": 204 },
    })
}

#[tokio::test]
async fn sites_are_listed_whoever_wrote_them() {
    let Some(web) = web("listing sites") else { return };
    certificate(&web, "a", &["secure.example.com"]);
    web.start();
    assert_eq!(web.done(&secure(&web)).await["probed"], json!(204), "with TLS, by its name");
    web.done(&json!({ "name": "off", "server_names": ["off.example.com"],
        "locations": [{ "path": "/", "redirect": { "to": "https://example.com" } }],
        "listen": [{ "address": "127.0.0.1", "port": crate::nginx::free_port() }] }))
        .await;
    web.done(&json!({ "name": "off", "verb": "disable" })).await;
    let foreign = "server { listen 127.0.0.1:1; server_name ~^x$ \"y\\\"z\"; root /srv/x; }\nserver { listen 127.0.0.1:2; }\n";
    fs::write(web.path("sites-available/theirs.conf"), foreign).unwrap();
    symlink("../sites-available/theirs.conf", web.path("sites-enabled/theirs.conf")).unwrap();
    let items: Vec<SiteItem> = ask(&web, "sites", json!({})).await.unwrap();
    let shown: Vec<_> = items.iter().map(|item| (item.name.as_str(), item.enabled, item.writer)).collect();
    let expected =
        [("secure", true, Writer::Ours), ("theirs", true, Writer::Foreign), ("off", false, Writer::Ours)];
    assert_eq!(shown, expected);
    let [own, theirs, off] = &items[..] else { panic!("{items:?}") };
    assert_eq!(own.target.as_deref(), Some("http://127.0.0.1:1 http://unix:/run/x.sock"));
    assert_eq!(own.certificates[0].as_str(), web.path("files/a.pem").to_str().unwrap());
    assert_eq!(own.listen[0].as_str(), format!("127.0.0.1:{} ssl http2", web.port));
    assert_eq!(theirs.server_names.iter().map(|name| name.as_str()).collect::<Vec<_>>(), ["y\"z", "~^x$"]);
    assert_eq!(off.target.as_deref(), Some("return 301 https://example.com"));
    for (pattern, found) in [("*.example.com", 2), ("sec*", 1), ("none", 0)] {
        let items: Vec<SiteItem> = ask(&web, "sites", json!({ "pattern": pattern })).await.unwrap();
        assert_eq!(items.len(), found, "{pattern}");
    }
    fs::write(web.machine.paths().config, "[policy.rules.sites]\nsites = [\"secure\"]\n").unwrap();
    let items: Vec<SiteItem> = ask(&web, "sites", json!({})).await.unwrap();
    assert_eq!(items.len(), 1, "what the owner does not show is left out");
}

#[tokio::test]
async fn certificates_are_told_with_how_long_they_hold() {
    let Some(web) = web("listing certificates") else { return };
    certificate(&web, "a", &["secure.example.com", "192.0.2.1"]);
    web.done(&secure(&web)).await;
    let items: Vec<CertificateItem> = ask(&web, "certificates", json!({})).await.unwrap();
    let [one] = &items[..] else { panic!("{items:?}") };
    assert_eq!(
        one.names.iter().map(|name| name.as_str()).collect::<Vec<_>>(),
        ["secure.example.com", "192.0.2.1"]
    );
    assert_eq!((one.sites[0].as_str(), one.problem.as_ref()), ("secure", None));
    assert!(one.days_left.unwrap() > 10_000 && one.not_after > one.not_before);
    assert!(one.issuer.as_deref().unwrap().starts_with("CN="), "{one:?}");
    let soon: Vec<CertificateItem> = ask(&web, "certificates", json!({ "days": 21 })).await.unwrap();
    assert_eq!(soon.len(), 0);
    // nginx would take what is left of it no more: but what cannot be read is told while it does.
    fs::write(web.path("sites-enabled/more"), format!("server {{ listen 127.0.0.1:1 ssl; ssl_certificate {0}/$host.pem; ssl_certificate_key {0}/$host.key; }}\n", web.path("files").display())).unwrap();
    let soon: Vec<CertificateItem> = ask(&web, "certificates", json!({ "days": 21 })).await.unwrap();
    assert!(soon[0].problem.as_deref().unwrap().contains("by a variable"), "{soon:?}");
}

#[tokio::test]
async fn errors_are_told_by_site() {
    let Some(web) = web("errors of sites") else { return };
    web.start();
    let site = |name: &str, path: &str, own: Option<&str>| {
        let mut site = web.site("");
        site["name"] = json!(name);
        site["server_names"] = json!([format!("{name}.example.com")]);
        site["locations"] = json!([{ "path": "/", "static": { "root": web.path(path) } }]);
        if let Some(log) = own {
            site["error_log"] = json!(web.path(log));
        }
        site
    };
    web.done(&site("own", "files", Some("own.log"))).await;
    web.done(&site("other", "files", None)).await;
    for name in ["own", "other", "own"] {
        get(web.port, &format!("{name}.example.com"), "/no-such-file").unwrap();
    }
    let all: Vec<SiteError> = ask(&web, "site-errors", json!({})).await.unwrap();
    let of = |site: Option<&str>| {
        all.iter()
            .filter(|line| line.site.as_deref() == site && line.message.contains("no-such-file"))
            .count()
    };
    assert_eq!((of(Some("own")), of(None)), (2, 1), "{all:?}");
    let own: Vec<SiteError> = ask(&web, "site-errors", json!({ "site": "own", "lines": 1 })).await.unwrap();
    let [line] = &own[..] else { panic!("{own:?}") };
    assert_eq!((line.level.as_deref(), line.site.as_deref()), (Some("error"), Some("own")));
    web.done(&site("off", "files", Some("off.log"))).await;
    web.done(&json!({ "name": "off", "verb": "disable" })).await;
    for (name, why) in
        [("other", "no error log of its own"), ("off", "is disabled"), ("nosuch", "is not on this host")]
    {
        let error = ask::<SiteError>(&web, "site-errors", json!({ "site": name })).await.unwrap_err();
        assert!(error.contains(why), "{error}");
    }
    // Whatever clients write into a log is one printable line.
    fs::write(web.path("own.log"), b"\x1b[2J\xff evil\n").unwrap();
    let own: Vec<SiteError> = ask(&web, "site-errors", json!({ "site": "own" })).await.unwrap();
    assert!(own[0].message.contains("evil") && !own[0].message.contains('\u{1b}'));
}

#[tokio::test]
async fn a_host_whose_nginx_is_broken_says_so() {
    let Some(web) = web("queries to a broken nginx") else { return };
    fs::write(web.path("sites-enabled/broken"), "lisen;\n").unwrap();
    for kind in ["sites", "certificates", "site-errors"] {
        let error = ask::<Value>(&web, kind, json!({})).await.unwrap_err();
        assert!(error.contains("unknown directive \"lisen\"") && error.contains("nginx -t"), "{error}");
    }
}

/// nginx tells nothing of a configuration that it does not take; its files do.
#[tokio::test]
async fn what_a_broken_nginx_has_is_told_from_its_files() {
    let Some(web) = web("queries to an nginx whose certificate is gone") else { return };
    web.start();
    certificate(&web, "a", &["secure.example.com"]);
    web.done(&secure(&web)).await;
    fs::remove_file(web.path("files/a.pem")).unwrap();
    let (sites, end) = told::<SiteItem>(&web, "sites", json!({})).await;
    let [site] = &sites[..] else { panic!("{sites:?}") };
    assert_eq!((site.name.as_str(), site.writer, site.enabled), ("secure", Writer::Ours, true));
    assert!(end.unwrap_err().contains("a.pem"));
    let (certificates, end) = told::<CertificateItem>(&web, "certificates", json!({})).await;
    let [certificate] = &certificates[..] else { panic!("{certificates:?}") };
    assert!(certificate.problem.as_deref().unwrap().contains("No such file"), "{certificate:?}");
    assert!(end.unwrap_err().contains("nginx may work with something older"));
}

/// A host that holds sites for everybody: all of them are listed, and one of them changes.
#[tokio::test]
async fn a_host_with_five_thousand_sites_answers() {
    let Some(web) = web("five thousand sites") else { return };
    web.configure("server_names_hash_max_size 32768; include sites-enabled/*;");
    for number in 0..5000 {
        let text = format!(
            "server {{\n    listen 127.0.0.1:{};\n    server_name s{number}.example.com www.s{number}.example.com;\n    \
             location / {{ proxy_pass http://127.0.0.1:1; proxy_set_header Host $host; }}\n    location /static {{ root /srv/{number}; }}\n}}\n",
            web.port
        );
        fs::write(web.path(&format!("sites-available/s{number}")), text).unwrap();
        symlink(format!("../sites-available/s{number}"), web.path(&format!("sites-enabled/s{number}")))
            .unwrap();
    }
    web.start();
    let began = std::time::Instant::now();
    let items: Vec<SiteItem> = ask(&web, "sites", json!({})).await.unwrap();
    assert_eq!(items.len(), 5000);
    eprintln!("listed in {:?}", began.elapsed());
    let began = std::time::Instant::now();
    web.done(&web.site("one")).await;
    eprintln!("changed in {:?}", began.elapsed());
    assert_eq!(web.body().as_deref(), Some("one"));
    let began = std::time::Instant::now();
    assert_eq!(web.done(&web.site("one")).await["changed"], json!(false));
    eprintln!("unchanged in {:?}", began.elapsed());
}
