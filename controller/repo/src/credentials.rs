//! What authenticates us to a remote.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::HostKeys;

/// What authenticates us to a remote, and it to us. Serialised only to be sealed.
#[derive(Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Credentials {
    /// Nothing.
    #[default]
    None,
    /// Over https: a user and a password or token.
    Password {
        /// The user; most token schemes take any.
        username: String,
        /// The password or token.
        password: String,
    },
    /// Over ssh: a key of ours, and the server's.
    SshKey {
        /// The private key, OpenSSH or PEM text.
        private_key: String,
        /// Its passphrase.
        #[serde(default)]
        passphrase: Option<String>,
        /// The server's keys; none yet means that the first one seen is to be recorded here.
        #[serde(default)]
        host_keys: Option<HostKeys>,
    },
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "None",
            Self::Password { .. } => "Password(…)",
            Self::SshKey { .. } => "SshKey(…)",
        })
    }
}
