//! Debian's changelog (Debian Policy, 4.4) from `CHANGELOG.md`.
//!
//! What is read: `## Unreleased` or `## 1.2.3 - 2026-12-01`, and below it a list with `- `, each point going on in
//! lines that are indented by two spaces. What stands before the first heading is for readers of the file alone.

use anyhow::{Context as _, Result, bail, ensure};
use jiff::Timestamp;
use jiff::civil::Date;

/// Columns of a line, at most: what lintian asks for.
const WIDTH: usize = 80;

/// The changes of one version.
#[derive(Debug, PartialEq, Eq)]
struct Release {
    /// The version with its day; none while it is not released.
    released: Option<(String, Date)>,
    changes: Vec<String>,
}

/// For whom a changelog is written.
#[derive(Debug, Clone, Copy)]
pub(super) struct Package<'a> {
    /// Its name.
    pub(super) name: &'a str,
    /// The version of the crate, such as `0.1.0`.
    pub(super) version: &'a str,
    /// What follows the version in the package's.
    pub(super) revision: &'a str,
    /// `Name <address>`.
    pub(super) maintainer: &'a str,
}

/// The changelog of a package, from the text of `CHANGELOG.md`. What is not released yet becomes the package's version,
/// made at `now`; what is released has its day.
///
/// # Errors
/// When the text cannot be read, or its newest version is not the package's.
pub(super) fn debian(text: &str, package: Package<'_>, now: Timestamp) -> Result<String> {
    let mut releases = parse(text)?;
    releases.retain(|release| release.released.is_some() || !release.changes.is_empty());
    let version = package.version;
    let released = |release: &Release| release.released.as_ref().map(|(version, _)| version.clone());
    match releases.first().map(released) {
        Some(None) => ensure!(
            !releases.iter().filter_map(released).any(|released| released == version),
            "CHANGELOG.md has changes after {version}, which is released: raise `version` in Cargo.toml"
        ),
        Some(Some(newest)) => ensure!(
            newest == version,
            "the newest version in CHANGELOG.md is {newest}, but Cargo.toml has {version}"
        ),
        None => bail!("CHANGELOG.md tells of no version"),
    }
    let mut whole = String::new();
    for release in &releases {
        let (version, made) = match &release.released {
            Some((version, day)) => {
                (version.as_str(), day.strftime("%a, %d %b %Y 00:00:00 +0000").to_string())
            }
            None => (version, now.strftime("%a, %d %b %Y %H:%M:%S +0000").to_string()),
        };
        let Package { name, revision, maintainer, .. } = package;
        whole.push_str(&format!("{name} ({version}-{revision}) unstable; urgency=medium\n\n"));
        for change in &release.changes {
            whole.push_str(&point(change));
        }
        whole.push_str(&format!("\n -- {maintainer}  {made}\n\n"));
    }
    Ok(whole.trim_end().to_owned() + "\n")
}

fn parse(text: &str) -> Result<Vec<Release>> {
    let mut releases: Vec<Release> = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let place = || format!("CHANGELOG.md, line {}", index + 1);
        if let Some(heading) = line.strip_prefix("## ") {
            let released = parse_heading(heading.trim()).with_context(place)?;
            releases.push(Release { released, changes: Vec::new() });
            continue;
        }
        let Some(release) = releases.last_mut() else { continue };
        let point = line.strip_prefix("- ").map(str::trim);
        let further = line.strip_prefix("  ").map(str::trim).filter(|words| !words.is_empty());
        match (point, further, release.changes.last_mut()) {
            (Some(words), _, _) if !words.is_empty() => release.changes.push(plain(words)),
            (_, Some(words), Some(change)) => *change = format!("{change} {}", plain(words)),
            _ if line.trim().is_empty() => {}
            _ => bail!("{}: neither a point (`- …`) nor the rest of one (indented by two spaces)", place()),
        }
    }
    Ok(releases)
}

fn parse_heading(heading: &str) -> Result<Option<(String, Date)>> {
    if heading == "Unreleased" {
        return Ok(None);
    }
    let (version, day) = heading
        .split_once(" - ")
        .with_context(|| format!("`{heading}` is neither `Unreleased` nor `1.2.3 - 2026-12-01`"))?;
    let parts: Vec<&str> = version.split('.').collect();
    let is_number =
        |part: &&str| !part.is_empty() && part.len() < 10 && part.bytes().all(|byte| byte.is_ascii_digit());
    ensure!(parts.len() == 3 && parts.iter().all(is_number), "`{version}` is not a version such as 1.2.3");
    let day: Date = day.parse().with_context(|| format!("`{day}` is not a day such as 2026-12-01"))?;
    Ok(Some((version.to_owned(), day)))
}

/// Without the addresses of links: `[text](address)` becomes `text`.
fn plain(words: &str) -> String {
    let mut whole = String::with_capacity(words.len());
    let mut rest = words;
    while let Some((before, after)) = rest.split_once('[') {
        whole.push_str(before);
        let link = after.split_once("](").and_then(|(text, address)| {
            let (_, after) = address.split_once(')')?;
            (!text.contains(['[', ']'])).then_some((text, after))
        });
        match link {
            Some((text, after)) => {
                whole.push_str(text);
                rest = after;
            }
            None => {
                whole.push('[');
                rest = after;
            }
        }
    }
    whole.push_str(rest);
    whole
}

