//! Which units systemd has on a host, and how they are.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Contract, Key, Shows};
use crate::action::Privilege;
use crate::action::unit::{MAX_UNIT_NAME, TYPES, UnitState};
use crate::choice::choices;
use crate::object::{Class, Object};
use crate::text::{Text, Word};
use crate::time::Timestamp;
use crate::wildcard;

/// Which units are looked at: those that systemd has loaded, for they run, failed, or are wanted by others. One that has
/// ended and that nobody needs, or that is a file only, is not listed.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Units {
    /// Of these types only. When absent, of the type that the pattern ends with, and services if it ends with none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "schema", schema(inline))]
    pub types: Vec<UnitType>,
    /// In one of these states only; in any when absent.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "schema", schema(inline))]
    pub states: Vec<ActiveState>,
    /// With such a name only: `*` stands for any characters, `?` for one. The type may be left out: `nginx` is `nginx.service`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schema(value_type = Option<String>, example = "nginx*", max_length = 255))]
    pub pattern: Option<Pattern>,
}

choices! {
    /// The types of unit (systemd.unit(5)).
    pub enum UnitType {
        /// A process, or several.
        Service = "service",
        /// What starts a service when somebody connects.
        Socket = "socket",
        /// A device.
        Device = "device",
        /// A mounted file system.
        Mount = "mount",
        /// One that is mounted when it is used.
        Automount = "automount",
        /// Swap space.
        Swap = "swap",
        /// A group of units.
        Target = "target",
        /// What starts a service when a file changes.
        Path = "path",
        /// What starts a service at its time.
        Timer = "timer",
        /// A group of processes that share limits.
        Slice = "slice",
        /// Processes that systemd did not start.
        Scope = "scope",
    }
}

choices! {
    /// The states of a unit (org.freedesktop.systemd1(5)).
    pub enum ActiveState {
        /// It is started, or has done what it is for.
        Active = "active",
        /// It is active, and reads its configuration again.
        Reloading = "reloading",
        /// It is stopped.
        Inactive = "inactive",
        /// It is stopped, and not as it should have.
        Failed = "failed",
        /// It is about to start.
        Activating = "activating",
        /// It is about to stop.
        Deactivating = "deactivating",
        /// Somebody works on it.
        Maintenance = "maintenance",
        /// It is active, and takes new files into its view.
        Refreshing = "refreshing",
    }
}

/// A pattern for names of units.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Pattern(String);

/// Why a text is not a pattern.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a pattern for names of units: {rule}")]
pub struct InvalidPattern {
    text: Word,
    rule: &'static str,
}

/// A unit as it is now. It is gone when systemd no longer has it loaded: it has ended or was stopped, and nothing else needs it;
/// where that goes fast, without a word of its last state. And it is gone when it is in none of the states that were asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct UnitItem {
    /// Its whole name.
    #[cfg_attr(feature = "schema", schema(value_type = String, example = "nginx.service"))]
    pub name: Word,
    /// What it is, in the words of its file.
    #[cfg_attr(feature = "schema", schema(value_type = String))]
    pub description: Text<512>,
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
    /// The memory that its processes have now, in bytes; absent where systemd does not count it. What its processes use changes
    /// all the time: it is told with what else changes, and not by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<u64>,
    /// The processor time that they took since the unit was started, in milliseconds; absent where systemd does not count it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_ms: Option<u64>,
    /// How many processes and threads there are; absent where systemd does not count them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tasks: Option<u64>,
    /// How often systemd has started it again by itself; absent for types that it does not start again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restarts: Option<u32>,
}

/// What the processes of a unit use: what of it systemd counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    /// [`UnitItem::memory`].
    pub memory: Option<u64>,
    /// [`UnitItem::cpu_ms`].
    pub cpu_ms: Option<u64>,
    /// [`UnitItem::tasks`].
    pub tasks: Option<u64>,
}

impl Contract for Units {
    const KIND: &'static str = "units";
    const SUMMARY: &'static str = "List the units of systemd with their states.";
    const PRIVILEGE: Privilege = Privilege::Observe;
    const FOLLOWS: bool = true;
    const SHOWS: Shows = Shows::Table;
    const OBJECTS: &'static [Class] = &[Class::Units];
    const DEFAULT_TIMEOUT: Duration = Duration::from_secs(30);
    // A host with a thousand containers has some thousand mounts and scopes.
    const MAX_ITEMS: usize = 16_384;
    const MAX_BYTES: usize = 16 << 20;

    type Item = UnitItem;

    fn key(item: &UnitItem) -> Key {
        item.name.clone()
    }

    fn touches(&self) -> Vec<Object> {
        Vec::new()
    }

