//! The console as people see it, in headless Chromium against a real fleet.
//!
//! Left out of a plain `cargo nextest run`: it needs Chromium, node and a built console. `cargo xtask test` sees to that.
//! The walk itself is `controller/console/browser/walk.mjs`; its pictures land in `target/screenshots/`.

use std::path::Path;
use std::process::Stdio;

use serde_json::json;

use crate::fleet::Fleet;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_person_walks_through_the_console() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace");
    let fleet = Fleet::with_hosts(3).await;
    let host = json!({ "name": "bare-1", "type": "LXC", "provider": "Example", "tags": ["prod", "web"] });
    fleet.client.post("/hosts", &host).await.expect("a host without an agent");
    // The walk begins where an administrator does: with a one-time password.
    let password = fleet.reset_password().await;

    let walk = tokio::process::Command::new("node")
        .arg(root.join("controller/console/browser/walk.mjs"))
        .args([fleet.url(), "admin".to_owned(), password])
        .arg(root.join("target/screenshots"))
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .expect("node runs");

    let (stdout, stderr) = (String::from_utf8_lossy(&walk.stdout), String::from_utf8_lossy(&walk.stderr));
    assert!(walk.status.success(), "the walk failed:\n{stdout}{stderr}");
}
