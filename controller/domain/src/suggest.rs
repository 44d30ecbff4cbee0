//! What was perhaps meant: the candidate that differs from a text by the fewest edits.

/// The most edits between what was written and what may have been meant.
const MAX_EDITS: usize = 2;
/// Longer texts are not compared: the work is the product of both lengths.
const MAX_TEXT: usize = 256;

/// The candidate nearest to `text`, without regard to case, if one is near.
pub(crate) fn nearest<'a>(text: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    if text.len() > MAX_TEXT {
        return None;
    }
    let close = candidates.into_iter().filter(|candidate| candidate.len().abs_diff(text.len()) <= MAX_EDITS);
    let distances = close.map(|candidate| (distance(text, candidate), candidate));
    // Of three letters, two that differ are no mistyping.
    let allowed = MAX_EDITS.min(text.len().div_ceil(3));
    distances.min().filter(|&(edits, _)| edits <= allowed).map(|(_, candidate)| candidate)
}

/// Levenshtein's distance between two texts, without regard to case.
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut diagonal = i;
        let mut left = i + 1;
        for (above, y) in row.iter_mut().skip(1).zip(b.bytes()) {
            let replaced = diagonal + usize::from(!x.eq_ignore_ascii_case(&y));
            diagonal = *above;
            left = replaced.min(*above + 1).min(left + 1);
            *above = left;
        }
        if let Some(first) = row.first_mut() {
            *first = i + 1;
        }
    }
    row.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_is_near() {
        assert_eq!(nearest("ofline", ["online", "offline"]), Some("offline"));
        assert_eq!(nearest("OFFLINE", ["online", "offline"]), Some("offline"));
        assert_eq!(nearest("--dryrun", ["--dry-run", "--keep"]), Some("--dry-run"));
        assert_eq!(nearest("asleep", ["online", "offline"]), None);
        assert_eq!(nearest("tgs", ["os", "tag"]), None);
        assert_eq!(nearest("a", []), None);
        assert_eq!(nearest(&"a".repeat(10_000), ["online"]), None);
    }
}
