//! Typed identifiers. One append-only list: a raw UUID never crosses a function boundary.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use crate::client_id::ClientId;
use crate::time::Timestamp;

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
    )*

        /// Calls a macro with the list of all identifiers: whoever keeps them makes what it has to say of each from here.
        #[macro_export]
        macro_rules! for_each_id {
            ($callback:ident) => {
                $callback! { $($crate::id::$name,)* }
            };
        }
    };
}

ids! {
    /// A customer or team.
    TenantId = "tenant id";
    /// A managed machine's row in the inventory. Its identity towards the fleet is its [`ClientId`].
    HostId = "host id";
    /// A person or program that logs in.
    UserId = "user id";
    /// A login of a user: a console session or an API token.
    SessionId = "session id";
    /// One request: what, where, how.
    OperationId = "operation id";
    /// One execution of one action on one host.
    RunId = "run id";
    /// One process of a controller.
    ControllerId = "controller id";
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

impl RunId {
    /// The id of a run: it follows from its operation, its host and its step, so that the same request, planned twice,
    /// means the same runs. A UUID of version 8 (RFC 9562, §5.8): it begins with its operation's time and sorts with it;
    /// the rest is of the SHA-256 of all three.
    #[must_use]
    pub fn derived(operation: OperationId, client: &ClientId, step: u32) -> Self {
        let mut hasher = Sha256::new();
        hasher.update(b"fleetward run\0");
        hasher.update(operation.as_uuid().as_bytes());
        hasher.update(step.to_le_bytes());
        hasher.update(client.as_str());
        let hash: [u8; 32] = hasher.finalize().into();
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&hash[..16]);
        bytes[..6].copy_from_slice(&operation.as_uuid().as_bytes()[..6]);
        Self(uuid::Builder::from_custom_bytes(bytes).into_uuid())
    }

    /// When its operation's id was made, by the clock of whoever made it.
    #[must_use]
    pub fn planned_at(self) -> Timestamp {
        millis(self.0)
    }
}

impl OperationId {
    /// When it was made, by the clock of whoever made it; `None` if it is not of version 7, which says so.
    #[must_use]
    pub fn made_at(self) -> Option<Timestamp> {
        (self.0.get_version_num() == 7).then(|| millis(self.0))
    }
}

/// The first 48 bits: milliseconds since the Unix epoch (RFC 9562, §5.7).
fn millis(uuid: Uuid) -> Timestamp {
    let bytes = uuid.as_bytes();
    Timestamp::from_millis(bytes[..6].iter().fold(0, |millis, byte| millis << 8 | i64::from(*byte)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_runs_id_follows_from_operation_host_and_step() {
        let operation = |text: &str| text.parse::<OperationId>().unwrap();
        let client = |last: u8| ClientId::issued(Uuid::from_u128(last.into()));
        let first = operation("0192f0c1-2345-7abc-8def-0123456789ab");
        let run = RunId::derived(first, &client(1), 0);
        // What is stored and what hosts remember hang on these bytes.
        assert_eq!(run.to_string(), "0192f0c1-2345-808b-b499-8543139b1f9e");
        assert_eq!(run, RunId::derived(first, &client(1), 0));
        let second = operation("0192f0c1-2345-7abc-8def-0123456789ac");
        for other in [
            RunId::derived(second, &client(1), 0),
            RunId::derived(first, &client(2), 0),
            RunId::derived(first, &client(1), 1),
        ] {
            assert_ne!(run, other);
        }
        let later = operation("0192f0c1-2346-7000-8000-000000000000");
        assert!(run < RunId::derived(later, &client(1), 0), "in the order of their operations");
        assert_eq!(first.made_at(), Some(Timestamp::from_millis(0x0192_f0c1_2345)));
        assert_eq!(run.planned_at(), Timestamp::from_millis(0x0192_f0c1_2345));
        assert_eq!(operation("0192f0c1-2345-4abc-8def-0123456789ab").made_at(), None);
    }
}
