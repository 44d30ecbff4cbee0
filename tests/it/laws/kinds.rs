//! Whoever carries, stores or shows work knows no kind of it.

use std::fs;

use fleetward_protocol::action::{self, KINDS};
use fleetward_protocol::query::{self, QUERY_KINDS};

use super::{SourceFile, assert_none, files, root};

/// What deals with kinds without knowing one.
const GENERIC: [&str; 6] = [
    "controller/app/",
    "controller/store/",
    "controller/link/",
    "controller/http/",
    "controller/src/",
    "cli/",
];

/// A kind's own place, a command of its own name, and what offers scripts by their own name: `scripts` in a request is short for
/// steps.
const ALLOWED: [&str; 9] = [
    "cli/src/file",
    "cli/src/package.rs",
    "cli/src/reboot.rs",
    "cli/src/site",
    "cli/src/unit",
    "controller/app/src/work/action/",
    "controller/app/src/testing",
    "controller/http/src/work/rollout.rs",
    "controller/http/src/work/target.rs",
];

/// What offers scripts by their own name in the console, and what its pages of a host ask by name.
const NAMED_PAGES: [&str; 4] = [
    "controller/console/src/host/asked.ts",
    "controller/console/src/pages/script.tsx",
    "controller/console/src/pages/scripts.tsx",
    "controller/console/src/run/run_dialog.tsx",
];

/// Whether a line of Rust names a kind: its module in the protocol, or its name as a kind.
fn names(line: &str, kind: &str) -> bool {
    let code = line.split("//").next().unwrap_or_default();
    let module = kind.replace('-', "_");
    let in_path = |path: &str| {
        code.match_indices(path).any(|(at, _)| {
            let rest = &code[at + path.len()..];
            !rest.starts_with(|c: char| c.is_alphanumeric() || c == '_')
        })
    };
    ["action", "query"].iter().any(|family| in_path(&format!("{family}::{module}")))
        || names_in_text(code, kind)
}

/// Whether a line compares or sets a kind by its name.
fn names_in_text(code: &str, kind: &str) -> bool {
    let quoted = ['"', '\'', '`'].iter().any(|quote| code.contains(&format!("{quote}{kind}{quote}")));
    quoted && code.to_lowercase().contains("kind")
}

fn strays(endings: &[&str], within: &[&str], allowed: &[&str], names: fn(&str, &str) -> bool) -> Vec<String> {
    let subject = |file: &&SourceFile| {
        within.iter().any(|prefix| file.path.starts_with(prefix))
            && !file.is_test()
            && !file.path.contains(".test.")
            && !file.path.ends_with("/generated.ts")
            && !allowed.iter().any(|prefix| file.path.starts_with(prefix))
    };
    let mut found = Vec::new();
    for file in files(endings).iter().filter(subject) {
        for (number, line) in file.shipped_lines() {
            if KINDS.iter().chain(QUERY_KINDS).any(|kind| names(line, kind)) {
                found.push(format!("{}:{number}: {}", file.path, line.trim()));
            }
        }
    }
    found
}

#[test]
fn nobody_but_its_own_place_names_a_kind() {
    assert_none(
        "a kind is named where all are dealt with alike",
        &strays(&[".rs"], &GENERIC, &ALLOWED, names),
    );
    let console = strays(&[".ts", ".tsx"], &["controller/console/src/"], &NAMED_PAGES, names_in_text);
    assert_none("the console makes what it shows of a kind from its schema", &console);
}

#[test]
fn a_kind_is_found_however_it_is_written() {
    assert!(names("use fleetward_protocol::action::unit::Unit;", "unit"));
    assert!(names("use fleetward_protocol::query::units::Units;", "units"));
    assert!(names("    if step.kind == \"unit\" {", "unit") && names("kind: \"script\".into(),", "script"));
    assert!(names_in_text("const isUnit = run.kind === 'unit';", "unit"));
    assert!(!names("use fleetward_protocol::action::unity;", "unit") && !names("\"unit\" => 3,", "unit"));
}

/// An owner who makes a list finds every kind there, with what it does.
#[test]
fn the_kinds_in_the_packaged_settings_are_generated() {
    const FIRST: &str = "# Kinds of action, which change this host:\n";
    const LIST: &str = "#kinds = [";
    let path = root().join("packaging/agent/agent.toml");
    let packaged = fs::read_to_string(&path).expect("read the packaged settings");
    let begin = packaged.find(FIRST).expect("the kinds begin");
    let end = begin + packaged[begin..].find(LIST).expect("the list of kinds");
    let end = end + packaged[end..].find('\n').expect("the end of the list") + 1;

    let line = |name: &str, summary: &str| format!("#   {name}: {summary}\n");
    let actions: String = action::catalogue().iter().map(|kind| line(kind.name, kind.summary)).collect();
    let queries: String = query::catalogue().iter().map(|kind| line(kind.name, kind.summary)).collect();
    let names: Vec<String> = KINDS.iter().chain(QUERY_KINDS).map(|kind| format!("\"{kind}\"")).collect();
    let made = format!(
        "{FIRST}{actions}# Kinds of query, which look at it:\n{queries}{LIST}{}]\n",
        names.join(", ")
    );
    let made = [&packaged[..begin], &made, &packaged[end..]].concat();
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        fs::write(&path, &made).expect("write the settings");
    }
    let held = fs::read_to_string(&path).expect("read the packaged settings");
    assert!(held == made, "packaging/agent/agent.toml is stale: `cargo xtask bless`");
}
