//! What is counted of output: bytes that a run wrote, and bytes that its host says are missing.

use fleetward_protocol::output::{Records, Stream};

/// What records hold.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Tally {
    /// Bytes that the run wrote.
    pub(super) kept: u64,
    /// Bytes that it wrote and that are missing, by what the host says.
    pub(super) lost: u64,
}

impl Tally {
    /// Of whole records: [`RunSink`](fleetward_protocol::session::RunSink) refuses a stream with anything else in it,
    /// before it becomes an [`Append`](super::Append).
    pub(super) fn of(records: &[u8]) -> Self {
        let mut tally = Self::default();
        for record in Records::new(records).map_while(Result::ok) {
            match record.stream {
                Stream::Stdout | Stream::Stderr => tally.kept += record.payload.len() as u64,
                Stream::Dropped => {
                    tally.lost = tally.lost.saturating_add(record.dropped().unwrap_or_default());
                }
                Stream::Event | Stream::Report => {}
            }
        }
        tally
    }

    /// Adds what other records hold.
    pub(super) const fn add(&mut self, other: Self) {
        self.kept += other.kept;
        self.lost = self.lost.saturating_add(other.lost);
    }
}
