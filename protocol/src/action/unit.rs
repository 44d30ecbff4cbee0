//! Start, stop, restart or reload a unit of systemd, or forget that it failed.
//!
//! A unit that is already as it was asked for is left alone, and the report says so.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Actor, Contract, Needs, Privilege};
use crate::choice::choices;
use crate::name::ResourceName;
use crate::object::{Class, Object};
use crate::suggest::nearest;
use crate::text::{List, Text, Word};
use crate::time::Timestamp;

/// The longest name of a unit, in bytes (systemd.unit(5)).
pub const MAX_UNIT_NAME: usize = 255;

/// The types of unit (systemd.unit(5)).
pub const TYPES: [&str; 11] = [
    "service",
    "socket",
    "device",
    "mount",
    "automount",
    "swap",
    "target",
    "path",
    "timer",
    "slice",
    "scope",
];

/// Parameters of a unit action.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Unit {
    /// The unit's name, such as `backup.timer`. Without a type a service is meant: `nginx` is `nginx.service`.
    #[cfg_attr(feature = "schema", schema(value_type = String, example = "nginx.service", max_length = 255))]
    pub unit: UnitName,
    /// What to do with it now. Whether it is started at boot, or may be started at all (enable, disable, mask, unmask), is what
    /// the kind `unit-file` changes.
    #[cfg_attr(feature = "schema", schema(inline))]
    pub verb: Verb,
    /// Whether systemd reads all its files again before (`systemctl daemon-reload`). Without it, a file that was changed is
    /// used as systemd read it last; the report says so.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    #[cfg_attr(feature = "schema", schema(default = false))]
    pub daemon_reload: bool,
    /// For how many seconds a service that was started is watched: if it ends or is started again within them, that is a failure.
    /// 3 when absent, 300 at the most; 0 to watch none.
    #[serde(default = "usual_settle", skip_serializing_if = "is_usual_settle")]
    #[cfg_attr(feature = "schema", schema(default = 3, maximum = 300))]
    pub settle_s: u16,
}

/// For how many seconds a service is watched where nothing is said: most that cannot work say so within this.
pub const SETTLE_S: u16 = 3;
/// The longest that a service is watched, in seconds.
pub const MAX_SETTLE_S: u16 = 300;
/// The most lines of a log in a report.
pub const MAX_LOG: usize = 50;

pub(super) const fn usual_settle() -> u16 {
    SETTLE_S
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes what it skips by reference")]
pub(super) const fn is_usual_settle(settle: &u16) -> bool {
    *settle == SETTLE_S
}

pub(super) fn check_settle(settle: u16) -> Result<(), String> {
    match settle {
        0..=MAX_SETTLE_S => Ok(()),
        _ => Err(format!("settle_s is {settle}, and {MAX_SETTLE_S} are allowed")),
    }
}

choices! {
    /// What can be done with a unit.
    pub enum Verb {
        /// Start it, unless it is active.
        Start = "start",
        /// Stop it, unless it is inactive.
        Stop = "stop",
        /// Stop it and start it again; start it if it is not active.
        Restart = "restart",
        /// Have it read its configuration again. It must be active, and able to.
        Reload = "reload",
        /// Reload it if it is able to, restart it if not; start it if it is not active.
        ReloadOrRestart = "reload-or-restart",
        /// Forget that it failed, and how often it was started; nothing is started or stopped.
        ResetFailed = "reset-failed",
    }
}

/// The whole name of a unit that can be acted upon: valid by systemd.unit(5), and no template. Read from a text without a type
/// it is the service of that name, as systemctl(1) takes it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct UnitName(String);

/// Why a text is not the name of a unit.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not the name of a unit: {rule}")]
pub struct InvalidUnitName {
    text: Word,
    rule: String,
}

/// What a unit action tells when it ends.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct UnitReport {
    /// Whether anything was done to the unit, or goes on being done. Where all was as wanted, nothing is touched.
    pub changed: bool,
    /// The unit before.
    pub before: UnitState,
    /// The unit after; where a job goes on, as it was when this action left it.
    pub after: UnitState,
    /// Whether the unit's file was changed since systemd read it, so that all this was done with the old one. Ask again with
    /// `daemon_reload`.
    #[serde(default)]
    pub needs_daemon_reload: bool,
    /// The job that systemd goes on with, where this action was stopped before the end of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job: Option<UnitJob>,
    /// What the unit logged last, where it failed: the newest lines, in their order.
    #[serde(default, skip_serializing_if = "is_empty")]
    #[cfg_attr(feature = "schema", schema(value_type = Vec<String>))]
    pub log: List<Text<512>, MAX_LOG>,
}

