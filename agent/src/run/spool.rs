//! A run's output on disk: the record log of [`fleetward_protocol::output`], within its limit.
//!
//! Up to the limit less the *tail* everything goes to the log at once. What comes after goes to two tail files
//! in turn, of which only the last bytes survive; at the end they follow the log behind a marker that counts
//! exactly what is missing. A disk without room is treated like a limit that was reached.
//!
//! What a typed action tells beside its output has limits of its own. Events go to the log at once, wherever the output
//! goes at that time, so that steps are seen as they happen; they count for no output. The last report is kept until
//! the end, and is the log's last record: no limit takes it.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, IoSlice, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use fleetward_protocol::output::{HEADER, MAX_RECORD, Record, Records, Stream, header};
use fleetward_protocol::time::Timestamp;

use super::outcome::End;
use crate::platform::files;

/// The log's name in the run's directory.
pub const SPOOL: &str = "spool";
/// The payload of a record that is 64 KiB long with its header: pieces of the log that are cut at round offsets are
/// whole records then, and nobody has to put halves together.
pub const FULL_RECORD: usize = MAX_RECORD - HEADER;
/// Records written by one system call.
const TOGETHER: usize = 4;
/// The names of the tail files.
const TAILS: [&str; 2] = ["tail.0", "tail.1"];
/// The most payload kept of a run's end once its limit is exceeded.
const MAX_TAIL: u64 = 4 << 20;
/// The most payload of events that is kept of one run.
const MAX_EVENTS: u64 = 4 << 20;
/// How much is written between two looks at the free space.
const CHECK_EVERY: u64 = 8 << 20;
/// A log goes to the disk in stretches of this many bytes while it grows, so that the end of a large one waits for the
/// last of them alone.
const STRETCH: u64 = 8 << 20;
/// Stretches behind the reader that are given back again: they may not have been written the first time.
const AGAIN: u64 = 3;

/// Writes a run's output.
#[derive(Debug)]
pub struct Spool {
    directory: PathBuf,
    log: Part,
    head: u64,
    tail: u64,
    newer: Option<Part>,
    older: Option<Part>,
    dropped: u64,
    dropped_at: Option<Timestamp>,
    rotations: usize,
    room: Room,
    /// Payload of events so far.
    events: u64,
    report: Option<(Timestamp, Vec<u8>)>,
}

/// What became of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kept {
    /// It is in the log.
    Yes,
    /// It is not, for the first time: what is told from now on may be missing.
    NoMore,
    /// It is not, as others before it.
    No,
}

/// A file of records.
#[derive(Debug)]
struct Part {
    file: File,
    length: u64,
    payload: u64,
}

/// The guard against a full disk.
#[derive(Debug)]
struct Room {
    min_free: u64,
    until_check: u64,
    full: bool,
}

impl Spool {
    /// A spool in `directory` that keeps `limit` payload bytes (all of them when zero) and leaves `min_free`
    /// bytes of the file system alone.
    ///
    /// # Errors
    /// If there is one already, or the file cannot be made.
    pub fn create(directory: &Path, limit: u64, min_free: u64) -> io::Result<Self> {
        let log = Part::create(&directory.join(SPOOL), Existing::Refused)?;
        Ok(Self::of(directory, log, limit, min_free))
    }

    /// Goes on with the spool of a run that a restart of the host cut off, behind its last whole record. What it holds
    /// counts for the limits.
    ///
    /// # Errors
    /// If it cannot be read or written; or if its output had come to its limit: what was missing was counted in memory.
    pub fn resume(directory: &Path, limit: u64, min_free: u64) -> io::Result<Self> {
        if TAILS.iter().any(|name| directory.join(name).exists()) {
            let words = "its output had come to its limit, and what is missing of it was not counted yet";
            return Err(io::Error::other(words));
        }
        let path = directory.join(SPOOL);
        let (mut payload, mut events) = (0, 0);
        let length = walk(&path, 0, u64::MAX, |record| match record.stream {
            Stream::Event => events += record.payload.len() as u64,
            stream if stream.is_output() => payload += record.payload.len() as u64,
            _ => {}
        })?;
        let mut options = OpenOptions::new();
        let mut file = options.read(true).write(true).create(true).truncate(false).mode(0o600).open(&path)?;
        file.set_len(length)?;
        file.seek(SeekFrom::Start(length))?;
        Ok(Self { events, ..Self::of(directory, Part { file, length, payload }, limit, min_free) })
    }

