//! The executable of `fleetward`; what it does is in the library beside it.

use std::process::ExitCode;

fn main() -> ExitCode {
    fleetward_cli::run()
}
