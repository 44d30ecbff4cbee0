//! The console as people see it, in headless Chromium against a real fleet.
//!
//! Left out of a plain `cargo nextest run`: it needs Chromium, node and a built console. `cargo xtask test` sees to that.
//! The walk itself is `controller/console/browser/walk.mjs`; its pictures land in `target/screenshots/`.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, symlink};
use std::path::Path;
use std::process::{Command, Stdio};

use fleetward_domain::people::permission::Role;
use serde_json::json;

use crate::fleet::Fleet;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_person_walks_through_the_console() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace");
    let fleet = Fleet::with_hosts(3).await;
    let host = json!({ "name": "bare-1", "type": "LXC", "provider": "Example", "tags": ["prod", "web"] });
    fleet.client.post("/hosts", &host).await.expect("a host without an agent");
    let web = if sites(&fleet).await { "nginx" } else { "none" };
    let viewer = fleet.login_as("vera", Role::Viewer).await;
    // The walk begins where an administrator does: with a one-time password.
    let password = fleet.reset_password().await;

    let walk = tokio::process::Command::new("node")
        .arg(root.join("controller/console/browser/walk.mjs"))
        .args([fleet.url(), "admin".to_owned(), password])
        .arg(root.join("target/screenshots"))
        .args([viewer, web.to_owned()])
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .expect("node runs");

    let (stdout, stderr) = (String::from_utf8_lossy(&walk.stdout), String::from_utf8_lossy(&walk.stderr));
    assert!(walk.status.success(), "the walk failed:\n{stdout}{stderr}");
}

/// Gives the hosts sites to show: `host-1` has one of ours and two of somebody else, `host-2` an nginx without sites, and the owner of
/// `host-3` does not want them to be looked at. `false` where there is no nginx, or no root, whom sites need: then hosts say so.
async fn sites(fleet: &Fleet) -> bool {
    let refusing = "[policy]\nkinds = [\"units\", \"unit-log\", \"file-list\"]\n";
    fs::write(fleet.paths("host-3").config, refusing).expect("a policy");
    let is_root = fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0);
    let has_nginx = Command::new("nginx").arg("-v").stderr(Stdio::null()).status().is_ok();
    if !is_root || !has_nginx {
        return false;
    }
    for host in ["host-1", "host-2"] {
        let top = fleet.nginx(host);
        for directory in ["sites-available", "sites-enabled"] {
            fs::create_dir_all(top.join(directory)).expect("a directory");
        }
        let text = "user root;\npid nginx.pid;\nerror_log error.log;\nevents { worker_connections 64; }\n\
                    http {\n    access_log off;\n    server_names_hash_bucket_size 128;\n    include sites-enabled/*;\n}\n";
        fs::write(top.join("nginx.conf"), text).expect("a configuration");
    }
    let top = fleet.nginx("host-1");
    // The controller's own certificate is as good as any.
    let pki = fleet.path("controller").join("pki");
    let (certificate, key) = (pki.join("web.pem"), pki.join("web.key.pem"));
    let names =
        (1..40).map(|number| format!("customer-{number}.a-rather-long-name.example.com")).collect::<Vec<_>>();
    let legacy = format!(
        "server {{\n    listen 127.0.0.1:8443 ssl;\n    server_name {};\n    ssl_certificate {};\n    ssl_certificate_key {};\n\
         \x20   location / {{ proxy_pass http://192.0.2.7:3000; }}\n}}\n",
        names.join(" "),
        certificate.display(),
        key.display()
    );
    fs::write(top.join("sites-available/legacy-of-somebody-else"), legacy).expect("a site");
    symlink("../sites-available/legacy-of-somebody-else", top.join("sites-enabled/legacy-of-somebody-else"))
        .expect("a link");
    fs::write(
        top.join("sites-available/old"),
        "server { listen 127.0.0.1:8081; server_name old.example.com; }\n",
    )
    .expect("a site");
    let log = top.join("shop.error.log");
    let shop = json!({
        "name": "shop",
        "server_names": ["shop.example.com", "*.shop.example.com"],
        "listen": [{ "address": "127.0.0.1", "port": 8080 }],
        "error_log": log,
        "locations": [{ "path": "/", "proxy": { "upstreams": [{ "server": "127.0.0.1:3000" }] } }],
    });
    let body = json!({ "steps": [{ "kind": "site", "params": shop }], "on": "host-1" });
    let operation = fleet.client.start_as(&body).await;
    let ended = fleet.client.ended(&operation).await;
    assert_eq!(ended.operation["status"], "success", "{:?}", ended.runs);
    let line = "2026/01/02 03:04:05 [error] 7#7: *1 connect() failed (111: Connection refused) while connecting to upstream\n";
    fs::write(log, line.repeat(3)).expect("a log");
    true
}
