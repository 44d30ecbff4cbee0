//! Which certificates nginx uses on a host, and for how long they hold.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Contract, Key, Shows};
use crate::action::Privilege;
use crate::object::{Class, Object};
use crate::text::{List, Text, Word};
use crate::time::Timestamp;

/// The most names of an item.
pub const MAX_NAMES: usize = 16;
/// The most sites of an item.
pub const MAX_SITES: usize = 8;

/// Which certificates are looked at: those that servers of nginx use.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Certificates {
    /// Only those that hold for fewer days than this, that hold no more or not yet, or that cannot be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schema(example = 21))]
    pub days: Option<u16>,
}

/// A certificate that is used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct CertificateItem {
    /// Its file.
    #[cfg_attr(feature = "schema", schema(value_type = String, example = "/etc/letsencrypt/live/shop/fullchain.pem"))]
    pub file: Word,
    /// The names that it is for, the first of them.
    #[cfg_attr(feature = "schema", schema(value_type = Vec<String>))]
    pub names: List<Text<96>, MAX_NAMES>,
    /// How many names more there are.
    #[serde(default, skip_serializing_if = "is_zero")]
    #[cfg_attr(feature = "schema", schema(default = 0))]
    pub more_names: u32,
    /// Who signed it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schema(value_type = Option<String>))]
    pub issuer: Option<Word>,
    /// From when on it holds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schema(inline))]
    pub not_before: Option<Timestamp>,
    /// Until when it holds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schema(inline))]
    pub not_after: Option<Timestamp>,
    /// For how many whole days it holds yet, by the host's clock; less than 0 when it holds no more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub days_left: Option<i64>,
    /// The sites that use it, the first of them.
    #[cfg_attr(feature = "schema", schema(value_type = Vec<String>))]
    pub sites: List<Text<128>, MAX_SITES>,
    /// Why it cannot be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schema(value_type = Option<String>))]
    pub problem: Option<Word>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes what it skips by reference")]
const fn is_zero(count: &u32) -> bool {
    *count == 0
}

impl Contract for Certificates {
    const KIND: &'static str = "certificates";
    const SUMMARY: &'static str = "List the certificates that nginx uses, and for how long they hold.";
    const PRIVILEGE: Privilege = Privilege::Observe;
    const FOLLOWS: bool = false;
    const SHOWS: Shows = Shows::Table;
    const OBJECTS: &'static [Class] = &[Class::Paths];
    const DEFAULT_TIMEOUT: Duration = Duration::from_secs(60);
    const MAX_ITEMS: usize = 16_384;
    const MAX_BYTES: usize = 32 << 20;

    type Item = CertificateItem;

    fn key(item: &CertificateItem) -> Key {
        item.file.clone()
    }

    fn touches(&self) -> Vec<Object> {
        Vec::new()
    }

    fn shown(item: &CertificateItem) -> Option<Object> {
        Some(Object::named(Class::Paths, &item.file))
    }

    fn validate(&self) -> Result<(), String> {
        Ok(())
    }
}

impl Certificates {
    /// Whether one is meant that holds for so many days; `None` for one that cannot be read, or does not hold yet.
    #[must_use]
    pub fn means(&self, days_left: Option<i64>) -> bool {
        match (self.days, days_left) {
            (Some(days), Some(left)) => left < i64::from(days),
            _ => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::query::MAX_ITEM;

    #[test]
    fn the_largest_item_fits() {
        fn text<const MAX: usize>() -> Text<MAX> {
            Text::of("\"".repeat(MAX))
        }
        let item = CertificateItem {
            file: text(),
            names: List::of((0..MAX_NAMES).map(|_| text())),
            more_names: u32::MAX,
            issuer: Some(text()),
            not_before: Some(Timestamp::from_millis(i64::MIN)),
            not_after: Some(Timestamp::from_millis(i64::MIN)),
            days_left: Some(i64::MIN),
            sites: List::of((0..MAX_SITES).map(|_| text())),
            problem: Some(text()),
        };
        assert!(serde_json::to_string(&item).unwrap().len() <= MAX_ITEM);
    }

    #[test]
    fn what_cannot_be_read_is_never_left_out() {
        let soon = Certificates { days: Some(21) };
        for (days, meant) in [(Some(20), true), (Some(21), false), (Some(-5), true), (None, true)] {
            assert_eq!(soon.means(days), meant, "{days:?}");
        }
        assert!(Certificates::default().means(Some(1000)));
    }
}
