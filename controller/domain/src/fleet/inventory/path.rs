//! Paths inside the repository.

use std::fmt;
use std::str::FromStr;

use fleetward_protocol::printable::is_printable;

/// The longest path, in bytes.
const MAX_PATH: usize = 1024;

/// A relative path with no way out: no `..`, no root, no empty or hidden-git component.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RepoPath(String);

/// Why a text is not a path inside the repository.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidRepoPath {
    /// Nothing is there.
    #[error("is empty")]
    Empty,
    /// It starts at the root.
    #[error("is absolute; write it relative to the top of the repository")]
    Absolute,
    /// It climbs.
    #[error("has a `..`; a path has to stay inside the repository")]
    Climbs,
    /// It goes into git's own directory.
    #[error("goes into .git")]
    Git,
    /// It has characters that no script needs.
    #[error("has a backslash or a character that cannot be seen")]
    Characters,
    /// It is over-long.
    #[error("is longer than {MAX_PATH} bytes")]
    TooLong,
}

impl RepoPath {
    /// A file at the top of the repository; `name` is one of ours.
    pub(super) fn top(name: &str) -> Self {
        Self(name.to_owned())
    }

    /// The path with `/` between its components.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for RepoPath {
    type Err = InvalidRepoPath;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.len() > MAX_PATH {
            return Err(InvalidRepoPath::TooLong);
        }
        if text.chars().any(|c| !is_printable(c) || c == '\\') {
            return Err(InvalidRepoPath::Characters);
        }
        if text.starts_with('/') {
            return Err(InvalidRepoPath::Absolute);
        }
        let components: Vec<&str> = text.split('/').filter(|part| !part.is_empty() && *part != ".").collect();
        if components.contains(&"..") {
            return Err(InvalidRepoPath::Climbs);
        }
        if components.iter().any(|part| part.eq_ignore_ascii_case(".git")) {
            return Err(InvalidRepoPath::Git);
        }
        if components.is_empty() {
            return Err(InvalidRepoPath::Empty);
        }
        Ok(Self(components.join("/")))
    }
}

impl fmt::Display for RepoPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stays_inside() {
        assert_eq!(
            "./scripts//a.sh".parse::<RepoPath>().map(|p| p.to_string()),
            Ok("scripts/a.sh".to_owned())
        );
        for (text, why) in [
            ("", InvalidRepoPath::Empty),
            ("./", InvalidRepoPath::Empty),
            ("/etc/passwd", InvalidRepoPath::Absolute),
            ("../x", InvalidRepoPath::Climbs),
            ("a/../../x", InvalidRepoPath::Climbs),
            ("a/..", InvalidRepoPath::Climbs),
            (".git/config", InvalidRepoPath::Git),
            ("a/.GIT/hooks/x", InvalidRepoPath::Git),
            ("a\\b", InvalidRepoPath::Characters),
            ("a\0b", InvalidRepoPath::Characters),
        ] {
            assert_eq!(text.parse::<RepoPath>(), Err(why), "{text:?}");
        }
        assert_eq!("a".repeat(2000).parse::<RepoPath>(), Err(InvalidRepoPath::TooLong));
    }
}
