//! What kinds touch on a host, as far as the host's owner may say no to it.
//!
//! A kind says of each request which objects it touches; the owner's policy names the objects that it may touch. Neither
//! knows more of the other.

use std::fmt;

use crate::choice::choices;

choices! {
    /// The classes of objects, by the names of the lists that allow them.
    #[derive(PartialOrd, Ord)]
    pub enum Class {
        /// Units of systemd, by name.
        Units = "units",
        /// Files and directories, by absolute path.
        Paths = "paths",
        /// Sites of nginx, by name.
        Sites = "sites",
        /// Linux users, by name.
        Users = "users",
        /// Packages, by name.
        Packages = "packages",
        /// Directives that are given word by word.
        Snippets = "snippets",
    }
}

/// What a request touches.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Object {
    class: Class,
    which: Which,
}

/// Which of a class it is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Which {
    /// The one of this name.
    Named(String),
    /// Every one whose name begins so, ends so, and has something between.
    Between(String, String),
    /// Any: nothing says which.
    Any,
}

impl Object {
    /// The one of this name.
    #[must_use]
    pub fn named(class: Class, name: impl fmt::Display) -> Self {
        Self { class, which: Which::Named(name.to_string()) }
    }

    /// Every one whose name begins and ends so, and has something between.
    #[must_use]
    pub fn between(class: Class, begin: impl fmt::Display, end: impl fmt::Display) -> Self {
        Self { class, which: Which::Between(begin.to_string(), end.to_string()) }
    }

    /// Any of them: nothing says which.
    #[must_use]
    pub const fn any(class: Class) -> Self {
        Self { class, which: Which::Any }
    }

    /// What it is.
    #[must_use]
    pub const fn class(&self) -> Class {
        self.class
    }

    /// Its name, if it is a single one.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        match &self.which {
            Which::Named(name) => Some(name),
            Which::Between(..) | Which::Any => None,
        }
    }

    /// Which it is.
    #[must_use]
    pub const fn which(&self) -> &Which {
        &self.which
    }
}
