//! The parts of a site.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::num::NonZeroU16;

use serde::{Deserialize, Serialize};

use super::{
    Backend, Body, Expiry, Fallback, FileName, HeaderName, Login, MediaType, Network, Pattern, ServerName,
    SitePath, Snippet, Template,
};
use crate::choice::choices;
use crate::object::{Class, Object};

const fn is_false(value: &bool) -> bool {
    !*value
}

/// Where a site listens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Listen {
    /// The address, of IPv4 or IPv6; every one of IPv4 when absent, and `::` is every one of IPv6.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schema(value_type = Option<String>, example = "192.0.2.1"))]
    pub address: Option<IpAddr>,
    /// The port.
    #[serde(with = "port")]
    #[cfg_attr(feature = "schema", schema(minimum = 1))]
    pub port: u16,
    /// Whether it speaks TLS there.
    #[serde(default, skip_serializing_if = "is_false")]
    #[cfg_attr(feature = "schema", schema(default = false))]
    pub tls: bool,
    /// Whether it speaks HTTP/2 there, too.
    #[serde(default, skip_serializing_if = "is_false")]
    #[cfg_attr(feature = "schema", schema(default = false))]
    pub http2: bool,
    /// Whether it answers there for names that no site has.
    #[serde(default, skip_serializing_if = "is_false")]
    #[cfg_attr(feature = "schema", schema(default = false))]
    pub default_server: bool,
}

mod port {
    use super::{Deserialize as _, NonZeroU16};

    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes what it writes by reference")]
    pub(super) fn serialize<S: serde::Serializer>(port: &u16, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_u16(*port)
    }

    pub(super) fn deserialize<'de, D: serde::Deserializer<'de>>(from: D) -> Result<u16, D::Error> {
        NonZeroU16::deserialize(from).map(NonZeroU16::get)
    }
}

/// A certificate and its key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Tls {
    /// The certificate's file on the host, with those between it and its root.
    #[cfg_attr(feature = "schema", schema(value_type = String, example = "/etc/letsencrypt/live/shop/fullchain.pem"))]
    pub certificate: SitePath,
    /// The file of its key.
    #[cfg_attr(feature = "schema", schema(value_type = String, example = "/etc/letsencrypt/live/shop/privkey.pem"))]
    pub key: SitePath,
}

/// How many requests one address may send; more are answered with 429. Those that a location redirects or replies to are not
/// counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Rate {
    /// So many in a second.
    pub per_second: u32,
    /// So many more at once.
    #[serde(default)]
    #[cfg_attr(feature = "schema", schema(default = 0))]
    pub burst: u32,
}

/// A header of an answer, or of a request that is passed on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Header {
    /// Its name.
    #[cfg_attr(feature = "schema", schema(value_type = String, example = "X-Frame-Options"))]
    pub name: HeaderName,
    /// Its value, in which nginx puts variables such as `$host`.
    #[cfg_attr(feature = "schema", schema(value_type = String, example = "DENY"))]
    pub value: Template,
}

/// Who may come in: those of a file, or these.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Auth {
    /// What people are shown who are asked for their password.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schema(value_type = Option<String>, example = "Shop"))]
    pub realm: Option<Template>,
    /// A file on the host as htpasswd(1) makes it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schema(value_type = Option<String>))]
    pub file: Option<SitePath>,
    /// Names with their passwords' hashes, `name:hash`, as `htpasswd -nB name` tells them: bcrypt or crypt(5). A password
    /// itself is never taken.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "schema", schema(value_type = Vec<String>))]
    pub users: Vec<Login>,
}

/// A request that is sent on the host itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Probe {
    /// For what is asked; `/` when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schema(value_type = Option<String>, example = "/health"))]
    pub path: Option<Pattern>,
    /// On which port; the first that the site listens on when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// By which name; the first of the site when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schema(value_type = Option<String>))]
    pub host: Option<ServerName>,
    /// With which status it has to be answered; 200 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schema(minimum = 100, maximum = 599))]
    pub status: Option<u16>,
}

