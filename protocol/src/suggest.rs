//! What was perhaps meant by a word that nobody knows: the known one that differs from it by the fewest edits.
//!
//! The one place where "did you mean" is decided, for variables, settings, flags, hosts and keys alike.

/// The most edits between what was written and what may have been meant. Two neighbours that changed places are one.
const MAX_EDITS: usize = 2;
/// Longer texts are not compared, in bytes: the work is the product of both lengths.
const MAX_TEXT: usize = 256;

/// The candidate nearest to `text`, without regard to case, if one is near. Of several that are equally near it is the
/// first by name, in whatever order they come.
pub fn nearest<'a>(text: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    if text.len() > MAX_TEXT {
        return None;
    }
    let lower = text.to_lowercase();
    let length = lower.chars().count();
    // Of three letters, two that differ are no mistyping.
    let allowed = MAX_EDITS.min(length.div_ceil(3));
    candidates
        .into_iter()
        .filter(|candidate| candidate.len() <= MAX_TEXT)
        .map(|candidate| (candidate.to_lowercase(), candidate))
        .filter(|(known, _)| known.chars().count().abs_diff(length) <= allowed)
        .map(|(known, candidate)| (strsim::osa_distance(&lower, &known), candidate))
        .filter(|&(edits, _)| edits <= allowed)
        .min()
        .map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_nearest_is_near() {
        assert_eq!(nearest("ofline", ["online", "offline"]), Some("offline"));
        assert_eq!(nearest("OFFLINE", ["online", "offline"]), Some("offline"));
        assert_eq!(nearest("--dryrun", ["--dry-run", "--keep"]), Some("--dry-run"));
        assert_eq!(nearest("scrpit", ["script"]), Some("script"));
        assert_eq!(nearest("grüsse", ["grösse"]), Some("grösse"));
        assert_eq!(nearest("asleep", ["online", "offline"]), None);
        assert_eq!(nearest("tgs", ["os", "tag"]), None);
        assert_eq!(nearest("a", []), None);
        assert_eq!(nearest("", ["a", "os"]), None);
        assert_eq!(nearest(&"a".repeat(10_000), ["online"]), None);
        assert_eq!(nearest("online", [&*"a".repeat(10_000), "offline"]), Some("offline"));
    }

    proptest! {
        /// Whatever a person or a repository wrote.
        #[test]
        fn any_text_is_compared_with_any_other(text in "\\PC{0,40}", known in prop::collection::vec("\\PC{0,40}", 0..5)) {
            let found = nearest(&text, known.iter().map(String::as_str));
            prop_assert!(found.is_none_or(|found| known.iter().any(|known| known == found)));
            if text.chars().count() > 0 {
                prop_assert_eq!(nearest(&text, [text.as_str()]), Some(text.as_str()));
            }
        }
    }
}
