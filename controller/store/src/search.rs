//! Reads whose cost their caller decides: lists and table queries.
//!
//! They have connections of their own, so that no number of them makes a host's own reads wait, and each of their
//! statements has a limit on its time. What is stopped really stops: PostgreSQL does it by itself, SQLite asks every
//! few thousand steps whether to go on, also when whoever asked has gone.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use sqlx::any::{Any, AnyPoolOptions, AnyRow};
use sqlx::pool::PoolConnection;
use sqlx::sqlite::{Sqlite, SqliteArguments, SqliteConnectOptions, SqlitePool, SqlitePoolOptions};
use sqlx::{AnyConnection, AnyPool, AssertSqlSafe};
use tokio::time::timeout;

use super::primary::{Use, Watch};
use super::query::{Query, Row};
use crate::{Conn, Engine, StoreError, Tx};

/// How much searching there may be.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// Searches at the same time.
    pub(super) connections: u32,
    /// How long one waits for its turn.
    pub(super) wait: Duration,
    /// How long a statement may take.
    pub(super) time: Duration,
}

/// The limits of a controller.
pub(super) const LIMITS: Limits =
    Limits { connections: 4, wait: Duration::from_secs(5), time: Duration::from_secs(10) };

/// SQLite's steps between two questions whether to go on: some hundred microseconds.
const STEPS: i32 = 20_000;

/// From where lists are read.
pub trait Reader: Send {
    /// Which engine answers.
    fn engine(&self) -> Engine;

    /// All rows of a query.
    ///
    /// # Errors
    /// If the database fails, or stops the query.
    fn rows(&mut self, query: Query) -> impl Future<Output = Result<Vec<Row>, StoreError>> + Send;
}

/// The connections for searches.
#[derive(Debug, Clone)]
pub(super) struct Searchers {
    pool: Pool,
    limits: Limits,
    primary: Watch,
}

#[derive(Debug, Clone)]
enum Pool {
    Sqlite(SqlitePool),
    Postgres(AnyPool),
}

/// A connection for a search.
#[derive(Debug)]
pub struct Search {
    connection: Connection,
    limits: Limits,
}

#[derive(Debug)]
enum Connection {
    Sqlite(PoolConnection<Sqlite>),
    Postgres(PoolConnection<Any>),
}

impl Searchers {
    /// On a SQLite file; `pragmas` as for other readers.
    pub(super) async fn sqlite(url: &str, pragmas: &'static str, limits: Limits) -> Result<Self, StoreError> {
        // `Any` hides what a statement can be stopped with.
        let options: SqliteConnectOptions = url.parse()?;
        let pool = SqlitePoolOptions::new()
            .max_connections(limits.connections)
            .min_connections(0)
            .acquire_timeout(limits.wait)
            .idle_timeout(None)
            .max_lifetime(None)
            .test_before_acquire(false)
            .after_connect(move |conn, _| {
                Box::pin(async move {
                    sqlx::raw_sql(pragmas).execute(conn).await?;
                    Ok(())
                })
            })
            .connect_lazy_with(options);
        Ok(Self { pool: Pool::Sqlite(pool), limits, primary: Watch::default() })
    }

    /// On a PostgreSQL server.
    pub(super) async fn postgres(url: &str, limits: Limits, primary: &Watch) -> Result<Self, StoreError> {
        let time = format!("SET statement_timeout = {}", limits.time.as_millis());
        let watch = primary.clone();
        let options = AnyPoolOptions::new()
            .max_connections(limits.connections)
            .acquire_timeout(limits.wait)
            .after_connect(move |conn, _| {
                let (time, watch) = (time.clone(), watch.clone());
                Box::pin(async move {
                    watch.admit(&mut *conn, Use::Search).await?;
                    // The text holds a number and nothing else.
                    sqlx::raw_sql(AssertSqlSafe(time)).execute(&mut *conn).await?;
                    sqlx::raw_sql("SET default_transaction_read_only = on").execute(conn).await?;
                    Ok(())
                })
            });
        let pool = primary.guard(options, Use::Search).connect_lazy(url)?;
        Ok(Self { pool: Pool::Postgres(pool), limits, primary: primary.clone() })
    }

