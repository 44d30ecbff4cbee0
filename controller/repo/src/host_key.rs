//! The keys that an SSH server may show: SHA-256 fingerprints, as OpenSSH prints them.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use fleetward_protocol::digest::Digest;
use serde::{Deserialize, Serialize};

/// The most keys one server may have.
const MAX_KEYS: usize = 16;

/// The fingerprints of the keys that are accepted; never empty.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct HostKeys(Vec<[u8; 32]>);

/// Why a text names no host key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "line {line} is neither a SHA256: fingerprint nor a known_hosts line (as `ssh-keyscan git.example.com` prints it): {why}"
)]
pub struct InvalidHostKey {
    line: usize,
    why: &'static str,
}

impl HostKeys {
    /// The fingerprint of one key in its wire form (RFC 4253 §6.6).
    #[must_use]
    pub fn of_key(key: &[u8]) -> Self {
        Self(vec![*Digest::of(key).as_bytes()])
    }

    /// Whether a key that a server shows is one of these; `shown` is [`Self::of_key`] of it.
    #[must_use]
    pub fn accepts(&self, shown: &Self) -> bool {
        shown.0.iter().all(|fingerprint| self.0.contains(fingerprint))
    }
}

impl FromStr for HostKeys {
    type Err = InvalidHostKey;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut keys = Vec::new();
        for (index, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let wrong = |why| InvalidHostKey { line: index + 1, why };
            let key = parse_line(line).map_err(wrong)?;
            if keys.len() >= MAX_KEYS {
                return Err(wrong("too many keys"));
            }
            if !keys.contains(&key) {
                keys.push(key);
            }
        }
        if keys.is_empty() { Err(InvalidHostKey { line: 1, why: "it is empty" }) } else { Ok(Self(keys)) }
    }
}

/// A fingerprint, `type key`, or `hosts type key`; whom the line is for is not looked at, the remote says that.
fn parse_line(line: &str) -> Result<[u8; 32], &'static str> {
    if let Some(digits) = line.strip_prefix("SHA256:") {
        let bytes = STANDARD_NO_PAD.decode(digits.trim_end_matches('=')).map_err(|_| "not base64")?;
        return bytes.try_into().map_err(|_| "a SHA256 fingerprint has 32 bytes");
    }
    if line.starts_with('@') {
        return Err("markers such as @cert-authority are not supported");
    }
    let words: Vec<&str> = line.split_ascii_whitespace().collect();
    let is_type =
        |word: &str| word.starts_with("ssh-") || word.starts_with("ecdsa-sha2-") || word.starts_with("sk-");
    let (kind, key) = match words.as_slice() {
        [kind, key, ..] if is_type(kind) => (*kind, *key),
        [_, kind, key, ..] if is_type(kind) => (*kind, *key),
        _ => return Err("it has no key type such as ssh-ed25519"),
    };
    let key = STANDARD.decode(key).map_err(|_| "the key is not base64")?;
    // The wire form begins with its own type: a key pasted under another type's name is a mistake.
    let named = key.get(4..4 + kind.len()).is_some_and(|inside| inside == kind.as_bytes());
    if named {
        Ok(*Digest::of(&key).as_bytes())
    } else {
        Err("the key is not of the type that the line names")
    }
}

impl TryFrom<String> for HostKeys {
    type Error = InvalidHostKey;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<HostKeys> for String {
    fn from(keys: HostKeys) -> Self {
        let lines: Vec<Self> =
            keys.0.iter().map(|key| format!("SHA256:{}", STANDARD_NO_PAD.encode(key))).collect();
        lines.join("\n")
    }
}

impl fmt::Display for HostKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&String::from(self.clone()).replace('\n', " or "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The wire form of a made-up Ed25519 key.
    fn key(fill: u8) -> Vec<u8> {
        let mut key = b"\0\0\0\x0bssh-ed25519\0\0\0 ".to_vec();
        key.extend_from_slice(&[fill; 32]);
        key
    }

    #[test]
    fn reads_fingerprints_and_known_hosts_lines() {
        let line = format!("ssh-ed25519 {} a comment", STANDARD.encode(key(1)));
        let shown = HostKeys::of_key(&key(1));
        for text in [
            line.clone(),
            format!("# scanned\n[git.example.com]:2222,192.0.2.1 {line}\n"),
            format!("|1|abc=|def= {line}"),
            String::from(shown.clone()),
            format!("{shown}="),
            format!("{}\n{shown}", HostKeys::of_key(&key(2))),
        ] {
            assert!(text.parse::<HostKeys>().unwrap().accepts(&shown), "{text}");
        }
        assert!(!HostKeys::of_key(&key(2)).accepts(&shown));
        for text in [
            "",
            "# none",
            "SHA256:abc",
            "MD5:00:11",
            "ssh-ed25519",
            "ssh-rsa AAAA",
            "@cert-authority * x",
            &line.replace("ssh-ed25519", "ssh-rsa"),
        ] {
            assert!(text.parse::<HostKeys>().is_err(), "{text:?}");
        }
    }
}
