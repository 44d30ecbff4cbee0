//! Write, remove or bring back a unit's file, or a drop-in of it, in `/etc/systemd/system`.
//!
//! It is checked before, by the host's own `systemd-analyze verify`; and what does not come up with it is as it was before
//! afterwards.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::unit::{MAX_UNIT_NAME, TYPES, UnitName, UnitReport};
use super::{Actor, Contract, Needs, Privilege, unit};
use crate::choice::choices;
use crate::name::ResourceName;
use crate::object::{Class, Object};
use crate::text::{Line, Text, Word};

/// The most text of a unit's file, in bytes.
pub const MAX_TEXT: usize = 64 << 10;
/// The most sections, and the most keys of one.
const MAX_PARTS: usize = 256;

/// Parameters of a unit-content action.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct UnitContent {
    /// The unit's name, such as `app.service`; a template, such as `app@.service`, too. Without a type a service is meant.
    #[cfg_attr(feature = "schema", schema(value_type = String, example = "app.service", max_length = 255))]
    pub unit: UnitFileName,
    /// The name of a drop-in of the unit, such as `limits`, in the place of the unit's own file: it is
    /// `/etc/systemd/system/UNIT.d/NAME.conf`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schema(value_type = Option<String>, example = "limits", max_length = 100))]
    pub drop_in: Option<DropInName>,
    /// What to do with the file.
    #[cfg_attr(feature = "schema", schema(inline))]
    pub verb: ContentVerb,
    /// Its text, word by word, for `write`: 64 KiB at the most. Either this or `sections`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// Its sections, for `write`, each with its settings: `{"Service": {"ExecStart": "/usr/bin/app", "Environment": ["A=1", "B=2"]}}`. A list
    /// is a setting that stands there several times.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[cfg_attr(feature = "schema", schema(value_type = Object))]
    pub sections: BTreeMap<String, BTreeMap<String, Values>>,
    /// What is done with the unit afterwards, behind the reading of all files. If that fails, the file is as it was before.
    #[serde(default = "Then::usual", skip_serializing_if = "Then::is_usual")]
    #[cfg_attr(feature = "schema", schema(inline))]
    pub then: Then,
    /// For how many seconds a service that was started is watched, as with the kind `unit`.
    #[serde(default = "unit::usual_settle", skip_serializing_if = "unit::is_usual_settle")]
    #[cfg_attr(feature = "schema", schema(default = 3, maximum = 300))]
    pub settle_s: u16,
}

choices! {
    /// What can be done with a unit's file.
    pub enum ContentVerb {
        /// Write it; the one that is there is kept beside it.
        Write = "write",
        /// Remove it; it is kept beside its place. A unit that runs, and has no other file, is refused.
        Remove = "remove",
        /// Bring the last kept one back, and keep the one that is there.
        Revert = "revert",
    }
}

choices! {
    /// What is done with a unit when its file was changed.
    pub enum Then {
        /// Nothing more: systemd reads the file, and what runs goes on as it is.
        Nothing = "nothing",
        /// Start it, unless it is active.
        Start = "start",
        /// Restart it; start it if it is not active.
        Restart = "restart",
        /// Restart it if it is active.
        TryRestart = "try-restart",
        /// Reload it if it is able to, restart it if not; start it if it is not active.
        ReloadOrRestart = "reload-or-restart",
    }
}

impl Then {
    /// What is meant when nothing is said.
    const fn usual() -> Self {
        Self::Nothing
    }

    /// Whether it is what is meant when nothing is said.
    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes what it skips by reference")]
    const fn is_usual(&self) -> bool {
        matches!(self, Self::Nothing)
    }
}

/// What a setting is set to: once, or several times.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Values {
    /// Once.
    One(String),
    /// So often, in this order. An empty one takes back what stands before it, also in other files (systemd.unit(5)).
    Many(Vec<String>),
}

/// The name of a unit's file: that of a unit, or of a template of units.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct UnitFileName(String);

/// The name of a drop-in, without `.conf`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct DropInName(String);

/// Why a text is not the name of a drop-in.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is not the name of a drop-in: letters, digits and `-_.@` are allowed, 100 of them, and no dot at the beginning"
)]
pub struct InvalidDropInName(Word);

/// What a unit-content action tells when it ends.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct UnitContentReport {
    /// Whether the file is another one now. Where all was as wanted, nothing is touched.
    pub changed: bool,
    /// The file.
    #[cfg_attr(feature = "schema", schema(value_type = String))]
    pub path: Line,
    /// Where the file as it was before is kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schema(value_type = Option<String>))]
    pub kept: Option<Line>,
    /// What was done with the unit afterwards, as the kind `unit` reports it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schema(inline))]
    pub unit: Option<UnitReport>,
}

