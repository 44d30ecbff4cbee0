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

use clap::{Args, Parser, Subcommand};
use fleetward_controller::config::{Config, Layer};

/// The controller of a Fleetward fleet.
#[derive(Debug, Parser)]
#[command(name = "fleetward-controller", version, propagate_version = true, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Makes a new controller: authority, keys, database, first administrator.
    Init(init::Init),
    /// Runs the controller until SIGTERM or Ctrl-C.
    Serve(serve::Serve),
    /// Reads the configuration and says what it comes to.
    CheckConfig(Settings),
    /// Prints the OpenAPI document of the API.
    Openapi,
    /// Manages users from the controller's own machine.
    User(user::User),
    /// Works on the audit log.
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

/// Runs the command of the process's arguments.
pub(crate) fn run() -> ExitCode {
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
