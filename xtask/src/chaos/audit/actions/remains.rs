//! What is on a host when all is over: the file, the drop-in with what systemd made of it, the package's hold, and the site
//! with what nginx makes of it.

use std::io::ErrorKind;
use std::path::Path;

use anyhow::{Context as _, Result};

use crate::chaos::action::{DROP_IN_FILE, DROP_INS, FILE, FILES, HELD, Object, SITE_NAME, Unit};
use crate::chaos::remains::{Deed, Found, expect, judge_file, judge_hold, judge_loaded};
use crate::chaos::site::{self, Site};
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

    let expected = expected(Object::Site)?;
    let site = read_site(host)?;
    wrong.extend(site::judge(&site, &expected));
    host.run(&["systemctl", "reload", "nginx"])?;
    // What nginx was not told of it is told of now: then it serves what is there, whatever that is.
    wrong.extend(site::judge_served_after_all(&site, &served(host)?));
    Ok(wrong)
}

fn read_site(host: &Host) -> Result<Site> {
    let (file, link) = (within(host, site::FILE), within(host, site::LINK));
    let content = match std::fs::read_to_string(&file) {
        Err(error) if error.kind() == ErrorKind::NotFound => None,
        content => Some(content.with_context(|| file.display().to_string())?),
    };
    let digest = match &content {
        Some(_) => host.run(&["sh", "-c", "tail -n +2 \"$0\" | sha256sum", site::FILE])?,
        None => String::new(),
    };
    let link = match std::fs::read_link(&link) {
        Err(error) if error.kind() == ErrorKind::NotFound => None,
        target => Some(target.with_context(|| link.display().to_string())?),
    };
    let mut left = Vec::new();
    for directory in site::DIRECTORIES {
        let directory = within(host, directory);
        for entry in std::fs::read_dir(&directory).with_context(|| directory.display().to_string())? {
            let name = entry?.file_name().to_string_lossy().into_owned();
            if name.contains("fleetward") && name != "fleetward" {
                left.push(name);
            }
        }
    }
    let tested = host.exec(&["nginx", "-t"])?;
    let broken = (!tested.status.success()).then(|| tested.error_text());
    Ok(Site { content, digest, link, left, broken, served: served(host)? })
}

/// What nginx answers by the site's name, on the host itself.
fn served(host: &Host) -> Result<String> {
    let request = format!(
        "exec 3<>/dev/tcp/127.0.0.1/80; printf 'GET / HTTP/1.0\\r\\nHost: {SITE_NAME}\\r\\n\\r\\n' >&3; cat <&3"
    );
    Ok(host.exec(&["timeout", "20", "bash", "-c", &request])?.text())
}

fn within(host: &Host, path: &str) -> std::path::PathBuf {
    host.root().join(path.trim_start_matches('/'))
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
