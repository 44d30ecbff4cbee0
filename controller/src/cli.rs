//! The command line of `fleetward-controller`. Each command's work is in a file of its own.

mod audit;
mod check_config;
mod init;
mod openapi;
mod serve;
mod user;

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use crate::config::{Config, Layer};
use clap::{Args, CommandFactory as _, Parser, Subcommand};

/// The controller of a Fleetward fleet.
#[derive(Debug, Parser)]
#[command(
    name = "fleetward-controller",
    version,
    propagate_version = true,
    max_term_width = 100,
    after_help = NOTES
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

const NOTES: &str = "\
Settings come from /etc/fleetward/controller.toml, then from FLEETWARD_* variables, then from flags; what comes later \
wins. `check-config` shows what they come to.

Examples:
  fleetward-controller init --name ctl.example.com
  fleetward-controller serve
  fleetward-controller user reset-password admin";

#[derive(Debug, Subcommand)]
enum Command {
    /// Make a new controller: authority, keys, database, first administrator.
    Init(init::Init),
    /// Run the controller until SIGTERM or Ctrl-C.
    Serve(serve::Serve),
    /// Read the configuration and say what it comes to.
    CheckConfig(Settings),
    /// Print the OpenAPI document of the API.
    Openapi,
    /// Users, from the controller's own machine: reset-password.
    User(user::User),
    /// The audit log: verify, export.
    Audit(audit::Audit),
}

/// Where the settings come from.
#[derive(Debug, Args)]
struct Settings {
    /// The configuration file [default: /etc/fleetward/controller.toml, if it exists]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The data directory [default: /var/lib/fleetward]
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
}

impl Settings {
    fn load(&self) -> anyhow::Result<Config> {
        self.load_with(Layer::default())
    }

    fn load_with(&self, flags: Layer) -> anyhow::Result<Config> {
        let flags = Layer { data: self.data.clone(), ..flags };
        Ok(Config::load(self.config.as_deref(), flags)?)
    }
}

/// The definition of the command line: what manual pages are written from, and what documents are compared with.
pub fn definition() -> clap::Command {
    Cli::command()
}

/// Runs the command of the process's arguments.
pub fn run() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Init(command) => command.run(),
        Command::Serve(command) => command.run(),
        Command::CheckConfig(settings) => check_config::run(&settings),
        Command::Openapi => openapi::run(),
        Command::User(command) => command.run(),
        Command::Audit(command) => command.run(),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // The chain once, at the rim.
            let _ = writeln!(std::io::stderr(), "fleetward-controller: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Writes to standard output. A reader that has gone is no error.
fn print(text: &str) {
    let _ = std::io::stdout().write_all(text.as_bytes());
}

/// A runtime for a command that does little.
fn block_on<T>(work: impl Future<Output = T>) -> anyhow::Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    Ok(runtime.block_on(work))
}
