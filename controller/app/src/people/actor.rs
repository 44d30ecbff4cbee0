//! Who does something: what audit events name.

use std::fmt;
use std::net::IpAddr;

use fleetward_protocol::name::{HostName, UserName};

/// Who did something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Actor {
    /// A user.
    User {
        /// The login name.
        name: UserName,
        /// From where.
        remote: Option<IpAddr>,
    },
    /// A host.
    Host(HostName),
    /// Somebody who is not known.
    Unknown {
        /// From where.
        remote: Option<IpAddr>,
    },
    /// The controller itself, or its administrator on its own machine.
    System,
}

impl fmt::Display for Actor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::User { name, .. } => name.fmt(f),
            Self::Host(name) => write!(f, "host:{name}"),
            Self::Unknown { .. } => f.write_str("unknown"),
            Self::System => f.write_str("system"),
        }
    }
}
