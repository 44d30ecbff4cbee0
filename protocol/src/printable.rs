//! Which characters may stand in names and free text, whoever wrote them.
//!
//! One rule for the inventory's files, the API and what other machines say: a character is printable if a person who
//! looks at the text sees it, and sees it where it stands.

/// Whether a person sees `c`, and sees it in its place. Not so: control characters and line separators; marks that
/// turn the direction of text, so that it reads otherwise than it is (Unicode TR 36, TR 39); and characters without
/// a width, with which two texts look alike that are not. The joiners that emoji and several scripts need pass.
#[must_use]
pub fn is_printable(c: char) -> bool {
    !c.is_control()
        && !matches!(
            c,
            '\u{00ad}'                          // the soft hyphen
                | '\u{061c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}'
                | '\u{180e}' | '\u{200b}' | '\u{2060}'..='\u{2064}' | '\u{206a}'..='\u{206f}' | '\u{feff}'
                | '\u{2028}' | '\u{2029}'       // line and paragraph separators
                | '\u{fff9}'..='\u{fffb}'       // annotations
                | '\u{e0000}'..='\u{e007f}' // tags: a whole hidden alphabet
        )
}

/// Whether `text` is printable throughout: one line, as it looks.
#[must_use]
pub fn is_line(text: &str) -> bool {
    text.chars().all(is_printable)
}

/// The first character of `text` that a file may not hold either: not printable, and neither a tab nor the end of a
/// line; with where it stands, in bytes.
#[must_use]
pub fn find_hidden(text: &str) -> Option<(usize, char)> {
    text.char_indices().find(|&(_, c)| !is_printable(c) && !matches!(c, '\n' | '\r' | '\t' | '\u{85}'))
}

/// `c`, or what stands for it in a line: a space for white space, U+FFFD for whatever else is not printable. Nothing is
/// left out, so that two texts that differ never become one that passes for either.
#[must_use]
pub fn in_line(c: char) -> char {
    match c {
        c if is_printable(c) => c,
        c if c.is_whitespace() => ' ',
        _ => char::REPLACEMENT_CHARACTER,
    }
}

/// `text` as one line of at most `most` characters, each as [`in_line`] has it: for what other programs say, where a
/// refusal would help nobody.
#[must_use]
pub fn to_line(text: &str, most: usize) -> String {
    text.chars().map(in_line).take(most).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_seen_passes_and_what_hides_does_not() {
        for text in ["VPS", "Häuser & Söhne", "株式会社", "♻️", "👩‍💻", "می‌خواهم", "a b"]
        {
            assert!(is_line(text), "{text}");
        }
        for c in "\u{202e}\u{2066}\u{2069}\u{200e}\u{200f}\u{061c}\u{200b}\u{2028}\u{feff}\u{ad}\u{e0041}\u{1b}\u{9b}\n\0".chars() {
            assert!(!is_printable(c), "U+{:04X}", u32::from(c));
            assert!(["a b", "a\u{fffd}b"].contains(&&*to_line(&format!("a{c}b"), 9)), "U+{:04X}", u32::from(c));
        }
        assert_eq!(find_hidden("a\r\n\tb\u{202e}c"), Some((5, '\u{202e}')));
        assert_eq!(to_line("abc", 2), "ab");
    }
}
