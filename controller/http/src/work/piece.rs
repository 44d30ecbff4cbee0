//! Output as it travels in events: text where it is text, base64 where it is not.
//!
//! A character that lies across two records is put together; one that lies across two events is not, because
//! events must be exact when a client resumes between them: its bytes come in base64, in their place.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use fleetward_api::work::event::{OutputPiece, StepEvent, StepState};
use fleetward_api::work::run::OutputStream;
use fleetward_protocol::event::{self as told, Event};
use fleetward_protocol::output::{Record, Stream};
use fleetward_protocol::time::Timestamp;

/// The most bytes of output in one piece.
const MAX_PIECE: usize = 64 << 10;

/// Turns the records of one run into pieces.
#[derive(Debug, Default)]
pub(crate) struct Pieces {
    made: Vec<OutputPiece>,
    stdout: Tail,
    stderr: Tail,
}

/// The beginning of a character whose end has not come yet.
#[derive(Debug, Default)]
struct Tail {
    bytes: Vec<u8>,
    at: Option<Timestamp>,
    seen: bool,
}

impl Pieces {
    /// Takes the next record.
    pub(crate) fn push(&mut self, record: &Record<'_>) {
        let (stream, tail) = match record.stream {
            Stream::Stdout => (OutputStream::Stdout, &mut self.stdout),
            Stream::Stderr => (OutputStream::Stderr, &mut self.stderr),
            Stream::Dropped => {
                self.made.push(OutputPiece {
                    stream: None,
                    at: record.at.into(),
                    text: None,
                    base64: None,
                    dropped: Some(record.dropped().unwrap_or(0)),
                    step: None,
                });
                return;
            }
            Stream::Event => {
                // A host cannot break its run by what it says in one: what is no event is passed over.
                if let Ok(event) = Event::decode(record.payload) {
                    self.made.push(step(record.at, event));
                }
                return;
            }
            // It belongs to the run, and no place in its output.
            Stream::Report => return,
        };
        let first = !std::mem::replace(&mut tail.seen, true);
        let mut bytes = std::mem::take(&mut tail.bytes);
        bytes.extend_from_slice(record.payload);
        let mut rest = bytes.as_slice();
        if first {
            // What the event before this one could not finish.
            let orphans = rest.iter().take(3).take_while(|byte| **byte & 0xc0 == 0x80).count();
            let (orphaned, whole) = rest.split_at(orphans);
            if std::str::from_utf8(whole).is_ok_or_unfinished() {
                push_base64(&mut self.made, stream, record.at, orphaned);
                rest = whole;
            }
        }
        match std::str::from_utf8(rest) {
            Ok(text) => push_text(&mut self.made, stream, record.at, text),
            Err(error) if error.error_len().is_none() => {
                let (text, unfinished) = rest.split_at(error.valid_up_to());
                push_text(&mut self.made, stream, record.at, &String::from_utf8_lossy(text));
                tail.bytes = unfinished.to_vec();
                tail.at = Some(record.at);
            }
            Err(_) => push_base64(&mut self.made, stream, record.at, rest),
        }
    }

    /// The pieces of all records taken.
    pub(crate) fn finish(mut self) -> Vec<OutputPiece> {
        for (stream, tail) in [(OutputStream::Stdout, self.stdout), (OutputStream::Stderr, self.stderr)] {
            if let Some(at) = tail.at {
                push_base64(&mut self.made, stream, at, &tail.bytes);
            }
        }
        self.made
    }
}

fn step(at: Timestamp, event: Event) -> OutputPiece {
    let Event { step, state, percent, words } = event;
    let state = match state {
        told::StepState::Began => StepState::Began,
        told::StepState::Going => StepState::Going,
        told::StepState::Done => StepState::Done,
        told::StepState::Unchanged => StepState::Unchanged,
        told::StepState::Failed => StepState::Failed,
        told::StepState::Undone => StepState::Undone,
    };
    let step =
        StepEvent { step: step.into(), state, percent: percent.map(told::Percent::get), words: words.into() };
    OutputPiece { stream: None, at: at.into(), text: None, base64: None, dropped: None, step: Some(step) }
}

/// Whether bytes are text up to a last character that is not complete.
trait Unfinished {
    fn is_ok_or_unfinished(&self) -> bool;
}

impl Unfinished for Result<&str, std::str::Utf8Error> {
    fn is_ok_or_unfinished(&self) -> bool {
        self.as_ref().map_or_else(|error| error.error_len().is_none(), |_| true)
    }
}

