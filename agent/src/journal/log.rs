//! The journal's file: append, recover, compact.
//!
//! Behind the last record stand zeros, already on disk ([`Log::ensure_room`]). A record that overwrites them changes
//! nothing of the file but its content, so that its fdatasync(2) need not wait for the file system's own journal too.

use std::fs::{File, OpenOptions};
use std::io::{self, BufReader, Read as _};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use fleetward_protocol::id::{JournalId, RunId};
use fleetward_protocol::time::Timestamp;
use fleetward_protocol::wire::EncodeError;

use super::Accepted;
use super::entry::{self, Entry, HEADER, Place};
use super::index::{Index, Kept, Phase, Span};
use crate::platform::files::FileError;

/// A journal smaller than this is not worth compacting.
const COMPACT_ABOVE: u64 = 1 << 20;
/// Zeros behind the last record when room was made; made anew when less than half is left.
const ROOM: u64 = 64 << 10;
/// How far behind a record that is not whole another one is looked for: further than one write reaches.
const MAX_SEARCHED: usize = 64 << 20;
/// How many bytes are hashed in that search, so that what looks like many records cannot hold up the agent's start.
const MAX_HASHED: usize = 256 << 20;

/// The journal could not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// The file system said no.
    #[error("{act}")]
    Io {
        /// What was tried.
        act: &'static str,
        /// Why not.
        source: io::Error,
    },
    /// The entry is too large for a record.
    #[error("encode a journal entry")]
    Encode(#[source] EncodeError),
    /// The run is not waiting in the journal.
    #[error("the journal holds no waiting run {0}")]
    NotHeld(RunId),
    /// A file of it cannot be used.
    #[error(transparent)]
    File(FileError),
    /// The order could not be sealed.
    #[error("seal an order for the journal")]
    NotSealed,
    /// The order was sealed with a key that is not there any more.
    #[error(
        "what the run was given is sealed with another key than that in {}, which was replaced; ask for the run again",
        .0.display()
    )]
    Sealed(PathBuf),
    /// The journal's thread is gone.
    #[error("the journal is closed")]
    Closed,
}

impl JournalError {
    /// The same failure, told to another of those that it concerns.
    pub(super) fn repeat(&self) -> Self {
        match self {
            Self::Io { act, source } => {
                let source = source
                    .raw_os_error()
                    .map_or_else(|| io::Error::other(source.to_string()), io::Error::from_raw_os_error);
                Self::Io { act, source }
            }
            Self::Encode(EncodeError::TooLong { size, cap }) => {
                Self::Encode(EncodeError::TooLong { size: *size, cap: *cap })
            }
            // The last three are of one asker alone, and are never repeated.
            Self::Encode(EncodeError::Codec(_))
            | Self::Closed
            | Self::File(_)
            | Self::NotSealed
            | Self::Sealed(_) => Self::Closed,
            Self::NotHeld(run) => Self::NotHeld(*run),
        }
    }

    /// Whether there was no room left.
    #[must_use]
    pub fn is_disk_full(&self) -> bool {
        matches!(self, Self::Io { source, .. } if source.kind() == io::ErrorKind::StorageFull
            || source.kind() == io::ErrorKind::QuotaExceeded)
    }
}

/// What opening a journal took.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Recovery {
    /// There was none; a new life begins.
    Created,
    /// It was whole.
    Clean,
    /// A write that a crash interrupted was cut off.
    Truncated {
        /// How many bytes.
        bytes: u64,
    },
    /// It could not be read, or not to its end, and was put aside; a new life begins.
    Replaced {
        /// Where the damaged one is.
        damaged: PathBuf,
    },
}

/// An open journal file.
#[derive(Debug)]
pub(super) struct Log {
    path: PathBuf,
    file: File,
    index: Index,
    id: JournalId,
    /// Where the next record goes: the end of the last whole one.
    end: u64,
    /// The file's length. Behind `end` it holds zeros, durably.
    length: u64,
    /// The size after the last compaction, so that one that gained little is not repeated at once.
    compacted: u64,
}

