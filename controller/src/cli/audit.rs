//! `audit`: works on the audit log.

use crate::app::audit;
use crate::app::clock::Clock;
use crate::store::Store;
use clap::{Args, Subcommand};

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
