//! `audit`: works on the audit log.

use clap::{Args, Subcommand};
use fleetward_controller::app::audit;
use fleetward_controller::app::clock::Clock;
use fleetward_controller::store::Store;

use super::{Settings, block_on, print};

#[derive(Debug, Args)]
pub(crate) struct Audit {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Check that no event was changed or taken out.
    Verify(Settings),
}

impl Audit {
    pub(crate) fn run(self) -> anyhow::Result<()> {
        let Command::Verify(settings) = self.command;
        let config = settings.load()?;
        let events = block_on(async {
            let store = Store::open(&config.database, Clock::System.now()).await?;
            let mut conn = store.read().await?;
            anyhow::Ok(audit::verify(&mut conn).await?)
        })??;
        print(&format!("The chain of {events} audit events is whole.\n"));
        Ok(())
    }
}
