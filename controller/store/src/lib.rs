//! All SQL of the controller, and only here.
//!
//! **What for.** Everything that must survive a restart: tenants and users, hosts and their certificates,
//! scripts, operations with their runs and output, and the audit chain. One file per noun; each has free
//! functions that take a connection and the caller's [`Scope`].
//!
//! **What it promises.** One SQL text runs on SQLite and on PostgreSQL (`docs/decisions/0002-one-sql-text.md`).
//! The schema changes only for who has taken the controller's place ([`Connected::migrate`]).
//! A committed [`Tx`] is on disk. State changes are compare-and-set and say whether they took. Every query on
//! tenants' data filters by [`Scope`] in SQL. Values are only ever bound, never pasted into SQL text.
//!
//! **Deliberately absent.** Decisions (they are in `fleetward-domain`), clocks (every function takes `now`),
//! secrets in the clear (callers encrypt or digest them first), OFFSET paging.
//!
//! Verbs: `insert`, `get` (an error if absent), `find` (`None` if absent), `list`, `update`, `delete`.

use std::ops::{Deref, DerefMut};
use std::path::Path;

use fleetward_protocol::time::Timestamp;
use sqlx::any::Any;
use sqlx::pool::PoolConnection;
use sqlx::{AnyConnection, AnyPool, Executor as _, Transaction};

mod connect;
mod error;
pub mod fleet;
mod migrate;
pub mod page;
pub mod people;
mod primary;
mod query;
mod scope;
mod search;
pub mod setting;
pub mod table;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
pub mod work;

pub use connect::Connected;
pub use error::StoreError;
pub use scope::Scope;
pub use search::{Reader, Search};

/// A connection that the functions of this module work on; a [`Conn`] or a [`Tx`] gives one.
pub type Connection = AnyConnection;

/// Which database stands behind a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Engine {
    /// A file of its own, one writer at a time.
    Sqlite,
    /// A PostgreSQL server.
    Postgres,
}

/// A stored word that its enum does not know.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not one of the words allowed here")]
pub struct UnknownWord(String);

/// The controller's database. Cheap to clone; every clone is the same store.
#[derive(Debug, Clone)]
pub struct Store {
    engine: Engine,
    readers: AnyPool,
    writers: AnyPool,
    searchers: search::Searchers,
    files: work::output::Files,
    primary: primary::Watch,
}

/// A connection for reading.
#[derive(Debug)]
pub struct Conn(PoolConnection<Any>);

/// A transaction. Dropped without [`Tx::commit`], it changes nothing.
#[derive(Debug)]
pub struct Tx(Transaction<'static, Any>);

const BEGIN: &str = "BEGIN IMMEDIATE";

/// The URL of a SQLite database at `path`, for [`Store::connect`].
#[must_use]
pub fn sqlite_url(path: &Path) -> String {
    format!("sqlite:{}", path.display())
}

impl Store {
    /// A connection for reading. On SQLite it sees what was committed before each of its statements.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] if none becomes free in time.
    pub async fn read(&self) -> Result<Conn, StoreError> {
        Ok(Conn(self.readers.acquire().await.map_err(|error| self.primary.failure(error))?))
    }

    /// A transaction for reading: all its statements see what was committed before the first of them. Not to be held for long:
    /// what it sees is kept for it.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] if none can begin in time.
    pub async fn snapshot(&self) -> Result<Tx, StoreError> {
        let begin = match self.engine {
            Engine::Sqlite => "BEGIN",
            Engine::Postgres => "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY",
        };
        Ok(Tx(self.readers.begin_with(begin).await.map_err(|error| self.primary.failure(error))?))
    }

    /// A connection for a read whose cost its caller decides: a list, a table query. There are few of them, and none
    /// of them is one of [`Store::read`]'s; a statement that takes too long is stopped.
    ///
    /// # Errors
    /// [`StoreError::Busy`] if none becomes free in time.
    pub async fn search(&self) -> Result<Search, StoreError> {
        self.searchers.acquire().await
    }

    /// A transaction that may write. On SQLite there is one at a time, and it holds the write lock from here.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] if none can begin in time.
    pub async fn write(&self) -> Result<Tx, StoreError> {
        if self.engine == Engine::Postgres {
            return Ok(Tx(self.writers.begin().await.map_err(|error| self.primary.failure(error))?));
        }
        Ok(Tx(self.writers.begin_with(BEGIN).await?))
    }

    /// The time by the database's clock, by which several machines agree; `here` on SQLite, whose clock is this machine's.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn time(&self, here: Timestamp) -> Result<Timestamp, StoreError> {
        if self.engine == Engine::Sqlite {
            return Ok(here);
        }
        let time = query::query("SELECT CAST(EXTRACT(EPOCH FROM clock_timestamp()) * 1000 AS BIGINT) AS now");
        let found = time.find(&mut *self.read().await?, |row| row.get("now")).await?;
        Ok(found.unwrap_or(here))
    }

    /// Where bulky output is kept, if not in the database.
    #[must_use]
    pub const fn files(&self) -> &work::output::Files {
        &self.files
    }

    /// Whether the database takes no writes: a standby, or set read only. Known from the connection that was looked at last.
    #[must_use]
    pub fn is_read_only(&self) -> bool {
        self.primary.is_missing()
    }

    /// Which engine this is.
    #[must_use]
    pub const fn engine(&self) -> Engine {
        self.engine
    }

    /// Closes every connection; SQLite's log is moved into the database file first.
    ///
    /// # Errors
    /// If the final checkpoint fails; the data is safe in the log then.
    pub async fn close(self) -> Result<(), StoreError> {
        self.searchers.close().await;
        self.readers.close().await;
        let checkpoint = match self.engine {
            Engine::Sqlite => {
                let mut writer = self.writers.acquire().await?;
                (&mut *writer).execute("PRAGMA wal_checkpoint(TRUNCATE)").await.map(|_| ())
            }
            Engine::Postgres => Ok(()),
        };
        self.writers.close().await;
        Ok(checkpoint?)
    }
}

impl Tx {
    /// Makes everything since [`Store::write`] durable and visible.
    ///
    /// # Errors
    /// If it could not be committed; nothing was changed then.
    pub async fn commit(self) -> Result<(), StoreError> {
        Ok(self.0.commit().await?)
    }
}

impl Deref for Conn {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        &self.0
    }
}

impl DerefMut for Conn {
    fn deref_mut(&mut self) -> &mut Connection {
        &mut self.0
    }
}

impl Deref for Tx {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        &self.0
    }
}

impl DerefMut for Tx {
    fn deref_mut(&mut self) -> &mut Connection {
        &mut self.0
    }
}

#[cfg(test)]
mod tests;
