//! One unit with all that systemd knows of it: its state, its files, its dependencies and its properties.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Contract, Key, Shows};
use crate::action::Privilege;
use crate::action::unit::UnitName;
use crate::choice::choices;
use crate::object::{Class, Object};
use crate::text::{Line, Text, Word};
use crate::time::Timestamp;

/// Which unit is shown. One that is not loaded is loaded from its file for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct UnitShow {
    /// The unit's name. Without a type a service is meant: `nginx` is `nginx.service`.
    #[cfg_attr(feature = "schema", schema(value_type = String, example = "nginx.service", max_length = 255))]
    pub unit: UnitName,
    /// These parts only; all of them when absent.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "schema", schema(inline))]
    pub parts: Vec<Part>,
}

choices! {
    /// What there is to see of a unit.
    pub enum Part {
        /// What it is and how it is: its states, its main process, what it uses.
        About = "about",
        /// What other units it has to do with, and how.
        Dependency = "dependency",
        /// Its files, as they are on the disk, in the order in which systemd reads them.
        File = "file",
        /// All that `systemctl show` prints, but for what is empty and what the other parts say.
        Property = "property",
    }
}

/// Something about a unit. What is long comes in several items.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct UnitPart {
    /// What it is.
    #[cfg_attr(feature = "schema", schema(inline))]
    pub part: Part,
    /// What it is called: `memory`, `After`, a file's path, `MemoryMax`.
    #[cfg_attr(feature = "schema", schema(value_type = String))]
    pub name: Text<1024>,
    /// What it is, as text or number; of a file that is not shown, why not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schema(value_type = Option<Object>))]
    pub value: Option<Scalar>,
    /// The same where it is a point in time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schema(inline))]
    pub at: Option<Timestamp>,
    /// The other units.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "schema", schema(value_type = Vec<String>))]
    pub units: Vec<Word>,
    /// Which of its files it is, from 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<u32>,
    /// The number of the first of the units or lines, from 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<u32>,
    /// The lines of the file.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "schema", schema(value_type = Vec<String>))]
    pub lines: Vec<Line>,
    /// Whether there is more of it than is told.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub truncated: bool,
}

/// A value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Scalar {
    /// A number.
    Number(u64),
    /// A text.
    Text(Text<3800>),
}

impl Contract for UnitShow {
    const KIND: &'static str = "unit-show";
    const SUMMARY: &'static str = "Show a unit: its state, files, dependencies and properties.";
    const PRIVILEGE: Privilege = Privilege::Observe;
    const FOLLOWS: bool = false;
    const SHOWS: Shows = Shows::Table;
    const OBJECTS: &'static [Class] = &[Class::Units];
    const DEFAULT_TIMEOUT: Duration = Duration::from_secs(30);
    const MAX_ITEMS: usize = 8192;
    const MAX_BYTES: usize = 16 << 20;

    type Item = UnitPart;

    fn key(item: &UnitPart) -> Key {
        let UnitPart { part, name, file, from, .. } = item;
        let from = from.unwrap_or(0);
        Text::of(match (part, file) {
            (Part::File, Some(file)) => format!("{part} {file:02} {from:06}"),
            (Part::Dependency, _) => format!("{part} {name} {from:06}"),
            _ => format!("{part} {name}"),
        })
    }

    fn touches(&self) -> Vec<Object> {
        vec![Object::named(Class::Units, self.unit.as_str())]
    }

    fn shown(_: &UnitPart) -> Option<Object> {
        // It is the unit that was asked for.
        None
    }

    fn validate(&self) -> Result<(), String> {
        match self.parts.len() {
            0..=4 => Ok(()),
            _ => Err("a part is named twice".to_owned()),
        }
    }
}

impl UnitShow {
    /// Whether this part is asked for.
    #[must_use]
    pub fn wants(&self, part: Part) -> bool {
        self.parts.is_empty() || self.parts.contains(&part)
    }
}

impl UnitPart {
    /// A part without anything yet.
    #[must_use]
    pub fn new(part: Part, name: impl std::fmt::Display) -> Self {
        let (value, at, units, file, from, lines) = (None, None, Vec::new(), None, None, Vec::new());
        Self { part, name: Text::of(name), value, at, units, file, from, lines, truncated: false }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::action::ActionRequest;
    use crate::query::{MAX_ITEM, Query};

    #[test]
    fn parts_are_chosen_and_what_does_not_fit_is_told() {
        let parse =
            |params: &str| Query::parse(&ActionRequest { kind: "unit-show".into(), params: params.into() });
        let Query::UnitShow(show) = parse(r#"{"unit":"nginx","parts":["file"]}"#).unwrap() else { panic!() };
        assert_eq!(
            (show.unit.as_str(), show.wants(Part::File), show.wants(Part::About)),
            ("nginx.service", true, false)
        );
        for (params, told) in [
            ("{}", "missing field `unit`"),
            (r#"{"unit":"a b"}"#, "not the name of a unit"),
            (r#"{"unit":"a","parts":["files"]}"#, "unknown variant `files`"),
            (r#"{"unit":"a","parts":["file","file","file","file","file"]}"#, "named twice"),
        ] {
            let error = parse(params).unwrap_err().to_string();
            assert!(error.contains(told), "{error}");
        }
    }

    #[test]
    fn every_item_has_a_key_of_its_own() {
        let key = |part, name: &str, file, from| {
            UnitShow::key(&UnitPart { file, from, ..UnitPart::new(part, name) })
        };
        assert_eq!(key(Part::About, "memory", None, None), "about memory");
        assert_eq!(key(Part::Dependency, "After", None, Some(1)), "dependency After 000001");
        assert_eq!(key(Part::File, &"/x".repeat(1000), Some(2), Some(17)), "file 02 000017");
        assert_eq!(key(Part::Property, "MemoryMax", None, None), "property MemoryMax");
    }

    #[test]
    fn the_largest_value_fits_and_numbers_stay_numbers() {
        let mut part = UnitPart::new(Part::Property, "\\".repeat(80));
        part.value = Some(Scalar::Text(Text::of("\"".repeat(9000))));
        assert!(serde_json::to_string(&part).unwrap().len() <= MAX_ITEM);
        part.value = Some(Scalar::Number(7));
        let json = serde_json::to_value(&part).unwrap();
        assert_eq!(json["value"], 7);
        assert_eq!(serde_json::from_value::<UnitPart>(json).unwrap(), part);
    }
}
