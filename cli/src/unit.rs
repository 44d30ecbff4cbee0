//! `unit`: the units of systemd on hosts.
//!
//! Thin: what is asked are kinds of query, as `fleetward ask` asks them; here they have options of their own, and a layout.

mod list;
mod log;
mod show;
mod timers;

use clap::Subcommand;

use crate::app::App;
use crate::failure::{Exit, Failure};

/// Units of systemd: list, failed, show, log, timers
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// List units with their states and what they use
    List(list::List),
    /// List the units that have failed
    Failed(list::Failed),
    /// Show one unit: its state, files and dependencies
    Show(show::Show),
    /// Show what units, or whole hosts, have logged
    Log(log::Log),
    /// List timers: when they were due, when they will be, and what they start
    Timers(timers::Timers),
}

/// `fleetward unit …`.
pub(crate) async fn execute(command: Command, app: &App) -> Result<Exit, Failure> {
    match command {
        Command::List(command) => list::list(command, app).await,
        Command::Failed(command) => list::failed(command, app).await,
        Command::Show(command) => show::execute(command, app).await,
        Command::Log(command) => log::execute(command, app).await,
        Command::Timers(command) => timers::execute(command, app).await,
    }
}

#[cfg(test)]
mod tests;
