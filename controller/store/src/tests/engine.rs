//! What the engines themselves must do: files, schema, errors.

use std::os::unix::fs::PermissionsExt as _;

use sqlx::Executor as _;

use super::sample::*;
use crate::fleet::host;
use crate::on_both_engines;
use crate::people::tenant;
use crate::query::query;
use crate::testing::{self, NOW};
use crate::work::run;
use crate::{Scope, Store, StoreError};

#[tokio::test]
async fn the_sqlite_files_are_private_and_the_log_is_gone_after_a_close() {
    let test = testing::sqlite().await;
    insert_host(&test.store, &new_host(tenant::DEFAULT, "web-1")).await;
    let file = test.file().unwrap();
    let log = file.with_file_name("test.db-wal");
    for path in [&file, &log] {
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600, "{}", path.display());
    }
    test.store.clone().close().await.unwrap();
    assert!(!log.exists() || log.metadata().unwrap().len() == 0);
    // Everything is in the one file now, and it opens again.
    let store = Store::open(&test.url, NOW).await.unwrap();
    let mut conn = store.read().await.unwrap();
    host::get(&mut conn, &Scope::Everything, &"web-1".parse().unwrap()).await.unwrap();
}

#[tokio::test]
async fn readers_cannot_write_on_sqlite() {
    let test = testing::sqlite().await;
    let mut conn = test.store.read().await.unwrap();
    let refused = tenant::insert(
        &mut conn,
        &tenant::Tenant {
            id: fleetward_protocol::id::TenantId::from_uuid(uuid()),
            name: "t".parse().unwrap(),
            title: String::new(),
            created_at: NOW,
        },
    )
    .await;
    assert!(matches!(refused, Err(StoreError::Refused(_))), "{refused:?}");
}

#[tokio::test]
async fn a_full_disk_is_told_apart_and_changes_nothing() {
    let test = testing::sqlite().await;
    let (op, runs) = operation(&test.store, tenant::DEFAULT, 1).await;
    let mut tx = test.store.write().await.unwrap();
    (&mut *tx).execute("PRAGMA max_page_count = 100").await.unwrap();
    let piece = vec![b'x'; 60 << 10];
    let mut refused = None;
    for at in 0..32_u64 {
        let writes = vec![append(op, runs[0], at * piece.len() as u64, &piece)];
        if let Err(error) = crate::work::batch::write(&mut tx, test.store.files(), writes).await {
            refused = Some(error);
            break;
        }
    }
    assert!(matches!(refused, Some(StoreError::DiskFull(_))), "{refused:?}");
    drop(tx);
    let mut tx = test.store.write().await.unwrap();
    assert_eq!(run::get(&mut tx, &Scope::Everything, runs[0]).await.unwrap().output_end, 0);
    // With room again it goes on by itself.
    (&mut *tx).execute("PRAGMA max_page_count = 1000000").await.unwrap();
    crate::work::batch::write(&mut tx, test.store.files(), vec![append(op, runs[0], 0, &piece)])
        .await
        .unwrap();
    tx.commit().await.unwrap();
}

