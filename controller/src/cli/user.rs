//! `user`: what an administrator of the machine may do without logging in.

use crate::app::clock::Clock;
use crate::app::user;
use crate::store::Store;
use anyhow::bail;
use clap::{Args, Subcommand};
use fleetward_protocol::name::UserName;

use super::{Settings, block_on, print};

#[derive(Debug, Args)]
pub(crate) struct User {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Give a user a new one-time password and end their sessions.
    ResetPassword {
        /// The login name
        name: UserName,
        #[command(flatten)]
        settings: Settings,
    },
}

impl User {
    pub(crate) fn run(self) -> anyhow::Result<()> {
        let Command::ResetPassword { name, settings } = self.command;
        let config = settings.load()?;
        let password = block_on(async {
            let now = Clock::System.now();
            let store = Store::open(&config.database, now).await?;
            let mut tx = store.write().await?;
            let password = user::reset_password(&mut tx, &name, now).await?;
            tx.commit().await?;
            store.close().await?;
            anyhow::Ok(password)
        })??;
        let Some(password) = password else {
            bail!("there is no user `{name}`");
        };
        print(&format!("One-time password of {name}, to be changed at the next login:\n\n    {password}\n"));
        Ok(())
    }
}
