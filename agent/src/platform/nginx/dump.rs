//! The files of a configuration, as `nginx -T` tells them, and what is in which part of it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Component, Path, PathBuf};

use fleetward_protocol::nginx::{Directive, Parsed, parse};
use fleetward_protocol::wildcard;

use super::{MAX_DUMP, Nginx};
use crate::platform::files;

/// What `nginx -T` writes before each file.
const HEAD: &[u8] = b"# configuration file ";
/// The most files that include each other.
const MAX_DEPTH: usize = 16;
/// The most files that are read where nginx tells none.
const MAX_FILES: usize = 20_000;

/// The files of a configuration; the one that it begins with first.
#[derive(Debug)]
pub struct Dump {
    files: Vec<(PathBuf, Parsed)>,
    /// What paths of includes and certificates are relative to.
    root: PathBuf,
    /// What other paths are relative to.
    prefix: PathBuf,
    error_log: PathBuf,
}

/// A server of the http part.
#[derive(Debug, Clone, Copy)]
pub struct Server<'a> {
    /// The file that it stands in.
    pub file: &'a Path,
    /// Its directive.
    pub directive: &'a Directive,
}

/// In which part of a configuration something stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Main,
    Http,
}

impl Dump {
    /// Reads what `nginx -T` says. Whatever it is, what can be understood of it is.
    #[must_use]
    pub fn read(said: &[u8], nginx: &Nginx) -> Self {
        let mut files: Vec<(PathBuf, &[u8])> = Vec::new();
        let (mut at, mut begin) = (0, 0);
        for line in said.split_inclusive(|byte| *byte == b'\n') {
            let next = at + line.len();
            if let Some(path) = head(line) {
                if let Some((_, text)) = files.last_mut() {
                    *text = said.get(begin..at).unwrap_or_default();
                }
                files.push((path, b""));
                begin = next;
            }
            at = next;
        }
        if let Some((_, text)) = files.last_mut() {
            *text = said.get(begin..).unwrap_or_default();
        }
        let root = nginx.config.parent().unwrap_or(Path::new("/")).to_owned();
        let files = files.into_iter().map(|(path, text)| (path, parse(text))).collect();
        Self { files, root, prefix: nginx.prefix.clone(), error_log: nginx.error_log.clone() }
    }

    /// Reads the files themselves, as their includes mean them: nginx tells none as long as it does not take all of them. What cannot
    /// be read is left out.
    #[must_use]
    pub fn of_files(nginx: &Nginx) -> Self {
        let root = nginx.config.parent().unwrap_or(Path::new("/")).to_owned();
        let mut room = MAX_DUMP;
        let mut seen = BTreeSet::from([nginx.config.clone()]);
        let mut waiting = vec![nginx.config.clone()];
        let mut found = Vec::new();
        while let Some(path) = waiting.pop() {
            let Ok(text) = files::read_file(&path, room) else { continue };
            room = room.saturating_sub(text.len() as u64);
            let parsed = parse(&text);
            let mut patterns = Vec::new();
            included(&parsed.directives, &mut patterns);
            let meant = patterns.iter().flat_map(|pattern| expand(&root.join(pattern)));
            let room = MAX_FILES.saturating_sub(seen.len());
            let mut next: Vec<PathBuf> = meant.filter(|path| !seen.contains(path)).take(room).collect();
            seen.extend(next.iter().cloned());
            next.reverse();
            waiting.append(&mut next);
            found.push((path, parsed));
        }
        Self { files: found, root, prefix: nginx.prefix.clone(), error_log: nginx.error_log.clone() }
    }

    /// The file that the configuration begins with.
    #[must_use]
    pub fn main(&self) -> &[Directive] {
        self.files.first().map_or(&[], |(_, main)| main.directives.as_slice())
    }

    /// Whether all of the file that the configuration begins with was understood.
    #[must_use]
    pub fn is_main_whole(&self) -> bool {
        self.files.first().is_some_and(|(_, main)| main.fault.is_none())
    }

