//! Values of settings as people write them.

use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;
use std::time::Duration;

use fleetward_protocol::message::MAX_CONTROLLERS;
use fleetward_protocol::text::Word;
use serde::{Deserialize, Serialize};
use tracing_subscriber::EnvFilter;

/// Why a text is not a value of its kind.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not {expected}")]
pub struct InvalidValue {
    text: String,
    expected: &'static str,
}

impl InvalidValue {
    fn new(text: &str, expected: &'static str) -> Self {
        Self { text: text.chars().take(64).collect(), expected }
    }
}

/// A span of time: `90s`, `15m`, `24h`, `30d`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(try_from = "String", into = "String")]
pub struct Span(pub Duration);

/// A span of time that may be none: `0s` too.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(try_from = "String", into = "String")]
pub struct SpanOrNone(pub Duration);

/// A number of bytes: `512KiB`, `64MiB`, `4GiB`, `1TiB`, or a bare number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(try_from = "Written")]
pub struct Size(pub u64);

/// A DNS name or an address.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Name(pub String);

/// Where to listen: an address and a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(try_from = "Written")]
pub struct Listen(pub SocketAddr);

/// Which events are logged: levels, and targets with theirs, such as `info,quinn=warn`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(try_from = "String")]
pub struct Filter(pub(super) String);

/// Where the controllers of a fleet are for its agents: a list, or a text with commas between them.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(try_from = "Several", into = "Vec<String>")]
pub struct Controllers(pub(super) Vec<Word>);

/// A list as a file has it, or as a variable.
#[derive(Deserialize)]
#[serde(untagged)]
enum Several {
    Text(String),
    List(Vec<String>),
}

/// A number with or without its unit.
#[derive(Deserialize)]
#[serde(untagged)]
enum Written {
    Number(u64),
    Text(String),
}

impl FromStr for Span {
    type Err = InvalidValue;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        span(text)
            .filter(|span| !span.is_zero())
            .map(Self)
            .ok_or_else(|| InvalidValue::new(text, "a span of time such as 90s, 15m, 24h or 30d"))
    }
}

impl FromStr for SpanOrNone {
    type Err = InvalidValue;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        span(text)
            .map(Self)
            .ok_or_else(|| InvalidValue::new(text, "a span of time such as 90s, 15m or 24h, or 0s for none"))
    }
}

impl FromStr for Size {
    type Err = InvalidValue;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let units = [("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30), ("TiB", 1 << 40), ("", 1)];
        with_unit(text, &units)
            .map(Self)
            .ok_or_else(|| InvalidValue::new(text, "a number of bytes such as 512KiB, 64MiB or 4GiB"))
    }
}

impl FromStr for Name {
    type Err = InvalidValue;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let label = |label: &str| {
            !label.is_empty()
                && label.len() <= 63
                && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
                && !label.starts_with('-')
                && !label.ends_with('-')
        };
        if text.parse::<IpAddr>().is_ok() || (text.len() <= 253 && text.split('.').all(label)) {
            Ok(Self(text.to_owned()))
        } else {
            Err(InvalidValue::new(text, "a DNS name or an address, without scheme or port"))
        }
    }
}

impl TryFrom<Several> for Controllers {
    type Error = InvalidValue;

    fn try_from(several: Several) -> Result<Self, InvalidValue> {
        let list = match several {
            Several::Text(text) => text.split(',').map(|address| address.trim().to_owned()).collect(),
            Several::List(list) => list,
        };
        if list.len() > MAX_CONTROLLERS {
            let text = format!("a list of {}", list.len());
            return Err(InvalidValue { text, expected: "a list of at most 16 controllers" });
        }
        let address = |text: &String| {
            controller_address(text).ok_or_else(|| {
                InvalidValue::new(
                    text,
                    "the address of a controller, such as ctl.example.com:7443 or [2001:db8::1]:7443",
                )
            })
        };
        list.iter().map(address).collect::<Result<_, _>>().map(Self)
    }
}

impl From<Controllers> for Vec<String> {
    fn from(controllers: Controllers) -> Self {
        controllers.0.into_iter().map(Into::into).collect()
    }
}

/// A name or an address and the port: what an agent can connect to. All of it is said, for agents are told it as it stands.
fn controller_address(text: &str) -> Option<Word> {
    let (host, port) = text.rsplit_once(':')?;
    port.parse().ok().filter(|port: &u16| *port > 0)?;
    let is_host = match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        Some(inner) => inner.parse::<std::net::Ipv6Addr>().is_ok(),
        None => !host.contains(':') && host.parse::<Name>().is_ok(),
    };
    is_host.then(|| text.parse().ok())?
}

impl FromStr for Listen {
    type Err = InvalidValue;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().map(Self).map_err(|_| {
            InvalidValue::new(
                text,
                "an address and a port from 0 to 65535, such as 0.0.0.0:7443, 192.0.2.1:7443 or [::]:7443",
            )
        })
    }
}

impl FromStr for Filter {
    type Err = InvalidValue;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        // A word alone is a target to `EnvFilter`, of which everything is logged: `inof` would be one that nothing
        // has, and silence the log.
        let is_level = |word: &str| {
            let levels = ["off", "error", "warn", "info", "debug", "trace"];
            levels.iter().any(|level| level.eq_ignore_ascii_case(word))
        };
        let is_plain = |part: &str| !part.contains(['=', '[']);
        let is_known = text.split(',').all(|part| !is_plain(part) || is_level(part.trim()))
            // Inside of brackets a comma divides fields, which are not looked at here.
            || text.contains('[');
        if is_known && !text.trim().is_empty() && EnvFilter::try_new(text).is_ok() {
            Ok(Self(text.to_owned()))
        } else {
            Err(InvalidValue::new(
                text,
                "a filter: off, error, warn, info, debug or trace, and targets with one of them, as in \
                           `info,quinn=warn`",
            ))
        }
    }
}

fn span(text: &str) -> Option<Duration> {
    with_unit(text, &[("s", 1), ("m", 60), ("h", 3600), ("d", 86_400)]).map(Duration::from_secs)
}

/// The number before the longest unit that matches, times its factor.
fn with_unit(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    units
        .iter()
        .filter_map(|(unit, factor)| Some((text.strip_suffix(unit)?, factor)))
        .find_map(|(number, factor)| number.trim_end().parse::<u64>().ok()?.checked_mul(*factor))
}

impl TryFrom<String> for Span {
    type Error = InvalidValue;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<Span> for String {
    fn from(span: Span) -> Self {
        format!("{}s", span.0.as_secs())
    }
}

impl TryFrom<String> for SpanOrNone {
    type Error = InvalidValue;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<SpanOrNone> for String {
    fn from(span: SpanOrNone) -> Self {
        format!("{}s", span.0.as_secs())
    }
}

impl TryFrom<String> for Filter {
    type Error = InvalidValue;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl TryFrom<Written> for Listen {
    type Error = InvalidValue;

    fn try_from(written: Written) -> Result<Self, Self::Error> {
        match written {
            // A port alone: what is missing is told as for any other text.
            Written::Number(port) => port.to_string().parse(),
            Written::Text(text) => text.parse(),
        }
    }
}

impl TryFrom<Written> for Size {
    type Error = InvalidValue;

    fn try_from(written: Written) -> Result<Self, Self::Error> {
        match written {
            Written::Number(bytes) => Ok(Self(bytes)),
            Written::Text(text) => text.parse(),
        }
    }
}

impl TryFrom<String> for Name {
    type Error = InvalidValue;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}
