//! A host's identity towards the fleet: any prefix followed by a UUID.
//!
//! `FLEET-<uuid>` is what Fleetward issues; `LINKOPS-<uuid>` of migrated hosts stays valid, and so does a bare
//! UUID. The certificate, the host's own `/etc/fleetward/client_id` file and the inventory must agree on it.

use std::fmt;
use std::str::FromStr;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};
use uuid::Uuid;

/// The prefix of the client IDs that Fleetward issues itself.
pub const ISSUED_PREFIX: &str = "FLEET-";

/// The longest prefix accepted before the UUID, in bytes.
pub const MAX_PREFIX: usize = 32;

/// A parsed client ID. Equality is exact on the prefix and case-insensitive on the UUID, which is kept in
/// lower case. On the wire it has that one form, so that no two messages mean the same.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(into = "String")]
pub struct ClientId(String);

/// Why a text is not a client ID.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidClientId {
    /// The last 36 characters are not a hyphenated UUID.
    #[error(
        "`{0}` does not end in a UUID; a client ID is a prefix followed by a UUID, such as FLEET-00000000-0000-4000-8000-000000000001"
    )]
    NoUuid(String),
    /// The prefix has a character outside `A-Z a-z 0-9 - _`, or is too long.
    #[error("the prefix of `{0}` may hold only letters, digits, `-` and `_`, {MAX_PREFIX} at most")]
    BadPrefix(String),
}

impl ClientId {
    /// The client ID that Fleetward issues for a fresh UUID.
    #[must_use]
    pub fn issued(uuid: Uuid) -> Self {
        Self(format!("{ISSUED_PREFIX}{}", uuid.hyphenated()))
    }

    /// The text form, as it stands in the inventory and in `/etc/fleetward/client_id`.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for ClientId {
    type Err = InvalidClientId;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let shown = || text.chars().take(80).collect::<String>();
        let split = text.len().checked_sub(36).filter(|&at| text.is_char_boundary(at));
        let (prefix, uuid) =
            split.map(|at| text.split_at(at)).ok_or_else(|| InvalidClientId::NoUuid(shown()))?;
        let uuid = Uuid::try_parse(uuid).map_err(|_| InvalidClientId::NoUuid(shown()))?;
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        if prefix.len() > MAX_PREFIX || !prefix.bytes().all(allowed) {
            return Err(InvalidClientId::BadPrefix(shown()));
        }
        Ok(Self(format!("{prefix}{}", uuid.hyphenated())))
    }
}

impl<'de> Deserialize<'de> for ClientId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let is_of_a_person = deserializer.is_human_readable();
        let text = String::deserialize(deserializer)?;
        let id: Self = text.parse().map_err(D::Error::custom)?;
        if id.0 == text || is_of_a_person {
            Ok(id)
        } else {
            Err(D::Error::custom("the UUID of a client ID is not in lower case"))
        }
    }
}

impl From<ClientId> for String {
    fn from(id: ClientId) -> Self {
        id.0
    }
}

impl fmt::Display for ClientId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire;

    const UUID: &str = "00000000-0000-4000-8000-000000000007";

    #[test]
    fn accepts_any_prefix_and_a_bare_uuid() {
        for prefix in ["", "FLEET-", "LINKOPS-", "a_b-9"] {
            let text = format!("{prefix}{UUID}");
            assert_eq!(text.parse::<ClientId>().unwrap().as_str(), text);
        }
    }

    #[test]
    fn refuses_what_could_be_mistaken_for_another() {
        for text in [
            "",
            "FLEET-",
            "FLEET-1234",
            &format!("a b{UUID}"),
            &format!("{UUID}\n"),
            &format!("ä{UUID}"),
            &format!("../{UUID}"),
        ] {
            assert!(text.parse::<ClientId>().is_err(), "{text:?}");
        }
        assert!(format!("{}{UUID}", "x".repeat(MAX_PREFIX + 1)).parse::<ClientId>().is_err());
    }

    #[test]
    fn the_uuid_is_case_insensitive() {
        let upper = format!("FLEET-{}", "abcdef00-0000-4000-8000-000000000007".to_uppercase());
        let id = upper.parse::<ClientId>().unwrap();
        assert_eq!(id.as_str(), "FLEET-abcdef00-0000-4000-8000-000000000007");
        assert_eq!(serde_json::from_str::<ClientId>(&format!("\"{upper}\"")).unwrap(), id);
    }

    /// Two bodies of one meaning would be two orders of one signature.
    #[test]
    fn the_wire_has_one_form_of_it() {
        let id = ClientId::issued(Uuid::from_u128(0xabc));
        let lower = wire::encode(&id, 100).unwrap();
        assert_eq!(wire::decode::<ClientId>(&lower, 100).unwrap(), id);
        let upper = lower.iter().map(u8::to_ascii_uppercase).collect::<Vec<_>>();
        assert!(matches!(wire::decode::<ClientId>(&upper, 100), Err(wire::DecodeError::Malformed(_))));
    }
}
