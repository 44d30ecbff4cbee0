//! Where the agent keeps its things, and what its owner allows: `/etc/fleetward/agent.toml`.
//!
//! The controller cannot write this file; the policy in it is read again before each run that starts, so that an
//! owner's "no" holds at once. A file that is missing, or that others than its owner could have written, is no policy:
//! nothing runs then.
//! The only module that reads environment variables.

mod rule;
mod settings;

use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use fleetward_protocol::variable;
use fleetward_protocol::wire::DEFAULT_PORT;
use serde::{Deserialize, Deserializer};
use tracing::Level;

pub use rule::{Allowed, Names, Rule};
pub use settings::{LiveSettings, Policy, RunSettings, Settings, SettingsError};

use crate::platform::files::{self, FileError};
use crate::platform::trust::Secrecy;

/// Where the policy and the controllers' addresses stand unless told otherwise.
pub const CONFIG_FILE: &str = "/etc/fleetward/agent.toml";
/// Where the agent keeps its key, its certificate, its journal and its runs unless told otherwise.
pub const STATE_DIRECTORY: &str = "/var/lib/fleetward-agent";
/// Where the host's client ID stands unless told otherwise.
pub const CLIENT_ID_FILE: &str = "/etc/fleetward/client_id";

const MAX_CONTROLLERS: u64 = 64 << 10;

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

    /// One file per process that reads to nowhere what a script left running still writes.
    #[must_use]
    pub fn drains(&self) -> PathBuf {
        self.state.join("drains")
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
    /// The program that supervises runs, called as `PROGRAM supervise <run dir>`, and answers queries, as `PROGRAM look`.
    pub supervisor: PathBuf,
    /// The service manager's notification socket (sd_notify(3)), if there is one.
    pub notify_socket: Option<OsString>,
    /// The address of the system's message bus, if it is not the usual one (dbus-daemon(1)).
    pub bus: Option<String>,
    /// The file of apt's configuration, if it is not the usual one (apt.conf(5)).
    pub apt: Option<String>,
    /// The file that nginx's configuration begins with, if it is not the usual one.
    pub nginx: Option<String>,
    /// The file that says that the host wants to be rebooted, if it is not the usual one.
    pub reboot: Option<String>,
}

impl AgentConfig {
    /// An agent with these files that supervises runs with its own executable.
    ///
    /// `/proc/self/exe` still names that executable after a package upgrade has replaced the file.
    #[must_use]
    pub fn new(paths: Paths) -> Self {
        Self {
            paths,
            supervisor: "/proc/self/exe".into(),
            notify_socket: None,
            bus: None,
            apt: None,
            nginx: None,
            reboot: None,
        }
    }

    /// Takes from the environment the notification socket, which systemd puts there, the address of the bus, the files of
    /// apt's and nginx's configuration, and the one that asks for a reboot.
    #[must_use]
    pub fn with_environment(self) -> Self {
        Self {
            notify_socket: std::env::var_os("NOTIFY_SOCKET"),
            bus: std::env::var(BUS).ok(),
            apt: apt_config(),
            nginx: nginx_config(),
            reboot: std::env::var(REBOOT).ok(),
            ..self
        }
    }
}

/// How much is logged, and what is wrong with the environment: an agent runs on with a word that is none, for a host
/// that is out of reach because of its log would be worse; but it says so.
#[must_use]
pub fn log_level() -> (Level, Vec<String>) {
    let variables: Vec<(OsString, OsString)> = std::env::vars_os().collect();
    read_environment(&variables)
}

fn read_environment(variables: &[(OsString, OsString)]) -> (Level, Vec<String>) {
    let mut wrong: Vec<String> = variable::unknown(variables.iter().filter_map(|(name, _)| name.to_str()))
        .iter()
        .map(ToString::to_string)
        .collect();
    let given = variables.iter().find(|(name, value)| name == LOG && !value.is_empty());
    let level = given.map(|(_, value)| {
        let known = [Level::ERROR, Level::WARN, Level::INFO, Level::DEBUG, Level::TRACE];
        known.into_iter().find(|level| value.eq_ignore_ascii_case(level.as_str())).ok_or(value)
    });
    let level = match level {
        None => Level::INFO,
        Some(Ok(level)) => level,
        Some(Err(value)) => {
            let value: String = value.to_string_lossy().escape_debug().take(40).collect();
            wrong.push(format!(
                "{LOG} is `{value}`, which is none of error, warn, info, debug and trace; info is taken"
            ));
            Level::INFO
        }
    };
    (level, wrong)
}

/// Where the system's message bus is, for every program that uses it.
pub const BUS: &str = "DBUS_SYSTEM_BUS_ADDRESS";

/// Where apt's configuration is, if not at its usual place (apt.conf(5)), for every program of apt's.
pub const APT: &str = "APT_CONFIG";

