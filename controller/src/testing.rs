//! A whole controller in a test's process, on ports of its own.

use std::collections::BTreeMap;
use std::io;
use std::num::NonZeroU32;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use fleetward_domain::contract::FreeArguments;
use fleetward_domain::operation::{OperationStatus, RolloutPolicy};
use fleetward_domain::permission::{Grant, Grants, Permission, Role};
use fleetward_domain::run::RunEvent;
use fleetward_protocol::enrol::Token;
use fleetward_protocol::id::{JournalId, OperationId, RunId, SessionId, TenantId};
use fleetward_protocol::name::{HostName, ScriptName, UserName};
use tempfile::TempDir;
use uuid::Uuid;

use crate::app::App;
use crate::app::access::{Caller, Permit};
use crate::app::clock::Clock;
use crate::app::health::Condition;
use crate::app::host::{self, Addition};
use crate::app::operation::{self, Asked, Call, NotEnrolledHosts, OperationError, Work};
use crate::app::recorder::Change;
use crate::app::user;
use crate::config::{Config, Layer};
use crate::pki::Authority;
use crate::running::{Running, StartError};
use crate::secret::SecretBox;
use crate::store::host::Enrolment;
use crate::store::operation::Operation;
use crate::store::run::Run;
use crate::store::script::{self, Script};
use crate::store::{Scope, Store, tenant};

/// Whether a limit on the store's growth is felt: SQLite reports a file that may not grow as a disk that fails, what
/// writes the files of output as a disk that is full.
pub(crate) fn has_no_room(condition: Condition) -> bool {
    matches!(condition, Condition::DiskFull | Condition::StorageFailed)
}

/// A controller and its data.
pub(crate) struct TestController {
    pub(crate) running: Running,
    pub(crate) clock: Clock,
    pub(crate) tenant: TenantId,
    caller: Caller,
    directory: TempDir,
}

impl TestController {
    pub(crate) async fn start() -> Self {
        let directory = TempDir::new().unwrap();
        let config = config(directory.path());
        Self::start_with(directory, config).await
    }

    /// As [`Self::start`], with the database of this URL.
    pub(crate) async fn start_on(database: &str) -> Self {
        let directory = TempDir::new().unwrap();
        let config = Config { database: database.to_owned(), ..config(directory.path()) };
        Self::start_with(directory, config).await
    }

    async fn start_with(directory: TempDir, config: Config) -> Self {
        // TLS looks at the system's clock, so the certificates must be good there too.
        let clock = Clock::manual(Clock::System.now());
        Authority::create(&config.pki_directory(), &config.name, clock.now()).unwrap();
        SecretBox::load_or_create(&config.secret_key()).unwrap();
        let store = Store::open(&config.database, clock.now()).await.unwrap();
        let mut tx = store.write().await.unwrap();
        let tenant = tenant::list(&mut tx, &Scope::Everything).await.unwrap().remove(0).id;
        let name = "admin".parse().unwrap();
        user::insert_admin(&mut tx, &name, tenant, clock.now()).await.unwrap();
        let user = crate::store::user::find(&mut tx, &name).await.unwrap().unwrap();
        tx.commit().await.unwrap();
        store.close().await.unwrap();
        let running = Running::start(config, clock.clone()).await.unwrap();
        let caller = Caller {
            user: user.id,
            name,
            session: SessionId::from_uuid(Uuid::nil()),
            ends_at: None,
            grants: Grants::new(vec![Grant { tenant, role: Role::Admin }]),
            must_change_password: false,
            remote: None,
        };
        Self { running, clock, tenant, caller, directory }
    }

    /// Stops the controller and starts it again on the same data and port.
    pub(crate) async fn restart(self) -> Self {
        let Self { running, clock, tenant, caller, directory } = self;
        let mut config = config(directory.path());
        config.link.listen = running.link_address();
        running.shutdown().await;
        let running = Running::start(config, clock.clone()).await.unwrap();
        Self { running, clock, tenant, caller, directory }
    }

    /// A second one on the same data, with ports of its own.
    pub(crate) async fn start_another(&self) -> Result<Running, StartError> {
        Running::start(config(self.directory.path()), self.clock.clone()).await
    }

    pub(crate) async fn stop(self) {
        self.running.shutdown().await;
    }

    pub(crate) fn app(&self) -> &App {
        self.running.app()
    }

