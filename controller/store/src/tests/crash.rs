//! A crash after every single write to SQLite's files, and within it.
//!
//! What a crash can leave is known from how SQLite writes. A transaction appends frames to the log, or overwrites
//! the log from its beginning once all of it is in the database; the database file itself is written only by a
//! checkpoint, while the log is whole (<https://www.sqlite.org/walformat.html>). So each step of a history is
//! photographed before and after it, and every state in between is built from the two: the log up to every frame,
//! into frames, and with sectors that reached the disk in any order; the database with every part of a
//! checkpoint's pages. Bulky output is written to a file of its own before its transaction is committed: every part
//! of it that reached the disk is an image, too. Each image is opened as after a crash. It must hold exactly the rows of before the
//! step, or those of after it if the log's last byte is there, and the step must be possible again.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::{fs, iter};

use fleetward_domain::work::operation::OperationStatus;
use fleetward_domain::work::run::{Failure, RunState};
use fleetward_protocol::digest::Digest;
use fleetward_protocol::id::{AuditId, OperationId, RunId};
use fleetward_protocol::output::{Record, Stream};
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use sqlx::{AssertSqlSafe, Executor as _, Row as _};
use tempfile::TempDir;

use super::sample::*;
use crate::fleet::host;
use crate::fleet::host::NewHost;
use crate::people::{audit, tenant};
use crate::testing::NOW;
use crate::work::batch::{self, Write, Written};
use crate::work::operation::NewOperation;
use crate::work::{operation, output, run};
use crate::{Scope, Store, sqlite_url};

const LOG_HEADER: usize = 32;
const FRAME_HEADER: usize = 24;
const PAGE: usize = 8192;
const SECTOR: usize = 512;

/// A thing that the controller writes in one transaction, or the engine by itself.
enum Step {
    Plan(Box<NewOperation>, Vec<NewHost>, Vec<RunId>),
    Batch(Vec<Write>),
    /// A batch whose commit fills the log, so that a checkpoint follows it.
    BatchAndCheckpoint(Vec<Write>),
    Audit(Box<audit::NewEvent>),
    Status(OperationId, OperationStatus, OperationStatus),
    DeleteOutput(OperationId),
    DeleteOperation(OperationId),
    /// Moves the log into the database; the next transaction overwrites it from its beginning.
    Checkpoint,
    /// The same, and cuts the log off, as a controller that stops does.
    Truncate,
}

/// The files of a database.
#[derive(Clone, PartialEq)]
struct Files {
    database: Vec<u8>,
    log: Vec<u8>,
    /// The runs' files of bulky output, by their paths below their directory.
    output: BTreeMap<PathBuf, Vec<u8>>,
}

/// What a crash left, and what must be found in it.
struct Image {
    what: String,
    files: Files,
    finds: Finds,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Finds {
    Before,
    After,
}

#[tokio::test]
async fn a_crash_in_the_first_start_is_made_good_by_the_next() {
    let directory = directory();
    let file = directory.path().join("live.db");
    let store = Store::open(&sqlite_url(&file), NOW).await.unwrap();
    let (opened, rows) = (Files::read(&file), dump(&store).await);
    // The file, empty; the file in the right mode; then the schema, in one transaction.
    let mut images = between(&Files { log: Vec::new(), ..opened.clone() }, &opened, 0);
    let empty = Files { database: Vec::new(), log: Vec::new(), output: BTreeMap::new() };
    images.push(Image { what: "created".to_owned(), files: empty, finds: Finds::Before });
    for image in images {
        assert_eq!(recovered(directory.path(), &image, None, "the schema").await, rows, "{}", image.what);
    }
    store.close().await.unwrap();
}

#[tokio::test]
async fn a_crash_after_any_write_leaves_whole_transactions_and_loses_none_that_was_acknowledged() {
    let directory = directory();
    let file = directory.path().join("live.db");
    let store = Store::open(&sqlite_url(&file), NOW).await.unwrap();
    assert_writes_in_order(&store).await;
    Step::Truncate.take(&store).await;
    let mut rows = dump(&store).await;
    let (mut crashes_before, mut crashes_after) = (0, 0);
    for (number, step) in history().into_iter().enumerate() {
        let before = Files::read(&file);
        step.take(&store).await;
        let after = Files::read(&file);
        let then = dump(&store).await;
        for image in between(&before, &after, number as u64) {
            let what = format!("step {number}, {}", image.what);
            let (expected, crashes) = match image.finds {
                Finds::Before => (&rows, &mut crashes_before),
                Finds::After => (&then, &mut crashes_after),
            };
            *crashes += 1;
            let found = recovered(directory.path(), &image, Some((&step, &then)), &what).await;
            assert!(&found == expected, "{what}: the rows are not those from {:?} the step", image.finds);
        }
        rows = then;
    }
    println!("crashes: {crashes_before} in a transaction, {crashes_after} after one");
    assert!(crashes_before > 300 && crashes_after > 100, "the history is long enough to prove something");
    store.close().await.unwrap();
}

/// Nothing here must outlive the machine, and in memory a thousand databases are opened in seconds.
fn directory() -> TempDir {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }.unwrap()
}

