//! Fetching a branch into the mirror.

use std::cell::RefCell;
use std::ffi::OsString;
use std::fs;
use std::net::ToSocketAddrs as _;
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use git2::cert::Cert;
use git2::{
    AutotagOption, CertificateCheckStatus, Cred, CredentialType, ErrorClass, ErrorCode, FetchOptions, Oid,
    RemoteCallbacks, RemoteRedirect, Repository, RepositoryInitOptions,
};

use super::error::{classify, detail, redirected_to};
use super::url::is_own;
use super::{Credentials, FetchError, HostKeys, InvalidRemote, Remote, RemoteUrl, library, memory};

/// Above this many packs the mirror is made anew: every fetch adds one, and nothing here joins them.
const MAX_PACKS: usize = 100;
/// Where the fetched tip is kept, so that its objects count as wanted.
const TIP: &str = "refs/fleetward/tip";

/// What a fetch may take.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Bytes received in one fetch.
    pub bytes: u64,
    /// Wall-clock time for one fetch.
    pub time: Duration,
    /// Where it may go.
    pub reach: Reach,
}

/// Where a fetch may go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// To other machines only: on our own there are repositories that are none of the tenant's, above all the other
    /// mirrors.
    Others,
    /// To our own machine, too, but never into the directory of the mirrors.
    Anywhere,
}

impl Limits {
    /// 256 MiB and five minutes: far above any sensible inventory.
    pub const DEFAULT: Self = Self { bytes: 256 << 20, time: Duration::from_secs(300), reach: Reach::Others };
}

/// What a fetch brought.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fetched {
    /// The commit at the tip of the branch.
    pub commit: String,
    /// How it stands to the commit before.
    pub history: History,
    /// The SSH server's key, where none was configured: to be recorded and required from now on.
    pub first_host_key: Option<HostKeys>,
}

/// How a fetched commit stands to the one that was in force before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum History {
    /// Nothing was in force before.
    First,
    /// It is the same.
    Unchanged,
    /// It comes after it.
    Continued,
    /// It does not come after it: the branch was force-pushed.
    Rewritten,
}

/// Fetches the remote's branch into the bare mirror at `mirror`, which is made if it is missing. `previous` is
/// the commit in force. Returns early when `is_stopped` says so. Blocks.
///
/// # Errors
/// Everything in [`FetchError`]; the mirror stays usable.
pub fn fetch(
    mirror: &Path,
    remote: &Remote,
    previous: Option<&str>,
    limits: &Limits,
    is_stopped: &dyn Fn() -> bool,
) -> Result<Fetched, FetchError> {
    library::ensure_ready();
    check_reach(mirror, remote.url(), limits.reach)?;
    let repository = open_mirror(mirror)?;
    match fetch_into(&repository, remote, previous, limits, is_stopped) {
        // What is damaged is ours, and holds nothing that the remote does not: try once with a fresh one.
        Err(FetchError::Mirror { .. }) => {
            drop(repository);
            fetch_into(&remake_mirror(mirror)?, remote, previous, limits, is_stopped)
        }
        result => result,
    }
}

/// Refuses what is out of reach. The name is looked up here and again by the library: whoever answers differently
/// in between reaches a service that speaks git and takes no credentials of another server; the mirrors are not
/// among those.
fn check_reach(mirror: &Path, url: &RemoteUrl, reach: Reach) -> Result<(), FetchError> {
    if let Some(directory) = url.directory() {
        let inside = |mirrors: PathBuf| {
            fs::canonicalize(decode(directory)).is_ok_and(|path| path.starts_with(mirrors))
        };
        let is_mirror =
            mirror.parent().and_then(|mirrors| fs::canonicalize(mirrors).ok()).is_some_and(inside);
        if is_mirror {
            return Err(FetchError::NotFound(url.clone()));
        }
    }
    let resolves_here = || {
        let server = url.server();
        server
            .and_then(|server| server.to_socket_addrs().ok())
            .is_some_and(|mut found| found.any(|at| is_own(at.ip())))
    };
    match reach {
        Reach::Others if url.is_local() || resolves_here() => {
            Err(FetchError::Local(InvalidRemote::Local(url.as_str().to_owned())))
        }
        Reach::Others | Reach::Anywhere => Ok(()),
    }
}

