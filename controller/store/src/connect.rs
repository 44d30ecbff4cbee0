//! Reaching a database, and who may change its schema.
//!
//! A controller connects, takes its place, and only then migrates: a newer one that is refused because an older one lives
//! must not have changed the schema below it, nor one that brings the wrong keys. Until then what is in `foundation.sql` is all
//! that is touched, and has one shape for good.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::time::Duration;

use fleetward_protocol::id::ControllerId;
use fleetward_protocol::time::Timestamp;
use sqlx::any::AnyPoolOptions;
use sqlx::{AnyConnection, Connection as _};

use super::migrate::{self, Migration, Step};
use super::primary::{Use, Watch};
use super::{BEGIN, Engine, Store, StoreError, search, work};

const READERS: u32 = 8;
const POSTGRES_WRITERS: u32 = 8;
// Long enough for a checkpoint of a busy disk, short enough that a request fails before its client gives up.
const ACQUIRE: Duration = Duration::from_secs(15);

const SQLITE_WRITER: &str = "PRAGMA busy_timeout = 10000; PRAGMA page_size = 8192; PRAGMA journal_mode = WAL; \
   PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON; PRAGMA temp_store = MEMORY; \
   PRAGMA cache_size = -8192; PRAGMA wal_autocheckpoint = 4096; PRAGMA journal_size_limit = 67108864;";
const SQLITE_READER: &str = "PRAGMA busy_timeout = 10000; PRAGMA foreign_keys = ON; PRAGMA query_only = ON; \
   PRAGMA temp_store = MEMORY; PRAGMA cache_size = -2048;";
const SQLITE_WITHOUT_REFERENCES: &str = "PRAGMA foreign_keys = OFF";

/// A database that is reached and whose schema may be any.
#[derive(Debug)]
pub struct Connected {
    store: Store,
    url: String,
}

/// Where a database is.
enum Place<'a> {
    File(&'a Path),
    Server(&'a str),
}

impl Store {
    /// Reaches the database at `url`: `sqlite:PATH` (created with mode 0600 if it is missing) or
    /// `postgres://user@host/database`. Its schema is left as it is. On PostgreSQL what `foundation.sql` says is made.
    ///
    /// # Errors
    /// If the URL is neither, or the database cannot be reached or takes no writes.
    pub async fn connect(url: &str) -> Result<Connected, StoreError> {
        Self::connect_with(url, search::LIMITS, ACQUIRE).await
    }

    /// The same, with other limits on searches, and another wait for a connection.
    pub(super) async fn connect_with(
        url: &str,
        limits: search::Limits,
        wait: Duration,
    ) -> Result<Connected, StoreError> {
        sqlx::any::install_default_drivers();
        let store = match Place::of(url)? {
            Place::File(path) => {
                create_private(path)?;
                Self::connect_sqlite(path, limits).await?
            }
            Place::Server(url) => {
                let store = Self::connect_postgres(url, limits, wait).await?;
                let mut tx = store.write().await?;
                migrate::found(&mut tx, store.engine).await?;
                tx.commit().await?;
                store
            }
        };
        Ok(Connected { store, url: url.to_owned() })
    }

    /// Opens a database that a controller of this build works on, or has worked on, and changes nothing in it.
    ///
    /// # Errors
    /// If there is none, it cannot be reached, or its schema is another build's.
    pub async fn open_existing(url: &str) -> Result<Self, StoreError> {
        Self::open_existing_by(migrate::STEPS, url).await
    }

    /// The same, by other steps.
    pub(super) async fn open_existing_by(steps: &[Step], url: &str) -> Result<Self, StoreError> {
        sqlx::any::install_default_drivers();
        let store = match Place::of(url)? {
            Place::File(path) if !path.exists() => {
                return Err(StoreError::Missing(path.display().to_string()));
            }
            Place::File(path) => Self::connect_sqlite(path, search::LIMITS).await?,
            Place::Server(url) => Self::connect_postgres(url, search::LIMITS, ACQUIRE).await?,
        };
        let pending = migrate::pending(&mut *store.read().await?, store.engine, steps).await?;
        match pending.first() {
            None => Ok(store),
            Some(first) if first.number == 1 => Err(StoreError::Missing(without_password(url))),
            Some(_) => Err(StoreError::Schema(
                "it is of an older build; start this fleetward-controller once, which converts it".to_owned(),
            )),
        }
    }

    async fn connect_sqlite(path: &Path, limits: search::Limits) -> Result<Self, StoreError> {
        let url = sqlite_address(path);
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
                // SQLite rolls back by itself when the disk is full or broken. sqlx does not notice, and would refuse every later
                // transaction on this connection: nobody else gets it.
                .after_release(|conn, _| {
                    Box::pin(async move {
                        if conn.is_in_transaction() {
                            // A rollback may be on its way yet, and comes before the answer.
                            conn.ping().await?;
                        }
                        Ok(!conn.is_in_transaction())
                    })
                })
        };
        // One connection outside the pools first: it puts a fresh file into WAL mode, and it says at once what is
        // wrong with a file, where a pool would try again until its time is over.
        sqlite_writer(&url).await?.close().await?;
        let writers = pool(1, SQLITE_WRITER).connect(&url).await?;
        let readers = pool(READERS, SQLITE_READER).connect(&url).await?;
        let searchers = search::Searchers::sqlite(&url, SQLITE_READER, limits).await?;
        let files = work::output::Files::beside(path);
        Ok(Self { engine: Engine::Sqlite, readers, writers, searchers, files, primary: Watch::default() })
    }

    async fn connect_postgres(url: &str, limits: search::Limits, wait: Duration) -> Result<Self, StoreError> {
        let primary = Watch::default();
        // Outside the pools, which would try again until their time is over.
        let mut first = AnyConnection::connect(url).await?;
        let takes_writes = primary.look(&mut first, Use::Any).await?;
        first.close().await?;
        if !takes_writes {
            return Err(StoreError::ReadOnly(sqlx::Error::PoolTimedOut));
        }
        let pool = |size: u32| {
            let watch = primary.clone();
            let options = AnyPoolOptions::new().max_connections(size).acquire_timeout(wait).after_connect(
                move |conn, _| {
                    let watch = watch.clone();
                    Box::pin(async move { watch.admit(conn, Use::Any).await })
                },
            );
            primary.guard(options, Use::Any)
        };
        let writers = pool(POSTGRES_WRITERS).connect(url).await?;
        let readers = pool(READERS).connect(url).await?;
        let searchers = search::Searchers::postgres(url, limits, &primary).await?;
        let files = work::output::Files::none();
        Ok(Self { engine: Engine::Postgres, readers, writers, searchers, files, primary })
    }
}