fn push_text(made: &mut Vec<OutputPiece>, stream: OutputStream, at: Timestamp, text: &str) {
    let mut rest = text;
    while !rest.is_empty() {
        let (piece, later) = rest.split_at(rest.floor_char_boundary(MAX_PIECE));
        made.push(OutputPiece {
            stream: Some(stream),
            at: at.into(),
            text: Some(piece.to_owned()),
            base64: None,
            dropped: None,
            step: None,
        });
        rest = later;
    }
}

fn push_base64(made: &mut Vec<OutputPiece>, stream: OutputStream, at: Timestamp, bytes: &[u8]) {
    for piece in bytes.chunks(MAX_PIECE) {
        made.push(OutputPiece {
            stream: Some(stream),
            at: at.into(),
            text: None,
            base64: Some(STANDARD.encode(piece)),
            dropped: None,
            step: None,
        });
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn bytes(pieces: &[OutputPiece], wanted: OutputStream) -> Vec<u8> {
        let of_stream = pieces.iter().filter(|piece| piece.stream == Some(wanted));
        of_stream
            .flat_map(|piece| match (&piece.text, &piece.base64) {
                (Some(text), None) => text.clone().into_bytes(),
                (None, Some(encoded)) => STANDARD.decode(encoded).unwrap(),
                _ => panic!("a piece is text or base64: {piece:?}"),
            })
            .collect()
    }

    fn record(stream: Stream, payload: &[u8]) -> Record<'_> {
        Record { stream, at: Timestamp::from_millis(1), payload }
    }

    #[test]
    fn a_character_across_records_is_put_together() {
        let mut pieces = Pieces::default();
        pieces.push(&record(Stream::Stdout, b"caf\xc3"));
        pieces.push(&record(Stream::Stderr, b"!"));
        pieces.push(&record(Stream::Event, b"{}"));
        pieces.push(&record(Stream::Report, b"{}"));
        pieces.push(&record(Stream::Stdout, b"\xa9\n"));
        let texts: Vec<_> = pieces.finish().into_iter().map(|piece| piece.text).collect();
        assert_eq!(texts, [Some("caf".into()), Some("!".into()), Some("é\n".into())]);
    }

    #[test]
    fn a_character_across_events_keeps_its_bytes() {
        let mut before = Pieces::default();
        before.push(&record(Stream::Stdout, b"caf\xc3"));
        let mut after = Pieces::default();
        after.push(&record(Stream::Stdout, b"\xa9 au lait"));
        let (before, after) = (before.finish(), after.finish());
        assert_eq!(before[0].text.as_deref(), Some("caf"));
        assert_eq!(after[1].text.as_deref(), Some(" au lait"));
        let both = [bytes(&before, OutputStream::Stdout), bytes(&after, OutputStream::Stdout)].concat();
        assert_eq!(both, "café au lait".as_bytes());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]

        #[test]
        fn p19_every_byte_comes_back_in_its_stream(
            text in "\\PC{0,400}",
            noise in prop::collection::vec(any::<u8>(), 0..64),
            cuts in prop::collection::vec((any::<prop::sample::Index>(), any::<bool>()), 1..12),
            events in prop::collection::vec(any::<bool>(), 12),
        ) {
            let mut source = text.into_bytes();
            source.extend(noise);
            let mut wanted = [Vec::new(), Vec::new()];
            let mut made = Vec::new();
            let mut pieces = Pieces::default();
            let mut rest = source.as_slice();
            for ((cut, to_stderr), ends) in cuts.into_iter().zip(events) {
                let (head, tail) = rest.split_at(cut.index(rest.len() + 1));
                rest = tail;
                let stream = if to_stderr { Stream::Stderr } else { Stream::Stdout };
                wanted[usize::from(to_stderr)].extend_from_slice(head);
                pieces.push(&record(stream, head));
                if ends {
                    made.extend(std::mem::take(&mut pieces).finish());
                }
            }
            made.extend(pieces.finish());
            prop_assert!(made.iter().all(|piece| piece.text.as_ref().is_none_or(|text| text.len() <= MAX_PIECE)));
            prop_assert_eq!(&bytes(&made, OutputStream::Stdout), &wanted[0]);
            prop_assert_eq!(&bytes(&made, OutputStream::Stderr), &wanted[1]);
        }
    }
}