/// What [`APT`] says.
#[must_use]
pub(crate) fn apt_config() -> Option<String> {
    std::env::var(APT).ok()
}

/// Where nginx's configuration begins, if not where it was built to (nginx(8), `-c`). Paths in it are relative to its directory.
pub const NGINX: &str = "FLEETWARD_NGINX_CONFIG";

/// What [`NGINX`] says.
#[must_use]
pub(crate) fn nginx_config() -> Option<String> {
    std::env::var(NGINX).ok()
}

/// Which file says that the host wants to be rebooted, if not the usual one.
pub const REBOOT: &str = "FLEETWARD_REBOOT_REQUIRED";

/// What [`REBOOT`] says, or the usual one: packages make it (Debian and Ubuntu, `reboot-notifier`, `update-notifier-common`,
/// `unattended-upgrades`).
#[must_use]
pub(crate) fn reboot_required() -> PathBuf {
    std::env::var_os(REBOOT).map_or_else(|| "/run/reboot-required".into(), PathBuf::from)
}

/// How much is logged: `error`, `warn`, `info` (when absent), `debug` or `trace`.
const LOG: &str = "FLEETWARD_LOG";

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

/// The controllers' addresses in the configuration. Without one there are none: nothing runs then, but the host can be
/// enrolled and connect, so that the fleet hears why.
///
/// # Errors
/// If the configuration is there and cannot be used.
pub fn read_configured_controllers(paths: &Paths) -> Result<Vec<Address>, SettingsError> {
    match Settings::load(&paths.config) {
        Ok(settings) => Ok(settings.controllers),
        Err(SettingsError::Missing { .. }) => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

/// The controllers' addresses: of the configuration, else those that the enrolment used; empty if neither names any.
///
/// # Errors
/// If the configuration is there and cannot be used, or what the enrolment left is there and is not addresses.
pub fn read_controllers(paths: &Paths) -> Result<Vec<Address>, SettingsError> {
    let configured = read_configured_controllers(paths)?;
    if !configured.is_empty() {
        return Ok(configured);
    }
    let path = paths.controllers();
    let unusable =
        |source| SettingsError::Controllers { path: path.clone(), config: paths.config.clone(), source };
    let bytes = match files::read_trusted(&path, MAX_CONTROLLERS, Secrecy::Public) {
        Ok(bytes) => bytes,
        Err(error) if error.is_absent() => return Ok(Vec::new()),
        Err(FileError::Failed { source, .. }) => return Err(unusable(source)),
        Err(error @ FileError::Distrusted(_)) => return Err(unusable(std::io::Error::other(error))),
    };
    let text = String::from_utf8(bytes).map_err(|error| unusable(std::io::Error::other(error)))?;
    let address = |(index, line): (usize, &str)| {
        line.parse().map_err(|error| std::io::Error::other(format!("line {}: {error}", index + 1)))
    };
    text.lines().enumerate().map(address).collect::<Result<_, _>>().map_err(unusable)
}

/// Keeps addresses of controllers for a configuration that names none.
///
/// # Errors
/// If they cannot be written.
pub fn write_controllers(paths: &Paths, addresses: &[Address]) -> Result<(), FileError> {
    let lines: String = addresses.iter().map(|address| format!("{address}\n")).collect();
    let path = paths.controllers();
    let known = files::read_file(&path, MAX_CONTROLLERS).is_ok_and(|known| known == lines.as_bytes());
    if known { Ok(()) } else { files::ensure_file(&path, 0o644, lines.as_bytes()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_level_that_is_none_and_a_misspelt_variable_are_told() {
        let read = |pairs: &[(&str, &str)]| {
            let pairs: Vec<_> = pairs.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
            read_environment(&pairs)
        };
        assert_eq!(read(&[("FLEETWARD_LOG", "DEBUG"), ("FLEETWARD_URL", "x")]), (Level::DEBUG, vec![]));
        assert_eq!(read(&[("FLEETWARD_LOG", "")]), (Level::INFO, vec![]));
        for nonsense in ["debgu", "7", "info,quinn=warn"] {
            let (level, wrong) = read(&[("FLEETWARD_LOG", nonsense)]);
            assert_eq!((level, wrong.len()), (Level::INFO, 1));
            assert!(wrong[0].contains(nonsense) && wrong[0].contains("trace"), "{wrong:?}");
        }
        let (_, wrong) = read(&[("FLEETWARD_LOGS", "debug")]);
        assert!(wrong[0].contains("did you mean FLEETWARD_LOG?"), "{wrong:?}");
        assert!(variable::KNOWN.contains(&LOG));
    }

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
        for part in
            ["/controllers;", "agent.toml", "enrol again", ": line 2: `ctl.exam\u{fffd}` is not an address"]
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
