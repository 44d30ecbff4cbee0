//! Where the agent keeps its things, and what its owner allows: `/etc/fleetward/agent.toml`.
//!
//! The controller cannot write this file; the policy in it is read again before each run that starts after a
//! change, so that an owner's "no" holds at once. The only module that reads environment variables.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::SystemTime;

use fleetward_protocol::wire::DEFAULT_PORT;
use serde::{Deserialize, Deserializer};

/// Where the policy and the controllers' addresses stand unless told otherwise.
pub const CONFIG_FILE: &str = "/etc/fleetward/agent.toml";
/// Where the agent keeps its key, its certificate, its journal and its runs unless told otherwise.
pub const STATE_DIRECTORY: &str = "/var/lib/fleetward-agent";
/// Where the host's client ID stands unless told otherwise.
pub const CLIENT_ID_FILE: &str = "/etc/fleetward/client_id";

/// The files and directories of one agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Paths {
    /// The policy and the controllers' addresses, written by the host's owner.
    pub config: PathBuf,
    /// Key, certificate, journal and runs.
    pub state: PathBuf,
    /// One line: the host's client ID.
    pub client_id: PathBuf,
}

impl Default for Paths {
    fn default() -> Self {
        Self { config: CONFIG_FILE.into(), state: STATE_DIRECTORY.into(), client_id: CLIENT_ID_FILE.into() }
    }
}

impl Paths {
    /// The private key of the certificate.
    #[must_use]
    pub fn key(&self) -> PathBuf {
        self.state.join("key.pem")
    }

    /// The key of a certificate that was asked for and has not come yet.
    #[must_use]
    pub fn next_key(&self) -> PathBuf {
        self.state.join("key.next.pem")
    }

    /// The certificate, then its issuers.
    #[must_use]
    pub fn certificate(&self) -> PathBuf {
        self.state.join("certificate.pem")
    }

    /// The fleet's root certificate.
    #[must_use]
    pub fn root(&self) -> PathBuf {
        self.state.join("root.pem")
    }

    /// The controllers' addresses that the enrolment used, one a line; for a configuration that names none.
    #[must_use]
    pub fn controllers(&self) -> PathBuf {
        self.state.join("controllers")
    }

    /// The journal.
    #[must_use]
    pub fn journal(&self) -> PathBuf {
        self.state.join("journal")
    }

    /// One directory per run.
    #[must_use]
    pub fn runs(&self) -> PathBuf {
        self.state.join("runs")
    }

    /// What `status` shows of a running agent.
    #[must_use]
    pub fn status(&self) -> PathBuf {
        self.state.join("status.json")
    }
}

/// Everything an [`Agent`](crate::Agent) is started with.
#[derive(Debug, Clone)]
pub struct AgentConfig {
    /// Its files.
    pub paths: Paths,
    /// The program that supervises runs, called as `PROGRAM supervise <run dir>`.
    pub supervisor: PathBuf,
    /// The service manager's notification socket (sd_notify(3)), if there is one.
    pub notify_socket: Option<OsString>,
}

impl AgentConfig {
    /// An agent with these files that supervises runs with its own executable.
    ///
    /// `/proc/self/exe` still names that executable after a package upgrade has replaced the file.
    #[must_use]
    pub fn new(paths: Paths) -> Self {
        Self { paths, supervisor: "/proc/self/exe".into(), notify_socket: None }
    }

    /// Takes the notification socket from the environment, where systemd puts it.
    #[must_use]
    pub fn with_environment(self) -> Self {
        Self { notify_socket: std::env::var_os("NOTIFY_SOCKET"), ..self }
    }
}

/// The filter of the log, from `FLEETWARD_LOG`: `error`, `warn`, `info`, `debug` or `trace`.
#[must_use]
pub fn log_level() -> tracing::Level {
    std::env::var("FLEETWARD_LOG").ok().and_then(|text| text.parse().ok()).unwrap_or(tracing::Level::INFO)
}

/// A controller's address as a person writes it: `HOST`, `HOST:PORT`, `[IPV6]` or `[IPV6]:PORT`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Address {
    host: String,
    port: u16,
}

/// Text that is not an [`Address`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not an address: write HOST, HOST:PORT or [IPV6]:PORT, such as ctl.example.com:7443")]
pub struct InvalidAddress(String);

impl Address {
    /// The name or IP address, without brackets.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The UDP port.
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.port
    }
}

