//! `serve`: runs the controller until it is told to stop.

use std::net::SocketAddr;

use crate::app::clock::Clock;
use crate::config::{Layer, Log, LogFormat};
use crate::running::Running;
use anyhow::Context as _;
use clap::Args;
use tokio::signal::unix::{SignalKind, signal};
use tracing::info;
use tracing_subscriber::EnvFilter;

use super::Settings;

/// Run the controller.
#[derive(Debug, Args)]
pub(crate) struct Serve {
    #[command(flatten)]
    settings: Settings,
    /// The UDP address agents connect to [default: [::]:7443]
    #[arg(long, value_name = "ADDRESS:PORT")]
    link_listen: Option<SocketAddr>,
    /// The TCP address of the API and the console [default: [::]:7444]
    #[arg(long, value_name = "ADDRESS:PORT")]
    http_listen: Option<SocketAddr>,
    /// Serve the API without TLS; only ever on a loopback address
    #[arg(long)]
    http_plain_loopback: bool,
}

impl Serve {
    pub(crate) fn run(self) -> anyhow::Result<()> {
        let mut flags = Layer::default();
        flags.link.listen = self.link_listen;
        flags.http.listen = self.http_listen;
        flags.http.plain_loopback = self.http_plain_loopback.then_some(true);
        let config = self.settings.load_with(flags)?;
        start_log(&config.log)?;
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        runtime.block_on(async {
            // Before anything is started: a signal in between must not kill it half-way.
            let mut terminate = signal(SignalKind::terminate())?;
            let mut interrupt = signal(SignalKind::interrupt())?;
            let running = Running::start(config, Clock::System).await?;
            let name = tokio::select! {
                _ = terminate.recv() => "SIGTERM",
                _ = interrupt.recv() => "SIGINT",
            };
            info!(signal = name, "controller.signalled");
            running.shutdown().await;
            anyhow::Ok(())
        })
    }
}

fn start_log(log: &Log) -> anyhow::Result<()> {
    let filter = EnvFilter::try_new(&log.filter).with_context(|| {
        format!("`log.filter` is `{}`, which is not a filter such as `info,quinn=warn`", log.filter)
    })?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match log.format {
        LogFormat::Text => builder.with_ansi(false).init(),
        LogFormat::Json => builder.json().init(),
    }
    Ok(())
}
