//! The agent's executable.

use std::process::ExitCode;

use clap::Parser as _;
use fleetward_agent::cli::Cli;
use fleetward_agent::config;

fn main() -> ExitCode {
    let cli = Cli::parse();
    tracing_subscriber::fmt()
        .with_max_level(config::log_level())
        .with_writer(std::io::stderr)
        .with_target(false)
        .compact()
        .init();
    match cli.execute() {
        Ok(code) => code,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}
