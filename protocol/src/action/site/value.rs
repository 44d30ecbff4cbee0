//! The values of a site: each is checked where it is read, and says why it is none.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::idn;
use crate::nginx::{Directive, MAX_VALUE, parse};
use crate::object::{Class, Object};
use crate::printable::is_line;
use crate::text::{Text, Word};

/// Why a text is not such a value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not {what}: {rule}")]
pub struct InvalidValue {
    text: Word,
    what: &'static str,
    rule: String,
}

/// Makes a type of text that holds what a function lets pass.
macro_rules! values {
    ($($(#[$meta:meta])* $Name:ident is $what:literal by $read:ident;)+) => {
        $(
            $(#[$meta])*
            #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
            #[serde(try_from = "String", into = "String")]
            pub struct $Name(String);

            impl $Name {
                /// The text.
                #[must_use]
                pub fn as_str(&self) -> &str {
                    &self.0
                }
            }

            impl FromStr for $Name {
                type Err = InvalidValue;

                fn from_str(text: &str) -> Result<Self, InvalidValue> {
                    $read(text).map(Self).map_err(|rule| InvalidValue { text: Text::of(text), what: $what, rule })
                }
            }

            impl TryFrom<String> for $Name {
                type Error = InvalidValue;

                fn try_from(text: String) -> Result<Self, InvalidValue> {
                    text.parse()
                }
            }

            impl From<$Name> for String {
                fn from(value: $Name) -> Self {
                    value.0
                }
            }

            impl AsRef<str> for $Name {
                fn as_ref(&self) -> &str {
                    &self.0
                }
            }

            impl fmt::Display for $Name {
                fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                    f.pad(&self.0)
                }
            }
        )+
    };
}

values! {
    /// The name of a site, and of its file.
    SiteName is "the name of a site" by site_name;
    /// A name that a server answers to.
    ServerName is "a server name" by server_name;
    /// An absolute path on the host, in which nginx looks for no variables.
    SitePath is "a path" by path;
    /// What the path of a request is compared with.
    Pattern is "what a location can be" by pattern;
    /// A server that requests are passed on to.
    Backend is "a server to pass requests on to" by backend;
    /// An address, or a network.
    Network is "an address or a network" by network;
    /// A text in which nginx puts variables: `$host`, `${request_uri}`.
    Template is "a text with variables" by template;
    /// A body, which may have several lines.
    Body is "a body" by body;
    /// The name of a header.
    HeaderName is "the name of a header" by header_name;
    /// A media type.
    MediaType is "a media type" by media_type;
    /// Where requests are logged.
    AccessLog is "where requests are logged" by access_log;
    /// What is served for what is not there.
    Fallback is "a fallback" by fallback;
    /// The name of a file in a directory that is asked for.
    FileName is "the name of a file" by file_name;
    /// How long browsers keep what is served.
    Expiry is "how long something is kept" by expiry;
    /// A name and a password's hash.
    Login is "a login" by login;
    /// Directives of nginx, word by word.
    Snippet is "a snippet" by snippet;
}

impl SitePath {
    /// What an owner's rule is asked about.
    #[must_use]
    pub fn object(&self) -> Object {
        Object::named(Class::Paths, self)
    }
}

impl ServerName {
    /// Whether it is a regular expression.
    #[must_use]
    pub fn is_regex(&self) -> bool {
        self.0.starts_with('~')
    }
}

impl AccessLog {
    /// The file; `None` if there is to be none.
    #[must_use]
    pub fn path(&self) -> Option<&str> {
        self.0.starts_with('/').then_some(self.as_str())
    }
}

impl Backend {
    /// The socket's path, if it is one of the host's own.
    #[must_use]
    pub fn socket(&self) -> Option<&str> {
        self.0.strip_prefix("unix:")
    }
}

impl Fallback {
    /// The path, if the arguments of the request are taken along.
    #[must_use]
    pub fn with_arguments(&self) -> Option<&str> {
        self.0.strip_suffix(ARGUMENTS)
    }
}

impl Snippet {
    /// Its directives.
    #[must_use]
    pub fn directives(&self) -> Vec<Directive> {
        parse(self.0.as_bytes()).directives
    }

    /// The names of all directives in it.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        fn collect(directives: Vec<Directive>, names: &mut Vec<String>) {
            for Directive { name, words: _, block } in directives {
                names.push(name);
                collect(block.unwrap_or_default(), names);
            }
        }
        let mut names = Vec::new();
        collect(self.directives(), &mut names);
        names
    }
}