impl FromStr for Address {
    type Err = InvalidAddress;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let invalid = || InvalidAddress(text.chars().take(128).collect());
        let (host, port) = if let Some(rest) = text.strip_prefix('[') {
            let (host, rest) = rest.split_once(']').ok_or_else(invalid)?;
            host.parse::<std::net::Ipv6Addr>().map_err(|_| invalid())?;
            (host, if rest.is_empty() { None } else { Some(rest.strip_prefix(':').ok_or_else(invalid)?) })
        } else if text.parse::<std::net::Ipv6Addr>().is_ok() {
            (text, None)
        } else {
            match text.split_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (text, None),
            }
        };
        let known = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b':');
        if host.is_empty() || host.len() > 253 || !host.bytes().all(known) {
            return Err(invalid());
        }
        let port = port.map_or(Ok(DEFAULT_PORT), str::parse).map_err(|_| invalid())?;
        Ok(Self { host: host.to_owned(), port })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, port } = self;
        if host.contains(':') { write!(f, "[{host}]:{port}") } else { write!(f, "{host}:{port}") }
    }
}

impl<'de> Deserialize<'de> for Address {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// What `agent.toml` says. An empty file allows every kind of action, as every user.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// Where controllers listen; tried in order, names resolved anew each time.
    pub controllers: Vec<Address>,
    /// What may run here.
    pub policy: Policy,
    /// How much may run here.
    pub runs: RunSettings,
}

/// What the host's owner allows.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Policy {
    /// The kinds of action that may run; every kind when absent.
    pub kinds: Option<BTreeSet<String>>,
    /// The Linux users that a run may be; every user when absent.
    pub users: Option<BTreeSet<String>>,
}

/// How much may run at once, and what each run may use.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RunSettings {
    /// Runs at once; more wait in a queue.
    pub concurrent: usize,
    /// Free space, in MiB, below which no run starts and running ones lose the middle of their output.
    pub min_free_mib: u64,
    /// The most output kept of one run, in MiB, whatever the order says.
    pub max_output_mib: u64,
    /// The longest that one run may take, in seconds, whatever the order says; zero for no limit of the host's own.
    pub max_timeout_s: u64,
    /// How long a run that the controller has committed is kept on disk, in seconds.
    pub keep_s: u64,
}

impl Default for RunSettings {
    fn default() -> Self {
        Self { concurrent: 8, min_free_mib: 64, max_output_mib: 16 << 10, max_timeout_s: 0, keep_s: 0 }
    }
}

/// `agent.toml`, or what stands in for a part of it, cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// It exists and cannot be read.
    #[error("read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It is not what it should be.
    #[error("{} is not valid: {detail}", path.display())]
    Invalid {
        /// The file.
        path: PathBuf,
        /// What is wrong, with the line.
        detail: String,
    },
    /// What the enrolment left of the controllers' addresses is not what it should be.
    #[error(
        "use the controllers' addresses in {}; name them in {} instead, or enrol again with --force",
        path.display(),
        config.display()
    )]
    Controllers {
        /// The file.
        path: PathBuf,
        /// The configuration, which comes first.
        config: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

impl Settings {
    /// Reads the file; an absent one is an empty one.
    ///
    /// # Errors
    /// If it cannot be read, or has an unknown key or a wrong type.
    pub fn load(path: &Path) -> Result<Self, SettingsError> {
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(source) => return Err(SettingsError::Read { path: path.to_owned(), source }),
        };
        let invalid = |detail: String| SettingsError::Invalid { path: path.to_owned(), detail };
        let settings: Self = toml::from_str(&text).map_err(|error| invalid(error.to_string()))?;
        if settings.runs.concurrent == 0 {
            return Err(invalid("runs.concurrent is 0, but must be at least 1".into()));
        }
        Ok(settings)
    }
}

/// The settings as they stand in the file now: read again when the file changed.
#[derive(Debug)]
pub struct LiveSettings {
    path: PathBuf,
    read: Option<(Option<Stamp>, Settings)>,
}

type Stamp = (SystemTime, u64, u64);

impl LiveSettings {
    /// Nothing is read yet.
    #[must_use]
    pub const fn new(path: PathBuf) -> Self {
        Self { path, read: None }
    }

    /// The settings in force.
    ///
    /// # Errors
    /// As [`Settings::load`]. A file that became invalid is an error, not the last good one: its owner meant
    /// to say something.
    pub fn current(&mut self) -> Result<&Settings, SettingsError> {
        let stamp = stamp(&self.path);
        let fresh = self.read.take().filter(|(read, _)| *read == stamp);
        let (_, settings) = match fresh {
            Some(read) => self.read.insert(read),
            None => self.read.insert((stamp, Settings::load(&self.path)?)),
        };
        Ok(settings)
    }
}

