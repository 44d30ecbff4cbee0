//! What a typed action tells its supervisor: words, events and its report, in one pipe and so in one order.
//!
//! A frame is its kind (one byte), the length of its payload (four bytes, little-endian) and the payload, at most
//! [`MAX_RECORD`] bytes. The teller is our own program; what it tells may come from anywhere, and whoever wrote it may have
//! been replaced: so nothing that is told is believed. What does not hold is left out with a line to the run's
//! standard error, and nothing else happens.

use std::os::fd::RawFd;

use fleetward_protocol::event::{Event, check_report};
use fleetward_protocol::output::{MAX_RECORD, Stream};

use super::spool::{Kept, Spool};
use crate::platform::clock;

/// The descriptor of the pipe in the process that tells.
pub const TOLD: RawFd = 3;
/// The length of a frame's head, in bytes.
const HEAD: usize = 5;
/// So many faults are told of one run.
const MAX_FAULTS: u32 = 10;

/// What a frame is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Words for people, as on standard output.
    Words,
    /// Words about what went wrong, as on standard error.
    Trouble,
    /// An [`Event`].
    Event,
    /// A report.
    Report,
}

/// A frame that holds, or what is to be said of one that does not.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Parsed<'a> {
    /// This was told.
    Frame(Kind, &'a [u8]),
    /// A line for the run's standard error.
    Fault(String),
}

/// Takes frames out of the bytes of a pipe. Holds no more than one frame of the largest size.
#[derive(Debug, Default)]
pub(super) struct Frames {
    partial: Vec<u8>,
    /// What is left to pass over of a frame that is too long.
    skip: usize,
    /// The bytes are no frames any more.
    lost: bool,
    faults: u32,
}

impl Kind {
    const fn code(self) -> u8 {
        match self {
            Self::Words => 1,
            Self::Trouble => 2,
            Self::Event => 3,
            Self::Report => 4,
        }
    }

    const fn from_code(code: u8) -> Option<Self> {
        match code {
            1 => Some(Self::Words),
            2 => Some(Self::Trouble),
            3 => Some(Self::Event),
            4 => Some(Self::Report),
            _ => None,
        }
    }
}

/// The frame that tells this.
#[must_use]
pub fn frame(kind: Kind, payload: &[u8]) -> Vec<u8> {
    let mut frame = Vec::with_capacity(HEAD + payload.len());
    frame.push(kind.code());
    frame.extend_from_slice(&u32::try_from(payload.len()).unwrap_or(u32::MAX).to_le_bytes());
    frame.extend_from_slice(payload);
    frame
}