/// The images are built as SQLite writes in this mode: a commit is one sync of the log, which nothing overtakes.
async fn assert_writes_in_order(store: &Store) {
    let mut writer = store.writers.acquire().await.unwrap();
    let mode: String = sqlx::query_scalar("PRAGMA journal_mode").fetch_one(&mut *writer).await.unwrap();
    let synchronous: i64 = sqlx::query_scalar("PRAGMA synchronous").fetch_one(&mut *writer).await.unwrap();
    assert_eq!((mode.as_str(), synchronous), ("wal", 2), "WAL, and FULL");
}

/// Opens an image as the controller does after a crash; returns its rows. Then the step is taken again: whoever
/// was not told that it is committed will.
async fn recovered(directory: &Path, image: &Image, step: Option<(&Step, &str)>, what: &str) -> String {
    let file = directory.join("crashed.db");
    image.files.write(&file);
    let store = Store::open(&sqlite_url(&file), NOW).await.unwrap_or_else(|error| panic!("{what}: {error}"));
    let mut conn = store.read().await.unwrap();
    let sound: String = sqlx::query_scalar("PRAGMA integrity_check").fetch_one(&mut *conn).await.unwrap();
    assert_eq!(sound, "ok", "{what}");
    let dangling = sqlx::query("PRAGMA foreign_key_check").fetch_all(&mut *conn).await.unwrap();
    assert!(dangling.is_empty(), "{what}");
    drop(conn);
    let found = dump(&store).await;
    if let Some((step, then)) = step {
        match image.finds {
            Finds::Before => {
                step.take(&store).await;
                assert!(dump(&store).await == then, "{what}: the step taken again comes to something else");
            }
            Finds::After => step.repeat(&store, what).await,
        }
    }
    store.close().await.unwrap();
    found
}

