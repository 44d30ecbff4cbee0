//! What is noted of new records: how many bytes a run wrote, how many its host says are missing, and its report.

use fleetward_protocol::event::check_report;
use fleetward_protocol::output::{Records, Stream};

/// What records hold.
#[derive(Debug, Clone, Default)]
pub(super) struct Tally {
    /// Bytes that the run wrote.
    pub(super) kept: u64,
    /// Bytes that it wrote and that are missing, by what the host says.
    pub(super) lost: u64,
    /// The last report among them, if it is one.
    pub(super) report: Option<String>,
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
                // A host cannot break its run by what it says in one.
                Stream::Report if check_report(record.payload).is_ok() => {
                    tally.report = String::from_utf8(record.payload.to_vec()).ok();
                }
                Stream::Event | Stream::Report => {}
            }
        }
        tally
    }

    /// Adds what other records hold.
    pub(super) fn add(&mut self, other: Self) {
        self.kept += other.kept;
        self.lost = self.lost.saturating_add(other.lost);
        self.report = other.report.or_else(|| self.report.take());
    }
}