impl Contract for UnitContent {
    const KIND: &'static str = "unit-content";
    const SUMMARY: &'static str = "Write, remove or revert the file of a systemd unit, or a drop-in of it.";
    const IDEMPOTENT: bool = true;
    const RESUMABLE: bool = true;
    const REHEARSES: bool = true;
    const OBJECTS: &'static [Class] = &[Class::Units];
    const DEFAULT_TIMEOUT: Duration = Duration::from_secs(300);
    const PRIVILEGE: Privilege = Privilege::Administer;

    type Asked = Self;
    type Report = UnitContentReport;

    fn subject(&self) -> Word {
        let Self { unit, drop_in, verb, .. } = self;
        match drop_in {
            Some(drop_in) => Text::of(format_args!("{verb} {unit} ({drop_in})")),
            None => Text::of(format_args!("{verb} {unit}")),
        }
    }

    fn needs(&self) -> Needs {
        Needs {
            actor: Actor::Root,
            resources: self.unit.resource().into_iter().collect(),
            contents: Vec::new(),
        }
    }

    fn touches(&self) -> Vec<Object> {
        vec![match self.unit.beginning().filter(|_| self.drop_in.is_some()) {
            Some((begin, kind)) => Object::between(Class::Units, begin, format_args!(".{kind}")),
            None => Object::named(Class::Units, &self.unit),
        }]
    }

    fn validate(&self) -> Result<(), String> {
        let Self { unit, verb, text, sections, then, settle_s, .. } = self;
        unit::check_settle(*settle_s)?;
        if unit.is_template() && *then != Then::Nothing {
            return Err(format!("{unit} is a template: nothing can be done with it but with its instances"));
        }
        match (verb, text, sections.is_empty()) {
            (ContentVerb::Write, None, true) => Err("`write` needs `text` or `sections`".to_owned()),
            (ContentVerb::Write, Some(_), false) => {
                Err("`text` and `sections` are two ways to say it; give one".to_owned())
            }
            (ContentVerb::Write, Some(text), true) => check_text(text),
            (ContentVerb::Write, None, false) => check_sections(sections),
            (_, None, true)
                if *verb == ContentVerb::Remove && *then != Then::Nothing && self.drop_in.is_none() =>
            {
                Err(format!("a unit without its file cannot {then}; leave `then` out"))
            }
            (_, None, true) => Ok(()),
            _ => Err(format!("`{verb}` takes no text")),
        }
    }
}

impl UnitContent {
    /// Whether systemd uses what stands in this place for other units than the one of its name.
    #[must_use]
    pub fn is_for_others(&self) -> bool {
        self.unit.is_template() || (self.drop_in.is_some() && self.unit.beginning().is_some())
    }

    /// Whether systemd uses what stands in this place for that unit.
    #[must_use]
    pub fn is_for(&self, unit: &str) -> bool {
        match &self.drop_in {
            Some(_) => self.unit.is_put_on(unit),
            None => self.unit.is_read_for(unit),
        }
    }

    /// The text that is to be written, for `write`.
    #[must_use]
    pub fn wanted(&self) -> Option<String> {
        match (self.verb, &self.text) {
            (ContentVerb::Write, Some(text)) if text.ends_with('\n') || text.is_empty() => Some(text.clone()),
            (ContentVerb::Write, Some(text)) => Some(format!("{text}\n")),
            (ContentVerb::Write, None) => Some(rendered(&self.sections)),
            _ => None,
        }
    }
}

/// The sections as systemd.syntax(7) has them: `[Unit]` first and `[Install]` last, as people write them.
fn rendered(sections: &BTreeMap<String, BTreeMap<String, Values>>) -> String {
    let rank = |name: &str| match name {
        "Unit" => 0,
        "Install" => 2,
        _ => 1,
    };
    let mut ordered: Vec<_> = sections.iter().collect();
    ordered.sort_by_key(|(name, _)| (rank(name), *name));
    let mut text = String::new();
    for (place, (name, settings)) in ordered.into_iter().enumerate() {
        let gap = if place > 0 { "\n" } else { "" };
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{gap}[{name}]");
        for (key, values) in settings {
            let values = match values {
                Values::One(value) => std::slice::from_ref(value),
                Values::Many(values) => values,
            };
            for value in values {
                let _ = writeln!(text, "{key}={value}");
            }
        }
    }
    text
}

