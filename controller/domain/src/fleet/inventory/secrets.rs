//! `secrets.ini`: key paths and tokens that a migrated installation kept beside its configuration, and the
//! rule for key files.
//!
//! The format is what Python's configparser reads without interpolation: `[section]`, `key = value` or
//! `key: value`, keys without regard to case, `#` and `;` for comments on lines of their own, and indented
//! lines that continue a value. A repetition of a section or key is an error.
//!
//! Values never appear in `Debug` output, in messages or in logs.

use std::collections::BTreeMap;
use std::fmt;

use super::content::shell_word;
use super::problem::{Position, Problem, Report};
use super::yaml::shorten;

/// The largest `secrets.ini`, in bytes.
pub const MAX_SECRETS: usize = 1 << 20;

/// The only permission bits a key file may have.
pub const KEY_MODE: u32 = 0o600;

/// Everything a `secrets.ini` holds.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Secrets {
    sections: BTreeMap<String, BTreeMap<String, String>>,
}

impl Secrets {
    /// Parses the whole file.
    ///
    /// # Errors
    /// Every line that is neither a section, a key, a comment nor a continuation, and every repetition.
    pub fn parse(text: &str) -> Result<Self, Vec<Problem>> {
        let mut reading = Reading::default();
        reading.report.enter("secrets.ini");
        if text.len() > MAX_SECRETS {
            let message = format!("is {} bytes long, but {MAX_SECRETS} are allowed", text.len());
            reading.report.error(Position::START, "", message);
        } else {
            let text = text.strip_prefix('\u{feff}').unwrap_or(text);
            for (index, line) in text.lines().enumerate() {
                let line_number = u32::try_from(index + 1).unwrap_or(u32::MAX);
                reading.line(Position { line: line_number, column: 1 }, line);
            }
        }
        reading.report.finish()?;
        Ok(Self { sections: reading.sections })
    }

    /// The value of `key` in `section`.
    #[must_use]
    pub fn get(&self, section: &str, key: &str) -> Option<&str> {
        self.sections.get(section)?.get(&key.to_lowercase()).map(String::as_str)
    }

    /// The sections and their keys, without the values.
    pub fn keys(&self) -> impl Iterator<Item = (&str, &str)> {
        self.sections
            .iter()
            .flat_map(|(section, keys)| keys.keys().map(move |key| (section.as_str(), key.as_str())))
    }
}

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.keys()).finish()
    }
}

/// A key file that others than its owner could use.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("key file `{path}` has mode {found:04o}, but has to have 0600; run: chmod 600 -- {word}", word = shell_word(.path))]
pub struct KeyModeRefused {
    /// The file.
    pub path: String,
    /// Its permission bits.
    pub found: u32,
}

/// Checks a key file's permission bits (`st_mode`; the file type is ignored).
///
/// # Errors
/// If they are anything but [`KEY_MODE`].
pub fn check_key_mode(path: &str, mode: u32) -> Result<(), KeyModeRefused> {
    let found = mode & 0o7777;
    if found == KEY_MODE { Ok(()) } else { Err(KeyModeRefused { path: path.to_owned(), found }) }
}

#[derive(Default)]
struct Reading {
    report: Report,
    sections: BTreeMap<String, BTreeMap<String, String>>,
    section: Option<String>,
    key: Option<String>,
}

impl Reading {
    fn line(&mut self, at: Position, line: &str) {
        let content = line.trim();
        if content.is_empty() {
            self.key = None;
        } else if content.starts_with(['#', ';']) {
            // A comment does not end a value that goes on below it.
        } else if line.starts_with([' ', '\t']) && self.key.is_some() {
            self.continuation(content);
        } else if let Some(rest) = content.strip_prefix('[') {
            self.header(at, rest);
        } else {
            self.pair(at, content);
        }
    }

    fn continuation(&mut self, content: &str) {
        if let (Some(section), Some(key)) = (&self.section, &self.key)
            && let Some(value) = self.sections.get_mut(section).and_then(|keys| keys.get_mut(key))
        {
            value.push('\n');
            value.push_str(content);
        }
    }

    fn header(&mut self, at: Position, rest: &str) {
        self.key = None;
        self.section = None;
        let Some(name) = rest.strip_suffix(']').map(str::trim).filter(|name| !name.is_empty()) else {
            self.report.error(at, "", "begins like a section, but is not `[name]`");
            return;
        };
        if self.sections.contains_key(name) {
            self.report.error(at, &shorten(name), "the section is already there; join the two");
            return;
        }
        self.sections.insert(name.to_owned(), BTreeMap::new());
        self.section = Some(name.to_owned());
    }

