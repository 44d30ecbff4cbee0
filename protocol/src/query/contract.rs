//! What every kind of query must declare.

use std::time::Duration;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::action::{Actor, Described, Privilege};
use crate::object::{Class, Object};
use crate::text::Word;

/// What an item is called among those of its query; a later item with the same key takes its place.
pub type Key = Word;

/// What the items of an answer are to each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Shows {
    /// A table: each item has its place by its key, and a later one takes it.
    Table,
    /// A sequence, such as lines of a log: each item is another one, has its meaning by where it stands, and is never told
    /// again. Nobody who shows it has to keep it.
    Entries,
}

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
    /// What its items are to each other.
    const SHOWS: Shows;
    /// The classes of objects that it can touch or show: what an owner's rule for it may name.
    const OBJECTS: &'static [Class];
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

    /// The objects that it looks at, as far as its parameters say: if the owner does not allow one of them, nothing is told.
    fn touches(&self) -> Vec<Object>;

    /// The object that an item is, where that is one of [`OBJECTS`](Self::OBJECTS): if the owner does not allow it, it is left
    /// out.
    fn shown(item: &Self::Item) -> Option<Object>;

    /// As whom it looks. A kind whose parameters name a user looks as that one.
    fn actor(&self) -> Actor {
        Actor::Agent
    }

    /// Checks what serde cannot: limits and combinations. Pure.
    ///
    /// # Errors
    /// The first rule that the parameters break, in words for the person who wrote them.
    fn validate(&self) -> Result<(), String>;
}
