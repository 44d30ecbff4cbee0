//! Makes text from hosts harmless for the operator's terminal.
//!
//! **What it promises.** Whatever bytes come in, no control character goes out but the tab and, where colours are
//! kept, colour sequences (ECMA-48 SGR) from a short list that neither hide text nor outlive it. Everything else
//! is shown as a visible stand-in, so that nothing is cut silently: `␛` for an escape, `<U+202E>` for a
//! character that reorders or hides what follows, U+FFFD for bytes that are not UTF-8.

/// What becomes of colour sequences.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Colours {
    /// The harmless ones pass; the text ends with a reset if any did.
    Keep,
    /// They are taken out: they carry no content.
    Strip,
}

/// The longest colour sequence that is recognised, in bytes between `ESC [` and `m`.
const MAX_SGR: usize = 48;

/// The longest text of others that a message quotes, in characters.
const MAX_QUOTE: usize = 400;

/// Appends one line of hostile `bytes` to `out`.
pub(crate) fn line(bytes: &[u8], colours: Colours, out: &mut String) {
    if let Ok(text) = std::str::from_utf8(bytes)
        && text.bytes().all(|byte| matches!(byte, b' '..=b'~' | b'\t'))
    {
        out.push_str(text);
        return;
    }
    let mut coloured = false;
    for chunk in bytes.utf8_chunks() {
        coloured |= push_text(chunk.valid(), colours, out);
        if !chunk.invalid().is_empty() {
            out.push(char::REPLACEMENT_CHARACTER);
        }
    }
    if coloured {
        out.push_str("\x1b[0m");
    }
}

/// A single line of hostile text without colours, as it stands in a table or a message.
pub(crate) fn text(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    line(text.as_bytes(), Colours::Strip, &mut out);
    out
}

/// Hostile text of several lines, each made harmless; ends with a line feed unless it is empty.
pub(crate) fn block(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 1);
    for each in text.lines() {
        line(each.as_bytes(), Colours::Strip, &mut out);
        out.push('\n');
    }
    out
}

/// Hostile text of any number of lines, each made harmless; line feeds stay where they are.
pub(crate) fn lines(text: &str, colours: Colours) -> String {
    let mut out = String::with_capacity(text.len());
    for (index, each) in text.split('\n').enumerate() {
        if index > 0 {
            out.push('\n');
        }
        line(each.as_bytes(), colours, &mut out);
    }
    out
}

/// What somebody else said, as part of one line of a message: harmless, and cut where it is longer than a message.
pub(crate) fn quote(words: &str) -> String {
    let mut quoted = text(&words.chars().take(MAX_QUOTE).collect::<String>());
    if words.chars().nth(MAX_QUOTE).is_some() {
        quoted.push('…');
    }
    quoted
}

/// JSON text whose strings hold no character that a terminal acts on: JSON itself escapes only the C0 set.
pub(crate) fn json(text: &str) -> String {
    use std::fmt::Write as _;
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        if character == '\u{7f}' || is_c1(character) || is_invisible(character) {
            let mut units = [0; 2];
            for unit in character.encode_utf16(&mut units) {
                // Writing to a string cannot fail.
                let _ = write!(out, "\\u{unit:04x}");
            }
        } else {
            out.push(character);
        }
    }
    out
}

fn push_text(text: &str, colours: Colours, out: &mut String) -> bool {
    use std::fmt::Write as _;
    let mut coloured = false;
    let mut rest = text;
    while let Some(character) = rest.chars().next() {
        if character == '\x1b'
            && let Some(parameters) = sgr(rest)
        {
            if colours == Colours::Keep && is_harmless(parameters) {
                out.push_str("\x1b[");
                out.push_str(parameters);
                out.push('m');
                coloured = true;
            }
            rest = &rest[parameters.len() + 3..];
            continue;
        }
        match character {
            '\t' => out.push('\t'),
            '\0'..='\x1f' => out.push(char::from_u32(0x2400 + u32::from(character)).unwrap_or('\u{fffd}')),
            '\x7f' => out.push('\u{2421}'),
            _ if is_c1(character) || is_invisible(character) => {
                // Writing to a string cannot fail.
                let _ = write!(out, "<U+{:04X}>", u32::from(character));
            }
            _ => out.push(character),
        }
        rest = &rest[character.len_utf8()..];
    }
    coloured
}

/// The parameters of the colour sequence that `text` begins with, if it begins with one.
fn sgr(text: &str) -> Option<&str> {
    let body = text.strip_prefix("\x1b[")?;
    let end = body.bytes().take(MAX_SGR).position(|byte| !matches!(byte, b'0'..=b'9' | b';' | b':'))?;
    (body.as_bytes()[end] == b'm').then(|| &body[..end])
}

/// Whether every parameter sets or resets a colour or a weight. Concealing and blinking do not pass.
fn is_harmless(parameters: &str) -> bool {
    let mut codes = parameters.split(';');
    while let Some(code) = codes.next() {
        let harmless = match code {
            "" => true,
            "38" | "48" => match codes.next() {
                Some("5") => is_byte(codes.next()),
                Some("2") => is_byte(codes.next()) && is_byte(codes.next()) && is_byte(codes.next()),
                _ => false,
            },
            _ => matches!(
                code.parse::<u8>(),
                Ok(0..=4 | 7 | 9 | 21..=25 | 27 | 29..=37 | 39..=47 | 49 | 90..=97 | 100..=107)
            ),
        };
        if !harmless {
            return false;
        }
    }
    true
}