    fn pair(&mut self, at: Position, content: &str) {
        self.key = None;
        let Some((key, value)) = content.split_once(['=', ':']) else {
            // The line itself is not shown: it may be a secret.
            self.report.error(at, "", "is neither `[section]` nor `key = value`");
            return;
        };
        let key = key.trim().to_lowercase();
        let Some(section) = &self.section else {
            self.report.error(at, &shorten(&key), "stands before any good `[section]`");
            return;
        };
        if key.is_empty() {
            self.report.error(at, &shorten(section), "has a value without a key");
            return;
        }
        let keys = self.sections.entry(section.clone()).or_default();
        if keys.contains_key(&key) {
            let field = format!("{}.{}", shorten(section), shorten(&key));
            self.report.error(at, &field, "the key is already there; remove one");
            return;
        }
        keys.insert(key.clone(), value.trim().to_owned());
        self.key = Some(key);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn reads_what_the_guide_names() {
        let text = "# kept out of git\n[ssh]\nkey_path = /var/lib/linkops/keys/lab_ed25519\n\
                    Known_Hosts_Path: /var/lib/linkops/ssh/known_hosts\n\n[git]\ntoken = a=b:c\n;x\n[api]\nai_api_key=\n";
        let secrets = Secrets::parse(text).unwrap();
        assert_eq!(secrets.get("ssh", "key_path"), Some("/var/lib/linkops/keys/lab_ed25519"));
        assert_eq!(secrets.get("ssh", "known_hosts_path"), Some("/var/lib/linkops/ssh/known_hosts"));
        assert_eq!(secrets.get("git", "TOKEN"), Some("a=b:c"));
        assert_eq!(secrets.get("api", "ai_api_key"), Some(""));
        assert_eq!(secrets.get("api", "token"), None);
        assert!(!format!("{secrets:?}").contains("a=b"), "{secrets:?}");
    }

    #[test]
    fn says_where_it_is_wrong_without_showing_values() {
        let text =
            "hunter2\n[ssh\nkey = hunter2\n[git]\ntoken = hunter2\ntoken = hunter2\n[git]\n= hunter2\n";
        let problems = Secrets::parse(text).unwrap_err();
        let lines: Vec<u32> = problems.iter().map(|problem| problem.line).collect();
        assert_eq!(lines, [1, 2, 3, 6, 7, 8], "{problems:?}");
        assert!(!problems.iter().any(|problem| problem.to_string().contains("hunter2")), "{problems:?}");
    }

    proptest! {
        #[test]
        fn p29_key_mode_other_than_600_is_rejected(mode in 0u32..0o10000, kind in 0u32..16) {
            let checked = check_key_mode("/keys/lab", mode | (kind << 12));
            prop_assert_eq!(checked.is_ok(), mode == 0o600);
            if let Err(error) = checked {
                let text = error.to_string();
                prop_assert!(text.contains("/keys/lab") && text.contains(&format!("{mode:04o}")), "{}", text);
            }
        }

        #[test]
        fn p30_secrets_are_fully_extracted(
            sections in proptest::collection::btree_map(
                "[A-Za-z_][A-Za-z0-9_. -]{0,10}[a-z0-9]",
                proptest::collection::btree_map("[a-z_][a-z0-9_.]{0,12}", "([!-~]([ -~]{0,30}[!-~])?)?", 0..6),
                0..6,
            ),
            colon in any::<bool>(),
        ) {
            let mut text = String::from("; a comment\n");
            for (section, keys) in &sections {
                text.push_str(&format!("[{section}]\n# another\n"));
                for (key, value) in keys {
                    text.push_str(&format!("{key} {} {value}\n", if colon { ':' } else { '=' }));
                }
                text.push('\n');
            }
            let secrets = Secrets::parse(&text).unwrap();
            for (section, keys) in &sections {
                for (key, value) in keys {
                    prop_assert_eq!(secrets.get(section, key), Some(value.as_str()));
                }
            }
            prop_assert_eq!(secrets.keys().count(), sections.values().map(BTreeMap::len).sum::<usize>());
        }

        #[test]
        fn p30_any_text_is_read_or_refused(text in "(?s).{0,400}") {
            let _ = Secrets::parse(&text);
        }
    }
}