    /// The first word of the first such directive of the main part.
    #[must_use]
    pub fn setting(&self, name: &str) -> Option<&str> {
        self.words(name)?.first().map(String::as_str)
    }

    /// The words of the first such directive of the main part.
    #[must_use]
    pub fn words(&self, name: &str) -> Option<&[String]> {
        let mut found = None;
        self.walk(|part, _, directive| {
            if part == Part::Main && directive.name == name && found.is_none() {
                found = Some(directive.words.as_slice());
            }
        });
        found
    }

    /// Where errors are logged when nothing is said.
    #[must_use]
    pub fn default_error_log(&self) -> &Path {
        &self.error_log
    }

    /// A path of a log, or of files that are served.
    #[must_use]
    pub fn path(&self, given: &str) -> PathBuf {
        self.prefix.join(given)
    }

    /// A path of an include, or of a certificate.
    #[must_use]
    pub fn config_path(&self, given: &str) -> PathBuf {
        self.root.join(given)
    }

    /// The patterns of files that the http part includes, in the order in which it does.
    #[must_use]
    pub fn includes(&self) -> Vec<PathBuf> {
        let mut found = Vec::new();
        self.walk(|part, _, directive| {
            if part == Part::Http && directive.name == "include" {
                found.extend(directive.words.first().map(|pattern| self.root.join(pattern)));
            }
        });
        found
    }

    /// The directives of the http part that are no blocks.
    #[must_use]
    pub fn http(&self) -> Vec<&Directive> {
        let mut found = Vec::new();
        self.walk(|part, _, directive| {
            if part == Part::Http && directive.block.is_none() {
                found.push(directive);
            }
        });
        found
    }

    /// Every server of the http part.
    #[must_use]
    pub fn servers(&self) -> Vec<Server<'_>> {
        let mut found = Vec::new();
        self.walk(|part, file, directive| {
            if part == Part::Http && directive.name == "server" && directive.block.is_some() {
                found.push(Server { file, directive });
            }
        });
        found
    }

    /// The upstreams of the http part, by name.
    #[must_use]
    pub fn upstreams(&self) -> BTreeMap<&str, &Directive> {
        let mut found = BTreeMap::new();
        self.walk(|part, _, directive| {
            if part == Part::Http && directive.name == "upstream" {
                found.extend(directive.words.first().map(|name| (name.as_str(), directive)));
            }
        });
        found
    }

    /// Every file.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        self.files.iter().map(|(path, _)| path.as_path())
    }

    /// Goes through the main and the http part, with what they include, once through each file in each of them.
    fn walk<'a>(&'a self, mut visit: impl FnMut(Part, &'a Path, &'a Directive)) {
        let Some((main, parsed)) = self.files.first() else { return };
        let mut seen = vec![[false; 2]; self.files.len()];
        let mut visit: Visit<'_, 'a> = Visit { dump: self, seen: &mut seen, visit: &mut visit };
        visit.all(Part::Main, main, &parsed.directives, 0);
    }
}

struct Visit<'v, 'a> {
    dump: &'a Dump,
    seen: &'v mut [[bool; 2]],
    visit: &'v mut dyn FnMut(Part, &'a Path, &'a Directive),
}

impl<'a> Visit<'_, 'a> {
    fn all(&mut self, part: Part, file: &'a Path, directives: &'a [Directive], depth: usize) {
        for directive in directives {
            (self.visit)(part, file, directive);
            match (part, directive.name.as_str(), &directive.block) {
                (Part::Main, "http", Some(inner)) => self.all(Part::Http, file, inner, depth),
                (_, "include", None) if depth < MAX_DEPTH => {
                    let Some(pattern) = directive.words.first() else { continue };
                    self.included(part, &self.dump.root.join(pattern), depth + 1);
                }
                _ => {}
            }
        }
    }

    fn included(&mut self, part: Part, pattern: &Path, depth: usize) {
        let dump = self.dump;
        for (at, (path, parsed)) in dump.files.iter().enumerate() {
            let is_new = self.seen.get(at).is_some_and(|seen| !seen[part as usize]);
            if is_new && is_meant(pattern, path) {
                if let Some(seen) = self.seen.get_mut(at) {
                    seen[part as usize] = true;
                }
                self.all(part, path, &parsed.directives, depth);
            }
        }
    }
}

