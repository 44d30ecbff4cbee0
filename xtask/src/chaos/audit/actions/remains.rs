//! What is on a host when all is over: the file, the drop-in with what systemd made of it, and the package's hold.

use std::io::ErrorKind;
use std::path::Path;

use anyhow::{Context as _, Result};

use crate::chaos::action::{DROP_IN_FILE, DROP_INS, FILE, FILES, HELD, Object, Unit};
use crate::chaos::remains::{Deed, Found, expect, judge_file, judge_hold, judge_loaded};
use crate::lab::Host;

/// What is wrong on a host, by all runs there.
pub(super) fn audit(host: &Host, deeds: &[Deed]) -> Result<Vec<String>> {
    let expected = |object: Object| {
        let own: Vec<Deed> = deeds.iter().filter(|deed| deed.action.object() == object).copied().collect();
        object.initially().map(|initially| expect(initially, &own)).context("an object that is looked at")
    };
    let mut wrong = Vec::new();
    let file = read(&host.root(), FILES, FILE)?;
    wrong.extend(judge_file(Object::File, FILE, &file, &expected(Object::File)?).err());

    let drop_in = read(&host.root(), DROP_INS, DROP_IN_FILE)?;
    match judge_file(Object::DropIn, DROP_IN_FILE, &drop_in, &expected(Object::DropIn)?) {
        Ok(is) => {
            host.run(&["systemctl", "daemon-reload"])?;
            let loaded = host.run(&["systemctl", "show", "-P", "Description", Unit::Tuned.name()])?;
            wrong.extend(judge_loaded(&loaded, is).err());
        }
        Err(problem) => wrong.push(problem),
    }

    let held = host.run(&["apt-mark", "showhold"])?.lines().any(|name| name == HELD);
    wrong.extend(judge_hold(held, &expected(Object::Package)?).err());
    Ok(wrong)
}

/// A file in a directory of the host, and all that is beside it.
fn read(root: &Path, directory: &str, name: &str) -> Result<Found> {
    let directory = root.join(directory.trim_start_matches('/'));
    let entries = match std::fs::read_dir(&directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Found::default()),
        Err(error) => return Err(error).with_context(|| directory.display().to_string()),
    };
    let mut found = Found::default();
    for entry in entries {
        let path = entry?.path();
        let content = std::fs::read(&path).with_context(|| path.display().to_string())?;
        match path.file_name().unwrap_or_default().to_string_lossy().into_owned() {
            own if own == name => found.content = Some(content),
            other => drop(found.beside.insert(other, content)),
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_read_with_all_that_is_beside_it() {
        let root = tempfile::tempdir().unwrap();
        assert_eq!(read(root.path(), FILES, FILE).unwrap(), Found::default());
        let directory = root.path().join("etc/chaos");
        std::fs::create_dir_all(&directory).unwrap();
        std::fs::write(directory.join(".fleetward-0123456789abcdef.new"), "half").unwrap();
        let beside = [(".fleetward-0123456789abcdef.new".to_owned(), b"half".to_vec())].into();
        assert_eq!(read(root.path(), FILES, FILE).unwrap(), Found { content: None, beside });
        std::fs::write(directory.join(FILE), "whole").unwrap();
        assert_eq!(read(root.path(), FILES, FILE).unwrap().content.as_deref(), Some(&b"whole"[..]));
    }
}
