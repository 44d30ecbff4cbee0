//! The scripts that fleet tests run, in a git repository, synchronised through the API.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;

use serde_json::json;

use super::Fleet;

const SCRIPTS: &[(&str, &str, &str)] = &[
    (
        "hello",
        "Say hello",
        "while [ $# -gt 0 ]; do case $1 in --name) name=$2; shift;; esac; shift; done\necho \"hello ${name:-world}\"\necho \"from $FLEETWARD_RUN_ID\" >&2",
    ),
    ("arguments", "Show the arguments", "printf '%s\\0' \"$@\""),
    ("environment", "Show the environment", "env -0 | sort -z\npwd\nid -un"),
    ("leave", "Leave with a code", "exit \"$1\""),
    ("die", "Die by a signal", "kill -\"$1\" $$"),
    ("forever", "Tick for ever", "n=0; while :; do n=$((n+1)); echo \"tick $n\"; read -rt 0.2 <> <(:); done"),
    (
        "forking",
        "Leave children behind",
        "setsid bash -c 'exec -a fleetward-test-child sleep 600' & (setsid sleep 600 &) ; echo \"started $!\"; wait",
    ),
    (
        "wait-for",
        "Wait until a file is there",
        "echo waiting; until [ -e \"$1\" ]; do read -rt 0.05 <> <(:); done; echo \"done $2\"",
    ),
    ("bytes", "Write bytes", "head -c \"$1\" /dev/urandom | tee \"$2\""),
    ("line", "Write one long line", "head -c \"$1\" /dev/zero | tr '\\0' x"),
    ("binary", "Write what is no text", "printf '\\377\\000\\376\\303(\\n'"),
    ("silent", "Write nothing", ":"),
    (
        "count-start",
        "Note a start",
        "echo start >> \"$1\"; until [ -e \"$2\" ]; do read -rt 0.05 <> <(:); done; exit 0",
    ),
];

/// Makes the repository and waits until it is in force.
pub(crate) async fn offer(fleet: &Fleet) {
    let path = fleet.path("repository");
    fs::create_dir_all(path.join("scripts")).expect("a directory");
    let mut yaml = String::from("scripts:\n");
    for (name, title, body) in SCRIPTS {
        let file = path.join("scripts").join(format!("{name}.sh"));
        fs::write(&file, format!("#!/bin/bash\n{body}\n")).expect("a script");
        fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).expect("an executable");
        yaml.push_str(&format!(
            "  {name}: {{name: {title}, description: For tests, path: scripts/{name}.sh}}\n"
        ));
    }
    fs::write(path.join("scripts.yaml"), yaml).expect("scripts.yaml");
    commit(fleet, "Offer scripts");
    let repo =
        json!({ "url": format!("file://{}", path.display()), "branch": "main", "interval_minutes": 0 });
    fleet.client.put("/repo", &repo).await.expect("the repository is taken");
    let sync = fleet.client.post("/repo/sync", &json!({})).await.expect("the sync is answered");
    assert_eq!(sync["status"], "succeeded", "{sync:#}");
}

/// Commits what stands in the repository's folder.
pub(crate) fn commit(fleet: &Fleet, message: &str) {
    let path = fleet.path("repository");
    let git = |arguments: &[&str]| {
        let done = Command::new("git")
            .args([
                "-c",
                "user.name=Tests",
                "-c",
                "user.email=tests@example.com",
                "-c",
                "commit.gpgsign=false",
            ])
            .args(arguments)
            .current_dir(&path)
            .output()
            .expect("git runs");
        assert!(done.status.success(), "git {arguments:?}: {}", String::from_utf8_lossy(&done.stderr));
    };
    if !path.join(".git").exists() {
        git(&["init", "--quiet", "--initial-branch=main"]);
    }
    git(&["add", "--all"]);
    git(&["commit", "--quiet", "--message", message]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broken_file_leaves_the_last_good_inventory_in_force() {
    let fleet = Fleet::with_hosts(0).await;
    let good = fleet.client.get("/repo").await.expect("the repository")["in_force"]["commit"].clone();
    fs::write(fleet.path("repository").join("scripts.yaml"), "scripts:\n  hello: {name: Hi, path: 7}\n")
        .expect("a file");
    commit(&fleet, "Break it");

    let sync = fleet.client.post("/repo/sync", &json!({})).await.expect("the sync is answered");

    assert_eq!(sync["status"], "failed");
    assert_eq!(sync["problems"][0]["file"], "scripts.yaml");
    assert_eq!(sync["problems"][0]["line"], 2);
    assert_eq!(fleet.client.get("/repo").await.expect("the repository")["in_force"]["commit"], good);
    let scripts = fleet.client.get("/scripts").await.expect("the scripts");
    assert_eq!(scripts["items"].as_array().map(Vec::len), Some(SCRIPTS.len()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_that_leaves_the_file_is_retired_and_keeps_its_history() {
    let mut fleet = Fleet::empty().await;
    offer(&fleet).await;
    let links = fleet.path("repository").join("links.yaml");
    fs::write(
        &links,
        "links:\n  edge-7: {type: VM, provider: Example, host: 192.0.2.7, port: 22, user: ops, enrollment: {clientId: LINKOPS-00000000-0000-4000-8000-000000000007}}\n",
    )
    .expect("links.yaml");
    commit(&fleet, "Add a host");
    let sync = fleet.client.post("/repo/sync", &json!({})).await.expect("the sync is answered");
    assert_eq!(sync["changes"]["hosts_added"], 1, "{sync:#}");
    let token = fleet.client.post("/hosts/edge-7/token", &json!({})).await.expect("a token");
    fleet.enrol("edge-7", token["token"].as_str().expect("a token")).await.expect("the migrated id is kept");
    fleet.start_agent("edge-7").await;
    assert_eq!(fleet.client.run("hello", "edge-7", &[]).await.status(), "success");

    fs::write(&links, "links: {}\n").expect("links.yaml");
    commit(&fleet, "Remove the host");
    fleet.client.post("/repo/sync", &json!({})).await.expect("the sync is answered");

    let host = fleet.client.get("/hosts/edge-7").await.expect("it is still there");
    assert_eq!(host["lifecycle"], "retired");
    assert_eq!(host["client_id"], "LINKOPS-00000000-0000-4000-8000-000000000007");
    let history = fleet.client.get("/operations?host=edge-7").await.expect("its history");
    assert_eq!(history["items"].as_array().map(Vec::len), Some(1));
    let refused =
        fleet.client.post("/operations", &json!({ "scripts": [{ "name": "hello" }], "on": "edge-7" })).await;
    assert!(refused.is_err(), "a retired host is no target");
}
