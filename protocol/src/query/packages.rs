//! The packages of a Debian or Ubuntu host: what is installed, and what there is to upgrade to.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Contract, Key, Shows};
use crate::action::Privilege;
use crate::action::package::MAX_NAME;
use crate::object::{Class, Object};
use crate::text::{Text, Word};
use crate::wildcard;

/// Which packages are listed: those that are installed, in whole or in part.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Packages {
    /// Only those that have a newer version to upgrade to.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    #[cfg_attr(feature = "schema", schema(default = false))]
    pub pending: bool,
    /// Only those for which a newer version fixes security.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    #[cfg_attr(feature = "schema", schema(default = false))]
    pub security: bool,
    /// Only those that are held: nothing upgrades or removes them.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    #[cfg_attr(feature = "schema", schema(default = false))]
    pub held: bool,
    /// With such a name only: `*` stands for any characters, `?` for one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schema(value_type = Option<String>, example = "linux-image-*", max_length = 128))]
    pub pattern: Option<NamePattern>,
}

/// A pattern for names of packages.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct NamePattern(String);

/// Why a text is not a pattern.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a pattern for names of packages: {rule}")]
pub struct InvalidNamePattern {
    text: Word,
    rule: &'static str,
}

/// A package as it is now, and what apt knows of it by the lists that it fetched last.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct PackageItem {
    /// Its name.
    #[cfg_attr(feature = "schema", schema(value_type = String, example = "nginx"))]
    pub name: Word,
    /// For which architecture it is built; `all` for every one.
    #[cfg_attr(feature = "schema", schema(value_type = String))]
    pub architecture: Word,
    /// `installed`; or where that broke off: `unpacked`, `half-configured`, …
    #[cfg_attr(feature = "schema", schema(value_type = String))]
    pub state: Word,
    /// The version that is installed.
    #[cfg_attr(feature = "schema", schema(value_type = String))]
    pub version: Word,
    /// The newer version that an upgrade would bring; absent where there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schema(value_type = Option<String>))]
    pub candidate: Option<Word>,
    /// Who publishes that version: `Debian`, `Debian-Security`, `Ubuntu`, …
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schema(value_type = Option<String>))]
    pub origin: Option<Word>,
    /// In which suite: `stable-security`, `noble-updates`, …
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schema(value_type = Option<String>))]
    pub suite: Option<Word>,
    /// Whether a newer version fixes security: a security archive of Debian or Ubuntu has it.
    pub security: bool,
    /// Whether it is held: nothing upgrades or removes it.
    pub held: bool,
    /// Whether it was installed for others, and goes when nothing needs it (`apt-get autoremove`).
    pub automatic: bool,
}

impl Contract for Packages {
    const KIND: &'static str = "packages";
    const SUMMARY: &'static str =
        "List the packages of Debian and Ubuntu hosts, and what there is to upgrade.";
    const PRIVILEGE: Privilege = Privilege::Observe;
    const FOLLOWS: bool = false;
    const SHOWS: Shows = Shows::Table;
    const OBJECTS: &'static [Class] = &[Class::Packages];
    // Where apt's cache is old, it reads all its lists anew.
    const DEFAULT_TIMEOUT: Duration = Duration::from_secs(60);
    const MAX_ITEMS: usize = 16_384;
    const MAX_BYTES: usize = 16 << 20;

    type Item = PackageItem;

    fn key(item: &PackageItem) -> Key {
        Text::of(format_args!("{}:{}", item.name, item.architecture))
    }

    fn touches(&self) -> Vec<Object> {
        Vec::new()
    }

    fn shown(item: &PackageItem) -> Option<Object> {
        Some(Object::named(Class::Packages, &item.name))
    }

    fn validate(&self) -> Result<(), String> {
        Ok(())
    }
}

impl Packages {
    /// Whether a package of this name is meant, whatever it is like.
    #[must_use]
    pub fn means_name(&self, name: &str) -> bool {
        self.pattern.as_ref().is_none_or(|pattern| pattern.matches(name))
    }

