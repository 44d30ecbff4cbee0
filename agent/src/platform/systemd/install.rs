//! What the `[Install]` section of a unit's file has systemd do when the unit is enabled (systemd.unit(5)).

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use crate::platform::files;

/// The longest file of a unit that is read, in bytes.
const MAX_FILE: u64 = 1 << 20;

/// What stands in `[Install]`. Names stand as they are written, with what systemd replaces in them replaced; those of which that is
/// not known are `None`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Install {
    /// `Alias=`: the other names that it gets.
    pub aliases: Vec<Option<String>>,
    /// `Also=`: the units that are enabled and disabled with it.
    pub also: Vec<Option<String>>,
    /// `WantedBy=`, `RequiredBy=`, `UpheldBy=`: the units that start it with them.
    pub starters: Vec<Option<String>>,
}

impl Install {
    /// What the files of the unit say, which are found as systemd finds them: the first in these directories, and what is put on it.
    /// A file that is not there, or cannot be read, says nothing: systemd reads none either.
    #[must_use]
    pub fn read(unit: &str, directories: &[PathBuf]) -> Self {
        let template = template(unit);
        let names: Vec<&str> = [Some(unit), template.as_deref()].into_iter().flatten().collect();
        let mut install = Self::default();
        let own = names.iter().find_map(|name| {
            directories.iter().map(|directory| directory.join(name)).find(|path| path.exists())
        });
        let mut paths: Vec<PathBuf> = own.into_iter().collect();
        for directory in
            names.iter().flat_map(|name| directories.iter().map(move |at| at.join(format!("{name}.d"))))
        {
            paths.extend(drop_ins(&directory));
        }
        for text in paths.iter().filter_map(|path| files::read_file(path, MAX_FILE).ok()) {
            install.hear(&String::from_utf8_lossy(&text), unit);
        }
        install
    }

    fn hear(&mut self, text: &str, unit: &str) {
        let mut is_install = false;
        // A line that ends so goes on in the next one (systemd.syntax(7)).
        let text = text.replace("\\\n", " ");
        for line in text.lines().map(str::trim).filter(|line| !line.starts_with(['#', ';'])) {
            if line.starts_with('[') {
                is_install = line == "[Install]";
                continue;
            }
            let Some((key, value)) = line.split_once('=').filter(|_| is_install) else { continue };
            let names = match key.trim() {
                "Alias" => &mut self.aliases,
                "Also" => &mut self.also,
                "WantedBy" | "RequiredBy" | "UpheldBy" => &mut self.starters,
                _ => continue,
            };
            let words = value.split_ascii_whitespace().map(|word| word.trim_matches(['"', '\'']));
            names.extend(words.filter(|word| !word.is_empty()).map(|word| replaced(word, unit)));
        }
    }
}

fn drop_ins(directory: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    let paths = entries.map(|entry| entry.path());
    paths.filter(|path| path.extension() == Some(OsStr::new("conf"))).collect()
}

/// The template of an instance: `app@.service` of `app@web.service`.
fn template(unit: &str) -> Option<String> {
    let (name, rest) = unit.split_once('@')?;
    let (instance, kind) = rest.rsplit_once('.')?;
    (!instance.is_empty()).then(|| format!("{name}@.{kind}"))
}

/// A name with what systemd puts in it for the unit (systemd.unit(5), specifiers); `None` where that is something of the host.
fn replaced(word: &str, unit: &str) -> Option<String> {
    let (whole, _) = unit.rsplit_once('.').unwrap_or((unit, ""));
    let (prefix, instance) = whole.split_once('@').unwrap_or((whole, ""));
    let last = |text: &str| text.rsplit('-').next().unwrap_or_default().to_owned();
    let (mut told, mut chars) = (String::new(), word.chars());
    while let Some(next) = chars.next() {
        if next != '%' {
            told.push(next);
            continue;
        }
        told.push_str(&match chars.next()? {
            'n' => unit.to_owned(),
            'N' => whole.to_owned(),
            'p' => prefix.to_owned(),
            'i' => instance.to_owned(),
            'j' => last(prefix),
            '%' => "%".to_owned(),
            _ => return None,
        });
    }
    Some(told)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn what_enabling_does_is_read_from_all_files_of_a_unit() {
        let top = tempfile::tempdir().unwrap();
        let [etc, lib] = ["etc", "lib"].map(|name| top.path().join(name));
        fs::create_dir_all(etc.join("app@.service.d")).unwrap();
        fs::create_dir_all(&lib).unwrap();
        let own = "[Unit]\nAlias=no.service\n[Install]\n# Also=no.service\nAlias=a.service \\\n  \"b-%i.service\"\nWantedBy=multi-user.target\n";
        fs::write(lib.join("app@.service"), own).unwrap();
        fs::write(
            etc.join("app@.service.d/x.conf"),
            "[Install]\nAlso=%p-helper.socket %H.service\nRequiredBy = c.service\n",
        )
        .unwrap();
        fs::write(etc.join("app@.service.d/x.txt"), "[Install]\nAlso=no.service\n").unwrap();
        let names = |names: &[Option<String>]| -> Vec<String> {
            names.iter().map(|name| name.clone().unwrap_or_else(|| "?".to_owned())).collect()
        };
        let found = Install::read("app@web.service", &[etc, lib]);
        assert_eq!(names(&found.aliases), ["a.service", "b-web.service"]);
        assert_eq!(names(&found.also), ["app-helper.socket", "?"]);
        assert_eq!(names(&found.starters), ["multi-user.target", "c.service"]);
        assert_eq!(Install::read("none.service", &[]), Install::default());
    }
}
