//! A site as the text of its file.
//!
//! Everything that a site says goes through [`Writer`]: nothing here puts a value into the text itself.

use std::collections::BTreeSet;

use fleetward_protocol::action::site::{
    Does, Header, Listen, Location, Match, Proxy, Reply, Site, SiteName, Static, Upstream,
};
use fleetward_protocol::nginx::Writer;

use crate::platform::nginx::mark;

/// What the rendering hangs on beside the site.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ground<'a> {
    /// Whether HTTP/2 is a directive of its own (since nginx 1.25.1), and no word of `listen`.
    pub(super) has_http2: bool,
    /// The file of users, if the site brings its own.
    pub(super) users: Option<&'a str>,
    /// What nginx does with links among the files that it serves.
    pub(super) links: Links,
}

/// Whether nginx follows links that stand beneath the root of files that it serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Links {
    /// It does: what is beneath a root is the business of whoever writes there.
    Followed,
    /// It does not: the owner names the directories that may be served, and whoever writes into one is not asked.
    Refused,
}

/// The text of a site's file.
pub(super) fn render(site: &Site, ground: Ground<'_>) -> String {
    let mut writer = Writer::default();
    let own = variable(&site.name);
    if let Some(rate) = &site.rate {
        let (zone, rate) = (format!("zone={own}:10m"), format!("rate={}r/s", rate.per_second));
        writer.directive("limit_req_zone", ["$binary_remote_addr", &zone, &rate]);
    }
    let proxies = || {
        let proxies = site.locations.iter().enumerate();
        proxies.filter_map(|(at, location)| location.proxy.as_ref().map(|proxy| (at, proxy)))
    };
    if proxies().any(|(_, proxy)| proxy.websocket) {
        writer.block("map", ["$http_upgrade", &format!("${own}_connection")], |writer| {
            writer.directive("default", ["upgrade"]);
            writer.directive("", ["close"]);
        });
    }
    for (at, proxy) in proxies() {
        writer.block("upstream", [upstream_name(&own, at)], |writer| {
            proxy.upstreams.iter().for_each(|upstream| server(writer, upstream));
        });
    }
    let redirect = site.redirect_listens();
    if !redirect.is_empty() {
        writer.block("server", [""; 0], |writer| {
            head(writer, site, &redirect, ground);
            writer.directive("return", ["301", "https://$host$request_uri"]);
        });
    }
    writer.block("server", [""; 0], |writer| {
        head(writer, site, &site.listens(), ground);
        body(writer, site, &own, ground);
    });
    mark::marked(&site.name, &writer.into_text())
}

/// A name of the site's own for variables, zones and upstreams: different sites have different ones.
fn variable(name: &SiteName) -> String {
    let part = |c| match c {
        '-' => "_d".to_owned(),
        '.' => "_p".to_owned(),
        '_' => "__".to_owned(),
        c => String::from(c),
    };
    format!("fleetward_{}", name.as_str().chars().map(part).collect::<String>())
}

fn upstream_name(own: &str, at: usize) -> String {
    format!("{own}_upstream{at}")
}

fn server(writer: &mut Writer, upstream: &Upstream) {
    let Upstream { server, weight, max_fails, fail_timeout_s, backup } = upstream;
    let more = [
        weight.map(|weight| format!("weight={weight}")),
        max_fails.map(|fails| format!("max_fails={fails}")),
        fail_timeout_s.map(|time| format!("fail_timeout={time}s")),
        backup.then(|| "backup".to_owned()),
    ];
    writer.directive("server", [server.to_string()].into_iter().chain(more.into_iter().flatten()));
}

/// Where a server listens, and its names.
fn head(writer: &mut Writer, site: &Site, listens: &[Listen], ground: Ground<'_>) {
    for listen in listens {
        let words = [
            (listen.default_server, "default_server"),
            (listen.tls, "ssl"),
            (listen.http2 && !ground.has_http2, "http2"),
        ];
        let words = words.into_iter().filter(|(is_so, _)| *is_so).map(|(_, word)| word.to_owned());
        writer.directive("listen", [listen.place()].into_iter().chain(words));
    }
    if ground.has_http2 && listens.iter().any(|listen| listen.http2) {
        writer.directive("http2", ["on"]);
    }
    match site.server_names.is_empty() {
        true => writer.directive("server_name", [""]),
        false => writer.directive("server_name", &site.server_names),
    }
    if let Some(log) = &site.access_log {
        writer.directive("access_log", [log]);
    }
    if let Some(log) = &site.error_log {
        writer.directive("error_log", [log]);
    }
}

