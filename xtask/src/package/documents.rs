//! What a package holds beside its program: changelog, copyright, licences of others, manual pages, completions.
//!
//! All of it is written beside the programs, in the directories `document` and `manual`, where the packages' lists of
//! files look.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use jiff::Timestamp;

use super::{INSPECT, Part, changelog, metadata, notices};
use crate::{process, workspace};

/// What follows the version in a package's: cargo-deb's default.
const REVISION: &str = "1";

/// When what is packed was made: `SOURCE_DATE_EPOCH` (reproducible-builds.org), else the last commit. The same source
/// makes the same packages.
pub(super) fn made() -> Result<Timestamp> {
    let text = match std::env::var("SOURCE_DATE_EPOCH") {
        Ok(seconds) => seconds,
        Err(_) => {
            let mut log = Command::new("git");
            log.args(["log", "-1", "--format=%ct"]).current_dir(workspace::root());
            process::succeed(&mut log, INSPECT)
                .context("ask git for the day of this source; outside a clone, set SOURCE_DATE_EPOCH")?
        }
    };
    let seconds = text.trim().parse().with_context(|| format!("`{text}` is not a number of seconds"))?;
    Timestamp::from_second(seconds).with_context(|| format!("`{text}` is not a time"))
}

/// Writes a package's changelog, its copyright file and the notices of others, beside its program.
pub(super) fn write(part: &Part, program: &Path, now: Timestamp) -> Result<()> {
    let into = program.with_file_name("document");
    fs::create_dir_all(&into).with_context(|| format!("make {}", into.display()))?;
    let beside = |name: &str| into.join(format!("{}.{name}", part.package));

    let manifest = metadata(part)?;
    let field = |value: &serde_json::Value, name: &str| -> Result<String> {
        let text = value.as_str().with_context(|| format!("crate {} states no {name}", part.krate))?;
        Ok(text.to_owned())
    };
    let (version, maintainer) = (
        field(&manifest["version"], "version")?,
        field(&manifest["metadata"]["deb"]["maintainer"], "maintainer")?,
    );
    let package = changelog::Package {
        name: part.package,
        version: &version,
        revision: REVISION,
        maintainer: &maintainer,
    };
    let changes = fs::read_to_string(workspace::root().join("CHANGELOG.md")).context("read CHANGELOG.md")?;
    compress(changelog::debian(&changes, package, now)?.as_bytes(), &beside("changelog.Debian.gz"))?;

    let crates = notices::crates(part)?;
    let copyright = workspace::root().join("packaging/copyright");
    let copyright =
        fs::read_to_string(&copyright).with_context(|| format!("read {}", copyright.display()))?;
    fs::write(beside("copyright"), notices::copyright(&copyright, part.package, &crates))?;
    compress(notices::notices(&crates)?.as_bytes(), &beside("third-party.gz"))
}

/// Has the manual pages written, beside the program that writes them, and copies those of a package beside its own.
pub(super) fn write_manual(writer: &Path, programs: &[PathBuf], now: Timestamp) -> Result<()> {
    let pages = writer.with_file_name("manual-text");
    let mut command = Command::new(writer);
    command.arg("--date").arg(now.strftime("%Y-%m-%d").to_string()).arg(&pages);
    process::succeed(&mut command, INSPECT)?;
    for program in programs {
        let name = program.file_name().unwrap_or_default().to_string_lossy();
        let into = program.with_file_name("manual").join(name.as_ref());
        if into.exists() {
            fs::remove_dir_all(&into).with_context(|| format!("empty {}", into.display()))?;
        }
        fs::create_dir_all(&into).with_context(|| format!("make {}", into.display()))?;
        let mut count = 0;
        for entry in fs::read_dir(&pages)? {
            let page = entry?.path();
            let file = page.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if owner(&file) == name {
                compress(&fs::read(&page)?, &into.join(file + ".gz"))?;
                count += 1;
            }
        }
        ensure!(count > 0, "there is no manual page of {name}");
    }
    Ok(())
}

/// The program that a page is of: `fleetward-agent` has `fleetward-agent-enrol.8`, and `fleetward` all the others.
fn owner(page: &str) -> &str {
    let of = |name: &str| page.strip_prefix(name).is_some_and(|rest| rest.starts_with(['.', '-']));
    ["fleetward-agent", "fleetward-controller"].into_iter().find(|name| of(name)).unwrap_or("fleetward")
}

/// As Debian's policy (12.1, 12.7) wants documents: as small as gzip makes them, without name and time.
fn compress(text: &[u8], into: &Path) -> Result<()> {
    let mut plain = tempfile::NamedTempFile::new()?;
    plain.write_all(text)?;
    let file = fs::File::create(into).with_context(|| format!("write {}", into.display()))?;
    let mut gzip = Command::new("gzip");
    gzip.args(["-9n", "--stdout"]).arg(plain.path()).stdout(file);
    let status = gzip.status().context("start gzip")?;
    ensure!(status.success(), "gzip could not write {}", into.display());
    Ok(())
}

/// Asks the program for its completions, and puts them beside it.
pub(super) fn write_completions(program: &Path) -> Result<()> {
    let into = program.with_file_name("completion");
    fs::create_dir_all(&into)?;
    for shell in ["bash", "zsh", "fish"] {
        let script = process::succeed(Command::new(program).args(["completion", shell]), INSPECT)?;
        fs::write(into.join(shell), script + "\n")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_belongs_to_one_package() {
        assert_eq!(owner("fleetward.1"), "fleetward");
        assert_eq!(owner("fleetward-host-add.1"), "fleetward");
        assert_eq!(owner("fleetward-agent.8"), "fleetward-agent");
        assert_eq!(owner("fleetward-agent-enrol.8"), "fleetward-agent");
        assert_eq!(owner("fleetward-controller-user-add.8"), "fleetward-controller");
        assert_eq!(owner("fleetward-agents.1"), "fleetward");
    }
}
