//! The three Debian packages, and what they promise about their binaries.
//!
//! Promises: the agent links nothing but libc and is smaller than [`AGENT_LIMIT`]; no binary needs a newer glibc than
//! its package states, and no package states a newer one than Debian 12 has (Ubuntu 24.04 has a newer one); lintian finds
//! neither error nor warning. A package that breaks a promise is not built.

mod changelog;
mod documents;
mod lint;
mod notices;

pub use lint::{is_installed as is_lintian_installed, lint};

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use jiff::Timestamp;

use crate::{process, workspace};

/// The agent's binary is smaller than this many bytes.
pub const AGENT_LIMIT: u64 = 12 * 1024 * 1024;
/// The oldest glibc that every package has to run on: Debian 12's.
pub const OLDEST_GLIBC: Version = Version(2, 36);

const BUILD: Duration = Duration::from_secs(3600);
const INSPECT: Duration = Duration::from_secs(60);

/// A glibc version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version(pub u32, pub u32);

/// How much care the build takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Build {
    /// What is installed on machines: optimised, all promises checked.
    Release,
    /// Debug binaries for a lab that has to come up soon: the size is not checked.
    Quick,
}

/// The packages of one build.
#[derive(Debug, Clone)]
pub struct Packages {
    /// `fleetward-agent`
    pub agent: PathBuf,
    /// `fleetward-controller`
    pub controller: PathBuf,
    /// `fleetward`
    pub cli: PathBuf,
}

struct Part {
    krate: &'static str,
    binary: &'static str,
    package: &'static str,
}

const AGENT: Part = Part { krate: "fleetward-agent", binary: "fleetward-agent", package: "fleetward-agent" };
const CONTROLLER: Part =
    Part { krate: "fleetward-controller", binary: "fleetward-controller", package: "fleetward-controller" };
const CLI: Part = Part { krate: "fleetward-cli", binary: "fleetward", package: "fleetward" };

/// Writes the manual pages of all three.
const MANUAL: &str = "fleetward-manual";

impl Build {
    fn profile(self, part: &Part) -> &'static str {
        match self {
            Self::Quick => "dev",
            Self::Release if part.krate == AGENT.krate => "agent",
            Self::Release => "release",
        }
    }
}

/// Where packages are put.
pub fn directory() -> PathBuf {
    workspace::target().join("debian")
}

/// The package of that name that was built last.
///
/// # Errors
/// When there is none.
pub fn built(name: &str) -> Result<PathBuf> {
    let directory = directory();
    let found = of_name(&directory, name)?.into_iter().next();
    found.with_context(|| {
        format!("there is no package {name} in {}: run `cargo xtask package`", directory.display())
    })
}

/// The packages of that name in a directory, whatever their version and architecture.
fn of_name(directory: &Path, name: &str) -> Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error).with_context(|| format!("read {}", directory.display())),
    };
    let mut found = Vec::new();
    for entry in entries {
        let path = entry?.path();
        let file = path.file_name().unwrap_or_default().to_string_lossy();
        if file.ends_with(".deb") && file.split('_').next() == Some(name) {
            found.push(path);
        }
    }
    Ok(found)
}

