//! `user`: what an administrator of the machine may do without logging in.

use anyhow::{Context as _, bail};
use clap::{Args, Subcommand};
use fleetward_app::clock::Clock;
use fleetward_app::people::user;
use fleetward_protocol::name::UserName;
use fleetward_store::people::tenant;
use fleetward_store::{Scope, Store};

use super::{Settings, block_on, print};

#[derive(Debug, Args)]
pub(crate) struct User {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make an administrator, with a one-time password.
    Add {
        /// The login name
        user: UserName,
        #[command(flatten)]
        settings: Settings,
    },
    /// Give a user a new one-time password and end their sessions.
    ResetPassword {
        /// The login name
        user: UserName,
        #[command(flatten)]
        settings: Settings,
    },
}

impl User {
    pub(crate) fn run(self) -> anyhow::Result<()> {
        let (name, settings, adds) = match self.command {
            Command::Add { user, settings } => (user, settings, true),
            Command::ResetPassword { user, settings } => (user, settings, false),
        };
        let config = settings.load()?;
        let password = block_on(async {
            let now = Clock::System.now();
            let store = Store::open_existing(&config.database).await?;
            let mut tx = store.write().await?;
            let password = if adds {
                let tenant = tenant::list(&mut tx, &Scope::Everything).await?.into_iter().next();
                let tenant = tenant.context("the database has no tenant")?;
                let added = user::insert_admin(&mut tx, &name, tenant.id, now).await;
                Some(added.with_context(|| {
                    format!(
                        "add {name}; a user who exists gets a new password with `user reset-password {name}`"
                    )
                })?)
            } else {
                user::reset_password(&mut tx, &name, now).await?
            };
            tx.commit().await?;
            store.close().await?;
            anyhow::Ok(password)
        })??;
        let Some(password) = password else {
            bail!("there is no user `{name}`; `fleetward-controller user add {name}` makes one");
        };
        print(&format!("One-time password of {name}, to be changed at the next login:\n\n    {password}\n"));
        Ok(())
    }
}
