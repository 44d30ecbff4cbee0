//! What units have logged, as the system's journal has it.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::{Contract, Key, Shows};
use crate::action::Privilege;
use crate::action::unit::UnitName;
use crate::choice::choices;
use crate::object::{Class, Object};
use crate::text::{Line, Text, Word};
use crate::time::Timestamp;

/// The entries that are told when nothing is said.
pub const USUAL_LINES: u32 = 100;
/// The most entries of the past that are told.
pub const MAX_LINES: u32 = 10_000;
/// The most units that are named.
const MAX_UNITS: usize = 64;
/// The most bytes of a pattern.
const MAX_GREP: usize = 1024;
/// A relative time is less than this: a hundred years.
const LONGEST: Duration = Duration::from_secs(100 * 366 * 86_400);

/// Which entries are told: the last ones that fit, in the order in which the journal took them. With following, then each that
/// is written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct UnitLog {
    /// Of these units, with what systemd says about them; the journal of the whole host when none is named. Without a type a
    /// service is meant: `nginx` is `nginx.service`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "schema", schema(value_type = Vec<String>, max_items = 64, example = "nginx.service"))]
    pub units: Vec<UnitName>,
    /// Not older than this: `2026-01-02T03:04:05Z` (RFC 3339), or how long ago: `90s`, `15m`, `2h`, `1d`, `1w`, `1h30m`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schema(value_type = Option<String>, example = "2h"))]
    pub since: Option<Moment>,
    /// Not newer than this, said in the same ways; not together with following.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schema(value_type = Option<String>, example = "1h"))]
    pub until: Option<Moment>,
    /// The last so many of them, up to 10 000.
    #[serde(default = "usual_lines", skip_serializing_if = "is_usual")]
    #[cfg_attr(feature = "schema", schema(default = 100, minimum = 1, maximum = 10_000))]
    pub lines: u32,
    /// Of this priority, or worse; of any when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schema(inline))]
    pub priority: Option<Priority>,
    /// With a message in which this is found: a pattern as Perl has it (pcre2pattern(3)), as for `journalctl --grep`. Capitals
    /// count only if there is one in it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schema(value_type = Option<String>, example = "time(d )?out", max_length = 1024))]
    pub grep: Option<Text<MAX_GREP>>,
    /// Of this boot: 0 for the present one, -1 for the one before, and so on; of any when absent. Following is about the
    /// present one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schema(minimum = -9999, maximum = 0))]
    pub boot: Option<i32>,
}

choices! {
    /// How bad it is (syslog(3)).
    pub enum Priority {
        /// The system is unusable.
        Emergency = "emerg",
        /// Something has to be done at once.
        Alert = "alert",
        /// A critical condition.
        Critical = "crit",
        /// An error.
        Error = "err",
        /// Something may go wrong.
        Warning = "warning",
        /// Something normal that matters.
        Notice = "notice",
        /// For information.
        Info = "info",
        /// For whoever looks for faults.
        Debug = "debug",
    }
}

/// A point in time, or how long ago it was.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Moment {
    text: Word,
    when: When,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum When {
    At(Timestamp),
    Ago(Duration),
}

/// Why a text is not a moment.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is no point in time; write one such as 2026-01-02T03:04:05Z (RFC 3339), or how long ago it was, such as 90s, 15m, 2h, \
     1d or 1h30m"
)]
pub struct InvalidMoment(Word);

/// An entry of the journal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct LogEntry {
    /// When the journal took it, by the host's clock.
    #[cfg_attr(feature = "schema", schema(inline))]
    pub time: Timestamp,
    /// The unit that wrote it, or that systemd wrote it about; absent where there is none, such as of the kernel.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schema(value_type = Option<String>))]
    pub unit: Option<Word>,
    /// What whoever wrote it calls itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schema(value_type = Option<String>))]
    pub identifier: Option<Word>,
    /// The process that wrote it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
    /// How bad it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schema(inline))]
    pub priority: Option<Priority>,
    /// What it says, line by line. U+FFFD stands for each character that cannot be shown, and `\x1b` and the like for each byte
    /// that is no text.
    #[cfg_attr(feature = "schema", schema(value_type = Vec<String>))]
    pub message: Vec<Line>,
    /// Whether it says more than is told here.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub truncated: bool,
    /// Whether it is no text (UTF-8) throughout.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub binary: bool,
    /// The boot of the host, by the kernel's id.
    #[cfg_attr(feature = "schema", schema(value_type = String))]
    pub boot: Word,
    /// Where in the journal it stands: what `journalctl --cursor` takes on the host.
    #[cfg_attr(feature = "schema", schema(value_type = String))]
    pub cursor: Word,
}