fn body(writer: &mut Writer, site: &Site, own: &str, ground: Ground<'_>) {
    if let Some(tls) = &site.tls {
        writer.directive("ssl_certificate", [&tls.certificate]);
        writer.directive("ssl_certificate_key", [&tls.key]);
    }
    if let Some(size) = site.max_body_mib {
        writer.directive("client_max_body_size", [format!("{size}m")]);
    }
    if let Some(rate) = &site.rate {
        let zone = format!("zone={own}");
        match rate.burst {
            0 => writer.directive("limit_req", [zone]),
            burst => writer.directive("limit_req", [zone, format!("burst={burst}"), "nodelay".to_owned()]),
        }
        writer.directive("limit_req_status", ["429"]);
    }
    headers(writer, &site.headers);
    if let Some(auth) = &site.auth {
        writer.directive("auth_basic", [auth.realm.as_ref().map_or("Restricted", |realm| realm.as_str())]);
        let file = auth.file.as_ref().map(|file| file.as_str()).or(ground.users);
        writer.directive("auth_basic_user_file", file);
    }
    for snippet in &site.snippets {
        snippet.directives().iter().for_each(|directive| writer.read(directive));
    }
    for (at, one) in site.locations.iter().enumerate() {
        location(writer, site, (own, at), one, ground.links);
    }
    let is_rest = |location: &Location| {
        location.path.as_str() == "/" && matches!(location.matches, Match::Prefix | Match::PrefixFirst)
    };
    if !site.locations.iter().any(is_rest) {
        // nginx would look for files in a directory of its own.
        writer.block("location", ["/"], |writer| writer.directive("return", ["404"]));
    }
}

fn headers<'a>(writer: &mut Writer, headers: impl IntoIterator<Item = &'a Header>) {
    for Header { name, value } in headers {
        writer.directive("add_header", [name.as_str(), value.as_str(), "always"]);
    }
}

fn location(writer: &mut Writer, site: &Site, (own, at): (&str, usize), location: &Location, links: Links) {
    let sign = match location.matches {
        Match::Prefix => None,
        Match::PrefixFirst => Some("^~"),
        Match::Exact => Some("="),
        Match::Regex => Some("~"),
        Match::RegexAnyCase => Some("~*"),
    };
    writer.block("location", sign.into_iter().chain([location.path.as_str()]), |writer| {
        for network in &location.allow {
            writer.directive("allow", [network]);
        }
        if !location.allow.is_empty() {
            writer.directive("deny", ["all"]);
        }
        if !location.headers.is_empty() {
            // Where a location has headers of its own, nginx leaves out those of the server.
            let own: BTreeSet<String> = location.headers.iter().map(name).collect();
            headers(writer, site.headers.iter().filter(|header| !own.contains(&name(header))));
            headers(writer, &location.headers);
        }
        match location.does() {
            Some(Does::Proxy(proxy)) => pass(writer, proxy, own, at),
            Some(Does::Static(files)) => serve(writer, files, links),
            Some(Does::Redirect(redirect)) => {
                writer.directive("return", [&redirect.code().to_string(), redirect.to.as_str()]);
            }
            Some(Does::Reply(reply)) => say(writer, reply),
            Some(Does::Deny) | None => writer.directive("deny", ["all"]),
        }
        for snippet in &location.snippets {
            snippet.directives().iter().for_each(|directive| writer.read(directive));
        }
    });
}

fn name(header: &Header) -> String {
    header.name.as_str().to_ascii_lowercase()
}

fn pass(writer: &mut Writer, proxy: &Proxy, own: &str, at: usize) {
    let scheme = if proxy.https { "https" } else { "http" };
    writer.directive("proxy_pass", [format!("{scheme}://{}", upstream_name(own, at))]);
    writer.directive("proxy_http_version", ["1.1"]);
    let connection = format!("${own}_connection");
    let mut sent = vec![
        ("Host", "$host"),
        ("X-Real-IP", "$remote_addr"),
        ("X-Forwarded-For", "$proxy_add_x_forwarded_for"),
        ("X-Forwarded-Proto", "$scheme"),
    ];
    match proxy.websocket {
        true => sent.extend([("Upgrade", "$http_upgrade"), ("Connection", &connection)]),
        false => sent.push(("Connection", "")),
    }
    let given: BTreeSet<String> = proxy.headers.iter().map(name).collect();
    sent.retain(|(name, _)| !given.contains(&name.to_ascii_lowercase()));
    sent.extend(proxy.headers.iter().map(|header| (header.name.as_str(), header.value.as_str())));
    for (name, value) in sent {
        writer.directive("proxy_set_header", [name, value]);
    }
    if let Some(buffering) = proxy.buffering {
        writer.directive("proxy_buffering", [if buffering { "on" } else { "off" }]);
    }
    for (name, time) in [
        ("proxy_connect_timeout", proxy.connect_timeout_s),
        ("proxy_send_timeout", proxy.send_timeout_s),
        ("proxy_read_timeout", proxy.read_timeout_s),
    ] {
        if let Some(time) = time {
            writer.directive(name, [format!("{time}s")]);
        }
    }
}

