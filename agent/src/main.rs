//! The agent's executable.

#![warn(clippy::print_stderr)]

use std::io::{IsTerminal as _, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser as _;
use fleetward_agent::cli::Cli;
use fleetward_agent::config;
use fleetward_agent::perform::{PERFORM, perform};
use fleetward_agent::query::{LOOK, look};
use fleetward_agent::run::supervisor::{SUPERVISE, supervise};

fn main() -> ExitCode {
    // A run waits for its supervisor: no argument parser, no log. Both would take longer than all the rest.
    let mut arguments = std::env::args_os().skip(1);
    let command = arguments.next();
    if command.as_ref().is_some_and(|command| command == PERFORM) {
        return perform(arguments);
    }
    if command.as_ref().is_some_and(|command| command == LOOK) {
        return look();
    }
    if command.is_some_and(|command| command == SUPERVISE) {
        return match supervise(arguments.next().map(PathBuf::from).as_deref()) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                complain(format_args!("fleetward-agent: supervise a run: {error}"));
                ExitCode::FAILURE
            }
        };
    }
    let cli = Cli::parse();
    let (level, wrong) = config::log_level();
    tracing_subscriber::fmt()
        .with_max_level(level)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false)
        // A line that cannot be written is lost. Else the failure is told where it just failed, and that panics.
        .log_internal_errors(false)
        .compact()
        .init();
    let is_service = cli.is_service();
    for what in wrong {
        tracing::warn!("{what}");
    }
    match cli.execute() {
        Ok(code) => code,
        Err(error) => {
            // A person who typed a command reads a sentence; the log of a service wants its time and level.
            if is_service {
                tracing::error!("{error:#}");
            } else {
                complain(format_args!("error: {error:#}"));
            }
            ExitCode::FAILURE
        }
    }
}

/// Says it on standard error; where nobody listens any more, nobody is told.
fn complain(words: std::fmt::Arguments<'_>) {
    drop(writeln!(std::io::stderr(), "{words}"));
}