impl Connected {
    /// The store, for the table of controllers and nothing else.
    #[must_use]
    pub const fn controllers(&self) -> &Store {
        &self.store
    }

    /// Brings the schema up to this build. `place` is the place that the controller has taken on a database that others can
    /// reach as well: it still has it when the schema changes, or nothing is changed. Before a change `check` is given the settings
    /// that are there, and nothing is changed if it refuses.
    ///
    /// # Errors
    /// If the schema is of a newer build, the place was lost, `check` refuses, or the database fails; the schema is as it was then.
    pub async fn migrate<E: From<StoreError>>(
        self,
        now: Timestamp,
        place: Option<ControllerId>,
        check: impl FnOnce(&BTreeMap<String, String>) -> Result<(), E>,
    ) -> Result<Store, E> {
        self.migrate_by(Migration { steps: migrate::STEPS, now, place }, check).await
    }

    /// The same, by other steps.
    pub(super) async fn migrate_by<E: From<StoreError>>(
        self,
        migration: Migration<'_>,
        check: impl FnOnce(&BTreeMap<String, String>) -> Result<(), E>,
    ) -> Result<Store, E> {
        let Self { store, url } = self;
        let steps = migration.steps;
        if migrate::pending(&mut *store.read().await?, store.engine, steps).await?.is_empty() {
            return Ok(store);
        }
        match Place::of(&url)? {
            Place::File(path) => {
                // References can only be switched off outside of a transaction, and must not stay so in a pool.
                let mut writer = sqlite_writer(&sqlite_address(path)).await?;
                let without = sqlx::raw_sql(SQLITE_WITHOUT_REFERENCES).execute(&mut writer).await;
                without.map_err(StoreError::from)?;
                let mut tx = writer.begin_with(BEGIN).await.map_err(StoreError::from)?;
                migrate::apply(&mut tx, store.engine, migration, check).await?;
                tx.commit().await.map_err(StoreError::from)?;
                writer.close().await.map_err(StoreError::from)?;
            }
            Place::Server(_) => {
                let mut tx = store.write().await?;
                migrate::apply(&mut tx, store.engine, migration, check).await?;
                tx.commit().await?;
            }
        }
        Ok(store)
    }
}

impl<'a> Place<'a> {
    fn of(url: &'a str) -> Result<Self, StoreError> {
        if url.starts_with("postgres://") || url.starts_with("postgresql://") {
            Ok(Self::Server(url))
        } else if let Some(path) = url.strip_prefix("sqlite:").filter(|path| !path.is_empty()) {
            Ok(Self::File(Path::new(path.strip_prefix("//").unwrap_or(path))))
        } else {
            Err(StoreError::InvalidUrl(without_password(url)))
        }
    }
}

async fn sqlite_writer(url: &str) -> Result<AnyConnection, StoreError> {
    let mut writer = AnyConnection::connect(url).await?;
    sqlx::raw_sql(SQLITE_WRITER).execute(&mut writer).await?;
    Ok(writer)
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
        .map_err(|source| StoreError::CreateFile { path: path.display().to_string(), source })
}

fn sqlite_address(path: &Path) -> String {
    let path = path.display().to_string().replace('%', "%25").replace('?', "%3f").replace('#', "%23");
    format!("sqlite://{path}?mode=rw")
}

/// The URL as it may stand in a message.
fn without_password(url: &str) -> String {
    match (url.find("://"), url.rfind('@')) {
        (Some(scheme), Some(at)) if scheme + 3 < at => format!("{}…{}", &url[..scheme + 3], &url[at..]),
        _ => url.to_owned(),
    }
}
