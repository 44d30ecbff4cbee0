//! A whole controller, on ports of its own.

use std::ops::Deref;
use std::path::Path;

use fleetward_app::clock::Clock;
use fleetward_app::secret::SecretBox;
use fleetward_app::testing::{Admin, NAME};
use fleetward_controller::config::{Config, Layer};
use fleetward_controller::running::{Running, StartError};
use fleetward_pki::Authority;
use tempfile::TempDir;

/// A controller, its data and its administrator.
pub(crate) struct TestController {
    running: Running,
    admin: Admin,
    directory: TempDir,
    database: Option<String>,
}

impl TestController {
    pub(crate) async fn start() -> Self {
        Self::start_on(None).await
    }

    /// On the database of this URL; on SQLite without one.
    pub(crate) async fn start_on(database: Option<&str>) -> Self {
        let directory = TempDir::new().unwrap();
        let database = database.map(str::to_owned);
        let mut config = config(directory.path());
        if let Some(database) = &database {
            config.database.clone_from(database);
        }
        // TLS looks at the system's clock, so the certificates must be good there too.
        let clock = Clock::manual(Clock::System.now());
        Authority::create(&config.pki_directory(), &config.name, clock.now()).unwrap();
        SecretBox::load_or_create(&config.secret_key()).unwrap();
        let running = Running::start(config, clock.clone()).await.unwrap();
        let admin = Admin::of(running.app().clone(), clock).await;
        Self { running, admin, directory, database }
    }

    /// Stops the controller and starts it again on the same data and port.
    pub(crate) async fn restart(self) -> Self {
        let Self { running, admin, directory, database } = self;
        let mut config = config(directory.path());
        if let Some(database) = &database {
            config.database.clone_from(database);
        }
        config.link.listen = running.link_address();
        running.shutdown().await;
        let running = Running::start(config, admin.clock.clone()).await.unwrap();
        let admin = admin.again(running.app().clone());
        Self { running, admin, directory, database }
    }

    /// A second one on the same data, with ports of its own.
    pub(crate) async fn start_another(&self) -> Result<Running, StartError> {
        Running::start(config(self.directory.path()), self.clock.clone()).await
    }

    /// A second one with data of its own, on the database of this URL.
    pub(crate) async fn start_elsewhere(&self, data: &Path, database: &str) -> Result<Running, StartError> {
        let mut config = config(data);
        config.database = database.to_owned();
        Authority::create(&config.pki_directory(), &config.name, self.clock.now()).unwrap();
        Running::start(config, self.clock.clone()).await
    }

    /// Returns when it has noticed that commits were lost.
    pub(crate) async fn commits_lost(&self) {
        self.running.commits_lost().await;
    }

    pub(crate) async fn stop(self) {
        self.running.shutdown().await;
    }
}

impl Deref for TestController {
    type Target = Admin;

    fn deref(&self) -> &Admin {
        &self.admin
    }
}

fn config(directory: &Path) -> Config {
    let mut layer =
        Layer { data: Some(directory.to_owned()), name: Some(NAME.to_owned()), ..Layer::default() };
    layer.link.listen = Some("127.0.0.1:0".parse().unwrap());
    layer.http.listen = Some("127.0.0.1:0".parse().unwrap());
    layer.http.plain_loopback = Some(true);
    layer.inventory.local_remotes = Some(true);
    Config::from_layer(layer).unwrap()
}
