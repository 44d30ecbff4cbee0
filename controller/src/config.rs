//! What the controller is told from outside: files, environment, flags.
//!
//! Settings are layered, the later over the earlier: built-in defaults, `instance.toml` in the data directory
//! (written by `init`), the configuration file, `FLEETWARD_*` variables, flags. Each layer is parsed by itself,
//! so that an error can name its file and line, or its variable.
//!
//! **Deliberately absent.** Nothing else in the controller reads the environment or a configuration file. There
//! is no setting that weakens a check.

mod layer;
mod value;

pub use layer::Layer;
pub use value::{Controllers, Filter, InvalidValue, Listen, Name, Size, Span, SpanOrNone};

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;
use std::{env, fs, io};

use fleetward_app::settings::Enrolment;
use fleetward_protocol::text::Word;
use fleetward_protocol::variable;

/// Where the configuration file is unless `--config` or `FLEETWARD_CONFIG` says otherwise. It need not exist.
pub const DEFAULT_FILE: &str = "/etc/fleetward/controller.toml";
/// Where the data directory is unless told otherwise.
pub const DEFAULT_DATA: &str = "/var/lib/fleetward";
/// The settings that `init` was given, in the data directory.
pub const INSTANCE_FILE: &str = "instance.toml";
/// The variable that names the configuration file.
const FILE_VARIABLE: &str = "FLEETWARD_CONFIG";
/// The TCP port of the API and the console.
pub const DEFAULT_HTTP_PORT: u16 = 7444;

/// Everything the controller is told.
#[derive(Debug, Clone)]
pub struct Config {
    /// The data directory.
    pub data: PathBuf,
    /// The name under which people and agents reach the controller; a DNS name or an address.
    pub name: String,
    /// The database's URL.
    pub database: String,
    /// The agents' side.
    pub link: Link,
    /// The people's side.
    pub http: Http,
    /// Enrolment and certificates of hosts.
    pub enrolment: Enrolment,
    /// The inventory repositories.
    pub inventory: Inventory,
    /// What is kept, and how long.
    pub retention: Retention,
    /// The log.
    pub log: Log,
}

/// How agents reach the controller.
#[derive(Debug, Clone)]
pub struct Link {
    /// The UDP address to listen on.
    pub listen: SocketAddr,
    /// What enrol commands name: `name:port`.
    pub advertise: String,
    /// What agents are told to connect to, if anything.
    pub controllers: Vec<Word>,
}

/// How people reach the controller.
#[derive(Debug, Clone)]
pub struct Http {
    /// The TCP address to listen on.
    pub listen: SocketAddr,
    /// How the connection is protected.
    pub transport: Transport,
    /// A file with a token that may read `/metrics` and nothing else.
    pub metrics_token_file: Option<PathBuf>,
    /// Logins tried per minute from one address; above it they are refused unseen.
    pub logins_per_minute: u32,
}

/// How the web side is protected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Transport {
    /// HTTPS with a certificate of the controller's own authority, kept fresh.
    OwnCertificate,
    /// HTTPS with this certificate chain and key, in PEM.
    Certificate {
        /// The chain.
        certificate: PathBuf,
        /// The private key.
        key: PathBuf,
    },
    /// HTTP without TLS; only ever on a loopback address.
    PlainLoopback,
}

/// The inventory repositories.
#[derive(Debug, Clone)]
pub struct Inventory {
    /// Whether they may be on the controller's own machine.
    pub local_remotes: bool,
}

/// What is kept, and how long.
#[derive(Debug, Clone)]
pub struct Retention {
    /// Finished operations older than this are removed, with their output.
    pub operations: Duration,
    /// Output above this many bytes in total is removed, of the oldest operations first.
    pub output: u64,
    /// Free disk space in the data directory below which no new operations are taken.
    pub free_space: u64,
    /// Audit events older than this are removed.
    pub audit: Duration,
    /// Above about this many bytes of audit events the oldest are removed.
    pub audit_size: u64,
    /// For how long hosts keep runs that they have delivered.
    pub on_hosts: Duration,
}

/// The log.
#[derive(Debug, Clone)]
pub struct Log {
    /// What a line looks like.
    pub format: LogFormat,
    /// Which events are logged, in `tracing-subscriber`'s filter syntax, such as `info` or `info,quinn=warn`.
    pub filter: String,
}

/// What a log line looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people and journald.
    Text,
    /// One JSON object per line.
    Json,
}

/// Why the configuration is not usable.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A file could not be read.
    #[error("read {path}: {cause}{remedy}", path = .path.display(), remedy = remedy(.cause))]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The operating system's reason.
        cause: io::Error,
    },
    /// A file has something that is not a setting.
    #[error("{path}:{line}: {detail}", path = .path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What is wrong, naming the key.
        detail: String,
    },
    /// A variable has a value that is not one for its setting.
    #[error("environment variable {variable}: {detail}")]
    Variable {
        /// The variable.
        variable: String,
        /// What is wrong.
        detail: String,
    },
    /// A setting that has no default is not set.
    #[error("`{key}` is not set; run `fleetward-controller init` first, or set it in {DEFAULT_FILE}")]
    Unset {
        /// The setting.
        key: &'static str,
    },
    /// Settings that do not go together.
    #[error("{0}")]
    Contradiction(String),
}

