//! A directory that is removed with all that is in it.

use std::ffi::{OsStr, OsString};

use super::ConfinedError;
use super::directory::Directory;

/// How deep directories may stand in each other: each of them is open while it is emptied.
const MAX_DEPTH: usize = 256;
/// So many names are read at once.
const PORTION: usize = 1024;

/// Removes the directory of this name with all that is in it on its file system, and says how many names that were. Links are
/// removed and not followed. `is_stopped` is asked before each directory.
///
/// # Errors
/// If something cannot be removed; what was removed before stays so. `None` if it was stopped.
pub fn ensure_removed(
    parent: &Directory,
    name: &OsStr,
    is_stopped: &mut impl FnMut() -> bool,
) -> Result<Option<u64>, ConfinedError> {
    let mut removed = 0;
    let mut open = vec![(parent.open_directory(name)?, name.to_owned())];
    while let Some((directory, _)) = open.last() {
        if is_stopped() {
            return Ok(None);
        }
        match empty(directory, &mut removed)? {
            Some((inner, name)) => {
                if open.len() >= MAX_DEPTH {
                    return Err(ConfinedError::Deep(inner.path().to_owned()));
                }
                open.push((inner, name));
            }
            None => {
                let Some((_, name)) = open.pop() else { break };
                let above = open.last().map_or(parent, |(directory, _)| directory);
                above.remove_directory(&name)?;
                removed += 1;
            }
        }
    }
    parent.sync()?;
    Ok(Some(removed))
}

/// Removes what is in a directory, up to a directory in it that has something in it, too: that one. `None` when it is empty.
fn empty(directory: &Directory, removed: &mut u64) -> Result<Option<(Directory, OsString)>, ConfinedError> {
    loop {
        let names = directory.first_names(PORTION)?;
        if names.is_empty() {
            return Ok(None);
        }
        for name in names {
            let is_directory = directory.look(&name)?.is_some_and(|seen| seen.metadata.is_dir());
            if is_directory {
                return directory.open_directory(&name).map(|inner| Some((inner, name)));
            }
            *removed += u64::from(directory.remove(&name)?);
        }
    }
}
