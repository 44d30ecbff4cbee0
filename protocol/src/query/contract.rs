//! What every kind of query must declare.

use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::action::{Described, Privilege};
use crate::text::Word;

/// What an item is called among those of its query; a later item with the same key takes its place.
pub type Key = Word;

/// A kind of query: its parameters are the type itself.
pub trait Contract: Serialize + DeserializeOwned + Described {
    /// The kind's name on the wire, in a host's policy and on the command line: lower-case words with `-` between them.
    /// Never reused, and never that of a kind of action.
    const KIND: &'static str;
    /// What it looks at, in one sentence for a person.
    const SUMMARY: &'static str;
    /// What whoever asks for it must be allowed to do.
    const PRIVILEGE: Privilege;
    /// Whether it can go on to tell what changes.
    const FOLLOWS: bool;
    /// How long a host may take to tell all that there is now.
    const DEFAULT_TIMEOUT: Duration;
    /// The most items that there are now.
    const MAX_ITEMS: usize;
    /// The most bytes of all of them together, keys and JSON.
    const MAX_BYTES: usize;

    /// What it answers with.
    type Item: Serialize + DeserializeOwned + Described;

    /// What an item is called.
    fn key(item: &Self::Item) -> Key;

    /// Checks what serde cannot: limits and combinations. Pure.
    ///
    /// # Errors
    /// The first rule that the parameters break, in words for the person who wrote them.
    fn validate(&self) -> Result<(), String>;
}