/// The patterns of all files that are included somewhere in these.
fn included(directives: &[Directive], patterns: &mut Vec<String>) {
    for Directive { name, words, block } in directives {
        match (name.as_str(), words.first(), block) {
            ("include", Some(pattern), None) => patterns.push(pattern.clone()),
            (_, _, Some(inner)) => included(inner, patterns),
            _ => {}
        }
    }
}

/// The files that a pattern of glob(7) means, in the order in which nginx reads them.
fn expand(pattern: &Path) -> Vec<PathBuf> {
    let mut found = vec![PathBuf::new()];
    for part in pattern.components() {
        let name = Path::new(part.as_os_str());
        if !name.to_string_lossy().contains(['*', '?', '[']) {
            found.iter_mut().for_each(|path| path.push(name));
            continue;
        }
        let mut all = Vec::new();
        for directory in &found {
            let entries = fs::read_dir(directory).into_iter().flatten().flatten();
            let room = MAX_FILES.saturating_sub(all.len());
            let names =
                entries.map(|entry| entry.file_name()).filter(|entry| is_meant(name, Path::new(entry)));
            all.extend(names.map(|name| directory.join(name)).take(room));
        }
        all.sort();
        found = all;
    }
    found.retain(|path| path.is_file());
    found
}

/// Whether a pattern of glob(7) means this path.
#[must_use]
pub fn is_meant(pattern: &Path, path: &Path) -> bool {
    let names = |path: &Path| -> Vec<String> {
        let names = path.components().filter(|part| !matches!(part, Component::CurDir));
        names.map(|part| part.as_os_str().to_string_lossy().into_owned()).collect()
    };
    let (patterns, names) = (names(pattern), names(path));
    let is_name = |(pattern, name): (&String, &String)| {
        let is_hidden = name.starts_with('.') && !pattern.starts_with('.');
        // What a class of characters means is left to nginx: it has told the file.
        !is_hidden && (pattern == name || pattern.contains('[') || wildcard::matches(pattern, name))
    };
    patterns.len() == names.len() && patterns.iter().zip(&names).all(is_name)
}

