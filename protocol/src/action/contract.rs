//! What every kind of action must declare.

use std::time::Duration;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::name::{LinuxUser, ResourceName};
use crate::object::{Class, Object};
use crate::text::Word;

/// A kind of action: its parameters, as its host receives them, are the type itself.
pub trait Contract: Serialize + DeserializeOwned + Described {
    /// The kind's name on the wire, in the store, in a host's policy and on the command line: lower-case words with
    /// `-` between them. Never reused.
    const KIND: &'static str;
    /// What it does, in one sentence for a person.
    const SUMMARY: &'static str;
    /// Whether executing it twice has the effect of executing it once.
    const IDEMPOTENT: bool;
    /// Whether a run that a restart of its host cut off can go on in the next boot: each of its steps that changes something
    /// can tell by a look at the host whether it is still to be done. Where it cannot, such a run is lost.
    const RESUMABLE: bool;
    /// Whether it can tell what it would do, and do nothing. Only what runs the code of others cannot.
    const REHEARSES: bool;
    /// The classes of objects that it can touch: what an owner's rule for it may name.
    const OBJECTS: &'static [Class];
    /// How long a run of this kind may take when the request does not say.
    const DEFAULT_TIMEOUT: Duration;
    /// What whoever asks for it must be allowed to do.
    const PRIVILEGE: Privilege;

    /// Its parameters as a person gives them. Where names become digests, or settings come from the inventory, they differ
    /// from what the host receives; where nothing does, they are the type itself, and the controller adds nothing.
    type Asked: Serialize + DeserializeOwned + Described;

    /// What it tells when it ends.
    type Report: Serialize + DeserializeOwned + Described;

    /// What is done to what, as a list shows it: `restart nginx.service`.
    fn subject(&self) -> Word;

    /// What it needs on its host before it may start.
    fn needs(&self) -> Needs;

    /// The objects that it touches, as far as its parameters say: if the owner does not allow one of them, nothing is done.
    fn touches(&self) -> Vec<Object>;

    /// Checks what serde cannot: limits and combinations. Pure.
    ///
    /// # Errors
    /// The first rule that the parameters break, in words for the person who wrote them.
    fn validate(&self) -> Result<(), String>;
}

/// What has a JSON schema, where schemas are built.
#[cfg(feature = "schema")]
pub trait Described: utoipa::ToSchema {}
#[cfg(feature = "schema")]
impl<T: utoipa::ToSchema> Described for T {}

/// What has a JSON schema, where schemas are built.
#[cfg(not(feature = "schema"))]
pub trait Described {}
#[cfg(not(feature = "schema"))]
impl<T> Described for T {}

/// What whoever asks for an action or a query must be allowed to do. The controller says which of its permissions that is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Privilege {
    /// Carry out what is prepared and reviewed: run scripts, restart units.
    Operate,
    /// Change what a host is.
    Administer,
    /// See what a host has, and how it is.
    Observe,
}

/// The resource that is the whole host. Whoever holds it is alone there: it is refused while other runs are under way, and while
/// it holds it no other starts.
pub const ALONE: &str = "host/alone";

/// What an action needs on its host before it may start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Needs {
    /// Who carries it out.
    pub actor: Actor,
    /// The resources that no other run may hold at the same time.
    pub resources: Vec<ResourceName>,
    /// The contents that travel beside the order.
    pub contents: Vec<Digest>,
}

/// Who carries an action out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Actor {
    /// The agent's own user, whoever that is.
    Agent,
    /// Root, and nobody else: an agent without root cannot carry it out.
    Root,
    /// This user.
    User(LinuxUser),
}

/// The report of a kind that has none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct NoReport {}
