//! What a server of a configuration says of itself.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;

use fleetward_protocol::nginx::Directive;

use super::dump::{Dump, Server};

/// Where a server listens.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// An address, or every one of IPv4, and a port.
    Port(Option<IpAddr>, u16),
    /// What is written there.
    Other(String),
}

impl Place {
    /// What the first word of `listen` means (ngx_http_core_module).
    #[must_use]
    pub fn of(word: &str) -> Self {
        let other = || Self::Other(word.to_owned());
        let port = |text: &str| text.parse::<u16>().ok();
        if let Some(port) = port(word) {
            return Self::Port(None, port);
        }
        let v6 = word.strip_prefix('[').and_then(|rest| rest.split_once(']'));
        let (address, port) = match (v6, word.rsplit_once(':')) {
            (Some((address, rest)), _) => {
                (address.parse().ok(), rest.strip_prefix(':').map_or(Some(80), port))
            }
            (None, Some((address, at))) => (address.parse().ok().or(any(address)), port(at)),
            (None, None) => (word.parse().ok().or(any(word)), Some(80)),
        };
        match (address, port) {
            (Some(address), Some(port)) => Self::at(Some(address), port),
            _ => other(),
        }
    }

    /// The same for an address; that of all of IPv4 is none.
    #[must_use]
    pub fn at(address: Option<IpAddr>, port: u16) -> Self {
        Self::Port(address.filter(|address| *address != IpAddr::V4(Ipv4Addr::UNSPECIFIED)), port)
    }
}

fn any(address: &str) -> Option<IpAddr> {
    (address == "*").then_some(IpAddr::V4(Ipv4Addr::UNSPECIFIED))
}

impl<'a> Server<'a> {
    /// The names that it answers to.
    pub fn names(&self) -> impl Iterator<Item = &'a str> + use<'a> {
        let names = inner(self.directive).filter(|directive| directive.name == "server_name");
        names.flat_map(|directive| directive.words.iter().map(String::as_str)).filter(|name| !name.is_empty())
    }

    /// The words of each `listen`.
    pub fn listens(&self) -> impl Iterator<Item = &'a [String]> + use<'a> {
        inner(self.directive)
            .filter(|directive| directive.name == "listen")
            .map(|listen| listen.words.as_slice())
    }

    /// Where it listens.
    #[must_use]
    pub fn places(&self) -> Vec<Place> {
        let places: Vec<Place> =
            self.listens().filter_map(|words| words.first()).map(|word| Place::of(word)).collect();
        if places.is_empty() { vec![Place::Port(None, 80)] } else { places }
    }

    /// The files of such directives (`ssl_certificate`, `error_log`) in it.
    pub fn files(&self, name: &'a str, dump: &'a Dump) -> impl Iterator<Item = PathBuf> + use<'a> {
        let own = inner(self.directive).filter(move |directive| directive.name == name);
        own.filter_map(move |directive| {
            let word = directive.words.first()?;
            Some(if name.starts_with("ssl_") { dump.config_path(word) } else { dump.path(word) })
        })
    }

    /// What it does with requests for `/`, or with all, in words: the servers it passes them on to, or the files.
    #[must_use]
    pub fn target(&self, dump: &Dump, upstreams: &BTreeMap<&str, &Directive>) -> Option<String> {
        let location = inner(self.directive).find(|directive| {
            directive.name == "location" && matches!(directive.words.as_slice(), [path] if path == "/")
        });
        let parts = [location, Some(self.directive)].into_iter().flatten();
        parts.flat_map(inner).find_map(|directive| {
            let word = directive.words.first()?;
            match directive.name.as_str() {
                "proxy_pass" => Some(backends(word, upstreams).unwrap_or_else(|| word.clone())),
                "root" => Some(dump.path(word).display().to_string()),
                "fastcgi_pass" | "uwsgi_pass" | "scgi_pass" | "grpc_pass" => {
                    Some(format!("{} {word}", directive.name.trim_end_matches("_pass")))
                }
                "return" => Some(
                    directive.words.iter().fold("return".to_owned(), |all, word| format!("{all} {word}")),
                ),
                _ => None,
            }
        })
    }
}

/// The servers behind an upstream's name.
fn backends(address: &str, upstreams: &BTreeMap<&str, &Directive>) -> Option<String> {
    let (scheme, rest) = address.split_once("://")?;
    let name = rest.split('/').next()?;
    let upstream = upstreams.get(name)?;
    let servers: Vec<String> = upstream
        .all("server")
        .filter_map(|server| Some(format!("{scheme}://{}", server.words.first()?)))
        .take(8)
        .collect();
    (!servers.is_empty()).then(|| servers.join(" "))
}

fn inner(directive: &Directive) -> impl Iterator<Item = &Directive> {
    directive.block.iter().flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_as_nginx_takes_them() {
        let v4 = |text: &str| Some(text.parse().unwrap());
        for (word, place) in [
            ("80", Place::Port(None, 80)),
            ("*:8080", Place::Port(None, 8080)),
            ("0.0.0.0:80", Place::Port(None, 80)),
            ("192.0.2.1", Place::Port(v4("192.0.2.1"), 80)),
            ("192.0.2.1:81", Place::Port(v4("192.0.2.1"), 81)),
            ("[::]:80", Place::Port(v4("::"), 80)),
            ("[2001:db8::1]", Place::Port(v4("2001:db8::1"), 80)),
            ("unix:/run/x.sock", Place::Other("unix:/run/x.sock".into())),
            ("localhost:80", Place::Other("localhost:80".into())),
            ("99999", Place::Other("99999".into())),
        ] {
            assert_eq!(Place::of(word), place, "{word}");
        }
    }
}
