//! What a typed action tells while it works: its steps, for programs.
//!
//! An event is the payload of a [`Stream::Event`](crate::output::Stream::Event) record: one JSON object of at most
//! [`MAX_EVENT`] bytes. Its text is bounded and printable by its type, so that whoever shows it need not look again.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::query::{InvalidItem, MAX_DEPTH, check};
use crate::text::{Text, Unfit};

/// The largest event, in bytes.
pub const MAX_EVENT: usize = 4 << 10;

/// The name of a step, for programs: `check`, `restart`.
pub type StepName = Text<64>;
/// What is said of a step, for people.
pub type Words = Text<1024>;

/// A step began, got on, or ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Event {
    /// Which step.
    #[cfg_attr(feature = "schema", schema(value_type = String))]
    pub step: StepName,
    /// How far it has come.
    pub state: StepState,
    /// How much of it is done, where that can be told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schema(value_type = Option<u8>, maximum = 100))]
    pub percent: Option<Percent>,
    /// What there is to say of it.
    #[serde(default)]
    #[cfg_attr(feature = "schema", schema(value_type = String))]
    pub words: Words,
}

/// How far a step has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "kebab-case")]
pub enum StepState {
    /// It begins.
    Began,
    /// It goes on.
    Going,
    /// It is done, and something was changed by it or learned.
    Done,
    /// There was nothing to do.
    Unchanged,
    /// It failed.
    Failed,
    /// What it had changed was put back.
    Undone,
}

/// From 0 to 100.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u8", into = "u8")]
pub struct Percent(u8);

/// A payload that is not an event, or not a report.
#[derive(Debug, thiserror::Error)]
pub enum InvalidTelling {
    /// It is too long.
    #[error("it has {length} bytes, and {most} are allowed")]
    Long {
        /// What it has.
        length: usize,
        /// What is allowed.
        most: usize,
    },
    /// It is no such JSON.
    #[error("{0}")]
    Json(#[from] serde_json::Error),
    /// A report is one object.
    #[error("it is no JSON object")]
    NoObject,
    /// A report is shown to people: no deeper than they can read, and printable.
    #[error(transparent)]
    Unfit(#[from] InvalidItem),
}

impl Event {
    /// The payload.
    ///
    /// # Errors
    /// None that its types allow; kept for the encoder's word.
    pub fn encode(&self) -> Result<Vec<u8>, InvalidTelling> {
        let payload = serde_json::to_vec(self)?;
        check_length(&payload, MAX_EVENT).map(|()| payload)
    }

    /// Reads a payload.
    ///
    /// # Errors
    /// If it is too long, or not an event.
    pub fn decode(payload: &[u8]) -> Result<Self, InvalidTelling> {
        check_length(payload, MAX_EVENT)?;
        Ok(serde_json::from_slice(payload)?)
    }
}

/// Whether a payload is a report: one JSON object of bounded depth ([`MAX_DEPTH`]), all of whose texts are printable lines, in
/// one record.
///
/// # Errors
/// Why not.
pub fn check_report(payload: &[u8]) -> Result<(), InvalidTelling> {
    check_length(payload, crate::output::MAX_RECORD)?;
    let report: serde_json::Value = serde_json::from_slice(payload)?;
    check(&report, MAX_DEPTH)?;
    if report.is_object() { Ok(()) } else { Err(InvalidTelling::NoObject) }
}

const fn check_length(payload: &[u8], most: usize) -> Result<(), InvalidTelling> {
    if payload.len() > most {
        return Err(InvalidTelling::Long { length: payload.len(), most });
    }
    Ok(())
}

impl Percent {
    /// `part` of `whole`, rounded down; all of nothing is 100.
    #[must_use]
    pub fn of(part: u64, whole: u64) -> Self {
        let percent = (u128::from(part) * 100).checked_div(u128::from(whole)).unwrap_or(100);
        Self(u8::try_from(percent.min(100)).unwrap_or(100))
    }

    /// The number.
    #[must_use]
    pub const fn get(self) -> u8 {
        self.0
    }
}

impl TryFrom<u8> for Percent {
    type Error = Unfit;

    fn try_from(percent: u8) -> Result<Self, Unfit> {
        if percent > 100 {
            return Err(Unfit::Many { length: usize::from(percent), most: 100 });
        }
        Ok(Self(percent))
    }
}

impl From<Percent> for u8 {
    fn from(percent: Percent) -> Self {
        percent.0
    }
}

impl fmt::Display for Percent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} %", self.0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn event(step: &str, words: &str, percent: Option<(u64, u64)>) -> Event {
        Event {
            step: Text::of(step),
            state: StepState::Done,
            percent: percent.map(|(part, whole)| Percent::of(part, whole)),
            words: Text::of(words),
        }
    }

    proptest! {
        #[test]
        fn what_is_told_fits_and_reads_back(
            step in any::<String>(),
            words in "\\PC{0,2000}|.{0,2000}|[\"\\\\]{0,2000}",
            percent in any::<Option<(u64, u64)>>(),
        ) {
            let event = event(&step, &words, percent);
            let payload = event.encode().unwrap();
            prop_assert_eq!(Event::decode(&payload).unwrap(), event);
        }

        #[test]
        fn no_bytes_break_the_reader(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = (Event::decode(&bytes), check_report(&bytes));
        }
    }

    #[test]
    fn what_is_no_event_is_refused() {
        for payload in [
            "",
            "null",
            "[]",
            r#"{"step":"a"}"#,
            r#"{"step":"a","state":"exploded"}"#,
            r#"{"step":"a","state":"done","percent":101}"#,
            r#"{"step":"a","state":"done","words":"\u001b[2J"}"#,
            r#"{"step":"a","state":"done"} x"#,
        ] {
            assert!(Event::decode(payload.as_bytes()).is_err(), "{payload}");
        }
        let long = format!(r#"{{"step":"a","state":"done"{}}}"#, " ".repeat(MAX_EVENT));
        assert!(matches!(Event::decode(long.as_bytes()), Err(InvalidTelling::Long { .. })));
    }

    #[test]
    fn a_report_is_one_object_of_bounded_depth() {
        assert!(check_report(br#"{"changed":true}"#).is_ok());
        assert!(matches!(check_report(b"[]"), Err(InvalidTelling::NoObject)));
        let deep = |depth| format!(r#"{{"a":{}{}}}"#, "[".repeat(depth), "]".repeat(depth));
        assert!(check_report(deep(MAX_DEPTH - 1).as_bytes()).is_ok());
        // Whoever shows it puts it into objects of its own.
        for depth in [MAX_DEPTH, 120] {
            let refused = check_report(deep(depth).as_bytes());
            assert!(matches!(refused, Err(InvalidTelling::Unfit(InvalidItem::Deep))), "{depth}");
        }
        assert!(matches!(check_report(deep(1000).as_bytes()), Err(InvalidTelling::Json(_))));
        for hidden in [r#"{"a":"\u001b[2J"}"#, r#"{"a\nb":1}"#] {
            let refused = check_report(hidden.as_bytes());
            assert!(matches!(refused, Err(InvalidTelling::Unfit(InvalidItem::NotPrintable))), "{hidden}");
        }
        let long = format!(r#"{{"a":"{}"}}"#, "x".repeat(crate::output::MAX_RECORD));
        assert!(matches!(check_report(long.as_bytes()), Err(InvalidTelling::Long { .. })));
    }
}