    pub(crate) fn permit(&self, permission: Permission) -> Permit {
        self.caller.clone().permit(permission).unwrap()
    }

    /// What an administrator of another tenant, and of that one only, may do; the tenant is made by it.
    pub(crate) async fn permit_elsewhere(&self, tenant: &str, permission: Permission) -> Permit {
        let now = self.clock.now();
        let id = TenantId::from_uuid(Uuid::now_v7());
        let row =
            tenant::Tenant { id, name: tenant.parse().unwrap(), title: tenant.to_owned(), created_at: now };
        let name: UserName = format!("admin-of-{tenant}").parse().unwrap();
        let mut tx = self.app().store().write().await.unwrap();
        tenant::insert(&mut tx, &row).await.unwrap();
        user::insert_admin(&mut tx, &name, id, now).await.unwrap();
        let user = crate::store::user::find(&mut tx, &name).await.unwrap().unwrap().id;
        tx.commit().await.unwrap();
        let grants = Grants::new(vec![Grant { tenant: id, role: Role::Admin }]);
        Caller { user, name, grants, ..self.caller.clone() }.permit(permission).unwrap()
    }

    /// A one-time password of the administrator, in the place of the one before.
    pub(crate) async fn one_time_password(&self) -> String {
        let mut tx = self.app().store().write().await.unwrap();
        let now = self.clock.now();
        let password = user::reset_password(&mut tx, &self.caller.name, now).await.unwrap().unwrap();
        tx.commit().await.unwrap();
        password
    }

    pub(crate) async fn add_host(&self, name: &str) -> (HostName, Token) {
        let name: HostName = name.parse().unwrap();
        let addition = Addition {
            name: name.clone(),
            client_id: None,
            kind: "VM".to_owned(),
            provider: String::new(),
            tags: Vec::new(),
        };
        let permit = self.permit(Permission::ManageHosts);
        let (_, issued) = host::add(self.app(), &permit, addition, None).await.unwrap();
        (name, issued.token)
    }

    /// A host that has enrolled, and never connects.
    pub(crate) async fn add_absent_host(&self, name: &str) {
        let (name, _) = self.add_host(name).await;
        let mut tx = self.app().store().write().await.unwrap();
        let host = crate::store::host::get(&mut tx, &Scope::Everything, &name).await.unwrap();
        let (from, to) = (Enrolment::Pending, Enrolment::Enrolled);
        let now = self.clock.now();
        assert!(crate::store::host::update_enrolment(&mut tx, host.id, from, to, now).await.unwrap());
        tx.commit().await.unwrap();
    }

    /// An operation of `work` on an absent host, as if its run had been handed out to it.
    pub(crate) async fn handed_out(&self, host: &str) -> (OperationId, RunId) {
        let operation = self.run(&["work"], host).await.unwrap();
        let runs = self.wait_until(operation.id, |_, _| true).await.1;
        let journal = JournalId::from_uuid(Uuid::nil());
        let event = RunEvent::Dispatched { journal, deadline: operation.deadline };
        let change = Change { operation: operation.id, run: runs[0].id, event, known: None };
        self.app().recorder().apply([change]).await.unwrap();
        self.app().recorder().settle().await.unwrap();
        (operation.id, runs[0].id)
    }

    pub(crate) async fn add_script(&self, name: &str, content: &str) {
        let now = self.clock.now();
        let mut tx = self.app().store().write().await.unwrap();
        let digest = script::insert_content(&mut tx, content.as_bytes(), now).await.unwrap();
        let script = Script {
            tenant: self.tenant,
            name: name.parse().unwrap(),
            digest,
            display_name: name.to_owned(),
            description: String::new(),
            emoji: String::new(),
            flags: Vec::new(),
            free_arguments: FreeArguments::Any,
            environment: Vec::new(),
            estimated: None,
            timeout: None,
            user: None,
            users: Vec::new(),
            resources: Vec::new(),
            tags: Vec::new(),
            path: None,
            commit: "0".repeat(40),
            created_at: now,
            updated_at: now,
            retired_at: None,
        };
        script::update(&mut tx, &script).await.unwrap();
        tx.commit().await.unwrap();
    }

    pub(crate) async fn run(&self, scripts: &[&str], on: &str) -> Result<Operation, OperationError> {
        let policy =
            RolloutPolicy { concurrency: NonZeroU32::new(1000).unwrap(), ..RolloutPolicy::default() };
        self.run_with(scripts, on, policy).await
    }