fn is_byte(code: Option<&str>) -> bool {
    code.is_some_and(|code| code.parse::<u8>().is_ok())
}

const fn is_c1(character: char) -> bool {
    matches!(character, '\u{80}'..='\u{9f}')
}

/// Characters that reorder, hide or break text without being seen. The joiners U+200C and U+200D stay: scripts
/// and pictograms need them.
const fn is_invisible(character: char) -> bool {
    matches!(
        character,
        '\u{61c}'
            | '\u{180e}'
            | '\u{200b}'
            | '\u{200e}'..='\u{200f}'
            | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}'
            | '\u{feff}'
            | '\u{fff9}'..='\u{fffb}'
            | '\u{e0000}'..='\u{e007f}'
    )
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn shown(bytes: &[u8], colours: Colours) -> String {
        let mut out = String::new();
        line(bytes, colours, &mut out);
        out
    }

    #[test]
    fn what_a_terminal_would_act_on_is_shown_instead() {
        for (bytes, expected) in [
            (&b"plain\ttext"[..], "plain\ttext"),
            ("grün 🚀 ✓".as_bytes(), "grün 🚀 ✓"),
            (b"\x1b]0;title\x07", "␛]0;title␇"),
            (b"\x1b[2J\x1b[1;1H", "␛[2J␛[1;1H"),
            (b"a\x08b\x7f\0", "a␈b␡␀"),
            (b"\xc2\x9b31m", "<U+009B>31m"),
            (b"\x9b31m", "\u{fffd}31m"),
            ("user\u{202e}txt.exe".as_bytes(), "user<U+202E>txt.exe"),
            (b"\x1b[31mred\x1b[0m", "red"),
            (b"cut \x1b[3", "cut ␛[3"),
        ] {
            assert_eq!(shown(bytes, Colours::Strip), expected, "{bytes:?}");
        }
    }

    #[test]
    fn harmless_colours_pass_and_end_with_the_line() {
        for (bytes, expected) in [
            (&b"\x1b[1;31mred"[..], "\x1b[1;31mred\x1b[0m"),
            (b"\x1b[38;5;208mx\x1b[m", "\x1b[38;5;208mx\x1b[m\x1b[0m"),
            (b"\x1b[48;2;1;2;3mx", "\x1b[48;2;1;2;3mx\x1b[0m"),
            (b"\x1b[8mhidden", "hidden"),
            (b"\x1b[31;5mblink", "blink"),
            (b"\x1b[38;5;999mx", "x"),
            (b"\x1b[?25lx", "␛[?25lx"),
        ] {
            assert_eq!(shown(bytes, Colours::Keep), expected, "{bytes:?}");
        }
    }

    #[test]
    fn json_stays_the_same_value() {
        let value = "a\u{9b}b\u{202e}c\u{e0041}\u{7f}\nü";
        let safe = json(&serde_json::to_string(value).unwrap());
        assert_eq!(serde_json::from_str::<String>(&safe).unwrap(), value);
        assert!(!safe.contains(['\u{9b}', '\u{202e}', '\u{7f}', '\u{e0041}']));
    }

    fn hostile() -> impl Strategy<Value = Vec<u8>> {
        let piece = prop_oneof![
            proptest::collection::vec(any::<u8>(), 0..12),
            any::<String>().prop_map(String::into_bytes),
            "\x1b\\[[0-9;:]{0,12}[a-zA-Z]".prop_map(String::into_bytes),
            Just(b"\x1b]52;c;".to_vec()),
        ];
        proptest::collection::vec(piece, 0..8).prop_map(|pieces| pieces.concat())
    }

    /// Takes the sequences out that [`Colours::Keep`] may let through.
    fn without_colours(text: &str) -> String {
        let mut out = String::new();
        let mut rest = text;
        while let Some(at) = rest.find('\x1b') {
            out.push_str(&rest[..at]);
            let parameters = sgr(&rest[at..]).expect("only colour sequences pass");
            assert!(is_harmless(parameters), "{parameters}");
            rest = &rest[at + parameters.len() + 3..];
        }
        out.push_str(rest);
        out
    }

    #[test]
    fn many_lines_stay_lines_and_a_quote_is_one() {
        assert_eq!(lines("a\x1b]0;\nb\r\n", Colours::Strip), "a␛]0;\nb␍\n");
        assert_eq!(lines("\x1b[31mred\nplain", Colours::Keep), "\x1b[31mred\x1b[0m\nplain");
        assert_eq!(quote("a\nb\u{202e}"), "a␊b<U+202E>");
        assert_eq!(quote(&"x".repeat(1000)), format!("{}…", "x".repeat(MAX_QUOTE)));
    }

    proptest! {
        #[test]
        fn nothing_that_acts_on_a_terminal_passes(bytes in hostile()) {
            let dull = |character: char| character == '\t' || !(character.is_control() || is_invisible(character));
            prop_assert!(shown(&bytes, Colours::Strip).chars().all(dull));
            let coloured = shown(&bytes, Colours::Keep);
            prop_assert!(without_colours(&coloured).chars().all(dull));
            if coloured.contains('\x1b') {
                prop_assert!(coloured.ends_with("\x1b[0m"));
            }
        }

        #[test]
        fn what_was_made_harmless_stays_as_it_is(bytes in hostile()) {
            let once = shown(&bytes, Colours::Strip);
            prop_assert_eq!(shown(once.as_bytes(), Colours::Strip), once);
        }
    }
}
