//! A spool that was damaged after its run had ended: by a disk, or by a hand.
//!
//! The controller refuses what is no record, and asks again from the last whole one that it has. Told the same bytes
//! each time, it would ask for ever, and the run would never end.

use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use fleetward_protocol::message::Finished;
use fleetward_protocol::output::{HEADER, Record, Stream};
use fleetward_protocol::run::{LostCause, Outcome};

use super::outcome::End;
use super::spool::{self, SPOOL};

/// Makes sure that everything that the result speaks of can be read from `offset` on, where a record begins: that is how
/// far the controller has it. Returns the result that holds from now on, if it is another.
///
/// What stands from the first damaged record on is given up: a marker takes its place that counts it, as where a run's
/// limit cuts output out. Where one record is all that is missing, the count is exact; else the headers between them are
/// counted too. The run's outcome is known and stays. Only where the marker cannot be written is the run lost.
pub(super) fn ensure_readable(directory: &Path, offset: u64, end: &Finished) -> Option<Finished> {
    if end.log_length <= offset {
        return None;
    }
    let path = directory.join(SPOOL);
    let read = spool::read_sound_end(&path, offset, end.log_length);
    let sound = *read.as_ref().unwrap_or(&offset);
    if sound >= end.log_length {
        return None;
    }
    let missing = (end.log_length - sound).saturating_sub(HEADER as u64).max(1);
    tracing::error!(spool = %path.display(), offset = sound, missing, "spool_damaged");
    let mut marker = Vec::new();
    Record { stream: Stream::Dropped, at: end.at, payload: &missing.to_le_bytes() }.append_to(&mut marker);
    let mended = Finished { log_length: sound + marker.len() as u64, ..end.clone() };
    // The marker first: it is found again, and counted anew, should the result not get there.
    let written = read
        .and_then(|_| write(&path, sound, &marker))
        .and_then(|()| End::Finished(mended.clone()).replace(directory));
    match written {
        Ok(()) => Some(mended),
        Err(error) => {
            tracing::error!(spool = %path.display(), %error, "spool_not_mended");
            let outcome = Outcome::Lost(LostCause::SpoolUnreadable);
            Some(Finished { outcome, log_length: sound, ..end.clone() })
        }
    }
}

fn write(path: &Path, at: u64, bytes: &[u8]) -> io::Result<()> {
    let file = OpenOptions::new().write(true).open(path)?;
    file.write_all_at(bytes, at)?;
    file.sync_data()
}
