//! The rows of a database, and how every table gets one.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::Path;

use fleetward_domain::fleet::contract::FreeArguments;
use fleetward_domain::fleet::twin::{Machine, Twins};
use fleetward_domain::people::permission::{Grant, Role};
use fleetward_domain::work::run::RunState;
use fleetward_protocol::digest::Digest;
use fleetward_protocol::facts::{Disk, Facts, Upkeep};
use fleetward_protocol::id::{AuditId, BootId, ControllerId, JournalId, SessionId, SyncId, TokenId, UserId};
use fleetward_protocol::output::{Record, Stream};
use fleetward_protocol::text::{List, Text};
use serde_json::{Map, Value, json};
use sqlx::any::AnyRow;
use sqlx::{AssertSqlSafe, Column as _, Row as _};

use crate::fleet::{certificate, controller, group, host, repository, script, sync, token};
use crate::page::PageRequest;
use crate::people::{audit, idempotency, session, tenant, user};
use crate::testing::NOW;
use crate::tests::sample::*;
use crate::work::{batch, operation, output, report, run, step};
use crate::{Engine, Scope, Store, setting};

/// By table, parents first.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Rows(Vec<(String, Vec<Map<String, Value>>)>);

/// What stands in a column of bytes.
const BYTES: &str = "bytes:";

impl Rows {
    /// All rows but those of the ledger of steps.
    pub(super) async fn of(store: &Store) -> Self {
        let mut conn = store.read().await.unwrap();
        let (tables, references) = match store.engine() {
            Engine::Sqlite => (
                "SELECT name FROM sqlite_master WHERE type = 'table' AND name <> 'schema_step' ORDER BY name",
                "SELECT m.name, f.\"table\" FROM sqlite_master m, pragma_foreign_key_list(m.name) f WHERE m.type = 'table'",
            ),
            Engine::Postgres => (
                "SELECT tablename::text FROM pg_tables WHERE schemaname = 'public' AND tablename <> 'schema_step' ORDER BY 1",
                "SELECT c.relname::text, p.relname::text FROM pg_constraint k JOIN pg_class c ON c.oid = k.conrelid \
                 JOIN pg_class p ON p.oid = k.confrelid WHERE k.contype = 'f'",
            ),
        };
        let mut left: BTreeSet<String> =
            sqlx::query_scalar(tables).fetch_all(&mut *conn).await.unwrap().into_iter().collect();
        let references: Vec<(String, String)> = sqlx::query(references)
            .fetch_all(&mut *conn)
            .await
            .unwrap()
            .iter()
            .map(|row| (row.get(0), row.get(1)))
            .collect();
        let mut all = Vec::new();
        while let Some(table) = left
            .iter()
            .find(|table| !references.iter().any(|(child, parent)| child == *table && left.contains(parent)))
            .cloned()
        {
            left.remove(&table);
            let select = format!("SELECT * FROM \"{table}\"");
            let found = sqlx::query(AssertSqlSafe(select)).fetch_all(&mut *conn).await.unwrap();
            let mut rows: Vec<Map<String, Value>> = found.iter().map(read).collect();
            rows.sort_by_key(|row| Value::Object(row.clone()).to_string());
            if rows.is_empty() {
                // The columns, still.
                let columns = format!("SELECT * FROM (SELECT 1) one LEFT JOIN \"{table}\" ON 1 = 0");
                let found = sqlx::query(AssertSqlSafe(columns)).fetch_one(&mut *conn).await.unwrap();
                all.push((table.clone(), vec![]));
                let names =
                    found.columns().iter().skip(1).map(|column| (column.name().to_owned(), Value::Null));
                all.last_mut().unwrap().1.push(names.collect());
                continue;
            }
            all.push((table, rows));
        }
        assert!(left.is_empty(), "tables that refer to each other: {left:?}");
        Self(all)
    }

    pub(super) fn read(file: &Path) -> Self {
        let text = std::fs::read_to_string(file).unwrap_or_else(|error| {
            panic!("{}: {error}; `cargo xtask bless` writes the rows of the newest schema", file.display())
        });
        Self(serde_json::from_str(&text).unwrap())
    }

