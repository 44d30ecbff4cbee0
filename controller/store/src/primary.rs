//! Whether a PostgreSQL server takes writes.
//!
//! After a failover an address may lead to the old primary, which is a standby now: it answers every read, with what was true
//! once, and refuses every write. So each connection is asked when it is opened and each time that it is taken from its pool,
//! in the place of sqlx's own ping: a connection that sits on a standby is closed, and none is given out.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use sqlx::AnyConnection;
use sqlx::any::AnyPoolOptions;
use tokio::time::sleep;

use crate::StoreError;

/// Between two connections to a server that takes no writes; the pool's own pause begins at 10 ms.
const PAUSE: Duration = Duration::from_millis(500);

/// What is asked of a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Use {
    /// Reading and writing: it takes writes from everybody.
    Any,
    /// Searches, which make their own connections read only.
    Search,
}

/// What the connections have found. Cheap to clone; every clone is the same one.
#[derive(Debug, Clone, Default)]
pub(super) struct Watch(Arc<AtomicBool>);

impl Watch {
    /// Whether the connection that was looked at last takes no writes.
    pub(super) fn is_missing(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// Why a pool gave no connection.
    pub(super) fn failure(&self, error: sqlx::Error) -> StoreError {
        match error {
            error @ sqlx::Error::PoolTimedOut if self.is_missing() => StoreError::ReadOnly(error),
            error => error.into(),
        }
    }

    /// Whether the server behind a connection takes writes.
    pub(super) async fn look(&self, conn: &mut AnyConnection, of: Use) -> Result<bool, sqlx::Error> {
        // `transaction_read_only` is also on in recovery; the other tells a server that was set read only by hand.
        let question = match of {
            Use::Any => {
                "SELECT pg_is_in_recovery() OR pg_catalog.current_setting('transaction_read_only') = 'on'"
            }
            Use::Search => "SELECT pg_is_in_recovery()",
        };
        let is_read_only: bool = sqlx::query_scalar(question).fetch_one(conn).await?;
        self.0.store(is_read_only, Ordering::Relaxed);
        Ok(!is_read_only)
    }

    /// A pool whose connections are looked at.
    pub(super) fn guard(&self, pool: AnyPoolOptions, of: Use) -> AnyPoolOptions {
        let watch = self.clone();
        pool.test_before_acquire(false).before_acquire(move |conn, _| {
            let watch = watch.clone();
            Box::pin(async move { watch.look(conn, of).await })
        })
    }

    /// Looks at a connection that was just opened.
    pub(super) async fn admit(&self, conn: &mut AnyConnection, of: Use) -> Result<(), sqlx::Error> {
        if self.look(conn, of).await? {
            return Ok(());
        }
        sleep(PAUSE).await;
        Err(sqlx::Error::Configuration(
            "the database takes no writes: it is a standby or was set read only".into(),
        ))
    }
}
