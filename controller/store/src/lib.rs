//! All SQL of the controller, and only here.
//!
//! **What for.** Everything that must survive a restart: tenants and users, hosts and their certificates,
//! scripts, operations with their runs and output, and the audit chain. One file per noun; each has free
//! functions that take a connection and the caller's [`Scope`].
//!
//! **What it promises.** One SQL text runs on SQLite and on PostgreSQL (`docs/decisions/0002-one-sql-text.md`).
//! A committed [`Tx`] is on disk. State changes are compare-and-set and say whether they took. Every query on
//! tenants' data filters by [`Scope`] in SQL. Values are only ever bound, never pasted into SQL text.
//!
//! **Deliberately absent.** Decisions (they are in `fleetward-domain`), clocks (every function takes `now`),
//! secrets in the clear (callers encrypt or digest them first), OFFSET paging.
//!
//! Verbs: `insert`, `get` (an error if absent), `find` (`None` if absent), `list`, `update`, `delete`.

use std::fs::OpenOptions;
use std::ops::{Deref, DerefMut};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use fleetward_protocol::time::Timestamp;
use sqlx::any::{Any, AnyPoolOptions};
use sqlx::pool::PoolConnection;
use sqlx::{AnyConnection, AnyPool, Connection as _, Executor as _, Transaction};

mod error;
pub mod fleet;
mod migrate;
pub mod page;
pub mod people;
mod query;
mod scope;
mod search;
pub mod setting;
pub mod table;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
pub mod work;

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
}

/// A connection for reading.
#[derive(Debug)]
pub struct Conn(PoolConnection<Any>);

