//! Development tasks: `cargo xtask <command>`. Each command is a module of its own.

#![expect(clippy::print_stdout, reason = "a development tool talks to a person")]

mod command;

use std::process::ExitCode;

use clap::Parser;

/// Development tasks of Fleetward.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
enum Xtask {
    /// Lab of real Debian hosts under systemd (needs root).
    #[command(subcommand)]
    Lab(command::lab::LabCommand),
    /// Build the Debian packages and check what they promise.
    Package(command::package::PackageCommand),
}

fn main() -> ExitCode {
    let done = match Xtask::parse() {
        Xtask::Lab(command) => command::lab::execute(command),
        Xtask::Package(command) => command::package::execute(&command),
    };
    done.unwrap_or_else(|problem| {
        eprintln!("error: {problem:#}");
        ExitCode::FAILURE
    })
}