fn check_text(text: &str) -> Result<(), String> {
    if text.len() > MAX_TEXT {
        return Err(format!("the text has {} bytes, and {MAX_TEXT} are allowed", text.len()));
    }
    match text.chars().find(|c| c.is_control() && !matches!(c, '\n' | '\t')) {
        Some(c) => Err(format!("the text holds the control character {}", c.escape_unicode())),
        None => Ok(()),
    }
}

/// Whether each setting stays in its line: no value can begin another one.
fn check_sections(sections: &BTreeMap<String, BTreeMap<String, Values>>) -> Result<(), String> {
    let is_name = |name: &str| {
        let is_plain = |c: char| c.is_ascii_alphanumeric() || c == '-';
        !name.is_empty() && name.len() <= 100 && name.chars().all(is_plain)
    };
    if sections.len() > MAX_PARTS {
        return Err(format!("there are {} sections, and {MAX_PARTS} are allowed", sections.len()));
    }
    for (section, settings) in sections {
        if !is_name(section) {
            return Err(format!(
                "`{}` is not the name of a section, such as `Service`",
                section.escape_debug()
            ));
        }
        if settings.len() > MAX_PARTS {
            return Err(format!("[{section}] has {} settings, and {MAX_PARTS} are allowed", settings.len()));
        }
        for (key, values) in settings {
            if !is_name(key) {
                return Err(format!(
                    "`{}` is not the name of a setting, such as `ExecStart`",
                    key.escape_debug()
                ));
            }
            let values = match values {
                Values::One(value) => std::slice::from_ref(value),
                Values::Many(values) => values,
            };
            for value in values {
                check_value(value).map_err(|why| format!("[{section}] {key}: {why}"))?;
            }
        }
    }
    let length = rendered(sections).len();
    if length > MAX_TEXT {
        return Err(format!("the sections have {length} bytes, and {MAX_TEXT} are allowed"));
    }
    Ok(())
}

fn check_value(value: &str) -> Result<(), &'static str> {
    if value.chars().any(|c| c.is_control() && c != '\t') {
        return Err("a value is one line; make a list of several");
    }
    // systemd.syntax(7): the next line would belong to it, or a space be lost.
    if value.ends_with('\\') {
        return Err("a value cannot end with a backslash: the next line would belong to it");
    }
    if value.starts_with([' ', '\t']) || value.ends_with([' ', '\t']) {
        return Err("space around a value is lost; put quotes around it if it is meant");
    }
    Ok(())
}

impl UnitFileName {
    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it is the file of a template.
    #[must_use]
    pub fn is_template(&self) -> bool {
        self.0.rsplit_once('.').is_some_and(|(stem, _)| stem.ends_with('@'))
    }

    /// The unit; `None` if it is a template.
    #[must_use]
    pub fn unit(&self) -> Option<UnitName> {
        self.0.parse().ok()
    }

    /// Whether systemd reads a file of this name for that unit: as its own, or as that of its template.
    #[must_use]
    pub fn is_read_for(&self, unit: &str) -> bool {
        self.means(unit, |own, other| own == other)
    }

    /// Whether systemd puts a drop-in of this name on that unit: as its own, as that of its template, or because what stands before
    /// type and instance ends with a dash, and that of the unit begins so (systemd.unit(5)).
    #[must_use]
    pub fn is_put_on(&self, unit: &str) -> bool {
        self.means(unit, |own, other| own == other || (own.ends_with('-') && other.starts_with(own)))
    }

    fn means(&self, unit: &str, is_meant: fn(&str, &str) -> bool) -> bool {
        let (Some((own, own_instance, own_type)), Some((other, instance, other_type))) =
            (parts(&self.0), parts(unit))
        else {
            return false;
        };
        let has_instance = own_instance == instance || (own_instance == Some("") && instance.is_some());
        own_type == other_type && has_instance && is_meant(own, other)
    }

    /// How the names of all units begin on which a drop-in of this name is put, and their type; `None` if it is put on one alone.
    fn beginning(&self) -> Option<(&str, &str)> {
        let (own, _, kind) = parts(&self.0)?;
        // `-.mount` and `-.slice` are units themselves, and systemd looks no further than their dash.
        (own.ends_with('-') && own != "-").then_some((own, kind))
    }

    /// As [`UnitName::resource`].
    #[must_use]
    pub fn resource(&self) -> Option<ResourceName> {
        match self.0.split_once('@') {
            Some((template, rest)) if self.is_template() => {
                format!("{template}@template{rest}").parse::<UnitName>().ok()?.resource()
            }
            _ => self.unit()?.resource(),
        }
    }
}

