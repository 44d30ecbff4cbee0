//! A site of nginx: have it there as it is described, or not at all.
//!
//! A site is a file of its own, made from typed values by one writer ([`nginx::Writer`](crate::nginx::Writer)). What nginx does
//! not take is not left in place, and what somebody else wrote is not replaced.

mod check;
mod idn;
mod part;
mod value;

use std::collections::BTreeSet;
use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use part::{
    Auth, Does, Header, Listen, Location, Match, Probe, Proxy, Rate, Redirect, Reply, Static, Tls, Upstream,
};
pub use value::{
    AccessLog, Backend, Body, Expiry, Fallback, FileName, HeaderName, InvalidValue, Login, MediaType,
    Network, Pattern, ServerName, SiteName, SitePath, Snippet, Template,
};

use super::{Actor, Contract, Needs, Privilege};
use crate::choice::choices;
use crate::name::ResourceName;
use crate::object::{Class, Object};
use crate::text::{Line, List, Text, Word};

/// The most warnings in a report.
pub const MAX_WARNINGS: usize = 32;
/// The most of anything that a site has many of.
const MAX_MANY: usize = 128;

/// Parameters of a site action.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Site {
    /// Its name, which its file has, too: lower-case letters, digits and `-._`.
    #[cfg_attr(feature = "schema", schema(value_type = String, example = "shop", max_length = 64))]
    pub name: SiteName,
    /// What to do with it; `ensure` when absent. The others take nothing but the name.
    #[serde(default = "SiteVerb::usual", skip_serializing_if = "SiteVerb::is_usual")]
    #[cfg_attr(feature = "schema", schema(inline))]
    pub verb: SiteVerb,
    /// The names it answers to: `example.com`, `*.example.com`, `www.example.*`, or a regular expression behind `~`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "schema", schema(value_type = Vec<String>, example = json!(["shop.example.com"])))]
    pub server_names: Vec<ServerName>,
    /// Where it listens. When absent on port 80 of all addresses of the host; on port 443 if it has a certificate.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub listen: Vec<Listen>,
    /// Its certificate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<Tls>,
    /// Whether whoever comes to port 80 is sent to the same address with https.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    #[cfg_attr(feature = "schema", schema(default = false))]
    pub redirect_http: bool,
    /// What it does with which requests. What no location is for is answered with 404.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub locations: Vec<Location>,
    /// The largest body of a request, in MiB; 0 for any, and what nginx has otherwise when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_body_mib: Option<u32>,
    /// How many requests one address may send, but for those that a location redirects or replies to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate: Option<Rate>,
    /// Headers of every answer, those of errors too.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub headers: Vec<Header>,
    /// Where its requests are logged: a path, or `off`; where nginx logs all when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schema(value_type = Option<String>, example = "/var/log/nginx/shop.access.log"))]
    pub access_log: Option<AccessLog>,
    /// Where its errors are logged: a path; where nginx logs all when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schema(value_type = Option<String>, example = "/var/log/nginx/shop.error.log"))]
    pub error_log: Option<SitePath>,
    /// Who may come in. Whatever a location redirects or replies to is for everybody: nginx does not ask who it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auth: Option<Auth>,
    /// Directives of nginx for what there is no parameter for, word by word, such as `gzip on;`. They stand in the `server`
    /// block. A host's owner may forbid them by the names of the directives.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "schema", schema(value_type = Vec<String>))]
    pub snippets: Vec<Snippet>,
    /// A request that is sent on the host itself when nginx works with the site. If it is not answered as it should be, all is
    /// put back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub probe: Option<Probe>,
    /// Whether nginx is started if it does not run. Without it the files are written and tested, and the report says so.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    #[cfg_attr(feature = "schema", schema(default = false))]
    pub start: bool,
    /// Whether a file of this site that somebody changed on the host since is replaced or removed all the same.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    #[cfg_attr(feature = "schema", schema(default = false))]
    pub replace_edited: bool,
}

choices! {
    /// What can be done with a site.
    pub enum SiteVerb {
        /// Have it there as it is described, and enabled.
        Ensure = "ensure",
        /// Have it gone.
        Remove = "remove",
        /// Have nginx use it again as it was written last.
        Enable = "enable",
        /// Have nginx not use it, and leave its file.
        Disable = "disable",
    }
}