impl Contract for UnitLog {
    const KIND: &'static str = "unit-log";
    const SUMMARY: &'static str = "Show what units, or the whole host, have logged.";
    const PRIVILEGE: Privilege = Privilege::Observe;
    const FOLLOWS: bool = true;
    const SHOWS: Shows = Shows::Entries;
    const OBJECTS: &'static [Class] = &[Class::Units];
    // A pattern that is seldom found is looked for in all of the journal.
    const DEFAULT_TIMEOUT: Duration = Duration::from_secs(60);
    const MAX_ITEMS: usize = MAX_LINES as usize;
    const MAX_BYTES: usize = 64 << 20;

    type Item = LogEntry;

    fn key(item: &LogEntry) -> Key {
        item.cursor.clone()
    }

    fn touches(&self) -> Vec<Object> {
        // Without a name it is the log of any unit, and of what is none.
        match self.units.is_empty() {
            true => vec![Object::any(Class::Units)],
            false => self.units.iter().map(|unit| Object::named(Class::Units, unit.as_str())).collect(),
        }
    }

    fn shown(_: &LogEntry) -> Option<Object> {
        // The journal itself tells whose entries are a unit's: what others, such as systemd, say of it is among them.
        None
    }

    fn validate(&self) -> Result<(), String> {
        let Self { units, since, until, lines, priority: _, grep, boot } = self;
        if units.len() > MAX_UNITS {
            return Err(format!("{} units are named, and {MAX_UNITS} are allowed", units.len()));
        }
        if *lines == 0 || *lines > MAX_LINES {
            return Err(format!("`lines` is {lines}, and has to be between 1 and {MAX_LINES}"));
        }
        if grep.as_ref().is_some_and(|pattern| pattern.is_empty()) {
            return Err("`grep` is empty; leave it out to mean every message".to_owned());
        }
        if boot.is_some_and(|boot| !(-9999..=0).contains(&boot)) {
            return Err("`boot` is 0 for the present boot, -1 for the one before, down to -9999".to_owned());
        }
        match (since.as_ref().map(|since| since.when), until.as_ref().map(|until| until.when)) {
            (Some(When::At(since)), Some(When::At(until))) if since > until => {
                Err("`until` is before `since`".to_owned())
            }
            (Some(When::Ago(since)), Some(When::Ago(until))) if since < until => {
                Err("`until` is before `since`".to_owned())
            }
            _ => Ok(()),
        }
    }
}

impl Default for UnitLog {
    fn default() -> Self {
        let (units, since, until, priority, grep, boot) = (Vec::new(), None, None, None, None, None);
        Self { units, since, until, lines: USUAL_LINES, priority, grep, boot }
    }
}

const fn usual_lines() -> u32 {
    USUAL_LINES
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
const fn is_usual(lines: &u32) -> bool {
    *lines == USUAL_LINES
}

impl Priority {
    /// The priority of this number.
    #[must_use]
    pub fn of(number: u8) -> Option<Self> {
        use Priority::{Alert, Critical, Debug, Emergency, Error, Info, Notice, Warning};
        [Emergency, Alert, Critical, Error, Warning, Notice, Info, Debug].get(usize::from(number)).copied()
    }
}

impl Moment {
    /// Which point in time it is, asked at `now`.
    #[must_use]
    pub fn at(&self, now: Timestamp) -> Timestamp {
        match self.when {
            When::At(time) => time,
            When::Ago(span) => now - span,
        }
    }
}

impl FromStr for Moment {
    type Err = InvalidMoment;

    fn from_str(text: &str) -> Result<Self, InvalidMoment> {
        let at = || {
            let time = OffsetDateTime::parse(text, &Rfc3339).ok()?;
            let millis = time.unix_timestamp_nanos() / 1_000_000;
            // What was before 1970 no journal has.
            i64::try_from(millis).ok().filter(|millis| *millis >= 0).map(Timestamp::from_millis)
        };
        if text.len() > 64 {
            return Err(InvalidMoment(Text::of(text)));
        }
        let when = match span(text) {
            Some(span) => When::Ago(span),
            None => When::At(at().ok_or_else(|| InvalidMoment(Text::of(text)))?),
        };
        Ok(Self { text: Text::of(text), when })
    }
}

/// A span such as `1h30m`.
fn span(text: &str) -> Option<Duration> {
    let (mut total, mut rest) = (Duration::ZERO, text);
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit())?;
        let (number, behind) = rest.split_at_checked(digits)?;
        let unit = behind.chars().next()?;
        let seconds = match unit {
            's' => 1,
            'm' => 60,
            'h' => 3600,
            'd' => 86_400,
            'w' => 604_800,
            _ => return None,
        };
        let part = number.parse::<u64>().ok()?.checked_mul(seconds)?;
        total = total.checked_add(Duration::from_secs(part)).filter(|total| *total <= LONGEST)?;
        rest = behind.get(1..)?;
    }
    (total > Duration::ZERO).then_some(total)
}