choices! {
    /// How the path of a request is compared.
    #[derive(PartialOrd, Ord)]
    pub enum Match {
        /// It begins so. The longest such location is taken, unless a regular expression fits.
        Prefix = "prefix",
        /// It begins so, and regular expressions are not asked.
        PrefixFirst = "prefix-first",
        /// It is this.
        Exact = "exact",
        /// This regular expression fits it. The first one that fits is taken.
        Regex = "regex",
        /// The same, and upper and lower case are one.
        RegexAnyCase = "regex-any-case",
    }
}

/// What is done with the requests for some paths: exactly one of `proxy`, `static`, `redirect`, `reply` and `deny`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Location {
    /// What the path of a request is compared with.
    #[cfg_attr(feature = "schema", schema(value_type = String, example = "/"))]
    pub path: Pattern,
    /// How it is compared; `prefix` when absent.
    #[serde(rename = "match", default = "usual_match", skip_serializing_if = "is_prefix")]
    #[cfg_attr(feature = "schema", schema(inline))]
    pub matches: Match,
    /// They are passed on to other servers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proxy: Option<Proxy>,
    /// They are answered with files.
    #[serde(rename = "static", default, skip_serializing_if = "Option::is_none")]
    pub files: Option<Static>,
    /// They are sent elsewhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub redirect: Option<Redirect>,
    /// They are answered with always the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reply: Option<Reply>,
    /// Nobody gets an answer but 403.
    #[serde(default, skip_serializing_if = "is_false")]
    #[cfg_attr(feature = "schema", schema(default = false))]
    pub deny: bool,
    /// Only these addresses and networks get an answer, all others 403; everybody when absent.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "schema", schema(value_type = Vec<String>, example = json!(["192.0.2.0/24"])))]
    pub allow: Vec<Network>,
    /// Headers of every answer beside those of the site; one of the same name takes its place.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub headers: Vec<Header>,
    /// Directives of nginx, word by word, that stand in the `location` block.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "schema", schema(value_type = Vec<String>))]
    pub snippets: Vec<Snippet>,
}

const fn usual_match() -> Match {
    Match::Prefix
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes what it skips by reference")]
fn is_prefix(matches: &Match) -> bool {
    *matches == Match::Prefix
}

/// What a location does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Does<'a> {
    /// Passes requests on.
    Proxy(&'a Proxy),
    /// Answers with files.
    Static(&'a Static),
    /// Sends elsewhere.
    Redirect(&'a Redirect),
    /// Answers with always the same.
    Reply(&'a Reply),
    /// Answers nobody.
    Deny,
}

/// Servers that requests are passed on to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Proxy {
    /// The servers.
    pub upstreams: Vec<Upstream>,
    /// Whether they are spoken to with https.
    #[serde(default, skip_serializing_if = "is_false")]
    #[cfg_attr(feature = "schema", schema(default = false))]
    pub https: bool,
    /// Whether a connection may become one of a websocket.
    #[serde(default, skip_serializing_if = "is_false")]
    #[cfg_attr(feature = "schema", schema(default = false))]
    pub websocket: bool,
    /// Whether nginx takes an answer in before it passes it on; as nginx has it otherwise when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub buffering: Option<bool>,
    /// For how many seconds a server may take to accept a connection.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connect_timeout_s: Option<u32>,
    /// For how many seconds a server may take nothing of a request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub send_timeout_s: Option<u32>,
    /// For how many seconds a server may say nothing of an answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub read_timeout_s: Option<u32>,
    /// Headers of what is passed on, beside `Host`, `X-Real-IP`, `X-Forwarded-For` and `X-Forwarded-Proto`; one of the same
    /// name takes its place.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub headers: Vec<Header>,
}

/// A server that requests are passed on to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Upstream {
    /// Where it is: `host:port`, `[address]:port`, or `unix:/path`.
    #[cfg_attr(feature = "schema", schema(value_type = String, example = "127.0.0.1:3000"))]
    pub server: Backend,
    /// How many requests it gets for one that others get; 1 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schema(minimum = 1, maximum = 1000))]
    pub weight: Option<u16>,
    /// After how many failures it gets none for a while; 0 for never, 1 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_fails: Option<u16>,
    /// Within how many seconds they have to happen, and for how many it gets none then; 10 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fail_timeout_s: Option<u32>,
    /// Whether it gets requests only while all others get none.
    #[serde(default, skip_serializing_if = "is_false")]
    #[cfg_attr(feature = "schema", schema(default = false))]
    pub backup: bool,
}

/// Files that are served.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Static {
    /// The directory that paths are looked up in.
    #[cfg_attr(feature = "schema", schema(value_type = String, example = "/srv/www"))]
    pub root: SitePath,
    /// Which file stands for a directory; `index.html` when absent.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "schema", schema(value_type = Vec<String>))]
    pub index: Vec<FileName>,
    /// What is served for what is not there: a path of the site, such as `/index.html`, or a status, such as `=404`. Behind a
    /// path `$is_args$args` takes the arguments of the request along; no other variable is allowed, and no `..`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schema(value_type = Option<String>, example = "/index.html"))]
    pub fallback: Option<Fallback>,
    /// For how long browsers keep what is served: `30d`, `max`, `epoch`, `off`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schema(value_type = Option<String>, example = "30d"))]
    pub expires: Option<Expiry>,
}

/// Another address.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Redirect {
    /// Where to, in which nginx puts variables: `https://www.example.com$request_uri`.
    #[cfg_attr(feature = "schema", schema(value_type = String, example = "https://www.example.com$request_uri"))]
    pub to: Template,
    /// With which status: 301, 302, 303, 307 or 308; 301 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<u16>,
}

