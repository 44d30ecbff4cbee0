//! What kinds of action and of query say of files.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::choice::choices;
use crate::text::{Text, Word};

choices! {
    /// What something in a directory is (inode(7)).
    pub enum FileType {
        /// A regular file.
        File = "file",
        /// A directory.
        Directory = "directory",
        /// A symbolic link.
        Link = "link",
        /// A FIFO.
        Fifo = "fifo",
        /// A socket.
        Socket = "socket",
        /// A device that is read byte by byte.
        CharacterDevice = "character-device",
        /// A device that is read block by block.
        BlockDevice = "block-device",
        /// What this agent does not know.
        Other = "other",
    }
}

/// The permission bits of a file, with set-user-ID, set-group-ID and sticky: in octal digits, such as `0644` (chmod(1)).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct FileMode(u16);

/// Why a text is not a mode.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a mode: write it in three or four octal digits, such as `0644`")]
pub struct InvalidMode {
    text: Word,
}

impl FileMode {
    /// The mode among other bits of `st_mode`.
    #[must_use]
    pub const fn of(bits: u32) -> Self {
        Self((bits & 0o7777) as u16)
    }

    /// Its bits.
    #[must_use]
    pub fn bits(self) -> u32 {
        u32::from(self.0)
    }
}

impl FromStr for FileMode {
    type Err = InvalidMode;

    fn from_str(text: &str) -> Result<Self, InvalidMode> {
        let is_octal = (3..=4).contains(&text.len()) && text.bytes().all(|byte| matches!(byte, b'0'..=b'7'));
        let bits = is_octal.then(|| u32::from_str_radix(text, 8).ok()).flatten();
        bits.map(Self::of).ok_or_else(|| InvalidMode { text: Text::of(text) })
    }
}

impl TryFrom<String> for FileMode {
    type Error = InvalidMode;

    fn try_from(text: String) -> Result<Self, InvalidMode> {
        text.parse()
    }
}

impl From<FileMode> for String {
    fn from(mode: FileMode) -> Self {
        mode.to_string()
    }
}

impl fmt::Display for FileMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{:04o}", self.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_are_octal() {
        for (text, bits) in [("644", 0o644), ("0644", 0o644), ("4755", 0o4755), ("000", 0), ("7777", 0o7777)]
        {
            let mode: FileMode = text.parse().unwrap();
            assert_eq!(mode.bits(), bits);
            assert_eq!(mode.to_string().parse(), Ok(mode));
        }
        for text in ["", "44", "0o644", "888", "00644", "u+x", "-644", "+644", "0x64"] {
            assert!(text.parse::<FileMode>().unwrap_err().to_string().contains("octal"), "{text}");
        }
    }
}
