//! Say whether a unit of systemd is started at boot, or may not be started at all.
//!
//! It changes links, and neither starts nor stops anything: that is what [`unit`](super::unit) does.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::unit::UnitName;
use super::{Actor, Contract, Needs, Privilege};
use crate::choice::choices;
use crate::object::{Class, Object};
use crate::text::{Line, List, Text, Word};

/// The most links that a report names.
pub const MAX_LINKS: usize = 64;

/// Parameters of a unit-file action.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct UnitFile {
    /// The unit's name, such as `backup.timer`. Without a type a service is meant: `nginx` is `nginx.service`.
    #[cfg_attr(feature = "schema", schema(value_type = String, example = "nginx.service", max_length = 255))]
    pub unit: UnitName,
    /// What to do with it. It neither starts nor stops it: that is what the kind `unit` does.
    #[cfg_attr(feature = "schema", schema(inline))]
    pub verb: FileVerb,
}

choices! {
    /// What can be done with a unit's place in the boot.
    pub enum FileVerb {
        /// Start it at boot, as its `[Install]` section says.
        Enable = "enable",
        /// Do not start it at boot.
        Disable = "disable",
        /// Let nobody start it, neither at boot nor by hand.
        Mask = "mask",
        /// Take a mask away.
        Unmask = "unmask",
    }
}

/// What a unit-file action tells when it ends.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct UnitFileReport {
    /// Whether anything was done. Where all was as wanted, nothing is touched.
    pub changed: bool,
    /// How it stood before: `enabled`, `disabled`, `static`, `masked`, …
    #[cfg_attr(feature = "schema", schema(value_type = String))]
    pub before: Word,
    /// How it stands now.
    #[cfg_attr(feature = "schema", schema(value_type = String))]
    pub after: Word,
    /// The links that were made or removed.
    #[serde(default)]
    #[cfg_attr(feature = "schema", schema(value_type = Vec<String>))]
    pub links: List<Line, MAX_LINKS>,
}

impl Contract for UnitFile {
    const KIND: &'static str = "unit-file";
    const SUMMARY: &'static str = "Enable, disable, mask or unmask a systemd unit.";
    const IDEMPOTENT: bool = true;
    const RESUMABLE: bool = true;
    const REHEARSES: bool = true;
    const OBJECTS: &'static [Class] = &[Class::Units];
    const DEFAULT_TIMEOUT: Duration = Duration::from_secs(120);
    const PRIVILEGE: Privilege = Privilege::Operate;

    type Asked = Self;
    type Report = UnitFileReport;

    fn subject(&self) -> Word {
        Text::of(format_args!("{} {}", self.verb, self.unit))
    }

    fn needs(&self) -> Needs {
        Needs {
            actor: Actor::Root,
            resources: self.unit.resource().into_iter().collect(),
            contents: Vec::new(),
        }
    }

    fn touches(&self) -> Vec<Object> {
        vec![Object::named(Class::Units, &self.unit)]
    }

    fn validate(&self) -> Result<(), String> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use crate::action::{Action, ActionRequest};

    #[test]
    fn parameters_read_as_they_are_written() {
        let request = |params: &str| ActionRequest { kind: "unit-file".into(), params: params.into() };
        let parsed = Action::parse(&request(r#"{"unit":"nginx.service","verb":"mask"}"#)).unwrap();
        assert_eq!(parsed.subject().as_str(), "mask nginx.service");
        // What starts a unit and what enables it wait for each other.
        assert_eq!(parsed.needs().resources[0].as_str(), "unit/nginx.service");
        for (params, told) in [
            (r#"{"unit":"nginx.sevice","verb":"enable"}"#, "did you mean `nginx.service`?"),
            (r#"{"unit":"nginx.service","verb":"start"}"#, "unknown variant `start`"),
            (r#"{"unit":"nginx.service","verb":"mask","now":true}"#, "unknown field `now`"),
        ] {
            let error = Action::parse(&request(params)).unwrap_err().to_string();
            assert!(error.contains("`unit-file`") && error.contains(told), "{error}");
        }
    }
}
