//! An application in a test's process: on a database of its own, without ports and without background work.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that cannot have its application fails by panicking"
)]

pub mod levitate;

use std::io;
use std::num::NonZeroU32;
use std::ops::Deref;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use fleetward_domain::fleet::contract::FreeArguments;
use fleetward_domain::people::permission::{Grant, Grants, Role};
use fleetward_domain::work::operation::{OperationStatus, RolloutPolicy};
use fleetward_domain::work::run::RunEvent;
use fleetward_pki::Authority;
use fleetward_protocol::digest::Digest;
use fleetward_protocol::enrol::Token;
use fleetward_protocol::id::{JournalId, OperationId, RunId, SessionId, TenantId, UserId};
use fleetward_protocol::name::{HostName, ScriptName};
use fleetward_protocol::text::Text;
use fleetward_protocol::time::Timestamp;
use fleetward_repo::Reach;
use fleetward_store::fleet::host::Enrolment as EnrolmentState;
use fleetward_store::fleet::script::{self, Script};
use fleetward_store::people::tenant;
use fleetward_store::people::user::User;
use fleetward_store::work::operation::Operation;
use fleetward_store::work::run::Run;
use fleetward_store::{Scope, Store, Tx, sqlite_url};
use tempfile::TempDir;
use uuid::Uuid;

use crate::App;
use crate::clock::Clock;
use crate::fleet::controller::Tenure;
use crate::fleet::host::{self, Addition};
use crate::fleet::target::NotEnrolledHosts;
use crate::health::Condition;
use crate::people::access::{Caller, ManageHosts, Need, Permit};
use crate::people::user;
use crate::secret::SecretBox;
use crate::settings::{AuditRetention, Enrolment, Settings};
use crate::work::action::script::Surroundings;
use crate::work::action::{self, Kinds};
use crate::work::operation::{self, Asked, OperationError};
use crate::work::recorder::RunTransition;
use levitate::Levitate;

/// The name under which a test's application is reached.
pub const NAME: &str = "ctl.example.com";

/// Whether a limit on the store's growth is felt: SQLite reports a file that may not grow as a disk that fails, what
/// writes the files of output as a disk that is full.
pub fn has_no_room(condition: Condition) -> bool {
    matches!(condition, Condition::DiskFull | Condition::StorageFailed)
}

/// An application with data of its own, and its administrator.
#[derive(Debug)]
pub struct TestApp {
    admin: Admin,
    directory: TempDir,
    database: String,
}

/// An administrator who asks an application for things.
#[derive(Debug)]
pub struct Admin {
    /// The application's clock, which stands still until it is moved.
    pub clock: Clock,
    /// The tenant that every store has.
    pub tenant: TenantId,
    app: App,
    caller: Caller,
}

impl TestApp {
    /// One with a database of SQLite, which has an administrator `admin` and nothing else.
    pub async fn start() -> Self {
        let directory = TempDir::new().unwrap();
        let database = sqlite_url(&directory.path().join("fleetward.db"));
        Self::start_in(directory, database).await
    }

    /// As [`Self::start`], with the database of this URL.
    pub async fn start_on(database: &str) -> Self {
        Self::start_in(TempDir::new().unwrap(), database.to_owned()).await
    }

    /// As [`Self::start`], with this place on the database.
    pub async fn start_with(tenure: Tenure) -> Self {
        let directory = TempDir::new().unwrap();
        let database = sqlite_url(&directory.path().join("fleetward.db"));
        Self::start_as(tenure, directory, database).await
    }

    async fn start_in(directory: TempDir, database: String) -> Self {
        Self::start_as(Tenure::default(), directory, database).await
    }

    async fn start_as(tenure: Tenure, directory: TempDir, database: String) -> Self {
        // TLS looks at the system's clock, so the certificates must be good there too.
        let clock = Clock::manual(Clock::System.now());
        Authority::create(&directory.path().join("pki"), NAME, clock.now()).unwrap();
        let app = open(directory.path(), &database, &clock, tenure).await;
        Self { admin: Admin::of(app, clock).await, directory, database }
    }

    /// Stops it and starts it again on the same data.
    pub async fn restart(self) -> Self {
        let Self { admin, directory, database } = self;
        admin.stop().await;
        let app = open(directory.path(), &database, &admin.clock, Tenure::default()).await;
        Self { admin: admin.again(app), directory, database }
    }

    /// Stops it as a controller does: what has arrived is committed.
    pub async fn stop(self) {
        self.admin.stop().await;
    }
}

impl Deref for TestApp {
    type Target = Admin;

    fn deref(&self) -> &Admin {
        &self.admin
    }
}

impl Admin {
    /// A new administrator `admin` of an application that has no user of this name.
    pub async fn of(app: App, clock: Clock) -> Self {
        let mut tx = app.store().write().await.unwrap();
        let tenant = tenant::list(&mut tx, &Scope::Everything).await.unwrap().remove(0).id;
        let caller = insert_admin(&mut tx, "admin", tenant, clock.now()).await;
        tx.commit().await.unwrap();
        Self { clock, tenant, app, caller }
    }

