//! What the documents say can be typed is understood by the program it is for, and what they name in the tree is there.
//!
//! Commands are taken from the Markdown files, the examples of every help text, the maintainer scripts, the units and the
//! messages of the programs, and parsed with each program's own definition: names, options and values.

mod api;
mod line;

use std::fs;
use std::path::Path;

use clap::Command;
use clap::error::ErrorKind;

use crate::laws::{assert_none, files, root};
use line::{Place, commands, in_backquotes, is_placeholder};

/// Programs of others that our documents call. Whatever else begins a line has to be one of ours.
const FOREIGN: &[&str] = &[
    "ansible-playbook",
    "apt",
    "apt-get",
    "cat",
    "chown",
    "cp",
    "curl",
    "install",
    "journalctl",
    "jq",
    "mkdir",
    "openssl",
    "printf",
    "sed",
    "systemctl",
    "tar",
];

/// Commands that the definitions rightly do not know: what the agent calls itself.
const INTERNAL: &[&str] = &["fleetward-agent look", "fleetward-agent perform", "fleetward-agent supervise"];

/// Files that the first release makes, and that are compared from then on.
const TO_COME: &[&str] = &["controller/openapi.released.json"];

/// The definition of the program that `words` begin with, and the words that it is given.
fn program(words: &[String]) -> Option<(Command, &[String])> {
    let first = words.first()?.rsplit('/').next()?;
    match (first, words.get(1).map(String::as_str)) {
        ("fleetward", _) => Some((fleetward_cli::definition(), words)),
        ("fleetward-agent", _) => Some((fleetward_agent::cli::definition(), words)),
        ("fleetward-controller", _) => Some((fleetward_controller::cli::definition(), words)),
        ("cargo", Some("xtask")) => Some((xtask::command::definition(), &words[1..])),
        _ => None,
    }
}

/// What is wrong with a command.
fn problem(words: &[String], place: Place) -> Option<String> {
    let Some((definition, given)) = program(words) else {
        let name = words.first().map_or("", String::as_str);
        let is_known = place != Place::Block || FOREIGN.contains(&name);
        return (!is_known).then(|| format!("`{name}` is neither ours nor on the list of others' programs"));
    };
    if INTERNAL.contains(&words.join(" ").as_str()) {
        return None;
    }
    // In a sentence, `fleetward host` or `fleetward op …` is a name for a command, not a line to type.
    if place == Place::Sentence && is_mention(&definition, &given[1..]) {
        return None;
    }
    let given: Vec<String> = line::with_values(given);
    match definition.try_get_matches_from(given) {
        Ok(_) => None,
        Err(error) if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) => None,
        Err(error) => Some(error.to_string().lines().next().unwrap_or_default().to_owned()),
    }
}

/// Whether `words` are the name of a command or of a group of them, perhaps with a placeholder for the rest.
fn is_mention(definition: &Command, words: &[String]) -> bool {
    let mut command = definition;
    let mut words = words.iter().peekable();
    while let Some(found) = words.peek().and_then(|word| command.find_subcommand(word.as_str())) {
        command = found;
        words.next();
    }
    match (words.next(), words.next()) {
        (None, _) => true,
        (Some(rest), None) => rest == "<command>" || is_placeholder(rest),
        _ => false,
    }
}

fn check(path: &str, text: &str, place: Place, found: &mut Vec<String>, count: &mut usize) {
    for words in commands(text) {
        *count += usize::from(program(&words).is_some());
        if let Some(problem) = problem(&words, place) {
            found.push(format!("{path}: `{}`: {problem}", words.join(" ")));
        }
    }
}

#[test]
fn every_command_in_the_documents_is_understood() {
    let (mut wrong, mut count) = (Vec::new(), 0);
    for file in files(&[".md"]) {
        let page = line::page(&file.text);
        for block in page.blocks {
            check(&file.path, &block, Place::Block, &mut wrong, &mut count);
        }
        for code in page.inline {
            check(&file.path, &code, Place::Sentence, &mut wrong, &mut count);
        }
    }
    assert!(count > 40, "only {count} commands were found: the test would hold by looking at nothing");
    assert_none("a command in the documents that its program does not understand", &wrong);
}

