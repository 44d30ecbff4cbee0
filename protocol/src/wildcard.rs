//! Patterns for names: `*` stands for any characters, `?` for one.

/// Whether a name is such a one. Takes the product of their lengths at most.
#[must_use]
pub fn matches(pattern: &str, name: &str) -> bool {
    let (pattern, name) = (pattern.as_bytes(), name.as_bytes());
    let (mut at, mut along) = (0, 0);
    // Behind the last `*`: there it goes on, with one more character given to the `*`, when the rest does not fit.
    let mut star = None;
    while let Some(&byte) = name.get(along) {
        match pattern.get(at) {
            Some(b'*') => {
                star = Some((at + 1, along));
                at += 1;
            }
            Some(&wanted) if wanted == b'?' || wanted == byte => (at, along) = (at + 1, along + 1),
            _ => match &mut star {
                Some((after, taken)) => {
                    *taken += 1;
                    (at, along) = (*after, *taken);
                }
                None => return false,
            },
        }
    }
    pattern.get(at..).is_some_and(|rest| rest.iter().all(|byte| *byte == b'*'))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    /// The same in the words of a definition: slow, and plainly right.
    fn matches(pattern: &[u8], name: &[u8]) -> bool {
        match (pattern, name) {
            ([], []) => true,
            ([b'*', rest @ ..], name) => (0..=name.len()).any(|taken| matches(rest, &name[taken..])),
            ([b'?', rest @ ..], [_, name @ ..]) => matches(rest, name),
            ([wanted, rest @ ..], [byte, name @ ..]) => wanted == byte && matches(rest, name),
            _ => false,
        }
    }

    proptest! {
        #[test]
        fn a_pattern_matches_as_shells_say(pattern in "[ab*?]{1,9}", name in "[ab]{0,9}") {
            prop_assert_eq!(super::matches(&pattern, &name), matches(pattern.as_bytes(), name.as_bytes()));
        }
    }
}
