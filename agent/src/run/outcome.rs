//! The last word about a run, in its directory: written once by its supervisor, durable before it is told.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::Path;

use fleetward_protocol::digest::Digest;
use fleetward_protocol::message::Finished;
use fleetward_protocol::run::Refusal;
use fleetward_protocol::text::Text;
use fleetward_protocol::wire;
use serde::{Deserialize, Serialize};

use crate::platform::files;

/// The file's name in the run's directory.
pub const RESULT: &str = "result";
const MAX_RESULT: usize = 16 << 10;
const CHECK: usize = 8;

/// How a run ended on its host. Append-only.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum End {
    /// It was started, and this is what became of it.
    Finished(Finished),
    /// It could not be started.
    Refused(Refusal),
}

impl End {
    /// Makes this the run's last word, durably.
    ///
    /// # Errors
    /// If it cannot be written; nothing that could be mistaken for a result is left then.
    pub fn write(&self, directory: &Path) -> io::Result<()> {
        let bytes = self.encode()?;
        let path = directory.join(RESULT);
        let file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
        file.write_all_at(&bytes, 0)?;
        file.sync_data()
    }

    /// Puts this in the place of an earlier last word, durably: after a crash it is the one or the other.
    ///
    /// # Errors
    /// If it cannot be written; the earlier one is still there then.
    pub fn replace(&self, directory: &Path) -> io::Result<()> {
        files::ensure_file(&directory.join(RESULT), 0o600, &self.encode()?).map_err(io::Error::other)
    }

    fn encode(&self) -> io::Result<Vec<u8>> {
        let body = wire::encode(self, MAX_RESULT).map_err(io::Error::other)?;
        let mut bytes = Digest::of(&body).as_bytes()[..CHECK].to_vec();
        bytes.extend_from_slice(&body);
        Ok(bytes)
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
        Ok(wire::decode(body, MAX_RESULT).ok())
    }
}

/// Why a run was not started that could not be prepared.
pub(super) fn not_prepared(error: &io::Error) -> Refusal {
    if error.kind() == io::ErrorKind::StorageFull {
        return Refusal::DiskFull;
    }
    Refusal::SpawnFailed { detail: Text::of(format_args!("prepare the run: {error}")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_torn_result_is_none() {
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(End::read(directory.path()).unwrap(), None);
        let end = End::Refused(Refusal::SpawnFailed { detail: Text::of("no") });
        end.write(directory.path()).unwrap();
        assert_eq!(End::read(directory.path()).unwrap(), Some(end));
        let path = directory.path().join(RESULT);
        let whole = std::fs::read(&path).unwrap();
        for length in 0..whole.len() {
            std::fs::write(&path, &whole[..length]).unwrap();
            assert_eq!(End::read(directory.path()).unwrap(), None, "{length} bytes");
        }
    }
}
