//! Output: the record log of `fleetward_protocol::output`, byte by byte as the host wrote it.
//!
//! A run's log stands in rows that follow each other without gap. Small pieces go into the last row until it
//! holds `SMALL` bytes; larger ones are rows of their own. Each row has *marks*: which seq ended at which
//! offset, one per piece, so that a reader can go on exactly where it stopped, by offset within a run or by seq
//! within an operation. On SQLite the bytes of a row of `BULKY` bytes or more are in the run's [file](Files).

mod file;

use std::collections::BTreeMap;

use fleetward_protocol::id::{OperationId, RunId, TenantId};

use crate::query::{Row, corrupt, query};
use crate::work::operation;
use crate::{Connection, Scope, Store, StoreError};

pub use file::Files;
pub(crate) use file::Part;

/// Below this many bytes a piece is appended to the run's last row, and a row may still grow.
pub(crate) const SMALL: usize = 16 << 10;
/// From this many bytes on a piece goes into the run's file, where files are used: each costs a synchronisation
/// of its own, which a few pages of the database do not.
pub(crate) const BULKY: usize = 64 << 10;
/// The most bytes of a row. Consecutive pieces of one batch are joined to no more than this, and larger ones are cut.
pub(crate) const MAX_ROW: usize = 1 << 20;
const MARK: usize = 16;

/// A part of one run's log.
#[derive(Clone, PartialEq, Eq)]
pub struct Piece {
    /// The run.
    pub run: RunId,
    /// Where it begins in the run's log.
    pub offset: u64,
    /// The operation's seq that committed its last byte.
    pub seq: u64,
    /// The bytes: a part of a record log, not necessarily whole records.
    pub bytes: Vec<u8>,
}

/// Some output of an operation, in the order of its commits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Since {
    /// The pieces, sorted by seq, then run, then offset.
    pub pieces: Vec<Piece>,
    /// Everything up to this seq has been given: ask for what is above it next.
    pub upto: u64,
    /// Whether there was more than fitted.
    pub more: bool,
}

impl std::fmt::Debug for Piece {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Piece")
            .field("run", &self.run)
            .field("offset", &self.offset)
            .field("seq", &self.seq)
            .field("length", &self.bytes.len())
            .finish()
    }
}

/// A run's log from `offset` on: about `budget` bytes, at least some if there are any. Empty at the end.
///
/// # Errors
/// If the database fails, or a file is not what its row says.
pub async fn read(
    conn: &mut Connection,
    files: &Files,
    scope: &Scope,
    run: RunId,
    offset: u64,
    budget: usize,
) -> Result<Vec<u8>, StoreError> {
    let mut bytes = Vec::new();
    let mut at = offset;
    while bytes.len() < budget.max(1) {
        let row = query(
            "SELECT operation_id, first_offset, end_offset - first_offset AS length, in_file, content FROM run_output \
             WHERE run_id = ",
        )
        .value(run)
        .push(" AND first_offset <= ")
        .value(at)
        .push(" AND end_offset > ")
        .value(at)
        .push(" AND ")
        .scope("tenant_id", scope)
        .push(" ORDER BY first_offset DESC LIMIT 1")
        .first(conn)
        .await?;
        let Some(row) = row else { break };
        let place = RowPlace::read(&row)?;
        let skip = usize::try_from(at.saturating_sub(place.first_offset)).unwrap_or(usize::MAX);
        let part = if place.in_file {
            let length = place.length.saturating_sub(skip).min(budget.saturating_sub(bytes.len()).max(BULKY));
            files.read(place.operation, run, at, length).await?
        } else {
            let mut content = row.get::<Vec<u8>>("content")?;
            content.split_off(skip.min(content.len()))
        };
        at += part.len() as u64;
        if bytes.is_empty() {
            bytes = part;
        } else {
            bytes.extend_from_slice(&part);
        }
    }
    Ok(bytes)
}

/// An operation's output above `since`: whole seqs, up to about `budget` bytes, at least one seq if there is
/// one. Memory stays near the budget, however many runs write at once.
///
/// # Errors
/// If the database fails, or a file is not what its row says.
pub async fn list_since(
    conn: &mut Connection,
    files: &Files,
    scope: &Scope,
    operation: OperationId,
    since: u64,
    budget: usize,
) -> Result<Since, StoreError> {
    let mut window = 512_u32;
    loop {
        if let Some(found) = since_within(conn, files, (scope, operation), since, budget, window).await? {
            return Ok(found);
        }
        // More rows begin with one seq than fit the window: look at more of them.
        window = window.saturating_mul(4);
    }
}

