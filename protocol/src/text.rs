//! Text and lists that a peer chooses, bounded and printable by their types.
//!
//! **What it promises.** A [`Text`] is one line that looks as it is, of at most so many bytes; a [`List`] has at most so
//! many items. Both hold wherever a value exists: bytes that would break them are no message, and whoever sends makes
//! them fit with [`Text::of`] and [`List::of`]. So nothing that a host says can forge a line of a log, move the cursor
//! of a terminal or fill a table.
//!
//! On the wire they are a string and a sequence. What is printable belongs to the protocol: within an ALPN version
//! [`is_printable`](crate::printable::is_printable) may come to allow more, and never less.

use std::borrow::Borrow;
use std::fmt::{self, Write as _};
use std::ops::Deref;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::printable::{in_line, is_line};

/// A name, a version, a mount point.
pub type Word = Text<255>;
/// A sentence or a path.
pub type Line = Text<4096>;

/// One printable line of at most `MAX` bytes.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Text<const MAX: usize>(String);

/// At most `MAX` items.
#[derive(Clone, PartialEq, Eq)]
pub struct List<T, const MAX: usize>(Vec<T>);

/// Why something is not a [`Text`] or a [`List`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unfit {
    /// It is too long.
    #[error("a text of {length} bytes exceeds the limit of {most}")]
    Long {
        /// What it has, in bytes.
        length: usize,
        /// What is allowed.
        most: usize,
    },
    /// It holds what is not printable.
    #[error("a text holds a character that is not printable")]
    NotPrintable,
    /// There are too many.
    #[error("a list of {length} items exceeds the limit of {most}")]
    Many {
        /// What there are.
        length: usize,
        /// What is allowed.
        most: usize,
    },
}

impl<const MAX: usize> Text<MAX> {
    /// What of `said` fits: its beginning, with a space or U+FFFD for each character that is not printable.
    #[must_use]
    pub fn of(said: impl fmt::Display) -> Self {
        let mut line = Cut { text: String::new(), most: MAX, is_full: false };
        // It takes whatever comes; a `Display` that fails of itself has said what it could.
        let _ = write!(line, "{said}");
        Self(line.text)
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Takes what fits, and drops the rest.
struct Cut {
    text: String,
    most: usize,
    is_full: bool,
}

impl fmt::Write for Cut {
    fn write_str(&mut self, more: &str) -> fmt::Result {
        for c in more.chars().map(in_line) {
            self.is_full |= self.text.len() + c.len_utf8() > self.most;
            if self.is_full {
                break;
            }
            self.text.push(c);
        }
        Ok(())
    }
}

impl<T, const MAX: usize> List<T, MAX> {
    /// The first of `items`, as many as fit.
    #[must_use]
    pub fn of(items: impl IntoIterator<Item = T>) -> Self {
        Self(items.into_iter().take(MAX).collect())
    }

    /// The items.
    #[must_use]
    pub fn into_vec(self) -> Vec<T> {
        self.0
    }
}

impl<const MAX: usize> TryFrom<String> for Text<MAX> {
    type Error = Unfit;

    fn try_from(text: String) -> Result<Self, Unfit> {
        match text.len() {
            length if length > MAX => Err(Unfit::Long { length, most: MAX }),
            _ if !is_line(&text) => Err(Unfit::NotPrintable),
            _ => Ok(Self(text)),
        }
    }
}

impl<T, const MAX: usize> TryFrom<Vec<T>> for List<T, MAX> {
    type Error = Unfit;

    fn try_from(items: Vec<T>) -> Result<Self, Unfit> {
        match items.len() {
            length if length > MAX => Err(Unfit::Many { length, most: MAX }),
            _ => Ok(Self(items)),
        }
    }
}

impl<const MAX: usize> FromStr for Text<MAX> {
    type Err = Unfit;

    fn from_str(text: &str) -> Result<Self, Unfit> {
        text.to_owned().try_into()
    }
}

impl<const MAX: usize> Deref for Text<MAX> {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl<T, const MAX: usize> Deref for List<T, MAX> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        &self.0
    }
}

impl<T, const MAX: usize> Default for List<T, MAX> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<'a, T, const MAX: usize> IntoIterator for &'a List<T, MAX> {
    type Item = &'a T;
    type IntoIter = std::slice::Iter<'a, T>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.iter()
    }
}

