//! Puts the pieces of output that arrive from many runs back together into lines.
//!
//! **What it promises.** Pieces of different runs and streams never mix within a line. Every byte that was pushed
//! comes out once, in the order of its stream, but for line ends (LF, CR LF, or CR alone, as progress bars
//! write). A line that is long, that waits for its end, or whose run has ended comes out in parts, and parts
//! are cut between characters.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::Instant;

/// A line longer than this comes out in parts.
const MAX_LINE: usize = 8 << 10;

/// Where a line stands in its text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    /// It begins a line of the text.
    First,
    /// It goes on where the part before stopped.
    Continued,
}

/// A line, or a part of one, without its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Line<'a, K, T> {
    /// Whose it is.
    pub(crate) source: &'a K,
    /// What was pushed along with its first byte.
    pub(crate) tag: T,
    /// The bytes.
    pub(crate) bytes: &'a [u8],
    /// Where it stands.
    pub(crate) part: Part,
}

/// Lines in the making, by source.
#[derive(Debug)]
pub(crate) struct Assembler<K, T> {
    open: HashMap<K, Open<T>>,
}

#[derive(Debug)]
struct Open<T> {
    bytes: Vec<u8>,
    tag: T,
    part: Part,
    /// The byte before was a carriage return: a line feed now belongs to it.
    after_return: bool,
    touched: Instant,
}

impl<K: Clone + Eq + Hash, T: Copy> Assembler<K, T> {
    /// Nothing yet.
    pub(crate) fn new() -> Self {
        Self { open: HashMap::new() }
    }

