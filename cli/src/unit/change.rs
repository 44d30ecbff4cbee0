//! `unit start`, `stop`, `restart`, … : the verbs of the kinds `unit`, `unit-file`, `unit-content` and `daemon-reload`.

use clap::{Args, ValueEnum};
use fleetward_protocol::action::daemon_reload::DaemonReload;
use fleetward_protocol::action::unit::{MAX_SETTLE_S, SETTLE_S, Unit, UnitName, Verb};
use fleetward_protocol::action::unit_file::{FileVerb, UnitFile};

use crate::action::{self, How};
use crate::app::App;
use crate::failure::{Exit, Failure};
use crate::start::TARGETS;

/// A unit that is started, stopped, …
#[derive(Debug, Args)]
#[command(after_help = format!("\
A unit that is as asked for already is left alone. A service that was started is watched: if it ends within --settle, that is a \
failure, and what it has logged is shown.

{TARGETS}

Examples:
  fleetward unit restart nginx --on tag:web --batch 10% --max-failures 1
  fleetward unit stop backup.timer --on db-1
  fleetward unit restart app --on 'web-*' --daemon-reload --settle 10
  fleetward unit start app --on all --dry-run"))]
pub(crate) struct Start {
    /// The unit, such as backup.timer; a service when it has no type
    #[arg(value_name = "UNIT")]
    unit: UnitName,
    /// Have systemd read all its files again before
    #[arg(long)]
    daemon_reload: bool,
    /// For how many seconds a service that was started is watched, 300 at the most; 0 for none
    #[arg(long, value_name = "SECONDS", default_value_t = SETTLE_S, value_parser = clap::value_parser!(u16).range(0..=i64::from(MAX_SETTLE_S)))]
    settle: u16,
    #[command(flatten)]
    how: How,
}

/// A unit that is stopped, or forgotten to have failed.
#[derive(Debug, Args)]
#[command(after_help = format!("\
A unit that is as asked for already is left alone.

{TARGETS}

Examples:
  fleetward unit stop backup.timer --on db-1
  fleetward unit reset-failed app --on all"))]
pub(crate) struct Named {
    /// The unit, such as backup.timer; a service when it has no type
    #[arg(value_name = "UNIT")]
    unit: UnitName,
    #[command(flatten)]
    how: How,
}

/// A unit whose place in the boot is changed.
#[derive(Debug, Args)]
#[command(after_help = format!("\
It neither starts nor stops the unit.

{TARGETS}

Examples:
  fleetward unit enable app --on tag:web
  fleetward unit mask apt-daily.timer --on all --dry-run"))]
pub(crate) struct Links {
    /// The unit, such as backup.timer; a service when it has no type
    #[arg(value_name = "UNIT")]
    unit: UnitName,
    #[command(flatten)]
    how: How,
}

/// All units' files, which are read again.
#[derive(Debug, Args)]
#[command(after_help = TARGETS)]
pub(crate) struct Reload {
    #[command(flatten)]
    how: How,
}

/// How a unit is reloaded.
#[derive(Debug, Args)]
#[command(after_help = format!("\
{TARGETS}

Examples:
  fleetward unit reload nginx --on tag:web --batch 25% --max-failures 0
  fleetward unit reload app --on 'web-*' --or restart"))]
pub(crate) struct ReloadUnit {
    /// Restart it where it cannot reload, and start it where it is not active
    #[arg(long, value_name = "ELSE")]
    or: Option<Else>,
    #[command(flatten)]
    start: Start,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Else {
    Restart,
}

/// `fleetward unit start` and `restart`.
pub(super) async fn start(verb: Verb, command: Start, app: &App) -> Result<Exit, Failure> {
    let Start { unit, daemon_reload, settle, how } = command;
    action::carry_out(&Unit { daemon_reload, settle_s: settle, ..Unit::new(unit, verb) }, how, app).await
}

/// `fleetward unit reload`.
pub(super) async fn reload(ReloadUnit { or, start }: ReloadUnit, app: &App) -> Result<Exit, Failure> {
    let verb = if or.is_some() { Verb::ReloadOrRestart } else { Verb::Reload };
    self::start(verb, start, app).await
}

/// `fleetward unit stop` and `reset-failed`.
pub(super) async fn plain(verb: Verb, Named { unit, how }: Named, app: &App) -> Result<Exit, Failure> {
    action::carry_out(&Unit::new(unit, verb), how, app).await
}

/// `fleetward unit enable`, `disable`, `mask` and `unmask`.
pub(super) async fn links(verb: FileVerb, Links { unit, how }: Links, app: &App) -> Result<Exit, Failure> {
    action::carry_out(&UnitFile { unit, verb }, how, app).await
}

/// `fleetward unit daemon-reload`.
pub(super) async fn daemon_reload(Reload { how }: Reload, app: &App) -> Result<Exit, Failure> {
    action::carry_out(&DaemonReload {}, how, app).await
}