impl Config {
    /// Reads all layers under `flags`. `file` is what `--config` says.
    ///
    /// # Errors
    /// The first thing that is wrong, naming the file and line, the variable or the key.
    pub fn load(file: Option<&Path>, flags: Layer) -> Result<Self, ConfigError> {
        Sources::read(file, flags)?.config()
    }

    /// Fills in the defaults.
    ///
    /// # Errors
    /// If a setting without a default is absent, or settings contradict each other.
    pub fn from_layer(layer: Layer) -> Result<Self, ConfigError> {
        let name = layer.name.ok_or(ConfigError::Unset { key: "name" })?;
        let data = layer.data.unwrap_or_else(|| PathBuf::from(DEFAULT_DATA));
        let database = layer.database.unwrap_or_else(|| sqlite_url(&data));
        let link_listen = layer
            .link
            .listen
            .map_or_else(|| any_address(fleetward_protocol::wire::DEFAULT_PORT), |listen| listen.0);
        let advertise = layer.link.advertise.unwrap_or_else(|| authority(&name, link_listen.port()));
        let controllers = layer.link.controllers.map(|controllers| controllers.0).unwrap_or_default();
        let http_listen = layer.http.listen.map_or_else(|| any_address(DEFAULT_HTTP_PORT), |listen| listen.0);
        let transport = match (layer.http.plain_loopback, layer.http.certificate, layer.http.key) {
            (Some(true), None, None) => {
                if !http_listen.ip().is_loopback() {
                    return Err(ConfigError::Contradiction(format!(
                        "`http.plain_loopback` serves HTTP without TLS, but `http.listen` is {http_listen}, which is not a loopback address"
                    )));
                }
                Transport::PlainLoopback
            }
            (None | Some(false), Some(certificate), Some(key)) => Transport::Certificate { certificate, key },
            (None | Some(false), None, None) => Transport::OwnCertificate,
            (Some(true), ..) => {
                return Err(ConfigError::Contradiction(
                    "`http.plain_loopback` and `http.certificate` exclude each other".to_owned(),
                ));
            }
            _ => {
                return Err(ConfigError::Contradiction(
                    "`http.certificate` and `http.key` are set together or not at all".to_owned(),
                ));
            }
        };
        let day = 86_400;
        let is_shared = database.starts_with("postgres");
        Ok(Self {
            link: Link { listen: link_listen, advertise, controllers },
            http: Http {
                listen: http_listen,
                transport,
                metrics_token_file: layer.http.metrics_token_file,
                logins_per_minute: layer.http.logins_per_minute.unwrap_or(30),
            },
            enrolment: Enrolment {
                token_lifetime: duration(layer.enrolment.token_lifetime, day),
                attempts_per_minute: layer.enrolment.attempts_per_minute.unwrap_or(30),
                certificate_lifetime: duration(layer.enrolment.certificate_lifetime, 30 * day),
            },
            inventory: Inventory { local_remotes: layer.inventory.local_remotes.unwrap_or(false) },
            retention: Retention {
                operations: duration(layer.retention.operations, 365 * day),
                output: layer.retention.output.map_or(64 << 30, |size| size.0),
                free_space: layer.retention.free_space.map_or(256 << 20, |size| size.0),
                audit: duration(layer.retention.audit, 3 * 365 * day),
                audit_size: layer.retention.audit_size.map_or(4 << 30, |size| size.0),
                on_hosts: layer
                    .retention
                    .on_hosts
                    .map_or(Duration::from_secs(if is_shared { 3600 } else { 0 }), |span| span.0),
            },
            log: Log {
                format: layer.log.format.unwrap_or(LogFormat::Text),
                filter: layer.log.filter.map_or_else(|| "info".to_owned(), |filter| filter.0),
            },
            data,
            name,
            database,
        })
    }

    /// The address of the API and the console, for people.
    #[must_use]
    pub fn url(&self) -> String {
        match self.http.transport {
            Transport::PlainLoopback => format!("http://{}", self.http.listen),
            Transport::OwnCertificate | Transport::Certificate { .. } => {
                format!("https://{}", authority(&self.name, self.http.listen.port()))
            }
        }
    }

    /// Where the authority's keys and certificates are.
    #[must_use]
    pub fn pki_directory(&self) -> PathBuf {
        self.data.join("pki")
    }

    /// The key that secrets in the database are encrypted with.
    #[must_use]
    pub fn secret_key(&self) -> PathBuf {
        self.data.join("secret.key")
    }

    /// What the controller that runs on this data directory holds locked.
    #[must_use]
    pub fn lock(&self) -> PathBuf {
        self.data.join("serve.lock")
    }

