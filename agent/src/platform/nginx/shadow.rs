//! The whole configuration with a change in it, beside the real one: so that nginx has its say before anything is in place.
//!
//! **Why.** A file that is in place can be read at any moment: by whoever restarts nginx, by a package that does, by the next
//! boot after a power cut; and an nginx that is started with a broken file does not come up. So what nginx would not take never
//! gets there.
//!
//! **How.** A copy of the first file of the configuration, in which the directory of sites is another one: with links to all
//! files that are in the real one, but for the one that changes. It stands in the same directory, for paths are relative to
//! that, under a name that no include means. Logs of the site that are not there yet are not made: nginx opens all of them for a test.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::Duration;

use fleetward_protocol::nginx::{Directive, Writer, parse};

use super::Nginx;
use super::dump::Dump;
use super::piece::{Piece, Thing};
use crate::platform::{clock, files};

/// What the names of all that is made here begin with.
const PREFIX: &str = ".fleetward-test-";
/// What the names of blocks in another language end with.
const LUA: &[u8] = b"_by_lua_block";
/// What is younger than this may not be locked yet.
const NEW: Duration = Duration::from_secs(10);

/// A configuration beside the real one, until it is dropped.
#[derive(Debug)]
pub struct Shadow {
    config: PathBuf,
    directory: PathBuf,
    /// The directory, which is locked as long as this process is alive: what nobody has locked was left by one that was killed.
    _lock: File,
}

impl Shadow {
    /// Makes one with these pieces in it, of which a link leads to the file of this site; `None` where the first file is not as
    /// simple as that.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn make(
        nginx: &Nginx,
        dump: &Dump,
        included: &Path,
        pieces: &[Piece],
        site: &Path,
    ) -> io::Result<Option<Self>> {
        let root = nginx.config.parent().unwrap_or(Path::new("/"));
        ensure_tidy(root);
        let directory = root.join(format!("{PREFIX}{}", clock::fresh_uuid()));
        files::create_directory(&directory, 0o700)?;
        let lock = File::open(&directory)?;
        lock.lock()?;
        let shadow = Self { config: directory.with_extension("conf"), directory, _lock: lock };
        let is_here = |pattern: &str| root.join(pattern).parent() == Some(included);
        let mut writer = Writer::default();
        let mut replaced = 0;
        for directive in dump.main() {
            writer.read(&replace(directive, &is_here, &shadow.directory, &mut replaced));
        }
        if replaced == 0 || !dump.is_main_whole() {
            return Ok(None);
        }
        shadow.fill(included, pieces, site, &nginx.prefix)?;
        files::ensure_file(&shadow.config, 0o600, writer.into_text().as_bytes()).map_err(io::Error::other)?;
        Ok(Some(shadow))
    }

    /// The file that it begins with.
    #[must_use]
    pub fn config(&self) -> &Path {
        &self.config
    }

    /// A word of nginx about it, as it would say it of the real one.
    #[must_use]
    pub fn translate(&self, words: &str, nginx: &Nginx, included: &Path) -> String {
        let path = |path: &Path| path.display().to_string();
        let words = words.replace(&path(&self.config), &path(&nginx.config));
        words.replace(&path(&self.directory), &path(included))
    }

    fn fill(&self, included: &Path, pieces: &[Piece], site: &Path, prefix: &Path) -> io::Result<()> {
        let changed = |name: &OsStr| pieces.iter().any(|piece| piece.path == included.join(name));
        for entry in fs::read_dir(included)? {
            let name = entry?.file_name();
            if !changed(&name) && !name.as_encoded_bytes().starts_with(b".") {
                symlink(included.join(&name), self.directory.join(&name))?;
            }
        }
        for piece in pieces.iter().filter(|piece| piece.path.parent() == Some(included)) {
            let Some(name) = piece.path.file_name() else { continue };
            // What a link leads to may be changed, too, and is not in place yet. In which words the link says where does not matter.
            let content = match &piece.wanted {
                Thing::Link(target) => match pieces.iter().find(|piece| piece.path == site) {
                    Some(Piece { wanted: Thing::File { content, .. }, .. }) => content.clone(),
                    _ => fs::read(included.join(target))?,
                },
                Thing::File { content, .. } => content.clone(),
                Thing::Nothing | Thing::Other => continue,
            };
            let content = without_new_logs(content, prefix);
            files::ensure_file(&self.directory.join(name), 0o600, &content).map_err(io::Error::other)?;
        }
        Ok(())
    }
}

impl Drop for Shadow {
    fn drop(&mut self) {
        // What is left of it is in nobody's way: no include means a name that begins with a dot.
        drop(fs::remove_file(&self.config));
        drop(fs::remove_dir_all(&self.directory));
    }
}

