//! A whole fleet in one process: a real controller with real QUIC and HTTP on ports of its own, real agents that
//! run real scripts through real supervisors.
//!
//! Each test makes a [`Fleet`] with data of its own and drives it as a client would, through the API; it waits for
//! events, never for time to pass.

mod client;
mod inventory;
mod output;
mod query;
mod resume;
mod rollout;
mod stop;
mod trust;

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use fleetward_agent::config::{AgentConfig, Paths};
use fleetward_agent::enrol::Again;
use fleetward_agent::{Agent, AgentHandle};
use fleetward_app::clock::Clock;
use fleetward_app::people::user;
use fleetward_app::secret::SecretBox;
use fleetward_controller::config::{Config, Layer, Listen};
use fleetward_controller::running::Running;
use fleetward_domain::people::permission::{Grant, Role};
use fleetward_pki::{Authority, ServerPurpose};
use fleetward_protocol::digest::Digest;
use fleetward_protocol::id::UserId;
use fleetward_store::people::session::{self, Session, SessionKind};
use fleetward_store::people::{tenant, user as user_row};
use fleetward_store::{Scope, Store, StoreError};
use serde_json::json;
use tempfile::TempDir;
use tokio::runtime::Runtime;

pub(crate) use client::Client;

/// The password that replaces the one-time one.
const PASSWORD: &str = "a password of the fleet tests";

pub(crate) struct Fleet {
    directory: TempDir,
    link: SocketAddr,
    http: SocketAddr,
    controller: Option<Running>,
    agents: BTreeMap<String, RunningAgent>,
    pub(crate) one_time_password: String,
    pub(crate) client: Client,
}

/// An agent with a runtime of its own, so that all of it can vanish at once.
pub(crate) struct RunningAgent {
    pub(crate) handle: AgentHandle,
    runtime: Option<Runtime>,
}