impl Frames {
    /// Takes the next bytes of the pipe; calls `each` for what is complete.
    pub(super) fn take(&mut self, mut bytes: &[u8], mut each: impl FnMut(Parsed<'_>)) {
        while !bytes.is_empty() && !self.lost {
            if self.skip > 0 {
                let (skipped, rest) = bytes.split_at(self.skip.min(bytes.len()));
                self.skip -= skipped.len();
                bytes = rest;
                continue;
            }
            let Some(wanted) = self.wanted() else { return };
            let (news, rest) = bytes.split_at((wanted - self.partial.len()).min(bytes.len()));
            self.partial.extend_from_slice(news);
            bytes = rest;
            if self.partial.len() == HEAD
                && let Some(fault) = self.begin()
            {
                self.fault(&fault, &mut each);
            }
            if self.partial.len() > HEAD && Some(self.partial.len()) == self.wanted() {
                let frame = std::mem::take(&mut self.partial);
                match read(&frame) {
                    Ok((kind, payload)) => each(Parsed::Frame(kind, payload)),
                    Err(fault) => self.fault(&fault, &mut each),
                }
                // The same memory for the next one.
                self.partial = frame;
                self.partial.clear();
            }
        }
    }

    /// The pipe has ended.
    pub(super) fn end(&mut self, mut each: impl FnMut(Parsed<'_>)) {
        if !self.partial.is_empty() || self.skip > 0 {
            self.partial.clear();
            self.skip = 0;
            self.fault("the process ended in the middle of it", &mut each);
        }
    }

    /// How long the head is, or with it the frame; `None` if that cannot be told.
    fn wanted(&self) -> Option<usize> {
        match self.partial.get(1..HEAD) {
            None => Some(HEAD),
            Some(length) => Some(HEAD + u32::from_le_bytes(length.try_into().ok()?) as usize),
        }
    }

    /// Looks at a head before anything is allocated on its word; returns what is wrong with it.
    fn begin(&mut self) -> Option<String> {
        let length = self.wanted()? - HEAD;
        if Kind::from_code(self.partial[0]).is_none() {
            self.lost = true;
            self.partial.clear();
            return Some("it is of no known kind; nothing that follows is understood".to_owned());
        }
        if length == 0 || length > MAX_RECORD {
            self.skip = length;
            self.partial.clear();
            return Some(format!("it has {length} bytes, and 1 to {MAX_RECORD} are allowed"));
        }
        None
    }

    fn fault(&mut self, fault: &str, each: &mut impl FnMut(Parsed<'_>)) {
        self.faults = self.faults.saturating_add(1);
        if self.faults <= MAX_FAULTS {
            let more = if self.faults == MAX_FAULTS { "; more of this is not told" } else { "" };
            each(Parsed::Fault(format!(
                "fleetward: something that this run told was left out: {fault}{more}\n"
            )));
        }
    }
}

fn read(frame: &[u8]) -> Result<(Kind, &[u8]), String> {
    let (head, payload) = frame.split_at(HEAD);
    let kind = Kind::from_code(head[0]).ok_or("it is of no known kind")?;
    match kind {
        Kind::Words | Kind::Trouble => {}
        Kind::Event => drop(Event::decode(payload).map_err(|error| format!("an event: {error}"))?),
        Kind::Report => check_report(payload).map_err(|error| format!("a report: {error}"))?,
    }
    Ok((kind, payload))
}

/// Puts into the spool what was told.
pub(super) fn keep(spool: &mut Spool, told: Parsed<'_>) {
    let now = clock::now();
    match told {
        Parsed::Frame(Kind::Words, words) => spool.append(Stream::Stdout, now, words),
        Parsed::Frame(Kind::Trouble, words) => spool.append(Stream::Stderr, now, words),
        Parsed::Frame(Kind::Event, event) => {
            if spool.append_event(now, event) == Kept::NoMore {
                let words =
                    b"fleetward: this run told too many events, or the disk is full: no more are kept\n";
                spool.append(Stream::Stderr, now, words);
            }
        }
        Parsed::Frame(Kind::Report, report) => spool.set_report(now, report),
        Parsed::Fault(fault) => spool.append(Stream::Stderr, now, fault.as_bytes()),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn told(frames: &mut Frames, bytes: &[u8]) -> Vec<Result<(Kind, Vec<u8>), String>> {
        let mut all = Vec::new();
        frames.take(bytes, |told| {
            all.push(match told {
                Parsed::Frame(kind, payload) => Ok((kind, payload.to_vec())),
                Parsed::Fault(fault) => Err(fault),
            });
        });
        all
    }

    fn frames() -> impl Strategy<Value = Vec<(Kind, Vec<u8>)>> {
        let words = prop::collection::vec(any::<u8>(), 1..300);
        let one = prop_oneof![
            words.clone().prop_map(|words| (Kind::Words, words)),
            words.prop_map(|words| (Kind::Trouble, words)),
            "[a-z]{0,9}".prop_map(|step| {
                (Kind::Event, format!(r#"{{"step":"{step}","state":"done"}}"#).into_bytes())
            }),
            "[a-z]{0,99}".prop_map(|text| (Kind::Report, format!(r#"{{"text":"{text}"}}"#).into_bytes())),
        ];
        prop::collection::vec(one, 0..12)
    }

    proptest! {
        #[test]
        fn what_is_told_arrives_however_it_is_cut(frames in frames(), cuts in prop::collection::vec(1_usize..40, 0..80)) {
            let bytes: Vec<u8> = frames.iter().flat_map(|(kind, payload)| frame(*kind, payload)).collect();
            let (mut reader, mut rest, mut all) = (Frames::default(), bytes.as_slice(), Vec::new());
            for cut in cuts {
                let (piece, later) = rest.split_at(cut.min(rest.len()));
                all.extend(told(&mut reader, piece));
                rest = later;
            }
            all.extend(told(&mut reader, rest));
            prop_assert_eq!(all, frames.into_iter().map(Ok).collect::<Vec<_>>());
            reader.end(|told| panic!("{told:?}"));
        }

        #[test]
        fn no_bytes_break_it_and_nothing_is_held_beyond_a_frame(
            pieces in prop::collection::vec(prop::collection::vec(0_u8..6, 0..400), 0..40),
        ) {
            let (mut reader, mut faults) = (Frames::default(), 0);
            for piece in pieces {
                faults += told(&mut reader, &piece).iter().filter(|told| told.is_err()).count();
                prop_assert!(reader.partial.capacity() <= 2 * (HEAD + MAX_RECORD));
            }
            prop_assert!(faults <= MAX_FAULTS as usize);
        }
    }

    #[test]
    fn what_does_not_hold_is_left_out_and_told() {
        let mut reader = Frames::default();
        let long = frame(Kind::Words, &vec![b' '; MAX_RECORD + 1]);
        let bytes = [
            long,
            frame(Kind::Event, b"no json"),
            frame(Kind::Report, b"[1]"),
            frame(Kind::Words, b""),
            frame(Kind::Words, b"on"),
        ]
        .concat();
        let all = told(&mut reader, &bytes);
        for (told, part) in all.iter().zip([
            "65537 bytes",
            "an event: expected",
            "a report: it is no JSON object",
            "it has 0",
        ]) {
            assert!(told.as_ref().unwrap_err().contains(part), "{told:?}");
        }
        assert_eq!(all[4..], [Ok((Kind::Words, b"on".to_vec()))]);
        assert!(told(&mut reader, &[9, 0, 0, 0, 0])[0].as_ref().unwrap_err().contains("no known kind"));
        assert_eq!(told(&mut reader, &frame(Kind::Words, b"x")), []);
    }

    #[test]
    fn a_frame_without_its_end_is_told() {
        let mut reader = Frames::default();
        assert_eq!(told(&mut reader, &frame(Kind::Words, b"half")[..7]), []);
        let mut faults = 0;
        reader.end(|_| faults += 1);
        reader.end(|_| faults += 1);
        assert_eq!(faults, 1);
    }
}
