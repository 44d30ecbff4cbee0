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
    name: Option<String>,
}

impl Object {
    /// The one of this name.
    #[must_use]
    pub fn named(class: Class, name: impl fmt::Display) -> Self {
        Self { class, name: Some(name.to_string()) }
    }

    /// Any of them: nothing says which.
    #[must_use]
    pub const fn any(class: Class) -> Self {
        Self { class, name: None }
    }

    /// What it is.
    #[must_use]
    pub const fn class(&self) -> Class {
        self.class
    }

    /// Which it is; `None` where it may be any.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }
}
