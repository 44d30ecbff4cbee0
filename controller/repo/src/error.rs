//! Why a fetch failed, told from libgit2's classes, codes and words.

use std::path::{Path, PathBuf};
use std::time::Duration;

use fleetward_domain::fleet::inventory::shell_word;
use fleetward_protocol::printable::to_line;
use git2::{ErrorClass, ErrorCode};

use super::{HostKeys, InvalidRemote, RemoteUrl};

/// Why a branch could not be fetched. No text holds a credential.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// The remote wants to know who we are, and nothing is configured.
    #[error("{0} asks for credentials, but none are configured; set them with `fleetward repo set`")]
    CredentialsMissing(RemoteUrl),
    /// The remote knows us not.
    #[error(
        "{0} refuses the configured credentials; check that they are valid and may read the repository, then set them again"
    )]
    CredentialsRefused(RemoteUrl),
    /// Our private key cannot be used.
    #[error(
        "the configured SSH key cannot be used ({0}); set an unencrypted OpenSSH or PEM private key, or the right passphrase"
    )]
    KeyUnusable(String),
    /// The SSH server is another than before, or somebody stands between.
    #[error(
        "the SSH server of {url} shows the {kind} key {shown}, but {expected} is expected; if its key was changed on purpose, set the new one"
    )]
    HostKeyMismatch {
        /// Where.
        url: RemoteUrl,
        /// The kind of key it showed.
        kind: &'static str,
        /// The key it showed.
        shown: HostKeys,
        /// What is configured or was recorded.
        expected: HostKeys,
    },
    /// The https server's certificate is not valid.
    #[error(
        "the TLS certificate of {0} is not trusted; install its authority in the system's certificate store"
    )]
    Certificate(RemoteUrl),
    /// There is no such repository, or we may not know.
    #[error("there is no repository at {0}, or the credentials may not see it; check the URL")]
    NotFound(RemoteUrl),
    /// The remote sends us elsewhere.
    #[error(
        "{url} redirects to {}; redirects are not followed, so set the URL where the repository is now",
        .to.as_deref().unwrap_or("another address")
    )]
    Redirected {
        /// Where.
        url: RemoteUrl,
        /// The server it sends us to, where it is another one.
        to: Option<String>,
    },
    /// On our own machine, which is not to be read.
    #[error(transparent)]
    Local(InvalidRemote),
    /// No such branch.
    #[error("{url} has no branch `{branch}`; it has {available}")]
    BranchMissing {
        /// Where.
        url: RemoteUrl,
        /// The configured branch.
        branch: String,
        /// The first few it has, for people.
        available: String,
    },
    /// A repository without commits.
    #[error("{0} is empty; push a commit with links.yaml or scripts.yaml first")]
    Empty(RemoteUrl),
    /// The network, or the other end, does not answer.
    #[error("{url} cannot be reached ({detail}); check its name, port and the network in between")]
    Unreachable {
        /// Where.
        url: RemoteUrl,
        /// The reason given.
        detail: String,
    },
    /// It takes too long.
    #[error("fetching {url} took longer than {} seconds", .after.as_secs())]
    TimedOut {
        /// Where.
        url: RemoteUrl,
        /// The time it had.
        after: Duration,
    },
    /// It is too much.
    #[error(
        "{url} sends more than {limit} bytes; an inventory repository should hold no large files in its history"
    )]
    TooLarge {
        /// Where.
        url: RemoteUrl,
        /// The most that is taken.
        limit: u64,
    },
    /// It is too much once it is unpacked.
    #[error(
        "{url} has objects that take more than {} MiB of memory to unpack; take the large files out of its history",
        .limit >> 20
    )]
    TooLargeUnpacked {
        /// Where.
        url: RemoteUrl,
        /// The most bytes that libgit2 may have at a time.
        limit: usize,
    },
    /// Somebody asked to stop.
    #[error("the fetch was stopped")]
    Stopped,
    /// A file remote of another user.
    #[error(
        "{0} belongs to another user, who could change it under us; if you trust it, run this where the repository is, as root: git config --system --add safe.directory {path} (or give it to the account that reads it, with chown -R)",
        path = .0.directory().map_or_else(|| "PATH".to_owned(), shell_word)
    )]
    NotOwned(RemoteUrl),
    /// Our own mirror cannot be made or used.
    #[error("the mirror {path} cannot be used ({detail}); {}", mirror_advice(.path, .detail), path = .path.display())]
    Mirror {
        /// The mirror.
        path: PathBuf,
        /// The reason given.
        detail: String,
    },
    /// The other end does not speak git as it should.
    #[error(
        "{url} answers in a way that cannot be understood ({detail}); check that the URL is a git repository"
    )]
    Protocol {
        /// Where.
        url: RemoteUrl,
        /// The reason given.
        detail: String,
    },
}

impl FetchError {
    /// Whether trying again a little later may help.
    #[must_use]
    pub const fn is_transient(&self) -> bool {
        matches!(self, Self::Unreachable { .. })
    }
}