#[test]
fn every_example_of_a_help_text_is_understood() {
    fn walk(path: &str, command: &Command, wrong: &mut Vec<String>, count: &mut usize) {
        let help = [command.get_after_help(), command.get_after_long_help()];
        let text: Vec<String> = help.into_iter().flatten().map(ToString::to_string).collect();
        let lines = text.iter().flat_map(|text| text.lines().skip_while(|line| !line.starts_with("Example")));
        for line in lines.map(str::trim).filter(|line| line::has_program(line)) {
            check(&format!("{path} --help"), line, Place::Example, wrong, count);
        }
        for code in text.iter().flat_map(|text| in_backquotes(text)) {
            check(&format!("{path} --help"), &code, Place::Sentence, wrong, count);
        }
        for subcommand in command.get_subcommands() {
            walk(&format!("{path} {}", subcommand.get_name()), subcommand, wrong, count);
        }
    }
    let (mut wrong, mut count) = (Vec::new(), 0);
    walk("fleetward", &fleetward_cli::definition(), &mut wrong, &mut count);
    walk("fleetward-agent", &fleetward_agent::cli::definition(), &mut wrong, &mut count);
    walk("fleetward-controller", &fleetward_controller::cli::definition(), &mut wrong, &mut count);
    assert!(count > 60, "only {count} examples were found");
    assert_none("an example in a help text that its program does not understand", &wrong);
}

#[test]
fn every_command_that_a_program_script_or_unit_names_is_understood() {
    let (mut wrong, mut count) = (Vec::new(), 0);
    for file in files(&[".rs", ".tsx", ".ts", ".service", "postinst", ".ci/run"]) {
        if file.is_test() || file.path.contains(".test.") {
            continue;
        }
        for (_, line) in file.shipped_lines() {
            let typed = match line.trim() {
                line if line.starts_with("ExecStart=") => line.strip_prefix("ExecStart="),
                line if line.starts_with("timeout ") => line.split_once(" cargo ").map(|_| line),
                line if file.path.ends_with("postinst") => {
                    line.strip_prefix("echo \"  ").map(|line| line.trim_end_matches('"'))
                }
                _ => None,
            };
            if let Some(line) = typed {
                let line = line
                    .split_once("cargo xtask")
                    .map_or(line.to_owned(), |(_, rest)| format!("cargo xtask{rest}"));
                check(&file.path, &line, Place::Example, &mut wrong, &mut count);
            }
            for code in in_backquotes(line) {
                check(&file.path, &code, Place::Sentence, &mut wrong, &mut count);
            }
        }
    }
    assert!(count > 60, "only {count} commands were found");
    assert_none("a command that our programs name and that its program does not understand", &wrong);
}

/// A person has commands, and not kinds: what a host advises names them (docs/style.md).
#[test]
fn what_hosts_advise_are_commands_and_not_kinds() {
    let mut wrong = Vec::new();
    for file in files(&[".rs"]) {
        if file.is_test() || !file.path.starts_with("agent/src/") {
            continue;
        }
        for (number, line) in file.shipped_lines() {
            let is_told = !line.trim_start().starts_with("//");
            if is_told && (line.contains("with the kind `") || line.contains(" in the API")) {
                wrong.push(format!("{}:{number}", file.path));
            }
        }
    }
    assert_none("advice in the words of the API", &wrong);
}

#[test]
fn every_path_in_the_documents_is_in_the_tree() {
    let top: Vec<String> = fs::read_dir(root())
        .expect("the tree")
        .flatten()
        .filter(|entry| entry.path().is_dir() && entry.file_name() != "target")
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    let mut wrong = Vec::new();
    let mut count = 0;
    for file in files(&[".md"]).iter().filter(|file| file.path != "CHANGELOG.md") {
        let page = line::page(&file.text);
        let beside = Path::new(&file.path).parent().unwrap_or(Path::new(""));
        for link in page.links {
            count += 1;
            if !root().join(beside).join(&link).exists() {
                wrong.push(format!("{}: the link to {link}", file.path));
            }
        }
        for code in page.inline {
            let path = code.split(".rs::").next().unwrap_or_default();
            let path = if code.contains(".rs::") { format!("{path}.rs") } else { path.to_owned() };
            let is_ours = path.split_once('/').is_some_and(|(first, _)| top.iter().any(|name| name == first));
            let is_placeholder = path.contains(['<', '*', ' ', '…']) || path.contains("NNNN");
            if !is_ours || is_placeholder || TO_COME.contains(&path.as_str()) {
                continue;
            }
            count += 1;
            let whole = root().join(path.trim_end_matches('/'));
            if !whole.exists() && !whole.with_extension("rs").exists() {
                wrong.push(format!("{}: {path}", file.path));
            }
        }
    }
    assert!(count > 60, "only {count} paths were found");
    assert_none("the documents name what is not in the tree", &wrong);
}