/// Looks at the `window` rows with the earliest beginning among those that reach above `since`. `None` if they
/// do not even hold one whole seq.
async fn since_within(
    conn: &mut Connection,
    files: &Files,
    (scope, operation): (&Scope, OperationId),
    since: u64,
    budget: usize,
    window: u32,
) -> Result<Option<Since>, StoreError> {
    let keys = query(
        "SELECT run_id, first_offset, first_seq, end_offset - first_offset AS length FROM run_output \
         WHERE operation_id = ",
    )
    .value(operation)
    .push(" AND seq > ")
    .value(since)
    .push(" AND ")
    .scope("tenant_id", scope)
    .push(" ORDER BY first_seq, run_id, first_offset LIMIT ")
    .value(window)
    .list_of(conn, RowKey::read)
    .await?;
    // Rows beyond the window begin at the last one's seq or later, so only what is below it is whole.
    let mut upto = match keys.last() {
        Some(last) if keys.len() >= window as usize => last.first_seq - 1,
        _ => u64::MAX,
    };
    let mut more = upto != u64::MAX;
    let mut found: BTreeMap<u64, Vec<Piece>> = BTreeMap::new();
    let mut total = 0;
    let mut rest = keys.as_slice();
    while let Some(first) = rest.first()
        && first.first_seq <= upto
    {
        let (group, later) = rest.split_at(group_length(rest, budget));
        rest = later;
        for (key, row) in read_rows(conn, group).await? {
            let place = RowPlace::read(&row)?;
            let content = if place.in_file {
                files.read(operation, key.run, key.first_offset, place.length).await?
            } else {
                row.get("content")?
            };
            for piece in split(&row, &content, key.run, key.first_offset, since)? {
                if piece.seq <= upto {
                    total += piece.bytes.len();
                    found.entry(piece.seq).or_default().push(piece);
                }
            }
        }
        while total > budget && found.len() > 1 {
            let Some((seq, dropped)) = found.pop_last() else { break };
            total -= dropped.iter().map(|piece| piece.bytes.len()).sum::<usize>();
            upto = seq - 1;
            more = true;
        }
    }
    let Some((&last, _)) = found.last_key_value() else {
        return Ok((!more).then(|| Since { pieces: Vec::new(), upto: since, more: false }));
    };
    let mut pieces: Vec<Piece> = found.into_values().flatten().collect();
    pieces.sort_by_key(|piece| (piece.seq, piece.run, piece.offset));
    Ok(Some(Since { pieces, upto: if more { upto.max(last) } else { last }, more }))
}

/// A row of output, without its content.
#[derive(Debug, Clone, Copy)]
struct RowKey {
    run: RunId,
    first_offset: u64,
    first_seq: u64,
    length: u64,
}

impl RowKey {
    fn read(row: &Row) -> Result<Self, StoreError> {
        Ok(Self {
            run: row.get("run_id")?,
            first_offset: row.get("first_offset")?,
            first_seq: row.get("first_seq")?,
            length: row.get("length")?,
        })
    }
}

/// Where a row's bytes are.
#[derive(Debug, Clone, Copy)]
struct RowPlace {
    operation: OperationId,
    first_offset: u64,
    length: usize,
    in_file: bool,
}

impl RowPlace {
    fn read(row: &Row) -> Result<Self, StoreError> {
        let length: u64 = row.get("length")?;
        let length = usize::try_from(length).ok().filter(|length| *length <= MAX_ROW);
        Ok(Self {
            operation: row.get("operation_id")?,
            first_offset: row.get("first_offset")?,
            length: length.ok_or_else(|| corrupt("end_offset", "the row is too long"))?,
            in_file: row.get("in_file")?,
        })
    }
}

/// How many operations are asked for at once when files are looked through.
const ORPHANS: usize = 500;
/// The most rows that are fetched at once.
const GROUP: usize = 64;

