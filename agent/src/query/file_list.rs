//! Lists what is in a directory.
//!
//! However many names there are, only as many are kept as are told: the first ones.

use std::collections::BinaryHeap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;

use fleetward_protocol::file::FileMode;
use fleetward_protocol::path::{self, HostPath};
use fleetward_protocol::query::file_list::{FileItem, FileList, ITSELF, MAX_NAMES};
use fleetward_protocol::text::Text;

use super::file::{confines, modified};
use super::look::Look;
use super::teller::{Stop, Teller};
use crate::platform::confined::directory::Directory;
use crate::platform::confined::{ConfinedError, Links, Seen, read_link, type_of};
use crate::platform::users::Names;

impl Look for FileList {
    async fn look(&self, _follow: bool, teller: &mut Teller<Self>) -> Result<(), Stop> {
        let confines = confines(teller.allowed());
        let directory = confines.open_directory(self.path.as_path(), Links::Any)?;
        let Listed { names, entries } = list(self, &directory, MAX_NAMES)?;
        let mut accounts = Names::default();
        let itself = directory.look(OsStr::new("."))?;
        let mut told = Vec::with_capacity(names.len());
        if let Some(seen) = itself {
            let item = item(ITSELF.as_bytes(), &seen, &mut accounts);
            let left_out = entries - names.len() as u64;
            let next = names.last().filter(|_| left_out > 0).map(|name| Text::of(path::encode(name)));
            let left_out = (left_out > 0).then_some(left_out);
            told.push(FileItem { entries: Some(entries), left_out, next, ..item });
        }
        for item in &told {
            teller.item(item).await?;
        }
        for name in names {
            // One that was removed meanwhile is not there.
            let Some(seen) = directory.look(OsStr::from_bytes(&name))? else { continue };
            let item = item(&name, &seen, &mut accounts);
            teller.item(&FileItem { path: path_of(&self.path, &name), ..item }).await?;
        }
        Ok(())
    }
}

/// The first names in their order, and how many there are.
struct Listed {
    names: Vec<Vec<u8>>,
    entries: u64,
}

fn list(asked: &FileList, directory: &Directory, most: usize) -> Result<Listed, ConfinedError> {
    let mut first: BinaryHeap<Vec<u8>> = BinaryHeap::new();
    let mut entries = 0;
    directory.read_names(|name| {
        let name = name.as_bytes();
        let is_behind = asked.after.as_ref().is_none_or(|after| name > after.as_bytes());
        if is_behind && (asked.hidden || !name.starts_with(b".")) {
            entries += 1;
            if first.len() < most {
                first.push(name.to_vec());
            } else if let Some(mut last) = first.peek_mut()
                && *last.as_slice() > *name
            {
                *last = name.to_vec();
            }
        }
        true
    })?;
    Ok(Listed { names: first.into_sorted_vec(), entries })
}

/// How to ask for what has this name, where it cannot be written behind the directory's path.
fn path_of(directory: &HostPath, name: &[u8]) -> Option<Text<3072>> {
    if path::is_plain(name) && path::is_plain(directory.as_bytes()) {
        return None;
    }
    let path = HostPath::of_bytes(&[directory.as_bytes(), b"/", name].concat()).ok()?;
    path.to_string().try_into().ok()
}

fn item(name: &[u8], seen: &Seen, accounts: &mut Names) -> FileItem {
    let Seen { handle, metadata, .. } = seen;
    // Who removes it meanwhile takes the target with it.
    let target = metadata.is_symlink().then(|| read_link(handle).unwrap_or_default());
    FileItem {
        name: Text::of(path::shown(name)),
        kind: type_of(metadata),
        size: metadata.len(),
        mode: FileMode::of(metadata.mode()),
        owner: Text::of(accounts.user(metadata.uid())),
        group: Text::of(accounts.group(metadata.gid())),
        modified: modified(metadata),
        target: target.map(|target| Text::of(path::shown(target.as_bytes()))),
        bytes: (!path::is_plain(name)).then(|| Text::of(path::encode(name))),
        path: None,
        entries: None,
        left_out: None,
        next: None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::platform::confined::Confines;

    fn asked(hidden: bool, after: Option<&str>) -> FileList {
        let after = after.map(|after| after.to_owned().try_into().unwrap());
        FileList { path: "/".parse().unwrap(), hidden, after, user: None }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        /// Part after part, each name is told once and in its order, whatever the names are.
        #[test]
        fn a_directory_is_listed_whole_part_after_part(
            names in prop::collection::btree_set(prop::collection::vec(1..=255_u8, 1..5), 0..40),
            most in 1..10_usize,
            hidden: bool,
        ) {
            let temporary = tempfile::tempdir().unwrap();
            let mut expected = Vec::new();
            for name in names {
                if name.contains(&b'/') || name == b"." || name == b".." {
                    continue;
                }
                std::fs::write(temporary.path().join(OsStr::from_bytes(&name)), "").unwrap();
                if hidden || name[0] != b'.' {
                    expected.push(name);
                }
            }
            let directory = Confines::everywhere().open_directory(temporary.path(), Links::Any).unwrap();
            let (mut told, mut after) = (Vec::new(), None);
            loop {
                let list = list(&asked(hidden, after.as_deref()), &directory, most).unwrap();
                prop_assert_eq!(list.entries, (expected.len() - told.len()) as u64);
                prop_assert_eq!(list.names.len(), most.min(expected.len() - told.len()));
                told.extend(list.names);
                match told.last() {
                    Some(last) if told.len() < expected.len() => after = Some(path::encode(last)),
                    _ => break,
                }
            }
            prop_assert_eq!(told, expected);
        }
    }
}