/// A transaction. Dropped without [`Tx::commit`], it changes nothing.
#[derive(Debug)]
pub struct Tx(Transaction<'static, Any>);

const READERS: u32 = 8;
const POSTGRES_WRITERS: u32 = 8;
// Long enough for a checkpoint of a busy disk, short enough that a request fails before its client gives up.
const ACQUIRE: Duration = Duration::from_secs(15);

const BEGIN: &str = "BEGIN IMMEDIATE";
const SQLITE_WRITER: &str = "PRAGMA busy_timeout = 10000; PRAGMA page_size = 8192; PRAGMA journal_mode = WAL; \
   PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON; PRAGMA temp_store = MEMORY; \
   PRAGMA cache_size = -8192; PRAGMA wal_autocheckpoint = 4096; PRAGMA journal_size_limit = 67108864;";
const SQLITE_READER: &str = "PRAGMA busy_timeout = 10000; PRAGMA foreign_keys = ON; PRAGMA query_only = ON; \
   PRAGMA temp_store = MEMORY; PRAGMA cache_size = -2048;";

/// The URL of a SQLite database at `path`, for [`Store::open`].
#[must_use]
pub fn sqlite_url(path: &Path) -> String {
    format!("sqlite:{}", path.display())
}

impl Store {
    /// Opens the database at `url` and brings its schema up to this build: `sqlite:PATH` (created with mode
    /// 0600 if it is missing) or `postgres://user@host/database`.
    ///
    /// # Errors
    /// If the URL is neither, the database cannot be reached, or its schema is of a newer build.
    pub async fn open(url: &str, now: Timestamp) -> Result<Self, StoreError> {
        Self::open_with(url, now, search::LIMITS).await
    }

    /// The same, with other limits on searches.
    async fn open_with(url: &str, now: Timestamp, limits: search::Limits) -> Result<Self, StoreError> {
        sqlx::any::install_default_drivers();
        let store = if url.starts_with("postgres://") || url.starts_with("postgresql://") {
            Self::connect_postgres(url, limits).await?
        } else if let Some(path) = url.strip_prefix("sqlite:").filter(|path| !path.is_empty()) {
            Self::connect_sqlite(path.strip_prefix("//").unwrap_or(path), limits).await?
        } else {
            return Err(StoreError::InvalidUrl(without_password(url)));
        };
        let mut tx = store.write().await?;
        migrate::apply(&mut tx, store.engine, now).await?;
        tx.commit().await?;
        Ok(store)
    }

    /// A connection for reading. On SQLite it sees what was committed before each of its statements.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] if none becomes free in time.
    pub async fn read(&self) -> Result<Conn, StoreError> {
        Ok(Conn(self.readers.acquire().await?))
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
            return Ok(Tx(self.writers.begin().await?));
        }
        match self.writers.begin_with(BEGIN).await {
            // SQLite rolls back by itself when the disk is full or broken. sqlx does not notice, and would refuse
            // every later transaction on this connection.
            Err(sqlx::Error::InvalidSavePointStatement) => {
                self.writers.acquire().await?.close().await?;
                Ok(Tx(self.writers.begin_with(BEGIN).await?))
            }
            begun => Ok(Tx(begun?)),
        }
    }

    /// Where bulky output is kept, if not in the database.
    #[must_use]
    pub const fn files(&self) -> &work::output::Files {
        &self.files
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

    async fn connect_sqlite(path: &str, limits: search::Limits) -> Result<Self, StoreError> {
        create_private(Path::new(path))?;
        let url = format!("sqlite://{}?mode=rw", escape(path));
        let pool = |size: u32, pragmas: &'static str| {
            AnyPoolOptions::new()
                .max_connections(size)
                .acquire_timeout(ACQUIRE)
                .idle_timeout(None)
                .max_lifetime(None)
                // A file does not hang up; the question would cost as much as a small statement.
                .test_before_acquire(false)
                .after_connect(move |conn, _| {
                    Box::pin(async move {
                        sqlx::raw_sql(pragmas).execute(conn).await?;
                        Ok(())
                    })
                })
        };
        // One connection outside the pools first: it puts a fresh file into WAL mode, and it says at once what is
        // wrong with a file, where a pool would try again until its time is over.
        let mut first = AnyConnection::connect(&url).await?;
        sqlx::raw_sql(SQLITE_WRITER).execute(&mut first).await?;
        first.close().await?;
        let writers = pool(1, SQLITE_WRITER).connect(&url).await?;
        let readers = pool(READERS, SQLITE_READER).connect(&url).await?;
        let searchers = search::Searchers::sqlite(&url, SQLITE_READER, limits).await?;
        let files = work::output::Files::beside(Path::new(path));
        Ok(Self { engine: Engine::Sqlite, readers, writers, searchers, files })
    }

    async fn connect_postgres(url: &str, limits: search::Limits) -> Result<Self, StoreError> {
        let pool = |size: u32| AnyPoolOptions::new().max_connections(size).acquire_timeout(ACQUIRE);
        let writers = pool(POSTGRES_WRITERS).connect(url).await?;
        let readers = pool(READERS).connect(url).await?;
        let searchers = search::Searchers::postgres(url, limits).await?;
        Ok(Self { engine: Engine::Postgres, readers, writers, searchers, files: work::output::Files::none() })
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

/// Creates the file with mode 0600 if it is missing, so that it is never readable by others, not even briefly;
/// SQLite gives its log and index files the same mode.
fn create_private(path: &Path) -> Result<(), StoreError> {
    OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
        .map(|_| ())
        .map_err(|source| StoreError::CreateFile { path: PathBuf::from(path).display().to_string(), source })
}

fn escape(path: &str) -> String {
    path.replace('%', "%25").replace('?', "%3f").replace('#', "%23")
}

/// The URL as it may stand in a message.
fn without_password(url: &str) -> String {
    match (url.find("://"), url.rfind('@')) {
        (Some(scheme), Some(at)) if scheme + 3 < at => format!("{}…{}", &url[..scheme + 3], &url[at..]),
        _ => url.to_owned(),
    }
}

#[cfg(test)]
mod tests;
