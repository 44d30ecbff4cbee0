//! Tells the ends of the error logs that nginx writes.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use fleetward_protocol::object::{Class, Object};
use fleetward_protocol::query::site_errors::{SiteError, SiteErrors};
use fleetward_protocol::text::{Text, Word};

use super::look::Look;
use super::sites::{by_file, disabled, name, read};
use super::teller::{Stop, Teller};
use crate::platform::nginx::dump::Dump;
use crate::platform::nginx::logs;

impl Look for SiteErrors {
    async fn look(&self, _: bool, teller: &mut Teller<Self>) -> Result<(), Stop> {
        let (dump, end) = read().await?;
        let logs = written(&dump);
        let wanted = self.site.as_ref().map(|site| site.as_str());
        let own = |sites: &Option<String>| wanted.is_none() || sites.as_deref() == wanted;
        if let Some(site) = wanted
            && !logs.values().any(|sites| sites.as_deref() == wanted)
        {
            let why = if by_file(&dump).keys().any(|file| name(file) == site) {
                "has no error log of its own; ask without `site`, or give it one with `error_log`"
            } else if disabled(&dump).iter().any(|(file, _)| name(file) == site) {
                "is disabled, and has no errors; ask without `site` for what was logged of all"
            } else {
                "is not on this host; see which there are with the query `sites`"
            };
            return Err(Stop::failed(format_args!("site {site} {why}")));
        }
        let mut number = 0;
        for (path, site) in logs.iter().filter(|(_, site)| own(site)) {
            // Where a link leads is what is read.
            let there = path.canonicalize().unwrap_or_else(|_| path.clone());
            if !teller.allowed().allows(&Object::named(Class::Paths, there.display())) {
                continue;
            }
            let lines = match logs::read_tail(path, usize::from(self.lines)) {
                Ok(lines) => lines,
                // What nothing was written to yet.
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
                Err(error) => vec![format!("this log cannot be read: {error}").into_bytes()],
            };
            for line in lines {
                number += 1;
                teller.item(&item(number, path, site.as_deref(), &line)).await?;
            }
        }
        end
    }
}

/// The error logs, each with the site whose own it is.
fn written(dump: &Dump) -> BTreeMap<PathBuf, Option<String>> {
    let mut logs: BTreeMap<PathBuf, Option<BTreeSet<String>>> = BTreeMap::new();
    let is_file =
        |word: &&str| !word.starts_with("syslog:") && !word.starts_with("memory:") && *word != "stderr";
    let shared = dump.http().into_iter().filter(|directive| directive.name == "error_log");
    let shared = shared.filter_map(|directive| directive.words.first().map(String::as_str));
    for path in shared.chain(dump.setting("error_log")).filter(is_file) {
        logs.insert(dump.path(path), None);
    }
    if dump.setting("error_log").is_none() {
        logs.insert(dump.default_error_log().to_owned(), None);
    }
    for server in dump.servers() {
        for path in server.files("error_log", dump) {
            let text = path.to_string_lossy();
            if !["syslog:", "memory:"].iter().any(|other| text.contains(other)) {
                let sites = logs.entry(path).or_insert_with(|| Some(BTreeSet::new()));
                if let Some(sites) = sites {
                    sites.insert(name(server.file));
                }
            }
        }
    }
    let one = |sites: Option<BTreeSet<String>>| sites.filter(|sites| sites.len() == 1)?.into_iter().next();
    logs.into_iter().map(|(path, sites)| (path, one(sites))).collect()
}

fn item(number: u32, path: &Path, site: Option<&str>, line: &[u8]) -> SiteError {
    let line = String::from_utf8_lossy(line);
    let (time, level, message) = parts(&line);
    let log: Word = Text::of(path.display());
    SiteError {
        number,
        time: time.map(Text::of),
        level: level.map(Text::of),
        site: site.map(Text::of),
        message: Text::of(message),
        log,
    }
}

/// The time, the level and the rest of a line: `2026/01/02 03:04:05 [error] 1#1: …`. What a script says stands there as it is.
fn parts(line: &str) -> (Option<&str>, Option<&str>, &str) {
    let whole = (None, None, line);
    let Some((time, rest)) = line.split_at_checked(19) else { return whole };
    let is_time = time.bytes().enumerate().all(|(at, byte)| match at {
        4 | 7 => byte == b'/',
        10 => byte == b' ',
        13 | 16 => byte == b':',
        _ => byte.is_ascii_digit(),
    });
    let Some((level, message)) = rest.strip_prefix(" [").and_then(|rest| rest.split_once("] ")) else {
        return whole;
    };
    match is_time && level.bytes().all(|byte| byte.is_ascii_lowercase()) {
        true => (Some(time), Some(level), message),
        false => whole,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_its_time_and_its_level() {
        for (line, found) in [
            (
                "2026/01/02 03:04:05 [error] 1#1: *2 open() \"/x\" failed",
                (Some("2026/01/02 03:04:05"), Some("error"), "1#1: *2 open() \"/x\" failed"),
            ),
            ("PHP message: x", (None, None, "PHP message: x")),
            ("2026/01/02 03:04:05 x", (None, None, "2026/01/02 03:04:05 x")),
            ("", (None, None, "")),
            ("ääääääääääääääääääää", (None, None, "ääääääääääääääääääää")),
        ] {
            assert_eq!(parts(line), found, "{line}");
        }
    }
}
