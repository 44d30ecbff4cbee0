//! Reboot a host, and see that it comes back with what ran on it before.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{ALONE, Actor, Contract, Needs, Privilege};
use crate::object::{Class, Object};
use crate::text::{List, Text, Word};

/// The most units that a report names.
pub const MAX_UNITS: usize = 128;

/// Parameters of a reboot.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Reboot {
    /// Only where the host wants it: where a package has left `/run/reboot-required`. Elsewhere nothing is done.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    #[cfg_attr(feature = "schema", schema(default = false))]
    pub only_if_required: bool,
    /// Whether it is done although somebody has asked the host not to go down now (systemd-inhibit(1)).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    #[cfg_attr(feature = "schema", schema(default = false))]
    pub force: bool,
    /// Whether it is done while other runs are under way on the host. They are cut off: scripts are lost then.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    #[cfg_attr(feature = "schema", schema(default = false))]
    pub while_busy: bool,
}

/// What a reboot tells when it ends.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct RebootReport {
    /// Whether the host was rebooted.
    pub changed: bool,
    /// The boot before.
    #[cfg_attr(feature = "schema", schema(value_type = String))]
    pub boot_before: Word,
    /// The boot after; absent where there was none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schema(value_type = Option<String>))]
    pub boot_after: Option<Word>,
    /// How long it took, from the request to the end of the new boot, in milliseconds by the host's clock.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub down_for_ms: Option<u64>,
    /// How systemd is after it: `running`, or `degraded` where some unit failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schema(value_type = Option<String>))]
    pub system: Option<Word>,
    /// The services that were active before, and are not any more. Those that start when somebody needs them do not count.
    #[serde(default)]
    #[cfg_attr(feature = "schema", schema(value_type = Vec<String>))]
    pub missing: List<Word, MAX_UNITS>,
    /// The units that failed, and had not before.
    #[serde(default)]
    #[cfg_attr(feature = "schema", schema(value_type = Vec<String>))]
    pub failed: List<Word, MAX_UNITS>,
}

impl Contract for Reboot {
    const KIND: &'static str = "reboot";
    const SUMMARY: &'static str = "Reboot hosts, and see that they come back with all that ran on them.";
    // Each is one.
    const IDEMPOTENT: bool = false;
    const RESUMABLE: bool = true;
    const REHEARSES: bool = true;
    const OBJECTS: &'static [Class] = &[];
    // Firmware of large machines takes minutes.
    const DEFAULT_TIMEOUT: Duration = Duration::from_secs(1200);
    const PRIVILEGE: Privilege = Privilege::Operate;

    type Asked = Self;
    type Report = RebootReport;

    fn subject(&self) -> Word {
        Text::of(if self.only_if_required { "reboot, if required" } else { "reboot" })
    }

    fn needs(&self) -> Needs {
        let alone = (!self.while_busy).then(|| ALONE.parse().ok()).flatten();
        Needs { actor: Actor::Root, resources: alone.into_iter().collect(), contents: Vec::new() }
    }

    fn touches(&self) -> Vec<Object> {
        Vec::new()
    }

    fn validate(&self) -> Result<(), String> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use crate::action::{ALONE, Action, ActionRequest};

    #[test]
    fn parameters_read_as_they_are_written() {
        let parse =
            |params: &str| Action::parse(&ActionRequest { kind: "reboot".into(), params: params.into() });
        let plain = parse("{}").unwrap();
        assert_eq!((plain.subject().as_str(), plain.needs().resources[0].as_str()), ("reboot", ALONE));
        let busy = parse(r#"{"only_if_required":true,"while_busy":true,"force":true}"#).unwrap();
        assert_eq!((busy.subject().as_str(), busy.needs().resources.len()), ("reboot, if required", 0));
        assert_eq!(plain.request().unwrap().params, "{}");
        assert!(parse(r#"{"now":true}"#).unwrap_err().to_string().contains("unknown field `now`"));
    }
}
