//! The command line.

use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Args, CommandFactory as _, Parser, Subcommand};
use fleetward_protocol::enrol::Token;
use tokio::signal::unix::{SignalKind, signal};

use crate::config::{Address, AgentConfig, CLIENT_ID_FILE, CONFIG_FILE, Paths, STATE_DIRECTORY};
use crate::doctor::{self, Severity};
use crate::enrol::Again;
use crate::platform::files;
use crate::{Agent, enrol, status};

/// The agent on a host of a Fleetward fleet.
#[derive(Debug, Parser)]
#[command(name = "fleetward-agent", version, about, after_help = EXAMPLES)]
pub struct Cli {
    #[command(flatten)]
    files: Files,
    #[command(subcommand)]
    command: Command,
}

const EXAMPLES: &str = "\
Examples:
  fleetward-agent enrol --controller ctl.example.com:7443 --token fwt1_...
  fleetward-agent status
  fleetward-agent doctor

Environment:
  FLEETWARD_LOG             how much is logged: error, warn, info (when absent), debug or trace
  FLEETWARD_NGINX_CONFIG    the file that nginx's configuration begins with, if it is not the one that nginx was built for
  FLEETWARD_REBOOT_REQUIRED the file that says that the host wants to be rebooted (default: /run/reboot-required)";

#[derive(Debug, Args)]
#[command(next_help_heading = "Global options")]
struct Files {
    /// The host's own policy and the controllers' addresses
    #[arg(long, global = true, value_name = "FILE", default_value = CONFIG_FILE)]
    config: PathBuf,
    /// Where key, certificate, journal and runs are kept
    #[arg(long, global = true, value_name = "DIR", default_value = STATE_DIRECTORY)]
    state: PathBuf,
    /// The file with the host's client ID
    #[arg(long, global = true, value_name = "FILE", default_value = CLIENT_ID_FILE)]
    client_id_file: PathBuf,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Connect to the controller and carry out what the host's policy allows; what the systemd unit does
    Run,
    /// Bind this host to its client ID and its key, with a token from `fleetward host add`
    Enrol(Enrol),
    /// Show who this host is and whether it is connected
    #[command(after_help = "Exits with 0 only if the agent is running and connected.")]
    Status,
    /// Look for what is wrong, and say what to do about it
    #[command(after_help = "Exits with 0 unless something is an error; a warning is none.")]
    Doctor {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
}

#[derive(Debug, Args)]
#[command(after_help = "\
`fleetward host add NAME` and `fleetward host token NAME` print this command with all that it needs. The key is made \
here and never leaves the host.

Example:
  fleetward-agent enrol --controller ctl.example.com:7443 --token fwt1_...")]
struct Enrol {
    /// A controller, as HOST:PORT; several separated by commas; those in the configuration when absent
    #[arg(long, value_delimiter = ',', value_name = "HOST:PORT")]
    controller: Vec<Address>,
    /// The single-use token
    #[arg(long, value_name = "TOKEN")]
    token: Token,
    /// Replace an identity that this host already has
    #[arg(long)]
    force: bool,
}

/// The definition of the command line: what manual pages are written from, and what documents are compared with.
pub fn definition() -> clap::Command {
    Cli::command()
}

impl Cli {
    /// Whether this is the agent itself, whose errors belong in the log; all other commands answer a person.
    #[must_use]
    pub const fn is_service(&self) -> bool {
        matches!(self.command, Command::Run)
    }

    /// Carries out the command.
    ///
    /// # Errors
    /// What a person should read.
    pub fn execute(self) -> anyhow::Result<ExitCode> {
        files::ensure_private_umask();
        let Files { config, state, client_id_file } = self.files;
        let paths = Paths {
            config: absolute(config)?,
            state: absolute(state)?,
            client_id: absolute(client_id_file)?,
        };
        match self.command {
            Command::Run => on_runtime(serve(AgentConfig::new(paths).with_environment())),
            Command::Enrol(request) => on_runtime(async move {
                let again = if request.force { Again::Replace } else { Again::Refuse };
                let enrolled = enrol::enrol(&paths, &request.controller, &request.token, again).await?;
                let mut out = io::stdout().lock();
                writeln!(out, "enrolled as {}", enrolled.client)?;
                if status::read_report(&paths).is_some() {
                    writeln!(
                        out,
                        "restart the agent, so that it takes its new identity: systemctl restart fleetward-agent"
                    )?;
                }
                if enrolled.quarantined {
                    writeln!(
                        out,
                        "the host waits for approval: `fleetward host approve`, or in the console"
                    )?;
                }
                Ok(ExitCode::SUCCESS)
            }),
            Command::Status => {
                let mut text = Vec::new();
                let connected = status::show(&paths, &mut text)?;
                tell(&text)?;
                Ok(if connected { ExitCode::SUCCESS } else { ExitCode::FAILURE })
            }
            Command::Doctor { json } => on_runtime(async move {
                let findings = doctor::examine(&paths).await;
                let mut text = Vec::new();
                if json {
                    serde_json::to_writer_pretty(&mut text, &findings)?;
                    writeln!(text)?;
                } else {
                    doctor::show(&findings, &mut text)?;
                }
                tell(&text)?;
                let failed = findings.iter().any(|finding| finding.severity == Severity::Error);
                Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
            }),
        }
    }
}

/// Writes what was asked for. Who has read enough of it (`| head`) is told no more, and no error.
fn tell(text: &[u8]) -> io::Result<()> {
    let mut out = io::stdout().lock();
    match out.write_all(text).and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        told => told,
    }
}

async fn serve(config: AgentConfig) -> anyhow::Result<ExitCode> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let agent = Agent::start(config)?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    tracing::info!("agent_stopping");
    agent.shutdown().await;
    Ok(ExitCode::SUCCESS)
}

// One thread: an agent is idle nearly always, and every thread is memory.
fn on_runtime(work: impl Future<Output = anyhow::Result<ExitCode>>) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let result = runtime.block_on(work);
    // A name look-up that hangs must not hold up the end.
    runtime.shutdown_background();
    result
}

fn absolute(path: PathBuf) -> anyhow::Result<PathBuf> {
    std::path::absolute(&path).with_context(|| format!("the path {}", path.display()))
}
