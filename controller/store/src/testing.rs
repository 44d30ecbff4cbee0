//! Fresh stores for tests, on both engines.
//!
//! SQLite: a file in a temporary directory. PostgreSQL: a database of its own on the server that
//! `FLEETWARD_TEST_POSTGRES` names (a URL of a superuser), or on a private server that the first test process
//! starts and that all test processes share. The private server listens on a socket in a temporary directory
//! only; a watchdog stops it and removes its files when no test process is left, however they ended.
//!
//! Where there is no PostgreSQL, [`postgres`] prints `SKIPPED: … because …` and returns `None`;
//! `FLEETWARD_TEST_ALL=1` turns that into a failure.

#![expect(clippy::expect_used, reason = "a test that cannot have its database fails by panicking")]

use std::fs::{self, File};
use std::path::PathBuf;

use fleetward_protocol::time::Timestamp;
use sqlx::{AnyConnection, AssertSqlSafe, Connection as _, Executor as _};
use uuid::Uuid;

use crate::{Store, StoreError, sqlite_url};

mod server;

pub use server::Server;
use server::private_server;

/// When tests' stores are made.
pub const NOW: Timestamp = Timestamp::from_millis(1_700_000_000_000);

thread_local! {
    /// How many statements this thread has made. A test's own, for a test and its store's callers share a thread.
    pub static STATEMENTS: std::cell::Cell<u64> = const { std::cell::Cell::new(0) };
}

impl Store {
    /// Opens the database at `url` and brings its schema up to this build, as its only user may.
    ///
    /// # Errors
    /// As [`Store::connect`] and [`Connected::migrate`](crate::Connected::migrate).
    pub async fn open(url: &str, now: Timestamp) -> Result<Self, StoreError> {
        Self::connect(url).await?.migrate(now, None, |_| Ok(())).await
    }
}

/// A store that nothing else uses.
#[derive(Debug)]
pub struct TestStore {
    /// The store.
    pub store: Store,
    /// Its URL, to open it again.
    pub url: String,
    keeper: Keeper,
}

/// A database with nothing in it.
#[derive(Debug)]
pub struct Blank {
    /// Its URL.
    pub url: String,
    keeper: Keeper,
}

#[derive(Debug)]
enum Keeper {
    Directory(tempfile::TempDir),
    Database { server: String, name: String, _lock: Option<File> },
}

impl Keeper {
    async fn finish(self) {
        match self {
            Self::Directory(directory) => directory.close().expect("the directory is removed"),
            Self::Database { server, name, .. } => {
                let mut conn = AnyConnection::connect(&server).await.expect("the server answers");
                let drop = format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)");
                conn.execute(AssertSqlSafe(drop)).await.expect("the database is dropped");
            }
        }
    }
}

impl Blank {
    /// Brings it to the newest schema.
    async fn open(self) -> TestStore {
        let Self { url, keeper } = self;
        let store = Store::open(&url, NOW).await.expect("the store opens");
        TestStore { store, url, keeper }
    }

    /// Removes it.
    pub async fn finish(self) {
        self.keeper.finish().await;
    }
}

impl TestStore {
    /// Closes the store and removes its data. A test that fails before this leaves its database to the private
    /// server's end.
    pub async fn finish(self) {
        self.store.close().await.expect("the store closes");
        self.keeper.finish().await;
    }

    /// The SQLite file; `None` on PostgreSQL.
    #[must_use]
    pub fn file(&self) -> Option<PathBuf> {
        match &self.keeper {
            Keeper::Directory(directory) => Some(directory.path().join("test.db")),
            Keeper::Database { .. } => None,
        }
    }
}

/// A fresh store in a SQLite file.
pub async fn sqlite() -> TestStore {
    blank_sqlite().open().await
}

/// Where a SQLite file may be made.
#[must_use]
pub fn blank_sqlite() -> Blank {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let url = sqlite_url(&directory.path().join("test.db"));
    Blank { url, keeper: Keeper::Directory(directory) }
}

/// Lets a SQLite store grow by this many pages more, as a disk of that size would; `None` takes the limit away. It is
/// a limit on the size of files, and so on the whole process: each test is one of its own. A limit of SQLite's would
/// be gone with the connection, which is replaced after the first failure.
pub async fn limit_growth(store: &Store, pages: Option<u64>) {
    const PAGE: u64 = 8192;
    let bytes = match pages {
        Some(pages) => {
            let mut conn = store.read().await.expect("a reader is free");
            let row = sqlx::query("PRAGMA database_list").fetch_one(&mut *conn).await.expect("the file");
            let file = PathBuf::from(sqlx::Row::get::<String, _>(&row, 2));
            let length = |file: PathBuf| fs::metadata(file).map_or(0, |file| file.len());
            length(file.with_extension("db-wal")).max(length(file)) + pages * PAGE
        }
        None => u64::MAX,
    };
    // SAFETY: integers, and a structure that outlives the calls.
    unsafe {
        libc::signal(libc::SIGXFSZ, libc::SIG_IGN);
        let mut limit: libc::rlimit = std::mem::zeroed();
        libc::getrlimit(libc::RLIMIT_FSIZE, &raw mut limit);
        limit.rlim_cur = bytes.min(limit.rlim_max);
        assert_eq!(libc::setrlimit(libc::RLIMIT_FSIZE, &raw const limit), 0);
    }
}