/// What of a unit's name stands before its instance, the instance, and the type.
fn parts(name: &str) -> Option<(&str, Option<&str>, &str)> {
    let (stem, kind) = name.rsplit_once('.')?;
    let (own, instance) = stem.split_once('@').map_or((stem, None), |(own, rest)| (own, Some(rest)));
    Some((own, instance, kind))
}

impl FromStr for UnitFileName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let stem_of_template = text.strip_suffix('@').map(|stem| (stem, "service"));
        let stem_of_template = stem_of_template.or_else(|| text.split_once("@."));
        let Some((stem, suffix)) = stem_of_template else {
            return text.parse::<UnitName>().map(|unit| Self(unit.into())).map_err(|error| error.to_string());
        };
        // A template's name is that of any instance, without it.
        let instance = format!("{stem}@x.{suffix}").parse::<UnitName>().map_err(|error| error.to_string())?;
        let is_whole = TYPES.contains(&suffix) && instance.as_str().len() <= MAX_UNIT_NAME;
        match is_whole && !stem.contains('@') {
            true => Ok(Self(format!("{stem}@.{suffix}"))),
            false => Err(format!("`{}` is not the name of a template of units", text.escape_debug())),
        }
    }
}

impl TryFrom<String> for UnitFileName {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<UnitFileName> for String {
    fn from(name: UnitFileName) -> Self {
        name.0
    }
}

impl fmt::Display for UnitFileName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl FromStr for DropInName {
    type Err = InvalidDropInName;

    fn from_str(text: &str) -> Result<Self, InvalidDropInName> {
        let name = text.strip_suffix(".conf").unwrap_or(text);
        let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '@');
        let is_valid =
            !name.is_empty() && name.len() <= 100 && !name.starts_with('.') && name.chars().all(is_plain);
        if is_valid { Ok(Self(name.to_owned())) } else { Err(InvalidDropInName(Text::of(text))) }
    }
}

impl TryFrom<String> for DropInName {
    type Error = InvalidDropInName;

    fn try_from(text: String) -> Result<Self, InvalidDropInName> {
        text.parse()
    }
}

impl From<DropInName> for String {
    fn from(name: DropInName) -> Self {
        name.0
    }
}

