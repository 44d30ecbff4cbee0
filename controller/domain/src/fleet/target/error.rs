//! What is wrong with an expression, or with what it means.

use std::fmt;

use fleetward_protocol::name::GroupName;
use fleetward_protocol::printable::in_line;
use fleetward_protocol::suggest::nearest;

use super::HostView;
use super::budget::Budget;

/// An expression that cannot be read. Its text has three lines: what is wrong, the expression, and a caret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TargetError {
    pub(super) text: String,
    /// The byte at which it went wrong.
    pub(super) at: usize,
    pub(super) message: String,
}

impl TargetError {
    pub(super) fn new(text: &str, at: usize, message: impl Into<String>) -> Self {
        Self { text: text.to_owned(), at: at.min(text.len()), message: message.into() }
    }

    /// The column at which it went wrong, counted in characters from 1.
    #[must_use]
    pub fn column(&self) -> usize {
        self.before().chars().count() + 1
    }

    /// What is wrong and what was expected, in one line.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.message
    }

    fn before(&self) -> &str {
        self.text.get(..self.at).unwrap_or(&self.text)
    }
}

impl fmt::Display for TargetError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        /// How much of a long expression is shown on either side of the place.
        const SHOWN: usize = 60;
        let before: Vec<char> = self.before().chars().collect();
        let skipped = before.len().saturating_sub(SHOWN);
        let before: String = before.iter().skip(skipped).copied().map(in_line).collect();
        let after = self.text.get(self.at..).unwrap_or_default();
        let after: String = after.chars().take(SHOWN).map(in_line).collect();
        let caret = " ".repeat(before.chars().count());
        write!(f, "column {}: {}\n  {before}{after}\n  {caret}^", self.column(), self.message)
    }
}

impl std::error::Error for TargetError {}

/// Why an expression means no hosts.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoTarget {
    /// It names hosts that do not exist.
    #[error("no such host: {}", listed(.names))]
    UnknownNames {
        /// Each name, with the name of a host that was perhaps meant.
        names: Vec<(String, Option<String>)>,
    },
    /// It names groups that do not exist.
    #[error("no such group: {}; `fleetward group list` shows those there are", groups_listed(.names))]
    UnknownGroups {
        /// Each name, without its `@`.
        names: Vec<GroupName>,
    },
    /// No host fits it.
    #[error("`{expression}` matches none of {hosts} hosts")]
    Nothing {
        /// The expression.
        expression: String,
        /// How many hosts there are to choose from.
        hosts: usize,
    },
    /// Finding out would take too many steps.
    #[error(
        "target too costly for {hosts} hosts; make the pattern simpler: fewer `*` and braces in it, or fewer patterns"
    )]
    TooCostly {
        /// How many hosts there are to choose from.
        hosts: usize,
    },
}

impl NoTarget {
    /// What is perhaps meant is said as long as the budget lasts: each name is compared with that of each host.
    pub(super) fn unknown(names: Vec<&str>, hosts: &[HostView<'_>], budget: &mut Budget) -> Self {
        let letters: usize = hosts.iter().map(|host| host.name.len()).sum();
        let mut near = |name: &str| {
            budget.take(name.len().saturating_mul(letters)).ok()?;
            nearest(name, hosts.iter().map(|host| host.name)).map(str::to_owned)
        };
        let names = names.into_iter().map(|name| (name.to_owned(), near(name))).collect();
        Self::UnknownNames { names }
    }
}

fn groups_listed(names: &[GroupName]) -> String {
    names.iter().map(|name| format!("`@{name}`")).collect::<Vec<_>>().join(", ")
}

fn listed(names: &[(String, Option<String>)]) -> String {
    let one = |(name, nearest): &(String, Option<String>)| match nearest {
        Some(nearest) => format!("`{name}` (did you mean `{nearest}`?)"),
        None => format!("`{name}`"),
    };
    names.iter().map(one).collect::<Vec<_>>().join(", ")
}