impl TryFrom<String> for Moment {
    type Error = InvalidMoment;

    fn try_from(text: String) -> Result<Self, InvalidMoment> {
        text.parse()
    }
}

impl From<Moment> for String {
    fn from(moment: Moment) -> Self {
        moment.text.into()
    }
}

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::action::ActionRequest;
    use crate::query::Query;

    fn parse(params: &str) -> Result<UnitLog, String> {
        let request = ActionRequest { kind: "unit-log".into(), params: params.into() };
        match Query::parse(&request).map_err(|error| error.to_string())? {
            Query::UnitLog(log) => Ok(log),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn times_are_points_or_how_long_ago() {
        let now = Timestamp::from_millis(1_767_323_045_000);
        for (text, millis) in [
            ("2026-01-02T03:04:05Z", 1_767_323_045_000),
            ("2026-01-02T04:04:05.25+01:00", 1_767_323_045_250),
            ("90s", 1_767_322_955_000),
            ("1h30m", 1_767_317_645_000),
            ("1w2d", 1_766_545_445_000),
        ] {
            let moment: Moment = text.parse().unwrap();
            assert_eq!((moment.at(now).as_millis(), moment.to_string().as_str()), (millis, text));
        }
        for text in [
            "",
            "2",
            "h",
            "2 h",
            "-2h",
            "0s",
            "2y",
            "1h30",
            "99999w",
            "2026-01-02",
            "1969-12-31T23:59:59Z",
            "é",
            "1é",
        ] {
            let error =
                text.parse::<Moment>().map(|moment| format!("{moment:?}")).expect_err(text).to_string();
            assert!(error.contains("RFC 3339"), "{error}");
        }
    }

    #[test]
    fn what_does_not_fit_is_told() {
        let log = parse(r#"{"units":["nginx"],"lines":10,"priority":"err","boot":-1}"#).unwrap();
        assert_eq!((log.units[0].as_str(), log.lines, log.boot), ("nginx.service", 10, Some(-1)));
        assert_eq!(parse("{}").unwrap(), UnitLog::default());
        for (params, told) in [
            (r#"{"units":["a b"]}"#, "not the name of a unit"),
            (r#"{"lines":0}"#, "between 1 and 10000"),
            (r#"{"lines":10001}"#, "between 1 and 10000"),
            (r#"{"grep":""}"#, "is empty"),
            (r#"{"grep":"a\nb"}"#, "not printable"),
            (r#"{"boot":1}"#, "present boot"),
            (r#"{"since":"soon"}"#, "no point in time"),
            (r#"{"since":"1h","until":"2h"}"#, "before `since`"),
            (r#"{"since":"2026-01-02T03:04:05Z","until":"2026-01-01T03:04:05Z"}"#, "before `since`"),
            (r#"{"priority":"bad"}"#, "unknown variant `bad`"),
        ] {
            let error = parse(params).unwrap_err();
            assert!(error.contains(told), "{params}: {error}");
        }
    }

    #[test]
    fn priorities_are_those_of_syslog() {
        assert_eq!(Priority::of(0), Some(Priority::Emergency));
        assert_eq!(Priority::of(3).map(Priority::as_str), Some("err"));
        assert_eq!((Priority::of(7), Priority::of(8)), (Some(Priority::Debug), None));
    }

    proptest! {
        #[test]
        fn any_text_is_a_moment_or_refused(text in "\\PC{0,30}|[0-9smhdw]{0,12}|[0-9TZ:+.-]{0,30}") {
            if let Ok(moment) = text.parse::<Moment>() {
                let again: Moment = String::from(moment.clone()).parse().unwrap();
                prop_assert_eq!(again, moment);
            }
        }
    }
}
