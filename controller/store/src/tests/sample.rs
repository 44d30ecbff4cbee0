//! Rows to begin with.

use std::cell::Cell;

use crate::testing::NOW;
use fleetward_domain::work::operation::RolloutPolicy;
use fleetward_domain::work::run::{Custody, RunState};
use fleetward_protocol::client_id::ClientId;
use fleetward_protocol::digest::Digest;
use fleetward_protocol::id::{HostId, JournalId, OperationId, RunId, TenantId};
use fleetward_protocol::time::Timestamp;
use uuid::Uuid;

use crate::Store;
use crate::fleet::host;
use crate::fleet::host::{Declaration, Enrolment, NewHost, Source};
use crate::people::tenant;
use crate::work::batch::{self, Append, Committed, RunChange, Write};
use crate::work::operation::NewOperation;
use crate::work::run::NewRun;
use crate::work::step::{NewStep, Step};
use crate::work::{operation, run};

pub(super) fn at(seconds: i64) -> Timestamp {
    Timestamp::from_millis(NOW.as_millis() + seconds * 1000)
}

thread_local! {
    /// How many ids this thread has counted; `None` where they are made.
    static COUNTED: Cell<Option<u64>> = const { Cell::new(None) };
}

/// From here on this thread's ids are counted, so that what is written with them is the same each time.
pub(super) fn count_ids() {
    COUNTED.set(Some(0));
}

pub(super) fn uuid() -> Uuid {
    let Some(count) = COUNTED.get() else { return Uuid::now_v7() };
    COUNTED.set(Some(count + 1));
    let mut rest = [0; 10];
    rest[2..].copy_from_slice(&count.to_be_bytes());
    uuid::Builder::from_unix_timestamp_millis(NOW.as_millis().unsigned_abs(), &rest).into_uuid()
}

/// A tenant of its own, so that many cases can share a database.
pub(super) async fn tenant(store: &Store) -> TenantId {
    let id = TenantId::from_uuid(uuid());
    let name = format!("t{}", id.as_uuid().simple()).parse().unwrap();
    let mut tx = store.write().await.unwrap();
    let row = tenant::Tenant { id, name, title: "Sample".to_owned(), created_at: NOW };
    tenant::insert(&mut tx, &row).await.unwrap();
    tx.commit().await.unwrap();
    id
}

pub(super) fn declaration(name: &str) -> Declaration {
    Declaration {
        name: name.parse().unwrap(),
        client_id: ClientId::issued(uuid()),
        host_type: "VPS".to_owned(),
        provider: "Example".to_owned(),
        address: Some("192.0.2.7".to_owned()),
        port: Some(22),
        login_user: Some("ops".to_owned()),
        key_ref: None,
        proxy_jump: None,
        enrolment_required: true,
        tags: vec!["prod".parse().unwrap(), "web".parse().unwrap()],
        metadata: serde_json::Map::new(),
    }
}

pub(super) fn new_host(tenant: TenantId, name: &str) -> NewHost {
    NewHost {
        id: HostId::from_uuid(uuid()),
        tenant,
        declared: declaration(name),
        source: Source::Api,
        enrolment: Enrolment::Pending,
    }
}

pub(super) async fn insert_host(store: &Store, host: &NewHost) {
    let mut tx = store.write().await.unwrap();
    host::insert(&mut tx, host, NOW).await.unwrap();
    tx.commit().await.unwrap();
}

pub(super) fn new_operation(tenant: TenantId) -> NewOperation {
    NewOperation {
        id: OperationId::from_uuid(uuid()),
        tenant,
        request_digest: Digest::of(b"request"),
        plan: vec![1],
        steps: vec![NewStep {
            shown: Step {
                kind: "levitate".to_owned(),
                subject: "baseline".to_owned(),
                digest: Digest::of(b"levitate baseline"),
                params: "{}".to_owned(),
            },
            sealed: vec![2],
        }],
        summary: "baseline".to_owned(),
        targets: "all".to_owned(),
        policy: RolloutPolicy::default(),
        created_by: None,
        created_by_name: "ada".to_owned(),
        deadline: at(3600),
        left_out: 0,
        reason: None,
    }
}

pub(super) fn new_run(host: &NewHost, position: u32) -> NewRun {
    NewRun {
        id: RunId::from_uuid(uuid()),
        host: host.id,
        host_name: host.declared.name.clone(),
        client_id: host.declared.client_id.clone(),
        position,
        step: 0,
        proof: [3].into(),
    }
}

/// An operation with one run on each of `hosts` fresh hosts.
pub(super) async fn operation(store: &Store, tenant: TenantId, hosts: u32) -> (OperationId, Vec<RunId>) {
    let new = new_operation(tenant);
    let mut tx = store.write().await.unwrap();
    operation::insert(&mut tx, &new, NOW).await.unwrap();
    let mut runs = Vec::new();
    for position in 0..hosts {
        let host = new_host(tenant, &format!("h{}", uuid().simple()));
        host::insert(&mut tx, &host, NOW).await.unwrap();
        runs.push(new_run(&host, position));
    }
    run::insert(&mut tx, tenant, new.id, &runs, NOW).await.unwrap();
    tx.commit().await.unwrap();
    (new.id, runs.iter().map(|run| run.id).collect())
}

pub(super) async fn write(store: &Store, writes: Vec<Write>) -> Committed {
    let mut tx = store.write().await.unwrap();
    let committed = batch::write(&mut tx, store.files(), writes).await.unwrap();
    tx.commit().await.unwrap();
    committed
}

pub(super) fn append(operation: OperationId, run: RunId, offset: u64, bytes: &[u8]) -> Write {
    Write::Output(Append { operation, run, offset, bytes: bytes::Bytes::copy_from_slice(bytes) })
}

pub(super) fn change(operation: OperationId, run: RunId, from: RunState, to: RunState) -> Write {
    Write::Run(RunChange { operation, run, from, to, at: at(1), duration_ms: None, left: None, attached: 0 })
}

pub(super) fn custody() -> Custody {
    Custody { journal: JournalId::from_uuid(uuid()), cancel: None }
}