/// An answer that is always the same.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Reply {
    /// Its status.
    #[cfg_attr(feature = "schema", schema(minimum = 200, maximum = 599))]
    pub status: u16,
    /// Its body, in which nginx puts variables; nginx's own when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schema(value_type = Option<String>, example = "ok"))]
    pub body: Option<Body>,
    /// What kind of text it is; `text/plain` when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schema(value_type = Option<String>, example = "application/json"))]
    pub content_type: Option<MediaType>,
}

impl Listen {
    /// Where a site listens of which nothing is said.
    pub(super) fn usual(tls: bool) -> Vec<Self> {
        let port = if tls { 443 } else { 80 };
        let of = |address| Self { address, port, tls, http2: tls, default_server: false };
        vec![of(None), of(Some(IpAddr::V6(Ipv6Addr::UNSPECIFIED)))]
    }

    /// The address as nginx reads it.
    #[must_use]
    pub fn place(&self) -> String {
        match self.address {
            None => self.port.to_string(),
            Some(IpAddr::V4(address)) => format!("{address}:{}", self.port),
            Some(IpAddr::V6(address)) => format!("[{address}]:{}", self.port),
        }
    }

    /// The address of this host at which it is reached.
    #[must_use]
    pub fn reached(&self) -> IpAddr {
        match self.address {
            None => Ipv4Addr::LOCALHOST.into(),
            Some(IpAddr::V4(address)) if address.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
            Some(IpAddr::V6(address)) if address.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
            Some(address) => address,
        }
    }
}

impl Location {
    /// What it does; `None` where that is not one thing.
    #[must_use]
    pub fn does(&self) -> Option<Does<'_>> {
        let Self { proxy, files, redirect, reply, deny, .. } = self;
        let all = [
            proxy.as_ref().map(Does::Proxy),
            files.as_ref().map(Does::Static),
            redirect.as_ref().map(Does::Redirect),
            reply.as_ref().map(Does::Reply),
            deny.then_some(Does::Deny),
        ];
        let mut all = all.into_iter().flatten();
        all.next().filter(|_| all.next().is_none())
    }

    pub(super) fn touches(&self) -> Vec<Object> {
        let sockets = self.proxy.iter().flat_map(|proxy| &proxy.upstreams);
        let sockets = sockets.filter_map(|upstream| upstream.server.socket());
        let sockets = sockets.map(|path| Object::named(Class::Paths, path));
        let root = self.files.iter().map(|files| files.root.object());
        let snippets = self.snippets.iter().flat_map(Snippet::names);
        sockets.chain(root).chain(snippets.map(|name| Object::named(Class::Snippets, name))).collect()
    }
}

impl Redirect {
    /// The status.
    #[must_use]
    pub fn code(&self) -> u16 {
        self.code.unwrap_or(301)
    }
}
