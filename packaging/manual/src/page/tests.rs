use std::collections::BTreeSet;
use std::fs;
use std::process::Command as Process;

use super::*;
use crate::program;

fn everything() -> Vec<Page> {
    program::all().iter().flat_map(|program| pages(program, "2026-11-28").unwrap()).collect()
}

fn headings(page: &Page) -> Vec<&str> {
    page.text
        .lines()
        .filter_map(|line| line.strip_prefix(".SH "))
        .map(|heading| heading.trim_matches('"'))
        .collect()
}

fn page<'a>(pages: &'a [Page], file: &str) -> &'a Page {
    pages.iter().find(|page| page.file == file).unwrap_or_else(|| panic!("no page {file}"))
}

#[test]
fn every_program_and_command_has_a_page() {
    let pages = everything();
    let files: BTreeSet<&str> = pages.iter().map(|page| page.file.as_str()).collect();
    assert_eq!(files.len(), pages.len(), "two pages of one name");
    for file in
        ["fleetward.1", "fleetward-host-add.1", "fleetward-agent-enrol.8", "fleetward-controller-user-add.8"]
    {
        assert!(files.contains(file), "{file} is not among {files:?}");
    }
    assert!(!files.iter().any(|file| file.contains("-help.") || file.contains("supervise")), "{files:?}");
}

#[test]
fn a_page_has_its_sections_once_and_in_order() {
    for page in everything() {
        let headings = headings(&page);
        assert!(headings.starts_with(&["NAME", "SYNOPSIS", "DESCRIPTION"]), "{}: {headings:?}", page.file);
        assert!(headings.contains(&"OPTIONS"), "{}: {headings:?}", page.file);
        assert_eq!(headings.last(), Some(&"SEE ALSO"), "{}", page.file);
        let once: BTreeSet<&&str> = headings.iter().collect();
        assert_eq!(once.len(), headings.len(), "{}: {headings:?}", page.file);
    }
    let pages = everything();
    let whole = [
        "NAME",
        "SYNOPSIS",
        "DESCRIPTION",
        "COMMANDS",
        "OPTIONS",
        "GLOBAL OPTIONS",
        "EXIT STATUS",
        "ENVIRONMENT",
        "EXAMPLES",
        "FILES",
        "SEE ALSO",
    ];
    assert_eq!(headings(page(&pages, "fleetward.1")), whole);
    for file in ["fleetward-agent.8", "fleetward-controller.8"] {
        let headings = headings(page(&pages, file));
        assert!(
            ["ENVIRONMENT", "EXAMPLES", "FILES"].iter().all(|name| headings.contains(name)),
            "{headings:?}"
        );
    }
}

/// Options that all commands take stand on the first page, and the others point there.
#[test]
fn what_holds_for_all_commands_is_told_once() {
    let pages = everything();
    let first = &page(&pages, "fleetward.1").text;
    assert!(first.contains(r"\-\-fingerprint"), "{first}");
    let below = &page(&pages, "fleetward-host-add.1").text;
    assert!(
        !below.contains(r"\-\-fingerprint") && below.contains("described in \\fBfleetward\\fR(1)"),
        "{below}"
    );
    assert!(below.contains(r"\fBfleetward host add\fR [OPTIONS] \-\-type <TYPE> <NAME>"), "{below}");
}

#[test]
fn no_markdown_is_left() {
    for page in everything() {
        let mut is_verbatim = false;
        for line in page.text.lines() {
            is_verbatim = (is_verbatim || line == ".nf") && line != ".fi";
            assert!(is_verbatim || !(line.contains('`') || line.contains("](")), "{}: {line}", page.file);
        }
    }
}

/// Each configuration file of a package is in the list of its page.
#[test]
fn every_configuration_file_is_named() {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");
    for (krate, program) in [("agent", "fleetward-agent"), ("controller", "fleetward-controller")] {
        let manifest = fs::read_to_string(format!("{root}/{krate}/Cargo.toml")).unwrap();
        let listed = manifest.lines().find_map(|line| line.strip_prefix("conf-files = [")).unwrap();
        let pages = everything();
        for path in listed.split('"').filter(|part| part.starts_with('/')) {
            let text = &page(&pages, &format!("{program}.8")).text;
            assert!(text.contains(&format!("\\fB{path}\\fR")), "{program}.8 does not name {path}");
        }
    }
}

/// `man` renders every page without a warning. Left out where there is no `man`, unless nothing may be.
#[test]
fn man_has_nothing_to_say_against_a_page() {
    let has = |program: &str| {
        Process::new(program).arg("--version").output().is_ok_and(|output| output.status.success())
    };
    if !has("man") || !has("groff") {
        let all = std::env::var("FLEETWARD_TEST_ALL").is_ok_and(|all| all == "1");
        assert!(!all, "man or groff is missing: apt-get install man-db groff");
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    for page in everything() {
        let file = directory.path().join(&page.file);
        fs::write(&file, &page.text).unwrap();
        // As lintian does it.
        let mut man = Process::new("man");
        man.args(["--warnings", "-E", "UTF-8", "-l", "-Tutf8"]).arg(&file);
        man.env("LC_ALL", "C.UTF-8").env("MANWIDTH", "80").env("MANROFFSEQ", "").env("PAGER", "cat");
        let rendered = man.output().unwrap();
        let said = String::from_utf8_lossy(&rendered.stderr);
        assert!(rendered.status.success() && said.is_empty(), "{}: {said}", page.file);
        let text = String::from_utf8_lossy(&rendered.stdout);
        // Headings are struck over for a terminal; the footer is plain.
        assert!(text.contains(concat!("Fleetward ", env!("CARGO_PKG_VERSION"))), "{}: {text}", page.file);
    }
}

/// What a file holds is not a paragraph: in YAML its lines are what they mean.
#[test]
fn what_is_shown_line_by_line_stays_so() {
    let pages = everything();
    let text = &page(&pages, "fleetward-site-apply.1").text;
    let (_, below) = text.split_once("\n.nf\nname: shop\n").unwrap_or_else(|| panic!("{text}"));
    let (example, _) = below.split_once("\n.fi\n").unwrap();
    assert!(example.contains("\nlocations:\n  \\- path: /\n    proxy: "), "{example}");
}