    /// One row on each line.
    pub(super) fn to_text(&self) -> String {
        let mut text = "[\n".to_owned();
        for (at, (table, rows)) in self.0.iter().enumerate() {
            let rows: Vec<_> = rows.iter().map(|row| Value::Object(row.clone()).to_string()).collect();
            let end = if at + 1 == self.0.len() { "" } else { "," };
            writeln!(text, "[\"{table}\", [\n{}\n]]{end}", rows.join(",\n")).unwrap();
        }
        text + "]\n"
    }

    pub(super) fn columns(&self) -> BTreeSet<(String, String)> {
        let of = |(table, rows): &(String, Vec<Map<String, Value>>)| {
            let columns: Vec<_> = rows.iter().flat_map(|row| row.keys().cloned()).collect();
            let table = table.clone();
            columns.into_iter().map(move |column| (table.clone(), column))
        };
        self.0.iter().flat_map(of).collect()
    }

    /// Tables without a row.
    pub(super) fn empty(&self) -> Vec<&str> {
        let is_empty = |rows: &[Map<String, Value>]| rows.iter().all(|row| row.values().all(Value::is_null));
        self.0.iter().filter(|(_, rows)| is_empty(rows)).map(|(table, _)| table.as_str()).collect()
    }

    /// Puts the rows into a database of their schema, in the place of what a fresh one has.
    pub(super) async fn insert(&self, store: &Store) {
        Self::delete(store).await;
        let mut tx = store.write().await.unwrap();
        for (table, rows) in &self.0 {
            for row in rows {
                let columns: Vec<_> = row.keys().map(|column| format!("\"{column}\"")).collect();
                let values: Vec<_> = row.values().map(|value| literal(store.engine(), value)).collect();
                let insert = format!(
                    "INSERT INTO \"{table}\" ({}) VALUES ({})",
                    columns.join(", "),
                    values.join(", ")
                );
                sqlx::raw_sql(AssertSqlSafe(insert)).execute(&mut *tx).await.unwrap();
            }
        }
        tx.commit().await.unwrap();
    }

    /// Empties every table, children first.
    pub(super) async fn delete(store: &Store) {
        let all = Self::of(store).await;
        let mut tx = store.write().await.unwrap();
        for (table, _) in all.0.iter().rev() {
            let delete = format!("DELETE FROM \"{table}\"");
            sqlx::raw_sql(AssertSqlSafe(delete)).execute(&mut *tx).await.unwrap();
        }
        tx.commit().await.unwrap();
    }

    /// That each of these rows is in `later`, in the columns that it has there.
    pub(super) fn assert_in(&self, later: &Self) {
        let later: BTreeMap<_, _> = later.0.iter().map(|(table, rows)| (table, rows)).collect();
        for (table, rows) in &self.0 {
            let there = later.get(table).unwrap_or_else(|| panic!("the table `{table}` is gone"));
            assert_eq!(there.len(), rows.len(), "rows of `{table}`");
            for row in rows {
                let is_same = |other: &&Map<String, Value>| {
                    row.iter().all(|(column, value)| other.get(column).is_none_or(|there| there == value))
                };
                assert!(there.iter().any(|other| is_same(&other)), "a row of `{table}` is gone: {row:?}");
            }
        }
    }
}

fn read(row: &AnyRow) -> Map<String, Value> {
    let value = |at: usize| {
        if let Ok(number) = row.try_get::<Option<i64>, _>(at) {
            json!(number)
        } else if let Ok(text) = row.try_get::<Option<String>, _>(at) {
            json!(text)
        } else {
            let bytes: Vec<u8> = row.get(at);
            json!(format!("{BYTES}{}", hex(&bytes)))
        }
    };
    row.columns().iter().map(|column| (column.name().to_owned(), value(column.ordinal()))).collect()
}

