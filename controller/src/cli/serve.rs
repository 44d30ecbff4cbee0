//! `serve`: runs the controller until it is told to stop.

use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};

use anyhow::Context as _;
use clap::Args;
use fleetward_app::clock::Clock;
use fleetward_app::identity::IdentityError;
use fleetward_pki::PkiError;
use tokio::signal::unix::{SignalKind, signal};
use tracing::{info, warn};
use tracing_subscriber::EnvFilter;

use super::Settings;
use crate::config::{ConfigError, Log, LogFormat, notify_socket, unknown_variables};
use crate::running::{Running, StartError};

/// The exit code of settings that cannot be used (sysexits.h). The unit does not start the controller again after it.
pub(super) const EX_CONFIG: u8 = 78;

/// Whether an attempt fails in the same way until somebody changes a setting or a file. A database that is away or a full
/// disk comes back by itself.
pub(super) fn is_for_good(error: &anyhow::Error) -> bool {
    match error.downcast_ref::<StartError>() {
        Some(StartError::Pki(PkiError::File { .. }) | StartError::Identity(IdentityError::Store(_))) => false,
        Some(
            StartError::Pki(_)
            | StartError::Identity(_)
            | StartError::MetricsToken { .. }
            | StartError::Tls(_),
        ) => true,
        Some(
            StartError::InUse { .. }
            | StartError::Lock { .. }
            | StartError::Store(_)
            | StartError::Admission(_)
            | StartError::Link(_)
            | StartError::Http(_),
        ) => false,
        None => error.is::<ConfigError>(),
    }
}

/// Run the controller.
#[derive(Debug, Args)]
pub(crate) struct Serve {
    #[command(flatten)]
    settings: Settings,
}

impl Serve {
    pub(crate) fn run(self) -> anyhow::Result<()> {
        let config = self.settings.sources()?.config()?;
        start_log(&config.log)?;
        for unknown in unknown_variables() {
            warn!("{unknown}");
        }
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        runtime.block_on(async {
            // Before anything is started: a signal in between must not kill it half-way.
            let mut terminate = signal(SignalKind::terminate())?;
            let mut interrupt = signal(SignalKind::interrupt())?;
            let running = Running::start(config, Clock::System).await?;
            tell_manager("READY=1");
            let name = tokio::select! {
                _ = terminate.recv() => "SIGTERM",
                _ = interrupt.recv() => "SIGINT",
                () = running.found_dead() => {
                    tell_manager("STOPPING=1");
                    // Not in order: the database is another one's now, and what was not acknowledged is on the hosts.
                    anyhow::bail!(
                        "another controller has taken over the database, because this one did not write to it for long; \
                         stop one of the two for good"
                    );
                }
                () = running.commits_lost() => {
                    tell_manager("STOPPING=1");
                    // In order: what arrives is committed to the database as it is. Whoever restarts it gets one that knows
                    // no more than the database, and hosts tell it what they have.
                    running.shutdown().await;
                    anyhow::bail!(
                        "the database has lost what was committed to it, as after a failover to a standby that was behind; \
                         the controller has to start anew. Require a synchronous standby (`synchronous_standby_names`)"
                    );
                }
                () = running.part_failed() => {
                    tell_manager("STOPPING=1");
                    running.shutdown().await;
                    anyhow::bail!("a part of the controller failed for a defect, which the log tells; it has to start anew");
                }
            };
            info!(signal = name, "controller.signalled");
            tell_manager("STOPPING=1");
            running.shutdown().await;
            anyhow::Ok(())
        })
    }
}

/// Sends `state` to the service manager (sd_notify(3)): one datagram. Without a manager, or if it fails, nothing happens.
fn tell_manager(state: &str) {
    let Some(socket) = notify_socket() else { return };
    let send = || {
        let address = match socket.as_bytes().strip_prefix(b"@") {
            Some(name) => SocketAddr::from_abstract_name(name)?,
            None => SocketAddr::from_pathname(&socket)?,
        };
        UnixDatagram::unbound()?.send_to_addr(state.as_bytes(), &address)
    };
    if let Err(error) = send() {
        warn!(%error, "controller.manager_not_told");
    }
}

fn start_log(log: &Log) -> anyhow::Result<()> {
    let filter = EnvFilter::try_new(&log.filter).with_context(|| {
        format!("`log.filter` is `{}`, which is not a filter such as `info,quinn=warn`", log.filter)
    })?;
    // A line that cannot be written is lost. The subscriber would tell of it on standard error, and panic where that is what is
    // broken: whatever happened to log would end.
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .log_internal_errors(false);
    match log.format {
        LogFormat::Text => builder.with_ansi(false).init(),
        LogFormat::Json => builder.json().init(),
    }
    Ok(())
}