/// What libgit2's error means for a fetch from `url`.
pub(super) fn classify(url: &RemoteUrl, error: &git2::Error) -> FetchError {
    let words = error.message().to_ascii_lowercase();
    let says = |texts: &[&str]| texts.iter().any(|text| words.contains(text));
    let detail = detail(error);
    let url = url.clone();
    match (error.class(), error.code()) {
        (_, ErrorCode::Owner) => FetchError::NotOwned(url),
        // The code is lost where the other end looks, or a transport stands in between.
        (_, _) if says(&NOT_OWNED) => FetchError::NotOwned(url),
        (_, ErrorCode::Certificate) | (ErrorClass::Ssl, _) if says(&["certificate"]) => {
            FetchError::Certificate(url)
        }
        (_, ErrorCode::Auth) => FetchError::CredentialsRefused(url),
        (_, ErrorCode::Timeout) => FetchError::Unreachable { url, detail },
        (ErrorClass::Http | ErrorClass::Net, _) if says(&["status code: 401", "status code: 403"]) => {
            FetchError::CredentialsRefused(url)
        }
        (ErrorClass::Http | ErrorClass::Net, _) if says(&["status code: 404", "status code: 410"]) => {
            FetchError::NotFound(url)
        }
        (ErrorClass::Http | ErrorClass::Net, _) if says(&["status code: 5", "status code: 429"]) => {
            FetchError::Unreachable { url, detail }
        }
        (_, _) if says(&["cannot redirect from", "unexpected redirect"]) => {
            FetchError::Redirected { url, to: redirected_to(error.message()) }
        }
        (_, _)
            if says(&[
                "not appear to be a git repository",
                "could not find repository",
                "failed to resolve path",
                "repository not found",
                "no such file or directory",
                "does not exist",
            ]) =>
        {
            FetchError::NotFound(url)
        }
        (ErrorClass::Ssh, _) if says(&["private key", "passphrase"]) => FetchError::KeyUnusable(detail),
        (ErrorClass::Ssh, _) if says(&["authentication", "username/publickey"]) => {
            FetchError::CredentialsRefused(url)
        }
        (ErrorClass::Http | ErrorClass::Invalid, _) | (ErrorClass::Net, ErrorCode::Invalid)
            if says(&["content-type", "parse", "invalid"]) =>
        {
            FetchError::Protocol { url, detail }
        }
        (ErrorClass::Net | ErrorClass::Os | ErrorClass::Ssl | ErrorClass::Ssh | ErrorClass::Http, _) => {
            FetchError::Unreachable { url, detail }
        }
        _ => FetchError::Protocol { url, detail },
    }
}

/// How libgit2 and git say that a repository is another user's.
const NOT_OWNED: [&str; 2] = ["not owned by current user", "dubious ownership"];

/// What to do about a mirror that cannot be used.
fn mirror_advice(path: &Path, detail: &str) -> String {
    if NOT_OWNED.iter().any(|words| detail.contains(words)) {
        let path = shell_word(&path.display().to_string()).to_string();
        return format!(
            "it belongs to another user than the controller runs as; give it back: chown -R fleetward:fleetward {path}"
        );
    }
    "check space and permissions of the data directory".to_owned()
}

/// The host in libgit2's "cannot redirect from 'one' to 'other'".
pub(super) fn redirected_to(message: &str) -> Option<String> {
    let to = message.split_once("cannot redirect from ")?.1.split_once("' to '")?.1.strip_suffix('\'')?;
    Some(match to {
        // The scheme is named where that is what it refuses.
        "http" => "a URL that is not encrypted (http://)".to_owned(),
        host => format!("the server `{}`", to_line(host, 253)),
    })
}

/// libgit2's words, which may quote the other end: one line, no control characters, not too long.
pub(super) fn detail(error: &git2::Error) -> String {
    let words = error.message().split_whitespace().collect::<Vec<_>>().join(" ");
    to_line(&words, 300)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_repository_of_another_user_is_told_with_its_remedy() {
        for (url, words) in [
            ("file:///srv/git/fleet", "repository path '/srv/git/fleet' is not owned by current user"),
            ("/srv/git/fleet", "fatal: detected dubious ownership in repository at '/srv/git/fleet'"),
        ] {
            let url: RemoteUrl = url.parse().unwrap();
            for code in [ErrorCode::Owner, ErrorCode::GenericError] {
                let error = git2::Error::new(code, ErrorClass::Config, words);
                let told = classify(&url, &error).to_string();
                assert!(told.contains("git config --system --add safe.directory /srv/git/fleet"), "{told}");
                assert!(told.contains("chown"), "{told}");
            }
        }
        let error = FetchError::Mirror {
            path: "/var/lib/fleetward/repo/1".into(),
            detail: "repository path '/var/lib/fleetward/repo/1' is not owned by current user".to_owned(),
        };
        assert!(
            error.to_string().contains("chown -R fleetward:fleetward /var/lib/fleetward/repo/1"),
            "{error}"
        );
    }
}
