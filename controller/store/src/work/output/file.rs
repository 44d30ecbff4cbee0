//! Bulky output, in files beside a SQLite database (`docs/decisions/0008-bulky-output-in-files.md`).
//!
//! A run's file holds the parts of its log that came in large pieces, each at its offset in the log; the parts
//! that stand in rows are holes. What is in a file counts only as far as a committed row says so: anything else
//! is left over from a batch that failed, and is written again or never looked at.
//!
//! **What it promises.** What [`Files::write`] was given is durable when it returns. Files are readable by the
//! controller's account alone.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{DirBuilderExt as _, FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use fleetward_protocol::id::{OperationId, RunId};
use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};

use crate::StoreError;

/// How much of a log's end stays in memory, in bytes: those who follow a run read it there.
const WARM: u64 = 8 << 20;

/// Where bulky output is kept. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Files {
    directory: Option<Arc<Path>>,
}

/// A part of a run's log on its way into the run's file.
#[derive(Debug, Clone)]
pub(crate) struct Part {
    pub(crate) operation: OperationId,
    pub(crate) run: RunId,
    pub(crate) offset: u64,
    /// The bytes, piece after piece.
    pub(crate) pieces: Vec<Bytes>,
}

impl Files {
    /// Files beside the SQLite database at `path`, in a directory of its name with the extension `output`.
    pub(crate) fn beside(path: &Path) -> Self {
        Self { directory: Some(path.with_extension("output").into()) }
    }

    /// No files: everything stands in rows.
    pub(crate) const fn none() -> Self {
        Self { directory: None }
    }

    /// Whether bulky output belongs into files.
    pub(crate) const fn are_used(&self) -> bool {
        self.directory.is_some()
    }

    /// Writes the parts; they are durable when it returns.
    ///
    /// # Errors
    /// [`StoreError::DiskFull`] or [`StoreError::Storage`]; it may be tried again.
    pub(crate) async fn write(&self, parts: Vec<Part>) -> Result<(), StoreError> {
        let Some(directory) = self.directory.clone().filter(|_| !parts.is_empty()) else { return Ok(()) };
        off_thread(move || {
            let mut parts = parts.as_slice();
            while let Some(first) = parts.first() {
                let (of_run, rest) =
                    parts.split_at(parts.iter().take_while(|part| part.run == first.run).count());
                parts = rest;
                write_run(&directory, first.operation, first.run, of_run)?;
            }
            Ok(())
        })
        .await
        .map_err(not_written)
    }

    /// `length` bytes of a run's log from `offset` on, which a committed row says are in its file.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] if they are not there.
    pub(crate) async fn read(
        &self,
        operation: OperationId,
        run: RunId,
        offset: u64,
        length: usize,
    ) -> Result<Vec<u8>, StoreError> {
        let path = path(self.directory.as_deref().unwrap_or(Path::new("")), operation, run);
        let read = off_thread(move || {
            let mut bytes = vec![0; length];
            File::open(&path)?.read_exact_at(&mut bytes, offset)?;
            Ok(bytes)
        });
        read.await.map_err(|error| StoreError::Corrupt {
            column: "run_output".to_owned(),
            detail: format!("the file with a part of run {run} cannot be read: {error}"),
        })
    }

    /// The operations that have files.
    ///
    /// # Errors
    /// If the directory cannot be read.
    pub(crate) async fn list(&self) -> Result<Vec<OperationId>, StoreError> {
        let Some(directory) = self.directory.clone() else { return Ok(Vec::new()) };
        let listed = off_thread(move || {
            let entries = match fs::read_dir(&directory) {
                Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
                entries => entries?,
            };
            // Whatever else somebody put there is not ours.
            Ok(entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect())
        });
        listed.await.map_err(not_written)
    }

    /// Removes an operation's files. There may be none.
    ///
    /// # Errors
    /// If a file cannot be removed.
    pub(crate) async fn delete(&self, operation: OperationId) -> Result<(), StoreError> {
        let Some(directory) = self.directory.clone() else { return Ok(()) };
        let deleted = off_thread(move || match fs::remove_dir_all(directory.join(operation.to_string())) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            other => other,
        });
        deleted.await.map_err(not_written)
    }
}

fn path(directory: &Path, operation: OperationId, run: RunId) -> PathBuf {
    directory.join(operation.to_string()).join(run.to_string())
}

fn write_run(directory: &Path, operation: OperationId, run: RunId, parts: &[Part]) -> io::Result<()> {
    let path = path(directory, operation, run);
    let file = match OpenOptions::new().write(true).open(&path) {
        Err(error) if error.kind() == ErrorKind::NotFound => create(&path)?,
        file => file?,
    };
    // Before its first byte: an attempt that was interrupted may have made the file and no more.
    if file.metadata()?.len() == 0 {
        sync_names(directory, &path)?;
    }
    for part in parts {
        let mut at = part.offset;
        for piece in &part.pieces {
            file.write_all_at(piece, at)?;
            at += piece.len() as u64;
        }
    }
    file.sync_data()?;
    for part in parts {
        let length = part.pieces.iter().map(Bytes::len).sum::<usize>() as u64;
        forget(
            &file,
            part.offset.saturating_sub(WARM),
            part.offset.saturating_add(length).saturating_sub(WARM),
        );
    }
    Ok(())
}

/// Gives the memory back that holds this part of a file, which is on the disk. A log may be larger than the memory, and
/// is hardly read again: what is written next takes the same pages.
fn forget(file: &File, from: u64, to: u64) {
    let (Ok(from), Ok(to)) = (i64::try_from(from), i64::try_from(to)) else { return };
    if from < to {
        // Advice: whoever does not take it loses nothing.
        let _ = posix_fadvise(file, from, to - from, PosixFadviseAdvice::POSIX_FADV_DONTNEED);
    }
}

fn create(path: &Path) -> io::Result<File> {
    if let Some(parent) = path.parent() {
        DirBuilder::new().recursive(true).mode(0o700).create(parent)?;
    }
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)
}

/// Makes a file's name, and those of the directories above it, outlive a power cut (fsync(2)).
fn sync_names(directory: &Path, path: &Path) -> io::Result<()> {
    let parent = path.parent().unwrap_or(directory);
    // A relative path's own parent has no name.
    let above = directory.parent().filter(|above| !above.as_os_str().is_empty()).unwrap_or(Path::new("."));
    [parent, directory, above].into_iter().try_for_each(|directory| File::open(directory)?.sync_all())
}

async fn off_thread<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)?
}

fn not_written(error: io::Error) -> StoreError {
    match error.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge => {
            StoreError::DiskFull(sqlx::Error::Io(error))
        }
        _ => StoreError::Storage(sqlx::Error::Io(error)),
    }
}