/// What a site action tells when it ends.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct SiteReport {
    /// Whether anything was done. Where all was as wanted, nothing is touched.
    pub changed: bool,
    /// How it stood before: `absent`, `enabled` or `disabled`.
    #[cfg_attr(feature = "schema", schema(value_type = String))]
    pub before: Word,
    /// How it stands now.
    #[cfg_attr(feature = "schema", schema(value_type = String))]
    pub after: Word,
    /// Its file.
    #[cfg_attr(feature = "schema", schema(value_type = String))]
    pub file: Line,
    /// The version of nginx.
    #[cfg_attr(feature = "schema", schema(value_type = String))]
    pub version: Word,
    /// Whether nginx runs.
    pub running: bool,
    /// Whether nginx read its configuration again, and works with it.
    pub reloaded: bool,
    /// With which status the probe was answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub probed: Option<u16>,
    /// What may not be meant so, such as a name that another site answers to.
    #[serde(default, skip_serializing_if = "is_empty")]
    #[cfg_attr(feature = "schema", schema(value_type = Vec<String>))]
    pub warnings: List<Line, MAX_WARNINGS>,
}

fn is_empty<T>(list: &[T]) -> bool {
    list.is_empty()
}

impl SiteVerb {
    const fn usual() -> Self {
        Self::Ensure
    }

    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes what it skips by reference")]
    const fn is_usual(&self) -> bool {
        matches!(self, Self::Ensure)
    }
}

impl Contract for Site {
    const KIND: &'static str = "site";
    const SUMMARY: &'static str = "Write, enable, disable or remove a site of nginx.";
    const IDEMPOTENT: bool = true;
    const RESUMABLE: bool = true;
    const REHEARSES: bool = true;
    const OBJECTS: &'static [Class] = &[Class::Sites, Class::Paths, Class::Snippets];
    const DEFAULT_TIMEOUT: Duration = Duration::from_secs(180);
    const PRIVILEGE: Privilege = Privilege::Administer;

    type Asked = Self;
    type Report = SiteReport;

    fn subject(&self) -> Word {
        Text::of(format_args!("{} site {}", self.verb, self.name))
    }

    fn needs(&self) -> Needs {
        // One nginx reads all sites: whoever changes one, and whoever reloads it, waits for the others.
        let resource = "unit/nginx.service".parse::<ResourceName>();
        Needs { actor: Actor::Root, resources: resource.into_iter().collect(), contents: Vec::new() }
    }

    fn touches(&self) -> Vec<Object> {
        let mut objects = vec![Object::named(Class::Sites, &self.name)];
        let tls = self.tls.iter().flat_map(|tls| [&tls.certificate, &tls.key]);
        let logs = self.error_log.iter().map(SitePath::object);
        let access = self.access_log.iter().filter_map(AccessLog::path);
        objects.extend(tls.map(SitePath::object).chain(logs));
        objects.extend(access.map(|path| Object::named(Class::Paths, path)));
        objects.extend(self.auth.iter().filter_map(|auth| auth.file.as_ref()).map(SitePath::object));
        objects.extend(self.locations.iter().flat_map(Location::touches));
        let names = self.snippets.iter().flat_map(Snippet::names);
        objects.extend(names.map(|name| Object::named(Class::Snippets, name)));
        objects
    }

    fn validate(&self) -> Result<(), String> {
        match self.verb {
            SiteVerb::Ensure => self.check(),
            verb => {
                let bare = Self {
                    verb,
                    start: self.start,
                    replace_edited: self.replace_edited,
                    ..Self::new(self.name.clone())
                };
                match *self == bare {
                    true => Ok(()),
                    false => {
                        Err(format!("`{verb}` takes the name of the site and nothing that describes it"))
                    }
                }
            }
        }
    }
}