    /// A connection, when one is free.
    ///
    /// # Errors
    /// [`StoreError::Busy`] if none is in time.
    pub(super) async fn acquire(&self) -> Result<Search, StoreError> {
        let busy = |error: sqlx::Error| match error {
            sqlx::Error::PoolTimedOut if !self.primary.is_missing() => StoreError::Busy,
            error => self.primary.failure(error),
        };
        let connection = match &self.pool {
            Pool::Sqlite(pool) => Connection::Sqlite(pool.acquire().await.map_err(busy)?),
            Pool::Postgres(pool) => Connection::Postgres(pool.acquire().await.map_err(busy)?),
        };
        Ok(Search { connection, limits: self.limits })
    }

    /// Closes them.
    pub(super) async fn close(&self) {
        match &self.pool {
            Pool::Sqlite(pool) => pool.close().await,
            Pool::Postgres(pool) => pool.close().await,
        }
    }
}

impl Reader for Search {
    fn engine(&self) -> Engine {
        match self.connection {
            Connection::Sqlite(_) => Engine::Sqlite,
            Connection::Postgres(_) => Engine::Postgres,
        }
    }

    async fn rows(&mut self, query: Query) -> Result<Vec<Row>, StoreError> {
        let too_slow = |error| match error {
            StoreError::Stopped { .. } => StoreError::Stopped { after: self.limits.time },
            error => error,
        };
        match &mut self.connection {
            Connection::Sqlite(conn) => stoppable(conn, query, self.limits.time).await.map_err(too_slow),
            Connection::Postgres(conn) => query.all(conn).await.map_err(too_slow),
        }
    }
}

/// Runs a query that SQLite stops when its time is up or nobody waits for it any more.
async fn stoppable(
    conn: &mut PoolConnection<Sqlite>,
    query: Query,
    time: Duration,
) -> Result<Vec<Row>, StoreError> {
    let (text, arguments, persistent) = query.parts()?;
    let arguments: SqliteArguments =
        arguments.convert_into().map_err(|error| StoreError::Refused(sqlx::Error::Encode(error)))?;
    let gone = Arc::new(AtomicBool::new(false));
    let is_gone = Arc::clone(&gone);
    conn.lock_handle().await?.set_progress_handler(STEPS, move || !is_gone.load(Ordering::Relaxed));
    // Whoever waits goes when the time is up, or when its own caller goes; either way nobody is left.
    let _watch = SetOnDrop(gone);
    let asked =
        sqlx::query_with(AssertSqlSafe(text), arguments).persistent(persistent).fetch_all(&mut **conn);
    let rows = timeout(time, asked).await.map_err(|_| StoreError::Stopped { after: time })??;
    rows.iter().map(|row| Ok(Row::from(AnyRow::try_from(row)?))).collect()
}

/// Says that somebody has gone.
struct SetOnDrop(Arc<AtomicBool>);

impl Drop for SetOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl Reader for AnyConnection {
    fn engine(&self) -> Engine {
        if self.backend_name() == "PostgreSQL" { Engine::Postgres } else { Engine::Sqlite }
    }

    async fn rows(&mut self, query: Query) -> Result<Vec<Row>, StoreError> {
        query.all(self).await
    }
}

impl Reader for Conn {
    fn engine(&self) -> Engine {
        Reader::engine(&**self)
    }

    async fn rows(&mut self, query: Query) -> Result<Vec<Row>, StoreError> {
        query.all(self).await
    }
}

impl Reader for Tx {
    fn engine(&self) -> Engine {
        Reader::engine(&**self)
    }