/// SQLite has rolled back by itself, and sqlx takes the connection for one that is in a transaction still.
#[tokio::test(flavor = "multi_thread")]
async fn nobody_gets_what_a_full_disk_has_broken_however_many_wait() {
    let test = testing::sqlite().await;
    let mut tx = test.store.write().await.unwrap();
    (&mut *tx).execute("CREATE TABLE filler (x)").await.unwrap();
    tx.commit().await.unwrap();
    let tasks: Vec<_> = (0..8)
        .map(|_| {
            let store = test.store.clone();
            tokio::spawn(async move {
                for _ in 0..20 {
                    let mut tx = store.write().await.expect("a transaction");
                    (&mut *tx).execute("PRAGMA max_page_count = 1").await.unwrap();
                    let full =
                        (&mut *tx).execute("INSERT INTO filler VALUES (zeroblob(100000))").await.unwrap_err();
                    let full = StoreError::from(full);
                    assert!(matches!(full, StoreError::DiskFull(_)), "{full:?}");
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
}

#[tokio::test]
async fn a_url_that_is_none_is_refused_without_its_password() {
    let refused = Store::open("mysql://root:secret@db.example.com/x", NOW).await.unwrap_err();
    assert!(matches!(refused, StoreError::InvalidUrl(_)));
    assert!(!refused.to_string().contains("secret"), "{refused}");
    let missing = Store::open("sqlite:/nonexistent/dir/x.db", NOW).await.unwrap_err();
    assert!(matches!(missing, StoreError::CreateFile { .. }), "{missing:?}");
    let away = Store::open("postgres://postgres@localhost/x?host=/nonexistent", NOW).await.unwrap_err();
    assert!(matches!(away, StoreError::Unavailable(_)), "{away:?}");
}

#[tokio::test]
async fn a_file_that_is_no_database_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("x.db");
    std::fs::write(&file, vec![b'x'; 8192]).unwrap();
    let refused = Store::open(&crate::sqlite_url(&file), NOW).await.unwrap_err();
    assert!(matches!(refused, StoreError::Corrupt { .. }), "{refused:?}");
}

on_both_engines! {
    async fn opening_again_changes_nothing_and_a_newer_schema_is_refused(store: Store) {
        let mut tx = store.write().await.unwrap();
        let again = crate::migrate::Migration { steps: crate::migrate::STEPS, now: at(1), place: None };
        crate::migrate::take(&mut tx, store.engine(), again).await.unwrap();
        let later = format!("INSERT INTO schema_step (number, name, digest, applied_at) VALUES (999, 'x', '{}', 0)", "0".repeat(64));
        (&mut *tx).execute(sqlx::AssertSqlSafe(later)).await.unwrap();
        let refused = crate::migrate::take(&mut tx, store.engine(), again).await;
        assert!(matches!(refused, Err(StoreError::Schema(_))), "{refused:?}");
    }

    async fn a_snapshot_sees_one_moment_and_writes_nothing(store: Store) {
        let mut snapshot = store.snapshot().await.unwrap();
        let before = tenant::list(&mut snapshot, &Scope::Everything).await.unwrap();
        tenant(&store).await;
        assert_eq!(tenant::list(&mut snapshot, &Scope::Everything).await.unwrap(), before);
        query("UPDATE tenant SET title = 'x'").run(&mut snapshot).await.unwrap_err();
        drop(snapshot);
        assert_eq!(tenant::list(&mut store.snapshot().await.unwrap(), &Scope::Everything).await.unwrap().len(), before.len() + 1);
    }

    async fn text_is_ordered_byte_by_byte(store: Store) {
        let of = tenant(&store).await;
        for name in ["b", "B", "a", "_a", "a-b", "aB"] {
            insert_host(&store, &new_host(of, name)).await;
        }
        let mut conn = store.read().await.unwrap();
        let hosts = host::all_for_targets(&mut conn, &Scope::of(of)).await.unwrap();
        let names: Vec<_> = hosts.iter().map(|host| host.name.as_str()).collect();
        assert_eq!(names, ["B", "_a", "a", "a-b", "aB", "b"]);
    }

    async fn the_name_of_a_retired_host_is_free_and_only_that_host_can_be_deleted(store: Store) {
        let first = new_host(tenant::DEFAULT, "web-1");
        insert_host(&store, &first).await;
        let second = new_host(tenant::DEFAULT, "web-1");
        let mut tx = store.write().await.unwrap();
        let taken = host::insert(&mut tx, &second, NOW).await.unwrap_err();
        assert!(matches!(&taken, StoreError::Conflict { what } if what.contains("name")), "{taken:?}");
        drop(tx);
        let mut tx = store.write().await.unwrap();
        let mut same_client = new_host(tenant::DEFAULT, "web-2");
        same_client.declared.client_id = first.declared.client_id.clone();
        let taken = host::insert(&mut tx, &same_client, NOW).await.unwrap_err();
        assert!(matches!(&taken, StoreError::Conflict { what } if what.contains("client ID")), "{taken:?}");
        drop(tx);
        let mut tx = store.write().await.unwrap();
        let own = Scope::of(tenant::DEFAULT);
        assert!(!host::delete(&mut tx, &own, first.id, at(1)).await.unwrap(), "it is active");
        assert!(host::update_retired(&mut tx, first.id, at(1)).await.unwrap());
        host::insert(&mut tx, &second, NOW).await.unwrap();
        assert!(!host::delete(&mut tx, &Scope::Tenants(vec![]), first.id, at(2)).await.unwrap());
        assert!(host::delete(&mut tx, &own, first.id, at(2)).await.unwrap());
        assert!(!host::delete(&mut tx, &own, first.id, at(3)).await.unwrap(), "it is deleted already");
        tx.commit().await.unwrap();
    }

    async fn a_word_that_no_type_knows_is_read_as_an_error_that_names_it(store: Store) {
        let (op, runs) = operation(&store, tenant::DEFAULT, 1).await;
        let mut tx = store.write().await.unwrap();
        sqlx::query("UPDATE operation SET status = 'done' WHERE id = $1")
            .bind(op.to_string()).execute(&mut *tx).await.unwrap();
        let read = crate::work::operation::get(&mut tx, &Scope::Everything, op).await;
        assert!(matches!(read, Err(StoreError::Corrupt { .. })), "{read:?}");
        let run = crate::work::run::get(&mut tx, &Scope::Everything, runs[0]).await.unwrap();
        assert_eq!(run.operation, op);
    }

    async fn presence_is_written_in_bulk_and_never_goes_back(store: Store) {
        use host::{Presence, Status};
        let of = tenant(&store).await;
        let hosts: Vec<_> = (0..250).map(|number| new_host(of, &format!("h{number}"))).collect();
        let mut tx = store.write().await.unwrap();
        for host in &hosts {
            host::insert(&mut tx, host, NOW).await.unwrap();
        }
        let seen = |at, rtt_us| hosts.iter().map(|host| Presence {
            host: host.id, seat: 0, status: Status::Online, last_seen: at, rtt_us, clock_skew_ms: None,
        }).collect::<Vec<_>>();
        assert_eq!(host::update_presence(&mut tx, &seen(at(9), Some(72))).await.unwrap(), 250);
        host::update_presence(&mut tx, &seen(at(5), None)).await.unwrap();
        let host = host::get_by_id(&mut tx, &Scope::of(of), hosts[249].id).await.unwrap();
        assert_eq!((host.status, host.last_seen, host.rtt_us), (Status::Online, Some(at(9)), Some(72)));
        assert_eq!(host::update_offline(&mut tx).await.unwrap(), 250);
        let counts = host::count(&mut tx, &Scope::of(of)).await.unwrap();
        assert_eq!(counts.iter().map(|count| count.hosts).collect::<Vec<_>>(), [250]);
    }

    async fn what_is_written_of_an_older_connection_touches_nothing(store: Store) {
        use host::{Connected, Presence, Status};
        use fleetward_protocol::id::{BootId, JournalId};
        use fleetward_protocol::text::{List, Text};
        let web = new_host(tenant::DEFAULT, "web-1");
        insert_host(&store, &web).await;
        let mut tx = store.write().await.unwrap();
        let hello = Connected {
            agent_version: Text::of("1"), boot: BootId::from_uuid(uuid()), journal: JournalId::from_uuid(uuid()),
            kinds: List::default(), clock_skew_ms: 0,
        };
        let first = host::update_connected(&mut tx, web.id, &hello, at(1)).await.unwrap().unwrap();
        // It comes back to another controller, before the first one has written that it went.
        let second = host::update_connected(&mut tx, web.id, &hello, at(2)).await.unwrap().unwrap();
        assert!(second > first);
        let of = |seat, status| Presence { host: web.id, seat, status, last_seen: at(9), rtt_us: None, clock_skew_ms: None };
        assert_eq!(host::update_presence(&mut tx, &[of(first, Status::Offline)]).await.unwrap(), 0);
        let now = host::get_by_id(&mut tx, &Scope::Everything, web.id).await.unwrap();
        assert_eq!((now.status, now.last_seen), (Status::Online, Some(at(2))));
        assert_eq!(host::update_presence(&mut tx, &[of(second, Status::Offline)]).await.unwrap(), 1);
        // A start ends the seats that a dead controller left.
        let third = host::update_connected(&mut tx, web.id, &hello, at(10)).await.unwrap().unwrap();
        assert_eq!(host::update_offline(&mut tx).await.unwrap(), 1);
        assert_eq!(host::update_presence(&mut tx, &[of(third, Status::Online)]).await.unwrap(), 0);
        let nobody = fleetward_protocol::id::HostId::from_uuid(uuid());
        assert_eq!(host::update_connected(&mut tx, nobody, &hello, at(1)).await.unwrap(), None);
    }

    async fn the_last_twenty_notices_are_kept(store: Store) {
        let host = new_host(tenant::DEFAULT, "web-1");
        insert_host(&store, &host).await;
        let mut tx = store.write().await.unwrap();
        for number in 0..25 {
            let notice = host::Notice { at: at(number), text: format!("notice {number}") };
            assert!(host::update_notice(&mut tx, host.id, &notice).await.unwrap());
        }
        let kept = host::get_by_id(&mut tx, &Scope::Everything, host.id).await.unwrap().notices;
        assert_eq!((kept.len(), kept[0].text.as_str()), (20, "notice 5"));
    }

    async fn an_operation_ends_whatever_was_known_of_its_beginning(store: Store) {
        use fleetward_domain::work::operation::OperationStatus::{Queued, Running, Success};
        use crate::work::operation;
        // Another controller's commit was not seen, or was lost with its database.
        for (first, believed) in [(None, Running), (Some(Running), Queued)] {
            let (op, _) = operation(&store, tenant::DEFAULT, 1).await;
            let mut tx = store.write().await.unwrap();
            if let Some(first) = first {
                operation::update_status(&mut tx, op, Queued, first, at(1)).await.unwrap().unwrap();
            }
            assert_eq!(operation::update_status(&mut tx, op, believed, believed, at(1)).await.unwrap(), None);
            assert!(operation::update_status(&mut tx, op, believed, Success, at(2)).await.unwrap().is_some());
            assert_eq!(operation::update_status(&mut tx, op, believed, Success, at(3)).await.unwrap(), None);
            tx.commit().await.unwrap();
        }
    }

    async fn retention_takes_output_first_and_then_the_operation(store: Store) {
        use fleetward_domain::work::operation::OperationStatus;
        use crate::work::{operation, output};
        let (op, runs) = operation(&store, tenant::DEFAULT, 2).await;
        for at in 0..5_u64 {
            write(&store, runs.iter().map(|&run| append(op, run, at * (16 << 10), &[b'x'; 16 << 10])).collect()).await;
        }
        let mut tx = store.write().await.unwrap();
        assert!(!operation::delete(&mut tx, op).await.unwrap(), "it has not ended");
        assert!(operation::update_status(&mut tx, op, OperationStatus::Queued, OperationStatus::Failed, at(1)).await.unwrap().is_some());
        assert_eq!(operation::list_ended_before(&mut tx, at(2), 10).await.unwrap(), [op]);
        assert_eq!(output::delete(&mut tx, op, 7).await.unwrap(), 7);
        assert_eq!(output::delete(&mut tx, op, 7).await.unwrap(), 3);
        assert_eq!(output::delete(&mut tx, op, 7).await.unwrap(), 0);
        assert!(operation::delete(&mut tx, op).await.unwrap());
        assert!(run::list_all(&mut tx, op).await.unwrap().is_empty());
    }
}