    /// The same administrator of an application that was started again on the same data.
    #[must_use]
    pub fn again(self, app: App) -> Self {
        Self { app, ..self }
    }

    async fn stop(&self) {
        self.app.dispatcher().shutdown();
        self.app.dispatcher().stopped().await;
        self.app.recorder().stop().await;
        assert!(!self.app.continuity().is_broken(), "nothing took commits away, and some were missed");
        self.app.store().clone().close().await.unwrap();
    }

    /// The application.
    #[must_use]
    pub const fn app(&self) -> &App {
        &self.app
    }

    /// What the administrator may do with this permission.
    #[must_use]
    pub fn permit<N: Need>(&self) -> Permit<N> {
        self.caller.clone().permit().unwrap()
    }

    /// What an administrator of another tenant, and of that one only, may do; the tenant is made by it.
    pub async fn permit_elsewhere<N: Need>(&self, tenant: &str) -> Permit<N> {
        let now = self.clock.now();
        let id = TenantId::from_uuid(Uuid::now_v7());
        let row =
            tenant::Tenant { id, name: tenant.parse().unwrap(), title: tenant.to_owned(), created_at: now };
        let mut tx = self.app().store().write().await.unwrap();
        tenant::insert(&mut tx, &row).await.unwrap();
        let caller = insert_admin(&mut tx, &format!("admin-of-{tenant}"), id, now).await;
        tx.commit().await.unwrap();
        caller.permit().unwrap()
    }

    /// A one-time password of the administrator, in the place of the one before.
    pub async fn one_time_password(&self) -> String {
        let mut tx = self.app().store().write().await.unwrap();
        let now = self.clock.now();
        let password = user::reset_password(&mut tx, &self.caller.name, now).await.unwrap().unwrap();
        tx.commit().await.unwrap();
        password
    }

    /// Adds a host; what it may enrol with.
    pub async fn add_host(&self, name: &str) -> (HostName, Token) {
        let name: HostName = name.parse().unwrap();
        let addition = Addition {
            name: name.clone(),
            client_id: None,
            kind: "VM".to_owned(),
            provider: String::new(),
            tags: Vec::new(),
        };
        let permit = self.permit::<ManageHosts>();
        let (_, issued) = host::add(self.app(), &permit, addition, None).await.unwrap();
        (name, issued.token)
    }

    /// A host that has enrolled, and never connects.
    pub async fn add_absent_host(&self, name: &str) {
        let (name, _) = self.add_host(name).await;
        let mut tx = self.app().store().write().await.unwrap();
        let host = fleetward_store::fleet::host::get(&mut tx, &Scope::Everything, &name).await.unwrap();
        let (from, to) = (EnrolmentState::Pending, EnrolmentState::Enrolled);
        let now = self.clock.now();
        assert!(
            fleetward_store::fleet::host::update_enrolment(&mut tx, host.id, from, to, now).await.unwrap()
        );
        tx.commit().await.unwrap();
    }

    /// An operation of `work` on an absent host, as if its run had been handed out to it.
    pub async fn handed_out(&self, host: &str) -> (OperationId, RunId) {
        let operation = self.run(&["work"], host).await.unwrap();
        let runs = self.wait_until(operation.id, |_, _| true).await.1;
        let journal = JournalId::from_uuid(Uuid::nil());
        let event = RunEvent::Dispatched { journal, deadline: operation.deadline };
        let change = RunTransition { operation: operation.id, run: runs[0].id, event, known: None };
        self.app().recorder().apply([change]).await.unwrap();
        self.app().recorder().settle().await.unwrap();
        (operation.id, runs[0].id)
    }