/// Checks that a value is one that nginx takes for a word, and a person sees.
fn word(text: &str, most: usize) -> Result<(), String> {
    match text.len() {
        0 => Err("it is empty".to_owned()),
        length if length > most => Err(format!("it has {length} bytes, and {most} are allowed")),
        _ if !is_line(text) => Err("it holds what is not printable, such as the end of a line".to_owned()),
        _ => Ok(()),
    }
}

/// Checks that nginx finds no variable.
fn without_variables(text: &str) -> Result<(), String> {
    match text.contains('$') {
        true => {
            Err("it holds `$`, which nginx takes for a variable here and has no other way to write"
                .to_owned())
        }
        false => Ok(()),
    }
}

fn site_name(text: &str) -> Result<String, String> {
    word(text, 64)?;
    let is_valid = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '.' | '_');
    if !text.chars().all(is_valid) || !text.starts_with(|c: char| c.is_ascii_alphanumeric()) {
        return Err(
            "only lower-case letters, digits and `-._` are allowed, a letter or digit first".to_owned()
        );
    }
    if text.contains("..") || text.ends_with(['.', '-']) {
        return Err("it has two dots in a row, or ends with a dot or a dash".to_owned());
    }
    if let Some(suffix) = [".conf", ".disabled", ".new"].into_iter().find(|suffix| text.ends_with(suffix)) {
        return Err(format!("leave `{suffix}` out: files get their endings by themselves"));
    }
    Ok(text.to_owned())
}

fn server_name(text: &str) -> Result<String, String> {
    if let Some(regex) = text.strip_prefix('~') {
        word(regex, 500)?;
        return balanced(regex).map(|()| text.to_owned());
    }
    if !text.is_ascii() && is_line(text) && text.chars().count() <= 253 {
        return Err(format!("write it in punycode: {}", idn::to_ascii(text)));
    }
    word(text, 253)?;
    let name = text.to_ascii_lowercase();
    if name == "_" {
        return Ok(name);
    }
    // One star, at one end; or a dot, which stands for the name itself and all beneath it.
    let ends = [name.strip_prefix("*."), name.strip_suffix(".*"), name.strip_prefix('.')];
    let plain = ends.into_iter().flatten().next().unwrap_or(&name);
    if plain.contains('*') {
        return Err(
            "a `*` stands for whole labels at the beginning (`*.example.com`) or the end (`www.example.*`)"
                .to_owned(),
        );
    }
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_'))
    };
    match plain.split('.').all(is_label) {
        true => Ok(name),
        false => Err("only letters, digits, `-`, `_` and dots between them are allowed; a regular expression begins with `~`".to_owned()),
    }
}

/// Whether a regular expression may be one: nginx itself has the last word, before anything is changed.
pub(super) fn balanced(regex: &str) -> Result<(), String> {
    let (mut open, mut in_class) = (0_usize, false);
    let mut chars = regex.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' if chars.next().is_none() => return Err("it ends with a backslash".to_owned()),
            '\\' => {}
            '[' => in_class = true,
            ']' => in_class = false,
            '(' if !in_class => open += 1,
            ')' if !in_class => match open.checked_sub(1) {
                Some(rest) => open = rest,
                None => return Err("a parenthesis in it is closed that is not open".to_owned()),
            },
            _ => {}
        }
    }
    match (open, in_class) {
        (0, false) => Ok(()),
        _ => Err("a parenthesis or a bracket in it is not closed".to_owned()),
    }
}

fn path(text: &str) -> Result<String, String> {
    word(text, MAX_VALUE)?;
    without_variables(text)?;
    if !text.starts_with('/') {
        return Err("write it from the root on, such as `/srv/www`".to_owned());
    }
    if text.split('/').any(|name| name == "..") {
        return Err("write it without `..`".to_owned());
    }
    Ok(text.to_owned())
}

fn pattern(text: &str) -> Result<String, String> {
    word(text, MAX_VALUE)?;
    Ok(text.to_owned())
}

fn backend(text: &str) -> Result<String, String> {
    word(text, 300)?;
    if let Some(socket) = text.strip_prefix("unix:") {
        return match path(socket)?.contains([':', ' ']) {
            true => Err("the path of a socket holds no colon and no space".to_owned()),
            false => Ok(text.to_owned()),
        };
    }
    let Some((host, port)) = text.rsplit_once(':') else {
        return Err("write it as `host:port`, `[address]:port` or `unix:/path`".to_owned());
    };
    if !port.parse::<u16>().is_ok_and(|port| port > 0) || port.starts_with('+') {
        return Err("the port is a number from 1 to 65535".to_owned());
    }
    let v6 = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let is_label = |label: &str| {
        !label.is_empty() && label.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_'))
    };
    let is_host = match v6 {
        Some(v6) => v6.parse::<std::net::Ipv6Addr>().is_ok(),
        None => host.split('.').all(is_label),
    };
    match is_host {
        true => Ok(text.to_owned()),
        false => Err("the host is a name or an address; one of IPv6 stands in brackets".to_owned()),
    }
}

