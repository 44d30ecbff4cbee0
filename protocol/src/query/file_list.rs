//! What is in a directory.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Contract, Key, Shows};
use crate::action::{Actor, Privilege};
use crate::digest::Digest;
use crate::file::{FileMode, FileType};
use crate::name::LinuxUser;
use crate::object::{Class, Object};
use crate::path::{self, HostPath, MAX_NAME};
use crate::text::{Text, Word};
use crate::time::Timestamp;

/// The most names of one answer.
pub const MAX_NAMES: usize = 16_000;
/// What the item of the directory itself is called, as no other one can be.
pub const ITSELF: &str = ".";

/// Which directory is looked at. What is in it is told in the order of names, by their bytes, behind the directory itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct FileList {
    /// The directory: an absolute path. One that is not UTF-8 is `base64:` and its bytes.
    #[cfg_attr(feature = "schema", schema(value_type = String, example = "/etc/nginx", max_length = 5467))]
    pub path: HostPath,
    /// Also the names that begin with a dot.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    #[cfg_attr(feature = "schema", schema(default = false))]
    pub hidden: bool,
    /// Only names behind this one: to go on where an answer ended, which says `next`. `base64:` and its bytes, if it is not UTF-8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schema(value_type = Option<String>, max_length = 351))]
    pub after: Option<Name>,
    /// As whom to look; as the agent's own user (root) when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schema(value_type = Option<String>))]
    pub user: Option<LinuxUser>,
}

/// A name in a directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Name(Vec<u8>);

/// Something in a directory, or the directory itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct FileItem {
    /// Its name, with `\xNN` for each byte that nobody could read and `\\` for a backslash; `.` is the directory itself.
    #[cfg_attr(feature = "schema", schema(value_type = String))]
    pub name: Text<1020>,
    /// What it is.
    #[serde(rename = "type")]
    #[cfg_attr(feature = "schema", schema(inline))]
    pub kind: FileType,
    /// How many bytes it has.
    pub size: u64,
    /// Who may do what with it, in octal digits.
    #[cfg_attr(feature = "schema", schema(value_type = String, example = "0644"))]
    pub mode: FileMode,
    /// Whose it is; a number where the host has no name for it.
    #[cfg_attr(feature = "schema", schema(value_type = String))]
    pub owner: Text<64>,
    /// The group it belongs to; a number where the host has no name for it.
    #[cfg_attr(feature = "schema", schema(value_type = String))]
    pub group: Text<64>,
    /// When its content was changed.
    #[cfg_attr(feature = "schema", schema(inline))]
    pub modified: Timestamp,
    /// Where it leads, if it is a link; written as `name` is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schema(value_type = Option<String>))]
    pub target: Option<Text<1024>>,
    /// Its name by its bytes, where `name` is not the name itself: `base64:` and they.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schema(value_type = Option<String>))]
    pub bytes: Option<Text<352>>,
    /// What to ask for to see it, where its name is not one that could be written behind the directory's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schema(value_type = Option<String>))]
    pub path: Option<Text<3072>>,
    /// Of the directory itself: how many names there are that were asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub entries: Option<u64>,
    /// Of the directory itself: how many of them are not told, for there are too many.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub left_out: Option<u64>,
    /// Of the directory itself, when names were left out: the last one that is told, for `after`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schema(value_type = Option<String>))]
    pub next: Option<Text<352>>,
}

impl Contract for FileList {
    const KIND: &'static str = "file-list";
    const SUMMARY: &'static str = "List what is in a directory.";
    const PRIVILEGE: Privilege = Privilege::Observe;
    const FOLLOWS: bool = false;
    const SHOWS: Shows = Shows::Table;
    const OBJECTS: &'static [Class] = &[Class::Paths];
    const DEFAULT_TIMEOUT: Duration = Duration::from_secs(30);
    // The directory itself is one more.
    const MAX_ITEMS: usize = MAX_NAMES + 1;
    const MAX_BYTES: usize = 32 << 20;

    type Item = FileItem;

    fn key(item: &FileItem) -> Key {
        // A name has no `/`: what is too long for a key is no name, and another one for each.
        match Word::try_from(item.name.as_str().to_owned()) {
            Ok(key) => key,
            Err(_) => Text::of(format_args!("/{}", Digest::of(item.name.as_bytes()))),
        }
    }

