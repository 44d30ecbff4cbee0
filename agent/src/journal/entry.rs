//! One entry of the journal, and how it stands in the file.
//!
//! A record is a little-endian `u32` length, the first eight bytes of the body's SHA-256, and the body in the
//! wire's format. Entries are append-only like messages: an agent reads the journal of its predecessor.

use fleetward_protocol::digest::Digest;
use fleetward_protocol::id::{BootId, JournalId, RunId};
use fleetward_protocol::run::Refusal;
use fleetward_protocol::time::Timestamp;
use fleetward_protocol::wire::{self, EncodeError};
use serde::{Deserialize, Serialize};

/// The largest body of a record: an order and its content.
const MAX_BODY: usize = (2 << 20) + 8192;
/// Length and check.
pub(super) const HEADER: usize = 12;

/// Something that must not be forgotten by a crash.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Entry {
    /// The first entry of every journal.
    Opened {
        /// This life of the journal.
        journal: JournalId,
    },
    /// The run will start at most once from now on.
    Accepted {
        /// The run.
        run: RunId,
        /// The canonical bytes of its order, which are sealed on the way to the file; empty when the run was refused, and
        /// in a compacted journal when the run was started since.
        #[serde(with = "serde_bytes")]
        order: Vec<u8>,
        /// The content the order names.
        #[serde(with = "serde_bytes")]
        content: Vec<u8>,
        /// Not started after this, by the host's clock.
        deadline: Timestamp,
    },
    /// The run is about to start. Nothing may start it after this.
    Started {
        /// The run.
        run: RunId,
        /// The host's clock.
        at: Timestamp,
        /// In this boot.
        boot: BootId,
    },
    /// The accepted run will not start.
    Refused {
        /// The run.
        run: RunId,
        /// Why.
        refusal: Refusal,
    },
    /// The controller has everything about the run.
    Forgotten {
        /// The run.
        run: RunId,
        /// Until when its id must still be known, so that a replayed dispatch does not run it again.
        until: Timestamp,
    },
}

impl Entry {
    /// The run it is about.
    #[must_use]
    pub const fn run(&self) -> Option<RunId> {
        match self {
            Self::Opened { .. } => None,
            Self::Accepted { run, .. }
            | Self::Started { run, .. }
            | Self::Refused { run, .. }
            | Self::Forgotten { run, .. } => Some(*run),
        }
    }

    /// Appends the entry's record to `bytes`.
    pub(super) fn append_to(&self, bytes: &mut Vec<u8>) -> Result<(), EncodeError> {
        let body = wire::encode(self, MAX_BODY)?;
        let length = u32::try_from(body.len())
            .map_err(|_| EncodeError::TooLong { size: body.len(), cap: MAX_BODY })?;
        bytes.extend_from_slice(&length.to_le_bytes());
        bytes.extend_from_slice(&check(&body));
        bytes.extend_from_slice(&body);
        Ok(())
    }
}

/// The length of the body that a record's header announces, if it can be one.
pub(super) fn body_length(header: &[u8; HEADER]) -> Option<usize> {
    let [l0, l1, l2, l3, ..] = *header;
    let length = u32::from_le_bytes([l0, l1, l2, l3]) as usize;
    (1..=MAX_BODY).contains(&length).then_some(length)
}

/// The entry whose record has this header and body, if the body is the one that was written.
pub(super) fn read(header: &[u8; HEADER], body: &[u8]) -> Option<Entry> {
    if header[4..] != check(body) {
        return None;
    }
    wire::decode(body, MAX_BODY).ok()
}

fn check(body: &[u8]) -> [u8; 8] {
    let mut check = [0; 8];
    check.copy_from_slice(&Digest::of(body).as_bytes()[..8]);
    check
}