/// The path that the library opens for the path of a file URL.
fn decode(path: &str) -> PathBuf {
    let mut bytes = Vec::with_capacity(path.len());
    let mut rest = path.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        let digits = after.get(..2).and_then(|digits| std::str::from_utf8(digits).ok());
        match digits.filter(|_| first == b'%').and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = &after[2..];
            }
            None => {
                bytes.push(first);
                rest = after;
            }
        }
    }
    PathBuf::from(OsString::from_vec(bytes))
}

fn fetch_into(
    repository: &Repository,
    remote: &Remote,
    previous: Option<&str>,
    limits: &Limits,
    is_stopped: &dyn Fn() -> bool,
) -> Result<Fetched, FetchError> {
    let watch = Watch { remote, limits, is_stopped, started: Instant::now(), seen: RefCell::default() };
    if watch.check_limits(0).is_err()
        && let Some(failure) = watch.seen.take().failure
    {
        return Err(failure);
    }
    let broken = |error: &git2::Error| mirror_error(repository.path(), error);
    let mut connection =
        repository.remote_anonymous(remote.url().as_str()).map_err(|error| classify(remote.url(), &error))?;
    let mut options = FetchOptions::new();
    options
        .remote_callbacks(watch.callbacks())
        .follow_redirects(RemoteRedirect::None)
        .download_tags(AutotagOption::None)
        .update_fetchhead(false);
    let refspec = format!("+refs/heads/{}:{TIP}", remote.branch());
    let refused = memory::count_refused();
    let fetched = connection.fetch(&[&refspec], Some(&mut options), None);
    drop(options);
    let seen = watch.seen.take();
    // Whatever libgit2 makes of it.
    if fetched.is_err() && memory::count_refused() != refused {
        let url = remote.url().clone();
        return Err(seen.failure.unwrap_or(FetchError::TooLargeUnpacked { url, limit: memory::LIMIT }));
    }
    if let Err(error) = fetched {
        return Err(seen.failure.unwrap_or_else(|| match error.class() {
            ErrorClass::Odb | ErrorClass::Reference | ErrorClass::Zlib | ErrorClass::Object => broken(&error),
            _ => match classify(remote.url(), &error) {
                FetchError::Redirected { url, to: None } => {
                    let to = find_redirection(repository, remote, limits, is_stopped);
                    FetchError::Redirected { url, to }
                }
                failure => failure,
            },
        }));
    }
    let tip = find_tip(&connection, remote)?;
    let commit = repository.find_commit(tip).map_err(|error| broken(&error))?;
    commit.tree().map_err(|error| broken(&error))?;
    let history = compare(repository, tip, previous);
    let first_host_key = seen.host_key.filter(|_| match remote.credentials() {
        Credentials::SshKey { host_keys, .. } => host_keys.is_none(),
        _ => true,
    });
    Ok(Fetched { commit: tip.to_string(), history, first_host_key })
}

/// The server that the remote redirects to. The library names it only to who would follow within one server; so this
/// asks once more, without credentials and for nothing.
fn find_redirection(
    repository: &Repository,
    remote: &Remote,
    limits: &Limits,
    is_stopped: &dyn Fn() -> bool,
) -> Option<String> {
    let anonymous = Remote::new(remote.url().clone(), remote.branch(), Credentials::None).ok()?;
    let started = Instant::now();
    let watch = Watch { remote: &anonymous, limits, is_stopped, started, seen: RefCell::default() };
    let mut options = FetchOptions::new();
    options
        .remote_callbacks(watch.callbacks())
        .follow_redirects(RemoteRedirect::Initial)
        .download_tags(AutotagOption::None)
        .update_fetchhead(false);
    let mut connection = repository.remote_anonymous(anonymous.url().as_str()).ok()?;
    let error = connection.fetch(&["refs/fleetward/none"], Some(&mut options), None).err()?;
    redirected_to(error.message())
}