fn network(text: &str) -> Result<String, String> {
    let (address, length) =
        text.split_once('/').map_or((text, None), |(address, length)| (address, Some(length)));
    let Ok(address) = address.parse::<IpAddr>() else {
        return Err("write an address, or a network such as `192.0.2.0/24`".to_owned());
    };
    let most = if address.is_ipv4() { 32 } else { 128 };
    match length {
        None => Ok(address.to_string()),
        Some(length) => match length.parse::<u8>() {
            Ok(length) if length <= most => Ok(format!("{address}/{length}")),
            _ => Err(format!("the length of a network is from 0 to {most}")),
        },
    }
}

/// Checks that what nginx takes for variables are some.
fn variables(text: &str) -> Result<(), String> {
    for (at, _) in text.match_indices('$') {
        let rest = text.get(at + 1..).unwrap_or_default();
        let name = match rest.strip_prefix('{') {
            Some(braced) => braced.split_once('}').map(|(name, _)| name).unwrap_or_default(),
            None => rest.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').next().unwrap_or_default(),
        };
        if name.is_empty() || !name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') {
            return Err("a `$` in it begins no variable, such as `$host` or `${host}`, and nginx has no other use for it".to_owned());
        }
    }
    Ok(())
}

fn template(text: &str) -> Result<String, String> {
    word(text, MAX_VALUE)?;
    variables(text).map(|()| text.to_owned())
}

fn body(text: &str) -> Result<String, String> {
    if text.len() > MAX_VALUE {
        return Err(format!("it has {} bytes, and {MAX_VALUE} are allowed", text.len()));
    }
    if !text.chars().all(|c| matches!(c, '\n' | '\t') || is_line(c.encode_utf8(&mut [0; 4]))) {
        return Err("it holds what is not printable".to_owned());
    }
    variables(text).map(|()| text.to_owned())
}

fn header_name(text: &str) -> Result<String, String> {
    word(text, 128)?;
    match text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_')) {
        true => Ok(text.to_owned()),
        false => Err("only letters, digits, `-` and `_` are allowed".to_owned()),
    }
}

fn media_type(text: &str) -> Result<String, String> {
    word(text, 200)?;
    without_variables(text)?;
    let is_part = |part: &str| {
        !part.is_empty() && part.chars().all(|c| c.is_ascii_alphanumeric() || "-+._".contains(c))
    };
    let (essence, _) = text.split_once(';').unwrap_or((text, ""));
    match essence.trim_end().split_once('/').is_some_and(|(one, other)| is_part(one) && is_part(other)) {
        true => Ok(text.to_owned()),
        false => Err("write it as `text/plain`".to_owned()),
    }
}

fn access_log(text: &str) -> Result<String, String> {
    if text == "off" {
        Ok(text.to_owned())
    } else {
        path(text).map_err(|rule| format!("it is neither `off` nor a path: {rule}"))
    }
}

/// What stands at the end of a fallback that takes the arguments of the request along.
const ARGUMENTS: &str = "$is_args$args";

fn fallback(text: &str) -> Result<String, String> {
    word(text, MAX_VALUE)?;
    let code = text.strip_prefix('=').map(|code| code.parse::<u16>());
    match code {
        Some(Ok(400..=599)) if text.len() == "=404".len() => Ok(text.to_owned()),
        Some(_) => Err("a status is from 400 to 599, such as `=404`".to_owned()),
        None => fallback_path(text.strip_suffix(ARGUMENTS).unwrap_or(text)).map(|()| text.to_owned()),
    }
}

/// Checks what nginx joins to a root as it stands: it resolves no `..` in it (`try_files`, ngx_http_core_module).
fn fallback_path(path: &str) -> Result<(), String> {
    if !path.starts_with('/') {
        return Err("write a path of the site, such as `/index.html`, or a status, such as `=404`".to_owned());
    }
    if path.contains('$') {
        return Err(format!(
            "no variable is taken there but `{ARGUMENTS}` at the end, for a request says what is in it"
        ));
    }
    if path.split('/').any(|name| name == "..") {
        return Err("write it without `..`".to_owned());
    }
    match path.contains([' ', ';', '{', '}', '?', '#', '"', '\'', '\\']) {
        true => Err("a path there has no spaces, quotes and backslashes, and none of `;{}?#`".to_owned()),
        false => Ok(()),
    }
}

