//! The target expression: which hosts an operation means.
//!
//! ```text
//! expression = term { ("|" | "," | "or") term }
//! term       = factor { ("&" | "and") factor }
//! factor     = ("!" | "not") factor | "(" expression ")" | host
//! host       = "all" | NAME | GLOB | "@" GROUP | KEY ":" GLOB | NUMBER-KEY COMPARISON NUMBER | "fact:" FACT
//! FACT       = FACT-KEY [ "=" GLOB | COMPARISON NUMBER ]
//! COMPARISON = ">=" | "<=" | ">" | "<" | "="
//! ```
//!
//! `!` binds strongest, then `&`, then `|`: `a | b & !c` is `a | (b & (!c))`. A bare word is a host's name; with
//! `*` (any characters), `?` (one character), `[1-20]` (numbers; `[01-20]` with leading zeros) or `{a,b}` it is a
//! glob over names, as `pattern` describes. It means the hosts there are: one that is missing in a range is no
//! error. No new host gets a name that is a word of the language ([`check_name`]). Names and tags are compared exactly,
//! everything else without regard to case. Anything may be quoted with `"` or `'`: quoted text is literal, so
//! `"all"` is a host of that name. A value of a closed set ([`STATUSES`], [`ENROLMENTS`]) has to be in it: misspelt
//! under `!` it would mean every host. Keys are listed by [`KEYS`] and [`NUMBER_KEYS`], and `-` in one is as good as `_`; every
//! fact may also be written `fact.KEY`, or `fact:KEY=GLOB`. `fact:KEY` alone means that it is so: of what is `yes` or `no`, that it
//! is `yes`, and of a number, that it is above zero. A host whose facts are not known matches no fact, so `!os:debian` includes it.
//!
//! What it promises: parsing never panics and works in bounded time and depth; a selection takes a bounded number
//! of steps, and one that needs more is an error; what matches nothing, and a name that no host has, are errors
//! that say so. Deliberately absent: regular expressions, and any order of the
//! result other than the given one.

mod budget;
mod error;
mod lexer;
mod matching;
mod parser;
mod pattern;
mod selection;

use std::collections::{BTreeMap, BTreeSet};

use fleetward_protocol::facts::{Facts, Upkeep};
use fleetward_protocol::name::{GroupName, HostName};

use crate::fleet::enrolment::Standing;

use budget::{Budget, MAX_STEPS, TooCostly};
pub use error::{NoTarget, TargetError};
use matching::Node;
use selection::Selection;

/// The longest expression, in bytes.
pub const MAX_LENGTH: usize = 4096;
/// The deepest nesting of parentheses and negations.
pub const MAX_DEPTH: usize = 32;

/// The most groups that an expression names: each stands for an expression as long as this one.
pub const MAX_GROUPS: usize = 64;

/// The bare words that mean something of their own in an expression.
pub(crate) const WORDS: &[&str] = &["all", "and", "not", "or"];

/// A host's name that an expression would take for something else.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "a host cannot be called `{0}`: that word means something of its own in target expressions (`run --on {0}`); take another name"
)]
pub struct ReservedName(&'static str);

/// Refuses to call a host by a word of the language of expressions: whoever writes `all` means every host.
///
/// # Errors
/// [`ReservedName`] for such a word.
pub fn check_name(name: &HostName) -> Result<(), ReservedName> {
    match WORDS.iter().find(|word| name.as_str().eq_ignore_ascii_case(word)) {
        Some(word) => Err(ReservedName(word)),
        None => Ok(()),
    }
}

/// The keys that stand before a `:`.
pub const KEYS: &[&str] = &[
    "name",
    "tag",
    "type",
    "provider",
    "status",
    "enrolment",
    "os",
    "os_version",
    "os_name",
    "kernel",
    "arch",
    "virtualisation",
    "hostname",
    "address",
    "reboot_required",
    "time_synchronised",
];
/// The keys that stand before a comparison. `memory` and `swap` are in bytes and take the suffixes K, M, G and
/// T, in powers of 1024; `uptime` is in seconds.
pub const NUMBER_KEYS: &[&str] = &["cpus", "memory", "swap", "uptime", "updates", "security_updates"];

/// The values of `status:`.
pub const STATUSES: &[&str] = &["online", "offline"];
/// The values of `enrolment:`: the standings of hosts that are in the inventory.
pub const ENROLMENTS: &[&str] = &[
    Standing::Pending.as_str(),
    Standing::Quarantined.as_str(),
    Standing::Enrolled.as_str(),
    Standing::Revoked.as_str(),
];

/// The values of what is so or is not.
pub const ANSWERS: &[&str] = &["yes", "no"];

/// A parsed expression.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    text: String,
    node: Node,
}

/// What an expression looks at: one host, borrowed from wherever it is kept.
#[derive(Debug, Clone, Default)]
pub struct HostView<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its type, such as `VPS`.
    pub kind: &'a str,
    /// Its provider.
    pub provider: &'a str,
    /// Its status as lists show it, such as `online`.
    pub status: &'a str,
    /// How far its enrolment got: one of [`ENROLMENTS`].
    pub enrolment: &'a str,
    /// Its tags.
    pub tags: Vec<&'a str>,
    /// Its facts, if it ever reported any.
    pub facts: Option<&'a Facts>,
    /// What it needs, if it ever told.
    pub upkeep: Option<&'a Upkeep>,
}

impl Target {
    /// Parses an expression.
    ///
    /// # Errors
    /// [`TargetError`], whose text shows the place.
    pub fn parse(text: &str) -> Result<Self, TargetError> {
        let node = parser::parse(text)?;
        Ok(Self { text: text.to_owned(), node })
    }

    /// The expression as it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The groups that it names and that [`with_groups`](Self::with_groups) has not explained, each once.
    #[must_use]
    pub fn groups(&self) -> BTreeSet<&GroupName> {
        self.node.groups().into_iter().collect()
    }

    /// The same expression, knowing what each of these groups means. Groups within groups stay unexplained.
    #[must_use]
    pub fn with_groups(self, groups: &BTreeMap<GroupName, Self>) -> Self {
        let Self { text, node } = self;
        let meaning = |name: &GroupName| groups.get(name).map(|group| group.node.clone());
        Self { text, node: node.with_groups(&meaning) }
    }

    /// The positions in `hosts` of those that the expression means, in the given order. Blocks, for a bounded time.
    ///
    /// # Errors
    /// [`NoTarget`] if it names a group that nobody explained or a host that is not among them, means none of them, or costs too much.
    pub fn select(&self, hosts: &[HostView<'_>]) -> Result<Vec<usize>, NoTarget> {
        self.select_within(hosts, &mut Budget::of(MAX_STEPS))
    }

    fn select_within(&self, hosts: &[HostView<'_>], budget: &mut Budget) -> Result<Vec<usize>, NoTarget> {
        let groups = self.groups();
        if !groups.is_empty() {
            return Err(NoTarget::UnknownGroups { names: groups.into_iter().cloned().collect() });
        }
        let unknown = self.node.unknown_names(hosts);
        if !unknown.is_empty() {
            return Err(NoTarget::unknown(unknown, hosts, budget));
        }
        match Selection::new(hosts, budget).all(&self.node) {
            Ok(chosen) if chosen.is_empty() => {
                Err(NoTarget::Nothing { expression: self.text.clone(), hosts: hosts.len() })
            }
            Ok(chosen) => Ok(chosen),
            Err(TooCostly) => Err(NoTarget::TooCostly { hosts: hosts.len() }),
        }
    }
}

#[cfg(test)]
mod tests;
