//! Which area of the controller may know which.

use super::{assert_none, files};

/// The areas, each of which may know those before it. They are folders of the layers' crates; what serves all of them
/// stands at its layer's top.
const AREAS: [&str; 3] = ["people", "fleet", "work"];

/// The crates that are sorted into areas.
const LAYERS: [&str; 5] =
    ["controller/domain", "controller/store", "controller/api", "controller/app", "controller/http"];

/// Whether code names a module of this area.
fn names(code: &str, area: &str) -> bool {
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    code.match_indices(&format!("{area}::")).any(|(at, _)| !code[..at].ends_with(is_word))
}

#[test]
fn an_area_knows_only_those_before_it() {
    let sources = files(&[".rs"]);
    let mut wrong = Vec::new();
    for layer in LAYERS {
        for (index, area) in AREAS.iter().enumerate() {
            let folder = format!("{layer}/src/{area}/");
            let mut of_area = sources.iter().filter(|file| file.path.starts_with(&folder)).peekable();
            assert!(of_area.peek().is_some(), "{folder} is empty: the law would hold by looking at nothing");
            for file in of_area.filter(|file| !file.is_test()) {
                for (number, line) in file.shipped_lines() {
                    let code = line.split("//").next().unwrap_or_default();
                    if AREAS[index + 1..].iter().any(|later| names(code, later)) {
                        wrong.push(format!("{}:{number}: {}", file.path, line.trim()));
                    }
                }
            }
        }
    }
    assert_none("an area knows one that comes after it (people, fleet, work)", &wrong);
}

#[test]
fn an_area_is_found_however_it_is_written() {
    assert!(names("use crate::work::run;", "work") && names("use crate::{error, work::run};", "work"));
    assert!(!names("let network = network::of(run);", "work") && !names("use crate::people::user;", "work"));
}
