//! Where a repository is: a URL that holds no secret, and a branch.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use fleetward_protocol::printable::is_printable;

use super::{Credentials, library};

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
    /// A path that is not absolute, or not one of this kind of machine.
    #[error(
        "`{0}` is a path, not a URL; for a repository on the controller's own machine give its absolute path, such as \
         file:///srv/git/fleet.git, otherwise its URL, such as https://git.example.com/ops/fleet.git"
    )]
    Path(String),
    /// `user@host:port/path`, where the short form has no place for a port.
    #[error(
        "`{given}`: git takes `{port}` for a directory here, not for a port; for the port write {with_port}, for the directory \
         {directory}"
    )]
    PortInShortForm {
        /// The text.
        given: String,
        /// What looks like a port.
        port: u16,
        /// The URL in which it is one.
        with_port: String,
        /// The text in which it is none.
        directory: String,
    },
    /// On the controller's own machine, which its configuration does not allow.
    #[error(
        "`{0}` is on the controller's own machine, where there may be more to read than its owner may see; who runs the \
         controller can allow it with `local_remotes = true` under `[inventory]` in its configuration file"
    )]
    Local(String),
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
        library::ensure_ready();
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

    /// Whether it says itself that it is on this machine: a path, or a loopback address.
    #[must_use]
    pub fn is_local(&self) -> bool {
        matches!(self.transport, Transport::File) || is_loopback(&self.authority)
    }

    /// The directory, of a file remote.
    pub(super) fn directory(&self) -> Option<&str> {
        matches!(self.transport, Transport::File)
            .then(|| self.text.strip_prefix("file://").unwrap_or(&self.text))
    }

    /// The host and port to connect to, of a remote on a network.
    pub(super) fn server(&self) -> Option<(&str, u16)> {
        let usual = match self.transport {
            Transport::File => return None,
            Transport::Ssh => 22,
            Transport::Http if self.text.starts_with("http://") => 80,
            Transport::Http => 443,
        };
        let (host, port) = split_server(&self.authority);
        Some((host, port.and_then(|port| port.parse().ok()).unwrap_or(usual)))
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
        if text.len() > MAX_TEXT || text.contains(|c: char| !is_printable(c) || c.is_whitespace()) {
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
        if is_path(text) {
            return Err(InvalidRemote::Path(shown(text)));
        }
        scp(text).ok_or_else(unsupported)?
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
    // A password may hold a `/` and begin like a port: then the rest of it is in what looks like the path.
    if path.contains('@') {
        return Some(Err(InvalidRemote::SecretInUrl));
    }
    let valid = is_server(authority) && !path.is_empty() && !path.contains(['?', '#']);
    let authority = authority.to_ascii_lowercase();
    valid.then(|| Ok(RemoteUrl { text: text.to_owned(), transport: Transport::Http, authority }))
}

fn ssh(rest: &str) -> Option<Result<RemoteUrl, InvalidRemote>> {
    let (authority, path) = rest.split_once('/')?;
    let (user, server) = authority.rsplit_once('@').unwrap_or(("git", authority));
    if user.contains(':') || path.contains('@') {
        return Some(Err(InvalidRemote::SecretInUrl));
    }
    let authority = format!("{user}@{}", server.to_ascii_lowercase());
    (is_user(user) && is_server(server) && !path.is_empty()).then(|| {
        Ok(RemoteUrl { text: format!("ssh://{authority}/{path}"), transport: Transport::Ssh, authority })
    })
}

/// `user@host:path`, with the path as it stands: relative to the user's home unless it starts with `/`.
fn scp(text: &str) -> Option<Result<RemoteUrl, InvalidRemote>> {
    let (before, bracketed) = match text.find('[').filter(|at| text[..*at].ends_with('@') || *at == 0) {
        Some(at) => (text.get(..at)?, text.get(at + 1..)?.split_once("]:")),
        None => ("", None),
    };
    // `user@[host:port]:path`, which git takes, and `user@[2001:db8::1]:path`.
    let (authority, path) = match bracketed {
        Some((inner, path)) if inner.parse::<std::net::Ipv6Addr>().is_ok() => {
            (format!("{before}[{inner}]"), path)
        }
        Some((inner, path)) => {
            let (host, port) = inner.rsplit_once(':')?;
            return port_in_short_form(text, &format!("{before}{host}"), port, path).map(Err);
        }
        None => {
            let (authority, path) = text.split_once(':')?;
            (authority.to_owned(), path)
        }
    };
    let first = path.split('/').next().unwrap_or_default();
    if first.contains('@') || authority.matches('@').count() > 1 {
        return Some(Err(InvalidRemote::SecretInUrl));
    }
    let (user, server) = authority.rsplit_once('@').unwrap_or(("git", &authority));
    let valid = is_user(user) && is_server(server) && !path.is_empty() && !path.starts_with("//");
    if !valid {
        return None;
    }
    let (port, rest) = path.split_once([':', '/']).unwrap_or((path, ""));
    if let Some(refusal) = port_in_short_form(text, &authority, port, rest) {
        return Some(Err(refusal));
    }
    let authority = format!("{user}@{}", server.to_ascii_lowercase());
    Some(Ok(RemoteUrl { text: format!("{authority}:{path}"), transport: Transport::Ssh, authority }))
}

/// What is said of `authority:port/rest`, if `port` is one.
fn port_in_short_form(text: &str, authority: &str, port: &str, rest: &str) -> Option<InvalidRemote> {
    let port: u16 = port.parse().ok().filter(|&port| port > 0)?;
    let rest = rest.trim_start_matches('/');
    Some(InvalidRemote::PortInShortForm {
        given: text.to_owned(),
        port,
        with_port: format!("ssh://{authority}:{port}/{rest}"),
        directory: format!("{authority}:./{port}/{rest}"),
    })
}

/// Whether a person means a file: there is no `:` to end a host, or what stands before it is a drive.
fn is_path(text: &str) -> bool {
    let is_drive = text.as_bytes().get(..3).is_some_and(|start| {
        start[0].is_ascii_alphabetic() && start[1] == b':' && matches!(start[2], b'\\' | b'/')
    });
    !text.is_empty()
        && !text.starts_with("//")
        && (!text.contains(':') || text.starts_with(['.', '~']) || is_drive)
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

/// The host, without brackets, and the port of `user@host:port`.
fn split_server(authority: &str) -> (&str, Option<&str>) {
    let server = authority.rsplit_once('@').map_or(authority, |(_, server)| server);
    match server.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((host, rest)) => (host, rest.strip_prefix(':')),
        None => server.split_once(':').map_or((server, None), |(host, port)| (host, Some(port))),
    }
}

fn is_loopback(authority: &str) -> bool {
    let (host, _) = split_server(authority);
    let name = host.trim_end_matches('.');
    name == "localhost" || name.ends_with(".localhost") || host.parse().is_ok_and(is_own)
}

/// Whether an address is this machine's own, whatever network it is in.
pub(super) fn is_own(address: IpAddr) -> bool {
    // `0.0.0.0` and `::` connect to this machine, too.
    let address = address.to_canonical();
    address.is_loopback() || address.is_unspecified()
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
            "x",
            "fleet.git",
            "../fleet",
            "./fleet.git",
            "~/fleet.git",
            "ops/fleet.git",
            "C:\\fleet",
            "c:/fleet",
            "../a:b",
        ] {
            let error = text.parse::<RemoteUrl>().unwrap_err();
            assert!(
                matches!(error, InvalidRemote::Path(_)) && error.to_string().contains("file:///srv"),
                "{text:?} {error:?}"
            );
        }
        for text in [
            "https://u:hunter2@example.com/x",
            "https://hunter2@example.com/x",
            "https://u:12/hunter2@example.com/x",
            "ssh://u:hunter2@example.com/x",
            "ssh://u:12/hunter2@example.com/x",
            "u:hunter2@example.com:x",
            "u:hunter2@example.com:ops/fleet.git",
            "u:22@example.com:hunter2",
            "hunter2@u@example.com:x",
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
    fn the_short_form_has_no_port_and_the_right_form_is_told() {
        for (text, with_port, directory) in [
            (
                "git@git.example.com:2222/ops/fleet.git",
                "ssh://git@git.example.com:2222/ops/fleet.git",
                "git@git.example.com:./2222/ops/fleet.git",
            ),
            (
                "git@git.example.com:2222:ops/fleet.git",
                "ssh://git@git.example.com:2222/ops/fleet.git",
                "git@git.example.com:./2222/ops/fleet.git",
            ),
            (
                "git@[git.example.com:2222]:ops/fleet.git",
                "ssh://git@git.example.com:2222/ops/fleet.git",
                "git@git.example.com:./2222/ops/fleet.git",
            ),
            ("git.example.com:22", "ssh://git.example.com:22/", "git.example.com:./22/"),
        ] {
            let error = text.parse::<RemoteUrl>().unwrap_err().to_string();
            assert!(error.contains(&format!("write {with_port}, for the directory {directory}")), "{error}");
        }
        for text in [
            "git@git.example.com:./2222/x",
            "git@git.example.com:70000/x",
            "git@git.example.com:2222x/y",
            "git@[2001:db8::1]:x",
        ] {
            assert!(text.parse::<RemoteUrl>().is_ok(), "{text}");
        }
    }

    #[test]
    fn what_is_on_this_machine_is_known() {
        for text in [
            "/srv/git/x",
            "file:///srv/git/x",
            "http://127.0.0.1:3000/x",
            "https://localhost/x",
            "https://LOCALHOST./x",
            "https://git.localhost/x",
            "ssh://ops@127.0.0.2:22/x",
            "git@localhost:x",
            "git@[::1]:x",
            "https://[::1]:8443/x",
            "https://0.0.0.0/x",
            "https://[::ffff:127.0.0.1]/x",
            "ssh://[::]/x",
        ] {
            assert!(text.parse::<RemoteUrl>().unwrap().is_local(), "{text}");
        }
        for text in [
            "https://git.example.com/x",
            "https://127.0.0.1.example.com/x",
            "git@192.0.2.1:x",
            "https://[2001:db8::1]/x",
        ] {
            assert!(!text.parse::<RemoteUrl>().unwrap().is_local(), "{text}");
        }
        let server = |text: &str| {
            text.parse::<RemoteUrl>().unwrap().server().map(|(host, port)| (host.to_owned(), port))
        };
        for (text, host, port) in [
            ("https://git.example.com/x", "git.example.com", 443),
            ("http://127.0.0.1:3000/x", "127.0.0.1", 3000),
            ("ssh://ops@[2001:db8::1]:2222/x", "2001:db8::1", 2222),
            ("git@git.example.com:x", "git.example.com", 22),
        ] {
            assert_eq!(server(text), Some((host.to_owned(), port)));
        }
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