    fn touches(&self) -> Vec<Object> {
        vec![self.path.object()]
    }

    fn shown(_: &FileItem) -> Option<Object> {
        None
    }

    fn actor(&self) -> Actor {
        self.user.clone().map_or(Actor::Agent, Actor::User)
    }

    fn validate(&self) -> Result<(), String> {
        Ok(())
    }
}

impl Name {
    /// Of these bytes.
    #[must_use]
    pub fn of_bytes(bytes: &[u8]) -> Self {
        Self(bytes.to_vec())
    }

    /// Its bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl TryFrom<String> for Name {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let bytes = path::decode(&text).ok_or("what is behind `base64:` is no base64")?;
        match bytes.len() {
            0 => Err("the name is empty".to_owned()),
            length if length > MAX_NAME => Err("the name has more than 255 bytes".to_owned()),
            _ if bytes.contains(&b'/') => Err("it is no name: it holds a `/`".to_owned()),
            _ => Ok(Self(bytes)),
        }
    }
}

impl From<Name> for String {
    fn from(name: Name) -> Self {
        path::encode(&name.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::action::ActionRequest;
    use crate::query::{MAX_ITEM, Query, read_item};

    fn parse(params: &str) -> Result<FileList, String> {
        match Query::parse(&ActionRequest { kind: "file-list".into(), params: params.into() }) {
            Ok(Query::FileList(list)) => Ok(list),
            Ok(other) => Err(format!("{other:?}")),
            Err(error) => Err(error.to_string()),
        }
    }

    #[test]
    fn parameters_read_as_they_are_written() {
        let list = parse(r#"{"path":"/etc//nginx/","hidden":true,"after":"base64:/w=="}"#).unwrap();
        assert_eq!(list.path.to_string(), "/etc/nginx");
        assert_eq!(list.after.as_ref().unwrap().as_bytes(), b"\xff");
        assert_eq!(list.actor(), Actor::Agent);
        let list = parse(r#"{"path":"/","user":"deploy"}"#).unwrap();
        assert_eq!(list.actor(), Actor::User("deploy".parse().unwrap()));
        for (params, told) in [
            ("{}", "missing field `path`"),
            (r#"{"path":"etc"}"#, "from the root on"),
            (r#"{"path":"/../etc"}"#, "without `..`"),
            (r#"{"path":"/","after":"a/b"}"#, "holds a `/`"),
            (r#"{"path":"/","after":""}"#, "empty"),
            (r#"{"path":"/","follow":true}"#, "unknown field `follow`"),
        ] {
            let error = parse(params).unwrap_err();
            assert!(error.contains("`file-list`") && error.contains(told), "{error}");
        }
    }

    /// The worst names and targets there can be.
    fn largest(byte: u8) -> FileItem {
        let name = [byte; MAX_NAME];
        FileItem {
            name: Text::of(path::shown(&name)),
            kind: FileType::CharacterDevice,
            size: u64::MAX,
            mode: FileMode::of(u32::MAX),
            owner: Text::of("\"".repeat(99)),
            group: Text::of("\"".repeat(99)),
            modified: Timestamp::from_millis(i64::MIN),
            target: Some(Text::of(path::shown(&[byte; 4095]))),
            bytes: Some(Text::of(path::encode(&name))),
            path: Some(Text::of("x".repeat(4000))),
            entries: Some(u64::MAX),
            left_out: Some(u64::MAX),
            next: Some(Text::of(path::encode(&name))),
        }
    }

    #[test]
    fn the_largest_item_fits_and_has_a_key_of_its_own() {
        for byte in [b'\\', b'"', 0xff, b'\n', b'x'] {
            let item = largest(byte);
            let json = serde_json::to_string(&item).unwrap();
            assert!(json.len() <= MAX_ITEM, "{} bytes of {byte}", json.len());
            read_item(&json.parse().unwrap()).unwrap();
            let other = FileItem { name: Text::of(path::shown(&[byte; 254])), ..largest(byte) };
            assert_ne!(FileList::key(&item), FileList::key(&other));
        }
    }
}
