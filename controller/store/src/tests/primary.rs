//! A PostgreSQL server that takes no writes any more.

use std::time::Duration;

use sqlx::Connection as _;

use super::sample::*;
use crate::fleet::host;
use crate::people::tenant;
use crate::search::LIMITS;
use crate::testing::{self, NOW, Server};
use crate::{Scope, Store, StoreError};

/// A server of its own; without PostgreSQL it is said that there is none.
fn server() -> Option<Server> {
    match Server::start() {
        Ok(server) => Some(server),
        Err(reason) => {
            assert!(std::env::var_os("FLEETWARD_TEST_ALL").is_none(), "{reason}");
            eprintln!("SKIPPED: a server of its own because {reason}");
            None
        }
    }
}

/// One that waits no longer than it takes to see.
async fn hasty(url: &str) -> Store {
    let wait = Duration::from_secs(2);
    Store::connect_with(url, LIMITS, wait)
        .await
        .unwrap()
        .migrate(NOW, None, |_| Ok::<_, StoreError>(()))
        .await
        .unwrap()
}

#[tokio::test]
async fn a_primary_that_comes_back_as_a_standby_is_not_used_until_it_is_promoted() {
    let Some(server) = server() else { return };
    let store = hasty(&server.url()).await;
    insert_host(&store, &new_host(tenant::DEFAULT, "web-1")).await;
    server.demote().unwrap();
    // It would answer: with what was true once.
    let told = store.read().await.unwrap_err();
    assert!(matches!(told, StoreError::ReadOnly(_)), "{told:?}");
    assert!(told.to_string().contains("promote it") && store.is_read_only(), "{told}");
    let told = Store::connect(&server.url()).await.unwrap_err();
    assert!(matches!(told, StoreError::ReadOnly(_)), "{told:?}");
    server.promote().unwrap();
    insert_host(&store, &new_host(tenant::DEFAULT, "web-2")).await;
    let mut conn = store.read().await.unwrap();
    let found = host::all_for_targets(&mut conn, &Scope::of(tenant::DEFAULT)).await.unwrap();
    assert_eq!((found.len(), store.is_read_only()), (2, false));
    store.search().await.unwrap();
}

#[tokio::test]
async fn connections_to_a_server_that_was_set_read_only_are_dropped() {
    let Some(test) = testing::postgres("a server that was set read only").await else { return };
    let name = test.url.split('?').next().unwrap().rsplit('/').next().unwrap().to_owned();
    let store = hasty(&test.url).await;
    let row = tenant::Tenant {
        id: fleetward_protocol::id::TenantId::from_uuid(uuid()),
        name: "t".parse().unwrap(),
        title: String::new(),
        created_at: NOW,
    };
    let mut tx = store.write().await.unwrap();
    sqlx::raw_sql("SET TRANSACTION READ ONLY").execute(&mut *tx).await.unwrap();
    let told = tenant::insert(&mut tx, &row).await.unwrap_err();
    assert!(matches!(told, StoreError::ReadOnly(_)), "{told:?}");
    drop(tx);
    // What a tool of failovers does; sessions that are open learn it by a reload.
    let text = format!(
        "ALTER DATABASE {name} SET default_transaction_read_only = on; \
         SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY"
    );
    let (mut one, mut two) = (store.write().await.unwrap(), store.write().await.unwrap());
    sqlx::raw_sql(sqlx::AssertSqlSafe(text)).execute(&mut *one).await.unwrap();
    sqlx::raw_sql("SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY").execute(&mut *two).await.unwrap();
    one.commit().await.unwrap();
    two.commit().await.unwrap();
    // A connection that was not told is as good as before; no other is given out.
    let mut held = Vec::new();
    let told = loop {
        match store.write().await {
            Ok(tx) => held.push(tx),
            Err(told) => break told,
        }
    };
    assert!(matches!(told, StoreError::ReadOnly(_)), "{told:?}");
    assert!(held.len() <= 1, "{}", held.len());
    drop(held);
    let mut admin = sqlx::AnyConnection::connect(&test.url).await.unwrap();
    sqlx::raw_sql("SET SESSION CHARACTERISTICS AS TRANSACTION READ WRITE").execute(&mut admin).await.unwrap();
    let text = format!("ALTER DATABASE {name} SET default_transaction_read_only = off");
    sqlx::raw_sql(sqlx::AssertSqlSafe(text)).execute(&mut admin).await.unwrap();
    let mut tx = store.write().await.unwrap();
    tenant::insert(&mut tx, &row).await.unwrap();
    drop(tx);
    store.close().await.unwrap();
    test.finish().await;
}
