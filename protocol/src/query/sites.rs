//! Which sites nginx has on a host.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::units::Pattern;
use super::{Contract, Key, Shows};
use crate::action::Privilege;
use crate::choice::choices;
use crate::object::{Class, Object};
use crate::text::{List, Text, Word};

/// The most names of an item.
pub const MAX_NAMES: usize = 16;
/// The most places of an item.
pub const MAX_LISTENS: usize = 8;
/// The most certificates of an item.
pub const MAX_CERTIFICATES: usize = 2;

/// Which sites are looked at: those that nginx would read, whoever wrote them, and those that are written and not enabled.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Sites {
    /// With such a name, or such a server name: `*` stands for any characters, `?` for one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schema(value_type = Option<String>, example = "*.example.com", max_length = 255))]
    pub pattern: Option<Pattern>,
}

choices! {
    /// Who wrote a site.
    pub enum Writer {
        /// The agent.
        Ours = "ours",
        /// The agent, and somebody has changed it since.
        Edited = "edited",
        /// Somebody else.
        Foreign = "foreign",
    }
}

/// A file in which servers of nginx stand.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct SiteItem {
    /// Its name: that of its file.
    #[cfg_attr(feature = "schema", schema(value_type = String, example = "shop"))]
    pub name: Text<128>,
    /// Whether nginx reads it.
    pub enabled: bool,
    /// Who wrote it.
    #[cfg_attr(feature = "schema", schema(inline))]
    pub writer: Writer,
    /// The names that its servers answer to, the first of them.
    #[cfg_attr(feature = "schema", schema(value_type = Vec<String>))]
    pub server_names: List<Text<96>, MAX_NAMES>,
    /// How many names more there are.
    #[serde(default, skip_serializing_if = "is_zero")]
    #[cfg_attr(feature = "schema", schema(default = 0))]
    pub more_names: u32,
    /// Where its servers listen, in the words of its file.
    #[cfg_attr(feature = "schema", schema(value_type = Vec<String>))]
    pub listen: List<Text<64>, MAX_LISTENS>,
    /// What the last of its servers does with requests: the servers that they are passed on to, or the directory of its files.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schema(value_type = Option<String>))]
    pub target: Option<Word>,
    /// The files of its certificates.
    #[cfg_attr(feature = "schema", schema(value_type = Vec<String>))]
    pub certificates: List<Word, MAX_CERTIFICATES>,
    /// Its file.
    #[cfg_attr(feature = "schema", schema(value_type = String, example = "/etc/nginx/sites-enabled/shop"))]
    pub file: Word,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes what it skips by reference")]
const fn is_zero(count: &u32) -> bool {
    *count == 0
}

impl Contract for Sites {
    const KIND: &'static str = "sites";
    const SUMMARY: &'static str = "List the sites of nginx, with their names, certificates and targets.";
    const PRIVILEGE: Privilege = Privilege::Observe;
    const FOLLOWS: bool = false;
    const SHOWS: Shows = Shows::Table;
    const OBJECTS: &'static [Class] = &[Class::Sites];
    const DEFAULT_TIMEOUT: Duration = Duration::from_secs(60);
    const MAX_ITEMS: usize = 16_384;
    const MAX_BYTES: usize = 32 << 20;

    type Item = SiteItem;

    fn key(item: &SiteItem) -> Key {
        item.file.clone()
    }

    fn touches(&self) -> Vec<Object> {
        Vec::new()
    }

    fn shown(item: &SiteItem) -> Option<Object> {
        Some(Object::named(Class::Sites, &item.name))
    }

    fn validate(&self) -> Result<(), String> {
        Ok(())
    }
}

impl Sites {
    /// Whether this one is meant.
    #[must_use]
    pub fn means<'a>(&self, name: &str, mut server_names: impl Iterator<Item = &'a str>) -> bool {
        let Some(pattern) = &self.pattern else { return true };
        pattern.matches(name) || server_names.any(|name| pattern.matches(name))
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
        let item = SiteItem {
            name: text(),
            enabled: true,
            writer: Writer::Foreign,
            server_names: List::of((0..MAX_NAMES).map(|_| text())),
            more_names: u32::MAX,
            listen: List::of((0..MAX_LISTENS).map(|_| text())),
            target: Some(text()),
            certificates: List::of((0..MAX_CERTIFICATES).map(|_| text())),
            file: text(),
        };
        assert!(serde_json::to_string(&item).unwrap().len() <= MAX_ITEM);
    }

    #[test]
    fn a_site_is_meant_by_its_name_or_by_one_that_it_answers_to() {
        let sites = |pattern: &str| Sites { pattern: Some(pattern.parse().unwrap()) };
        let names = || ["shop.example.com"].into_iter();
        assert!(Sites::default().means("a", names()));
        assert!(sites("sh?p").means("shop", names()));
        assert!(sites("*.example.com").means("a", names()));
        assert!(!sites("*.example.org").means("shop", names()));
    }
}