    async fn rows(&mut self, query: Query) -> Result<Vec<Row>, StoreError> {
        query.all(self).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Store;
    use crate::query::query;
    use crate::testing::{self, NOW, TestStore};

    /// Counts without an end, on both engines.
    const ENDLESS: &str =
        "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 0 FROM n) SELECT COUNT(*) AS n FROM n";

    async fn opened(test: &TestStore, time: Duration) -> Store {
        let limits = Limits { connections: 2, wait: Duration::from_millis(20), time };
        Store::connect_with(&test.url, limits, Duration::from_secs(15))
            .await
            .unwrap()
            .migrate(NOW, None, |_| Ok::<_, StoreError>(()))
            .await
            .unwrap()
    }

    /// A connection, however long the wait: on a busy machine even the first one takes longer than these limits let it.
    async fn turn(store: &Store) -> Search {
        loop {
            match store.search().await {
                Ok(search) => return search,
                Err(StoreError::Busy) => {}
                Err(error) => panic!("{error}"),
            }
        }
    }

    async fn a_statement_that_takes_too_long_is_stopped(test: TestStore) {
        let store = opened(&test, Duration::from_millis(50)).await;
        let mut search = turn(&store).await;
        let stopped = search.rows(query(ENDLESS)).await.unwrap_err();
        assert!(matches!(stopped, StoreError::Stopped { after } if !after.is_zero()), "{stopped:?}");
        assert!(stopped.to_string().contains("filter"), "{stopped}");
        // The connection is good for the next one.
        let rows = search.rows(query("SELECT 7 AS n")).await.unwrap();
        assert_eq!(rows[0].get::<i64>("n").unwrap(), 7);
    }

    async fn searches_wait_for_each_other_and_other_readers_for_none(test: TestStore) {
        // PostgreSQL works on what nobody waits for until this time is over, and the tests beside this one want its processor.
        let store = opened(&test, Duration::from_secs(10)).await;
        let (mut one, mut two) = (turn(&store).await, turn(&store).await);
        let third = store.search().await.unwrap_err();
        assert!(matches!(third, StoreError::Busy), "{third:?}");
        store.read().await.unwrap();
        // One that nobody waits for any more makes room, although its own time is not over.
        let begun = tokio::time::timeout(Duration::from_millis(20), one.rows(query(ENDLESS))).await;
        assert!(begun.is_err());
        drop(one);
        if store.engine() == Engine::Sqlite {
            let mut next = turn(&store).await;
            assert_eq!(next.rows(query("SELECT 7 AS n")).await.unwrap().len(), 1);
        }
        assert_eq!(two.rows(query("SELECT 7 AS n")).await.unwrap().len(), 1);
    }

    #[tokio::test]
    async fn a_statement_that_takes_too_long_is_stopped_on_sqlite() {
        a_statement_that_takes_too_long_is_stopped(testing::sqlite().await).await;
    }

    #[tokio::test]
    async fn a_statement_that_takes_too_long_is_stopped_on_postgres() {
        if let Some(test) = testing::postgres("a_statement_that_takes_too_long_is_stopped").await {
            a_statement_that_takes_too_long_is_stopped(test).await;
        }
    }

    #[tokio::test]
    async fn searches_wait_for_each_other_and_other_readers_for_none_on_sqlite() {
        searches_wait_for_each_other_and_other_readers_for_none(testing::sqlite().await).await;
    }

    #[tokio::test]
    async fn searches_wait_for_each_other_and_other_readers_for_none_on_postgres() {
        if let Some(test) = testing::postgres("searches_wait_for_each_other_and_other_readers").await {
            searches_wait_for_each_other_and_other_readers_for_none(test).await;
        }
    }

    #[tokio::test]
    async fn a_search_cannot_write() {
        let test = testing::sqlite().await;
        let mut search = test.store.search().await.unwrap();
        search.rows(query("DELETE FROM tenant")).await.unwrap_err();
        if let Some(test) = testing::postgres("a_search_cannot_write").await {
            let mut search = test.store.search().await.unwrap();
            search.rows(query("DELETE FROM tenant")).await.unwrap_err();
        }
    }
}