    fn of(directory: &Path, log: Part, limit: u64, min_free: u64) -> Self {
        let limit = if limit == 0 { u64::MAX } else { limit };
        let tail = (limit / 2).min(MAX_TAIL);
        Self {
            directory: directory.to_owned(),
            log,
            head: limit - tail,
            tail,
            newer: None,
            older: None,
            dropped: 0,
            dropped_at: None,
            rotations: 0,
            room: Room { min_free, until_check: CHECK_EVERY, full: false },
            events: 0,
            report: None,
        }
    }

    /// The length of the log that readers may read, in bytes.
    #[must_use]
    pub const fn length(&self) -> u64 {
        self.log.length
    }

    /// Keeps, or counts, what the process wrote. Never fails: what cannot be written is counted as missing.
    pub fn append(&mut self, stream: Stream, at: Timestamp, payload: &[u8]) {
        if self.room.is_full(&self.directory, payload.len()) {
            return self.drop_bytes(payload.len() as u64, at);
        }
        let room = if self.newer.is_some() { 0 } else { self.head.saturating_sub(self.log.payload) };
        let (head, rest) = payload.split_at(usize::try_from(room).unwrap_or(usize::MAX).min(payload.len()));
        let mut missing = 0;
        for piece in head.chunks(TOGETHER * FULL_RECORD) {
            if self.log.append(stream, at, piece).is_err() {
                missing += piece.len() as u64;
            }
        }
        let piece = usize::try_from(self.tail).unwrap_or(usize::MAX).min(MAX_RECORD);
        if piece == 0 {
            self.drop_bytes(rest.len() as u64, at);
        } else {
            for piece in rest.chunks(piece) {
                if self.append_tail(stream, at, piece).is_err() {
                    missing += piece.len() as u64;
                }
            }
        }
        if missing > 0 {
            self.room.full = true;
            self.drop_bytes(missing, at);
        }
    }

    /// Keeps an event whole, unless there were too many or the disk has no room. Its payload is not empty, and no longer
    /// than [`MAX_RECORD`].
    pub fn append_event(&mut self, at: Timestamp, payload: &[u8]) -> Kept {
        if self.events > MAX_EVENTS {
            return Kept::No;
        }
        self.events += payload.len() as u64;
        if self.events <= MAX_EVENTS
            && !self.room.is_full(&self.directory, payload.len())
            && self.log.append_whole(Stream::Event, at, payload).is_ok()
        {
            return Kept::Yes;
        }
        // Once one is missing none follows: steps with holes would tell a wrong story.
        self.events = u64::MAX;
        Kept::NoMore
    }

    /// Keeps a report in the place of an earlier one, for the log's end. Its payload is not empty, and no longer than
    /// [`MAX_RECORD`].
    pub fn set_report(&mut self, at: Timestamp, payload: &[u8]) {
        self.report = Some((at, payload.to_vec()));
    }

    /// Brings marker, tail and report into the log and makes it durable; returns its final length. May be repeated
    /// after an error.
    ///
    /// # Errors
    /// If the disk has no room even for the marker and the report.
    pub fn finish(&mut self, now: Timestamp) -> io::Result<u64> {
        let kept = self.newer.as_ref().map_or(0, |part| part.payload)
            + self.older.as_ref().map_or(0, |part| part.payload);
        let surplus = kept.saturating_sub(self.tail);
        let start = (self.log.length, self.log.payload);
        let result = self.append_end(surplus, now);
        if result.is_err() {
            (self.log.length, self.log.payload) = start;
            self.log.file.set_len(start.0)?;
            // Else the next attempt would leave a hole.
            self.log.file.seek(SeekFrom::Start(start.0))?;
        }
        result?;
        self.newer = None;
        self.older = None;
        self.dropped = 0;
        self.report = None;
        for name in TAILS {
            drop(files::ensure_absent(&self.directory.join(name)));
        }
        if self.log.length > 0 {
            self.log.file.sync_data()?;
        }
        Ok(self.log.length)
    }

