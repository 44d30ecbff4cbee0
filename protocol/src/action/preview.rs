//! What an action would change: the report of a dry run, of whatever kind.

use serde::{Deserialize, Serialize};

use crate::output::MAX_RECORD;
use crate::text::{Line, List, Text};

/// The most changes that a preview names.
pub const MAX_CHANGES: usize = 512;
/// The most lines of difference of one change.
pub const MAX_DIFF: usize = 400;
/// The most bytes of all changes together, so that they are a report.
const MAX_BYTES: usize = MAX_RECORD - 1024;

/// What an action would change on its host as it is now; nothing where all is as wanted.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Preview {
    /// The changes, in the order in which they would be made.
    #[cfg_attr(feature = "schema", schema(value_type = Vec<Change>))]
    pub changes: List<Change, MAX_CHANGES>,
    /// How many more there are.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub left_out: u32,
}

/// One change that would be made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Change {
    /// What would be done, such as `start nginx.service`.
    #[cfg_attr(feature = "schema", schema(value_type = String))]
    pub what: Line,
    /// How it is now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schema(value_type = Option<String>))]
    pub before: Option<Line>,
    /// How it would be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schema(value_type = Option<String>))]
    pub after: Option<Line>,
    /// The lines that differ, as diff(1) shows them with `--unified`.
    #[serde(default, skip_serializing_if = "is_empty")]
    #[cfg_attr(feature = "schema", schema(value_type = Vec<String>))]
    pub diff: List<Line, MAX_DIFF>,
}

fn is_empty<T>(list: &[T]) -> bool {
    list.is_empty()
}

fn is_zero(count: &u32) -> bool {
    *count == 0
}

impl Preview {
    /// Of these changes; of those that do not fit only how many there are.
    #[must_use]
    pub fn of(changes: Vec<Change>) -> Self {
        let mut bytes = 0;
        let all = changes.len();
        let fits = |change: &Change| {
            bytes += serde_json::to_vec(change).map_or(MAX_BYTES, |json| json.len() + 1);
            bytes <= MAX_BYTES
        };
        let fitting: Vec<Change> = changes.into_iter().take(MAX_CHANGES).take_while(fits).collect();
        let left_out = u32::try_from(all - fitting.len()).unwrap_or(u32::MAX);
        Self { changes: List::of(fitting), left_out }
    }
}

impl Change {
    /// A change whose words say all.
    #[must_use]
    pub fn new(what: impl std::fmt::Display) -> Self {
        Self { what: Text::of(what), before: None, after: None, diff: List::default() }
    }

    /// The same, from what it is now to what it would be.
    #[must_use]
    pub fn between(self, before: impl std::fmt::Display, after: impl std::fmt::Display) -> Self {
        Self { before: Some(Text::of(before)), after: Some(Text::of(after)), ..self }
    }

    /// The same, with the lines that differ.
    #[must_use]
    pub fn with_diff(self, lines: impl IntoIterator<Item = Line>) -> Self {
        Self { diff: List::of(lines), ..self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::check_report;

    /// Whatever would be changed: what is told of it is a report.
    #[test]
    fn a_preview_is_a_report_however_much_would_change() {
        let long = || Change::new("\"".repeat(4096)).between("\\".repeat(4096), "x");
        let many = |count: usize, change: fn() -> Change| Preview::of((0..count).map(|_| change()).collect());
        let small = || Change::new("start a.service").between("inactive", "active");
        for (preview, shown) in [
            (many(3, small), 3),
            (many(2000, small), MAX_CHANGES),
            (Preview::of((0..9).map(|_| long()).collect()), 3),
        ] {
            let report = serde_json::to_vec(&preview).unwrap();
            assert!(check_report(&report).is_ok(), "{} bytes", report.len());
            assert_eq!(preview.changes.len(), shown);
        }
        assert_eq!(many(2000, small).left_out, 2000 - 512);
        assert_eq!(serde_json::to_string(&Preview::default()).unwrap(), r#"{"changes":[]}"#);
    }
}
