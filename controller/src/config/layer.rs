//! One layer of settings: every one may be absent.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::value::{Controllers, Filter, Listen, Name, Size, Span, SpanOrNone};
use super::{ConfigError, LogFormat};

/// The settings of one layer; absent ones are left to the layer below. `docs/configuration.md` describes them.
#[derive(Debug, Clone, Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Layer {
    /// See [`Config::data`](super::Config::data).
    #[serde(skip_serializing)]
    pub data: Option<PathBuf>,
    /// See [`Config::name`](super::Config::name).
    #[serde(deserialize_with = "name", skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// See [`Config::database`](super::Config::database).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub database: Option<String>,
    /// See [`Link`](super::Link).
    pub link: LinkLayer,
    /// See [`Http`](super::Http).
    pub http: HttpLayer,
    /// See [`Enrolment`](super::Enrolment).
    pub enrolment: EnrolmentLayer,
    /// See [`Inventory`](super::Inventory).
    pub inventory: InventoryLayer,
    /// See [`Retention`](super::Retention).
    pub retention: RetentionLayer,
    /// See [`Log`](super::Log).
    #[serde(skip_serializing)]
    pub log: LogLayer,
}

macro_rules! sections {
    ($($(#[$doc:meta])* $name:ident { $($(#[$field_doc:meta])* $field:ident: $type:ty,)* })*) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, Default, Deserialize, Serialize)]
        #[serde(default, deny_unknown_fields)]
        pub struct $name {
            $($(#[$field_doc])* #[serde(skip_serializing_if = "Option::is_none")] pub $field: Option<$type>,)*
        }

        impl $name {
            fn over(self, lower: Self) -> Self {
                Self { $($field: self.$field.or(lower.$field),)* }
            }
        }
    )*};
}

sections! {
    /// `[link]`
    LinkLayer {
        /// `address:port`
        listen: Listen,
        /// `name:port`
        advertise: String,
        /// Such as `["a.example.com:7443", "b.example.com:7443"]`.
        controllers: Controllers,
    }
    /// `[http]`
    HttpLayer {
        /// `address:port`
        listen: Listen,
        /// Serve HTTP without TLS, on a loopback address only.
        plain_loopback: bool,
        /// A certificate chain in PEM.
        certificate: PathBuf,
        /// Its private key in PEM.
        key: PathBuf,
        /// A file with the token that may read `/metrics`.
        metrics_token_file: PathBuf,
        /// Per address.
        logins_per_minute: u32,
    }
    /// `[enrolment]`
    EnrolmentLayer {
        /// Such as `24h`.
        token_lifetime: Span,
        /// Per address.
        attempts_per_minute: u32,
        /// Such as `30d`.
        certificate_lifetime: Span,
    }
    /// `[inventory]`
    InventoryLayer {
        /// Whether repositories may be on the controller's own machine.
        local_remotes: bool,
    }
    /// `[retention]`
    RetentionLayer {
        /// Such as `365d`.
        operations: Span,
        /// Such as `64GiB`.
        output: Size,
        /// Such as `256MiB`.
        free_space: Size,
        /// Such as `1095d`.
        audit: Span,
        /// Such as `4GiB`.
        audit_size: Size,
        /// Such as `1h`, or `0s`.
        on_hosts: SpanOrNone,
    }
    /// `[log]`
    LogLayer {
        /// `text` or `json`
        format: LogFormat,
        /// Such as `info,quinn=warn`.
        filter: Filter,
    }
}

/// Every setting that a variable can set: `FLEETWARD_` and the key in upper case, `.` as `_`.
pub(super) const KEYS: &[&str] = &[
    "data",
    "name",
    "database",
    "link.listen",
    "link.advertise",
    "link.controllers",
    "http.listen",
    "http.plain_loopback",
    "http.certificate",
    "http.key",
    "http.metrics_token_file",
    "http.logins_per_minute",
    "enrolment.token_lifetime",
    "enrolment.attempts_per_minute",
    "enrolment.certificate_lifetime",
    "inventory.local_remotes",
    "retention.operations",
    "retention.output",
    "retention.free_space",
    "retention.audit",
    "retention.audit_size",
    "retention.on_hosts",
    "log.format",
    "log.filter",
];

impl Layer {
    /// This layer over `lower`: what is set here wins.
    #[must_use]
    pub fn over(self, lower: Self) -> Self {
        Self {
            data: self.data.or(lower.data),
            name: self.name.or(lower.name),
            database: self.database.or(lower.database),
            link: self.link.over(lower.link),
            http: self.http.over(lower.http),
            enrolment: self.enrolment.over(lower.enrolment),
            inventory: self.inventory.over(lower.inventory),
            retention: self.retention.over(lower.retention),
            log: self.log.over(lower.log),
        }
    }

    /// Parses a file's text.
    ///
    /// # Errors
    /// [`ConfigError::File`] with the line.
    pub fn from_toml(path: &Path, text: &str) -> Result<Self, ConfigError> {
        toml::from_str(text).map_err(|error| {
            let start = error.span().map_or(0, |span| span.start.min(text.len()));
            let line = 1 + text.bytes().take(start).filter(|&byte| byte == b'\n').count();
            let source_line = text.lines().nth(line - 1).unwrap_or_default();
            let key = source_line.split('=').next().unwrap_or_default().trim();
            let message = error.message().to_owned();
            let detail = if key.is_empty() || message.contains(&format!("`{key}`")) {
                message
            } else {
                format!("`{key}`: {message}")
            };
            ConfigError::File { path: path.to_owned(), line, detail }
        })
    }

    /// The text of a file with these settings: with those that make a controller what it is, without where its data
    /// are and how a process logs.
    ///
    /// # Errors
    /// If a path is not UTF-8.
    pub fn to_toml(&self) -> Result<String, toml::ser::Error> {
        toml::to_string(self)
    }

    /// Takes the settings out of environment variables; others are none of ours, and an empty one is not set.
    ///
    /// # Errors
    /// [`ConfigError::Variable`] with the variable.
    pub fn from_variables(
        variables: impl IntoIterator<Item = (OsString, OsString)>,
    ) -> Result<Self, ConfigError> {
        let mut layer = Self::default();
        for (variable, value) in variables {
            let Some(key) = KEYS.iter().find(|key| variable == *variable_of(key)) else { continue };
            // To a shell script that is how one says "unset".
            if value.is_empty() {
                continue;
            }
            let variable = variable_of(key);
            let invalid = |detail: String| ConfigError::Variable { variable: variable.clone(), detail };
            let text = value.into_string().map_err(|_| invalid("the value is not UTF-8".to_owned()))?;
            let with_example = |detail: String| match example(key) {
                Some(example) => invalid(format!("{detail}; set it as in {variable}={example}")),
                None => invalid(detail),
            };
            layer = Self::of_one(key, &text).map_err(with_example)?.over(layer);
        }
        Ok(layer)
    }

    fn of_one(key: &str, text: &str) -> Result<Self, String> {
        let quoted = toml::Value::String(text.to_owned());
        // Numbers and truth values are written without quotes; everything else is text.
        let value = match (text.parse::<i64>(), text.parse::<bool>()) {
            (Ok(number), _) => toml::Value::Integer(number),
            (_, Ok(truth)) => toml::Value::Boolean(truth),
            _ => quoted.clone(),
        };
        let nest = |value: toml::Value| {
            key.rsplit('.').fold(value, |inner, part| {
                toml::Value::Table([(part.to_owned(), inner)].into_iter().collect())
            })
        };
        Self::deserialize(nest(value))
            .or_else(|error| Self::deserialize(nest(quoted)).map_err(|_| error))
            .map_err(|error: toml::de::Error| error.message().to_owned())
    }
}

/// A value of a setting whose kind does not name one when it refuses another.
fn example(key: &str) -> Option<&'static str> {
    match key {
        "http.plain_loopback" | "inventory.local_remotes" => Some("true"),
        "http.logins_per_minute" | "enrolment.attempts_per_minute" => Some("30"),
        _ => None,
    }
}

/// The variable that sets `key`.
pub(super) fn variable_of(key: &str) -> String {
    format!("FLEETWARD_{}", key.to_uppercase().replace('.', "_"))
}

fn name<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    Option::<Name>::deserialize(deserializer).map(|name| name.map(|name| name.0))
}
