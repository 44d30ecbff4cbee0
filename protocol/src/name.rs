//! Names that people choose, as parsed newtypes.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Why a text is not a name of its kind.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a valid {what}: {rule}")]
pub struct InvalidName {
    what: &'static str,
    text: String,
    rule: &'static str,
}

macro_rules! names {
    ($($(#[$doc:meta])* $name:ident = $what:literal, max $max:literal, $allowed:expr, $rule:literal;)*) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// The text of the name.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = InvalidName;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                let allowed: fn(u8) -> bool = $allowed;
                let starts_well = text.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
                if starts_well && text.len() <= $max && text.bytes().all(allowed) {
                    Ok(Self(text.to_owned()))
                } else {
                    Err(InvalidName { what: $what, text: text.chars().take(80).collect(), rule: $rule })
                }
            }
        }

        impl TryFrom<String> for $name {
            type Error = InvalidName;

            fn try_from(text: String) -> Result<Self, Self::Error> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> Self {
                name.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    )*

        /// Calls a macro with the list of all names: whoever keeps them makes what it has to say of each from here.
        #[macro_export]
        macro_rules! for_each_name {
            ($callback:ident) => {
                $callback! { $($crate::name::$name,)* }
            };
        }
    };
}

names! {
    /// A host's name in the inventory, unique within its tenant.
    HostName = "host name", max 128, |byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'),
        "up to 128 letters, digits, `-`, `_` and `.`, starting with a letter, a digit or `_`";
    /// A script's id in `scripts.yaml`.
    ScriptName = "script name", max 128, |byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'),
        "up to 128 letters, digits, `-`, `_` and `.`, starting with a letter, a digit or `_`";
    /// A group's name, unique within its tenant.
    GroupName = "group name", max 64, |byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'),
        "up to 64 letters, digits, `-`, `_` and `.`, starting with a letter, a digit or `_`";
    /// A label on a host or a script.
    Tag = "tag", max 64, |byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'/' | b'='),
        "up to 64 letters, digits, `-`, `_`, `.`, `/` and `=`, starting with a letter, a digit or `_`";
    /// A login name.
    UserName = "user name", max 64, |byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'@' | b'+'),
        "up to 64 letters, digits, `-`, `_`, `.`, `@` and `+`, starting with a letter, a digit or `_`";
    /// A tenant's short name.
    TenantName = "tenant name", max 64, |byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-',
        "up to 64 lower-case letters, digits and `-`, starting with a letter or a digit";
    /// A Linux account, as `useradd(8)` accepts it.
    LinuxUser = "Linux user", max 32, |byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'_'),
        "up to 32 lower-case letters, digits, `-` and `_`, starting with a letter, a digit or `_` (useradd(8))";
    /// A resource that two runs may not hold at once, such as `apt`.
    ResourceName = "resource name", max 64, |byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'/'),
        "up to 64 letters, digits, `-`, `_`, `.` and `/`, starting with a letter, a digit or `_`";
}