/// What a commit says when its disk fails.
pub fn failed_disk() -> StoreError {
    StoreError::Storage(sqlx::Error::WorkerCrashed)
}

/// Makes every commit that touches an operation fail at its very end, on SQLite: each statement before it succeeds.
pub async fn refuse_commits(store: &Store) {
    // A foreign key that is looked at when the transaction ends (https://sqlite.org/foreignkeys.html, 4.2).
    execute(
        store,
        "CREATE TABLE nobody (id INTEGER PRIMARY KEY);
         CREATE TABLE refusal (whom INTEGER REFERENCES nobody (id) DEFERRABLE INITIALLY DEFERRED);
         CREATE TRIGGER refuse_commits AFTER UPDATE ON operation BEGIN INSERT INTO refusal VALUES (1); END",
    )
    .await;
}

/// Makes every audit event be refused, on SQLite, as a full disk would; the rest can be written.
pub async fn refuse_audit(store: &Store) {
    execute(
        store,
        "CREATE TRIGGER refuse_audit BEFORE INSERT ON audit BEGIN SELECT RAISE(ABORT, 'no audit'); END",
    )
    .await;
}

/// Takes [`refuse_audit`] back.
pub async fn allow_audit(store: &Store) {
    execute(store, "DROP TRIGGER refuse_audit").await;
}

/// Takes [`refuse_commits`] back.
pub async fn allow_commits(store: &Store) {
    execute(store, "DROP TRIGGER refuse_commits; DROP TABLE refusal; DROP TABLE nobody").await;
}

/// Runs statements as somebody with access to the database would.
pub async fn execute(store: &Store, sql: &'static str) {
    let mut tx = store.write().await.expect("the writer is free");
    sqlx::raw_sql(sql).execute(&mut *tx).await.expect("the statements are taken");
    tx.commit().await.expect("the writer is given back");
}

/// A fresh store in a PostgreSQL database; `None` if there is no PostgreSQL here, which was then said.
pub async fn postgres(test: &str) -> Option<TestStore> {
    Some(blank_postgres(test).await?.open().await)
}

/// A PostgreSQL database with nothing in it; `None` if there is no PostgreSQL here, which was then said.
pub async fn blank_postgres(test: &str) -> Option<Blank> {
    sqlx::any::install_default_drivers();
    let (server, lock) = match server() {
        Ok(server) => server,
        Err(reason) => {
            let all = std::env::var("FLEETWARD_TEST_ALL").is_ok_and(|all| all == "1");
            assert!(!all, "{test} on PostgreSQL cannot run because {reason}");
            eprintln!("SKIPPED: {test} on PostgreSQL because {reason}");
            return None;
        }
    };
    let name = format!("fleetward_{}", Uuid::now_v7().simple());
    let mut conn = AnyConnection::connect(&server).await.expect("the server answers");
    conn.execute(AssertSqlSafe(format!("CREATE DATABASE {name} TEMPLATE template0")))
        .await
        .expect("a database");
    conn.close().await.expect("the connection closes");
    let url = named(&server, &name);
    Some(Blank { url, keeper: Keeper::Database { server, name, _lock: lock } })
}

/// Makes each function a test on SQLite and a test on PostgreSQL; it is given a [`Store`] of its own.
#[macro_export]
macro_rules! on_both_engines {
    ($($(#[$attribute:meta])* async fn $name:ident($store:ident: Store) $body:block)+) => {$(
        $(#[$attribute])*
        mod $name {
            use super::*;

            async fn body($store: $crate::Store) $body

            #[tokio::test]
            async fn sqlite() {
                let test = $crate::testing::sqlite().await;
                body(test.store.clone()).await;
                test.finish().await;
            }

            #[tokio::test]
            async fn postgres() {
                if let Some(test) = $crate::testing::postgres(stringify!($name)).await {
                    body(test.store.clone()).await;
                    test.finish().await;
                }
            }
        }
    )+};
}

fn server() -> Result<(String, Option<File>), String> {
    if let Ok(url) = std::env::var("FLEETWARD_TEST_POSTGRES")
        && !url.is_empty()
    {
        return Ok((url, None));
    }
    private_server().map(|(url, lock)| (url, Some(lock)))
}

/// The URL of the same server with another database.
fn named(server: &str, database: &str) -> String {
    let (address, options) = server.split_once('?').map_or((server, None), |(a, o)| (a, Some(o)));
    let start = address.find("://").map_or(0, |at| at + 3);
    let host = address[start..].find('/').map_or(address, |at| &address[..start + at]);
    match options {
        Some(options) => format!("{host}/{database}?{options}"),
        None => format!("{host}/{database}"),
    }
}