impl Log {
    pub(super) fn open(
        path: &Path,
        fresh: JournalId,
        now: Timestamp,
    ) -> Result<(Self, Recovery), JournalError> {
        match open_file(path, Open::Existing) {
            Ok(file) => Self::recover(path, file, fresh, now),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Ok((Self::create(path, fresh)?, Recovery::Created))
            }
            Err(source) => Err(JournalError::Io { act: "open the journal", source }),
        }
    }

    pub(super) const fn id(&self) -> JournalId {
        self.id
    }

    pub(super) const fn index(&self) -> &Index {
        &self.index
    }

    /// Makes the entries durable.
    pub(super) fn append(&mut self, entries: &[Entry]) -> Result<(), JournalError> {
        let mut bytes = Vec::new();
        let mut spans = Vec::with_capacity(entries.len());
        for entry in entries {
            let start = bytes.len();
            let place = if start == 0 { Place::First } else { Place::Follows };
            entry.append_to(&mut bytes, place).map_err(JournalError::Encode)?;
            spans.push(Span { offset: self.end + start as u64, length: (bytes.len() - start) as u64 });
        }
        let write = || {
            self.file.write_all_at(&bytes, self.end)?;
            self.file.sync_data()
        };
        if let Err(source) = write() {
            // What a failed write or sync left behind must not be taken for an entry later.
            match self.file.set_len(self.end) {
                Ok(()) => self.length = self.end,
                Err(error) => tracing::error!(%error, "journal_truncation_failed"),
            }
            return Err(JournalError::Io { act: "write to the journal", source });
        }
        self.end += bytes.len() as u64;
        self.length = self.length.max(self.end);
        for (entry, span) in entries.iter().zip(spans) {
            self.index.apply(entry, span);
        }
        Ok(())
    }

    /// Makes sure that the next records overwrite zeros. Where it cannot be done, on a full disk for one, they lengthen
    /// the file, or cannot be written.
    pub(super) fn ensure_room(&mut self) {
        if self.length >= self.end + ROOM / 2 {
            return;
        }
        let wanted = self.end + ROOM;
        let zeros = vec![0; usize::try_from(wanted - self.length).unwrap_or(0)];
        match self.file.write_all_at(&zeros, self.length).and_then(|()| self.file.sync_all()) {
            Ok(()) => self.length = wanted,
            // What of it was written is zeros too.
            Err(error) => tracing::debug!(%error, "journal_without_room"),
        }
    }

    /// Where the last record ends.
    #[cfg(test)]
    pub(super) const fn end(&self) -> u64 {
        self.end
    }

    /// What a run was accepted with that waits, or that can be taken up.
    pub(super) fn read(&self, run: RunId) -> Result<Accepted, JournalError> {
        let is_kept =
            |phase: &Phase| matches!(phase, Phase::Accepted | Phase::Started { taken_up: Some(_), .. });
        let known = self.index.runs().get(&run).filter(|known| is_kept(&known.phase));
        let span = known.ok_or(JournalError::NotHeld(run))?.accepted;
        let record = self.read_span(span)?;
        match record.split_first_chunk().and_then(|(header, body)| entry::read(header, body)) {
            Some(Entry::Accepted { order, contents, .. }) => Ok(Accepted { order, contents }),
            _ => Err(JournalError::NotHeld(run)),
        }
    }

    /// Rewrites the journal when most of it no longer matters.
    pub(super) fn compact_if_due(&mut self, now: Timestamp) -> Result<(), JournalError> {
        let due = self.end > COMPACT_ABOVE
            && self.end > 2 * self.index.live_bytes()
            && self.end > 2 * self.compacted;
        if due { self.compact(now) } else { Ok(()) }
    }

    pub(super) fn compact(&mut self, now: Timestamp) -> Result<(), JournalError> {
        let failed = |source| JournalError::Io { act: "compact the journal", source };
        let mut bytes = Vec::new();
        let mut index = Index::default();
        let mut written = 0;
        let staged = staged(&self.path);
        let file = open_file(&staged, Open::Fresh).map_err(failed)?;
        for kept in self.index.compacted(now) {
            let entry = match kept {
                Kept::Entry(entry) => Some(entry),
                Kept::Record(span) => {
                    let record = self.read_span(span)?;
                    record.split_first_chunk().and_then(|(header, body)| entry::read(header, body))
                }
            };
            let Some(entry) = entry else {
                return Err(failed(io::Error::other("a record changed since it was written")));
            };
            bytes.clear();
            // The file takes its place whole: none of its records can be missing because of a crash.
            entry.append_to(&mut bytes, Place::First).map_err(JournalError::Encode)?;
            file.write_all_at(&bytes, written).map_err(failed)?;
            let length = bytes.len() as u64;
            index.apply(&entry, Span { offset: written, length });
            written += length;
        }
        file.sync_all().map_err(failed)?;
        std::fs::rename(&staged, &self.path).map_err(failed)?;
        sync_directory(&self.path).map_err(failed)?;
        (self.file, self.index) = (file, index);
        (self.end, self.length, self.compacted) = (written, written, written);
        Ok(())
    }

    fn create(path: &Path, id: JournalId) -> Result<Self, JournalError> {
        let failed = |source| JournalError::Io { act: "create the journal", source };
        // Written aside and renamed, so that a journal without its first entry never exists.
        let staged = staged(path);
        let file = open_file(&staged, Open::Fresh).map_err(failed)?;
        let index = Index::default();
        let mut log = Self { path: path.to_owned(), file, index, id, end: 0, length: 0, compacted: 0 };
        log.append(&[Entry::Opened { journal: id }])?;
        std::fs::rename(&staged, path).map_err(failed)?;
        sync_directory(path).map_err(failed)?;
        Ok(log)
    }

    fn recover(
        path: &Path,
        file: File,
        fresh: JournalId,
        now: Timestamp,
    ) -> Result<(Self, Recovery), JournalError> {
        let failed = |source| JournalError::Io { act: "read the journal", source };
        let length = file.metadata().map_err(failed)?.len();
        let (index, end) = scan(&file, length).map_err(failed)?;
        let Some(id) = index.journal() else {
            return Self::replace(path, &index, fresh, now);
        };
        let torn = !is_zero(&file, end, length).map_err(failed)?;
        if torn && is_followed(&file, end, length).map_err(failed)? {
            return Self::replace(path, &index, fresh, now);
        }
        let recovery = if torn {
            // Cut off even where the next record would cover it: behind that one, the rest could pass for a record.
            file.set_len(end).map_err(failed)?;
            file.sync_all().map_err(failed)?;
            Recovery::Truncated { bytes: length - end }
        } else {
            Recovery::Clean
        };
        let length = if torn { end } else { length };
        Ok((Self { path: path.to_owned(), file, index, id, end, length, compacted: 0 }, recovery))
    }

    /// Puts a damaged journal aside. What it knew is lost, in part or whole, and the controller must be told by a new id.
    /// What can still be read of it and starts nothing stays known. What only waited does not: that it was started since
    /// may stand in what cannot be read.
    fn replace(
        path: &Path,
        index: &Index,
        fresh: JournalId,
        now: Timestamp,
    ) -> Result<(Self, Recovery), JournalError> {
        let failed = |source| JournalError::Io { act: "put a damaged journal aside", source };
        let damaged = path.with_extension(format!("damaged-{}", now.as_millis()));
        std::fs::rename(path, &damaged).map_err(failed)?;
        let mut log = Self::create(path, fresh)?;
        let kept: Vec<Entry> = index.ended_or_started(now).collect();
        if !kept.is_empty() {
            log.append(&kept)?;
        }
        Ok((log, Recovery::Replaced { damaged }))
    }

    fn read_span(&self, span: Span) -> Result<Vec<u8>, JournalError> {
        let mut bytes = vec![0; usize::try_from(span.length).unwrap_or(0)];
        self.file
            .read_exact_at(&mut bytes, span.offset)
            .map_err(|source| JournalError::Io { act: "read the journal", source })?;
        Ok(bytes)
    }
}