/// Removes what processes have left that were killed in the middle of a test. What cannot be removed is in nobody's way.
fn ensure_tidy(root: &Path) {
    for entry in fs::read_dir(root).into_iter().flatten().flatten() {
        let path = entry.path();
        let age =
            entry.metadata().and_then(|metadata| metadata.modified()).ok().and_then(|at| at.elapsed().ok());
        if !entry.file_name().as_encoded_bytes().starts_with(PREFIX.as_bytes())
            || age.is_none_or(|age| age < NEW)
        {
            continue;
        }
        // The file that such a configuration begins with is made after its directory, and goes before it.
        match File::open(path.with_extension("")) {
            Ok(directory) if directory.try_lock().is_err() => {}
            Ok(_) if path.is_dir() => drop(fs::remove_dir_all(&path)),
            Ok(_) => drop(fs::remove_file(&path)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => drop(fs::remove_file(&path)),
            Err(_) => {}
        }
    }
}

/// The same text, with no log in it that nginx would make for the test. What it could not make stays, so that it says so.
fn without_new_logs(content: Vec<u8>, prefix: &Path) -> Vec<u8> {
    let mut parsed = parse(&content);
    // What is not read through is not written again.
    let is_foreign = content.windows(LUA.len()).any(|word| word == LUA);
    if parsed.fault.is_some() || is_foreign || !drop_new_logs(&mut parsed.directives, prefix) {
        return content;
    }
    let mut writer = Writer::default();
    parsed.directives.iter().for_each(|directive| writer.read(directive));
    // The first line is a comment; with it, lines have the numbers that they have in the file.
    let end = content.iter().position(|byte| *byte == b'\n').map_or(0, |at| at + 1);
    let mut text = content.get(..end).filter(|line| line.starts_with(b"#")).unwrap_or_default().to_vec();
    text.extend(writer.into_text().bytes());
    text
}

/// Whether there were any.
fn drop_new_logs(directives: &mut [Directive], prefix: &Path) -> bool {
    let mut is_changed = false;
    for Directive { name, words, block } in directives {
        if let ("access_log" | "error_log", Some(word)) = (name.as_str(), words.first_mut()) {
            let is_file = !matches!(word.as_str(), "off" | "stderr")
                && !["syslog:", "memory:"].iter().any(|other| word.starts_with(other))
                && !word.contains('$');
            let path = prefix.join(&word);
            let is_new = path.metadata().is_err_and(|error| error.kind() == io::ErrorKind::NotFound);
            if is_file && is_new && path.parent().is_some_and(Path::is_dir) {
                "/dev/null".clone_into(word);
                is_changed = true;
            }
        }
        is_changed |= block.as_mut().is_some_and(|inner| drop_new_logs(inner, prefix));
    }
    is_changed
}

/// The same directive, with the other directory in the place of that of the sites.
fn replace(
    directive: &Directive,
    is_here: &impl Fn(&str) -> bool,
    other: &Path,
    replaced: &mut usize,
) -> Directive {
    let Directive { name, words, block } = directive;
    let words = match words.as_slice() {
        [pattern] if name == "include" && is_here(pattern) => {
            *replaced += 1;
            let name = Path::new(pattern).file_name().unwrap_or_default();
            vec![other.join(name).to_string_lossy().into_owned()]
        }
        words => words.to_vec(),
    };
    let inner =
        |inner: &Vec<Directive>| inner.iter().map(|one| replace(one, is_here, other, replaced)).collect();
    let block = block.as_ref().map(inner);
    Directive { name: name.clone(), words, block }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;

    #[test]
    fn a_log_is_not_made_for_a_test_and_all_else_is_as_it_was() {
        let directory = tempfile::tempdir().unwrap();
        File::create(directory.path().join("old.log")).unwrap();
        let top = directory.path().display();
        let text = format!(
            "# mark\nserver {{\n    access_log {top}/new.log combined;\n    error_log new.log;\n    location / {{\n        \
             access_log {top}/old.log;\n        error_log {top}/nowhere/x.log;\n        access_log off;\n        \
             access_log syslog:server=x;\n        access_log \"{top}/$host\";\n    }}\n}}\n"
        );
        let expected = text
            .replace(&format!("{top}/new.log combined"), "/dev/null combined")
            .replace("error_log new.log", "error_log /dev/null")
            .replace(&format!("\"{top}/$host\""), &format!("{top}/$host"));
        let tested = without_new_logs(text.clone().into_bytes(), directory.path());
        assert_eq!(String::from_utf8(tested).unwrap(), expected);
        let lua = format!("{text}content_by_lua_block {{ x }}\n").into_bytes();
        assert_eq!(without_new_logs(lua.clone(), directory.path()), lua);
    }

    #[test]
    fn what_was_left_is_removed_and_what_is_under_way_is_not() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        let all = ["dead", "alive", "young", "alone"].map(|name| format!(".fleetward-test-{name}"));
        let [dead, alive, young, alone] = all.each_ref().map(String::as_str);
        let config = |name: &str| format!("{name}.conf");
        for name in [dead, alive, young] {
            fs::create_dir(at(name)).unwrap();
            File::create(at(name).join("site")).unwrap();
        }
        let names = [config(dead), config(alive), config(young), config(alone), "nginx.conf".to_owned()];
        for name in &names {
            File::create(at(name)).unwrap();
        }
        let old = SystemTime::now() - Duration::from_secs(60);
        for name in fs::read_dir(directory.path()).unwrap().map(|entry| entry.unwrap().file_name()) {
            if !name.to_str().unwrap().starts_with(young) {
                File::open(directory.path().join(&name)).unwrap().set_modified(old).unwrap();
            }
        }
        let lock = File::open(at(alive)).unwrap();
        lock.lock().unwrap();
        ensure_tidy(directory.path());
        assert_eq!(names.each_ref().map(|name| at(name).exists()), [false, true, true, false, true]);
        assert_eq!([dead, alive, young].map(|name| at(name).join("site").exists()), [false, true, true]);
        // Its process is gone.
        drop(lock);
        ensure_tidy(directory.path());
        assert!(!at(alive).exists() && !at(&config(alive)).exists() && at(young).exists());
    }
}