impl<const MAX: usize> AsRef<str> for Text<MAX> {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl<const MAX: usize> Borrow<str> for Text<MAX> {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl<const MAX: usize> PartialEq<str> for Text<MAX> {
    fn eq(&self, other: &str) -> bool {
        self.0 == other
    }
}

impl<const MAX: usize> PartialEq<&str> for Text<MAX> {
    fn eq(&self, other: &&str) -> bool {
        self.0 == *other
    }
}

impl<const MAX: usize> From<Text<MAX>> for String {
    fn from(text: Text<MAX>) -> Self {
        text.0
    }
}

impl<const MAX: usize> fmt::Debug for Text<MAX> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl<T: fmt::Debug, const MAX: usize> fmt::Debug for List<T, MAX> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl<const MAX: usize> fmt::Display for Text<MAX> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl<const MAX: usize> Serialize for Text<MAX> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

impl<T: Serialize, const MAX: usize> Serialize for List<T, MAX> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

impl<'de, const MAX: usize> Deserialize<'de> for Text<MAX> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.try_into().map_err(de::Error::custom)
    }
}

impl<'de, T: Deserialize<'de>, const MAX: usize> Deserialize<'de> for List<T, MAX> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Vec::deserialize(deserializer)?.try_into().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::wire;

    proptest! {
        /// Whatever a sender has to say fits; and a text that fits already is left as it is.
        #[test]
        fn what_is_sent_can_be_received(said in "(?s).{0,40}") {
            let text = Text::<20>::of(&said);
            prop_assert!(text.len() <= 20 && is_line(&text));
            let bytes = wire::encode(&text, 100).unwrap();
            prop_assert_eq!(&bytes, &wire::encode(&text.as_str().to_owned(), 100).unwrap(), "a string on the wire");
            prop_assert_eq!(&wire::decode::<Text<20>>(&bytes, 100).unwrap(), &text);
            if let Ok(whole) = said.parse::<Text<20>>() {
                prop_assert_eq!(whole.as_str(), &said);
                prop_assert_eq!(whole, text);
            }
        }

        /// What a peer says is taken exactly if it is one printable line within the limit.
        #[test]
        fn what_is_received_is_a_printable_line(said in "(?s).{0,40}") {
            let bytes = wire::encode(&said, 1000).unwrap();
            let taken = wire::decode::<Text<20>>(&bytes, 1000);
            prop_assert_eq!(taken.is_ok(), said.len() <= 20 && is_line(&said));
        }

        /// A list of a peer has no more items than its type allows.
        #[test]
        fn a_list_is_bounded(items in prop::collection::vec(any::<u16>(), 0..12)) {
            let list = List::<u16, 6>::of(items.iter().copied());
            prop_assert_eq!(&list[..], &items[..items.len().min(6)]);
            let taken = wire::decode::<List<u16, 6>>(&wire::encode(&items, 1000).unwrap(), 1000);
            prop_assert_eq!(taken.is_ok(), items.len() <= 6);
        }
    }

    #[test]
    fn nothing_that_steers_a_terminal_or_ends_a_line_passes() {
        for said in ["1.0\n2026-01-01 forged", "\u{1b}[31m", "a\u{202e}b", "\u{9b}2J", "a\0", "a\rb", "a\tb"]
        {
            assert_eq!(said.parse::<Word>(), Err(Unfit::NotPrintable), "{said:?}");
        }
        assert_eq!(Word::of("1.0\n\u{1b}[31mx"), "1.0 \u{fffd}[31mx");
        assert_eq!("x".repeat(256).parse::<Word>(), Err(Unfit::Long { length: 256, most: 255 }));
        assert_eq!(Text::<2>::of("aé"), "a", "no half of a character");
    }
}
