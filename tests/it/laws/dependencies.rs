//! Which crate may know which.

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

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

#[test]
fn protocol_knows_nobody_and_does_no_io() {
    let forbidden =
        ["tokio", "quinn", "axum", "sqlx", "rustls", "fleetward-domain", "fleetward-api", "fleetward-agent"];
    assert_lacks("fleetward-protocol", &forbidden);
}

#[test]
fn domain_knows_only_the_protocols_vocabulary() {
    let ours: Vec<String> =
        tree("fleetward-domain").into_iter().filter(|name| name.starts_with("fleetward-")).collect();
    assert_eq!(ours, ["fleetward-protocol"]);
    assert_lacks("fleetward-domain", &["tokio", "quinn", "axum", "sqlx", "rand"]);
}

#[test]
fn agent_knows_neither_controller_nor_database() {
    let forbidden =
        ["fleetward-controller", "fleetward-domain", "fleetward-api", "sqlx", "axum", "git2", "reqwest"];
    assert_lacks("fleetward-agent", &forbidden);
}

#[test]
fn the_cli_knows_of_the_domain_only_how_an_inventory_is_read() {
    assert_lacks(
        "fleetward-cli",
        &["fleetward-controller", "fleetward-agent", "sqlx", "axum", "git2", "quinn"],
    );
    let strays: Vec<String> = files(&["rs"])
        .iter()
        .filter(|file| file.path.starts_with("cli/"))
        .flat_map(|file| {
            file.text.lines().map(|line| format!("{}: {}", file.path, line.trim())).collect::<Vec<_>>()
        })
        .filter(|line| line.contains("fleetward_domain::") && !line.contains("fleetward_domain::inventory"))
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
