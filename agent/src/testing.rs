//! What the tests of this crate share.

/// Says that this machine lacks what a test needs. With `FLEETWARD_TEST_ALL=1`, as in `cargo xtask test`, that is a
/// failure: nothing passes there by not being looked at.
pub(crate) fn skipped(what: &str, reason: &str) {
    let all = std::env::var("FLEETWARD_TEST_ALL").is_ok_and(|all| all == "1");
    assert!(!all, "{what} cannot be tested here: {reason}");
    eprintln!("SKIPPED: {what} because {reason}");
}