    /// Adds a script that takes whatever it is given.
    pub async fn add_script(&self, name: &str, content: &str) {
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

    /// An operation of these scripts on these hosts, all of them at once.
    ///
    /// # Errors
    /// [`OperationError`] if the application refuses it.
    pub async fn run(&self, scripts: &[&str], on: &str) -> Result<Operation, OperationError> {
        let policy =
            RolloutPolicy { concurrency: NonZeroU32::new(1000).unwrap(), ..RolloutPolicy::default() };
        self.run_with(scripts, on, policy).await
    }

    /// As [`Self::run`], under a policy.
    ///
    /// # Errors
    /// [`OperationError`] if the application refuses it.
    pub async fn run_with(
        &self,
        scripts: &[&str],
        on: &str,
        policy: RolloutPolicy,
    ) -> Result<Operation, OperationError> {
        let asked = |name: &&str| {
            let name: ScriptName = name.parse().unwrap();
            action::script::asked(name, Vec::new(), &Surroundings::default())
        };
        self.ask(scripts.iter().map(asked).collect(), on, policy).await
    }

    /// An operation of these steps on these hosts, under a policy.
    ///
    /// # Errors
    /// [`OperationError`] if the application refuses it.
    pub async fn ask(
        &self,
        steps: Vec<action::Asked>,
        on: &str,
        policy: RolloutPolicy,
    ) -> Result<Operation, OperationError> {
        let asked = Asked {
            id: None,
            digest: Digest::of(on.as_bytes()),
            plan: None,
            steps,
            on: on.to_owned(),
            policy,
            canary: None,
            reason: None,
            not_enrolled: NotEnrolledHosts::Refuse,
        };
        operation::create(self.app(), &self.permit(), asked).await
    }

    /// Waits until the operation has ended; its status and its runs.
    pub async fn wait_for_end(&self, id: OperationId) -> (OperationStatus, Vec<Run>) {
        self.wait_until(id, |operation, _| operation.status.is_final()).await
    }

    /// Waits until the operation and its runs are as wanted.
    pub async fn wait_until(
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
                    fleetward_store::work::operation::get(&mut conn, &Scope::Everything, id).await.unwrap();
                let runs = fleetward_store::work::run::list_all(&mut conn, id).await.unwrap();
                drop(conn);
                if wanted(&operation, &runs) {
                    return (operation.status, runs);
                }
                watch.changed().await.unwrap();
            }
        };
        tokio::time::timeout(Duration::from_secs(20), wait).await.expect("the operation gets there")
    }

    /// The whole log of a run.
    pub async fn output(&self, run: &Run) -> Vec<u8> {
        let mut conn = self.app().store().read().await.unwrap();
        fleetward_store::work::output::read(
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
    pub async fn has_audited(&self, kind: &str) -> bool {
        !self.audited(kind).await.is_empty()
    }

    /// The audit events of a kind, the oldest first.
    pub async fn audited(&self, kind: &str) -> Vec<fleetward_store::people::audit::Event> {
        let mut conn = self.app().store().read().await.unwrap();
        let events = fleetward_store::people::audit::list_chain(&mut conn, 1, 1000).await.unwrap();
        events.into_iter().filter(|event| event.event.kind == kind).collect()
    }
}

/// Everything that was logged, as a writer of a subscriber.
#[derive(Debug, Clone, Default)]
pub struct Log(Arc<Mutex<Vec<u8>>>);

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
    pub fn subscriber(&self) -> impl tracing::Subscriber + Send + Sync + use<> {
        let log = self.clone();
        tracing_subscriber::fmt().json().with_writer(move || log.clone()).finish()
    }

    /// The events of this name since the last call; every one must say when it was.
    pub fn take(&self, name: &str) -> Vec<serde_json::Value> {
        let text = String::from_utf8(std::mem::take(&mut *self.0.lock().unwrap())).unwrap();
        let lines = text.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
        let events: Vec<_> = lines.filter(|line| line["fields"]["message"] == name).collect();
        for event in &events {
            let time = event["timestamp"].as_str().unwrap();
            assert!(time.parse::<jiff::Timestamp>().is_ok(), "{time}");
        }
        events
    }
}

/// Settings of an application with its data in `directory`, as a controller has them without a configuration file.
#[must_use]
pub fn settings(directory: &Path) -> Settings {
    const DAY: Duration = Duration::from_secs(86_400);
    Settings {
        advertise: format!("{NAME}:7443"),
        controllers: [NAME, "other.example.com"].map(|name| Text::of(format_args!("{name}:7443"))).into(),
        logins_per_minute: 30,
        enrolment: Enrolment { token_lifetime: DAY, attempts_per_minute: 30, certificate_lifetime: 30 * DAY },
        audit: AuditRetention { age: 3 * 365 * DAY, size: 4 << 30 },
        operations_kept: 365 * DAY,
        kept_on_hosts: Duration::ZERO,
        mirrors: directory.join("repo"),
        reach: Reach::Anywhere,
    }
}

/// The application with its data in `directory` and in the database of this URL.
async fn open(directory: &Path, database: &str, clock: &Clock, tenure: Tenure) -> App {
    let authority = Authority::load(&directory.join("pki")).unwrap();
    let secrets = SecretBox::load_or_create(&directory.join("secret.key")).unwrap();
    let store = Store::open(database, clock.now()).await.unwrap();
    let kinds = Kinds::with::<Levitate>();
    App::start(settings(directory), clock.clone(), kinds, store, authority, secrets, tenure).await.unwrap()
}

/// An administrator without a password.
async fn insert_admin(tx: &mut Tx, name: &str, tenant: TenantId, now: Timestamp) -> Caller {
    let row = User {
        id: UserId::from_uuid(Uuid::now_v7()),
        name: name.parse().unwrap(),
        password_hash: None,
        must_change_password: false,
        known_parties: Vec::new(),
        disabled_at: None,
        created_at: now,
    };
    let grant = Grant { tenant, role: Role::Admin };
    fleetward_store::people::user::insert(tx, &row).await.unwrap();
    fleetward_store::people::user::insert_grant(tx, row.id, grant, now).await.unwrap();
    Caller {
        user: row.id,
        name: row.name,
        session: SessionId::from_uuid(Uuid::nil()),
        ends_at: None,
        grants: Grants::new(vec![grant]),
        must_change_password: false,
        remote: None,
    }
}
