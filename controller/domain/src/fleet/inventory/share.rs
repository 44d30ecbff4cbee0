//! How much of what is in force one commit may take away before a person has looked.

/// From this many on, what leaves is compared with the share: a small fleet may change by one or two at a time.
pub const FEW: usize = 3;
/// The share, in percent, of what is in force.
pub const PERCENT: usize = 20;

/// Whether a commit takes so much away that it waits until a person accepts it: [`FEW`] or more, and more than
/// [`PERCENT`] of the `active` ones. `leaving` is never above `active`.
#[must_use]
pub const fn needs_acceptance(active: usize, leaving: usize) -> bool {
    leaving >= FEW && leaving.saturating_mul(100) > active.saturating_mul(PERCENT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_few_and_a_small_share_pass() {
        for (active, leaving, waits) in [
            (0, 0, false),
            (1, 1, false),
            (2, 2, false),
            (3, 2, false),
            (3, 3, true),
            (10, 3, true),
            (15, 3, false),
            (16, 3, false),
            (100, 20, false),
            (100, 21, true),
            (100, 100, true),
        ] {
            assert_eq!(needs_acceptance(active, leaving), waits, "{leaving} of {active}");
        }
    }
}