fn literal(engine: Engine, value: &Value) -> String {
    match value {
        Value::Null => "NULL".to_owned(),
        Value::Number(number) => number.to_string(),
        Value::String(text) => match (text.strip_prefix(BYTES), engine) {
            (Some(hex), Engine::Sqlite) => format!("X'{hex}'"),
            (Some(hex), Engine::Postgres) => format!("'\\x{hex}'::bytea"),
            (None, _) => format!("'{}'", text.replace('\'', "''")),
        },
        other => panic!("{other} stands in no column"),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

const UPKEEP: Upkeep = Upkeep { time_synchronised: Some(true), updates: Some(7), security_updates: Some(2) };

fn facts() -> Facts {
    Facts {
        hostname: Text::of("web-1"),
        os: Text::of("debian"),
        os_version: Text::of("12"),
        os_name: Text::of("Debian GNU/Linux 12 (bookworm)"),
        kernel: Text::of("6.1.0-32-amd64"),
        arch: Text::of("x86_64"),
        cpu_model: Text::of("EPYC"),
        cpus: 2,
        memory_total: 8 << 30,
        memory_available: 4 << 30,
        swap_total: 0,
        disks: List::of([Disk {
            mount: Text::of("/"),
            file_system: Text::of("ext4"),
            total: 100 << 30,
            available: 50 << 30,
        }]),
        addresses: List::of([Text::of("192.0.2.7"), Text::of("2001:db8::7")]),
        uptime_s: 86_400,
        virtualisation: Text::of("kvm"),
        load: [10, 20, 30],
        reboot_required: false,
    }
}

/// Puts something into every table, through the store's functions; [`read_all`] finds it by its names.
pub(super) async fn fill(store: &Store) {
    let mut tx = store.write().await.unwrap();
    let ada = user::User {
        id: UserId::from_uuid(uuid()),
        name: "ada".parse().unwrap(),
        password_hash: Some("$argon2id$".to_owned()),
        must_change_password: true,
        known_parties: Vec::new(),
        disabled_at: None,
        created_at: NOW,
    };
    user::insert(&mut tx, &ada).await.unwrap();
    user::insert_grant(&mut tx, ada.id, Grant { tenant: tenant::DEFAULT, role: Role::Admin }, NOW)
        .await
        .unwrap();
    let login = session::Session {
        id: SessionId::from_uuid(uuid()),
        user: ada.id,
        kind: session::SessionKind::Login,
        secret_digest: Digest::of(b"session"),
        name: "cli".to_owned(),
        created_at: NOW,
        last_used_at: NOW,
        expires_at: Some(at(60)),
    };
    session::insert(&mut tx, &login).await.unwrap();
    idempotency::insert(&mut tx, ada.id, "key", &Digest::of(b"request"), at(60), NOW).await.unwrap();

    let web = new_host(tenant::DEFAULT, "web-1");
    host::insert(&mut tx, &web, NOW).await.unwrap();
    let journal = JournalId::from_uuid(uuid());
    let hello = host::Connected {
        agent_version: Text::of("1.0.0"),
        boot: BootId::from_uuid(uuid()),
        journal,
        kinds: List::of([Text::of("script")]),
        clock_skew_ms: -3,
    };
    host::update_connected(&mut tx, web.id, &hello, NOW).await.unwrap();
    let facts = facts();
    host::update_facts(&mut tx, web.id, &facts, &facts.digest(hello.boot), NOW).await.unwrap();
    host::update_upkeep(&mut tx, web.id, &UPKEEP).await.unwrap();
    host::update_notice(&mut tx, web.id, &host::Notice { at: NOW, text: "its clock stepped".to_owned() })
        .await
        .unwrap();
    let machine = |address: &str| Machine {
        address: address.parse().unwrap(),
        boot: hello.boot,
        journal,
        first_seen: NOW,
        last_seen: NOW,
    };
    let twins =
        Twins { machines: [machine("192.0.2.1"), machine("192.0.2.2")], since: NOW, at: NOW, changes: 2 };
    host::update_twins(&mut tx, web.id, &twins).await.unwrap();
    let issued = certificate::Certificate {
        serial: "0a".to_owned(),
        tenant: tenant::DEFAULT,
        host: web.id,
        fingerprint: Digest::of(b"certificate"),
        not_before: NOW,
        not_after: at(1000),
        issued_at: NOW,
        revoked_at: None,
        revoke_reason: None,
    };
    certificate::insert(&mut tx, &issued).await.unwrap();
    let enrol = token::Token {
        id: TokenId::from_uuid(uuid()),
        tenant: tenant::DEFAULT,
        host: Some(web.id),
        secret_digest: Digest::of(b"token"),
        created_by: Some(ada.id),
        created_at: NOW,
        expires_at: at(60),
        used_at: None,
        used_by: None,
    };
    token::insert(&mut tx, &enrol).await.unwrap();
    let serving = controller::Controller {
        id: ControllerId::from_uuid(uuid()),
        name: "ctl.example.com".to_owned(),
        version: "1.0.0".to_owned(),
        beat: 7,
        started_at: NOW,
    };
    controller::insert(&mut tx, &serving).await.unwrap();

    let repo = repository::Repository {
        tenant: tenant::DEFAULT,
        url: "https://git.example.com/f.git".to_owned(),
        branch: "main".to_owned(),
        credentials: Some(vec![0, 1, 255]),
        interval: std::time::Duration::from_secs(900),
        good: None,
        created_at: NOW,
        updated_at: NOW,
    };
    repository::update(&mut tx, &repo).await.unwrap();
    repository::update_good(&mut tx, tenant::DEFAULT, "c0ffee", NOW).await.unwrap();
    let attempt = sync::Sync {
        id: SyncId::from_uuid(uuid()),
        tenant: tenant::DEFAULT,
        url: repo.url.clone(),
        branch: repo.branch.clone(),
        triggered_by: "ada".to_owned(),
        status: sync::SyncStatus::Running,
        started_at: NOW,
        ended_at: None,
        commit: None,
        failure: None,
        problems: vec![],
        counts: sync::Counts::default(),
        departures: None,
    };
    sync::insert(&mut tx, &attempt).await.unwrap();
    let databases = group::Group {
        tenant: tenant::DEFAULT,
        name: "databases".parse().unwrap(),
        expression: "tag:db".to_owned(),
        description: "PostgreSQL".to_owned(),
        updated_by: ada.name.clone(),
        created_at: NOW,
        updated_at: NOW,
    };
    group::update(&mut tx, &databases).await.unwrap();
    let digest = script::insert_content(&mut tx, b"#!/bin/bash\n", NOW).await.unwrap();
    let baseline = script::Script {
        tenant: tenant::DEFAULT,
        name: "baseline".parse().unwrap(),
        digest,
        display_name: "Baseline".to_owned(),
        description: "Checks".to_owned(),
        emoji: String::new(),
        flags: vec![],
        free_arguments: FreeArguments::None,
        environment: vec![],
        users: vec!["postgres".parse().unwrap()],
        estimated: Some(std::time::Duration::from_secs(3)),
        timeout: None,
        user: Some("nobody".parse().unwrap()),
        resources: vec!["apt".parse().unwrap()],
        tags: vec![],
        path: Some("scripts/b.sh".to_owned()),
        commit: "c0ffee".to_owned(),
        created_at: NOW,
        updated_at: NOW,
        retired_at: None,
    };
    script::update(&mut tx, &baseline).await.unwrap();

    let op = operation::NewOperation { created_by: Some(ada.id), ..new_operation(tenant::DEFAULT) };
    operation::insert(&mut tx, &op, NOW).await.unwrap();
    let (planned, waiting) = (new_run(&web, 0), run::NewRun { step: 1, ..new_run(&web, 0) });
    run::insert(&mut tx, tenant::DEFAULT, op.id, &[planned.clone(), waiting], NOW).await.unwrap();
    let held = RunState::Dispatched(custody());
    let mut log = Vec::new();
    Record { stream: Stream::Stdout, at: NOW, payload: b"hello\n" }.append_to(&mut log);
    Record { stream: Stream::Report, at: NOW, payload: br#"{"changed":true}"# }.append_to(&mut log);
    let writes = vec![
        change(op.id, planned.id, RunState::Queued, held.clone()),
        append(op.id, planned.id, 0, &log),
        change(op.id, planned.id, held, RunState::Succeeded),
    ];
    batch::write(&mut tx, store.files(), writes).await.unwrap();

    let event = audit::NewEvent {
        id: AuditId::from_uuid(uuid()),
        tenant: Some(tenant::DEFAULT),
        at: NOW,
        kind: "host.added".to_owned(),
        actor: "ada".to_owned(),
        subject: "web-1".to_owned(),
        details: Map::new(),
    };
    audit::insert(&mut tx, &event).await.unwrap();
    setting::update(&mut tx, "a", "value", NOW).await.unwrap();
    tx.commit().await.unwrap();
}

/// Reads what [`fill`] made, noun by noun.
pub(super) async fn read_all(store: &Store) {
    let everything = Scope::Everything;
    let mut tx = store.write().await.unwrap();
    let tx = &mut *tx;
    assert_eq!(tenant::list(tx, &everything).await.unwrap().len(), 1);
    let ada = user::find(tx, &"ada".parse().unwrap()).await.unwrap().unwrap();
    assert_eq!(user::list_grants(tx, ada.id).await.unwrap().as_slice().len(), 1);
    session::find_live(tx, &Digest::of(b"session"), NOW).await.unwrap().unwrap();
    assert_eq!(idempotency::living(tx, ada.id, NOW).await.unwrap().0, 1);
    let web = host::get(tx, &everything, &"web-1".parse().unwrap()).await.unwrap();
    assert_eq!((web.facts.clone(), web.notices.len(), web.twins.is_some()), (Some(facts()), 1, true));
    assert_eq!(web.upkeep, Some(UPKEEP));
    certificate::find(tx, &Digest::of(b"certificate")).await.unwrap().unwrap();
    token::find(tx, &Digest::of(b"token")).await.unwrap().unwrap();
    assert_eq!(controller::list_living(tx).await.unwrap().len(), 1);
    let repo = repository::find(tx, &everything, tenant::DEFAULT).await.unwrap().unwrap();
    assert_eq!((repo.good_commit(), repo.credentials.as_deref()), (Some("c0ffee"), Some(&[0, 1, 255][..])));
    assert_eq!(sync::list(tx, &everything, &PageRequest::first(9)).await.unwrap().items.len(), 1);
    let groups = group::list_named(tx, &everything, &"databases".parse().unwrap()).await.unwrap();
    assert_eq!((groups.len(), groups[0].expression.as_str()), (1, "tag:db"));
    let script = script::get(tx, &everything, &"baseline".parse().unwrap()).await.unwrap();
    assert_eq!(script::get_content(tx, &script.digest).await.unwrap(), b"#!/bin/bash\n");
    let op = operation::find_by_number(tx, &everything, 1).await.unwrap().unwrap();
    operation::get_plan(tx, op.id).await.unwrap();
    assert_eq!(step::list(tx, &everything, op.id).await.unwrap().len(), 1);
    let runs = run::list_all(tx, op.id).await.unwrap();
    assert_eq!((runs.len(), &runs[0].state, &runs[1].state), (2, &RunState::Succeeded, &RunState::Queued));
    assert_eq!(
        report::list(tx, &everything, &[runs[0].id]).await.unwrap()[&runs[0].id],
        r#"{"changed":true}"#
    );
    let log = output::read(tx, store.files(), &everything, runs[0].id, 0, 1 << 20).await.unwrap();
    assert_eq!(log.len() as u64, runs[0].output_end);
    let chain = audit::list_chain(tx, 1, 10).await.unwrap();
    audit::verify(1, audit::genesis(), &chain).unwrap();
    assert_eq!(chain.len(), 1);
    assert_eq!(setting::find(tx, "a").await.unwrap().as_deref(), Some("value"));
}