fn file_name(text: &str) -> Result<String, String> {
    word(text, 255)?;
    without_variables(text)?;
    match text.contains('/') || matches!(text, "." | "..") {
        true => Err("it is a name alone, without `/`, and neither `.` nor `..`".to_owned()),
        false => Ok(text.to_owned()),
    }
}

fn expiry(text: &str) -> Result<String, String> {
    let is_time = text
        .strip_suffix(['s', 'm', 'h', 'd', 'y'])
        .is_some_and(|number| (1..=6).contains(&number.len()) && number.chars().all(|c| c.is_ascii_digit()));
    match is_time || matches!(text, "off" | "epoch" | "max") {
        true => Ok(text.to_owned()),
        false => {
            Err("write a number with `s`, `m`, `h`, `d` or `y`, such as `30d`; or `max`, `epoch`, `off`"
                .to_owned())
        }
    }
}

/// The beginnings of hashes that crypt(5) knows and nobody can look through.
const HASHES: [&str; 7] = ["$2a$", "$2b$", "$2y$", "$y$", "$6$", "$5$", "$apr1$"];

fn login(text: &str) -> Result<String, String> {
    // The password may stand where the hash should: it is not repeated in full.
    word(text, 300)?;
    let Some((name, hash)) = text.split_once(':') else {
        return Err("write it as `name:hash`, as `htpasswd -nB name` tells it".to_owned());
    };
    if name.is_empty() || !name.chars().all(|c| c.is_ascii_alphanumeric() || "-._@+".contains(c)) {
        return Err("a name has letters, digits and `-._@+`".to_owned());
    }
    let is_hash = HASHES.iter().any(|begin| hash.strip_prefix(begin).is_some_and(|rest| rest.len() >= 16))
        && hash.chars().all(|c| c.is_ascii_alphanumeric() || "$./=,".contains(c));
    match is_hash {
        true => Ok(text.to_owned()),
        false => Err("what stands behind the colon is no hash of bcrypt or crypt(5), such as `htpasswd -nB name` makes; a password itself is never taken".to_owned()),
    }
}

