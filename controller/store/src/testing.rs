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
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use fleetward_protocol::time::Timestamp;
use sqlx::{AnyConnection, AssertSqlSafe, Connection as _, Executor as _};
use uuid::Uuid;

use crate::{Store, StoreError, sqlite_url};

/// When tests' stores are made.
pub const NOW: Timestamp = Timestamp::from_millis(1_700_000_000_000);

thread_local! {
    /// How many statements this thread has made. A test's own, for a test and its store's callers share a thread.
    pub static STATEMENTS: std::cell::Cell<u64> = const { std::cell::Cell::new(0) };
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

#[derive(Debug)]
enum Keeper {
    Directory(tempfile::TempDir),
    Database { server: String, name: String, _lock: Option<File> },
}

impl TestStore {
    /// Closes the store and removes its data. A test that fails before this leaves its database to the private
    /// server's end.
    pub async fn finish(self) {
        self.store.close().await.expect("the store closes");
        match self.keeper {
            Keeper::Directory(directory) => directory.close().expect("the directory is removed"),
            Keeper::Database { server, name, .. } => {
                let mut conn = AnyConnection::connect(&server).await.expect("the server answers");
                let drop = format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)");
                conn.execute(AssertSqlSafe(drop)).await.expect("the database is dropped");
            }
        }
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
    let directory = tempfile::tempdir().expect("a temporary directory");
    let url = sqlite_url(&directory.path().join("test.db"));
    let store = Store::open(&url, NOW).await.expect("the store opens");
    TestStore { store, url, keeper: Keeper::Directory(directory) }
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
    let store = Store::open(&url, NOW).await.expect("the store opens");
    Some(TestStore { store, url, keeper: Keeper::Database { server, name, _lock: lock } })
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

/// The private server's URL, and a lock that keeps it up as long as this process holds it.
fn private_server() -> Result<(String, File), String> {
    let bin =
        newest_postgres().ok_or("no PostgreSQL server is installed (Debian: apt install postgresql)")?;
    let owner = owner()?;
    let home = std::env::temp_dir().join(format!("fleetward-test-postgres-{}", owner.uid));
    let said = |what: &str, error: std::io::Error| format!("{what} `{}` failed: {error}", home.display());
    fs::create_dir_all(&home).map_err(|error| said("creating", error))?;
    fs::set_permissions(&home, fs::Permissions::from_mode(0o711)).map_err(|error| said("opening", error))?;
    let open = |name: &str| {
        File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(home.join(name))
            .map_err(|e| said("locking", e))
    };
    // The watchdog waits for this one to be free.
    let users = open("users.lock")?;
    users.lock_shared().map_err(|error| said("locking", error))?;
    let start = open("start.lock")?;
    start.lock().map_err(|error| said("locking", error))?;
    let data = home.join("data");
    if !owner.run(&bin, "pg_ctl", &["-D", &text(&data), "status"], &home)?.success {
        start_server(&bin, &owner, &home, &data)?;
    }
    Ok((format!("postgres://postgres@localhost/postgres?host={}", data.display()), users))
}

fn start_server(bin: &Path, owner: &Owner, home: &Path, data: &Path) -> Result<(), String> {
    let _ = fs::remove_dir_all(data);
    fs::create_dir(data).map_err(|error| format!("creating `{}` failed: {error}", data.display()))?;
    chown(data, Some(owner.uid), Some(owner.gid)).map_err(|error| format!("chown failed: {error}"))?;
    let data = text(data);
    let init = ["-D", &data, "-U", "postgres", "-A", "trust", "--no-sync", "-E", "UTF8", "--locale=C"];
    owner.run(bin, "initdb", &init, home)?.check()?;
    let options = format!(
        "-k {data} -c listen_addresses= -c fsync=off -c full_page_writes=off -c synchronous_commit=off \
         -c max_connections=300 -c shared_buffers=64MB"
    );
    let log = format!("{data}/server.log");
    owner.run(bin, "pg_ctl", &["-D", &data, "-w", "-l", &log, "-o", &options, "start"], home)?.check()?;
    // Looks every other second whether a test process still holds the lock; the first time that none does, it
    // holds the lock itself while it stops the server.
    let watchdog = r#"while sleep 2; do
        if flock -n -x 9; then "$@"; rm -rf "$DATA"; exit 0; fi
    done 9>"$USERS""#;
    let mut command = Command::new("setsid");
    command.args(["sh", "-c", watchdog, "watchdog"]).args(owner.prefix()).arg(bin.join("pg_ctl"));
    command
        .args(["-D", &data, "-m", "immediate", "stop"])
        .env("DATA", &data)
        .env("USERS", home.join("users.lock"));
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).current_dir("/");
    command.spawn().map(|_| ()).map_err(|error| format!("the watchdog did not start: {error}"))
}

/// As whom the server runs: it refuses to be root.
struct Owner {
    uid: u32,
    gid: u32,
    is_other: bool,
}

struct Done {
    success: bool,
    said: String,
}

impl Done {
    fn check(self) -> Result<(), String> {
        if self.success {
            Ok(())
        } else {
            Err(format!("the private PostgreSQL server did not start: {}", self.said))
        }
    }
}

impl Owner {
    fn prefix(&self) -> Vec<String> {
        if self.is_other {
            ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"].map(str::to_owned).to_vec()
        } else {
            vec!["env".to_owned()]
        }
    }

    fn run(&self, bin: &Path, program: &str, arguments: &[&str], home: &Path) -> Result<Done, String> {
        let prefix = self.prefix();
        // A file, not a pipe: a server that stays would keep the pipe open.
        let log = home.join(format!("{program}.log"));
        let output =
            File::create(&log).map_err(|error| format!("writing `{}` failed: {error}", log.display()))?;
        let errors = output.try_clone().map_err(|error| error.to_string())?;
        let mut command = Command::new(&prefix[0]);
        command.args(&prefix[1..]).arg(bin.join(program)).args(arguments).current_dir("/");
        command.stdin(Stdio::null()).stdout(output).stderr(errors);
        let status = command.status().map_err(|error| format!("`{program}` did not start: {error}"))?;
        Ok(Done { success: status.success(), said: fs::read_to_string(&log).unwrap_or_default() })
    }
}

fn owner() -> Result<Owner, String> {
    let id = |arguments: &[&str]| -> Result<u32, String> {
        let output = Command::new("id").args(arguments).output().map_err(|error| error.to_string())?;
        let number = String::from_utf8_lossy(&output.stdout).trim().parse();
        number.map_err(|_| "there is no Linux user `postgres` to run the server as".to_owned())
    };
    if id(&["-u"])? == 0 {
        Ok(Owner { uid: id(&["-u", "postgres"])?, gid: id(&["-g", "postgres"])?, is_other: true })
    } else {
        Ok(Owner { uid: id(&["-u"])?, gid: id(&["-g"])?, is_other: false })
    }
}

fn newest_postgres() -> Option<PathBuf> {
    let version = |path: &Path| path.file_name()?.to_str()?.parse::<u32>().ok();
    let installed = fs::read_dir("/usr/lib/postgresql").ok()?;
    let mut found: Vec<(u32, PathBuf)> = installed
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter_map(|path| Some((version(&path)?, path.join("bin"))))
        .filter(|(_, bin)| bin.join("initdb").exists())
        .collect();
    found.sort();
    found.pop().map(|(_, bin)| bin)
}

fn text(path: &Path) -> String {
    path.display().to_string()
}
