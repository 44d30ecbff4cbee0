//! Which crate may know which.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::process::Command;

use serde_json::Value;

use super::{assert_none, files, root};

/// The packages that `package` needs to build, itself left out, dev-dependencies left out.
fn tree(package: &str) -> BTreeSet<String> {
    let output = Command::new(env!("CARGO"))
        .args([
            "tree",
            "--offline",
            "--edges",
            "normal",
            "--prefix",
            "none",
            "--format",
            "{p}",
            "--package",
            package,
        ])
        .args(["--target", "x86_64-unknown-linux-gnu"])
        .current_dir(root())
        .output()
        .expect("cargo prints the tree");
    assert!(output.status.success(), "cargo tree failed: {}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).expect("names are UTF-8");
    let names: BTreeSet<String> =
        text.lines().filter_map(|line| line.split(' ').next()).map(str::to_owned).collect();
    names.into_iter().filter(|name| name != package && !name.is_empty()).collect()
}

fn assert_lacks(package: &str, forbidden: &[&str]) {
    let tree = tree(package);
    let found: Vec<String> =
        forbidden.iter().filter(|name| tree.contains(**name)).map(|name| (*name).to_owned()).collect();
    assert_none(&format!("{package} must not depend on these"), &found);
}

/// What a crate's Cargo.toml asks for.
struct Asked {
    name: String,
    /// For tests alone.
    is_dev: bool,
    features: Vec<String>,
}

/// The crates of the workspace, and what each one's Cargo.toml asks for.
fn manifests() -> BTreeMap<String, Vec<Asked>> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--offline", "--no-deps", "--format-version", "1"])
        .current_dir(root())
        .output()
        .expect("cargo prints the metadata");
    assert!(output.status.success(), "cargo metadata failed: {}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).expect("the metadata is JSON");
    let text = |value: &Value| value.as_str().expect("a name").to_owned();
    let list = |value: &Value| value.as_array().expect("a list").clone();
    let asked = |dependency: Value| Asked {
        name: text(&dependency["name"]),
        is_dev: dependency["kind"] == "dev",
        features: list(&dependency["features"]).iter().map(text).collect(),
    };
    let of = |package: Value| {
        (text(&package["name"]), list(&package["dependencies"]).into_iter().map(asked).collect())
    };
    list(&metadata["packages"]).into_iter().map(of).collect()
}

/// The arrows between our crates, each of them and no other. A new one is a decision.
const ARROWS: [(&str, &[&str]); 15] = [
    ("fleetward-protocol", &[]),
    ("fleetward-domain", &["protocol"]),
    ("fleetward-api", &["protocol"]),
    // The layers of the controller.
    ("fleetward-pki", &["protocol"]),
    ("fleetward-repo", &["domain", "protocol"]),
    ("fleetward-store", &["domain", "protocol"]),
    ("fleetward-app", &["domain", "pki", "protocol", "repo", "store"]),
    ("fleetward-link", &["app", "domain", "pki", "protocol"]),
    // Of repo only what credentials are.
    ("fleetward-http", &["api", "app", "domain", "protocol", "repo", "store"]),
    ("fleetward-controller", &["app", "http", "link", "pki", "protocol", "repo", "store"]),
    ("fleetward-agent", &["protocol"]),
    ("fleetward-cli", &["api", "domain", "protocol"]),
    ("fleetward-manual", &["agent", "cli", "controller"]),
    ("fleetward-tests", &[]),
    ("xtask", &["api"]),
];

#[test]
fn the_arrows_between_crates_are_these() {
    let lawful: BTreeMap<String, BTreeSet<String>> = ARROWS
        .iter()
        .map(|(from, to)| ((*from).to_owned(), to.iter().map(|to| format!("fleetward-{to}")).collect()))
        .collect();
    let found: BTreeMap<String, BTreeSet<String>> = manifests()
        .into_iter()
        .map(|(from, asked)| {
            let ours =
                asked.into_iter().filter(|asked| !asked.is_dev && asked.name.starts_with("fleetward-"));
            (from, ours.map(|asked| asked.name).collect())
        })
        .collect();
    assert_eq!(found, lawful);
}

/// Each of these is in one layer, and not even a test elsewhere goes around that layer.
#[test]
fn sql_http_quic_and_git_have_one_home_each() {
    let homes: [(&str, &[&str]); 9] = [
        ("sqlx", &["fleetward-store"]),
        ("axum", &["fleetward-http"]),
        ("utoipa-axum", &["fleetward-http"]),
        ("utoipa-swagger-ui", &["fleetward-http"]),
        ("rust-embed", &["fleetward-http"]),
        ("quinn", &["fleetward-agent", "fleetward-link"]),
        ("git2", &["fleetward-repo"]),
        ("libgit2-sys", &["fleetward-repo"]),
        ("chacha20poly1305", &["fleetward-app"]),
    ];
    let manifests = manifests();
    for (name, lawful) in homes {
        let found: Vec<&str> = manifests
            .iter()
            .filter(|(_, asked)| asked.iter().any(|asked| asked.name == name))
            .map(|(package, _)| package.as_str())
            .collect();
        assert_eq!(found, lawful, "who asks for {name}");
    }
}

#[test]
fn what_is_for_tests_is_asked_for_by_tests_alone() {
    let strays: Vec<String> = manifests()
        .iter()
        .flat_map(|(package, asked)| asked.iter().map(move |asked| (package, asked)))
        .filter(|(_, asked)| !asked.is_dev && asked.features.iter().any(|feature| feature == "testing"))
        .map(|(package, asked)| format!("{package} asks for {}", asked.name))
        .collect();
    assert_none("the feature `testing` in what ships", &strays);
}

#[test]
fn protocol_knows_nobody_and_does_no_io() {
    assert_lacks("fleetward-protocol", &["tokio", "quinn", "axum", "sqlx", "rustls"]);
}

#[test]
fn domain_decides_and_does_nothing() {
    assert_lacks("fleetward-domain", &["tokio", "quinn", "axum", "sqlx", "rand"]);
}

#[test]
fn agent_knows_neither_controller_nor_database() {
    assert_lacks("fleetward-agent", &["sqlx", "axum", "git2", "reqwest"]);
}

#[test]
fn the_cli_knows_of_the_domain_only_how_an_inventory_is_read() {
    assert_lacks("fleetward-cli", &["sqlx", "axum", "git2", "quinn"]);
    let strays: Vec<String> = files(&["rs"])
        .iter()
        .filter(|file| file.path.starts_with("cli/"))
        .flat_map(|file| {
            file.text.lines().map(|line| format!("{}: {}", file.path, line.trim())).collect::<Vec<_>>()
        })
        .filter(|line| {
            line.contains("fleetward_domain::") && !line.contains("fleetward_domain::fleet::inventory")
        })
        .collect();
    assert_none("the CLI uses more of the domain than its inventory", &strays);
}

#[test]
fn the_agents_dependencies_are_a_reviewed_list() {
    let list = root().join("agent/dependencies.txt");
    let now: String = tree("fleetward-agent").into_iter().map(|name| name + "\n").collect();
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        fs::write(&list, &now).expect("write the list");
    }
    let reviewed = fs::read_to_string(&list).unwrap_or_default();
    assert_eq!(
        reviewed, now,
        "the agent runs as root everywhere: review its new dependency, then `cargo xtask bless`"
    );
}

#[test]
fn every_crate_inherits_the_houses_lints() {
    let manifests = files(&["Cargo.toml"]);
    let members = manifests.iter().filter(|file| file.path != "Cargo.toml" && !file.path.contains("/fuzz/"));
    let strays: Vec<String> = members
        .filter(|file| !file.text.contains("[lints]\nworkspace = true"))
        .map(|file| file.path.clone())
        .collect();
    assert_none("a crate without `[lints] workspace = true`", &strays);
}
