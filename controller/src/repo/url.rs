//! Where a repository is: a URL that holds no secret, and a branch.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use super::Credentials;

/// The longest URL or branch, in bytes.
const MAX_TEXT: usize = 1024;

/// A branch of a repository, and what authenticates us there.
#[derive(Debug, Clone)]
pub struct Remote {
    url: RemoteUrl,
    branch: String,
    credentials: Credentials,
}

/// A URL that git can fetch from, without a password in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemoteUrl {
    text: String,
    transport: Transport,
    /// `user@host:port` for ssh, `host:port` for https: what credentials belong to.
    authority: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Transport {
    Http,
    Ssh,
    File,
}

/// Why a URL, branch or combination with credentials is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidRemote {
    /// Not a URL we fetch from.
    #[error("`{0}` is not a repository URL; use https://…, ssh://…, user@host:path, or file:///…")]
    Unsupported(String),
    /// It has a password, or a name that may be a token.
    #[error(
        "the URL holds user information; remove it from the URL and give it as credentials, which are kept encrypted"
    )]
    SecretInUrl,
    /// Unencrypted to another machine.
    #[error("http:// is not encrypted and is accepted for this machine only; use https://")]
    PlainHttp,
    /// Not a branch name.
    #[error("`{0}` is not a branch name")]
    Branch(String),
    /// Credentials that this transport does not use.
    #[error("{0}")]
    Credentials(&'static str),
}

impl Remote {
    /// Checks that the parts fit each other.
    ///
    /// # Errors
    /// If the branch is not a name for one, or the credentials are of another transport.
    pub fn new(url: RemoteUrl, branch: &str, credentials: Credentials) -> Result<Self, InvalidRemote> {
        let valid = branch.len() <= MAX_TEXT
            && !branch.starts_with('-')
            && git2::Reference::is_valid_name(&format!("refs/heads/{branch}"));
        if !valid {
            return Err(InvalidRemote::Branch(
                branch.chars().take(80).flat_map(char::escape_debug).collect(),
            ));
        }
        let misfit = match (url.transport, &credentials) {
            (_, Credentials::None)
            | (Transport::Http, Credentials::Password { .. })
            | (Transport::Ssh, Credentials::SshKey { .. }) => None,
            (Transport::File, _) => Some("a file repository takes no credentials"),
            (Transport::Http, Credentials::SshKey { .. }) => {
                Some("an https repository takes a user and a password or token, not an SSH key")
            }
            (Transport::Ssh, Credentials::Password { .. }) => {
                Some("an ssh repository takes a private key, not a password")
            }
        };
        match misfit {
            Some(why) => Err(InvalidRemote::Credentials(why)),
            None => Ok(Self { url, branch: branch.to_owned(), credentials }),
        }
    }

    /// Where it is.
    #[must_use]
    pub const fn url(&self) -> &RemoteUrl {
        &self.url
    }

    /// The branch followed.
    #[must_use]
    pub fn branch(&self) -> &str {
        &self.branch
    }

    /// What authenticates us.
    #[must_use]
    pub const fn credentials(&self) -> &Credentials {
        &self.credentials
    }
}

impl RemoteUrl {
    /// The text; it holds no secret.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether credentials for `other` may be sent to this one: same transport, same server, same port.
    #[must_use]
    pub fn same_server(&self, other: &Self) -> bool {
        self.transport == other.transport && self.authority == other.authority
    }
}

impl FromStr for RemoteUrl {
    type Err = InvalidRemote;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let text = text.trim();
        let unsupported = || InvalidRemote::Unsupported(shown(text));
        if text.len() > MAX_TEXT || text.contains(|c: char| c.is_control() || c.is_whitespace()) {
            return Err(unsupported());
        }
        if let Some(rest) = text.strip_prefix("https://") {
            return http(text, rest).ok_or_else(unsupported)?;
        }
        if let Some(rest) = text.strip_prefix("http://") {
            let url = http(text, rest).ok_or_else(unsupported)??;
            return if is_loopback(&url.authority) { Ok(url) } else { Err(InvalidRemote::PlainHttp) };
        }
        if let Some(rest) = text.strip_prefix("ssh://") {
            return ssh(rest).ok_or_else(unsupported)?;
        }
        if text.starts_with("file:///") || (text.starts_with('/') && !text.starts_with("//")) {
            return Ok(Self { text: text.to_owned(), transport: Transport::File, authority: String::new() });
        }
        scp(text).ok_or_else(unsupported)
    }
}

impl fmt::Display for RemoteUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

fn http(text: &str, rest: &str) -> Option<Result<RemoteUrl, InvalidRemote>> {
    let (authority, path) = rest.split_once('/')?;
    if authority.contains('@') {
        return Some(Err(InvalidRemote::SecretInUrl));
    }
    let valid = is_server(authority) && !path.is_empty() && !path.contains(['?', '#']);
    let authority = authority.to_ascii_lowercase();
    valid.then(|| Ok(RemoteUrl { text: text.to_owned(), transport: Transport::Http, authority }))
}

fn ssh(rest: &str) -> Option<Result<RemoteUrl, InvalidRemote>> {
    let (authority, path) = rest.split_once('/')?;
    let (user, server) = authority.rsplit_once('@').unwrap_or(("git", authority));
    if user.contains(':') {
        return Some(Err(InvalidRemote::SecretInUrl));
    }
    let authority = format!("{user}@{}", server.to_ascii_lowercase());
    (is_user(user) && is_server(server) && !path.is_empty()).then(|| {
        Ok(RemoteUrl { text: format!("ssh://{authority}/{path}"), transport: Transport::Ssh, authority })
    })
}

