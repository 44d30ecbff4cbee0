//! Reads a part of a file, and goes on with what is appended to it.
//!
//! A file that is followed is looked at again and again, four times in a second: inotify(7) tells nothing of what other machines
//! write to a network file system, nor of files of the kernel, and a host has few of its watches. A look at a file that was
//! not changed takes some microseconds.

use std::fs::{File, Metadata};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::time::Duration;

use fleetward_protocol::query::file_read::{Became, FileRead, MAX_LENGTH, PIECE, ReadFile, ReadItem};
use tokio::time::sleep;

use super::file::{confines, modified};
use super::look::Look;
use super::teller::{Stop, Teller};
use crate::platform::confined::{ConfinedError, Confines, Last, Links};

/// How often a file is looked at that is followed.
const ROUND: Duration = Duration::from_millis(250);

impl Look for FileRead {
    async fn look(&self, follow: bool, teller: &mut Teller<Self>) -> Result<(), Stop> {
        let confines = confines(teller.allowed());
        let (mut reading, metadata) = Reading::open(self, &confines)?;
        let size = metadata.len();
        let most = self.length.unwrap_or(MAX_LENGTH);
        reading.at = match (self.offset, self.tail) {
            (Some(offset), _) => offset,
            (None, Some(tail)) => size.saturating_sub(tail),
            (None, None) if follow => size.saturating_sub(most),
            (None, None) => 0,
        };
        teller.item(&reading.file(&metadata, None)).await?;
        reading.tell(most, teller).await?;
        if !follow {
            return Ok(());
        }
        teller.complete().await?;
        loop {
            sleep(ROUND).await;
            reading.round(&confines, teller).await?;
            teller.flush().await?;
        }
    }
}

/// A file that is read.
struct Reading<'a> {
    asked: &'a FileRead,
    file: File,
    /// As far as it was told.
    at: u64,
    inode: u64,
    device: u64,
    /// Whether it says how long it is: files of the kernel do not.
    is_sized: bool,
}

impl<'a> Reading<'a> {
    fn open(asked: &'a FileRead, confines: &Confines) -> Result<(Self, Metadata), ConfinedError> {
        let (file, metadata) = confines.open_file(asked.path.as_path())?;
        let (inode, device) = (metadata.ino(), metadata.dev());
        Ok((Self { asked, file, at: 0, inode, device, is_sized: metadata.len() > 0 }, metadata))
    }

    fn file(&self, metadata: &Metadata, became: Option<Became>) -> ReadItem {
        ReadItem::file(ReadFile {
            became,
            size: metadata.len(),
            from: self.at,
            modified: modified(metadata),
            inode: self.inode,
            device: self.device,
        })
    }

    /// Tells what there is, so many bytes at the most.
    async fn tell(&mut self, most: u64, teller: &mut Teller<FileRead>) -> Result<(), Stop> {
        let mut left = most;
        let mut piece = [0; PIECE];
        while left > 0 {
            let wanted = usize::try_from(left).unwrap_or(PIECE).min(PIECE);
            let Some(room) = piece.get_mut(..wanted) else { break };
            let read = read_at(&self.file, room, self.at).map_err(|error| self.failed(error))?;
            let Some(bytes) = piece.get(..read).filter(|bytes| !bytes.is_empty()) else { break };
            teller.item(&ReadItem::piece(self.at, bytes)).await?;
            self.at = self.at.saturating_add(read as u64);
            left -= read as u64;
        }
        Ok(())
    }

    /// Tells what became of it since.
    async fn round(&mut self, confines: &Confines, teller: &mut Teller<FileRead>) -> Result<(), Stop> {
        let metadata = self.file.metadata().map_err(|error| self.failed(error))?;
        self.is_sized |= metadata.len() > 0;
        if self.is_sized && metadata.len() < self.at {
            self.at = 0;
            teller.item(&self.file(&metadata, Some(Became::Truncated))).await?;
        }
        // First to its end: what has its name by now comes behind it.
        let path = self.asked.path.as_path();
        let now = match confines.look(path, Last::Follow, Links::Any) {
            Ok(seen) => Some(seen.metadata),
            // Between two names of a rotation there is none, and where it is changed all the time the next look sees more.
            Err(error) if error.is_absent() || matches!(error, ConfinedError::Changing(_)) => None,
            Err(error) => return Err(error.into()),
        };
        self.tell(u64::MAX, teller).await?;
        let is_other = |now: Metadata| now.is_file() && (now.ino(), now.dev()) != (self.inode, self.device);
        if now.is_some_and(is_other) {
            let (next, metadata) = match Self::open(self.asked, confines) {
                Ok(next) => next,
                Err(error) if error.is_absent() => return Ok(()),
                Err(error) => return Err(error.into()),
            };
            *self = next;
            teller.item(&self.file(&metadata, Some(Became::Replaced))).await?;
            self.tell(u64::MAX, teller).await?;
        }
        Ok(())
    }

    fn failed(&self, error: io::Error) -> Stop {
        ConfinedError::new("reading", self.asked.path.as_path(), error).into()
    }
}

/// What of the file fits into the buffer, until its end. What has nothing to read now, such as the kernel's log, is at its end.
fn read_at(file: &File, buffer: &mut [u8], at: u64) -> io::Result<usize> {
    let mut read = 0;
    while let Some(room) = buffer.get_mut(read..).filter(|room| !room.is_empty()) {
        match file.read_at(room, at.saturating_add(read as u64)) {
            Ok(0) => break,
            Ok(more) => read += more,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => break,
            Err(error) => return Err(error),
        }
    }
    Ok(read)
}