/// How many of the first rows to fetch at once: as many as the budget holds, and at least one.
fn group_length(keys: &[RowKey], budget: usize) -> usize {
    let mut left = budget as u64;
    let fits = |key: &&RowKey| {
        let fits = key.length <= left;
        left = left.saturating_sub(key.length);
        fits
    };
    keys.iter().take(GROUP).take_while(fits).count().max(1)
}

/// The rows of these keys, in no particular order; those that retention has taken meanwhile are left out.
async fn read_rows(conn: &mut Connection, keys: &[RowKey]) -> Result<Vec<(RowKey, Row)>, StoreError> {
    let mut select = query(
        "SELECT run_id, operation_id, first_offset, first_seq, end_offset - first_offset AS length, in_file, marks, \
         content FROM run_output WHERE (run_id, first_offset) IN (VALUES ",
    );
    for (at, key) in keys.iter().enumerate() {
        select =
            select.push(if at == 0 { "(" } else { ", (" }).value(key.run).push(", ").value(key.first_offset);
        select = select.push(")");
    }
    let rows = select.push(")").once().all(conn).await?;
    rows.into_iter().map(|row| Ok((RowKey::read(&row)?, row))).collect()
}

/// How many bytes of output there are, of all operations.
///
/// # Errors
/// If the database fails.
pub async fn total(conn: &mut Connection) -> Result<u64, StoreError> {
    let row =
        query("SELECT CAST(COALESCE(SUM(output_end), 0) AS BIGINT) AS total FROM run").first(conn).await?;
    row.map_or(Ok(0), |row| row.get("total"))
}

/// Removes some of an operation's output, oldest rows first; how many rows. In small batches retention never
/// holds the write lock for long.
///
/// # Errors
/// If the database fails.
pub async fn delete(conn: &mut Connection, operation: OperationId, rows: u32) -> Result<u64, StoreError> {
    let doomed = query(
        "SELECT run_id, first_offset FROM run_output WHERE operation_id = $1 ORDER BY seq, run_id, first_offset LIMIT $2",
    )
    .bind(operation)
    .bind(rows)
    .list_of(conn, |row| Ok((row.get::<RunId>("run_id")?, row.get::<u64>("first_offset")?)))
    .await?;
    let mut deleted = 0;
    for (run, first_offset) in doomed {
        deleted += query("DELETE FROM run_output WHERE run_id = $1 AND first_offset = $2")
            .bind(run)
            .bind(first_offset)
            .run(conn)
            .await?;
    }
    Ok(deleted)
}

/// Removes the files of an operation that was removed; a file that nobody wrote is removed too. Called after the
/// commit: a crash in between leaves what [`delete_orphaned_files`] finds.
///
/// # Errors
/// If a file cannot be removed.
pub async fn delete_files(store: &Store, operation: OperationId) -> Result<(), StoreError> {
    store.files().delete(operation).await
}

/// Removes the files of operations that do not exist any more, and says of how many.
///
/// # Errors
/// If the database fails, or a file cannot be removed.
pub async fn delete_orphaned_files(store: &Store) -> Result<u64, StoreError> {
    let mut deleted = 0;
    for ids in store.files().list().await?.chunks(ORPHANS) {
        let known = operation::list_known(&mut *store.read().await?, ids).await?;
        for id in ids.iter().filter(|id| !known.contains(id)) {
            store.files().delete(*id).await?;
            deleted += 1;
        }
    }
    Ok(deleted)
}

/// A run's last row while it is written to.
#[derive(Debug, Clone)]
pub(crate) struct Tail {
    first_offset: u64,
    first_seq: u64,
    seq: u64,
    marks: Vec<u8>,
    content: Vec<u8>,
    /// How many bytes are in the run's file instead.
    in_file: usize,
}

impl Tail {
    pub(crate) fn begin(first_offset: u64, content: Vec<u8>, seq: u64) -> Self {
        let marks = Vec::with_capacity(MARK);
        let mut tail = Self { first_offset, first_seq: seq, seq, marks, content, in_file: 0 };
        tail.mark();
        tail
    }

    /// A row of `length` bytes that are in the run's file.
    pub(crate) fn in_file(first_offset: u64, length: usize, seq: u64) -> Self {
        let (marks, content) = (Vec::with_capacity(MARK), Vec::new());
        let mut tail = Self { first_offset, first_seq: seq, seq, marks, content, in_file: length };
        tail.mark();
        tail
    }