    pub(crate) async fn run_with(
        &self,
        scripts: &[&str],
        on: &str,
        policy: RolloutPolicy,
    ) -> Result<Operation, OperationError> {
        let call = |name: &&str| Call { name: name.parse::<ScriptName>().unwrap(), arguments: Vec::new() };
        let work = Work {
            scripts: scripts.iter().map(call).collect(),
            environment: BTreeMap::new(),
            directory: None,
            user: None,
        };
        let asked = Asked {
            work,
            on: on.to_owned(),
            policy,
            canary: None,
            reason: None,
            not_enrolled: NotEnrolledHosts::Refuse,
        };
        operation::create(self.app(), &self.permit(Permission::Run), asked).await
    }

    /// Waits until the operation has ended; its status and its runs.
    pub(crate) async fn wait_for_end(&self, id: OperationId) -> (OperationStatus, Vec<Run>) {
        self.wait_until(id, |operation, _| operation.status.is_final()).await
    }

    /// Waits until the operation and its runs are as wanted.
    pub(crate) async fn wait_until(
        &self,
        id: OperationId,
        wanted: impl Fn(&Operation, &[Run]) -> bool,
    ) -> (OperationStatus, Vec<Run>) {
        let mut watch = self.app().live().watch(id);
        let wait = async {
            loop {
                watch.mark_unchanged();
                let mut conn = self.app().store().read().await.unwrap();
                let operation =
                    crate::store::operation::get(&mut conn, &Scope::Everything, id).await.unwrap();
                let runs = crate::store::run::list_all(&mut conn, id).await.unwrap();
                drop(conn);
                if wanted(&operation, &runs) {
                    return (operation.status, runs);
                }
                watch.changed().await.unwrap();
            }
        };
        tokio::time::timeout(Duration::from_secs(20), wait).await.expect("the operation gets there")
    }

    pub(crate) async fn output(&self, run: &Run) -> Vec<u8> {
        let mut conn = self.app().store().read().await.unwrap();
        crate::store::output::read(
            &mut conn,
            self.app().store().files(),
            &Scope::Everything,
            run.id,
            0,
            usize::MAX,
        )
        .await
        .unwrap()
    }

    /// Whether an event of this kind is in the audit log.
    pub(crate) async fn has_audited(&self, kind: &str) -> bool {
        !self.audited(kind).await.is_empty()
    }

    /// The audit events of a kind, the oldest first.
    pub(crate) async fn audited(&self, kind: &str) -> Vec<crate::store::audit::Event> {
        let mut conn = self.app().store().read().await.unwrap();
        let events = crate::store::audit::list_chain(&mut conn, 1, 1000).await.unwrap();
        events.into_iter().filter(|event| event.event.kind == kind).collect()
    }
}

/// Everything that was logged, as a writer of a subscriber.
#[derive(Debug, Clone, Default)]
pub(crate) struct Log(Arc<Mutex<Vec<u8>>>);

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Log {
    /// A subscriber that writes here, in JSON.
    pub(crate) fn subscriber(&self) -> impl tracing::Subscriber + Send + Sync + use<> {
        let log = self.clone();
        tracing_subscriber::fmt().json().with_writer(move || log.clone()).finish()
    }

    /// The events of this name since the last call; every one must say when it was.
    pub(crate) fn take(&self, name: &str) -> Vec<serde_json::Value> {
        let text = String::from_utf8(std::mem::take(&mut *self.0.lock().unwrap())).unwrap();
        let lines = text.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
        let events: Vec<_> = lines.filter(|line| line["fields"]["message"] == name).collect();
        for event in &events {
            let time = event["timestamp"].as_str().unwrap();
            assert!(time.parse::<fleetward_api::time::Time>().is_ok(), "{time}");
        }
        events
    }
}

fn config(directory: &Path) -> Config {
    let mut layer = Layer {
        data: Some(directory.to_owned()),
        name: Some("ctl.example.com".to_owned()),
        ..Layer::default()
    };
    layer.link.listen = Some("127.0.0.1:0".parse().unwrap());
    layer.http.listen = Some("127.0.0.1:0".parse().unwrap());
    layer.http.plain_loopback = Some(true);
    layer.inventory.local_remotes = Some(true);
    Config::from_layer(layer).unwrap()
}