    /// The mirrors of the inventory repositories.
    #[must_use]
    pub fn repo_directory(&self) -> PathBuf {
        self.data.join("repo")
    }
}

/// The layers that a command is given from outside, read.
#[derive(Debug, Clone)]
pub struct Sources {
    /// Flags over variables: what only this process was told.
    given: Layer,
    /// The configuration file.
    file: Layer,
    /// Where that is, if it is one that only this process was told of.
    named: Option<PathBuf>,
}

impl Sources {
    /// Reads `flags`, the environment and the configuration file, which `--config` names as `file`.
    ///
    /// # Errors
    /// The first thing that is wrong, naming the file and line or the variable.
    pub fn read(file: Option<&Path>, flags: Layer) -> Result<Self, ConfigError> {
        Self::of(file, flags, env::vars_os())
    }

    fn of(
        file: Option<&Path>,
        flags: Layer,
        variables: impl IntoIterator<Item = (OsString, OsString)>,
    ) -> Result<Self, ConfigError> {
        let variables: Vec<(OsString, OsString)> = variables.into_iter().collect();
        let from_variable = variables
            .iter()
            .find(|(name, value)| name == FILE_VARIABLE && !value.is_empty())
            .map(|(_, value)| PathBuf::from(value));
        let named = file.map(Path::to_owned).or(from_variable);
        let file = match &named {
            Some(path) => read(path)?,
            None => read_if_exists(Path::new(DEFAULT_FILE))?,
        };
        Ok(Self { given: flags.over(Layer::from_variables(variables)?), file, named })
    }

    /// What flags and variables say: no other process knows it.
    #[must_use]
    pub const fn given(&self) -> &Layer {
        &self.given
    }

    /// The data directory.
    #[must_use]
    pub fn data(&self) -> PathBuf {
        self.given.data.clone().unwrap_or_else(|| self.usual_data())
    }

    /// The configuration file, if it is one that only this process was told of.
    #[must_use]
    pub fn named_file(&self) -> Option<&Path> {
        self.named.as_deref()
    }

    /// Whether a `serve` without any flag or variable finds the same file and the same data directory.
    #[must_use]
    pub fn are_usual(&self) -> bool {
        self.named.is_none() && self.data() == self.usual_data()
    }

    /// What it all comes to, with what `init` has left in the data directory.
    ///
    /// # Errors
    /// [`ConfigError`].
    pub fn config(self) -> Result<Config, ConfigError> {
        let instance = read_if_exists(&self.data().join(INSTANCE_FILE))?;
        Config::from_layer(self.given.over(self.file).over(instance))
    }

    fn usual_data(&self) -> PathBuf {
        self.file.data.clone().unwrap_or_else(|| PathBuf::from(DEFAULT_DATA))
    }
}

/// The variables that look like Fleetward's and are none, in words.
#[must_use]
pub fn unknown_variables() -> Vec<String> {
    let names: Vec<String> = env::vars_os().filter_map(|(name, _)| name.into_string().ok()).collect();
    variable::unknown(names.iter().map(String::as_str)).iter().map(ToString::to_string).collect()
}

/// The service manager's notification socket (sd_notify(3)), if there is one.
#[must_use]
pub fn notify_socket() -> Option<OsString> {
    env::var_os("NOTIFY_SOCKET")
}

/// What to do about a file that may not be read.
fn remedy(cause: &io::Error) -> &'static str {
    match cause.kind() {
        io::ErrorKind::PermissionDenied => {
            "; run this as root or as the service's user (`runuser -u fleetward -- fleetward-controller …`)"
        }
        _ => "",
    }
}

/// The SQLite database of a data directory.
#[must_use]
pub fn sqlite_url(data: &Path) -> String {
    format!("sqlite://{}", data.join("fleetward.db").display())
}

/// `name:port`, with an IPv6 address in brackets.
fn authority(name: &str, port: u16) -> String {
    if name.contains(':') { format!("[{name}]:{port}") } else { format!("{name}:{port}") }
}

fn any_address(port: u16) -> SocketAddr {
    SocketAddr::from((std::net::Ipv6Addr::UNSPECIFIED, port))
}

fn duration(span: Option<Span>, default_s: u64) -> Duration {
    span.map_or(Duration::from_secs(default_s), |span| span.0)
}

fn read(path: &Path) -> Result<Layer, ConfigError> {
    let text =
        fs::read_to_string(path).map_err(|cause| ConfigError::Unreadable { path: path.to_owned(), cause })?;
    Layer::from_toml(path, &text)
}

fn read_if_exists(path: &Path) -> Result<Layer, ConfigError> {
    match fs::read_to_string(path) {
        Ok(text) => Layer::from_toml(path, &text),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Layer::default()),
        Err(cause) => Err(ConfigError::Unreadable { path: path.to_owned(), cause }),
    }
}

#[cfg(test)]
mod tests;