fn is_empty<T>(list: &[T]) -> bool {
    list.is_empty()
}

/// A job of systemd, as `systemctl list-jobs` shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct UnitJob {
    /// Its number.
    pub id: u32,
    /// What it does: `start`, `stop`, `restart`, …
    #[cfg_attr(feature = "schema", schema(value_type = String))]
    pub does: Word,
    /// `waiting` or `running`.
    #[cfg_attr(feature = "schema", schema(value_type = String))]
    pub state: Word,
}

/// A unit, as systemd shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct UnitState {
    /// Whether its file could be read: `loaded`, `not-found`, `masked`, …
    #[cfg_attr(feature = "schema", schema(value_type = String))]
    pub load: Word,
    /// `active`, `inactive`, `failed`, …
    #[cfg_attr(feature = "schema", schema(value_type = String))]
    pub active: Word,
    /// The same in the terms of its type: `running`, `exited`, `dead`, …
    #[cfg_attr(feature = "schema", schema(value_type = String))]
    pub sub: Word,
    /// Whether it is started at boot: `enabled`, `disabled`, `static`, …; absent where systemd does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schema(value_type = Option<String>))]
    pub file: Option<Word>,
    /// Its main process, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub main_pid: Option<u32>,
    /// How it last went: `success`, `exit-code`, `timeout`, …; absent for types that have no result.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schema(value_type = Option<String>))]
    pub result: Option<Word>,
    /// Since when it is in this state, by the host's clock.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schema(inline))]
    pub since: Option<Timestamp>,
}

impl Contract for Unit {
    const KIND: &'static str = "unit";
    const SUMMARY: &'static str = "Start, stop, restart or reload a systemd unit, or reset its failed state.";
    // A restart is one each time.
    const IDEMPOTENT: bool = false;
    const RESUMABLE: bool = true;
    const REHEARSES: bool = true;
    const OBJECTS: &'static [Class] = &[Class::Units];
    // A unit may take 90 seconds to stop and 90 to start before systemd gives it up (systemd-system.conf(5)).
    const DEFAULT_TIMEOUT: Duration = Duration::from_secs(300);
    const PRIVILEGE: Privilege = Privilege::Operate;

    type Asked = Self;
    type Report = UnitReport;

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
        check_settle(self.settle_s)
    }
}

impl Unit {
    /// This, and nothing more than is usual.
    #[must_use]
    pub const fn new(unit: UnitName, verb: Verb) -> Self {
        Self { unit, verb, daemon_reload: false, settle_s: SETTLE_S }
    }
}

impl UnitName {
    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// What a run that acts on this unit holds. Long names, and names that differ only in characters that no resource
    /// has, may share one: then their runs wait for each other.
    #[must_use]
    pub fn resource(&self) -> Option<ResourceName> {
        let plain = |c: char| if c.is_ascii_alphanumeric() || matches!(c, '-' | '.') { c } else { '_' };
        format!("unit/{}", self.0)
            .chars()
            .map(|c| if c == '/' { c } else { plain(c) })
            .take(64)
            .collect::<String>()
            .parse()
            .ok()
    }
}

impl FromStr for UnitName {
    type Err = InvalidUnitName;

    fn from_str(text: &str) -> Result<Self, InvalidUnitName> {
        let named = whole(text);
        match fault(&named) {
            None => Ok(Self(named.into_owned())),
            Some(rule) => Err(InvalidUnitName { text: Text::of(text), rule }),
        }
    }
}

/// A name with its type: what has none is a service. What may be a type that was mistyped is left as it is.
fn whole(text: &str) -> Cow<'_, str> {
    let suffix = text.rsplit_once('.').map(|(_, suffix)| suffix);
    let is_type = suffix.is_some_and(|suffix| nearest(suffix, TYPES).is_some());
    if text.is_empty() || is_type { Cow::Borrowed(text) } else { Cow::Owned(format!("{text}.service")) }
}

/// The rule of systemd.unit(5) that a name breaks.
fn fault(text: &str) -> Option<String> {
    if text.len() > MAX_UNIT_NAME {
        return Some(format!("it has {} characters, and {MAX_UNIT_NAME} are allowed", text.len()));
    }
    let is_valid = |c: char| c.is_ascii_alphanumeric() || matches!(c, ':' | '-' | '_' | '.' | '\\' | '@');
    if !text.chars().all(is_valid) {
        let pattern = if text.contains(['*', '?', '[']) { "; a pattern is not taken here" } else { "" };
        return Some(format!("only letters, digits and `:-_.\\@` are allowed{pattern}"));
    }
    let (name, suffix) = text.rsplit_once('.').unwrap_or((text, ""));
    if name.is_empty() {
        return Some("write it in full, such as `nginx.service`".to_owned());
    }
    if !TYPES.contains(&suffix) {
        // `sevice` is as near to another type.
        let meant = nearest(suffix, ["service"]).or_else(|| nearest(suffix, TYPES)).unwrap_or("service");
        let types = TYPES.join(", ");
        return Some(format!(
            "`{suffix}` is no type of unit; did you mean `{name}.{meant}`? Types are {types}"
        ));
    }
    match name.split_once('@') {
        Some(("", _)) => Some("there is nothing before the `@`".to_owned()),
        Some((template, "")) => {
            Some(format!("it is a template; name an instance of it, such as `{template}@main.{suffix}`"))
        }
        _ => None,
    }
}