/// Builds the binaries, checks them, and packs them into `target/debian/`.
///
/// # Errors
/// When a build fails or a binary breaks a promise.
pub fn build(build: Build) -> Result<Packages> {
    ensure!(
        process::is_installed("cargo-deb"),
        "cargo-deb is not installed: run `cargo install cargo-deb --locked`"
    );
    for (tool, package) in
        [("readelf", "binutils"), ("objdump", "binutils"), ("dpkg-deb", "dpkg"), ("gzip", "gzip")]
    {
        ensure!(process::is_installed(tool), "{tool} is not installed: apt-get install {package}");
    }
    compile_agent(build)?;
    let mut rest = cargo("build");
    rest.args([
        "--package",
        CONTROLLER.krate,
        "--package",
        CLI.krate,
        "--package",
        MANUAL,
        "--profile",
        build.profile(&CONTROLLER),
    ]);
    process::show_success(&mut rest, BUILD)?;

    let now = documents::made()?;
    documents::write_completions(&binary(&CLI, build))?;
    let programs = [&AGENT, &CONTROLLER, &CLI].map(|part| binary(part, build));
    documents::write_manual(&binary(&CLI, build).with_file_name(MANUAL), &programs, now)?;

    let directory = directory();
    fs::create_dir_all(&directory)?;
    let pack = |part: &Part| -> Result<PathBuf> {
        check(part, &binary(part, build), build)?;
        documents::write(part, &binary(part, build), now)?;
        pack(part, build, &directory, now)
    };
    Ok(Packages { agent: pack(&AGENT)?, controller: pack(&CONTROLLER)?, cli: pack(&CLI)? })
}

/// The package with another version, everything else the same: for tests of upgrades.
///
/// # Errors
/// When dpkg-deb fails.
pub fn repack(package: &Path, version: &str, into: &Path) -> Result<PathBuf> {
    let work = tempfile::tempdir()?;
    let tree = work.path().join("tree");
    process::succeed(Command::new("dpkg-deb").arg("-R").arg(package).arg(&tree), INSPECT)?;
    let control = tree.join("DEBIAN/control");
    let text = fs::read_to_string(&control)?;
    let changed: String =
        text.lines()
            .map(|line| {
                if line.starts_with("Version:") {
                    format!("Version: {version}\n")
                } else {
                    format!("{line}\n")
                }
            })
            .collect();
    fs::write(&control, changed)?;
    let fresh = work.path().join("fresh.deb");
    process::succeed(
        Command::new("dpkg-deb").args(["--root-owner-group", "-Zgzip", "-z1", "-b"]).arg(&tree).arg(&fresh),
        INSPECT,
    )?;
    let target = into.join(file_name(&fresh)?);
    fs::copy(&fresh, &target)?;
    Ok(target)
}

/// Removes the dependency on libgcc_s. Rust's standard library asks the linker for the shared library by name; a
/// linker script of that name, found first, gives it the static one instead. It holds the unwinder, which a binary
/// that aborts on panic needs for backtraces only.
fn compile_agent(build: Build) -> Result<()> {
    let scripts = workspace::target().join("agent-link");
    fs::create_dir_all(&scripts)?;
    fs::write(scripts.join("libgcc_s.so"), "INPUT(-lgcc_eh -lgcc)\n")?;
    let mut command = cargo("rustc");
    command.args(["--package", AGENT.krate, "--bin", AGENT.binary, "--profile", build.profile(&AGENT), "--"]);
    command.arg("-L").arg(format!("native={}", scripts.display()));
    process::show_success(&mut command, BUILD)
}

fn pack(part: &Part, build: Build, directory: &Path, now: Timestamp) -> Result<PathBuf> {
    let mut command = cargo("deb");
    command.env("SOURCE_DATE_EPOCH", now.as_second().to_string());
    command.args(["--no-build", "--quiet", "--package", part.krate, "--profile", build.profile(part)]);
    let fresh = directory.join("fresh").join(format!("{}.deb", part.package));
    fs::create_dir_all(directory.join("fresh"))?;
    command.arg("--output").arg(&fresh);
    process::show_success(&mut command, BUILD)?;
    // Debug binaries are not stripped, and nobody installs them but a lab.
    match (build, lint::is_installed()) {
        (Build::Release, true) => lint(&fresh)?,
        (Build::Release, false) => {
            eprintln!("  SKIPPED  lintian: because it is not installed; apt-get install lintian");
        }
        (Build::Quick, _) => {}
    }
    // Named as Debian's archives name them, by what the package itself says. One of each is kept, so that
    // `fleetward-agent_*.deb` is the one that was built last.
    for old in of_name(directory, part.package)? {
        fs::remove_file(&old).with_context(|| format!("remove {}", old.display()))?;
    }
    let named = directory.join(file_name(&fresh)?);
    fs::rename(&fresh, &named).with_context(|| format!("name {}", named.display()))?;
    Ok(named)
}

