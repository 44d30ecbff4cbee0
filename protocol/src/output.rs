//! The output log: what a run wrote, in order, with stream and time.
//!
//! A log is a sequence of records, each a 13-byte header (stream `u8`, time `i64`, length `u32`, little-endian)
//! followed by `length` payload bytes. The same bytes are the host's spool, travel on the wire and stand in the
//! controller's store, so an offset means one thing everywhere. A record's payload is at most
//! [`MAX_RECORD`] bytes. A [`Stream::Dropped`] record stands where the run's output limit cut the middle out:
//! its payload is the number of payload bytes that are missing, a little-endian `u64`; one of another length is
//! damage like an unknown stream, so that no reader has to guess what it counts.
//!
//! A typed action also tells its steps and its result to programs: [`Stream::Event`] and [`Stream::Report`] stand in the
//! same log, in their place, under the same offsets. Neither is output: whoever shows or counts what a run wrote passes
//! them over ([`Stream::is_output`]). What is in them is checked where they are made and by whoever reads them
//! ([`crate::event`]), never by who carries the log: a host cannot break its run by what it says in one.

use crate::time::Timestamp;

/// The length of a record's header, in bytes.
pub const HEADER: usize = 13;
/// The largest payload of one record, in bytes.
pub const MAX_RECORD: usize = 64 << 10;

/// Where a record's payload came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Stream {
    /// File descriptor 1.
    Stdout,
    /// File descriptor 2.
    Stderr,
    /// Not output: the payload is a little-endian `u64`, the count of payload bytes dropped here.
    Dropped,
    /// Not output: the payload is an [`Event`](crate::event::Event), whole in one record.
    Event,
    /// Not output: the payload is the report of a typed action, one JSON object, whole in one record. The last one counts.
    Report,
}

impl Stream {
    /// Whether a run wrote the payload: what is shown as its output and counted as that.
    #[must_use]
    pub const fn is_output(self) -> bool {
        match self {
            Self::Stdout | Self::Stderr => true,
            Self::Dropped | Self::Event | Self::Report => false,
        }
    }

    const fn code(self) -> u8 {
        match self {
            Self::Stdout => 1,
            Self::Stderr => 2,
            Self::Dropped => 3,
            Self::Event => 4,
            Self::Report => 5,
        }
    }

    const fn from_code(code: u8) -> Option<Self> {
        match code {
            1 => Some(Self::Stdout),
            2 => Some(Self::Stderr),
            3 => Some(Self::Dropped),
            4 => Some(Self::Event),
            5 => Some(Self::Report),
            _ => None,
        }
    }
}

/// One record of a log, borrowed from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Record<'a> {
    /// Where the payload came from.
    pub stream: Stream,
    /// The host's clock when the payload was read from the process.
    pub at: Timestamp,
    /// The bytes.
    pub payload: &'a [u8],
}

impl Record<'_> {
    /// Appends the record to `log`, split if its payload exceeds [`MAX_RECORD`]; only output may be that long.
    pub fn append_to(&self, log: &mut Vec<u8>) {
        for payload in self.payload.chunks(MAX_RECORD) {
            log.extend_from_slice(&header(self.stream, self.at, payload.len()));
            log.extend_from_slice(payload);
        }
    }

    /// The number of dropped bytes this record stands for; `None` unless it is a [`Stream::Dropped`] record.
    #[must_use]
    pub fn dropped(&self) -> Option<u64> {
        match (self.stream, <[u8; 8]>::try_from(self.payload)) {
            (Stream::Dropped, Ok(count)) => Some(u64::from_le_bytes(count)),
            _ => None,
        }
    }
}

/// A record's header. `length` above [`MAX_RECORD`] makes a log that readers refuse.
#[must_use]
pub fn header(stream: Stream, at: Timestamp, length: usize) -> [u8; HEADER] {
    let mut header = [0; HEADER];
    header[0] = stream.code();
    header[1..9].copy_from_slice(&at.as_millis().to_le_bytes());
    header[9..].copy_from_slice(&u32::try_from(length).unwrap_or(u32::MAX).to_le_bytes());
    header
}

/// Bytes that are not a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the output log is damaged at byte {at}")]
pub struct DamagedLog {
    /// Where in the given bytes the damaged record begins.
    pub at: usize,
}

/// Reads whole records from the front of a log; a partial record at the end is left for later.
#[derive(Debug, Clone)]
pub struct Records<'a> {
    log: &'a [u8],
    at: usize,
}

impl<'a> Records<'a> {
    /// Reads `log`, which begins at a record's first byte.
    #[must_use]
    pub const fn new(log: &'a [u8]) -> Self {
        Self { log, at: 0 }
    }

    /// How many bytes were consumed as whole records so far.
    #[must_use]
    pub const fn consumed(&self) -> usize {
        self.at
    }
}

impl<'a> Iterator for Records<'a> {
    type Item = Result<Record<'a>, DamagedLog>;

    fn next(&mut self) -> Option<Self::Item> {
        let rest = self.log.get(self.at..)?;
        let (header, rest) = rest.split_first_chunk::<HEADER>()?;
        let damaged = DamagedLog { at: self.at };
        let [code, times @ .., l0, l1, l2, l3] = header;
        let mut millis = [0; 8];
        millis.copy_from_slice(times);
        let length = u32::from_le_bytes([*l0, *l1, *l2, *l3]) as usize;
        let Some(stream) = Stream::from_code(*code) else { return Some(Err(damaged)) };
        if length > MAX_RECORD || (stream == Stream::Dropped && length != size_of::<u64>()) {
            return Some(Err(damaged));
        }
        let payload = rest.get(..length)?;
        self.at += HEADER + length;
        Some(Ok(Record { stream, at: Timestamp::from_millis(i64::from_le_bytes(millis)), payload }))
    }
}