    fn shown(item: &UnitItem) -> Option<Object> {
        Some(Object::named(Class::Units, &item.name))
    }

    fn validate(&self) -> Result<(), String> {
        let Self { types, states, pattern: _ } = self;
        if types.len() > 11 || states.len() > 8 {
            return Err("a type or a state is named twice".to_owned());
        }
        Ok(())
    }
}

impl Units {
    /// Whether a unit of this name is meant, whatever its state is.
    #[must_use]
    pub fn means_name(&self, name: &str) -> bool {
        let (stem, own) = name.rsplit_once('.').unwrap_or((name, ""));
        let asked = self.pattern.as_ref().and_then(Pattern::type_of);
        let is_of_type = if self.types.is_empty() {
            own == asked.unwrap_or(UnitType::Service.as_str())
        } else {
            self.types.iter().any(|wanted| wanted.as_str() == own)
        };
        // systemctl(1): a name need not have its type.
        let is_named = |pattern: &Pattern| pattern.matches(name) || asked.is_none() && pattern.matches(stem);
        is_of_type && self.pattern.as_ref().is_none_or(is_named)
    }

    /// Whether a unit is meant that is loaded and active so. What is only mentioned by others, and is not there, is not.
    #[must_use]
    pub fn means(&self, name: &str, load: &str, active: &str) -> bool {
        let is_there = load != "not-found" || active != ActiveState::Inactive.as_str();
        let is_so = self.states.is_empty() || self.states.iter().any(|state| state.as_str() == active);
        is_there && is_so && self.means_name(name)
    }
}

impl UnitItem {
    /// A unit of this name.
    #[must_use]
    pub fn new(name: &str, description: &str, state: UnitState, usage: Usage, restarts: Option<u32>) -> Self {
        let UnitState { load, active, sub, file, main_pid, result, since } = state;
        let (name, description) = (Text::of(name), Text::of(description));
        let Usage { memory, cpu_ms, tasks } = usage;
        Self {
            name,
            description,
            load,
            active,
            sub,
            file,
            main_pid,
            result,
            since,
            memory,
            cpu_ms,
            tasks,
            restarts,
        }
    }

    /// Whether the other one is in the same state, whatever it uses.
    #[must_use]
    pub fn is_as(&self, other: &Self) -> bool {
        let Self { memory, cpu_ms, tasks, .. } = *self;
        *self == Self { memory, cpu_ms, tasks, ..other.clone() }
    }
}

impl Pattern {
    /// The type that it ends with, if it ends with one.
    fn type_of(&self) -> Option<&str> {
        self.0.rsplit_once('.').map(|(_, suffix)| suffix).filter(|suffix| TYPES.contains(suffix))
    }

    /// Whether a name is such a one. Takes the product of their lengths at most.
    #[must_use]
    pub fn matches(&self, name: &str) -> bool {
        wildcard::matches(&self.0, name)
    }
}

impl FromStr for Pattern {
    type Err = InvalidPattern;

    fn from_str(text: &str) -> Result<Self, InvalidPattern> {
        let invalid = |rule| InvalidPattern { text: Text::of(text), rule };
        let is_valid = |c: char| {
            c.is_ascii_alphanumeric() || matches!(c, ':' | '-' | '_' | '.' | '\\' | '@' | '*' | '?')
        };
        match text.len() {
            0 => Err(invalid("it is empty; leave it out to mean every name")),
            length if length > MAX_UNIT_NAME => Err(invalid("it has more than 255 characters")),
            _ if !text.chars().all(is_valid) => {
                Err(invalid("only letters, digits, `:-_.\\@` and the signs `*` and `?` are allowed"))
            }
            _ => Ok(Self(text.to_owned())),
        }
    }
}

impl TryFrom<String> for Pattern {
    type Error = InvalidPattern;

    fn try_from(text: String) -> Result<Self, InvalidPattern> {
        text.parse()
    }
}