fn snippet(text: &str) -> Result<String, String> {
    if text.len() > 4 * MAX_VALUE || crate::printable::find_hidden(text).is_some() {
        return Err("it is too long, or holds what is not printable".to_owned());
    }
    let parsed = parse(text.as_bytes());
    if let Some((line, what)) = parsed.fault {
        return Err(format!("in line {line} {what}"));
    }
    if parsed.directives.is_empty() {
        return Err("it holds no directive, such as `gzip on;`".to_owned());
    }
    let is_foreign = |name: &String| name.is_empty() || name.ends_with("_by_lua_block") || !is_line(name);
    let snippet = Snippet(text.to_owned());
    match snippet.names().iter().find(|name| is_foreign(name)) {
        Some(_) => {
            Err("a block in another language cannot be checked here; put it into a file of its own"
                .to_owned())
        }
        None => Ok(snippet.0),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn told<T: FromStr<Err = InvalidValue> + fmt::Debug>(text: &str) -> String {
        text.parse::<T>().unwrap_err().to_string()
    }

    #[test]
    fn server_names_are_those_that_nginx_can_hold() {
        for (text, name) in [
            ("example.com", "example.com"),
            ("WWW.Example.com", "www.example.com"),
            ("*.example.com", "*.example.com"),
            (".example.com", ".example.com"),
            ("www.example.*", "www.example.*"),
            ("_", "_"),
            ("xn--mnchen-3ya.example", "xn--mnchen-3ya.example"),
            (r"~^(?<sub>\w+)\.example\.com$", r"~^(?<sub>\w+)\.example\.com$"),
        ] {
            assert_eq!(text.parse::<ServerName>().unwrap().as_str(), name);
        }
        for (text, rule) in [
            ("", "empty"),
            ("münchen.example", "punycode: xn--mnchen-3ya.example"),
            ("a b", "only letters"),
            ("a;b", "only letters"),
            ("a.*.example", "whole labels"),
            ("*a.example", "whole labels"),
            ("*", "whole labels"),
            ("*.", "only letters"),
            ("a..b", "only letters"),
            ("a$b", "only letters"),
            ("~^(a", "not closed"),
            ("~^a)", "not open"),
            ("~a\\", "backslash"),
            ("~", "empty"),
            ("~a\nb", "not printable"),
        ] {
            let error = told::<ServerName>(text);
            assert!(error.contains(rule) && is_line(&error), "{text:?}: {error}");
        }
    }

    #[test]
    fn other_values_are_what_they_are_for() {
        for (error, rule) in [
            (told::<SiteName>("../x"), "only lower-case"),
            (told::<SiteName>("Shop"), "only lower-case"),
            (told::<SiteName>("shop.conf"), "leave `.conf` out"),
            (told::<SiteName>(".shop"), "letter or digit first"),
            (told::<SitePath>("srv"), "from the root on"),
            (told::<SitePath>("/srv/../etc"), "without `..`"),
            (told::<SitePath>("/srv/$host"), "takes for a variable"),
            (told::<Backend>("127.0.0.1"), "`host:port`"),
            (told::<Backend>("127.0.0.1:0"), "from 1 to 65535"),
            (told::<Backend>("a b:80"), "brackets"),
            (told::<Backend>("2001:db8::1:80"), "brackets"),
            (told::<Network>("192.0.2.0/33"), "from 0 to 32"),
            (told::<Network>("all"), "an address"),
            (told::<Template>("5 $"), "begins no variable"),
            (told::<Template>("${a"), "begins no variable"),
            (told::<Template>("a\r\nSet-Cookie: x"), "not printable"),
            (told::<HeaderName>("X Y"), "only letters"),
            (told::<MediaType>("text"), "text/plain"),
            (told::<AccessLog>("on"), "neither `off` nor a path"),
            (told::<Fallback>("=200"), "400 to 599"),
            (told::<Fallback>("=+404"), "400 to 599"),
            (told::<Fallback>("index.html"), "a path of the site"),
            (told::<Fallback>("/../../etc/passwd"), "without `..`"),
            (told::<Fallback>("/..$is_args$args"), "without `..`"),
            (told::<Fallback>("/../..$arg_x"), "no variable"),
            (told::<Fallback>("/../..$1"), "no variable"),
            (told::<Fallback>("/$document_root"), "no variable"),
            (told::<Fallback>("/$args"), "no variable"),
            (told::<Fallback>("/a$is_args$args/b"), "no variable"),
            (told::<Fallback>("/a b;"), "no spaces"),
            (told::<Fallback>("/x{"), "no spaces"),
            (told::<Fallback>("/a?b=/../c"), "without `..`"),
            (told::<Fallback>("/a?b"), "none of"),
            (told::<FileName>(".."), "neither"),
            (told::<FileName>("../a"), "a name alone"),
            (told::<Expiry>("30"), "30d"),
            (told::<Login>("ada:secret"), "never taken"),
            (told::<Login>("ada:{PLAIN}secretsecretsecret"), "never taken"),
            (told::<Snippet>("gzip on"), "within a directive"),
            (told::<Snippet>("gzip on; }"), "did not begin"),
            (told::<Snippet>("} server {"), "did not begin"),
            (told::<Snippet>("# nothing"), "no directive"),
            (told::<Snippet>("content_by_lua_block { x }"), "another language"),
        ] {
            assert!(error.contains(rule) && is_line(&error), "{error}");
        }
        for value in ["unix:/run/app.sock", "[2001:db8::1]:80", "app.example.com:8080", "127.0.0.1:3000"] {
            assert!(value.parse::<Backend>().is_ok(), "{value}");
        }
        for value in ["=404", "/index.html", "/", "/ü.html", "/..a", "/index.php$is_args$args"] {
            assert!(value.parse::<Fallback>().is_ok(), "{value}");
        }
        let snippet: Snippet = "if ($host = x) { return 404; } gzip on;".parse().unwrap();
        assert_eq!(snippet.names(), ["if", "return", "gzip"]);
        assert!("ada:$2y$10$abcdefghijklmnopqrstuv".parse::<Login>().is_ok());
        assert_eq!("2001:DB8:0::/32".parse::<Network>().unwrap().as_str(), "2001:db8::/32");
    }

    proptest! {
        #[test]
        fn whatever_is_no_value_is_refused_in_one_line(text in "(?s).{0,40}") {
            for error in [
                text.parse::<SiteName>().err(),
                text.parse::<ServerName>().err(),
                text.parse::<SitePath>().err(),
                text.parse::<Backend>().err(),
                text.parse::<Template>().err(),
                text.parse::<Login>().err(),
                text.parse::<Snippet>().err(),
            ].into_iter().flatten() {
                prop_assert!(is_line(&error.to_string()), "{error:?}");
            }
        }
    }
}
