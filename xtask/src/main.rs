//! Development tasks: `cargo xtask <command>`. Each command is a module of its own.

#![expect(clippy::print_stdout, reason = "a development tool talks to a person")]

mod command;

use std::process::ExitCode;

use clap::Parser;

/// Development tasks of Fleetward.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
enum Xtask {
    /// A whole fleet on this machine: controller, agents, example scripts, one run with live output.
    Demo(command::demo::DemoCommand),
    /// Run every level of tests that this machine can, and name what it cannot.
    Test(command::test::TestCommand),
    /// Everything a change has to pass: format, lints, tests, documentation, generated files.
    Check(command::check::CheckCommand),
    /// Measure the promised numbers on lab hosts and write docs/benchmarks.md.
    Bench(command::bench::BenchCommand),
    /// Write every generated file that is checked in.
    Bless,
    /// Lab of real Debian hosts under systemd (needs root).
    #[command(subcommand)]
    Lab(command::lab::LabCommand),
    /// Build the Debian packages and check what they promise.
    Package(command::package::PackageCommand),
}

fn main() -> ExitCode {
    let done = match Xtask::parse() {
        Xtask::Demo(command) => command::demo::execute(&command),
        Xtask::Test(command) => command::test::execute(&command),
        Xtask::Check(command) => command::check::execute(&command),
        Xtask::Bench(command) => command::bench::execute(&command),
        Xtask::Bless => command::bless::execute(),
        Xtask::Lab(command) => command::lab::execute(command),
        Xtask::Package(command) => command::package::execute(&command),
    };
    done.unwrap_or_else(|problem| {
        eprintln!("error: {problem:#}");
        ExitCode::FAILURE
    })
}
