//! What nginx has logged as errors on a host.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Contract, Key, Shows};
use crate::action::Privilege;
use crate::action::site::SiteName;
use crate::object::{Class, Object};
use crate::text::{Text, Word};

/// The lines that are told of each log when nothing is said.
pub const USUAL_LINES: u16 = 50;
/// The most lines that are told of each log.
pub const MAX_LINES: u16 = 1000;

/// Which lines are told: the last ones of each error log that nginx writes, in their order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct SiteErrors {
    /// Only those of this site, if it has a log of its own; of all logs when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schema(value_type = Option<String>, example = "shop"))]
    pub site: Option<SiteName>,
    /// The last so many of each log, up to 1000.
    #[serde(default = "usual_lines", skip_serializing_if = "is_usual")]
    #[cfg_attr(feature = "schema", schema(default = 50, minimum = 1, maximum = 1000))]
    pub lines: u16,
}

const fn usual_lines() -> u16 {
    USUAL_LINES
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes what it skips by reference")]
const fn is_usual(lines: &u16) -> bool {
    *lines == USUAL_LINES
}

/// A line of an error log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct SiteError {
    /// Its number in this answer.
    pub number: u32,
    /// When it was written, as it stands there: the host's local time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schema(value_type = Option<String>, example = "2026/01/02 03:04:05"))]
    pub time: Option<Text<32>>,
    /// How bad it is: `emerg`, `alert`, `crit`, `error`, `warn`, `notice`, `info`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schema(value_type = Option<String>))]
    pub level: Option<Text<16>>,
    /// The site whose log it is; absent for a log of several.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schema(value_type = Option<String>))]
    pub site: Option<Text<128>>,
    /// What it says.
    #[cfg_attr(feature = "schema", schema(value_type = String))]
    pub message: Text<2048>,
    /// The log that it stands in.
    #[cfg_attr(feature = "schema", schema(value_type = String, example = "/var/log/nginx/error.log"))]
    pub log: Word,
}

impl Contract for SiteErrors {
    const KIND: &'static str = "site-errors";
    const SUMMARY: &'static str = "Show what nginx has logged as errors, of all sites or of one.";
    const PRIVILEGE: Privilege = Privilege::Observe;
    const FOLLOWS: bool = false;
    const SHOWS: Shows = Shows::Entries;
    const OBJECTS: &'static [Class] = &[Class::Sites, Class::Paths];
    const DEFAULT_TIMEOUT: Duration = Duration::from_secs(60);
    const MAX_ITEMS: usize = 20_000;
    const MAX_BYTES: usize = 32 << 20;

    type Item = SiteError;

    fn key(item: &SiteError) -> Key {
        Text::of(item.number)
    }

    fn touches(&self) -> Vec<Object> {
        self.site.iter().map(|site| Object::named(Class::Sites, site)).collect()
    }

    fn shown(item: &SiteError) -> Option<Object> {
        Some(Object::named(Class::Paths, &item.log))
    }

    fn validate(&self) -> Result<(), String> {
        match self.lines {
            1..=MAX_LINES => Ok(()),
            lines => Err(format!("`lines` is {lines}, and has to be between 1 and {MAX_LINES}")),
        }
    }
}

impl Default for SiteErrors {
    fn default() -> Self {
        Self { site: None, lines: USUAL_LINES }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::action::ActionRequest;
    use crate::query::{MAX_ITEM, Query};

    #[test]
    fn the_largest_item_fits() {
        fn text<const MAX: usize>() -> Text<MAX> {
            Text::of("\"".repeat(MAX))
        }
        let item = SiteError {
            number: u32::MAX,
            time: Some(text()),
            level: Some(text()),
            site: Some(text()),
            message: text(),
            log: text(),
        };
        assert!(serde_json::to_string(&item).unwrap().len() <= MAX_ITEM);
    }

    #[test]
    fn what_does_not_fit_is_told() {
        for (params, told) in [
            (r#"{"lines":0}"#, "between 1 and 1000"),
            (r#"{"lines":1001}"#, "between 1 and 1000"),
            (r#"{"site":"../x"}"#, "only lower-case"),
        ] {
            let request = ActionRequest { kind: "site-errors".into(), params: params.into() };
            let error = Query::parse(&request).unwrap_err().to_string();
            assert!(error.contains(told), "{error}");
        }
    }
}
