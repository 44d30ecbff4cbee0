//! `cargo xtask check`: everything a change has to pass before it lands.

use std::process::{Command, ExitCode};
use std::time::Duration;

use crate::{process, workspace};
use anyhow::{Result, bail};
use clap::Args;

use super::test::cargo;

/// Options of `cargo xtask check`.
#[derive(Debug, Args)]
pub(crate) struct CheckCommand {
    /// Leave out what `cargo xtask test` runs as well.
    #[arg(long = "static")]
    static_only: bool,
}

const LIMIT: Duration = Duration::from_secs(3600);

pub(crate) fn execute(command: &CheckCommand) -> Result<ExitCode> {
    let mut failed = Vec::new();
    let mut step = |name: &str, mut command: Command| {
        println!("== {name}");
        if let Err(problem) = process::show_success(&mut command, LIMIT) {
            println!("{problem:#}");
            failed.push(name.to_owned());
        }
    };
    step("fmt", cargo(&["fmt", "--all", "--check"]));
    step("clippy", cargo(&["clippy", "--quiet", "--workspace", "--all-targets", "--", "-D", "warnings"]));
    let mut doc = cargo(&["doc", "--quiet", "--workspace", "--no-deps", "--document-private-items"]);
    doc.env("RUSTDOCFLAGS", "-D warnings");
    step("doc", doc);
    if process::is_installed("cargo-deny") {
        step("dependencies", cargo(&["deny", "--all-features", "check", "bans", "licenses", "sources"]));
        match unreachable_advisories() {
            None => step(
                "advisories",
                cargo(&["deny", "--all-features", "check", "--disable-fetch", "advisories"]),
            ),
            Some(reason) => println!("  SKIPPED  advisories: because {reason}"),
        }
    } else {
        println!(
            "  SKIPPED  dependencies, advisories: because there is no cargo-deny; cargo install --locked cargo-deny"
        );
    }
    let console = workspace::root().join("controller/console");
    if console.join("package.json").exists() {
        super::package::install_console()?;
        for script in ["lint", "types"] {
            let mut npm = Command::new("npm");
            npm.args(["run", script]).current_dir(&console);
            step(&format!("console {script}"), npm);
        }
    }
    if !command.static_only {
        step("tests", cargo(&["nextest", "run", "--workspace"]));
        step("doc tests", cargo(&["test", "--quiet", "--workspace", "--doc"]));
    }
    let changed = super::bless::changed_by_generating()?;
    if !changed.is_empty() {
        println!("generated files differ from what is checked in: {changed:?}; commit them");
        failed.push("generated files".to_owned());
    }
    if !failed.is_empty() {
        bail!("{}", failed.join(", "));
    }
    println!("all good");
    Ok(ExitCode::SUCCESS)
}

/// Fetches the database of advisories; why it cannot be had, if so. A copy of our own would be out of date unnoticed.
fn unreachable_advisories() -> Option<String> {
    match process::run(&mut cargo(&["deny", "fetch", "db"]), Duration::from_secs(120)) {
        Ok(fetched) if fetched.status.success() => None,
        Ok(fetched) => Some(last_line(&fetched.error_text())),
        Err(problem) => Some(format!("{problem:#}")),
    }
}

fn last_line(text: &str) -> String {
    let line = text.lines().map(str::trim).rfind(|line| !line.is_empty());
    format!("their database cannot be fetched: {}", line.unwrap_or("it was not said why"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_skip_says_why() {
        let said = "Cloning\nfatal: unable to access 'https://example.com/': Could not resolve host\n\n";
        assert!(last_line(said).ends_with("Could not resolve host"));
        assert!(last_line("\n").ends_with("not said why"));
    }
}