impl From<Pattern> for String {
    fn from(pattern: Pattern) -> Self {
        pattern.0
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::action::ActionRequest;
    use crate::query::{MAX_ITEM, Query};

    fn units(params: &str) -> Units {
        match Query::parse(&ActionRequest { kind: "units".into(), params: params.into() }).unwrap() {
            Query::Units(units) => units,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn types_are_those_of_the_kind_unit() {
        let all = format!("{{\"types\":{}}}", serde_json::to_string(&TYPES).unwrap());
        let names: Vec<_> = units(&all).types.into_iter().map(UnitType::as_str).collect();
        assert_eq!(names, TYPES);
    }

    #[test]
    fn without_a_word_services_are_meant_and_a_pattern_may_name_the_type() {
        let cases = [
            ("{}", "nginx.service", true),
            ("{}", "nginx.socket", false),
            (r#"{"pattern":"nginx*"}"#, "nginx.service", true),
            (r#"{"pattern":"nginx*"}"#, "nginx.socket", false),
            (r#"{"pattern":"nginx"}"#, "nginx.service", true),
            (r#"{"pattern":"nginx"}"#, "nginx.socket", false),
            (r#"{"pattern":"nginx"}"#, "nginx-debug.service", false),
            (r#"{"pattern":"php8.2-fpm"}"#, "php8.2-fpm.service", true),
            (r#"{"pattern":"*d"}"#, "sshd.service", true),
            (r#"{"pattern":"nginx","types":["socket"]}"#, "nginx.socket", true),
            (r#"{"pattern":"nginx.service"}"#, "nginx.service.service", false),
            (r#"{"pattern":"*.timer"}"#, "backup.timer", true),
            (r#"{"pattern":"*.timer"}"#, "backup.service", false),
            (r#"{"pattern":"nginx.s*"}"#, "nginx.service", true),
            (r#"{"types":["socket","timer"]}"#, "a.timer", true),
            (r#"{"types":["socket","timer"]}"#, "a.service", false),
            (r#"{"types":["socket"],"pattern":"a*"}"#, "b.socket", false),
        ];
        for (params, name, meant) in cases {
            assert_eq!(units(params).means(name, "loaded", "active"), meant, "{params} {name}");
        }
    }

    #[test]
    fn states_narrow_and_what_is_not_there_is_not_listed() {
        let failed = units(r#"{"states":["failed"]}"#);
        assert!(failed.means("a.service", "loaded", "failed"));
        assert!(!failed.means("a.service", "loaded", "active"));
        let any = units("{}");
        assert!(any.means("a.service", "masked", "inactive"));
        assert!(!any.means("a.service", "not-found", "inactive"), "somebody only speaks of it");
        assert!(any.means("a.service", "not-found", "active"), "its file was removed while it runs");
    }

    #[test]
    fn what_does_not_fit_is_told() {
        for (params, told) in [
            (r#"{"types":["services"]}"#, "unknown variant `services`"),
            (r#"{"states":["dead"]}"#, "unknown variant `dead`"),
            (r#"{"pattern":""}"#, "it is empty"),
            (r#"{"pattern":"a b"}"#, "only letters"),
            (r#"{"pattern":"[ab]*"}"#, "only letters"),
            (r#"{"unit":"a"}"#, "unknown field `unit`"),
        ] {
            let request = ActionRequest { kind: "units".into(), params: params.into() };
            let error = Query::parse(&request).unwrap_err().to_string();
            assert!(error.contains("`units`") && error.contains(told), "{error}");
        }
        let long = format!(r#"{{"pattern":"{}"}}"#, "x".repeat(256));
        assert!(Query::parse(&ActionRequest { kind: "units".into(), params: long }).is_err());
    }

    #[test]
    fn the_largest_item_fits() {
        let word = || Word::of("\"".repeat(255));
        let state = UnitState {
            load: word(),
            active: word(),
            sub: word(),
            file: Some(word()),
            main_pid: Some(u32::MAX),
            result: Some(word()),
            since: Some(Timestamp::from_millis(i64::MIN)),
        };
        let most = Some(u64::MAX);
        let usage = Usage { memory: most, cpu_ms: most, tasks: most };
        let item = UnitItem::new(&word(), &"\\".repeat(1000), state, usage, Some(u32::MAX));
        assert!(serde_json::to_string(&item).unwrap().len() <= MAX_ITEM);
    }

    #[test]
    fn what_a_unit_uses_is_no_state() {
        let state = |active: &str| UnitState {
            load: Word::of("loaded"),
            active: Word::of(active),
            sub: Word::of("running"),
            file: None,
            main_pid: None,
            result: None,
            since: None,
        };
        let usage = |memory| Usage { memory: Some(memory), cpu_ms: Some(memory), tasks: None };
        let item = |active, memory| UnitItem::new("a.service", "", state(active), usage(memory), Some(2));
        let one = item("active", 1);
        assert!(one.is_as(&item("active", 2)) && !one.is_as(&item("failed", 1)));
        assert!(!one.is_as(&UnitItem { restarts: Some(3), ..one.clone() }), "it was started again");
        let json = serde_json::to_value(&one).unwrap();
        assert_eq!((&json["memory"], &json["cpu_ms"], json.get("tasks")), (&1.into(), &1.into(), None));
        assert_eq!(serde_json::from_value::<UnitItem>(json).unwrap(), one);
    }
}
