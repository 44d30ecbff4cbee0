//! What is mounted on a host, and how full it is.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Contract, Key, Shows};
use crate::action::Privilege;
use crate::object::{Class, Object};
use crate::text::{Text, Word};

/// Which mounts are listed: file systems that can fill up, each once.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Mounts {
    /// Every mount: also views of the kernel, images that are always full, what is mounted a second time, and what containers have.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    #[cfg_attr(feature = "schema", schema(default = false))]
    pub all: bool,
}

/// A mount as it is now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct MountItem {
    /// Where it is mounted.
    #[cfg_attr(feature = "schema", schema(value_type = String, example = "/srv"))]
    pub mount: Text<1024>,
    /// Its type: `ext4`, `xfs`, `nfs4`, …
    #[cfg_attr(feature = "schema", schema(value_type = String, example = "ext4"))]
    pub file_system: Word,
    /// What is mounted there: a device, or what a server exports.
    #[cfg_attr(feature = "schema", schema(value_type = String, example = "/dev/sda1"))]
    pub source: Text<1024>,
    /// With which options: `rw,relatime`. What may hold a password is left out.
    #[cfg_attr(feature = "schema", schema(value_type = String))]
    pub options: Text<1024>,
    /// Whether nothing can be written to it.
    pub read_only: bool,
    /// Size, in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
    /// In use, in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub used: Option<u64>,
    /// What users other than root can still write, in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub available: Option<u64>,
    /// How full it is for them, in percent, rounded up as `df` does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub percent: Option<u8>,
    /// Files that it can have; absent where that has no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inodes: Option<u64>,
    /// Files that it has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inodes_used: Option<u64>,
    /// How many of the files that it can have it has, in percent, rounded up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inodes_percent: Option<u8>,
    /// That it did not answer in time, as where a server is gone: whoever uses it hangs.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unresponsive: bool,
    /// The kernel's number of the mount.
    pub id: u64,
}

impl Contract for Mounts {
    const KIND: &'static str = "mounts";
    const SUMMARY: &'static str = "List mounted file systems: what they are, and how full.";
    const PRIVILEGE: Privilege = Privilege::Observe;
    const FOLLOWS: bool = false;
    const SHOWS: Shows = Shows::Table;
    const OBJECTS: &'static [Class] = &[];
    // What does not answer is waited for, many at a time.
    const DEFAULT_TIMEOUT: Duration = Duration::from_secs(60);
    const MAX_ITEMS: usize = 8192;
    const MAX_BYTES: usize = 16 << 20;

    type Item = MountItem;

    fn key(item: &MountItem) -> Key {
        // What is mounted on top of another hides it. A path that is too long for a key is not to be taken for its neighbour.
        match item.mount.as_str().parse() {
            Ok(key) => key,
            Err(_) => Text::of(format_args!("{} {}", item.id, item.mount)),
        }
    }

    fn touches(&self) -> Vec<Object> {
        Vec::new()
    }

    fn shown(_: &MountItem) -> Option<Object> {
        None
    }

    fn validate(&self) -> Result<(), String> {
        Ok(())
    }
}

/// How much of something is used, in percent, rounded up as `df` does: what is not quite full is not 100, and what is used at all
/// is not 0. Of nothing, `None`.
#[must_use]
pub fn percent(used: u64, of: u64) -> Option<u8> {
    let used = u128::from(used.min(of)) * 100;
    let percent = used.div_ceil(u128::from(of).max(1));
    (of > 0).then(|| u8::try_from(percent).unwrap_or(100))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::query::MAX_ITEM;

    fn item(mount: &str, id: u64) -> MountItem {
        let full = || Text::of("\"".repeat(1024));
        MountItem {
            mount: Text::of(mount),
            file_system: Text::of("\"".repeat(255)),
            source: full(),
            options: full(),
            read_only: false,
            size: Some(u64::MAX),
            used: Some(u64::MAX),
            available: Some(u64::MAX),
            percent: Some(100),
            inodes: Some(u64::MAX),
            inodes_used: Some(u64::MAX),
            inodes_percent: Some(100),
            unresponsive: true,
            id,
        }
    }

    #[test]
    fn the_largest_item_fits_and_long_paths_keep_apart() {
        let long = "\"".repeat(1024);
        assert!(serde_json::to_string(&item(&long, u64::MAX)).unwrap().len() <= MAX_ITEM);
        assert_ne!(Mounts::key(&item(&long, 1)), Mounts::key(&item(&long, 2)));
        assert_eq!(Mounts::key(&item("/srv", 1)), "/srv");
    }

    #[test]
    fn percents_are_rounded_up() {
        for (used, of, expected) in [
            (0, 0, None),
            (0, 10, Some(0)),
            (1, 1000, Some(1)),
            (999, 1000, Some(100)),
            (500, 1000, Some(50)),
            (u64::MAX, u64::MAX, Some(100)),
            (20, 10, Some(100)),
        ] {
            assert_eq!(percent(used, of), expected, "{used} of {of}");
        }
    }
}
