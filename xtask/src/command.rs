//! `cargo xtask <command>`: one module per command.

#![expect(clippy::print_stdout, reason = "a development tool talks to a person")]

pub(crate) mod bench;
pub(crate) mod bless;
pub(crate) mod chaos;
pub(crate) mod check;
pub(crate) mod demo;
pub(crate) mod lab;
pub(crate) mod package;
mod postgres;
pub(crate) mod test;

use std::process::ExitCode;

use clap::{CommandFactory as _, Parser};

/// Development tasks of Fleetward.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
enum Xtask {
    /// A whole fleet on this machine: controller, agents, example scripts, one run with live output.
    Demo(demo::DemoCommand),
    /// Run every level of tests that this machine can, and name what it cannot.
    Test(test::TestCommand),
    /// Everything a change has to pass: format, lints, tests, documentation, generated files.
    Check(check::CheckCommand),
    /// Measure the promised numbers on lab hosts and write docs/benchmarks.md.
    Bench(bench::BenchCommand),
    /// Write every generated file that is checked in.
    Bless,
    /// Lab of real Debian hosts under systemd (needs root).
    #[command(subcommand)]
    Lab(lab::LabCommand),
    /// Build the Debian packages and check what they promise.
    Package(package::PackageCommand),
}

/// The definition of the command line, with which documents are compared.
pub fn definition() -> clap::Command {
    Xtask::command()
}

/// Runs the command of the process's arguments.
pub fn run() -> ExitCode {
    let done = match Xtask::parse() {
        Xtask::Demo(command) => demo::execute(&command),
        Xtask::Test(command) => test::execute(&command),
        Xtask::Check(command) => check::execute(&command),
        Xtask::Bench(command) => bench::execute(&command),
        Xtask::Bless => bless::execute(),
        Xtask::Lab(command) => lab::execute(command),
        Xtask::Package(command) => package::execute(&command),
    };
    done.unwrap_or_else(|problem| {
        eprintln!("error: {problem:#}");
        ExitCode::FAILURE
    })
}
