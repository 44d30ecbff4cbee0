//! The command line of `fleetward-controller`. Each command's work is in a file of its own.

mod accept_keys;
mod audit;
mod check_config;
mod init;
mod openapi;
mod serve;
mod user;

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use crate::config::{Config, Layer, Listen, Name, Sources, unknown_variables};
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
  fleetward-controller user reset-password admin

Environment:
  FLEETWARD_CONFIG         the configuration file, as --config
  FLEETWARD_LINK_LISTEN    and so on: any setting, as its key in capitals with _ for the dot";

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
    /// Users, from the controller's own machine: add, reset-password.
    User(user::User),
    /// The audit log: verify, export.
    Audit(audit::Audit),
    /// Take the keys of the data directory as the database's, when the right ones are lost for good.
    AcceptKeys(Settings),
}

/// Where the settings come from: the same for every command.
#[derive(Debug, Args)]
#[command(next_help_heading = "Settings")]
struct Settings {
    /// The configuration file [default: /etc/fleetward/controller.toml, if it exists]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The data directory [default: /var/lib/fleetward]
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// The name or address under which people and agents reach the controller
    #[arg(long, value_name = "NAME", value_parser = parse_name)]
    name: Option<String>,
    /// The database, such as `postgres://user@host/database` (SQLite in the data directory unless told otherwise)
    #[arg(long, value_name = "URL")]
    database: Option<String>,
    /// The UDP address agents connect to (every address, port 7443, unless told otherwise)
    #[arg(long, value_name = "ADDRESS:PORT")]
    link_listen: Option<Listen>,
    /// The TCP address of the API and the console (every address, port 7444, unless told otherwise)
    #[arg(long, value_name = "ADDRESS:PORT")]
    http_listen: Option<Listen>,
    /// Serve the API without TLS; only ever on a loopback address
    #[arg(long)]
    http_plain_loopback: bool,
}

impl Settings {
    /// The settings, for a command whose output a person reads.
    fn load(&self) -> anyhow::Result<Config> {
        warn_of_unknown_variables();
        Ok(self.sources()?.config()?)
    }

    /// Each layer by itself.
    fn sources(&self) -> anyhow::Result<Sources> {
        let mut flags = Layer {
            data: self.data.clone(),
            name: self.name.clone(),
            database: self.database.clone(),
            ..Layer::default()
        };
        flags.link.listen = self.link_listen;
        flags.http.listen = self.http_listen;
        flags.http.plain_loopback = self.http_plain_loopback.then_some(true);
        Ok(Sources::read(self.config.as_deref(), flags)?)
    }
}

/// A name without what surrounds it in a URL: the settings would refuse it as well, but by the name of a file that is
/// not there yet.
fn parse_name(text: &str) -> Result<String, String> {
    text.parse::<Name>().map(|_| text.to_owned()).map_err(|error| match text.split_once("://") {
        Some((scheme, rest)) => {
            let name =
                rest.split(['/', ':']).next().filter(|name| !name.is_empty()).unwrap_or("ctl.example.com");
            format!("give the name alone, without `{scheme}://` and port, such as `--name {name}`")
        }
        None => error.to_string(),
    })
}

/// Says which variables look like settings and are none.
fn warn_of_unknown_variables() {
    for unknown in unknown_variables() {
        let _ = writeln!(std::io::stderr(), "fleetward-controller: warning: {unknown}");
    }
}

/// The definition of the command line: what manual pages are written from, and what documents are compared with.
pub fn definition() -> clap::Command {
    Cli::command()
}

/// Runs the command of the process's arguments.
pub fn run() -> ExitCode {
    match Cli::parse().execute() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // The chain once, at the rim.
            let _ = writeln!(std::io::stderr(), "fleetward-controller: {error:#}");
            exit_code(&error)
        }
    }
}

/// What the service manager is told by: a failure that no further attempt mends has a code of its own.
fn exit_code(error: &anyhow::Error) -> ExitCode {
    if serve::is_for_good(error) { ExitCode::from(serve::EX_CONFIG) } else { ExitCode::FAILURE }
}

impl Cli {
    fn execute(self) -> anyhow::Result<()> {
        match self.command {
            Command::Init(command) => command.run(),
            Command::Serve(command) => command.run(),
            Command::CheckConfig(settings) => check_config::run(&settings),
            Command::Openapi => openapi::run(),
            Command::User(command) => command.run(),
            Command::Audit(command) => command.run(),
            Command::AcceptKeys(settings) => accept_keys::run(&settings),
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

#[cfg(test)]
mod tests;