    pub(crate) fn push(&mut self, piece: &[u8], seq: u64) {
        self.content.extend_from_slice(piece);
        if self.seq == seq {
            // The same commit: its mark moves on.
            self.marks.truncate(self.marks.len().saturating_sub(MARK));
        }
        self.seq = seq;
        self.mark();
    }

    pub(crate) const fn is_open(&self) -> bool {
        self.length() < SMALL
    }

    const fn length(&self) -> usize {
        self.content.len() + self.in_file
    }

    const fn end(&self) -> u64 {
        self.first_offset + self.length() as u64
    }

    fn mark(&mut self) {
        self.marks.extend_from_slice(&self.seq.to_le_bytes());
        self.marks.extend_from_slice(&self.end().to_le_bytes());
    }
}

/// The last rows of these runs, where they may still grow.
pub(crate) async fn load_tails(
    conn: &mut Connection,
    runs: &[RunId],
) -> Result<Vec<(RunId, Tail)>, StoreError> {
    query(
        "SELECT t.run_id, t.first_offset, t.first_seq, t.seq, t.marks, t.content \
         FROM run r JOIN run_output t ON t.run_id = r.id AND t.first_offset = r.output_tail \
         WHERE t.end_offset - t.first_offset < ",
    )
    .value(SMALL as u64)
    .push(" AND r.id IN ")
    .list(runs.iter())
    .once()
    .list_of(conn, |row| {
        let tail = Tail {
            first_offset: row.get("first_offset")?,
            first_seq: row.get("first_seq")?,
            seq: row.get("seq")?,
            marks: row.get("marks")?,
            content: row.get("content")?,
            in_file: 0,
        };
        Ok((row.get("run_id")?, tail))
    })
    .await
}

pub(crate) async fn insert_row(
    conn: &mut Connection,
    run: RunId,
    tenant: TenantId,
    operation: OperationId,
    tail: Tail,
) -> Result<(), StoreError> {
    query(
        "INSERT INTO run_output (run_id, first_offset, end_offset, tenant_id, operation_id, first_seq, seq, marks, \
         content, in_file) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
    )
    .bind(run)
    .bind(tail.first_offset)
    .bind(tail.end())
    .bind(tenant)
    .bind(operation)
    .bind(tail.first_seq)
    .bind(tail.seq)
    .bind(tail.marks)
    .bind(tail.content)
    .bind(tail.in_file > 0)
    .run(conn)
    .await
    .map(|_| ())
}

pub(crate) async fn update_row(conn: &mut Connection, run: RunId, tail: &Tail) -> Result<(), StoreError> {
    query(
        "UPDATE run_output SET end_offset = $3, seq = $4, marks = $5, content = $6 \
         WHERE run_id = $1 AND first_offset = $2",
    )
    .bind(run)
    .bind(tail.first_offset)
    .bind(tail.end())
    .bind(tail.seq)
    .bind(tail.marks.as_slice())
    .bind(tail.content.as_slice())
    .run(conn)
    .await
    .map(|_| ())
}

/// The pieces of a row that were committed after `since`.
fn split(
    row: &Row,
    content: &[u8],
    run: RunId,
    first_offset: u64,
    since: u64,
) -> Result<Vec<Piece>, StoreError> {
    let marks = row.get::<Vec<u8>>("marks")?;
    let (marks, rest) = marks.as_chunks::<MARK>();
    if !rest.is_empty() {
        return Err(corrupt("marks", "it ends in half a mark"));
    }
    let mut pieces = Vec::new();
    let mut at = first_offset;
    for mark in marks {
        let (seq, end) = mark.split_at(8);
        let number = |bytes: &[u8]| bytes.try_into().map(u64::from_le_bytes).unwrap_or(0);
        let (seq, end) = (number(seq), number(end));
        if seq > since {
            let index =
                |offset: u64| usize::try_from(offset.saturating_sub(first_offset)).unwrap_or(usize::MAX);
            let bytes = content
                .get(index(at)..index(end))
                .ok_or_else(|| corrupt("marks", "a mark lies outside the row"))?
                .to_vec();
            pieces.push(Piece { run, offset: at, seq, bytes });
        }
        at = end;
    }
    Ok(pieces)
}
