//! What does not fit together in the parts of a site.

use super::MAX_MANY;
use super::part::{Auth, Does, Listen, Location, Match, Probe, Proxy, Rate, Redirect, Reply, Static};
use super::value::balanced;

impl Rate {
    pub(super) fn check(&self) -> Result<(), String> {
        match (self.per_second, self.burst) {
            (1..=1_000_000, ..=1_000_000) => Ok(()),
            _ => Err("rate: per_second is from 1 to 1000000, and burst at most as much".to_owned()),
        }
    }
}

impl Auth {
    pub(super) fn check(&self) -> Result<(), String> {
        match (&self.file, self.users.len()) {
            (Some(_), 0) | (None, 1..=MAX_MANY) => Ok(()),
            (_, count) if count > MAX_MANY => {
                Err(format!("auth: users has {count} entries, and {MAX_MANY} are allowed; use a file"))
            }
            _ => Err("auth: give either a file or users".to_owned()),
        }
    }
}

impl Probe {
    pub(super) fn check(&self, listens: &[Listen]) -> Result<(), String> {
        let Self { path, port, host, status } = self;
        if let Some(path) = path
            && (!path.as_str().starts_with('/') || !path.as_str().bytes().all(|byte| byte.is_ascii_graphic()))
        {
            return Err(
                "probe: the path begins with `/`, and has no spaces and other letters than those of ASCII"
                    .to_owned(),
            );
        }
        if let Some(port) = port
            && !listens.iter().any(|listen| listen.port == *port)
        {
            return Err(format!("probe: the site does not listen on port {port}"));
        }
        if host.as_ref().is_some_and(|host| host.is_regex() || host.as_str().contains('*')) {
            return Err("probe: the host is one name".to_owned());
        }
        match status {
            None | Some(100..=599) => Ok(()),
            Some(status) => Err(format!("probe: {status} is no status")),
        }
    }
}

impl Location {
    pub(super) fn check(&self) -> Result<(), String> {
        match self.matches {
            Match::Regex | Match::RegexAnyCase => balanced(self.path.as_str())?,
            _ if !self.path.as_str().starts_with('/') => {
                return Err(
                    "its path begins with `/`; for a regular expression say `match: regex`".to_owned()
                );
            }
            _ => {}
        }
        if [self.allow.len(), self.headers.len(), self.snippets.len()].iter().any(|count| *count > MAX_MANY) {
            return Err(format!("allow, headers and snippets have at most {MAX_MANY} entries each"));
        }
        let none =
            self.proxy.is_none() && self.files.is_none() && self.redirect.is_none() && self.reply.is_none();
        match self.does() {
            None if none => Err(
                "it says nothing of what is done; give one of `proxy`, `static`, `redirect`, `reply`, `deny`"
                    .to_owned(),
            ),
            None => {
                Err("it does more than one thing; give one of `proxy`, `static`, `redirect`, `reply`, `deny`"
                    .to_owned())
            }
            Some(Does::Deny) if !self.allow.is_empty() => {
                Err("`deny` is for everybody; leave it out, and say what those in `allow` get".to_owned())
            }
            // nginx answers before it looks who asks (`return` comes before `allow`).
            Some(Does::Redirect(_) | Does::Reply(_)) if !self.allow.is_empty() => Err(
                "`allow` does not hold for `redirect` and `reply`, which nginx does before it looks who asks"
                    .to_owned(),
            ),
            Some(Does::Deny) => Ok(()),
            Some(Does::Proxy(proxy)) => proxy.check(),
            Some(Does::Static(files)) => files.check(),
            Some(Does::Redirect(redirect)) => redirect.check(),
            Some(Does::Reply(reply)) => reply.check(),
        }
    }
}

impl Proxy {
    fn check(&self) -> Result<(), String> {
        let Self { upstreams, headers, .. } = self;
        if upstreams.is_empty() {
            return Err("proxy: there are no upstreams".to_owned());
        }
        if upstreams.len() > MAX_MANY || headers.len() > MAX_MANY {
            return Err(format!("proxy: at most {MAX_MANY} upstreams and headers are allowed"));
        }
        if upstreams.iter().all(|upstream| upstream.backup) {
            return Err("proxy: there are only backups".to_owned());
        }
        let times = [self.connect_timeout_s, self.send_timeout_s, self.read_timeout_s];
        let times =
            times.into_iter().chain(upstreams.iter().map(|upstream| upstream.fail_timeout_s)).flatten();
        if times.into_iter().any(|time| time == 0 || time > 31_536_000) {
            return Err("proxy: a time is from 1 second to a year".to_owned());
        }
        match upstreams
            .iter()
            .filter_map(|upstream| upstream.weight)
            .all(|weight| (1..=1000).contains(&weight))
        {
            true => Ok(()),
            false => Err("proxy: a weight is from 1 to 1000".to_owned()),
        }
    }
}

impl Static {
    fn check(&self) -> Result<(), String> {
        if self.index.len() > 16 {
            Err("static: at most 16 files stand for a directory".to_owned())
        } else {
            Ok(())
        }
    }
}

impl Redirect {
    fn check(&self) -> Result<(), String> {
        match self.code() {
            301 | 302 | 303 | 307 | 308 => Ok(()),
            code => Err(format!("redirect: the code is 301, 302, 303, 307 or 308, and not {code}")),
        }
    }
}

impl Reply {
    fn check(&self) -> Result<(), String> {
        match self.status {
            200..=299 | 400..=599 => Ok(()),
            300..=399 => Err("reply: to send somebody elsewhere is `redirect`".to_owned()),
            status => Err(format!("reply: {status} is no status of an answer")),
        }
    }
}