    fn append_end(&mut self, surplus: u64, now: Timestamp) -> io::Result<()> {
        let dropped = self.dropped + surplus;
        if dropped > 0 {
            let at = self.dropped_at.unwrap_or(now);
            self.log.append(Stream::Dropped, at, &dropped.to_le_bytes())?;
        }
        let mut skip = surplus;
        for part in self.older.iter().chain(&self.newer) {
            skip = part.copy_to(&mut self.log, skip)?;
        }
        match &self.report {
            Some((at, report)) => self.log.append_whole(Stream::Report, *at, report),
            None => Ok(()),
        }
    }

    fn append_tail(&mut self, stream: Stream, at: Timestamp, piece: &[u8]) -> io::Result<()> {
        let full = |part: &Part| part.payload + piece.len() as u64 > self.tail;
        if self.newer.as_ref().is_none_or(full) {
            let dropped = self.older.take().map_or(0, |part| part.payload);
            self.drop_bytes(dropped, at);
            self.older = self.newer.take();
            // The names alternate: the new file takes the place of the one that was just dropped.
            self.rotations += 1;
            self.newer =
                Some(Part::create(&self.directory.join(TAILS[self.rotations % 2]), Existing::Replaced)?);
        }
        match &mut self.newer {
            Some(part) => part.append(stream, at, piece),
            None => Ok(()),
        }
    }

    fn drop_bytes(&mut self, bytes: u64, at: Timestamp) {
        self.dropped += bytes;
        if bytes > 0 {
            self.dropped_at.get_or_insert(at);
        }
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Existing {
    Refused,
    Replaced,
}

impl Part {
    fn create(path: &Path, existing: Existing) -> io::Result<Self> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).mode(0o600);
        match existing {
            Existing::Refused => options.create_new(true),
            Existing::Replaced => options.create(true).truncate(true),
        };
        Ok(Self { file: options.open(path)?, length: 0, payload: 0 })
    }

    /// Appends the payload, all of it or nothing, as few records as it takes.
    fn append(&mut self, stream: Stream, at: Timestamp, payload: &[u8]) -> io::Result<()> {
        let mut headers = [[0; HEADER]; TOGETHER];
        let records = headers.iter_mut().zip(payload.chunks(FULL_RECORD));
        let mut slices: Vec<IoSlice<'_>> = records
            .flat_map(|(place, payload)| {
                *place = header(stream, at, payload.len());
                [IoSlice::new(place), IoSlice::new(payload)]
            })
            .collect();
        self.write(&mut slices)?;
        if stream.is_output() {
            self.payload += payload.len() as u64;
        }
        Ok(())
    }

    /// Appends what has to stay in one record.
    fn append_whole(&mut self, stream: Stream, at: Timestamp, payload: &[u8]) -> io::Result<()> {
        let head = header(stream, at, payload.len());
        self.write(&mut [IoSlice::new(&head), IoSlice::new(payload)])
    }