fn head(line: &[u8]) -> Option<PathBuf> {
    use std::os::unix::ffi::OsStrExt as _;
    let path = line.strip_prefix(HEAD)?.strip_suffix(b":\n")?;
    path.starts_with(b"/").then(|| Path::new(std::ffi::OsStr::from_bytes(path)).to_owned())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn nginx() -> Nginx {
        Nginx {
            version: "1.22.1".into(),
            config: "/etc/nginx/nginx.conf".into(),
            prefix: "/usr/share/nginx".into(),
            error_log: "/var/log/nginx/error.log".into(),
            pid: "/run/nginx.pid".into(),
            group: "nogroup".into(),
            is_elsewhere: false,
        }
    }

    #[test]
    fn servers_are_found_where_the_http_part_includes_them() {
        let said = b"# configuration file /etc/nginx/nginx.conf:\nuser www-data;\nerror_log logs/e.log;\n\
            include modules/*.conf;\nhttp { include conf.d/*.conf; include /etc/nginx/sites-enabled/*; server { listen 1; } }\n\
            stream { include stream.d/*; }\n\n\
            # configuration file /etc/nginx/modules/a.conf:\npid /run/x.pid;\n\n\
            # configuration file /etc/nginx/conf.d/a.conf:\nserver { listen 2; include snippets/x.conf; }\n\n\
            # configuration file /etc/nginx/sites-enabled/b:\nserver { listen 3; }\nserver { listen 4; }\n\n\
            # configuration file /etc/nginx/snippets/x.conf:\nroot /srv;\n\n\
            # configuration file /etc/nginx/stream.d/s:\nserver { listen 5; }\n";
        let dump = Dump::read(said, &nginx());
        let servers = dump.servers();
        let listens: Vec<_> =
            servers.iter().map(|server| server.directive.first("listen").unwrap()[0].as_str()).collect();
        assert_eq!(listens, ["2", "3", "4", "1"], "in the order in which nginx reads them");
        assert_eq!(servers[1].file, Path::new("/etc/nginx/sites-enabled/b"));
        assert_eq!(dump.setting("user"), Some("www-data"));
        assert_eq!(dump.setting("pid"), Some("/run/x.pid"));
        assert_eq!(dump.path("logs/e.log"), Path::new("/usr/share/nginx/logs/e.log"));
        assert_eq!(dump.includes().len(), 2);
        assert_eq!(dump.files().count(), 6);
    }

    #[test]
    fn files_are_read_as_they_include_each_other() {
        let directory = tempfile::tempdir().unwrap();
        let top = directory.path();
        fs::create_dir_all(top.join("sites/inner")).unwrap();
        for (name, text) in [
            ("nginx.conf", "pid x; http { include sites/*; include nowhere/*.conf; include last; }"),
            ("sites/b", "server { listen 2; include snippet; }"),
            ("sites/a", "server { listen 1; } include nginx.conf; lisen"),
            ("sites/.hidden", "server { listen 4; }"),
            ("snippet", "root /srv;"),
            ("last", "server { listen 3; }"),
        ] {
            fs::write(top.join(name), text).unwrap();
        }
        let dump = Dump::of_files(&Nginx { config: top.join("nginx.conf"), ..nginx() });
        let servers = dump.servers();
        let listens: Vec<_> =
            servers.iter().map(|server| server.directive.first("listen").unwrap()[0].as_str()).collect();
        assert_eq!(listens, ["1", "2", "3"]);
        assert_eq!((dump.files().count(), dump.setting("pid")), (5, Some("x")));
        assert_eq!(Dump::of_files(&Nginx { config: top.join("none"), ..nginx() }).files().count(), 0);
    }

    #[test]
    fn files_that_include_each_other_come_to_an_end() {
        let said = b"# configuration file /etc/nginx/nginx.conf:\nhttp { include a; }\n\
            # configuration file /etc/nginx/a:\ninclude a; include b; server { listen 1; }\n\
            # configuration file /etc/nginx/b:\ninclude a;\n";
        assert_eq!(Dump::read(said, &nginx()).servers().len(), 1);
    }

    #[test]
    fn a_pattern_means_what_glob_would_find() {
        for (pattern, path, is_so) in [
            ("/etc/nginx/sites-enabled/*", "/etc/nginx/sites-enabled/a", true),
            ("/etc/nginx/sites-enabled/*", "/etc/nginx/sites-enabled/.a", false),
            ("/etc/nginx/sites-enabled/*", "/etc/nginx/sites-enabled/a/b", false),
            ("/etc/nginx/conf.d/*.conf", "/etc/nginx/conf.d/a.conf", true),
            ("/etc/nginx/conf.d/*.conf", "/etc/nginx/conf.d/a.conf.disabled", false),
            ("/etc/nginx/./a", "/etc/nginx/a", true),
        ] {
            assert_eq!(is_meant(Path::new(pattern), Path::new(path)), is_so, "{pattern} {path}");
        }
    }

    proptest! {
        #[test]
        fn whatever_is_said_is_read(text in prop::collection::vec(prop_oneof![
            Just("# configuration file /a:\n".to_owned()), Just("include /*;".to_owned()), Just("http {".to_owned()),
            Just("server {".to_owned()), Just("}".to_owned()), "(?s).{0,8}"], 0..40)) {
            let dump = Dump::read(text.concat().as_bytes(), &nginx());
            prop_assert!(dump.servers().len() <= text.len());
            let _ = (dump.includes(), dump.setting("pid"), dump.http());
        }
    }
}