/// Everything a controller does to an operation, in its order.
fn history() -> Vec<Step> {
    let plan = new_operation(tenant::DEFAULT);
    let op = plan.id;
    let hosts = vec![new_host(tenant::DEFAULT, "web-1"), new_host(tenant::DEFAULT, "web-2")];
    let (one, two) = (RunId::from_uuid(uuid()), RunId::from_uuid(uuid()));
    let held = custody();
    let (dispatched, running) = (RunState::Dispatched(held), RunState::Running(held));
    let mut logs = Logs { operation: op, ends: [(one, 0), (two, 0)] };
    let event = audit::NewEvent {
        id: AuditId::from_uuid(uuid()),
        tenant: Some(tenant::DEFAULT),
        at: NOW,
        kind: "operation.created".to_owned(),
        actor: "ada".to_owned(),
        subject: "OP-1".to_owned(),
        details: serde_json::Map::new(),
    };
    vec![
        Step::Plan(Box::new(plan), hosts, vec![one, two]),
        Step::Audit(Box::new(event)),
        Step::Status(op, OperationStatus::Queued, OperationStatus::Running),
        Step::Batch(vec![
            change(op, one, RunState::Queued, dispatched.clone()),
            change(op, two, RunState::Queued, dispatched.clone()),
        ]),
        Step::Batch(vec![
            change(op, one, dispatched.clone(), running.clone()),
            logs.grow(0, Stream::Stdout, 17),
            change(op, two, dispatched, running.clone()),
            logs.grow(1, Stream::Stderr, 300),
        ]),
        // A row of its own for one, the last row again for the other.
        Step::Batch(vec![logs.grow(0, Stream::Stdout, 40_000), logs.grow(1, Stream::Stdout, 5_000)]),
        Step::Batch(vec![logs.grow(1, Stream::Stdout, 60), logs.grow(1, Stream::Stderr, 1)]),
        // More than a row should hold: into one run's file, twice, with a row in between.
        Step::Batch(vec![logs.grow(0, Stream::Stdout, 60_000), logs.grow(0, Stream::Stderr, 50_000)]),
        Step::Batch(vec![logs.grow(0, Stream::Stdout, 70)]),
        Step::Batch(vec![logs.grow(0, Stream::Stdout, 65_000), logs.grow(0, Stream::Stdout, 10_000)]),
        Step::Checkpoint,
        // The log begins anew, over the old frames.
        Step::Batch(vec![logs.grow(0, Stream::Stdout, 20_000)]),
        Step::Batch(vec![
            logs.grow(0, Stream::Event, 2),
            logs.grow(0, Stream::Dropped, 8),
            logs.grow(0, Stream::Stdout, 900),
        ]),
        Step::BatchAndCheckpoint(vec![
            change(op, one, running.clone(), RunState::Succeeded),
            logs.grow(1, Stream::Stdout, 30_000),
        ]),
        Step::Batch(vec![
            logs.grow(1, Stream::Stderr, 12),
            change(op, two, running, RunState::Failed(Failure::Exit(3))),
        ]),
        Step::Status(op, OperationStatus::Running, OperationStatus::Partial),
        Step::Truncate,
        Step::DeleteOutput(op),
        Step::DeleteOperation(op),
    ]
}

/// The logs of two runs, as they grow.
struct Logs {
    operation: OperationId,
    ends: [(RunId, u64); 2],
}

impl Logs {
    fn grow(&mut self, which: usize, stream: Stream, length: u64) -> Write {
        let (run, end) = &mut self.ends[which];
        let payload: Vec<u8> = match stream {
            Stream::Dropped => 4711_u64.to_le_bytes().to_vec(),
            Stream::Event | Stream::Report => b"{}".to_vec(),
            Stream::Stdout | Stream::Stderr => (0..length).map(|at| ((*end + at) % 251) as u8).collect(),
        };
        let mut log = Vec::new();
        Record { stream, at: NOW, payload: &payload }.append_to(&mut log);
        let write = append(self.operation, *run, *end, &log);
        *end += log.len() as u64;
        write
    }
}

impl Step {
    async fn take(&self, store: &Store) {
        let mut tx = store.write().await.unwrap();
        match self {
            Self::Plan(plan, hosts, runs) => {
                let planned: Vec<_> = (0..)
                    .zip(hosts.iter().zip(runs))
                    .map(|(position, (host, &id))| run::NewRun { id, ..new_run(host, position) })
                    .collect();
                for new in hosts {
                    host::insert(&mut tx, new, NOW).await.unwrap();
                }
                operation::insert(&mut tx, plan, NOW).await.unwrap();
                run::insert(&mut tx, tenant::DEFAULT, plan.id, &planned, NOW).await.unwrap();
            }
            Self::Batch(writes) => {
                let done = batch::write(&mut tx, store.files(), writes.clone()).await.unwrap();
                let took = |it: &Written| matches!(it, Written::Changed | Written::Appended { .. });
                assert!(done.written.iter().all(took), "{done:?}");
            }
            Self::BatchAndCheckpoint(writes) => {
                tx.execute("PRAGMA wal_autocheckpoint = 1").await.unwrap();
                batch::write(&mut tx, store.files(), writes.clone()).await.unwrap();
            }
            Self::Audit(event) => drop(audit::insert(&mut tx, event).await.unwrap()),
            Self::Status(op, from, to) => {
                operation::update_status(&mut tx, *op, *from, *to, NOW).await.unwrap().unwrap();
            }
            Self::DeleteOutput(op) => assert_eq!(output::delete(&mut tx, *op, 3).await.unwrap(), 3),
            Self::DeleteOperation(op) => assert!(operation::delete(&mut tx, *op).await.unwrap()),
            Self::Checkpoint | Self::Truncate => {}
        }
        tx.commit().await.unwrap();
        let pragma = match self {
            Self::BatchAndCheckpoint(_) => "PRAGMA wal_autocheckpoint = 4096",
            Self::Checkpoint => "PRAGMA wal_checkpoint(FULL)",
            Self::Truncate => "PRAGMA wal_checkpoint(TRUNCATE)",
            _ => return,
        };
        store.writers.acquire().await.unwrap().execute(pragma).await.unwrap();
    }

