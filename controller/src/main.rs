//! `fleetward-controller`: the centre of a fleet.

use std::process::ExitCode;

mod cli;

fn main() -> ExitCode {
    cli::run()
}
