//! `unit`: the units of systemd on hosts.
//!
//! Thin: what is asked are kinds of query, as `fleetward ask` asks them, and what is done are kinds of action, as `fleetward do`
//! does them; here they have options of their own, and a layout.

mod change;
mod content;
mod list;
mod log;
mod show;
mod timers;

use clap::Subcommand;
use fleetward_protocol::action::unit::Verb;
use fleetward_protocol::action::unit_content::ContentVerb;
use fleetward_protocol::action::unit_file::FileVerb;

use crate::app::App;
use crate::failure::{Exit, Failure};

/// Units of systemd: list, failed, show, log, timers, start, stop, restart, reload, enable, mask, write, rm, …
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
    /// Start a unit, and see that it stays up
    Start(change::Start),
    /// Stop a unit
    Stop(change::Named),
    /// Restart a unit, and see that it stays up
    Restart(change::Start),
    /// Have a unit read its configuration again
    Reload(change::ReloadUnit),
    /// Start a unit at boot
    Enable(change::Links),
    /// Do not start a unit at boot
    Disable(change::Links),
    /// Let nobody start a unit
    Mask(change::Links),
    /// Take a mask away
    Unmask(change::Links),
    /// Forget that a unit failed, and how often it was started
    ResetFailed(change::Named),
    /// Have systemd read all files of units again
    DaemonReload(change::Reload),
    /// Write the file of a unit, or a drop-in of it
    #[command(visible_alias = "edit")]
    Write(content::Write),
    /// Remove the file of a unit, or a drop-in of it
    Rm(content::Other),
    /// Bring the last kept file of a unit back, or a drop-in of it
    Revert(content::Other),
}

/// `fleetward unit …`.
pub(crate) async fn execute(command: Command, app: &App) -> Result<Exit, Failure> {
    match command {
        Command::List(command) => list::list(command, app).await,
        Command::Failed(command) => list::failed(command, app).await,
        Command::Show(command) => show::execute(command, app).await,
        Command::Log(command) => log::execute(command, app).await,
        Command::Timers(command) => timers::execute(command, app).await,
        Command::Start(command) => change::start(Verb::Start, command, app).await,
        Command::Stop(command) => change::plain(Verb::Stop, command, app).await,
        Command::Restart(command) => change::start(Verb::Restart, command, app).await,
        Command::Reload(command) => change::reload(command, app).await,
        Command::Enable(command) => change::links(FileVerb::Enable, command, app).await,
        Command::Disable(command) => change::links(FileVerb::Disable, command, app).await,
        Command::Mask(command) => change::links(FileVerb::Mask, command, app).await,
        Command::Unmask(command) => change::links(FileVerb::Unmask, command, app).await,
        Command::ResetFailed(command) => change::plain(Verb::ResetFailed, command, app).await,
        Command::DaemonReload(command) => change::daemon_reload(command, app).await,
        Command::Write(command) => content::write(command, app).await,
        Command::Rm(command) => content::other(ContentVerb::Remove, command, app).await,
        Command::Revert(command) => content::other(ContentVerb::Revert, command, app).await,
    }
}

#[cfg(test)]
mod tests;