fn serve(writer: &mut Writer, files: &Static, links: Links) {
    let Static { root, index, fallback, expires } = files;
    writer.directive("root", [root]);
    if links == Links::Refused {
        // The root itself was looked at, and may be a link, such as to the release that is in use.
        writer.directive("disable_symlinks", ["on".to_owned(), format!("from={root}")]);
    }
    if !index.is_empty() {
        writer.directive("index", index);
    }
    if let Some(fallback) = fallback {
        // Not `$is_args`, which may be empty: a group of a regular expression can be called `args`, and what a request puts into
        // it must not become a part of the path.
        let arguments = fallback.with_arguments().map(|path| format!("{path}?$args"));
        let fallback = arguments.as_deref().unwrap_or(fallback.as_str());
        writer.directive("try_files", ["$uri", "$uri/", fallback]);
    }
    if let Some(expires) = expires {
        writer.directive("expires", [expires]);
    }
}

fn say(writer: &mut Writer, reply: &Reply) {
    let Reply { status, body, content_type } = reply;
    let status = status.to_string();
    let Some(body) = body else { return writer.directive("return", [status]) };
    // What the request's path ends with says nothing of what is answered.
    writer.block("types", [""; 0], |_| {});
    writer.directive("default_type", [content_type.as_ref().map_or("text/plain", |media| media.as_str())]);
    writer.directive("return", [status.as_str(), body.as_str()]);
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::{TcpListener, TcpStream};
    use std::process::{Command, Stdio};

    use fleetward_protocol::action::Contract as _;
    use fleetward_protocol::nginx::{Directive, parse};
    use proptest::strategy::{Strategy as _, ValueTree as _};
    use proptest::string::string_regex;
    use proptest::test_runner::TestRunner;
    use serde_json::json;

    use super::*;

    const GROUND: Ground<'_> = Ground { has_http2: false, users: None, links: Links::Followed };

    fn site(value: serde_json::Value) -> Site {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn a_whole_site_is_written_so() {
        let site = site(json!({
            "name": "my-shop", "server_names": ["shop.example.com", "~^x\\d{2}$"],
            "tls": { "certificate": "/etc/ssl/a.pem", "key": "/etc/ssl/a.key" }, "redirect_http": true,
            "rate": { "per_second": 10, "burst": 20 }, "max_body_mib": 8,
            "headers": [{ "name": "X-Frame-Options", "value": "DENY" }],
            "snippets": ["gzip on; if ($host = 'a b') { return 404; }"],
            "locations": [
                { "path": "/", "proxy": { "upstreams": [{ "server": "127.0.0.1:3000", "weight": 2 }, { "server": "unix:/run/a.sock", "backup": true }], "websocket": true } },
                { "path": "/x y", "match": "exact", "reply": { "status": 200, "body": "a\nb" }, "headers": [{ "name": "x-frame-options", "value": "SAMEORIGIN" }] },
                { "path": "/f/", "match": "prefix-first", "static": { "root": "/srv", "index": ["a.html"], "fallback": "=404" }, "allow": ["192.0.2.0/24"] },
            ],
        }));
        assert_eq!(site.validate(), Ok(()));
        let text = render(&site, GROUND);
        let (_, text) = text.split_once('\n').unwrap();
        expect_test::expect_file!["render.txt"].assert_eq(text);
        let parsed = parse(text.as_bytes());
        assert_eq!(parsed.fault, None);
        let newer = render(&site, Ground { has_http2: true, ..GROUND });
        assert!(newer.contains("http2 on;") && !newer.contains("ssl http2"), "{newer}");
    }

    #[test]
    fn names_of_different_sites_never_meet() {
        let names =
            ["a-b", "a.b", "a_b", "a_db", "a__b", "a-.b"].map(|name| variable(&name.parse().unwrap()));
        assert_eq!(names.iter().collect::<BTreeSet<_>>().len(), names.len(), "{names:?}");
    }

    /// What nginx serves of values is what they are: whatever is in them, none breaks out of its directive. The real nginx
    /// takes the files, tells them as they are, and answers with the values.
    #[test]
    fn the_real_nginx_has_the_same_values() {
        if Command::new("nginx").arg("-v").stderr(Stdio::null()).status().is_err() {
            return crate::testing::skipped("values in the real nginx", "nginx is not installed");
        }
        let directory = tempfile::tempdir().unwrap();
        let top = directory.path();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut runner = TestRunner::default();
        let signs = "([ -#%-~äß€\"'\\\\;{}#]|\\\\n|\\\\){1,24}";
        let mut sites = Vec::new();
        while sites.len() < 64 {
            let text = |signs: &str, runner: &mut TestRunner| {
                string_regex(signs).unwrap().new_tree(runner).unwrap().current()
            };
            let body = text("([ -#%-~äß€\n\t\"'\\\\;{}#]|\\\\n){0,24}", &mut runner);
            let (header, path) =
                (text(signs, &mut runner), text("/p[!-#%-~äß\"'\\\\;{}]{0,12}", &mut runner));
            let value = json!({
                "name": format!("s{}", sites.len()), "server_names": [format!("s{}.example.com", sites.len())],
                "listen": [{ "address": "127.0.0.1", "port": port }],
                "headers": [{ "name": "X-Value", "value": header }],
                "locations": [{ "path": "/", "reply": { "status": 200, "body": body } },
                    { "path": path, "match": "exact", "static": { "root": format!("/srv{path}") } }],
            });
            // Some of them are no values: that they are refused is tested where they are.
            if let Ok(site) = serde_json::from_value::<Site>(value)
                && site.validate().is_ok()
            {
                sites.push((site, header, body));
            }
        }
        let mut config = format!(
            "pid {0}/nginx.pid; error_log {0}/error.log; {1} events {{}} http {{ access_log off; server_names_hash_bucket_size 128;\n",
            top.display(),
            if nix::unistd::geteuid().is_root() { "user root;" } else { "" },
        );
        for (site, ..) in &sites {
            let file = top.join(format!("{}.site", site.name));
            std::fs::write(&file, render(site, GROUND)).unwrap();
            config.push_str(&format!("include {};\n", file.display()));
        }
        std::fs::write(top.join("nginx.conf"), config + "}\n").unwrap();
        let nginx = |more: &[&str]| {
            let mut nginx = Command::new("nginx");
            nginx
                .arg("-p")
                .arg(top)
                .arg("-c")
                .arg(top.join("nginx.conf"))
                .arg("-e")
                .arg(top.join("error.log"));
            nginx.args(more).output().unwrap()
        };
        let dump = nginx(&["-T"]);
        assert!(dump.status.success(), "{}", String::from_utf8_lossy(&dump.stderr));
        let told = parse(&dump.stdout);
        for (site, ..) in &sites {
            let written = parse(render(site, GROUND).as_bytes());
            assert_eq!(written.fault, None);
            assert!(written.directives.iter().all(|one| told.directives.contains(one)), "{}", site.name);
            assert!(has_values(&written.directives, site));
        }
        let _running = Running::start(&nginx);
        for (site, header, body) in &sites {
            let (head, told) = get(port, &format!("{}.example.com", site.name));
            assert_eq!(&told, body);
            assert!(head.contains(&format!("X-Value: {header}\r\n")), "{header:?}: {head}");
        }
    }

    fn has_values(directives: &[Directive], site: &Site) -> bool {
        let server = directives.iter().find(|one| one.name == "server").unwrap();
        let location = server.all("location").nth(1).unwrap();
        let files = site.locations[1].files.as_ref().unwrap();
        location.words == ["=", site.locations[1].path.as_str()]
            && location.first("root").unwrap() == [files.root.as_str()]
    }

    fn get(port: u16, host: &str) -> (String, String) {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        write!(stream, "GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n").unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        let answer = String::from_utf8(answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (format!("{head}\r\n"), body.to_owned())
    }

    /// An nginx that runs until it is dropped.
    struct Running<'a>(&'a dyn Fn(&[&str]) -> std::process::Output);

    impl<'a> Running<'a> {
        fn start(nginx: &'a dyn Fn(&[&str]) -> std::process::Output) -> Self {
            let started = nginx(&[]);
            assert!(started.status.success(), "{}", String::from_utf8_lossy(&started.stderr));
            Self(nginx)
        }
    }

    impl Drop for Running<'_> {
        fn drop(&mut self) {
            drop((self.0)(&["-s", "stop"]));
        }
    }
}