    /// Takes a piece of `source` and gives the lines that it completes to `emit`.
    pub(crate) fn push(
        &mut self,
        source: &K,
        tag: T,
        piece: &[u8],
        now: Instant,
        emit: &mut impl FnMut(Line<'_, K, T>),
    ) {
        if piece.is_empty() {
            return;
        }
        if !self.open.contains_key(source) {
            let open = Open { bytes: Vec::new(), tag, part: Part::First, after_return: false, touched: now };
            self.open.insert(source.clone(), open);
        }
        let Some(open) = self.open.get_mut(source) else { return };
        open.touched = now;
        let mut rest = piece;
        if open.after_return && rest.first() == Some(&b'\n') {
            rest = &rest[1..];
        }
        if !rest.is_empty() {
            open.after_return = false;
        }
        while let Some(at) = rest.iter().position(|byte| matches!(byte, b'\n' | b'\r')) {
            let (text, end) = rest.split_at(at);
            let returned = end[0] == b'\r';
            open.end_line(source, tag, text, returned, emit);
            rest = &end[1..];
            if returned {
                match rest.first() {
                    Some(b'\n') => rest = &rest[1..],
                    Some(_) => {}
                    None => open.after_return = true,
                }
            }
        }
        open.extend(source, tag, rest, emit);
    }

    /// Gives out the unfinished lines of the sources that `which` selects, whole: their runs have ended.
    pub(crate) fn finish(
        &mut self,
        mut which: impl FnMut(&K) -> bool,
        emit: &mut impl FnMut(Line<'_, K, T>),
    ) {
        self.open.retain(|source, open| {
            if !which(source) {
                return true;
            }
            if !open.bytes.is_empty() {
                emit(Line { source, tag: open.tag, bytes: &open.bytes, part: open.part });
            }
            false
        });
    }

    /// Gives out the unfinished lines that nothing was added to since `before`, such as a prompt that waits. A
    /// character that is cut at the end stays until the rest of it comes.
    pub(crate) fn flush_idle(&mut self, before: Instant, emit: &mut impl FnMut(Line<'_, K, T>)) {
        for (source, open) in &mut self.open {
            if open.touched <= before && !open.bytes.is_empty() {
                open.emit_front(source, open.bytes.len(), emit);
            }
        }
    }
}

impl<T: Copy> Open<T> {
    fn end_line<K>(
        &mut self,
        source: &K,
        tag: T,
        text: &[u8],
        returned: bool,
        emit: &mut impl FnMut(Line<'_, K, T>),
    ) {
        if self.bytes.is_empty() && self.part == Part::First && text.len() <= MAX_LINE {
            // The usual case: a whole line within one piece is not copied. The empty line that a progress bar's
            // leading carriage return would make is left out.
            if !(returned && text.is_empty()) {
                emit(Line { source, tag, bytes: text, part: Part::First });
            }
            return;
        }
        self.extend(source, tag, text, emit);
        if !self.bytes.is_empty() {
            emit(Line { source, tag: self.tag, bytes: &self.bytes, part: self.part });
        }
        self.bytes.clear();
        self.part = Part::First;
    }

    fn extend<K>(&mut self, source: &K, tag: T, text: &[u8], emit: &mut impl FnMut(Line<'_, K, T>)) {
        if self.bytes.is_empty() {
            self.tag = tag;
        }
        let mut rest = text;
        while self.bytes.len() + rest.len() > MAX_LINE {
            let (now, later) = rest.split_at(MAX_LINE.saturating_sub(self.bytes.len()));
            self.bytes.extend_from_slice(now);
            rest = later;
            self.emit_front(source, MAX_LINE, emit);
            self.tag = tag;
        }
        self.bytes.extend_from_slice(rest);
    }

    /// Gives out at most `length` bytes of the line so far, and not the beginning of a character at their end.
    fn emit_front<K>(&mut self, source: &K, length: usize, emit: &mut impl FnMut(Line<'_, K, T>)) {
        let front = &self.bytes[..length.min(self.bytes.len())];
        let whole = front.len() - cut_character(front);
        if whole == 0 {
            return;
        }
        emit(Line { source, tag: self.tag, bytes: &front[..whole], part: self.part });
        self.part = Part::Continued;
        self.bytes.drain(..whole);
    }
}

/// How many bytes at the end of `bytes` begin a UTF-8 character without ending it.
fn cut_character(bytes: &[u8]) -> usize {
    for back in 1..=bytes.len().min(3) {
        let byte = bytes[bytes.len() - back];
        let length = match byte {
            0xc2..=0xdf => 2,
            0xe0..=0xef => 3,
            0xf0..=0xf4 => 4,
            0x80..=0xbf => continue,
            _ => return 0,
        };
        return if back < length { back } else { 0 };
    }
    0
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    type Shown = Vec<(u8, Part, String)>;

    fn collect(shown: &mut Shown) -> impl FnMut(Line<'_, u8, ()>) + '_ {
        |line| shown.push((*line.source, line.part, String::from_utf8_lossy(line.bytes).into_owned()))
    }

    #[test]
    fn lines_of_two_hosts_do_not_mix() {
        let (mut lines, mut shown, now) = (Assembler::new(), Shown::new(), Instant::now());
        for (source, piece) in [(1, "he"), (2, "wor"), (1, "llo\nag"), (2, "ld\r"), (2, "\n\nx"), (1, "ain")]
        {
            lines.push(&source, (), piece.as_bytes(), now, &mut collect(&mut shown));
        }
        lines.finish(|_| true, &mut collect(&mut shown));
        shown[3..].sort_by_key(|line| line.0);
        let expected = [(1, "hello"), (2, "world"), (2, ""), (1, "again"), (2, "x")];
        assert_eq!(shown, expected.map(|(source, text)| (source, Part::First, text.to_owned())));
    }

    #[test]
    fn a_prompt_is_shown_while_it_waits_and_the_rest_continues_it() {
        let (mut lines, mut shown, now) = (Assembler::new(), Shown::new(), Instant::now());
        lines.push(&1, (), &"name\u{20ac}".as_bytes()[..6], now, &mut collect(&mut shown));
        assert!(shown.is_empty());
        lines.flush_idle(now, &mut collect(&mut shown));
        lines.push(&1, (), &"\u{20ac}: x\n".as_bytes()[2..], now, &mut collect(&mut shown));
        let expected =
            vec![(1, Part::First, "name".to_owned()), (1, Part::Continued, "\u{20ac}: x".to_owned())];
        assert_eq!(shown, expected);
    }

    #[test]
    fn progress_bars_become_lines() {
        let (mut lines, mut shown, now) = (Assembler::new(), Shown::new(), Instant::now());
        lines.push(&1, (), b"\r10%\r20%\r\ndone\n", now, &mut collect(&mut shown));
        let texts: Vec<_> = shown.into_iter().map(|line| line.2).collect();
        assert_eq!(texts, ["10%", "20%", "done"]);
    }

    /// Many short lines, or one that is too long to come out whole.
    fn text() -> impl Strategy<Value = String> {
        let long =
            (8000usize..20_000, 0usize..9).prop_map(|(x, euro)| "x".repeat(x) + &"\u{20ac}".repeat(euro));
        prop_oneof!["[a-c\u{e9}\u{20ac}\u{1f680}\n]{0,60}", long]
    }

    proptest! {
        /// However the streams are cut and interleaved, each comes out as if it had come alone and whole.
        #[test]
        fn cutting_changes_nothing(
            texts in proptest::collection::vec(text(), 1..4),
            cuts in proptest::collection::vec((0usize..4, 1usize..5000), 0..80),
            idle in any::<bool>(),
        ) {
            let now = Instant::now();
            let mut lines = Assembler::new();
            let mut shown = Shown::new();
            let mut rest: Vec<&[u8]> = texts.iter().map(String::as_bytes).collect();
            let tail: Vec<_> = (0..texts.len()).map(|source| (source, usize::MAX)).collect();
            for (source, length) in cuts.into_iter().chain(tail) {
                let source = source % texts.len();
                let (piece, later) = rest[source].split_at(length.min(rest[source].len()));
                rest[source] = later;
                let key = u8::try_from(source).unwrap();
                lines.push(&key, (), piece, now, &mut collect(&mut shown));
                if idle {
                    lines.flush_idle(now, &mut collect(&mut shown));
                }
            }
            lines.finish(|_| true, &mut collect(&mut shown));
            for (source, text) in texts.iter().enumerate() {
                let mut whole: Vec<String> = Vec::new();
                for (_, part, line) in shown.iter().filter(|line| usize::from(line.0) == source) {
                    prop_assert!(line.len() <= MAX_LINE);
                    prop_assert!(!line.contains('\u{fffd}'), "a character was cut: {:?}", line);
                    match (part, whole.last_mut()) {
                        (Part::Continued, Some(last)) => last.push_str(line),
                        _ => whole.push(line.clone()),
                    }
                }
                let expected: Vec<String> = text.lines().map(str::to_owned).collect();
                prop_assert_eq!(whole, expected);
            }
        }
    }
}
