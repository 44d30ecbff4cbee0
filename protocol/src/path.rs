//! Paths on a host, as people ask for them and as hosts name them.
//!
//! Linux takes any bytes but NUL for a path. As text a path is itself where a person sees all of it; any other one, and one
//! that is not UTF-8, is `base64:` and its bytes. An absolute path cannot begin so.

use std::ffi::OsStr;
use std::fmt;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::name::ResourceName;
use crate::object::{Class, Object};
use crate::printable::is_line;
use crate::text::{Text, Word};

/// The longest path, in bytes (`PATH_MAX` without its NUL, limits.h(0p)).
pub const MAX_PATH: usize = 4095;
/// The longest name in a directory, in bytes (`NAME_MAX`).
pub const MAX_NAME: usize = 255;
/// The longest text of a path: all its bytes in base64, behind the sign that they are.
pub const MAX_TEXT: usize = ENCODED.len() + MAX_PATH.div_ceil(3) * 4;

/// What stands before bytes that no person could read.
const ENCODED: &str = "base64:";

/// An absolute path without `.`, `..`, and `/` that stands for nothing.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct HostPath(Vec<u8>);

/// Why a text is not a path.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a path: {rule}")]
pub struct InvalidPath {
    text: Word,
    rule: &'static str,
}

impl HostPath {
    /// The path of these bytes.
    ///
    /// # Errors
    /// The rule that they break.
    pub fn of_bytes(bytes: &[u8]) -> Result<Self, InvalidPath> {
        let invalid = |rule| InvalidPath { text: Text::of(shown(bytes)), rule };
        if !bytes.starts_with(b"/") {
            return Err(invalid("write it from the root on, such as `/etc/hosts`"));
        }
        if bytes.contains(&0) {
            return Err(invalid("it holds a NUL, which no path does"));
        }
        let mut path = Vec::with_capacity(bytes.len().min(MAX_PATH));
        for name in bytes.split(|byte| *byte == b'/').filter(|name| !name.is_empty() && *name != b".") {
            if name == b".." {
                return Err(invalid("write it without `..`, which links on the host may lead elsewhere"));
            }
            if name.len() > MAX_NAME {
                return Err(invalid("a name in it has more than 255 bytes"));
            }
            path.push(b'/');
            path.extend_from_slice(name);
        }
        if path.len() > MAX_PATH {
            return Err(invalid("it has more than 4095 bytes"));
        }
        if path.is_empty() {
            path.push(b'/');
        }
        Ok(Self(path))
    }

    /// Its bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The path.
    #[must_use]
    pub fn as_path(&self) -> &Path {
        Path::new(OsStr::from_bytes(&self.0))
    }

    /// What an owner's rule is asked about.
    #[must_use]
    pub fn object(&self) -> Object {
        // As it is shown it has the same directories above it, whatever bytes are in its names.
        Object::named(Class::Paths, shown(&self.0))
    }

    /// What a run that changes something there holds. Another path may hold the same one by chance: then their runs wait for
    /// each other.
    #[must_use]
    pub fn resource(&self) -> Option<ResourceName> {
        let digest = Digest::of(&self.0).to_string();
        format!("file/{}", digest.get(..32)?).parse().ok()
    }
}

/// These bytes as a person may read them: each that is no part of a printable character as `\xNN`, and a backslash as two.
/// Different bytes never look alike.
#[must_use]
pub fn shown(bytes: &[u8]) -> String {
    use fmt::Write as _;

    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                '\\' => text.push_str("\\\\"),
                c if is_line(c.encode_utf8(&mut [0; 4])) => text.push(c),
                c => {
                    for byte in c.encode_utf8(&mut [0; 4]).bytes() {
                        let _ = write!(text, "\\x{byte:02x}");
                    }
                }
            }
        }
        for byte in chunk.invalid() {
            let _ = write!(text, "\\x{byte:02x}");
        }
    }
    text
}

/// Whether [`shown`] is these bytes themselves.
#[must_use]
pub fn is_plain(bytes: &[u8]) -> bool {
    str::from_utf8(bytes).is_ok_and(|text| is_line(text) && !text.contains('\\'))
}

/// These bytes as a text that [`decode`] reads: themselves where a person sees all of them, and else `base64:` and they.
#[must_use]
pub fn encode(bytes: &[u8]) -> String {
    match str::from_utf8(bytes) {
        Ok(text) if is_line(text) && !text.starts_with(ENCODED) => text.to_owned(),
        _ => format!("{ENCODED}{}", STANDARD.encode(bytes)),
    }
}