/// `user@host:path`, with the path as it stands: relative to the user's home unless it starts with `/`.
fn scp(text: &str) -> Option<RemoteUrl> {
    let (authority, path) = text.split_once(':')?;
    let (user, server) = authority.rsplit_once('@').unwrap_or(("git", authority));
    let valid = is_user(user) && is_server(server) && !path.is_empty() && !path.starts_with("//");
    let authority = format!("{user}@{}", server.to_ascii_lowercase());
    valid.then(|| RemoteUrl { text: format!("{authority}:{path}"), transport: Transport::Ssh, authority })
}

fn is_user(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'+');
    !text.is_empty() && !text.starts_with('-') && text.bytes().all(plain)
}

/// `host` or `host:port`, where the host is a name, an IPv4 address or a bracketed IPv6 address.
fn is_server(text: &str) -> bool {
    let (host, port) = match text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((host, rest)) if host.parse::<std::net::Ipv6Addr>().is_ok() => ("v6", rest.strip_prefix(':')),
        Some(_) => return false,
        None => text.split_once(':').map_or((text, None), |(host, port)| (host, Some(port))),
    };
    let named = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_');
    !host.is_empty()
        && !host.starts_with('-')
        && host.bytes().all(named)
        && port.is_none_or(|port| port.parse::<u16>().is_ok_and(|port| port > 0))
}

fn is_loopback(authority: &str) -> bool {
    let host = match authority.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((host, _)) => host,
        None => authority.split(':').next().unwrap_or_default(),
    };
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// The start of a refused text, without what may be a password in it.
fn shown(text: &str) -> String {
    let safe = match text.rsplit_once('@') {
        Some((_, rest)) => format!("…@{rest}"),
        None => text.to_owned(),
    };
    safe.chars().take(80).flat_map(char::escape_debug).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_what_git_takes_and_keeps_no_secret() {
        for (text, kept) in [
            ("https://git.example.com/ops/fleet.git", "https://git.example.com/ops/fleet.git"),
            ("https://[2001:db8::1]:8443/x", "https://[2001:db8::1]:8443/x"),
            ("http://127.0.0.1:3000/x.git", "http://127.0.0.1:3000/x.git"),
            ("http://[::1]/x", "http://[::1]/x"),
            ("ssh://ops@git.example.com:2222/x", "ssh://ops@git.example.com:2222/x"),
            ("ssh://git.example.com/x", "ssh://git@git.example.com/x"),
            ("git@git.example.com:ops/fleet.git", "git@git.example.com:ops/fleet.git"),
            ("git.example.com:ops/fleet.git", "git@git.example.com:ops/fleet.git"),
            ("file:///srv/git/fleet.git", "file:///srv/git/fleet.git"),
            (" /srv/git/fleet.git ", "/srv/git/fleet.git"),
        ] {
            assert_eq!(text.parse::<RemoteUrl>().as_ref().map(RemoteUrl::as_str), Ok(kept), "{text}");
        }
        for text in [
            "",
            "x",
            "fleet.git",
            "../fleet",
            "ftp://example.com/x",
            "git://example.com/x",
            "https://",
            "https://x",
            "https://-x/y",
            "https://a b/c",
            "https://git.example.com/x?y",
            "ssh://-oProxyCommand=x/y",
            "ssh://a@/x",
            "-x:y",
            "https://a:99999/x",
            "//server/share",
            "https://[x]/y",
            "file://host/x",
            "a\nb:c",
            "ext::sh -c x",
        ] {
            assert!(matches!(text.parse::<RemoteUrl>(), Err(InvalidRemote::Unsupported(_))), "{text:?}");
        }
        for text in [
            "https://u:hunter2@example.com/x",
            "https://hunter2@example.com/x",
            "ssh://u:hunter2@example.com/x",
        ] {
            let error = text.parse::<RemoteUrl>().unwrap_err();
            assert_eq!(error, InvalidRemote::SecretInUrl);
            assert!(!error.to_string().contains("hunter2"));
        }
        let error = "ftp://u:hunter2@example.com/x".parse::<RemoteUrl>().unwrap_err();
        assert!(!error.to_string().contains("hunter2"), "{error}");
        assert_eq!("http://git.example.com/x".parse::<RemoteUrl>(), Err(InvalidRemote::PlainHttp));
        assert_eq!("http://127.0.0.1.example.com/x".parse::<RemoteUrl>(), Err(InvalidRemote::PlainHttp));
    }

    #[test]
    fn credentials_belong_to_a_server() {
        let url = |text: &str| text.parse::<RemoteUrl>().unwrap();
        assert!(url("https://git.example.com/a").same_server(&url("https://GIT.example.com/b")));
        assert!(!url("https://git.example.com/a").same_server(&url("https://git.example.com:8443/a")));
        assert!(!url("https://git.example.com/a").same_server(&url("ssh://git.example.com/a")));
        let key = Credentials::SshKey { private_key: String::new(), passphrase: None, host_keys: None };
        let password = Credentials::Password { username: "u".into(), password: "p".into() };
        assert!(Remote::new(url("https://a/b"), "main", key.clone()).is_err());
        assert!(Remote::new(url("ssh://a/b"), "main", password.clone()).is_err());
        assert!(Remote::new(url("/a/b"), "main", password).is_err());
        assert!(Remote::new(url("ssh://a/b"), "main", key).is_ok());
        for branch in ["", "-x", "a..b", "a b", "a~1", "x.lock", "a\nb", "@{u}", "/", "a//b"] {
            assert!(Remote::new(url("/a/b"), branch, Credentials::None).is_err(), "{branch:?}");
        }
        assert!(Remote::new(url("/a/b"), "release/1.x", Credentials::None).is_ok());
    }
}
