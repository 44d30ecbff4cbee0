//! The kinds of query for whoever shows or generates something of them: with schemas, without their types.

use serde_json::Value;

use super::{Bounds, Contract, DESCRIPTIONS};
use crate::action::{Privilege, schema};

/// A kind of query.
#[derive(Debug, Clone, PartialEq)]
pub struct Kind {
    /// [`Contract::KIND`].
    pub name: &'static str,
    /// [`Contract::SUMMARY`].
    pub summary: &'static str,
    /// [`Contract::PRIVILEGE`].
    pub privilege: Privilege,
    /// What an answer may take and bring.
    pub bounds: Bounds,
    /// The JSON schema of the parameters: one document, whose references all lead into its own `components`.
    pub parameters: Value,
    /// The JSON schema of an item, likewise.
    pub item: Value,
}

/// Every kind this build knows, in the order of [`QUERY_KINDS`](super::QUERY_KINDS).
#[must_use]
pub fn catalogue() -> Vec<Kind> {
    DESCRIPTIONS.iter().map(|describe| describe()).collect()
}

impl Kind {
    pub(super) fn of<C: Contract>() -> Self {
        Self {
            name: C::KIND,
            summary: C::SUMMARY,
            privilege: C::PRIVILEGE,
            bounds: Bounds::of::<C>(),
            parameters: schema::<C>(),
            item: schema::<C::Item>(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::query::{MAX_ITEM, QUERY_KINDS};

    #[test]
    fn every_kind_tells_what_it_is_and_what_it_takes() {
        let kinds = catalogue();
        assert_eq!(kinds.iter().map(|kind| kind.name).collect::<Vec<_>>(), QUERY_KINDS);
        for kind in kinds {
            let sentence = kind.summary;
            assert!(sentence.starts_with(char::is_uppercase) && sentence.ends_with('.'), "{sentence}");
            assert!(sentence.matches(". ").count() == 0 && sentence.len() <= 120, "{sentence}");
            let Bounds { timeout, items, bytes, .. } = kind.bounds;
            assert!(timeout >= Duration::from_secs(1) && items > 0, "{}", kind.name);
            assert!((MAX_ITEM..=64 << 20).contains(&bytes), "{}", kind.name);
            for schema in [&kind.parameters, &kind.item] {
                assert_eq!(schema["type"], "object", "{}: {schema}", kind.name);
            }
        }
    }
}