impl Site {
    /// A site that is not described yet.
    #[must_use]
    pub const fn new(name: SiteName) -> Self {
        Self {
            name,
            verb: SiteVerb::Ensure,
            server_names: Vec::new(),
            listen: Vec::new(),
            tls: None,
            redirect_http: false,
            locations: Vec::new(),
            max_body_mib: None,
            rate: None,
            headers: Vec::new(),
            access_log: None,
            error_log: None,
            auth: None,
            snippets: Vec::new(),
            probe: None,
            start: false,
            replace_edited: false,
        }
    }

    /// Where it listens, said or not.
    #[must_use]
    pub fn listens(&self) -> Vec<Listen> {
        if self.listen.is_empty() { Listen::usual(self.tls.is_some()) } else { self.listen.clone() }
    }

    /// Where it listens for those who are sent to https.
    #[must_use]
    pub fn redirect_listens(&self) -> Vec<Listen> {
        let mut seen = BTreeSet::new();
        let listens = self.listens().into_iter().filter(|listen| self.redirect_http && listen.tls);
        let plain = listens.map(|listen| Listen { port: 80, tls: false, http2: false, ..listen });
        plain.filter(|listen| seen.insert(listen.address)).collect()
    }

    fn check(&self) -> Result<(), String> {
        let listens = self.listens();
        for (what, count) in [
            ("server_names", self.server_names.len()),
            ("listen", listens.len()),
            ("locations", self.locations.len()),
            ("headers", self.headers.len()),
            ("snippets", self.snippets.len()),
        ] {
            if count > MAX_MANY {
                return Err(format!("{what} has {count} entries, and {MAX_MANY} are allowed"));
            }
        }
        if self.locations.is_empty() {
            return Err(
                "locations is empty: say what is done with requests, such as a location with `path: /`"
                    .to_owned(),
            );
        }
        if self.server_names.is_empty() && !listens.iter().any(|listen| listen.default_server) {
            return Err(
                "server_names is empty, and no `listen` is a default_server: no request would come to it"
                    .to_owned(),
            );
        }
        if let Some(name) = twice(&self.server_names) {
            return Err(format!("server_names names `{name}` twice"));
        }
        let places: Vec<_> = listens.iter().map(|listen| (listen.address, listen.port)).collect();
        if let Some((_, port)) = twice(&places) {
            return Err(format!("listen names port {port} of one address twice"));
        }
        let locations: Vec<_> =
            self.locations.iter().map(|location| (location.matches, &location.path)).collect();
        if let Some((_, path)) = twice(&locations) {
            return Err(format!("locations has `{path}` twice"));
        }
        match (&self.tls, listens.iter().any(|listen| listen.tls)) {
            (None, true) => {
                return Err("a `listen` has tls, and the site has no certificate: add `tls`".to_owned());
            }
            (Some(_), false) => return Err("the site has a certificate, and no `listen` has tls".to_owned()),
            _ => {}
        }
        if listens.iter().any(|listen| listen.http2 && !listen.tls) {
            return Err("a `listen` has http2 without tls, which no browser speaks".to_owned());
        }
        if self.redirect_http && (self.tls.is_none() || listens.iter().any(|listen| listen.port == 80)) {
            return Err(
                "redirect_http needs a certificate, and port 80 that nothing else of the site listens on"
                    .to_owned(),
            );
        }
        if let Some(auth) = &self.auth {
            auth.check()?;
        }
        if let Some(rate) = &self.rate {
            rate.check()?;
        }
        if let Some(probe) = &self.probe {
            probe.check(&listens)?;
        }
        for location in &self.locations {
            location.check().map_err(|rule| format!("location `{}`: {rule}", location.path))?;
        }
        Ok(())
    }
}

