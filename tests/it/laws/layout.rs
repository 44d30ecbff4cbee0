//! Where things stand and what they are called.

use std::fs;

use super::{assert_none, files, root};

const MAX_LINES: usize = 500;

#[test]
fn no_file_holds_two_things() {
    let long = files(&[".rs", ".ts", ".tsx"])
        .iter()
        .filter(|file| {
            !file.is_test()
                && !file.path.contains("generated")
                && !file.path.contains(".test.")
                && !file.path.ends_with(".gen.ts")
        })
        .map(|file| (file, file.shipped_lines().count()))
        .filter(|(_, lines)| *lines > MAX_LINES)
        .map(|(file, lines)| format!("{}: {lines} lines", file.path))
        .collect::<Vec<_>>();
    assert_none("a file above 500 lines without its tests: two things live in it", &long);
}

#[test]
fn no_name_says_nothing() {
    let empty = ["utils", "util", "helpers", "helper", "common", "manager", "misc", "service"];
    let named: Vec<String> = files(&[".rs", ".ts", ".tsx"])
        .into_iter()
        .filter(|file| file.path.split(['/', '.']).any(|part| empty.contains(&part)))
        .map(|file| file.path)
        .collect();
    assert_none("a name that says nothing about its content", &named);
}

#[test]
fn modules_are_files_of_their_own_name() {
    let strays: Vec<String> = files(&[".rs"])
        .into_iter()
        .filter(|file| file.path.ends_with("/mod.rs"))
        .map(|file| file.path)
        .collect();
    assert_none("`foo.rs` and `foo/`, never `foo/mod.rs`", &strays);
}

#[test]
fn the_code_map_names_every_folder() {
    let map = fs::read_to_string(root().join("docs/architecture.md")).expect("docs/architecture.md");
    let folders: std::collections::BTreeSet<String> = files(&[".rs"])
        .iter()
        .filter(|file| !file.path.contains("/src/tests/"))
        .filter_map(|file| {
            file.path
                .rsplit_once("/src/")
                .map(|(krate, rest)| (krate, rest.split('/').next().unwrap_or_default()))
        })
        .filter(|(krate, part)| !part.ends_with(".rs") && !krate.ends_with("fuzz"))
        .map(|(krate, part)| format!("{krate}/src/{part}"))
        .collect();
    let missing: Vec<String> = folders.into_iter().filter(|folder| !map.contains(folder.as_str())).collect();
    assert_none("docs/architecture.md does not name", &missing);
}

#[test]
fn the_tree_speaks_of_the_product_alone() {
    // Spelled in two halves, so that this file does not find itself; and where this checkout happens to stand,
    // unless that is as short as a word.
    let checkout = xtask::workspace::root().to_string_lossy();
    let checkout = Some(checkout.as_ref()).filter(|path| path.matches('/').count() > 1);
    let forbidden = [
        concat!("crates", ".io"),
        concat!("npmjs", ".org"),
        concat!("npmjs", ".com"),
        concat!("deb.", "debian"),
        concat!("pypi", ".org"),
    ];
    let text = [
        ".rs", ".md", ".toml", ".ts", ".tsx", ".json", ".yml", ".yaml", ".sh", ".service", ".lock", ".html",
        ".css", ".ci/run",
    ];
    let found: Vec<String> = files(&text)
        .iter()
        .filter(|file| !file.path.ends_with("Cargo.lock"))
        .flat_map(|file| {
            forbidden
                .into_iter()
                .chain(checkout)
                .filter(|word| file.text.contains(word))
                .map(move |word| format!("{}: {word}", file.path))
        })
        .collect();
    assert_none("a registry's host or a machine's path", &found);
}