    /// Takes a step that is committed again, as a host does that was not told: what it says is known, and counts
    /// once.
    async fn repeat(&self, store: &Store, what: &str) {
        let (Self::Batch(writes) | Self::BatchAndCheckpoint(writes)) = self else { return };
        let before = dump_of(store, &["run", "run_output"]).await;
        let mut tx = store.write().await.unwrap();
        let done = batch::write(&mut tx, store.files(), writes.clone()).await.unwrap();
        tx.commit().await.unwrap();
        let known = |it: &Written| matches!(it, Written::Stale(_) | Written::Appended { .. });
        assert!(done.written.iter().all(known), "{what}: {done:?}");
        assert!(dump_of(store, &["run", "run_output"]).await == before, "{what}: counted twice");
    }
}

impl Files {
    fn read(database: &Path) -> Self {
        let read = |path: &Path| fs::read(path).unwrap_or_default();
        let below = database.with_extension("output");
        let operations = fs::read_dir(&below).into_iter().flatten().map(|entry| entry.unwrap().path());
        let runs = operations
            .flat_map(|operation| fs::read_dir(operation).unwrap().map(|entry| entry.unwrap().path()));
        let output = runs.map(|run| (run.strip_prefix(&below).unwrap().to_owned(), read(&run))).collect();
        Self { database: read(database), log: read(&database.with_extension("db-wal")), output }
    }

    fn write(&self, database: &Path) {
        for ending in ["db-shm", "db-wal"] {
            drop(fs::remove_file(database.with_extension(ending)));
        }
        fs::write(database, &self.database).unwrap();
        if !self.log.is_empty() {
            fs::write(database.with_extension("db-wal"), &self.log).unwrap();
        }
        let below = database.with_extension("output");
        drop(fs::remove_dir_all(&below));
        for (run, bytes) in &self.output {
            let path = below.join(run);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, bytes).unwrap();
        }
    }
}

/// Every state of the files between two moments that one transaction and one checkpoint at most lie between.
fn between(before: &Files, after: &Files, seed: u64) -> Vec<Image> {
    let mut images = Vec::new();
    let mut push = |what: String, files: Files| {
        // Cut off, a log may still be whole: when the bytes that are missing are those that stood there before.
        let whole = files.log == after.log || after.log.is_empty();
        images.push(Image { what, files, finds: if whole { Finds::After } else { Finds::Before } });
    };
    let mut random = StdRng::seed_from_u64(seed);
    let mut chosen = |parts: usize, size: usize| -> Vec<Range<usize>> {
        (0..parts).filter(|_| random.random()).map(|part| part * size..(part + 1) * size).collect()
    };
    // First bulky output, of which nobody knows yet.
    for (run, written) in &after.output {
        let stood = before.output.get(run).map_or(&[][..], Vec::as_slice);
        let Some((from, to)) = changed(stood, written) else { continue };
        let middle = from.midpoint(to);
        let single = [0..0, 0..middle, middle..to, 0..to].map(|part| iter::once(part).collect());
        let parts = single.into_iter().chain([chosen(to.div_ceil(SECTOR), SECTOR)]);
        for part in parts {
            let mut files = before.clone();
            files.output.insert(run.clone(), spliced(stood, written, part));
            push("a part of the output".to_owned(), files);
        }
    }
    // Then the log, on the database of before.
    let written = Files { output: after.output.clone(), ..before.clone() };
    if let Some((from, to)) = changed(&before.log, &after.log).filter(|_| !after.log.is_empty()) {
        for cut in cuts(from, to) {
            let log = spliced(&before.log, &after.log, iter::once(0..cut));
            push(format!("the log up to {cut} of {to}"), Files { log, ..written.clone() });
        }
        for _ in 0..4 {
            let sectors = chosen(after.log.len().div_ceil(SECTOR), SECTOR);
            let log = spliced(&before.log, &after.log, sectors);
            push("sectors of the log".to_owned(), Files { log, ..written.clone() });
        }
    }
    // Then the database, beside the whole log.
    let log = if after.log.is_empty() { &before.log } else { &after.log };
    let written = Files { log: log.clone(), ..written };
    if changed(&before.database, &after.database).is_some() {
        let pages = after.database.len().div_ceil(PAGE);
        for page in 0..pages {
            let end = page * PAGE + if page % 2 == 0 { 0 } else { PAGE / 2 };
            let database = spliced(&before.database, &after.database, iter::once(0..end));
            push(format!("the database up to {end}"), Files { database, ..written.clone() });
        }
        for _ in 0..4 {
            let database = spliced(&before.database, &after.database, chosen(pages, PAGE));
            push("pages of the database".to_owned(), Files { database, ..written.clone() });
        }
    }
    push("all of it".to_owned(), after.clone());
    images
}

