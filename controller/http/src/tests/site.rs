//! A site of its own for each test.

use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderMap, Method, Request, StatusCode};
use axum::response::Response;
use fleetward_app::App;
use fleetward_app::clock::Clock;
use fleetward_app::fleet::controller::Tenure;
use fleetward_app::secret::SecretBox;
use fleetward_app::settings::Settings;
use fleetward_app::testing::levitate::Levitate;
use fleetward_app::testing::{NAME, settings};
use fleetward_app::work::action::Kinds;
use fleetward_domain::fleet::contract::FreeArguments;
use fleetward_domain::people::permission::{Grant, Role};
use fleetward_domain::work::run::{Custody, RunState};
use fleetward_pki::Authority;
use fleetward_protocol::digest::Digest;
use fleetward_protocol::id::{JournalId, OperationId, RunId, SessionId, TenantId, UserId};
use fleetward_protocol::output::{Record, Stream};
use fleetward_protocol::time::Timestamp;
use fleetward_repo::Reach;
use fleetward_store::fleet::host;
use fleetward_store::fleet::script;
use fleetward_store::people::session::{Session, SessionKind};
use fleetward_store::people::{session, tenant, user};
use fleetward_store::testing::{self, NOW, TestStore};
use fleetward_store::work::batch::{self, Append, RunChange, Write};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;
use uuid::Uuid;

use crate::{MetricsToken, Site, Wire, router};

/// What the site's monitoring reads the figures with.
pub(super) const METRICS_TOKEN: &str = "of the monitoring, and of nobody else";

/// A site, and an administrator who is logged in.
pub(super) struct TestSite {
    pub(super) app: App,
    pub(super) clock: Clock,
    pub(super) stopping: CancellationToken,
    pub(super) token: String,
    pub(super) site: Site,
    router: axum::Router,
    _store: TestStore,
    _data: tempfile::TempDir,
}

/// An answer that was read to its end.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) bytes: Vec<u8>,
}

impl TestSite {
    /// On SQLite.
    pub(super) async fn new() -> Self {
        Self::on(testing::sqlite().await).await
    }

    /// On a store.
    pub(super) async fn on(store: TestStore) -> Self {
        let data = tempfile::tempdir().unwrap();
        let authority = Authority::create(&data.path().join("pki"), NAME, NOW).unwrap();
        let secrets = SecretBox::load_or_create(&data.path().join("secret.key")).unwrap();
        let settings = Settings { reach: Reach::Others, ..settings(data.path()) };
        let clock = Clock::manual(NOW);
        let app = App::start(
            settings,
            clock.clone(),
            Kinds::with::<Levitate>(),
            store.store.clone(),
            authority,
            secrets,
            Tenure::default(),
        )
        .await
        .unwrap();
        let stopping = CancellationToken::new();
        let file = data.path().join("metrics.token");
        std::fs::write(&file, format!("{METRICS_TOKEN}\n")).unwrap();
        let metrics_token = Some(MetricsToken::read(&file).unwrap());
        let site = Site { app: app.clone(), wire: Wire::Tls, stopping: stopping.clone(), metrics_token };
        let router = router(site.clone());
        let mut site =
            Self { app, clock, stopping, token: String::new(), site, router, _store: store, _data: data };
        site.token = site.login_as("ada", Role::Admin).await;
        site
    }

    /// A user with a role, logged in without a password.
    pub(super) async fn login_as(&self, name: &str, role: Role) -> String {
        self.login_in(tenant::DEFAULT, name, role).await
    }

    /// The same in a tenant.
    pub(super) async fn login_in(&self, tenant: TenantId, name: &str, role: Role) -> String {
        let now = self.app.now();
        let id = UserId::from_uuid(Uuid::now_v7());
        let token = format!("fws_{name}");
        let mut tx = self.app.store().write().await.unwrap();
        let row = user::User {
            id,
            name: name.parse().unwrap(),
            password_hash: None,
            must_change_password: false,
            known_parties: Vec::new(),
            disabled_at: None,
            created_at: now,
        };
        user::insert(&mut tx, &row).await.unwrap();
        user::insert_grant(&mut tx, id, Grant { tenant, role }, now).await.unwrap();
        let login = Session {
            id: SessionId::from_uuid(Uuid::now_v7()),
            user: id,
            kind: SessionKind::Login,
            secret_digest: Digest::of(token.as_bytes()),
            name: "test".to_owned(),
            created_at: now,
            last_used_at: now,
            expires_at: Some(now + Duration::from_secs(24 * 60 * 60)),
        };
        session::insert(&mut tx, &login).await.unwrap();
        tx.commit().await.unwrap();
        token
    }

    /// Sends a request as it is.
    pub(super) async fn send(&self, request: Request<Body>) -> Response {
        self.router.clone().oneshot(request).await.unwrap()
    }

    /// A request of the administrator.
    pub(super) async fn call(&self, method: &str, path: &str, body: Option<Value>) -> Answer {
        self.call_as(&self.token, method, path, body).await
    }

