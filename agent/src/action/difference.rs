//! How two contents differ, for people: by lines, as diff(1) shows it with `--unified`.

use std::time::Duration;

use fleetward_protocol::action::MAX_DIFF;
use fleetward_protocol::action::file::MAX_CONTENT;
use fleetward_protocol::digest::Digest;
use fleetward_protocol::text::{Line, Text};
use similar::TextDiff;

/// How long the shortest difference is looked for; after that a longer one is told.
const PATIENCE: Duration = Duration::from_secs(2);

/// The lines that differ, or a line that says why they are not told. No more of the new content is told than of the old.
pub(super) fn lines(old: Option<&[u8]>, new: &[u8]) -> Vec<Line> {
    let before = old.unwrap_or_default();
    if before.len() > MAX_CONTENT {
        return vec![Text::of("the file that is there is too large to be compared line by line")];
    }
    let (Some(before_text), Some(new_text)) = (text(before), text(new)) else {
        let side = |bytes: &[u8]| format!("{} bytes, SHA-256 {}", bytes.len(), Digest::of(bytes));
        let is = match old {
            Some(old) => side(old),
            None => "nothing".to_owned(),
        };
        return vec![Text::of(format_args!("no text: {is} -> {}", side(new)))];
    };
    let diff = TextDiff::configure().timeout(PATIENCE).diff_lines(before_text, new_text);
    let unified = diff.unified_diff().context_radius(3).to_string();
    let all = unified.lines().count();
    let mut lines: Vec<Line> = unified.lines().take(MAX_DIFF).map(Text::of).collect();
    if all > MAX_DIFF
        && let Some(last) = lines.last_mut()
    {
        *last = Text::of(format_args!("and {} lines more", all - MAX_DIFF + 1));
    }
    lines
}

/// What is text for people: UTF-8 without NUL.
fn text(bytes: &[u8]) -> Option<&str> {
    str::from_utf8(bytes).ok().filter(|text| !text.contains('\0'))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn shown(old: Option<&str>, new: &str) -> String {
        let lines = lines(old.map(str::as_bytes), new.as_bytes());
        lines.iter().map(Line::as_str).collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn lines_that_differ_are_told_with_those_around_them() {
        let old = "a\nb\nc\nd\ne\nf\n";
        assert_eq!(shown(Some(old), "a\nb\nc\nd\nE\nf\n"), "@@ -2,5 +2,5 @@\n b\n c\n d\n-e\n+E\n f");
        assert_eq!(shown(None, "new\n"), "@@ -0,0 +1 @@\n+new");
        assert_eq!(shown(Some("same\n"), "same\n"), "");
        assert!(shown(Some("x"), "\0").starts_with("no text: 1 bytes, SHA-256 "));
        let many = "x\n".repeat(10_000);
        let told = lines(None, many.as_bytes());
        assert_eq!(told.len(), MAX_DIFF);
        assert_eq!(told.last().unwrap().as_str(), "and 9602 lines more");
    }

    proptest! {
        #[test]
        fn whatever_differs_is_told_in_bounds(old in prop::collection::vec(any::<u8>(), 0..200), new in prop::collection::vec(any::<u8>(), 0..200)) {
            let told = lines(Some(&old), &new);
            prop_assert!(told.len() <= MAX_DIFF);
            prop_assert_eq!(told.is_empty() && text(&old).is_some(), old == new && text(&old).is_some());
        }
    }
}
