//! Typed identifiers. One append-only list: a raw UUID never crosses a function boundary.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Text that is not the identifier it should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a valid {what}: expected a UUID")]
pub struct InvalidId {
    what: &'static str,
    text: String,
}

macro_rules! ids {
    ($($(#[$doc:meta])* $name:ident = $what:literal;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(Uuid);

        impl $name {
            /// Wraps a UUID made at the rim (version 7, so that ids sort by creation time).
            #[must_use]
            pub const fn from_uuid(uuid: Uuid) -> Self {
                Self(uuid)
            }

            /// The UUID inside.
            #[must_use]
            pub const fn as_uuid(self) -> Uuid {
                self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.hyphenated().fmt(f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({})", stringify!($name), self.0.hyphenated())
            }
        }

        impl FromStr for $name {
            type Err = InvalidId;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                Uuid::try_parse(text)
                    .map(Self)
                    .map_err(|_| InvalidId { what: $what, text: text.chars().take(64).collect() })
            }
        }
    )*};
}

ids! {
    /// A customer or team.
    TenantId = "tenant id";
    /// A managed machine's row in the inventory. Its identity towards the fleet is its [`ClientId`](crate::client_id::ClientId).
    HostId = "host id";
    /// A person or program that logs in.
    UserId = "user id";
    /// A login of a user: a console session or an API token.
    SessionId = "session id";
    /// One request: what, where, how.
    OperationId = "operation id";
    /// One execution of one action on one host.
    RunId = "run id";
    /// One enrolment token.
    TokenId = "token id";
    /// One synchronisation of the inventory repository.
    SyncId = "sync id";
    /// One audit event.
    AuditId = "audit id";
    /// One life of a host's journal; a new one after the journal was lost or wiped.
    JournalId = "journal id";
    /// One boot of a host (`/proc/sys/kernel/random/boot_id`).
    BootId = "boot id";
}
