//! Where a controller is.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use hyper::http::Uri;
use hyper::http::uri::Authority;

/// The port of a controller's HTTPS where the address names none and no scheme either.
const DEFAULT_PORT: u16 = 7444;

/// A controller's address: `https://name:port`, or `http://` on loopback.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Address {
    scheme: Scheme,
    authority: Authority,
}

/// How it is spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scheme {
    /// With TLS.
    Https,
    /// Without; on loopback only.
    Http,
}

/// Text that is not a controller's address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum InvalidAddress {
    /// It cannot be read.
    #[error("not an address such as https://ctl.example.com:7444")]
    Malformed,
    /// It has more than a scheme, a name and a port.
    #[error("give only scheme, name and port, such as https://ctl.example.com:7444")]
    Path,
    /// A password would travel unprotected.
    #[error("http:// is allowed on loopback only, because a password travels over it; use https://")]
    Plain,
}

impl Address {
    /// How it is spoken to.
    pub(crate) const fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// The name or address, without brackets.
    pub(crate) fn host(&self) -> &str {
        self.authority.host().trim_start_matches('[').trim_end_matches(']')
    }

    /// The TCP port.
    pub(crate) fn port(&self) -> u16 {
        self.authority.port_u16().unwrap_or(match self.scheme {
            Scheme::Https => 443,
            Scheme::Http => 80,
        })
    }

    /// The same with a controller's usual port, where it is HTTPS and names no port.
    pub(crate) fn at_usual_port(&self) -> Option<String> {
        (self.scheme == Scheme::Https && self.authority.port().is_none())
            .then(|| format!("{self}:{DEFAULT_PORT}"))
    }

    /// What goes into the `Host` header.
    pub(crate) fn authority(&self) -> &str {
        self.authority.as_str()
    }
}

impl FromStr for Address {
    type Err = InvalidAddress;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let text = text.trim().trim_end_matches('/');
        let whole = if text.contains("://") {
            text.to_owned()
        } else {
            let authority: Authority = text.parse().map_err(|_| InvalidAddress::Malformed)?;
            match authority.port_u16() {
                Some(_) => format!("https://{text}"),
                None => format!("https://{text}:{DEFAULT_PORT}"),
            }
        };
        let uri: Uri = whole.parse().map_err(|_| InvalidAddress::Malformed)?;
        let authority = uri.authority().cloned().ok_or(InvalidAddress::Malformed)?;
        if authority.as_str().contains('@') || !matches!(uri.path(), "" | "/") || uri.query().is_some() {
            return Err(InvalidAddress::Path);
        }
        if authority.host().is_empty() {
            return Err(InvalidAddress::Malformed);
        }
        let scheme = match uri.scheme_str() {
            Some("https") => Scheme::Https,
            Some("http") => Scheme::Http,
            _ => return Err(InvalidAddress::Malformed),
        };
        let authority = authority.as_str().to_ascii_lowercase();
        let authority = authority.parse().map_err(|_| InvalidAddress::Malformed)?;
        let address = Self { scheme, authority };
        if scheme == Scheme::Http && !is_loopback(address.host()) {
            return Err(InvalidAddress::Plain);
        }
        Ok(address)
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = match self.scheme {
            Scheme::Https => "https",
            Scheme::Http => "http",
        };
        write!(f, "{scheme}://{}", self.authority)
    }
}

fn is_loopback(host: &str) -> bool {
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_as_people_write_them() {
        for (text, expected, host, port) in [
            ("https://ctl.example.com:7444", "https://ctl.example.com:7444", "ctl.example.com", 7444),
            ("https://CTL.example.com/", "https://ctl.example.com", "ctl.example.com", 443),
            ("ctl.example.com", "https://ctl.example.com:7444", "ctl.example.com", 7444),
            ("ctl.example.com:99", "https://ctl.example.com:99", "ctl.example.com", 99),
            ("https://[2001:db8::1]:7444", "https://[2001:db8::1]:7444", "2001:db8::1", 7444),
            ("http://127.0.0.1:8080", "http://127.0.0.1:8080", "127.0.0.1", 8080),
            ("http://localhost:8080", "http://localhost:8080", "localhost", 8080),
            ("http://[::1]:8080", "http://[::1]:8080", "::1", 8080),
        ] {
            let address: Address = text.parse().unwrap();
            assert_eq!(
                (address.to_string().as_str(), address.host(), address.port()),
                (expected, host, port)
            );
        }
    }

    #[test]
    fn what_would_leak_a_password_or_confuse_is_refused() {
        for (text, expected) in [
            ("http://ctl.example.com", InvalidAddress::Plain),
            ("http://192.0.2.1:80", InvalidAddress::Plain),
            ("http://localhost.example.com", InvalidAddress::Plain),
            ("ftp://ctl.example.com", InvalidAddress::Malformed),
            ("https://user:secret@ctl.example.com", InvalidAddress::Path),
            ("https://ctl.example.com/api", InvalidAddress::Path),
            ("https://", InvalidAddress::Malformed),
            ("", InvalidAddress::Malformed),
        ] {
            assert_eq!(text.parse::<Address>(), Err(expected), "{text}");
        }
    }
}