/// The first byte that differs, and the end of the last one.
fn changed(before: &[u8], after: &[u8]) -> Option<(usize, usize)> {
    let same = before.iter().zip(after).take_while(|(one, other)| one == other).count();
    let length = before.len().max(after.len());
    let differs = |at: &usize| before.get(*at) != after.get(*at);
    (same < length).then(|| (same, (0..length).rfind(differs).unwrap_or(same) + 1))
}

/// Where a crash may cut what is written from `from` to `to`: between any two writes of SQLite, and within them.
fn cuts(from: usize, to: usize) -> Vec<usize> {
    let frame = FRAME_HEADER + PAGE;
    let starts = (0..).map(|number| LOG_HEADER + number * frame).take_while(|start| *start < to);
    let within = starts
        .flat_map(|start| [start, start + FRAME_HEADER, start + FRAME_HEADER + PAGE / 2, start + frame - 1]);
    [0, 13, LOG_HEADER - 1].into_iter().chain(within).filter(|cut| (from..=to).contains(cut)).collect()
}

/// `before` with these parts of `after` in it; zeros where a file system shows a hole.
fn spliced(before: &[u8], after: &[u8], written: impl IntoIterator<Item = Range<usize>>) -> Vec<u8> {
    let mut bytes = before.to_vec();
    for Range { start, end } in written {
        let end = end.min(after.len());
        bytes.resize(bytes.len().max(end), 0);
        bytes[start..end].copy_from_slice(&after[start..end]);
    }
    bytes
}

/// Every value of every row, and every byte of output.
async fn dump(store: &Store) -> String {
    let mut conn = store.read().await.unwrap();
    let tables: Vec<String> =
        sqlx::query_scalar("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name")
            .fetch_all(&mut *conn)
            .await
            .unwrap();
    drop(conn);
    dump_of(store, &tables.iter().map(String::as_str).collect::<Vec<_>>()).await
}

async fn dump_of(store: &Store, tables: &[&str]) -> String {
    let mut conn = store.read().await.unwrap();
    let mut text = String::new();
    for table in tables {
        let columns: Vec<String> =
            sqlx::query_scalar(AssertSqlSafe(format!("SELECT name FROM pragma_table_info('{table}')")))
                .fetch_all(&mut *conn)
                .await
                .unwrap();
        let quoted: Vec<_> = columns.iter().map(|column| format!("quote(\"{column}\")")).collect();
        let select = format!("SELECT {} FROM \"{table}\" ORDER BY 1", quoted.join(" || '|' || "));
        for row in sqlx::query(AssertSqlSafe(select)).fetch_all(&mut *conn).await.unwrap() {
            writeln!(text, "{table} {}", row.get::<String, _>(0)).unwrap();
        }
    }
    for run in
        sqlx::query_scalar::<_, String>("SELECT id FROM run ORDER BY id").fetch_all(&mut *conn).await.unwrap()
    {
        let (run, scope) = (run.parse().unwrap(), Scope::Everything);
        let log = output::read(&mut conn, store.files(), &scope, run, 0, usize::MAX).await.unwrap();
        writeln!(text, "output of {run}: {} bytes, {}", log.len(), Digest::of(&log)).unwrap();
    }
    text
}