/// The branch's commit, as the remote just listed it. The mirror's own reference may be of an earlier fetch.
fn find_tip(connection: &git2::Remote<'_>, remote: &Remote) -> Result<Oid, FetchError> {
    let url = remote.url().clone();
    let heads = connection.list().map_err(|error| classify(&url, &error))?;
    let branches: Vec<(&str, Oid)> = heads
        .iter()
        .filter_map(|head| Some((head.name().strip_prefix("refs/heads/")?, head.oid())))
        .collect();
    if let Some((_, tip)) = branches.iter().find(|(name, _)| *name == remote.branch()) {
        return Ok(*tip);
    }
    if branches.is_empty() {
        return Err(FetchError::Empty(url));
    }
    let mut available: Vec<String> = branches
        .iter()
        .take(10)
        .map(|(name, _)| {
            format!("`{}`", name.chars().take(60).flat_map(char::escape_debug).collect::<String>())
        })
        .collect();
    if branches.len() > available.len() {
        available.push(format!("{} more", branches.len() - available.len()));
    }
    Err(FetchError::BranchMissing {
        url,
        branch: remote.branch().to_owned(),
        available: available.join(", "),
    })
}

fn compare(repository: &Repository, tip: Oid, previous: Option<&str>) -> History {
    let Some(previous) = previous else { return History::First };
    match Oid::from_str(previous) {
        Ok(previous) if previous == tip => History::Unchanged,
        Ok(previous) if repository.graph_descendant_of(tip, previous).unwrap_or(false) => History::Continued,
        // A commit that the mirror does not have was not reachable when the mirror was made.
        _ => History::Rewritten,
    }
}

/// What the callbacks look after during one fetch.
struct Watch<'a> {
    remote: &'a Remote,
    limits: &'a Limits,
    is_stopped: &'a dyn Fn() -> bool,
    started: Instant,
    seen: RefCell<Seen>,
}

/// What the callbacks saw.
#[derive(Default)]
struct Seen {
    /// Why a callback ended the fetch: closer to the truth than what libgit2 makes of it.
    failure: Option<FetchError>,
    /// Whether the credentials were given already: being asked again means that they were refused.
    offered: bool,
    host_key: Option<HostKeys>,
}

