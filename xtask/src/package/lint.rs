//! What Debian's own checker says of a package.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Result, ensure};

use crate::process;

const LIMIT: Duration = Duration::from_secs(300);

/// Has `lintian` look at a package. What is deliberate is named, with its reason, in the package's `lintian-overrides`.
///
/// # Errors
/// When lintian is missing, or finds an error or a warning; the text is lintian's.
pub fn lint(package: &Path) -> Result<()> {
    ensure!(is_installed(), "lintian is not installed: apt-get install lintian");
    let mut lintian = Command::new("lintian");
    // The wording of what is found must not hang on who builds.
    lintian.args(["--no-cfg", "--allow-root", "--fail-on", "error,warning"]).arg(package);
    let finished = process::run(lintian.env("LC_ALL", "C.UTF-8"), LIMIT)?;
    ensure!(
        finished.status.success(),
        "lintian on {}:\n{}\n{}",
        package.display(),
        finished.text(),
        finished.error_text()
    );
    Ok(())
}

/// Whether packages can be looked at here.
#[must_use]
pub fn is_installed() -> bool {
    process::is_installed("lintian")
}