/// A point of the list, in lines of [`WIDTH`] columns where its words allow it.
fn point(change: &str) -> String {
    let mut whole = String::new();
    let mut line = "  *".to_owned();
    for word in change.split_whitespace() {
        if line.chars().count() + 1 + word.chars().count() > WIDTH
            && line.trim() != "*"
            && !line.trim().is_empty()
        {
            whole.extend([line.as_str(), "\n"]);
            line = "   ".to_owned();
        }
        line.extend([" ", word]);
    }
    whole + &line + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::{prop_assert, prop_assert_eq, proptest};

    const NOW: i64 = 1_795_824_000;

    fn of(text: &str, version: &str) -> Result<String> {
        let maintainer = "Fleetward maintainers <maintainers@example.com>";
        let package = Package { name: "fleetward", version, revision: "1", maintainer };
        debian(text, package, Timestamp::from_second(NOW).unwrap())
    }

    #[test]
    fn what_is_not_released_is_the_packages_version() {
        let text = "# Changelog\n\nAll of it.\n\n## Unreleased\n\n- One `thing`,\n  and [more](https://example.com/a).\n\n\
                    ## 0.1.0 - 2026-11-02\n- First.\n";
        let expected = "fleetward (0.2.0-1) unstable; urgency=medium\n\n  * One `thing`, and more.\n\n \
                        -- Fleetward maintainers <maintainers@example.com>  Sat, 28 Nov 2026 00:00:00 +0000\n\n\
                        fleetward (0.1.0-1) unstable; urgency=medium\n\n  * First.\n\n \
                        -- Fleetward maintainers <maintainers@example.com>  Mon, 02 Nov 2026 00:00:00 +0000\n";
        assert_eq!(of(text, "0.2.0").unwrap(), expected);
    }

    #[test]
    fn a_release_has_its_own_day() {
        let text = "## Unreleased\n\n## 0.1.0 - 2026-11-02\n\n- First.\n";
        let changelog = of(text, "0.1.0").unwrap();
        assert!(changelog.starts_with("fleetward (0.1.0-1) "), "{changelog}");
        assert!(changelog.contains("  Mon, 02 Nov 2026 00:00:00 +0000\n"), "{changelog}");
    }

    #[test]
    fn what_does_not_fit_the_package_is_refused() {
        let error = |text: &str, version: &str| format!("{:#}", of(text, version).unwrap_err());
        let released = "## 0.1.0 - 2026-11-02\n- First.\n";
        assert!(error(released, "0.2.0").contains("newest version in CHANGELOG.md is 0.1.0"));
        let more = format!("## Unreleased\n- More.\n{released}");
        assert!(error(&more, "0.1.0").contains("raise `version` in Cargo.toml"));
        assert!(error("nothing", "0.1.0").contains("no version"));
        assert!(error("## Unreleased\n\nWords.", "0.1.0").contains("line 3"));
        assert!(error("## Unreleased\n  Words.", "0.1.0").contains("line 2"));
        assert!(error("## 0.1 - 2026-11-02", "0.1.0").contains("`0.1` is not a version"));
        assert!(error("## 0.1.0 - 2026-13-02", "0.1.0").contains("`2026-13-02` is not a day"));
        assert!(error("## 0.1.0", "0.1.0").contains("neither `Unreleased` nor"));
    }

    #[test]
    fn our_own_changelog_is_one_of_debians() {
        let root = crate::workspace::root();
        let text = std::fs::read_to_string(root.join("CHANGELOG.md")).unwrap();
        let changelog = of(&text, env!("CARGO_PKG_VERSION")).unwrap();
        let long = changelog.lines().filter(|line| line.chars().count() > WIDTH && !line.starts_with(" -- "));
        assert_eq!(long.collect::<Vec<_>>(), Vec::<&str>::new());
        if !crate::process::is_installed("dpkg-parsechangelog") {
            return;
        }
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("changelog");
        std::fs::write(&file, &changelog).unwrap();
        let mut command = std::process::Command::new("dpkg-parsechangelog");
        command.arg("--file").arg(&file).arg("--all");
        let read = crate::process::run(&mut command, std::time::Duration::from_secs(60)).unwrap();
        assert!(read.status.success() && read.error_text().is_empty(), "{}", read.error_text());
        let version = concat!("Version: ", env!("CARGO_PKG_VERSION"), "-1");
        assert!(read.text().lines().any(|line| line == version), "{}", read.text());
    }

    proptest! {
        #[test]
        fn no_word_is_lost_and_no_line_too_long(words in proptest::collection::vec("[!-Z\\\\^-~ä…]{1,70}", 1..40)) {
            let text = point(&words.join(" "));
            prop_assert!(text.lines().all(|line| line.chars().count() <= WIDTH && line.starts_with("  ")), "{}", text);
            let read = text.strip_prefix("  * ").unwrap().split_whitespace().collect::<Vec<_>>();
            prop_assert_eq!(read, words);
        }

        #[test]
        fn nothing_that_is_read_is_a_reason_to_panic(text in "(## |- |  |\\[|\\]\\(|\\)|Unreleased|1\\.2\\.3|2026-12-01|ä|\n){0,40}") {
            let _ = of(&text, "1.2.3");
        }
    }
}