/// The bytes that a text stands for; `None` if what is behind `base64:` is none.
#[must_use]
pub fn decode(text: &str) -> Option<Vec<u8>> {
    match text.strip_prefix(ENCODED) {
        Some(encoded) => STANDARD.decode(encoded).ok(),
        None => Some(text.as_bytes().to_vec()),
    }
}

impl FromStr for HostPath {
    type Err = InvalidPath;

    fn from_str(text: &str) -> Result<Self, InvalidPath> {
        let invalid = |rule| InvalidPath { text: Text::of(shown(text.as_bytes())), rule };
        let bytes = decode(text).ok_or_else(|| invalid("what is behind `base64:` is no base64"))?;
        Self::of_bytes(&bytes)
    }
}

impl TryFrom<String> for HostPath {
    type Error = InvalidPath;

    fn try_from(text: String) -> Result<Self, InvalidPath> {
        text.parse()
    }
}

impl From<HostPath> for String {
    fn from(path: HostPath) -> Self {
        path.to_string()
    }
}

impl fmt::Display for HostPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&encode(&self.0))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_path_is_absolute_and_leads_nowhere_else() {
        for (text, path) in [
            ("/", "/"),
            ("//", "/"),
            ("/etc/hosts", "/etc/hosts"),
            ("//etc//./hosts/", "/etc/hosts"),
            ("/a b/ä", "/a b/ä"),
            ("/a\\b", "/a\\b"),
            ("base64:L2V0Yy9ob3N0cw==", "/etc/hosts"),
            ("/...", "/..."),
        ] {
            assert_eq!(text.parse::<HostPath>().unwrap().to_string(), path, "{text}");
        }
        let long = format!("/{}", "x".repeat(256));
        let deep = "/x".repeat(2048);
        for (text, told) in [
            ("", "from the root on"),
            ("etc/hosts", "from the root on"),
            ("./x", "from the root on"),
            ("~/x", "from the root on"),
            ("/etc/../shadow", "without `..`"),
            ("/..", "without `..`"),
            ("/a\0b", "NUL"),
            ("base64:L2EAYg==", "NUL"),
            ("base64:!", "no base64"),
            ("base64:ZXRj", "from the root on"),
            (&long, "more than 255 bytes"),
            (&deep, "more than 4095 bytes"),
        ] {
            let error = text.parse::<HostPath>().unwrap_err().to_string();
            assert!(error.contains(told) && is_line(&error), "{text:?}: {error:?}");
        }
    }

    #[test]
    fn what_nobody_could_read_travels_in_base64() {
        for bytes in [&b"/\xff"[..], b"/a\nb", "/a\u{202e}b".as_bytes()] {
            let path = HostPath::of_bytes(bytes).unwrap();
            let text = path.to_string();
            assert!(text.starts_with("base64:") && is_line(&text), "{text}");
            assert_eq!(text.parse::<HostPath>().unwrap(), path);
        }
        assert_eq!(shown(b"a\\b\xff\n"), "a\\\\b\\xff\\x0a");
        assert_eq!(shown("ä\u{202e}".as_bytes()), "ä\\xe2\\x80\\xae");
    }

    proptest! {
        /// Whatever a path is made of: its text is one printable line, and stands for it alone.
        #[test]
        fn a_path_reads_as_it_is_written(bytes in prop::collection::vec(any::<u8>(), 0..40), text in "(base64:)?[/.a-z\\PC]{0,20}") {
            let bytes = [b"/", &bytes[..]].concat();
            if let Ok(path) = HostPath::of_bytes(&bytes) {
                let text = path.to_string();
                prop_assert!(is_line(&text) && text.len() <= MAX_TEXT);
                prop_assert_eq!(&text.parse::<HostPath>().unwrap(), &path);
                prop_assert!(path.resource().is_some());
                prop_assert!(path.as_bytes().split(|byte| *byte == b'/').all(|name| name != b".."));
            }
            if let Ok(path) = text.parse::<HostPath>() {
                prop_assert_eq!(path.to_string().parse::<HostPath>().unwrap(), path);
            }
        }

        #[test]
        fn different_names_never_look_alike(
            one in prop::collection::vec(prop_oneof![Just(b'\\'), Just(b'x'), Just(b'f'), Just(0xff), any::<u8>()], 0..6),
            other in prop::collection::vec(prop_oneof![Just(b'\\'), Just(b'x'), Just(b'f'), Just(0xff), any::<u8>()], 0..6),
        ) {
            prop_assert!(is_line(&shown(&one)));
            prop_assert_eq!(shown(&one) == shown(&other), one == other);
            prop_assert_eq!(is_plain(&one), shown(&one).as_bytes() == one);
        }
    }
}
