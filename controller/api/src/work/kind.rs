//! Kinds: what may be asked of a host, with the schema of what each takes and answers.

pub mod params;
pub mod schema;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;

/// A kind of action or of query.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Kind {
    /// Its name, by which it is asked for.
    #[schema(example = "unit")]
    pub name: String,
    /// Whether it changes a host or looks at it.
    pub family: Family,
    /// What it does, in one sentence.
    pub summary: String,
    /// The permission that it takes.
    #[schema(example = "run")]
    pub permission: String,
    /// Whether doing it twice has the effect of doing it once.
    pub idempotent: bool,
    /// Seconds it may take where the request does not say.
    pub timeout_s: u32,
    /// Whether an action can tell what it would change, and change nothing.
    #[serde(default)]
    pub dry_run: bool,
    /// What the items of a query are to each other; absent for an action.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shows: Option<Shows>,
    /// Whether a query can go on to tell what changes.
    pub follows: bool,
    /// The JSON schema of its parameters: an object, whose references lead into its own `components`.
    #[schema(value_type = Object)]
    pub parameters: Map<String, Value>,
    /// The JSON schema of an action's report, or of each item that a query answers with, likewise.
    #[schema(value_type = Object)]
    pub answer: Map<String, Value>,
}

/// What the items of an answer are to each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Shows {
    /// Each item has its place by its key, and a later one takes it.
    Table,
    /// A sequence, such as lines of a log: each item is another one, and is never told again.
    Entries,
}

/// What a kind does to a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Family {
    /// It changes something: asked for as a step of an operation.
    Action,
    /// It looks at something: asked for by `POST /queries`.
    Query,
}