    /// A request with a token.
    pub(super) async fn call_as(&self, token: &str, method: &str, path: &str, body: Option<Value>) -> Answer {
        let mut request =
            Request::builder().method(method).uri(path).header("authorization", format!("Bearer {token}"));
        let body = match body {
            Some(body) => {
                request = request.header("content-type", "application/json");
                Body::from(body.to_string())
            }
            None => Body::empty(),
        };
        Answer::read(self.send(request.body(body).unwrap()).await).await
    }

    /// The JSON of a page that must be there.
    pub(super) async fn get(&self, path: &str) -> Value {
        let answer = self.call("GET", path, None).await;
        assert_eq!(answer.status, StatusCode::OK, "{path}: {answer:?}");
        answer.json()
    }

    /// A host that has enrolled.
    pub(super) async fn enrolled_host(&self, name: &str) {
        let added = self.call("POST", "/api/v1/hosts", Some(json!({ "name": name, "type": "VM" }))).await;
        assert_eq!(added.status, StatusCode::CREATED, "{added:?}");
        let id = added.json()["host"]["id"].as_str().unwrap().parse().unwrap();
        let mut tx = self.app.store().write().await.unwrap();
        let (from, to) = (host::Enrolment::Pending, host::Enrolment::Enrolled);
        assert!(host::update_enrolment(&mut tx, id, from, to, NOW).await.unwrap());
        tx.commit().await.unwrap();
    }

    /// A script in the inventory.
    pub(super) async fn script(&self, name: &str) {
        let mut tx = self.app.store().write().await.unwrap();
        let content = format!("#!/bin/bash\necho {name}\n");
        let digest = script::insert_content(&mut tx, content.as_bytes(), NOW).await.unwrap();
        let row = script::Script {
            tenant: tenant::DEFAULT,
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
            path: Some(format!("scripts/{name}.sh")),
            commit: "0".repeat(40),
            created_at: NOW,
            updated_at: NOW,
            retired_at: None,
        };
        script::update(&mut tx, &row).await.unwrap();
        tx.commit().await.unwrap();
    }

    /// An operation of `baseline` on these hosts, which wait: nobody is connected.
    pub(super) async fn operation(&self, on: &str) -> Value {
        let body = json!({ "scripts": [{ "name": "baseline" }], "on": on });
        let created = self.call("POST", "/api/v1/operations", Some(body)).await;
        assert_eq!(created.status, StatusCode::CREATED, "{created:?}");
        created.json()
    }

    /// Commits changes of an operation's runs as the recorder does, and wakes who watches.
    pub(super) async fn commit(&self, writes: Vec<Write>) {
        let mut tx = self.app.store().write().await.unwrap();
        let committed = batch::write(&mut tx, self.app.store().files(), writes).await.unwrap();
        tx.commit().await.unwrap();
        for (operation, seq) in committed.seqs {
            self.app.live().announce(operation, seq);
        }
    }
}

impl Answer {
    pub(super) async fn read(response: Response) -> Self {
        let (parts, body) = response.into_parts();
        let bytes = axum::body::to_bytes(body, usize::MAX).await.unwrap().to_vec();
        Self { status: parts.status, headers: parts.headers, bytes }
    }

    pub(super) fn json(&self) -> Value {
        serde_json::from_slice(&self.bytes).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// The error's code, after checking its shape (P36).
    pub(super) fn code(&self) -> String {
        assert!(self.status.as_u16() >= 400, "{self:?}");
        let body = self.json();
        let object = body.as_object().unwrap();
        let keys: Vec<&str> = object.keys().map(String::as_str).collect();
        assert_eq!(keys, ["code", "details", "error", "timestamp"], "{body}");
        let code = body["code"].as_str().unwrap();
        assert!(
            !code.is_empty() && code.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'_'),
            "{code}"
        );
        assert!(!body["error"].as_str().unwrap().is_empty());
        assert!(body["details"].is_object());
        assert!(body["timestamp"].as_str().unwrap().ends_with('Z'));
        assert!(self.headers.contains_key("x-request-id"), "{self:?}");
        code.to_owned()
    }
}

/// A method that axum takes.
pub(super) fn method(name: &str) -> Method {
    name.parse().unwrap()
}

/// A piece of a run's log that begins at `offset`; and where it ends.
pub(super) fn written(
    operation: OperationId,
    run: RunId,
    offset: u64,
    records: &[(Stream, &[u8])],
) -> (Write, u64) {
    let mut bytes = Vec::new();
    for (stream, payload) in records {
        Record { stream: *stream, at: NOW, payload }.append_to(&mut bytes);
    }
    let end = offset + bytes.len() as u64;
    (Write::Output(Append { operation, run, offset, bytes: bytes.into() }), end)
}

/// A run's step from one state to the next.
pub(super) fn moved(operation: OperationId, run: RunId, from: RunState, to: RunState) -> Write {
    let at = Timestamp::from_millis(NOW.as_millis() + 1000);
    let change = RunChange { operation, run, from, to, at, duration_ms: None, left: None, attached: 0 };
    Write::Run(change)
}

/// The hold of a host whose journal nobody knows.
pub(super) fn custody() -> Custody {
    Custody { journal: JournalId::from_uuid(Uuid::from_u128(7)), cancel: None }
}