impl fmt::Display for DropInName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::action::{Action, ActionRequest};

    fn parsed(params: &str) -> Result<UnitContent, String> {
        let request = ActionRequest { kind: "unit-content".into(), params: params.into() };
        match Action::parse(&request).map_err(|error| error.to_string())? {
            Action::UnitContent(content) => Ok(content),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn sections_are_written_as_people_write_them() {
        let content = parsed(
            r#"{"unit":"app","verb":"write","sections":{"Install":{"WantedBy":"multi-user.target"},
                "Service":{"ExecStart":["","/usr/bin/app --port=80"],"Environment":["A=1","B=\"2 3\""]},"Unit":{"Description":"An app"}}}"#,
        );
        let content = content.unwrap();
        assert_eq!(
            content.wanted().unwrap(),
            "[Unit]\nDescription=An app\n\n[Service]\nEnvironment=A=1\nEnvironment=B=\"2 3\"\nExecStart=\n\
             ExecStart=/usr/bin/app --port=80\n\n[Install]\nWantedBy=multi-user.target\n"
        );
        assert_eq!(content.subject().as_str(), "write app.service");
        assert_eq!(content.needs().resources[0].as_str(), "unit/app.service", "who starts it waits for it");
    }

    #[test]
    fn what_cannot_be_meant_is_refused_with_the_reason() {
        let text = |text: &str| {
            format!(r#"{{"unit":"app","verb":"write","text":{}}}"#, serde_json::to_string(text).unwrap())
        };
        let setting = |value: &str| {
            let value = serde_json::to_string(value).unwrap();
            format!(r#"{{"unit":"app","verb":"write","sections":{{"Service":{{"ExecStart":{value}}}}}}}"#)
        };
        for (params, told) in [
            (r#"{"unit":"app","verb":"write"}"#.to_owned(), "needs `text` or `sections`"),
            (r#"{"unit":"app","verb":"write","text":"a","sections":{"Unit":{}}}"#.to_owned(), "give one"),
            (r#"{"unit":"app","verb":"remove","text":"a"}"#.to_owned(), "takes no text"),
            (r#"{"unit":"app","verb":"remove","then":"restart"}"#.to_owned(), "without its file"),
            (r#"{"unit":"app@","verb":"revert","then":"restart"}"#.to_owned(), "is a template"),
            (r#"{"unit":"../app","verb":"revert"}"#.to_owned(), "only letters"),
            (r#"{"unit":"a@b@","verb":"revert"}"#.to_owned(), "not the name of a template"),
            (r#"{"unit":"app","verb":"revert","drop_in":"../x"}"#.to_owned(), "not the name of a drop-in"),
            (r#"{"unit":"app","verb":"revert","drop_in":".hidden"}"#.to_owned(), "not the name of a drop-in"),
            (r#"{"unit":"app","verb":"revert","settle_s":301}"#.to_owned(), "300 are allowed"),
            (text(&"x".repeat(MAX_TEXT + 1)), "65536 are allowed"),
            (text("[Unit]\u{0}"), "control character"),
            (setting("/bin/a\nUser=root"), "one line"),
            (setting("/bin/a\\"), "end with a backslash"),
            (setting(" /bin/a"), "space around"),
            (
                r#"{"unit":"app","verb":"write","sections":{"Unit]\n[Service":{}}}"#.to_owned(),
                "name of a section",
            ),
            (
                r#"{"unit":"app","verb":"write","sections":{"Unit":{"A=b":"c"}}}"#.to_owned(),
                "name of a setting",
            ),
        ] {
            let error = parsed(&params).unwrap_err();
            assert!(error.contains(told) && crate::printable::is_line(&error), "{params}: {error}");
        }
    }

    #[test]
    fn templates_have_files_and_their_instances_are_others() {
        for (text, name) in
            [("app@", "app@.service"), ("app@.timer", "app@.timer"), ("app@x", "app@x.service")]
        {
            let unit: UnitFileName = text.parse().unwrap();
            assert_eq!((unit.as_str(), unit.is_template()), (name, name.contains("@.")));
            assert!(unit.resource().is_some());
        }
    }

    /// By unit_file_find_dirs of systemd, which looks for `a-b.service.d`, `a-.service.d` and so on.
    #[test]
    fn what_a_file_is_for_is_what_systemd_uses_it_for() {
        for (name, unit, is_read, is_put) in [
            ("app", "app.service", true, true),
            ("app", "app.socket", false, false),
            ("app", "app-web.service", false, false),
            ("app-", "app-web.service", false, true),
            ("app-", "app-web-1.service", false, true),
            ("app-web-", "app-web-1.service", false, true),
            ("app-", "app.service", false, false),
            ("app-", "apple.service", false, false),
            ("app-.timer", "app-web.service", false, false),
            ("app@", "app@x.service", true, true),
            ("app@", "app.service", false, false),
            ("app-@", "app-web@x.service", false, true),
            ("app-@x", "app-web@x.service", false, true),
            ("app-@y", "app-web@x.service", false, false),
            ("app-", "app-web@x.service", false, false),
        ] {
            let file: UnitFileName = name.parse().unwrap();
            assert_eq!((file.is_read_for(unit), file.is_put_on(unit)), (is_read, is_put), "{name} {unit}");
        }
        let touched = |params: &str| parsed(params).unwrap().touches().remove(0);
        let one = Object::named(Class::Units, "app-.service");
        assert_eq!(touched(r#"{"unit":"app-","verb":"revert"}"#), one, "a file is for its own unit");
        let all = Object::between(Class::Units, "app-", ".service");
        assert_eq!(touched(r#"{"unit":"app-","verb":"revert","drop_in":"x"}"#), all);
        assert_eq!(touched(r#"{"unit":"app-@x","verb":"revert","drop_in":"x"}"#), all);
    }

    proptest! {
        /// Whatever stands in a value: the text has the settings that were given, and no other.
        #[test]
        fn no_value_breaks_out_of_its_setting(
            values in prop::collection::vec("[ -~\\n\\t\\\\\\[\\]=;#]{0,12}", 1..4),
        ) {
            let settings = BTreeMap::from([("ExecStart".to_owned(), Values::Many(values.clone()))]);
            let sections = BTreeMap::from([("Service".to_owned(), settings)]);
            if check_sections(&sections).is_ok() {
                let text = rendered(&sections);
                let lines: Vec<&str> = text.lines().skip(1).collect();
                let wanted: Vec<String> = values.iter().map(|value| format!("ExecStart={value}")).collect();
                prop_assert_eq!(lines, wanted);
                prop_assert!(!text.contains("\\\n"));
            }
        }
    }
}
