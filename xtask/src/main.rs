//! Development tasks: `cargo xtask <command>`. Each command is a module of its own.

#![expect(clippy::print_stdout, reason = "a development tool talks to a person")]

mod command;

use clap::Parser;

/// Development tasks of Fleetward.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
enum Xtask {
    /// Lab of real Debian hosts under systemd (needs root).
    #[command(subcommand)]
    Lab(command::lab::LabCommand),
}

fn main() -> anyhow::Result<std::process::ExitCode> {
    match Xtask::parse() {
        Xtask::Lab(command) => command::lab::execute(command),
    }
}