impl TryFrom<String> for UnitName {
    type Error = InvalidUnitName;

    fn try_from(text: String) -> Result<Self, InvalidUnitName> {
        text.parse()
    }
}

impl From<UnitName> for String {
    fn from(name: UnitName) -> Self {
        name.0
    }
}

impl fmt::Display for UnitName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::action::{Action, ActionRequest};

    #[test]
    fn names_are_those_of_systemd() {
        for name in [
            "nginx.service",
            "-.mount",
            "getty@tty1.service",
            "a@b@c.service",
            "dev-disk-by\\x2duuid.swap",
            "dbus-:1.2-org.example.Foo@0.service",
            "x.timer",
        ] {
            let unit: UnitName = name.parse().unwrap();
            assert_eq!(unit.as_str(), name);
            assert!(unit.resource().is_some(), "{name}");
        }
        // systemctl(1): what has no type is a service.
        for name in ["nginx", "php8.2-fpm", "getty@tty1", "a.conf"] {
            assert_eq!(name.parse::<UnitName>().unwrap().as_str(), format!("{name}.service"));
        }
        let long = format!("{}.service", "x".repeat(248));
        for (name, told) in [
            (".service", "in full"),
            ("", "in full"),
            ("nginx.sevice", "did you mean `nginx.service`?"),
            ("backup.timr", "did you mean `backup.timer`?"),
            ("getty@", "`getty@main.service`"),
            ("getty@.service", "`getty@main.service`"),
            ("@tty1.service", "before the `@`"),
            ("a b.service", "only letters"),
            ("a/b.service", "only letters"),
            ("../x.service", "only letters"),
            ("ä.service", "only letters"),
            ("a\n.service", "only letters"),
            (&long, "256 characters"),
        ] {
            let error = name.parse::<UnitName>().unwrap_err().to_string();
            assert!(error.contains(told), "{name}: {error}");
            assert!(crate::printable::is_line(&error), "{error:?}");
        }
    }

    #[test]
    fn parameters_read_as_they_are_written() {
        let request = |params: &str| ActionRequest { kind: "unit".into(), params: params.into() };
        let parsed =
            Action::parse(&request(r#"{"unit":"nginx.service","verb":"reload-or-restart"}"#)).unwrap();
        assert_eq!(parsed.subject().as_str(), "reload-or-restart nginx.service");
        assert_eq!(parsed.needs().resources[0].as_str(), "unit/nginx.service");
        let parsed = Action::parse(&request(r#"{"unit":"a.service","verb":"start","daemon_reload":true}"#));
        let Action::Unit(unit) = parsed.unwrap() else { panic!("another kind") };
        assert!(unit.daemon_reload);
        let short = Action::parse(&request(r#"{"unit":"nginx","verb":"stop"}"#)).unwrap();
        assert_eq!(short.subject().as_str(), "stop nginx.service");
        assert_eq!(short.request().unwrap().params, r#"{"unit":"nginx.service","verb":"stop"}"#);
        for (params, told) in [
            (r#"{"unit":"nginx.sevice","verb":"start"}"#, "did you mean `nginx.service`?"),
            (r#"{"unit":"nginx.service","verb":"kill"}"#, "unknown variant `kill`"),
            (r#"{"unit":"nginx.service"}"#, "missing field `verb`"),
            (r#"{"unit":"nginx.service","verb":"start","settle_s":301}"#, "300 are allowed"),
            (r#"{"unit":"nginx.service","verb":"stop","now":true}"#, "unknown field `now`"),
        ] {
            let error = Action::parse(&request(params)).unwrap_err().to_string();
            assert!(error.contains("`unit`") && error.contains(told), "{error}");
        }
    }

    proptest! {
        #[test]
        fn every_name_makes_a_resource(name in "[-a-zA-Z0-9:_.@\\\\]{1,240}") {
            if let Ok(unit) = format!("{name}.service").parse::<UnitName>() {
                prop_assert!(unit.resource().is_some());
            }
        }
    }
}
