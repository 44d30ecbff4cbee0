//! What a file, a directory or something else at a path is like.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Contract, Key, Shows};
use crate::action::{Actor, Privilege};
use crate::file::{FileMode, FileType};
use crate::name::LinuxUser;
use crate::object::{Class, Object};
use crate::path::HostPath;
use crate::text::{Text, Word};
use crate::time::Timestamp;

/// Which path is looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct FileStat {
    /// An absolute path. One that is not UTF-8 is `base64:` and its bytes.
    #[cfg_attr(feature = "schema", schema(value_type = String, example = "/etc/hosts", max_length = 5467))]
    pub path: HostPath,
    /// If it is a link, look at what it leads to and not at the link.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    #[cfg_attr(feature = "schema", schema(default = false))]
    pub dereference: bool,
    /// As whom to look; as the agent's own user (root) when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schema(value_type = Option<String>))]
    pub user: Option<LinuxUser>,
}

/// What is at the path.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct StatItem {
    /// Where it is, without a link in the path; with `\xNN` for each byte that nobody could read and `\\` for a backslash.
    #[cfg_attr(feature = "schema", schema(value_type = String))]
    pub path: Text<2048>,
    /// What it is.
    #[serde(rename = "type")]
    #[cfg_attr(feature = "schema", schema(inline))]
    pub kind: FileType,
    /// How many bytes it has.
    pub size: u64,
    /// How many bytes it takes on the disk.
    pub allocated: u64,
    /// Who may do what with it, in octal digits.
    #[cfg_attr(feature = "schema", schema(value_type = String, example = "0644"))]
    pub mode: FileMode,
    /// Whose it is; a number where the host has no name for it.
    #[cfg_attr(feature = "schema", schema(value_type = String))]
    pub owner: Text<64>,
    /// The group it belongs to; a number where the host has no name for it.
    #[cfg_attr(feature = "schema", schema(value_type = String))]
    pub group: Text<64>,
    /// The owner's number.
    pub uid: u32,
    /// The group's number.
    pub gid: u32,
    /// Whether more users or groups than these have rights of their own (acl(5)); absent where that cannot be seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub acl: Option<bool>,
    /// When its content was changed.
    #[cfg_attr(feature = "schema", schema(inline))]
    pub modified: Timestamp,
    /// When its content, owner, mode or names were changed.
    #[cfg_attr(feature = "schema", schema(inline))]
    pub changed: Timestamp,
    /// When it was read, as far as the file system keeps that.
    #[cfg_attr(feature = "schema", schema(inline))]
    pub accessed: Timestamp,
    /// When it was made, where the file system keeps that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schema(inline))]
    pub born: Option<Timestamp>,
    /// Its number in its file system.
    pub inode: u64,
    /// How many names it has.
    pub links: u64,
    /// The device of its file system, as `major:minor`.
    #[cfg_attr(feature = "schema", schema(value_type = String, example = "8:1"))]
    pub device: Word,
    /// Which device it is, if it is one, as `major:minor`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schema(value_type = Option<String>))]
    pub number: Option<Word>,
    /// Where it leads, if it is a link; written as `path` is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schema(value_type = Option<String>))]
    pub target: Option<Text<1024>>,
}

impl Contract for FileStat {
    const KIND: &'static str = "file-stat";
    const SUMMARY: &'static str = "Show what a file or directory is like: size, mode, owner, times.";
    const PRIVILEGE: Privilege = Privilege::Observe;
    const FOLLOWS: bool = false;
    const SHOWS: Shows = Shows::Table;
    const OBJECTS: &'static [Class] = &[Class::Paths];
    const DEFAULT_TIMEOUT: Duration = Duration::from_secs(15);
    const MAX_ITEMS: usize = 1;
    const MAX_BYTES: usize = super::MAX_ITEM + 256;

    type Item = StatItem;

    fn key(item: &StatItem) -> Key {
        Text::of(&item.path)
    }

    fn touches(&self) -> Vec<Object> {
        vec![self.path.object()]
    }

    fn shown(_: &StatItem) -> Option<Object> {
        None
    }

    fn actor(&self) -> Actor {
        self.user.clone().map_or(Actor::Agent, Actor::User)
    }

    fn validate(&self) -> Result<(), String> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::path;
    use crate::query::{MAX_ITEM, read_item};

    #[test]
    fn the_largest_item_fits() {
        for byte in [b'\\', b'"', 0xff] {
            let long = path::shown(&[byte; 4095]);
            let item = StatItem {
                path: Text::of(&long),
                kind: FileType::BlockDevice,
                size: u64::MAX,
                allocated: u64::MAX,
                mode: FileMode::of(u32::MAX),
                owner: Text::of("\"".repeat(99)),
                group: Text::of("\"".repeat(99)),
                uid: u32::MAX,
                gid: u32::MAX,
                acl: Some(false),
                modified: Timestamp::from_millis(i64::MIN),
                changed: Timestamp::from_millis(i64::MIN),
                accessed: Timestamp::from_millis(i64::MIN),
                born: Some(Timestamp::from_millis(i64::MIN)),
                inode: u64::MAX,
                links: u64::MAX,
                device: Text::of("4294967295:4294967295"),
                number: Some(Text::of("4294967295:4294967295")),
                target: Some(Text::of(&long)),
            };
            let json = serde_json::to_string(&item).unwrap();
            assert!(json.len() <= MAX_ITEM, "{} bytes", json.len());
            read_item(&json.parse().unwrap()).unwrap();
        }
    }
}