    fn write(&mut self, slices: &mut [IoSlice<'_>]) -> io::Result<()> {
        let length: usize = slices.iter().map(|slice| slice.len()).sum();
        if let Err(error) = write_all(&mut self.file, slices) {
            // The file's cursor follows, so that the next record begins where this one did.
            self.file.set_len(self.length)?;
            io::Seek::seek(&mut self.file, io::SeekFrom::Start(self.length))?;
            return Err(error);
        }
        if let Some(end) = stretch_begun(self.length, length as u64) {
            files::ensure_written_out(&self.file, end - STRETCH..end);
        }
        self.length += length as u64;
        Ok(())
    }

    /// Copies the records to `log`, without the first `skip` payload bytes; returns how many are still to skip.
    fn copy_to(&self, log: &mut Self, mut skip: u64) -> io::Result<u64> {
        let mut offset = 0;
        let mut bytes = vec![0; HEADER + MAX_RECORD];
        while offset < self.length {
            let wanted = usize::try_from(self.length - offset).unwrap_or(usize::MAX).min(bytes.len());
            self.file.read_exact_at(&mut bytes[..wanted], offset)?;
            let mut records = Records::new(&bytes[..wanted]);
            for record in records.by_ref() {
                let record = record.map_err(io::Error::other)?;
                let cut = usize::try_from(skip).unwrap_or(usize::MAX).min(record.payload.len());
                skip -= cut as u64;
                if cut < record.payload.len() {
                    log.append(record.stream, record.at, &record.payload[cut..])?;
                }
            }
            offset += records.consumed() as u64;
        }
        Ok(skip)
    }
}

impl Room {
    fn is_full(&mut self, directory: &Path, wanted: usize) -> bool {
        let wanted = wanted as u64;
        if self.until_check < wanted {
            self.until_check = CHECK_EVERY;
            // A file system that cannot be asked is written to until it says no itself.
            self.full |= files::read_free_space(directory).is_ok_and(|free| free < self.min_free);
        }
        self.until_check -= wanted.min(self.until_check);
        self.full
    }
}

// One system call nearly always.
fn write_all(file: &mut File, mut slices: &mut [IoSlice<'_>]) -> io::Result<()> {
    while !slices.is_empty() {
        match file.write_vectored(slices) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => IoSlice::advance_slices(&mut slices, written),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// A piece of a log, behind what is in `bytes` already. What lies well behind it is not kept in memory any longer: it
/// is read once, unless a connection breaks.
///
/// # Errors
/// If the file cannot be read, or is shorter.
pub fn read(path: &Path, offset: u64, length: usize, mut bytes: Vec<u8>) -> io::Result<Vec<u8>> {
    let mut file = File::open(path)?;
    file.seek(SeekFrom::Start(offset))?;
    bytes.reserve_exact(length);
    let read = (&file).take(length as u64).read_to_end(&mut bytes)?;
    if read < length {
        return Err(ErrorKind::UnexpectedEof.into());
    }
    if let Some(end) = stretch_begun(offset, length as u64) {
        files::ensure_written_out(&file, end.saturating_sub(AGAIN * STRETCH)..end - STRETCH);
    }
    Ok(bytes)
}

/// Where a stretch begins within the `length` bytes from `offset` on, unless that is the first one.
fn stretch_begun(offset: u64, length: u64) -> Option<u64> {
    let begun = (offset + length) / STRETCH;
    (begun > offset / STRETCH).then_some(begun * STRETCH)
}

/// The length of the part of a spool that consists of whole records: what a crash of the host left readable.
///
/// # Errors
/// If the file cannot be read.
pub fn read_sound_length(path: &Path) -> io::Result<u64> {
    read_sound_end(path, 0, u64::MAX)
}

/// Where the whole records end that stand in a spool between `from`, where one begins, and `until`.
///
/// # Errors
/// If the file cannot be read.
pub fn read_sound_end(path: &Path, from: u64, until: u64) -> io::Result<u64> {
    walk(path, from, until, |_| {})
}

/// The same, with a look at each of these records.
fn walk(path: &Path, from: u64, until: u64, mut each: impl FnMut(&Record<'_>)) -> io::Result<u64> {
    let file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(from),
        other => other?,
    };
    let length = file.metadata()?.len().min(until);
    let mut sound = from;
    let mut bytes = vec![0; HEADER + MAX_RECORD];
    while sound < length {
        let wanted = usize::try_from(length - sound).unwrap_or(usize::MAX).min(bytes.len());
        file.read_exact_at(&mut bytes[..wanted], sound)?;
        let before = sound;
        for record in Records::new(&bytes[..wanted]) {
            // Nobody writes an empty record; zeros are what a crash leaves of one that was not written.
            let Some(record) = record.ok().filter(|record| !record.payload.is_empty()) else {
                return Ok(sound);
            };
            sound += (HEADER + record.payload.len()) as u64;
            each(&record);
        }
        if sound == before {
            break;
        }
    }
    Ok(sound)
}

/// Makes what stands in a spool durable; its supervisor, who does so before it writes a result, is gone.
///
/// # Errors
/// If the file cannot be opened or synchronised. A spool that was never made is durable.
pub fn ensure_durable(path: &Path) -> io::Result<()> {
    match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        file => file?.sync_data(),
    }
}

/// Whether the spool in a run's directory still has all the output that its result speaks of. If a damaged file
/// system took some, the result alone would be waited for without end.
#[must_use]
pub fn vouches(directory: &Path, end: &End) -> bool {
    let length = || std::fs::metadata(directory.join(SPOOL)).map_or(0, |file| file.len());
    match end {
        End::Finished(finished) => finished.log_length <= length(),
        End::Refused(_) => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const NOW: Timestamp = Timestamp::from_millis(1_700_000_000_000);

    /// What was told beside the output, in order; its output is left out.
    fn told(directory: &Path) -> Vec<(Stream, Vec<u8>)> {
        let log = std::fs::read(directory.join(SPOOL)).unwrap();
        let records = Records::new(&log).map(Result::unwrap);
        records
            .filter(|record| matches!(record.stream, Stream::Event | Stream::Report))
            .map(|record| (record.stream, record.payload.to_vec()))
            .collect()
    }

    fn read_back(directory: &Path) -> (Vec<u8>, u64, Vec<u8>) {
        let log = std::fs::read(directory.join(SPOOL)).unwrap();
        let (mut before, mut dropped, mut after) = (vec![], 0, vec![]);
        let mut records = Records::new(&log);
        for record in records.by_ref() {
            let record = record.unwrap();
            if matches!(record.stream, Stream::Event | Stream::Report) {
                continue;
            }
            match record.dropped() {
                Some(count) => {
                    assert_eq!(dropped, 0, "one marker at most");
                    dropped = count;
                }
                None if dropped == 0 => before.extend_from_slice(record.payload),
                None => after.extend_from_slice(record.payload),
            }
        }
        assert_eq!(records.consumed(), log.len());
        (before, dropped, after)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(100))]

        #[test]
        fn what_is_kept_and_what_is_counted_is_what_was_written(
            pieces in proptest::collection::vec((any::<bool>(), 0_usize..90), 0..60),
            limit in 0_u64..400,
        ) {
            let directory = tempfile::tempdir().unwrap();
            let mut spool = Spool::create(directory.path(), limit, 0).unwrap();
            let mut written = Vec::new();
            for (number, (stderr, length)) in pieces.into_iter().enumerate() {
                let payload: Vec<u8> = (0..length).map(|at| (number * 31 + at) as u8).collect();
                spool.append(if stderr { Stream::Stderr } else { Stream::Stdout }, NOW, &payload);
                written.extend_from_slice(&payload);
                let log = std::fs::metadata(directory.path().join(SPOOL)).unwrap().len();
                prop_assert_eq!(log, spool.length());
            }
            let length = spool.finish(NOW).unwrap();
            prop_assert_eq!(spool.finish(NOW).unwrap(), length, "finishing again changes nothing");
            prop_assert_eq!(read_sound_length(&directory.path().join(SPOOL)).unwrap(), length);
            let (before, dropped, after) = read_back(directory.path());
            let kept = (before.len() + after.len()) as u64;
            prop_assert_eq!(kept + dropped, written.len() as u64);
            prop_assert!(written.starts_with(&before) && written.ends_with(&after));
            if limit == 0 || written.len() as u64 <= limit {
                prop_assert_eq!(dropped, 0);
            } else {
                prop_assert_eq!(kept, limit);
            }
            prop_assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1);
        }

        /// Whatever is written between, and however little of that may be kept: every event is there, in order and whole,
        /// the last report is the last record, and neither changes what is kept of the output.
        #[test]
        fn no_output_limit_takes_what_is_told(
            pieces in proptest::collection::vec((0_u8..4, 1_usize..90), 0..60),
            limit in 1_u64..200,
        ) {
            let [with, without] = [(); 2].map(|()| tempfile::tempdir().unwrap());
            let mut spool = Spool::create(with.path(), limit, 0).unwrap();
            let mut plain = Spool::create(without.path(), limit, 0).unwrap();
            let (mut events, mut report) = (Vec::new(), None);
            for (number, (kind, length)) in pieces.into_iter().enumerate() {
                let payload: Vec<u8> = (0..length).map(|at| (number * 31 + at) as u8).collect();
                match kind {
                    0 => {
                        prop_assert_eq!(spool.append_event(NOW, &payload), Kept::Yes);
                        events.push((Stream::Event, payload));
                    }
                    1 => {
                        spool.set_report(NOW, &payload);
                        report = Some((Stream::Report, payload));
                    }
                    _ => {
                        spool.append(Stream::Stdout, NOW, &payload);
                        plain.append(Stream::Stdout, NOW, &payload);
                    }
                }
            }
            let length = spool.finish(NOW).unwrap();
            prop_assert_eq!(spool.finish(NOW).unwrap(), length, "finishing again changes nothing");
            plain.finish(NOW).unwrap();
            events.extend(report);
            prop_assert_eq!(told(with.path()), events);
            prop_assert_eq!(read_back(with.path()), read_back(without.path()));
        }

        #[test]
        fn a_torn_log_is_sound_up_to_its_last_whole_record(cut in 0_usize..200, garbage in any::<[u8; 20]>()) {
            let directory = tempfile::tempdir().unwrap();
            let mut spool = Spool::create(directory.path(), 0, 0).unwrap();
            let mut ends = vec![0];
            for _ in 0..5 {
                spool.append(Stream::Stdout, NOW, &[7; 20]);
                ends.push(spool.length());
            }
            let path = directory.path().join(SPOOL);
            let mut log = std::fs::read(&path).unwrap();
            log.truncate(cut);
            if log.len() == cut {
                // Zeros are what a file system shows of pages that never reached the disk.
                log.extend_from_slice(&[0; 20]);
            } else {
                log.extend(garbage.map(|byte| byte | 0x80));
            }
            std::fs::write(&path, &log).unwrap();
            let sound = read_sound_length(&path).unwrap();
            // A record whose payload alone was torn cannot be told from a whole one; nothing before it is lost.
            let whole = ends.iter().copied().filter(|end| *end <= cut as u64).max();
            prop_assert!(ends.contains(&sound) && Some(sound) >= whole);
        }
    }

    /// Cut off anywhere by the end of the host's power: what was whole stays, what follows stands behind it, and the limits
    /// go on where they were.
    #[test]
    fn a_spool_goes_on_behind_its_last_whole_record() {
        for torn in [0, 1, 12, 19] {
            let directory = tempfile::tempdir().unwrap();
            let mut spool = Spool::create(directory.path(), 100, 0).unwrap();
            spool.append(Stream::Stdout, NOW, &[1; 20]);
            spool.append_event(NOW, &vec![2; MAX_RECORD]);
            let whole = spool.length();
            spool.append(Stream::Stdout, NOW, &[3; 7]);
            let file = OpenOptions::new().write(true).open(directory.path().join(SPOOL)).unwrap();
            file.set_len(whole + torn).unwrap();
            let mut spool = Spool::resume(directory.path(), 100, 0).unwrap();
            assert_eq!(spool.length(), whole);
            let event = vec![4; MAX_RECORD];
            let kept: Vec<_> = (0..64).map(|_| spool.append_event(NOW, &event)).collect();
            assert_eq!((kept[62], kept[63]), (Kept::Yes, Kept::NoMore), "64 of them are kept in all");
            spool.append(Stream::Stdout, NOW, &[5; 100]);
            assert!(Spool::resume(directory.path(), 100, 0).is_err(), "what is missing is counted in memory");
            spool.finish(NOW).unwrap();
            let (before, dropped, after) = read_back(directory.path());
            assert_eq!((before.len(), dropped, after.len()), (50, 20, 50));
            assert_eq!((before[19], before[20]), (1, 5));
        }
    }

    #[test]
    fn a_log_of_many_stretches_is_read_as_it_was_written() {
        let directory = tempfile::tempdir().unwrap();
        let mut spool = Spool::create(directory.path(), 0, 0).unwrap();
        let written: Vec<u8> = (0..5 * STRETCH / 4).flat_map(|at| (at as u32).to_le_bytes()).collect();
        for payload in written.chunks(200_001) {
            spool.append(Stream::Stdout, NOW, payload);
        }
        let path = directory.path().join(SPOOL);
        let mut log = Vec::new();
        while log.len() < usize::try_from(spool.length()).unwrap() {
            let length = (256 << 10).min(usize::try_from(spool.length()).unwrap() - log.len());
            let piece = read(&path, log.len() as u64, length, b"head".to_vec()).unwrap();
            assert_eq!((&piece[..4], piece.len()), (b"head".as_slice(), 4 + length));
            log.extend_from_slice(&piece[4..]);
        }
        let payloads = Records::new(&log).flat_map(|record| record.unwrap().payload.to_vec());
        assert!(payloads.eq(written));
        assert_eq!(read(&path, spool.length() - 5, 6, vec![]).unwrap_err().kind(), ErrorKind::UnexpectedEof);
    }

    #[test]
    fn a_stretch_begins_once() {
        let (mut at, mut begun) = (0, vec![]);
        for length in [1, STRETCH - 2, 1, 1, STRETCH, 3 * STRETCH, 5] {
            begun.extend(stretch_begun(at, length));
            at += length;
        }
        assert_eq!(begun, [1, 2, 5].map(|stretch| stretch * STRETCH));
    }

    /// The largest report is one record, behind the marker of an exhausted limit.
    #[test]
    fn a_report_stays_whole_and_events_end_where_their_limit_is() {
        let directory = tempfile::tempdir().unwrap();
        let mut spool = Spool::create(directory.path(), 10, 0).unwrap();
        spool.append(Stream::Stdout, NOW, &[1; 100]);
        spool.set_report(NOW, b"{}");
        spool.set_report(NOW, &vec![2; MAX_RECORD]);
        let event = vec![3; MAX_RECORD];
        let kept: Vec<_> = (0..67).map(|_| spool.append_event(NOW, &event)).collect();
        assert!(kept[..64].iter().all(|kept| *kept == Kept::Yes));
        assert_eq!(kept[64..], [Kept::NoMore, Kept::No, Kept::No]);
        spool.append(Stream::Stdout, NOW, &[1; 5]);
        spool.finish(NOW).unwrap();
        let told = told(directory.path());
        assert_eq!(told.len(), 65);
        assert_eq!(told[64], (Stream::Report, vec![2; MAX_RECORD]));
        let (before, dropped, after) = read_back(directory.path());
        assert_eq!((before.len(), dropped, after.len()), (5, 95, 5));
        let length = std::fs::metadata(directory.path().join(SPOOL)).unwrap().len();
        assert_eq!(read_sound_length(&directory.path().join(SPOOL)).unwrap(), length);
    }

    #[test]
    fn a_disk_without_room_costs_output_and_says_how_much() {
        let directory = tempfile::tempdir().unwrap();
        let mut spool = Spool::create(directory.path(), 0, u64::MAX).unwrap();
        let piece = vec![1; 3 << 20];
        for _ in 0..4 {
            spool.append(Stream::Stdout, NOW, &piece);
        }
        spool.finish(NOW).unwrap();
        let (before, dropped, after) = read_back(directory.path());
        assert_eq!((before.len(), dropped, after.len()), (6 << 20, 6 << 20, 0));
    }
}
