//! One entry of the journal, and how it stands in the file.
//!
//! A record is a little-endian `u32`, the first eight bytes of the SHA-256 of that number and the body, and the body in
//! the wire's format. The number is the body's length; its highest bit says that the record followed another one in the
//! same write, and so was not durable before it. Entries are append-only like messages: an agent reads the journal of its predecessor.

use fleetward_protocol::id::{BootId, JournalId, RunId};
use fleetward_protocol::order::{MAX_CONTENTS_TOTAL, MAX_ORDER};
use fleetward_protocol::run::Refusal;
use fleetward_protocol::time::Timestamp;
use fleetward_protocol::wire::{self, EncodeError};
use ring::digest::{Context, SHA256};
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

/// The largest body of a record: an order and its contents.
const MAX_BODY: usize = MAX_ORDER + MAX_CONTENTS_TOTAL + 8192;
/// Length, place and check.
pub(super) const HEADER: usize = 12;

/// Set in a header's number if the record followed another in the same write.
const FOLLOWS: u32 = 1 << 31;

/// Where a record stood in its write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// It was the first: whatever stands before it was durable already.
    First,
    /// It followed another one: a crash may have kept either without the other.
    Follows,
}

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
        /// The bytes of its order, which are sealed on the way to the file; empty when the run was refused, and
        /// in a compacted journal when the run was started since and cannot be taken up.
        #[serde(with = "serde_bytes")]
        order: Vec<u8>,
        /// The contents the order names.
        contents: Vec<ByteBuf>,
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
        /// Whether it can go on in a later boot: then the journal keeps its order until the run is forgotten.
        resumable: bool,
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
    /// The run, which an earlier boot cut off, is about to go on.
    TakenUp {
        /// The run.
        run: RunId,
        /// In this boot.
        boot: BootId,
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
            | Self::Forgotten { run, .. }
            | Self::TakenUp { run, .. } => Some(*run),
        }
    }

    /// Appends the entry's record to `bytes`.
    pub(super) fn append_to(&self, bytes: &mut Vec<u8>, place: Place) -> Result<(), EncodeError> {
        let body = wire::encode(self, MAX_BODY)?;
        let length = u32::try_from(body.len())
            .map_err(|_| EncodeError::TooLong { size: body.len(), cap: MAX_BODY })?;
        let number = match place {
            Place::First => length,
            Place::Follows => length | FOLLOWS,
        };
        bytes.extend_from_slice(&number.to_le_bytes());
        bytes.extend_from_slice(&check(number.to_le_bytes(), &body));
        bytes.extend_from_slice(&body);
        Ok(())
    }
}

/// The length of the body that a record's header announces, if it can be one.
pub(super) fn body_length(header: &[u8; HEADER]) -> Option<usize> {
    let length = (u32::from_le_bytes(number(header)) & !FOLLOWS) as usize;
    (1..=MAX_BODY).contains(&length).then_some(length)
}

/// Where the record with this header stood in its write.
pub(super) fn place(header: &[u8; HEADER]) -> Place {
    if u32::from_le_bytes(number(header)) & FOLLOWS == 0 { Place::First } else { Place::Follows }
}

/// The entry whose record has this header and body, if they are those that were written.
pub(super) fn read(header: &[u8; HEADER], body: &[u8]) -> Option<Entry> {
    if header[4..] != check(number(header), body) {
        return None;
    }
    wire::decode(body, MAX_BODY).ok()
}

const fn number(header: &[u8; HEADER]) -> [u8; 4] {
    let [l0, l1, l2, l3, ..] = *header;
    [l0, l1, l2, l3]
}

fn check(number: [u8; 4], body: &[u8]) -> [u8; 8] {
    let mut check = [0; 8];
    let mut context = Context::new(&SHA256);
    context.update(&number);
    context.update(body);
    check.copy_from_slice(&context.finish().as_ref()[..8]);
    check
}