/// `NAME_VERSION_ARCHITECTURE.deb`, from the package's own fields.
fn file_name(package: &Path) -> Result<String> {
    let field =
        |field: &str| process::succeed(Command::new("dpkg-deb").arg("-f").arg(package).arg(field), INSPECT);
    Ok(format!("{}_{}_{}.deb", field("Package")?, field("Version")?, field("Architecture")?))
}

fn cargo(subcommand: &str) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(workspace::root()).arg(subcommand);
    command
}

fn binary(part: &Part, build: Build) -> PathBuf {
    let directory = match build.profile(part) {
        "dev" => "debug",
        other => other,
    };
    workspace::target().join(directory).join(part.binary)
}

fn check(part: &Part, binary: &Path, build: Build) -> Result<()> {
    let stated = stated_glibc(part)?;
    ensure!(
        stated <= OLDEST_GLIBC,
        "package {} asks for glibc {}.{}, but Debian 12 has {}.{}",
        part.package,
        stated.0,
        stated.1,
        OLDEST_GLIBC.0,
        OLDEST_GLIBC.1
    );
    let symbols = process::succeed(Command::new("objdump").arg("-T").arg(binary), INSPECT)?;
    let needed =
        newest_glibc(&symbols).with_context(|| format!("{} needs no glibc at all", binary.display()))?;
    ensure!(
        needed <= stated,
        "{} needs glibc {}.{}, but its package states {}.{}",
        binary.display(),
        needed.0,
        needed.1,
        stated.0,
        stated.1
    );
    if part.krate == AGENT.krate {
        let dynamic = process::succeed(Command::new("readelf").arg("-d").arg(binary), INSPECT)?;
        let foreign: Vec<String> = libraries(&dynamic).into_iter().filter(|name| !is_libc(name)).collect();
        ensure!(foreign.is_empty(), "the agent may link nothing but libc, but links {}", foreign.join(", "));
        let size = fs::metadata(binary)?.len();
        if build == Build::Release && size >= AGENT_LIMIT {
            bail!("the agent is {size} bytes, but has to stay below {AGENT_LIMIT}");
        }
    }
    Ok(())
}

/// The glibc floor in a package's `depends`.
fn stated_glibc(part: &Part) -> Result<Version> {
    let manifest = metadata(part)?;
    let depends = manifest["metadata"]["deb"]["depends"].as_str().unwrap_or_default();
    floor(depends).with_context(|| format!("package {} states no `libc6 (>= …)`", part.package))
}

/// What the crate's manifest says, as cargo reads it.
fn metadata(part: &Part) -> Result<serde_json::Value> {
    let metadata = process::succeed(cargo("metadata").args(["--format-version=1", "--no-deps"]), INSPECT)?;
    let mut metadata: serde_json::Value = serde_json::from_str(&metadata)?;
    let packages = metadata["packages"].as_array_mut().context("cargo names no packages")?;
    let found = packages.iter_mut().find(|package| package["name"] == part.krate);
    found.map(serde_json::Value::take).with_context(|| format!("no crate {}", part.krate))
}

fn floor(depends: &str) -> Option<Version> {
    let (_, rest) = depends.split_once("libc6 (>= ")?;
    parse_version(rest.split_once(')')?.0)
}

/// The newest glibc version among the symbols that `objdump -T` lists.
fn newest_glibc(symbols: &str) -> Option<Version> {
    let named = symbols.split("GLIBC_").skip(1);
    named
        .filter_map(|rest| parse_version(rest.split(|c: char| c != '.' && !c.is_ascii_digit()).next()?))
        .max()
}

