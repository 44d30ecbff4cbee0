//! What the queries about files share: where they may look, and how what they see is told.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use fleetward_protocol::time::Timestamp;

use super::teller::Stop;
use crate::config::Allowed;
use crate::platform::confined::{ConfinedError, Confines};

/// Where the owner allows to look.
pub(super) fn confines(allowed: &Allowed) -> Confines {
    match allowed.roots() {
        None => Confines::everywhere(),
        Some(roots) => Confines::beneath(&roots.map(Path::to_owned).collect::<Vec<_>>()),
    }
}

/// A time of a file, of which the file system says seconds and nanoseconds.
pub(super) const fn time(seconds: i64, nanos: i64) -> Timestamp {
    Timestamp::from_millis(seconds.saturating_mul(1000).saturating_add(nanos / 1_000_000))
}

pub(super) fn modified(metadata: &Metadata) -> Timestamp {
    time(metadata.mtime(), metadata.mtime_nsec())
}

impl From<ConfinedError> for Stop {
    fn from(error: ConfinedError) -> Self {
        Self::failed(format_args!("{error}; {}", error.advice()))
    }
}