fn stamp(path: &Path) -> Option<Stamp> {
    use std::os::unix::fs::MetadataExt as _;
    let metadata = std::fs::metadata(path).ok()?;
    Some((metadata.modified().ok()?, metadata.len(), metadata.ino()))
}

/// The controllers' addresses: of the configuration, else those that the enrolment used; empty if neither names any.
///
/// # Errors
/// If the configuration cannot be used, or what the enrolment left is there and is not addresses.
pub fn read_controllers(paths: &Paths) -> Result<Vec<Address>, SettingsError> {
    let settings = Settings::load(&paths.config)?;
    if !settings.controllers.is_empty() {
        return Ok(settings.controllers);
    }
    let path = paths.controllers();
    let unusable =
        |source| SettingsError::Controllers { path: path.clone(), config: paths.config.clone(), source };
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(unusable(error)),
    };
    let address = |(index, line): (usize, &str)| {
        line.parse().map_err(|error| std::io::Error::other(format!("line {}: {error}", index + 1)))
    };
    text.lines().enumerate().map(address).collect::<Result<_, _>>().map_err(unusable)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        for (text, shown) in [
            ("ctl.example.com", "ctl.example.com:7443"),
            ("ctl.example.com:9", "ctl.example.com:9"),
            ("192.0.2.1:7443", "192.0.2.1:7443"),
            ("2001:db8::1", "[2001:db8::1]:7443"),
            ("[2001:db8::1]", "[2001:db8::1]:7443"),
            ("[2001:db8::1]:1", "[2001:db8::1]:1"),
        ] {
            assert_eq!(text.parse::<Address>().unwrap().to_string(), shown);
        }
        for text in ["", ":7443", "a b", "host:", "host:70000", "[::1", "[x]:1", "https://ctl.example.com"] {
            assert!(text.parse::<Address>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn an_unknown_key_is_an_error_and_a_change_is_seen() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("agent.toml");
        let mut live = LiveSettings::new(path.clone());
        assert_eq!(live.current().unwrap(), &Settings::default());
        std::fs::write(
            &path,
            "controllers = ['192.0.2.1']\n[policy]\nkinds = ['script']\nusers = ['deploy']",
        )
        .unwrap();
        let settings = live.current().unwrap();
        assert_eq!(settings.controllers, ["192.0.2.1".parse().unwrap()]);
        assert!(settings.policy.users.as_ref().unwrap().contains("deploy"));
        std::fs::write(&path, "[policy]\nuser = ['deploy']").unwrap();
        assert!(live.current().unwrap_err().to_string().contains("user"));
    }

    #[test]
    fn what_the_enrolment_left_is_addresses_or_an_error() {
        let directory = tempfile::tempdir().unwrap();
        let paths = Paths {
            config: directory.path().join("agent.toml"),
            state: directory.path().to_owned(),
            client_id: directory.path().join("client_id"),
        };
        assert_eq!(read_controllers(&paths).unwrap(), []);
        std::fs::write(paths.controllers(), "ctl.example.com:7443\n192.0.2.1:7443\n").unwrap();
        assert_eq!(read_controllers(&paths).unwrap().len(), 2);

        std::fs::write(paths.controllers(), "ctl.example.com:7443\nctl.exam\0").unwrap();
        let told = crate::link::chain(&read_controllers(&paths).unwrap_err());
        for part in ["/controllers;", "agent.toml", "enrol again", ": line 2: `ctl.exam\0` is not an address"]
        {
            assert!(told.contains(part), "{told}");
        }
        for broken in [&b"\xff\xfe"[..], b"\n"] {
            std::fs::write(paths.controllers(), broken).unwrap();
            assert!(read_controllers(&paths).is_err(), "{broken:?}");
        }
        std::fs::remove_file(paths.controllers()).unwrap();
        std::fs::create_dir(paths.controllers()).unwrap();
        assert!(read_controllers(&paths).is_err(), "it cannot be read");

        std::fs::write(&paths.config, "controllers = ['192.0.2.7']").unwrap();
        assert_eq!(
            read_controllers(&paths).unwrap(),
            ["192.0.2.7".parse().unwrap()],
            "the configuration comes first"
        );
    }
}
