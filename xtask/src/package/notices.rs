//! Whose work is in a package: the crates that a program is linked from, their licences and their notices.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};

use super::{INSPECT, Part, cargo};
use crate::process;

/// A crate of others that a program is linked from.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Crate {
    /// Its name and version.
    name: String,
    /// Its licence, as SPDX writes it.
    licence: String,
    /// Where its source is.
    source: PathBuf,
}

/// The crates that a package's program is linked from, other than ours.
pub(super) fn crates(part: &Part) -> Result<Vec<Crate>> {
    let mut tree = cargo("tree");
    tree.args([
        "--edges",
        "normal",
        "--target",
        "x86_64-unknown-linux-gnu",
        "--prefix",
        "none",
        "--no-dedupe",
    ]);
    tree.args(["--format", "{p}\t{l}", "--package", part.krate]);
    let listed = process::succeed(&mut tree, INSPECT)?;
    let sources = sources()?;
    let mut found = Vec::new();
    for line in listed.lines().filter(|line| !line.trim().is_empty()) {
        let (package, licence) =
            line.split_once('\t').with_context(|| format!("cargo tree said `{line}`"))?;
        let name: Vec<&str> = package.split(' ').take(2).collect();
        let name = name.join(" ");
        // Those of this tree have no registry, and stand under `Files: *`.
        let Some(source) = sources.get(&name) else { continue };
        ensure!(!licence.is_empty(), "crate {name} states no licence");
        found.push(Crate { name, licence: licence.to_owned(), source: source.clone() });
    }
    found.sort();
    found.dedup();
    ensure!(!found.is_empty(), "{} is linked from nothing", part.binary);
    Ok(found)
}

/// Where the source of each crate of a registry is.
fn sources() -> Result<BTreeMap<String, PathBuf>> {
    let metadata = process::succeed(cargo("metadata").arg("--format-version=1"), INSPECT)?;
    let metadata: serde_json::Value = serde_json::from_str(&metadata)?;
    let packages = metadata["packages"].as_array().context("cargo names no packages")?;
    let of_registry = packages.iter().filter(|package| !package["source"].is_null());
    let place = |package: &serde_json::Value| {
        let text = |field: &str| package[field].as_str().unwrap_or_default().to_owned();
        let directory = Path::new(&text("manifest_path")).parent().unwrap_or(Path::new("")).to_owned();
        (format!("{} v{}", text("name"), text("version")), directory)
    };
    Ok(of_registry.map(place).collect())
}

/// The copyright file of a package: ours, with a comment in its head on what else the program is linked from.
pub(super) fn copyright(ours: &str, package: &str, crates: &[Crate]) -> String {
    let (head, rest) = ours.split_once("\n\n").unwrap_or((ours, ""));
    let mut whole = format!(
        "{head}\nComment:\n The program is linked statically from the Rust crates below, each under the licence that is\n \
         named beside it. Their notices are in /usr/share/doc/{package}/third-party.gz.\n .\n"
    );
    for Crate { name, licence, .. } in crates {
        whole.push_str(&format!("  {name}: {licence}\n"));
    }
    whole + "\n" + rest
}

/// The licences and notices that come with the crates' sources, each text once, with the crates that it is of.
pub(super) fn notices(crates: &[Crate]) -> Result<String> {
    let mut texts: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for Crate { name, licence, source } in crates {
        let mut found = false;
        for file in notice_files(source)? {
            let bytes = fs::read(&file).with_context(|| format!("read {}", file.display()))?;
            let text = String::from_utf8_lossy(&bytes).trim().replace("\r\n", "\n");
            texts.entry(text).or_default().push(name.clone());
            found = true;
        }
        if !found {
            texts
                .entry(format!("No text came with it; it states: {licence}"))
                .or_default()
                .push(name.clone());
        }
    }
    let mut pieces: Vec<(Vec<String>, String)> =
        texts.into_iter().map(|(text, names)| (names, text)).collect();
    pieces.sort();
    let line = "=".repeat(80);
    let pieces = pieces.into_iter().map(|(mut names, text)| {
        names.dedup();
        format!("{line}\n{}\n{line}\n\n{text}\n\n", names.join(", "))
    });
    Ok(pieces.collect())
}

/// The files of a source that say under what terms it is given, and those of what it brings in directories of its own,
/// as libgit2 and libssh2 are.
fn notice_files(source: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for path in entries(source)? {
        if path.is_dir() {
            found.extend(entries(&path)?.into_iter().filter(|path| path.is_file() && is_notice(path)));
        } else if is_notice(&path) {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

fn entries(directory: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(directory).with_context(|| format!("read {}", directory.display()))?;
    entries.map(|entry| Ok(entry?.path())).collect()
}

fn is_notice(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
    let is_code = [".rs", ".c", ".h", ".js", ".py", ".toml"].iter().any(|ending| name.ends_with(ending));
    !is_code
        && ["licence", "license", "copying", "copyright", "notice", "unlicense"]
            .iter()
            .any(|word| name.starts_with(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_notice_of_a_source_is_kept_once() {
        let directory = tempfile::tempdir().unwrap();
        let krate = |name: &str, files: &[(&str, &str)]| {
            let source = directory.path().join(name);
            for (path, text) in files {
                let path = source.join(path);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, text).unwrap();
            }
            fs::create_dir_all(&source).unwrap();
            Crate { name: format!("{name} v1"), licence: "MIT".into(), source }
        };
        let crates = [
            krate("a", &[("LICENSE-MIT", "Same\r\ntext"), ("src/license.rs", "code")]),
            krate("b", &[("LICENSE", "Same\ntext\n"), ("inner/COPYING", "Inner")]),
            krate("c", &[]),
        ];
        let notices = notices(&crates).unwrap();
        assert_eq!(notices.matches("Same\ntext").count(), 1, "{notices}");
        assert!(notices.contains("\na v1, b v1\n") && notices.contains("Inner"), "{notices}");
        assert!(notices.contains("\nc v1\n") && notices.contains("it states: MIT"), "{notices}");
        assert!(!notices.contains("code"), "{notices}");

        let ours = "Format: x\nSource: y\n\nFiles: *\nCopyright: 2026 A\n";
        let copyright = copyright(ours, "p", &crates);
        assert!(
            copyright.contains("Source: y\nComment:\n")
                && copyright.ends_with("\n\nFiles: *\nCopyright: 2026 A\n")
        );
        assert!(copyright.contains("\n  a v1: MIT\n"), "{copyright}");
    }
}