    /// Whether this package is meant.
    #[must_use]
    pub fn means(&self, item: &PackageItem) -> bool {
        self.means_name(&item.name)
            && (!self.pending || item.candidate.is_some())
            && (!self.security || item.security)
            && (!self.held || item.held)
    }
}

impl NamePattern {
    /// Whether a name is such a one.
    #[must_use]
    pub fn matches(&self, name: &str) -> bool {
        wildcard::matches(&self.0, name)
    }
}

impl FromStr for NamePattern {
    type Err = InvalidNamePattern;

    fn from_str(text: &str) -> Result<Self, InvalidNamePattern> {
        let invalid = |rule| InvalidNamePattern { text: Text::of(text), rule };
        let is_valid = |c: char| {
            c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '+' | '-' | '.' | '*' | '?')
        };
        match text.len() {
            0 => Err(invalid("it is empty; leave it out to mean every name")),
            length if length > MAX_NAME => Err(invalid("it has more than 128 characters")),
            _ if !text.chars().all(is_valid) => {
                Err(invalid("only lower-case letters, digits, `+-.` and the signs `*` and `?` are allowed"))
            }
            _ => Ok(Self(text.to_owned())),
        }
    }
}

impl TryFrom<String> for NamePattern {
    type Error = InvalidNamePattern;

    fn try_from(text: String) -> Result<Self, InvalidNamePattern> {
        text.parse()
    }
}

impl From<NamePattern> for String {
    fn from(pattern: NamePattern) -> Self {
        pattern.0
    }
}

impl fmt::Display for NamePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::action::ActionRequest;
    use crate::query::{MAX_ITEM, Query};

    fn packages(params: &str) -> Packages {
        match Query::parse(&ActionRequest { kind: "packages".into(), params: params.into() }).unwrap() {
            Query::Packages(packages) => packages,
            other => panic!("{other:?}"),
        }
    }

    fn item(name: &str) -> PackageItem {
        PackageItem {
            name: Text::of(name),
            architecture: Text::of("amd64"),
            state: Text::of("installed"),
            version: Text::of("1.0-1"),
            candidate: None,
            origin: None,
            suite: None,
            security: false,
            held: false,
            automatic: false,
        }
    }

    #[test]
    fn what_is_asked_for_is_meant() {
        let plain = item("nginx");
        let pending = PackageItem { candidate: Some(Text::of("1.1-1")), ..item("nginx") };
        let fixes = PackageItem { security: true, ..pending.clone() };
        let held = PackageItem { held: true, ..item("g++") };
        for (params, meant) in [
            ("{}", [true, true, true, true]),
            (r#"{"pending":true}"#, [false, true, true, false]),
            (r#"{"security":true}"#, [false, false, true, false]),
            (r#"{"held":true}"#, [false, false, false, true]),
            (r#"{"pattern":"ng*"}"#, [true, true, true, false]),
            (r#"{"pattern":"g++"}"#, [false, false, false, true]),
            (r#"{"pattern":"ngin"}"#, [false, false, false, false]),
        ] {
            let asked = packages(params);
            assert_eq!([&plain, &pending, &fixes, &held].map(|item| asked.means(item)), meant, "{params}");
        }
        for (params, told) in [
            (r#"{"pattern":""}"#, "it is empty"),
            (r#"{"pattern":"a b"}"#, "only lower-case"),
            (r#"{"names":["a"]}"#, "unknown field `names`"),
        ] {
            let request = ActionRequest { kind: "packages".into(), params: params.into() };
            let error = Query::parse(&request).unwrap_err().to_string();
            assert!(error.contains("`packages`") && error.contains(told), "{error}");
        }
    }

    #[test]
    fn the_largest_item_fits() {
        let word = || Word::of("\"".repeat(255));
        let item = PackageItem {
            name: word(),
            architecture: word(),
            state: word(),
            version: word(),
            candidate: Some(word()),
            origin: Some(word()),
            suite: Some(word()),
            ..item("a")
        };
        assert!(serde_json::to_string(&item).unwrap().len() <= MAX_ITEM);
    }
}
