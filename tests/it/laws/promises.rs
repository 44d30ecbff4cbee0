//! `docs/promises.md` names tests that exist, for every promise.

use std::collections::{BTreeMap, BTreeSet};

use super::{assert_none, files};

const PAGE: &str = "docs/promises.md";

/// Tests of a row: the words between backquotes that name a file and a function in it.
fn tests(text: &str) -> impl Iterator<Item = (&str, &str)> {
    text.split('`').filter_map(|word| word.split_once(".rs::"))
}

/// The number of the property that a test's name begins with, and further ones: `p13_p14_…` has two.
fn properties(name: &str) -> impl Iterator<Item = u32> {
    let numbers = name.split('_').map(|word| word.strip_prefix('p').and_then(|number| number.parse().ok()));
    numbers.take_while(Option::is_some).flatten()
}

#[test]
fn every_promise_names_tests_that_exist() {
    let pages = files(&[PAGE]);
    let page = &pages[0].text;
    let sources = files(&[".rs"]);
    let sources: BTreeMap<&str, &str> =
        sources.iter().map(|file| (file.path.as_str(), file.text.as_str())).collect();
    let mut wrong = Vec::new();

    let named: BTreeSet<(&str, &str)> = tests(page).collect();
    for (path, name) in &named {
        let is_there = sources
            .get(format!("{path}.rs").as_str())
            .is_some_and(|text| text.contains(&format!("fn {name}(")));
        if !is_there {
            wrong.push(format!("{path}.rs has no test `{name}`"));
        }
    }

    let numbers = (1..=36).filter(|number| !(21..=24).contains(number)).map(|number| format!("P{number}"));
    for number in numbers.chain((1..=10).map(|number: u32| number.to_string())) {
        let rows: Vec<&str> =
            page.lines().filter(|line| line.starts_with(&format!("| {number} | "))).collect();
        if rows.len() != 1 || rows.iter().any(|row| tests(row).next().is_none()) {
            wrong.push(format!("`{number}` is not one row with at least one test"));
        }
    }

    for (path, text) in &sources {
        let functions =
            text.split("fn ").skip(1).filter_map(|rest| rest.split_once('(')).map(|(name, _)| name);
        for name in functions.filter(|name| properties(name).next().is_some() && name.contains("_")) {
            let path = path.trim_end_matches(".rs");
            let is_listed = properties(name).all(|number| {
                let mut rows = page.lines().filter(|line| line.starts_with(&format!("| P{number} | ")));
                rows.any(|row| tests(row).any(|test| test == (path, name)))
            });
            if !is_listed {
                wrong.push(format!("{path}.rs::{name} is not listed under its number"));
            }
        }
    }
    assert_none("docs/promises.md and the tests disagree", &wrong);
}