/// Reads whole records from the start; returns what they amount to and where the last one ends.
fn scan(file: &File, length: u64) -> io::Result<(Index, u64)> {
    let mut reader = BufReader::with_capacity(64 << 10, file);
    let mut index = Index::default();
    let mut end = 0;
    let mut body = Vec::new();
    loop {
        let mut header = [0; HEADER];
        let remaining = length - end;
        if remaining < HEADER as u64 {
            return Ok((index, end));
        }
        reader.read_exact(&mut header)?;
        let Some(size) = entry::body_length(&header).filter(|size| (size + HEADER) as u64 <= remaining)
        else {
            return Ok((index, end));
        };
        body.resize(size, 0);
        reader.read_exact(&mut body)?;
        let Some(entry) = entry::read(&header, &body) else { return Ok((index, end)) };
        let span = Span { offset: end, length: (HEADER + size) as u64 };
        index.apply(&entry, span);
        end += span.length;
    }
}

/// Whether a whole record that was written later stands behind the one at `end` that is not whole. Only what was written
/// last can be torn by a crash: the rest had been durable, and was damaged since. The length in the damaged record's header
/// may be what is damaged, so every place is tried. Where that cannot be told within the limits, it is damage: that
/// starts nothing twice.
fn is_followed(file: &File, end: u64, length: u64) -> io::Result<bool> {
    let rest = usize::try_from(length - end).unwrap_or(usize::MAX).min(MAX_SEARCHED);
    if (rest as u64) < length - end {
        return Ok(true);
    }
    let mut bytes = vec![0; rest];
    file.read_exact_at(&mut bytes, end)?;
    let mut hashed = 0;
    for at in 1..bytes.len() {
        let Some((header, body)) = bytes[at..].split_first_chunk() else { break };
        let Some(body) = entry::body_length(header).and_then(|length| body.get(..length)) else { continue };
        if entry::place(header) == Place::Follows {
            continue;
        }
        hashed += body.len();
        if hashed > MAX_HASHED || entry::read(header, body).is_some() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Whether there is nothing but zeros from `start` to `end`.
fn is_zero(file: &File, mut start: u64, end: u64) -> io::Result<bool> {
    let mut bytes = [0; 4096];
    while start < end {
        let length = usize::try_from(end - start).unwrap_or(usize::MAX).min(bytes.len());
        file.read_exact_at(&mut bytes[..length], start)?;
        if bytes[..length].iter().any(|byte| *byte != 0) {
            return Ok(false);
        }
        start += length as u64;
    }
    Ok(true)
}

#[derive(Clone, Copy, PartialEq)]
enum Open {
    Existing,
    Fresh,
}

fn open_file(path: &Path, open: Open) -> io::Result<File> {
    let fresh = open == Open::Fresh;
    OpenOptions::new().read(true).write(true).create(fresh).truncate(fresh).mode(0o600).open(path)
}

fn staged(path: &Path) -> PathBuf {
    path.with_extension("new")
}

fn sync_directory(path: &Path) -> io::Result<()> {
    File::open(path.parent().unwrap_or(Path::new("/")))?.sync_all()
}
