//! What is in a file: a part of it, its end, and what is appended to it.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use super::{Contract, Key, Shows};
use crate::action::{Actor, Privilege};
use crate::choice::choices;
use crate::name::LinuxUser;
use crate::object::{Class, Object};
use crate::path::HostPath;
use crate::text::Text;
use crate::time::Timestamp;

/// The most bytes that are told at once; a larger file is read part after part.
pub const MAX_LENGTH: u64 = 32 << 20;
/// The most bytes of one item.
pub const PIECE: usize = 6000;

/// Which part of which file is read. With neither `offset` nor `tail` it begins at the front. A file that is followed is told from
/// there to its end, and one that is longer than 32 MiB from so far before its end; then what is appended is told, also when the
/// file is emptied, or another one takes its name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct FileRead {
    /// The file: an absolute path. One that is not UTF-8 is `base64:` and its bytes.
    #[cfg_attr(feature = "schema", schema(value_type = String, example = "/var/log/syslog", max_length = 5467))]
    pub path: HostPath,
    /// From which byte on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub offset: Option<u64>,
    /// How many bytes at the most; 32 MiB when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schema(minimum = 1, maximum = 33_554_432))]
    pub length: Option<u64>,
    /// So many bytes from the end; not with `offset` or `length`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schema(maximum = 33_554_432))]
    pub tail: Option<u64>,
    /// As whom to read; as the agent's own user (root) when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schema(value_type = Option<String>))]
    pub user: Option<LinuxUser>,
}

/// What the file is like, or a piece of what is in it. The first item is of the first sort; pieces follow in their order, without a
/// gap. When a file that is followed becomes another one, an item of the first sort says so, and the pieces behind it are of
/// that file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct ReadItem {
    /// What the file is like.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schema(inline))]
    pub file: Option<ReadFile>,
    /// Where the piece begins in the file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub offset: Option<u64>,
    /// The piece, in base64.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schema(value_type = Option<String>, format = Byte))]
    pub data: Option<Text<8000>>,
}

/// The file that is read. Between two parts it is the same one if `device` and `inode` are; it was not changed if `modified` and
/// `size` are the same, too.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct ReadFile {
    /// What became of it, if it was followed and is another one now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schema(inline))]
    pub became: Option<Became>,
    /// How many bytes it has. Files of the kernel (`/proc`) have none, and content all the same.
    pub size: u64,
    /// Where the pieces begin that follow.
    pub from: u64,
    /// When its content was changed.
    #[cfg_attr(feature = "schema", schema(inline))]
    pub modified: Timestamp,
    /// Its number in its file system.
    pub inode: u64,
    /// The number of its file system.
    pub device: u64,
}

choices! {
    /// What a file that is followed became.
    pub enum Became {
        /// It has less than was read: it was emptied, and is read from its front.
        Truncated = "truncated",
        /// Another file has its name, and is read from its front.
        Replaced = "replaced",
    }
}

impl Contract for FileRead {
    const KIND: &'static str = "file-read";
    const SUMMARY: &'static str = "Read a file or a part of it, or follow what is appended to it.";
    // Whoever reads any file reads the keys that it may not have.
    const PRIVILEGE: Privilege = Privilege::Administer;
    const FOLLOWS: bool = true;
    const SHOWS: Shows = Shows::Entries;
    const OBJECTS: &'static [Class] = &[Class::Paths];
    const DEFAULT_TIMEOUT: Duration = Duration::from_secs(60);
    const MAX_ITEMS: usize = 8192;
    const MAX_BYTES: usize = 48 << 20;

    type Item = ReadItem;

    fn key(item: &ReadItem) -> Key {
        match item.offset {
            // In an order of texts that is theirs.
            Some(offset) => Text::of(format_args!("{offset:020}")),
            None => Text::of("file"),
        }
    }

    fn touches(&self) -> Vec<Object> {
        vec![self.path.object()]
    }

    fn shown(_: &ReadItem) -> Option<Object> {
        None
    }

    fn actor(&self) -> Actor {
        self.user.clone().map_or(Actor::Agent, Actor::User)
    }

    fn validate(&self) -> Result<(), String> {
        let Self { path: _, offset, length, tail, user: _ } = self;
        if tail.is_some() && (offset.is_some() || length.is_some()) {
            return Err("`tail` goes from the end: give it without `offset` and `length`".to_owned());
        }
        if length.is_some_and(|length| length == 0 || length > MAX_LENGTH)
            || tail.is_some_and(|tail| tail > MAX_LENGTH)
        {
            return Err(format!(
                "at most {MAX_LENGTH} bytes are told at once, and at least one: read it part after part"
            ));
        }
        Ok(())
    }
}

impl ReadItem {
    /// What the file is like.
    #[must_use]
    pub const fn file(file: ReadFile) -> Self {
        Self { file: Some(file), offset: None, data: None }
    }

    /// A piece of at most [`PIECE`] bytes.
    #[must_use]
    pub fn piece(offset: u64, bytes: &[u8]) -> Self {
        Self { file: None, offset: Some(offset), data: Some(Text::of(STANDARD.encode(bytes))) }
    }

    /// The piece: where it begins, and its bytes. `None` if it is none, or none that can be read.
    #[must_use]
    pub fn read_piece(&self) -> Option<(u64, Vec<u8>)> {
        Some((self.offset?, STANDARD.decode(self.data.as_ref()?.as_bytes()).ok()?))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::action::ActionRequest;
    use crate::query::{MAX_ITEM, Query, read_item};

    #[test]
    fn parts_and_the_end_exclude_each_other() {
        let parse =
            |params: &str| Query::parse(&ActionRequest { kind: "file-read".into(), params: params.into() });
        for params in [
            r#"{"path":"/a"}"#,
            r#"{"path":"/a","offset":99999999999}"#,
            r#"{"path":"/a","offset":1,"length":33554432}"#,
            r#"{"path":"/a","tail":0}"#,
        ] {
            assert!(parse(params).is_ok(), "{params}");
        }
        for (params, told) in [
            (r#"{"path":"/a","tail":1,"offset":1}"#, "without `offset`"),
            (r#"{"path":"/a","tail":1,"length":1}"#, "without `offset`"),
            (r#"{"path":"/a","length":0}"#, "at least one"),
            (r#"{"path":"/a","length":33554433}"#, "33554432 bytes"),
            (r#"{"path":"/a","tail":33554433}"#, "33554432 bytes"),
            (r#"{"path":"/a","offset":-1}"#, "invalid value"),
        ] {
            let error = parse(params).unwrap_err().to_string();
            assert!(error.contains(told), "{error}");
        }
    }

    #[test]
    fn the_largest_answer_fits() {
        let item = ReadItem::piece(u64::MAX, &[0xff; PIECE]);
        let json = serde_json::to_string(&item).unwrap();
        assert!(json.len() <= MAX_ITEM);
        read_item(&json.parse().unwrap()).unwrap();
        let pieces = usize::try_from(MAX_LENGTH).unwrap().div_ceil(PIECE) + 2;
        assert!(pieces <= FileRead::MAX_ITEMS, "{pieces}");
        assert!(pieces * (json.len() + FileRead::key(&item).len()) <= FileRead::MAX_BYTES);
    }

    proptest! {
        #[test]
        fn a_piece_is_read_as_it_was_told(offset: u64, bytes in prop::collection::vec(any::<u8>(), 0..PIECE)) {
            let json = serde_json::to_string(&ReadItem::piece(offset, &bytes)).unwrap();
            let item: ReadItem = serde_json::from_str(&json).unwrap();
            prop_assert_eq!(item.read_piece(), Some((offset, bytes)));
        }
    }
}
