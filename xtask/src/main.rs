//! Development tasks: `cargo xtask <command>`; what they do is in the library beside it.

use std::process::ExitCode;

fn main() -> ExitCode {
    xtask::command::run()
}