/// The first value that is there twice.
fn twice<T: Ord>(values: &[T]) -> Option<&T> {
    let mut seen = BTreeSet::new();
    values.iter().find(|value| !seen.insert(*value))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::action::{Action, ActionRequest};

    fn parse(params: &str) -> Result<Site, String> {
        let request = ActionRequest { kind: "site".into(), params: params.into() };
        match Action::parse(&request).map_err(|error| error.to_string())? {
            Action::Site(site) => Ok(site),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_site_is_read_with_all_that_it_touches() {
        let site = parse(
            r#"{"name":"shop","server_names":["Shop.example.com"],"tls":{"certificate":"/etc/ssl/a.pem","key":"/etc/ssl/a.key"},
            "redirect_http":true,"access_log":"/var/log/nginx/shop.log","auth":{"file":"/etc/nginx/users"},
            "locations":[{"path":"/","proxy":{"upstreams":[{"server":"unix:/run/app.sock"}]}},
            {"path":"/static/","static":{"root":"/srv/www"},"snippets":["gzip_static on;"]}],"snippets":["if ($host = x) { return 404; }"]}"#,
        )
        .unwrap();
        let touched: Vec<String> = site
            .touches()
            .iter()
            .map(|object| format!("{} {}", object.class(), object.name().unwrap()))
            .collect();
        let expected = [
            "sites shop",
            "paths /etc/ssl/a.pem",
            "paths /etc/ssl/a.key",
            "paths /var/log/nginx/shop.log",
            "paths /etc/nginx/users",
            "paths /run/app.sock",
            "paths /srv/www",
            "snippets gzip_static",
            "snippets if",
            "snippets return",
        ];
        assert_eq!(touched, expected);
        assert_eq!(site.subject().as_str(), "ensure site shop");
        assert_eq!(site.needs().resources[0].as_str(), "unit/nginx.service");
        assert_eq!(site.listens().len(), 2);
        assert!(site.redirect_listens().iter().all(|listen| listen.port == 80 && !listen.tls));
    }

    #[test]
    fn what_does_not_fit_together_is_told() {
        let of = |rest: &str| format!(r#"{{"name":"a","server_names":["a.example.com"],{rest}}}"#);
        let reply = r#""locations":[{"path":"/","reply":{"status":200}}]"#;
        assert!(parse(&of(reply)).is_ok());
        assert!(parse(r#"{"name":"a","verb":"remove","replace_edited":true}"#).is_ok());
        for (params, told) in [
            (of(r#""locations":[]"#), "locations is empty"),
            (of(r#""locations":[{"path":"/"}]"#), "says nothing of what is done"),
            (of(r#""locations":[{"path":"/","deny":true,"reply":{"status":200}}]"#), "more than one"),
            (of(r#""locations":[{"path":"x","deny":true}]"#), "begins with `/`"),
            (of(r#""locations":[{"path":"(","match":"regex","deny":true}]"#), "not closed"),
            (of(r#""locations":[{"path":"/","deny":true},{"path":"/","deny":true}]"#), "`/` twice"),
            (of(r#""locations":[{"path":"/","redirect":{"to":"/x","code":200}}]"#), "301"),
            (of(r#""locations":[{"path":"/","proxy":{"upstreams":[]}}]"#), "no upstreams"),
            (
                of(r#""locations":[{"path":"/","proxy":{"upstreams":[{"server":"a:80","backup":true}]}}]"#),
                "only backups",
            ),
            (of(&format!(r#"{reply},"listen":[{{"port":443,"tls":true}}]"#)), "no certificate"),
            (of(&format!(r#"{reply},"listen":[{{"port":0}}]"#)), "expected a nonzero u16"),
            (
                of(&format!(r#"{reply},"listen":[{{"port":80}},{{"port":80}}]"#)),
                "port 80 of one address twice",
            ),
            (of(&format!(r#"{reply},"redirect_http":true"#)), "redirect_http needs"),
            (of(&format!(r#"{reply},"auth":{{}}"#)), "a file or users"),
            (of(&format!(r#"{reply},"probe":{{"port":81}}"#)), "does not listen on port 81"),
            (
                of(&format!(r#"{reply},"headers":[{{"name":"X","value":"a\nSet-Cookie: b"}}]"#)),
                "not printable",
            ),
            (of(&format!(r#"{reply},"colour":"red""#)), "unknown field `colour`"),
            (format!(r#"{{"name":"a",{reply}}}"#), "server_names is empty"),
            (r#"{"name":"a","verb":"remove","server_names":["b"]}"#.to_owned(), "takes the name of the site"),
        ] {
            let error = parse(&params).unwrap_err();
            assert!(error.contains("`site`") && error.contains(told), "{params}: {error}");
        }
    }
}
