//! `accept-keys`: what to do when a key of the data directory is lost for good.

use fleetward_app::clock::Clock;
use fleetward_app::identity;
use fleetward_store::Store;

use super::{Settings, block_on, print};

pub(crate) fn run(settings: &Settings) -> anyhow::Result<()> {
    let config = settings.load()?;
    block_on(async {
        let store = Store::open_existing(&config.database).await?;
        let mut tx = store.write().await?;
        identity::forget(&mut tx, Clock::System.now()).await?;
        tx.commit().await?;
        anyhow::Ok(store.close().await?)
    })??;
    print(&format!(
        "The next start takes the keys in {} as this database's. What was sealed with another secret.key cannot be opened any \
         more: enter the repository's credentials again. With another pki directory every host must be enrolled again.\n",
        config.data.display()
    ));
    Ok(())
}