impl RunningAgent {
    /// Ends it without a goodbye, as `kill -9` would: every task and every socket is gone.
    fn crash(mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Drop for RunningAgent {
    fn drop(&mut self) {
        // A runtime may not be waited for from within another.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Fleet {
    /// A controller without hosts, whose administrator has logged in.
    pub(crate) async fn empty() -> Self {
        let mut fleet = Self::untouched().await;
        let one_time = fleet.one_time_password.clone();
        fleet.client.login("admin", &one_time).await;
        let change = json!({ "current": one_time, "new": PASSWORD });
        fleet.client.post("/auth/password", &change).await.expect("the one-time password is changed");
        fleet.client.login("admin", PASSWORD).await;
        fleet
    }

    /// A controller nobody has logged in to.
    pub(crate) async fn untouched() -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let one_time_password = init(&config(directory.path(), any_port(), any_port())).await;
        let controller = Running::start(config(directory.path(), any_port(), any_port()), Clock::System)
            .await
            .expect("the controller starts");
        let (link, http) = (controller.link_address(), controller.http_address());
        Self {
            client: Client::new(http),
            directory,
            link,
            http,
            controller: Some(controller),
            agents: BTreeMap::new(),
            one_time_password,
        }
    }

    /// A fleet of connected hosts `host-1` to `host-<count>` with the scripts of [`inventory`].
    pub(crate) async fn with_hosts(count: usize) -> Self {
        let mut fleet = Self::empty().await;
        inventory::offer(&fleet).await;
        for number in 1..=count {
            fleet.add_host(&format!("host-{number}")).await;
        }
        fleet
    }

    /// Adds a host to the inventory, enrols its agent and waits until it is connected.
    pub(crate) async fn add_host(&mut self, name: &str) {
        let created = self
            .client
            .post("/hosts", &json!({ "name": name, "type": "VM", "tags": ["lab"] }))
            .await
            .expect("the host is added");
        let token = created["token"].as_str().expect("a token").to_owned();
        self.enrol(name, &token).await.expect("the host enrols");
        self.start_agent(name).await;
    }

    /// Enrols an agent with a token.
    pub(crate) async fn enrol(
        &self,
        name: &str,
        token: &str,
    ) -> Result<fleetward_agent::enrol::Enrolled, fleetward_agent::enrol::EnrolError> {
        let address = self.link.to_string().parse().expect("an address");
        let token = token.parse().expect("a token");
        let paths = self.paths(name);
        if !paths.config.exists() {
            // The package's allows everything.
            std::fs::create_dir_all(paths.config.parent().expect("a directory"))
                .expect("the host's directory");
            std::fs::write(&paths.config, "").expect("a policy");
        }
        fleetward_agent::enrol::enrol(&paths, &[address], &token, Again::Refuse).await
    }

    /// Starts the agent of an enrolled host and waits until the controller shows it online.
    pub(crate) async fn start_agent(&mut self, name: &str) {
        let agent = self.launch_agent(name);
        agent.handle.connected().await;
        self.agents.insert(name.to_owned(), agent);
        self.client.until_host(name, |host| host["status"] == "online").await;
    }

    /// Starts the agent of an enrolled host, outside the fleet's keeping.
    pub(crate) fn launch_agent(&self, name: &str) -> RunningAgent {
        // Whether this machine has a message bus is no matter of the fleet's.
        let bus = Some(format!("unix:path={}", self.path("no-bus").display()));
        // And so is what nginx it has.
        let nginx = Some(self.nginx(name).join("nginx.conf").display().to_string());
        let paths = self.paths(name);
        let config = AgentConfig { supervisor: agent_program(), bus, nginx, ..AgentConfig::new(paths) };
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime for the agent");
        let entered = runtime.enter();
        let handle = Agent::start(config).expect("the agent starts");
        drop(entered);
        RunningAgent { handle, runtime: Some(runtime) }
    }

    /// Ends an agent as `kill -9` would, and waits until the controller noticed. Its supervisors go on.
    pub(crate) async fn crash_agent(&mut self, name: &str) {
        self.agents.remove(name).expect("the agent runs").crash();
        self.client.until_host(name, |host| host["status"] == "offline").await;
    }

    /// Stops the controller in order.
    pub(crate) async fn stop_controller(&mut self) {
        self.controller.take().expect("the controller runs").shutdown().await;
    }

    /// Starts it again on the same data and the same ports.
    pub(crate) async fn start_controller(&mut self) {
        let config = config(self.directory.path(), self.link, self.http);
        self.controller =
            Some(Running::start(config, Clock::System).await.expect("the controller starts again"));
    }

    /// Gives the administrator a one-time password, as `fleetward-controller user reset-password` does. Ends the
    /// logins there are.
    pub(crate) async fn reset_password(&self) -> String {
        let app = self.controller.as_ref().expect("the controller runs").app();
        let mut tx = app.store().write().await.expect("a transaction");
        let name = "admin".parse().expect("a name");
        let password = user::reset_password(&mut tx, &name, app.now())
            .await
            .expect("a reset")
            .expect("an administrator");
        tx.commit().await.expect("a commit");
        password
    }

    pub(crate) fn paths(&self, name: &str) -> Paths {
        let directory = self.directory.path().join("hosts").join(name);
        Paths {
            config: directory.join("agent.toml"),
            state: directory.join("state"),
            client_id: directory.join("client_id"),
        }
    }

    /// Where the configuration of a host's nginx is, if a test puts one there.
    pub(crate) fn nginx(&self, host: &str) -> PathBuf {
        self.path("hosts").join(host).join("nginx")
    }

    /// A user of this role who has logged in, by the token of that login.
    pub(crate) async fn login_as(&self, name: &str, role: Role) -> String {
        let app = self.controller.as_ref().expect("the controller runs").app();
        let now = app.now();
        let mut tx = app.store().write().await.expect("a transaction");
        let tenant = tenant::list(&mut tx, &Scope::Everything).await.expect("tenants").remove(0).id;
        let id: UserId = "01900000-0000-7000-8000-0000000000a1".parse().expect("an id");
        let row = user_row::User {
            id,
            name: name.parse().expect("a name"),
            password_hash: None,
            must_change_password: false,
            known_parties: Vec::new(),
            disabled_at: None,
            created_at: now,
        };
        user_row::insert(&mut tx, &row).await.expect("a user");
        user_row::insert_grant(&mut tx, id, Grant { tenant, role }, now).await.expect("a grant");
        let token = format!("fws_{name}");
        let login = Session {
            id: "01900000-0000-7000-8000-0000000000a2".parse().expect("an id"),
            user: id,
            kind: SessionKind::Login,
            secret_digest: Digest::of(token.as_bytes()),
            name: "test".to_owned(),
            created_at: now,
            last_used_at: now,
            expires_at: Some(now + Duration::from_secs(60 * 60)),
        };
        session::insert(&mut tx, &login).await.expect("a login");
        tx.commit().await.expect("a commit");
        token
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.http)
    }
}

/// What `fleetward-controller init` makes. Returns the one-time password.
async fn init(config: &Config) -> String {
    let now = Clock::System.now();
    std::fs::create_dir_all(&config.data).expect("the data directory");
    let authority = Authority::create(&config.pki_directory(), &config.name, now).expect("an authority");
    for purpose in [ServerPurpose::Link, ServerPurpose::Web] {
        authority.ensure_server(purpose, &config.name, now).expect("a server certificate");
    }
    SecretBox::load_or_create(&config.secret_key()).expect("a secret key");
    let database = Store::connect(&config.database).await.expect("a database");
    let store = database.migrate(now, None, |_| Ok::<_, StoreError>(())).await.expect("the schema");
    let mut tx = store.write().await.expect("a transaction");
    let tenant = tenant::list(&mut tx, &Scope::Everything).await.expect("tenants").remove(0);
    let admin = "admin".parse().expect("a name");
    let password = user::insert_admin(&mut tx, &admin, tenant.id, now).await.expect("an administrator");
    tx.commit().await.expect("a commit");
    store.close().await.expect("the store closes");
    password
}

fn config(directory: &Path, link: SocketAddr, http: SocketAddr) -> Config {
    let mut layer = Layer {
        data: Some(directory.join("controller")),
        name: Some("localhost".into()),
        ..Layer::default()
    };
    layer.link.listen = Some(Listen(link));
    layer.http.listen = Some(Listen(http));
    layer.http.plain_loopback = Some(true);
    layer.inventory.local_remotes = Some(true);
    Config::from_layer(layer).expect("a configuration")
}

const fn any_port() -> SocketAddr {
    SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0)
}

/// The agent's executable, which supervises runs. Built beside this test's own.
fn agent_program() -> PathBuf {
    let own = std::env::current_exe().expect("the test's executable");
    let program = own.ancestors().nth(2).expect("the target directory").join("fleetward-agent");
    assert!(program.exists(), "{} is missing: cargo build --package fleetward-agent", program.display());
    program
}