fn parse_version(text: &str) -> Option<Version> {
    let mut parts = text.split('.');
    Some(Version(parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

/// The shared libraries that `readelf -d` lists as needed.
fn libraries(dynamic: &str) -> BTreeSet<String> {
    dynamic
        .lines()
        .filter(|line| line.contains("(NEEDED)"))
        .filter_map(|line| Some(line.split_once('[')?.1.split_once(']')?.0.to_owned()))
        .collect()
}

/// What package libc6 holds.
fn is_libc(library: &str) -> bool {
    matches!(library, "libc.so.6" | "libm.so.6" | "libpthread.so.0" | "libdl.so.2" | "librt.so.1")
        || library.starts_with("ld-linux")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tool_output_is_understood() {
        let dynamic = " 0x0000000000000001 (NEEDED)             Shared library: [libgcc_s.so.1]\n \
                        0x0000000000000001 (NEEDED)             Shared library: [libc.so.6]\n \
                        0x000000000000001e (FLAGS)              BIND_NOW\n";
        let foreign: Vec<String> = libraries(dynamic).into_iter().filter(|name| !is_libc(name)).collect();
        assert_eq!(foreign, ["libgcc_s.so.1"]);
        let symbols = "0 DF *UND* 0 (GLIBC_2.2.5) free\n0 DF *UND* 0 (GLIBC_2.34) main\n0 (GLIBC_2.4) x";
        assert_eq!(newest_glibc(symbols), Some(Version(2, 34)));
        assert_eq!(floor("libssl3 | libssl3t64, libc6 (>= 2.36), systemd"), Some(Version(2, 36)));
    }

    /// A package with nothing in it.
    fn empty(name: &str, version: &str, directory: &Path) -> PathBuf {
        let tree = directory.join("tree");
        fs::create_dir_all(tree.join("DEBIAN")).unwrap();
        let control = format!(
            "Package: {name}\nVersion: {version}\nArchitecture: amd64\nMaintainer: A <a@example.com>\nDescription: empty\n"
        );
        fs::write(tree.join("DEBIAN/control"), control).unwrap();
        let package = directory.join("built.deb");
        process::succeed(Command::new("dpkg-deb").arg("-b").arg(&tree).arg(&package), INSPECT).unwrap();
        package
    }

    #[test]
    fn a_package_file_says_name_version_and_architecture() {
        if !process::is_installed("dpkg-deb") {
            return;
        }
        let directory = tempfile::tempdir().unwrap();
        let package = empty("fleetward-agent", "0.1.0-1", directory.path());
        assert_eq!(file_name(&package).unwrap(), "fleetward-agent_0.1.0-1_amd64.deb");
        let into = directory.path().join("debian");
        fs::create_dir(&into).unwrap();
        let newer = repack(&package, "9.9.9-1", &into).unwrap();
        assert_eq!(newer.file_name().unwrap(), "fleetward-agent_9.9.9-1_amd64.deb");
        assert_eq!(of_name(&into, "fleetward-agent").unwrap(), [newer]);
        assert!(of_name(&into, "fleetward").unwrap().is_empty());
    }

    /// Debian's policy (3.4.1): a synopsis is a phrase, without an article and without a full stop.
    #[test]
    fn every_synopsis_is_a_phrase() {
        for krate in ["agent", "cli", "controller"] {
            let manifest = fs::read_to_string(workspace::root().join(krate).join("Cargo.toml")).unwrap();
            let synopsis = manifest.lines().find_map(|line| line.strip_prefix("description = \"")).unwrap();
            let synopsis = synopsis.trim_end_matches('"');
            let first = synopsis.split(' ').next().unwrap().to_lowercase();
            assert!(!["a", "an", "the"].contains(&first.as_str()), "{synopsis}");
            assert!(!synopsis.ends_with('.') && synopsis.len() < 80, "{synopsis}");
        }
    }

    #[test]
    fn every_package_runs_on_debian_12() {
        for part in [AGENT, CONTROLLER, CLI] {
            assert!(stated_glibc(&part).unwrap() <= OLDEST_GLIBC, "{}", part.package);
        }
    }
}
