//! The last word about a run, in its directory: written once by its supervisor, durable before it is told.
//!
//! The file is there from the run's start ([`End::ensure_place`]), as zeros: the word that overwrites them changes nothing
//! of the file but its content, and is durable after one write of the disk.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::Path;

use fleetward_protocol::digest::Digest;
use fleetward_protocol::message::Finished;
use fleetward_protocol::run::Refusal;
use fleetward_protocol::wire::{self, DecodeError};
use serde::{Deserialize, Serialize};

/// The file's name in the run's directory.
pub const RESULT: &str = "result";
const MAX_RESULT: usize = 16 << 10;
const CHECK: usize = 8;
/// What a result takes at least, in bytes; nearly all fit.
const PLACE: usize = 512;

/// How a run ended on its host. Append-only.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum End {
    /// It was started, and this is what became of it.
    Finished(Finished),
    /// It could not be started.
    Refused(Refusal),
}

impl End {
    /// Makes a place for the last word of a run that begins. A place is no word.
    ///
    /// # Errors
    /// If the file cannot be made; [`Self::write`] makes it then, or says why not.
    pub fn ensure_place(directory: &Path) -> io::Result<()> {
        let file = open(directory)?;
        file.write_all_at(&[0; PLACE], 0)?;
        file.sync_all()
    }

    /// Makes this the run's last word, durably.
    ///
    /// # Errors
    /// If it cannot be written; nothing that could be mistaken for a result is left then.
    pub fn write(&self, directory: &Path) -> io::Result<()> {
        let body = wire::encode(self, MAX_RESULT).map_err(io::Error::other)?;
        let mut bytes = [&[0; CHECK], &body[..]].concat();
        bytes.resize(bytes.len().max(PLACE), 0);
        let (check, body) = bytes.split_at_mut(CHECK);
        check.copy_from_slice(&Digest::of(body).as_bytes()[..CHECK]);
        let file = open(directory)?;
        if file.metadata()?.len() > bytes.len() as u64 {
            // A longer one that was torn.
            file.set_len(bytes.len() as u64)?;
        }
        file.write_all_at(&bytes, 0)?;
        file.sync_data()
    }

    /// The run's last word, if there is one. A torn one is none.
    ///
    /// # Errors
    /// If the file is there and cannot be read.
    pub fn read(directory: &Path) -> io::Result<Option<Self>> {
        let mut bytes = Vec::new();
        match File::open(directory.join(RESULT)) {
            Ok(file) => io::Read::read_to_end(&mut io::Read::take(file, MAX_RESULT as u64 + 64), &mut bytes)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let Some((check, body)) = bytes.split_at_checked(CHECK) else { return Ok(None) };
        if Digest::of(body).as_bytes()[..CHECK] != *check {
            return Ok(None);
        }
        Ok(match wire::decode(body, MAX_RESULT) {
            // The zeros of its place; results that earlier agents left have none.
            Err(DecodeError::Surplus(zeros)) => wire::decode(&body[..body.len() - zeros], MAX_RESULT).ok(),
            result => result.ok(),
        })
    }
}

fn open(directory: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(directory.join(RESULT))
}

/// Why a run was not started that could not be prepared.
pub(super) fn not_prepared(error: &io::Error) -> Refusal {
    if error.kind() == io::ErrorKind::StorageFull {
        return Refusal::DiskFull;
    }
    Refusal::SpawnFailed { detail: format!("prepare the run: {error}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The last word about a run that could not be started, as long as its reason.
    fn end(length: usize) -> End {
        End::Refused(Refusal::SpawnFailed { detail: "x".repeat(length) })
    }

    #[test]
    fn a_torn_result_is_none_and_the_next_one_counts() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(RESULT);
        assert_eq!(End::read(directory.path()).unwrap(), None);
        for (place, length) in [(true, 3), (false, 3), (true, 600), (false, 600)] {
            if place {
                End::ensure_place(directory.path()).unwrap();
                assert_eq!(End::read(directory.path()).unwrap(), None, "an empty place");
            }
            end(length).write(directory.path()).unwrap();
            assert_eq!(End::read(directory.path()).unwrap(), Some(end(length)));
            let whole = std::fs::read(&path).unwrap();
            // Zeros behind a short one need not be written to be there.
            let written = whole.iter().rposition(|byte| *byte != 0).unwrap();
            for torn in 0..=written {
                // With nothing, or with the zeros of its place, where the rest should be.
                for rest in [0, if place { PLACE.saturating_sub(torn) } else { 0 }] {
                    let bytes = [&whole[..torn], &vec![0; rest]].concat();
                    std::fs::write(&path, bytes).unwrap();
                    assert_eq!(End::read(directory.path()).unwrap(), None, "{torn} of {length} bytes");
                }
            }
            std::fs::write(&path, vec![b'x'; 2000]).unwrap();
            end(length).write(directory.path()).unwrap();
            assert_eq!(End::read(directory.path()).unwrap(), Some(end(length)));
            std::fs::remove_file(&path).unwrap();
        }
    }

    #[test]
    fn a_result_of_an_earlier_agent_is_read() {
        let directory = tempfile::tempdir().unwrap();
        // Exactly what there is to say, with no zeros behind it.
        let body = wire::encode(&end(3), MAX_RESULT).unwrap();
        let bytes = [&Digest::of(&body).as_bytes()[..CHECK], &body].concat();
        std::fs::write(directory.path().join(RESULT), bytes).unwrap();
        assert_eq!(End::read(directory.path()).unwrap(), Some(end(3)));
    }
}