impl Watch<'_> {
    fn callbacks(&self) -> RemoteCallbacks<'_> {
        let mut callbacks = RemoteCallbacks::new();
        callbacks
            .credentials(|_, username, allowed| self.authenticate(username, allowed))
            .certificate_check(|certificate, _| self.check_server(certificate))
            .transfer_progress(|progress| self.check_limits(progress.received_bytes() as u64).is_ok())
            .sideband_progress(|_| self.check_limits(0).is_ok());
        callbacks
    }

    fn check_limits(&self, received: u64) -> Result<(), git2::Error> {
        let url = || self.remote.url().clone();
        if (self.is_stopped)() {
            return Err(self.fail(FetchError::Stopped));
        }
        if received > self.limits.bytes {
            return Err(self.fail(FetchError::TooLarge { url: url(), limit: self.limits.bytes }));
        }
        if self.started.elapsed() > self.limits.time {
            return Err(self.fail(FetchError::TimedOut { url: url(), after: self.limits.time }));
        }
        Ok(())
    }

    fn authenticate(&self, username: Option<&str>, allowed: CredentialType) -> Result<Cred, git2::Error> {
        self.check_limits(0)?;
        let url = || self.remote.url().clone();
        if allowed == CredentialType::USERNAME {
            return Cred::username(username.unwrap_or("git"));
        }
        if matches!(self.remote.credentials(), Credentials::None) {
            return Err(self.fail(FetchError::CredentialsMissing(url())));
        }
        if std::mem::replace(&mut self.seen.borrow_mut().offered, true) {
            return Err(self.fail(FetchError::CredentialsRefused(url())));
        }
        match self.remote.credentials() {
            Credentials::Password { username, password }
                if allowed.contains(CredentialType::USER_PASS_PLAINTEXT) =>
            {
                Cred::userpass_plaintext(username, password)
            }
            Credentials::SshKey { private_key, passphrase, .. }
                if allowed.intersects(CredentialType::SSH_MEMORY | CredentialType::SSH_KEY) =>
            {
                let user = username.unwrap_or("git");
                Cred::ssh_key_from_memory(user, None, private_key, passphrase.as_deref())
                    .map_err(|error| self.fail(FetchError::KeyUnusable(detail(&error))))
            }
            _ => Err(self.fail(FetchError::CredentialsRefused(url()))),
        }
    }

    fn check_server(&self, certificate: &Cert<'_>) -> Result<CertificateCheckStatus, git2::Error> {
        self.check_limits(0)?;
        // TLS certificates are verified by the library; only SSH leaves the decision to us.
        let Some(host_key) = certificate.as_hostkey() else {
            return Ok(CertificateCheckStatus::CertificatePassthrough);
        };
        let Some(key) = host_key.hostkey() else {
            return Err(git2::Error::new(ErrorCode::Certificate, ErrorClass::Ssh, "the server shows no key"));
        };
        let shown = HostKeys::of_key(key);
        if let Credentials::SshKey { host_keys: Some(expected), .. } = self.remote.credentials()
            && !expected.accepts(&shown)
        {
            let kind = host_key.hostkey_type().map_or("unknown", |kind| kind.short_name());
            let (url, expected) = (self.remote.url().clone(), expected.clone());
            return Err(self.fail(FetchError::HostKeyMismatch { url, kind, shown, expected }));
        }
        self.seen.borrow_mut().host_key = Some(shown);
        Ok(CertificateCheckStatus::CertificateOk)
    }

    /// Notes why the fetch ends, and ends it.
    fn fail(&self, failure: FetchError) -> git2::Error {
        self.seen.borrow_mut().failure.get_or_insert(failure);
        git2::Error::new(ErrorCode::User, ErrorClass::Callback, "ended by the caller")
    }
}

/// Opens the mirror, or makes it; one that is not a repository or has too many packs is made anew.
fn open_mirror(path: &Path) -> Result<Repository, FetchError> {
    if !path.exists() {
        return make_mirror(path);
    }
    let packs = fs::read_dir(path.join("objects/pack")).map(|entries| {
        entries.flatten().filter(|entry| entry.path().extension().is_some_and(|e| e == "pack")).count()
    });
    match Repository::open_bare(path) {
        Ok(repository) if packs.is_ok_and(|packs| packs <= MAX_PACKS) => Ok(repository),
        Err(error) if error.code() == ErrorCode::Owner => Err(mirror_error(path, &error)),
        _ => remake_mirror(path),
    }
}

fn remake_mirror(path: &Path) -> Result<Repository, FetchError> {
    fs::remove_dir_all(path)
        .map_err(|error| FetchError::Mirror { path: path.to_owned(), detail: error.to_string() })?;
    make_mirror(path)
}

fn make_mirror(path: &Path) -> Result<Repository, FetchError> {
    // No template of the system's: it could bring hooks and configuration.
    let mut options = RepositoryInitOptions::new();
    options
        .bare(true)
        .external_template(false)
        .mkpath(true)
        .mode(git2::RepositoryInitMode::from_bits_retain(0o700));
    Repository::init_opts(path, &options).map_err(|error| mirror_error(path, &error))
}

fn mirror_error(path: &Path, error: &git2::Error) -> FetchError {
    FetchError::Mirror { path: path.to_owned(), detail: detail(error) }
}
