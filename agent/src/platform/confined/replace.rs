//! A file that takes the place of another one, whole and durably, and what becomes of the one that was there.
//!
//! Beside the file stand, while it is replaced, the new one and the old one under names of ours. After a crash they are found by
//! these names: the new one is no whole file, and is removed; the old one is kept or removed, as it would have been.

use std::ffi::{OsStr, OsString};
use std::fs::{File, Metadata};
use std::io::Write as _;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::fs::MetadataExt as _;

use fleetward_protocol::digest::Digest;
use nix::errno::Errno;

use super::attributes::Attributes;
use super::directory::{Directory, Existing};
use super::{ConfinedError, Seen};
use crate::platform::xattr;

/// The longest name that a kept file is named after.
const MAX_NAMED: usize = 200;

/// A place for a file: a name in a directory.
#[derive(Debug, Clone, Copy)]
pub struct Place<'a> {
    /// The directory.
    pub directory: &'a Directory,
    /// The name in it.
    pub name: &'a OsStr,
}

/// A new file beside its place, on the disk.
#[derive(Debug)]
pub struct Staged {
    /// What it is like.
    pub metadata: Metadata,
    /// The extended attributes of the file in the place that it could not be given.
    pub lost: Vec<String>,
}

/// Whether the file that was in the place is beside it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Displaced {
    /// It is.
    Kept,
    /// There was none.
    Nothing,
    /// The file system, or the rights of who acts, do not let it be there.
    Lost,
}

/// Whether a file is replaced only if it can be kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Must {
    /// Only then.
    Keep,
    /// It is kept where that can be had.
    Replace,
}

impl Place<'_> {
    /// Makes a new file beside the place, durably, with the extended attributes of what is in the place.
    ///
    /// # Errors
    /// If it cannot be made whole; then there is none.
    pub fn stage(
        &self,
        content: &[u8],
        attributes: Attributes,
        like: Option<&Seen>,
    ) -> Result<Staged, ConfinedError> {
        let staged = self.own_name("new");
        // What a crash left is not whole.
        self.directory.remove(&staged)?;
        let file = self.directory.create_file(&staged)?;
        let made = self.fill(&file, content, attributes, like);
        if made.is_err() {
            // What failed is told; without room on the disk a name can still be taken away.
            let _ = self.directory.remove(&staged);
        }
        made
    }

    fn fill(
        &self,
        mut file: &File,
        content: &[u8],
        attributes: Attributes,
        like: Option<&Seen>,
    ) -> Result<Staged, ConfinedError> {
        let path = self.directory.path().join(self.name);
        let failed = |act| move |error| ConfinedError::new(act, &path, error);
        file.write_all(content).map_err(failed.clone()("writing"))?;
        let lost = match like {
            Some(like) => {
                xattr::ensure_same(&like.handle, file).map_err(failed.clone()("reading attributes of"))?
            }
            None => Vec::new(),
        };
        attributes.ensure(file).map_err(failed.clone()("setting owner and mode of"))?;
        file.sync_all().map_err(failed.clone()("writing"))?;
        let metadata = file.metadata().map_err(failed("looking at"))?;
        Ok(Staged { metadata, lost })
    }

    /// Puts the new file into the place, if that is as it was seen, and if the one that is there can be kept where it has to be.
    ///
    /// # Errors
    /// If it is not, or the file cannot be put there; then the place is as it was, and the new file is removed.
    pub fn put(&self, seen: Option<&Seen>, must: Must) -> Result<Displaced, ConfinedError> {
        let put = self.exchange(seen, must);
        if put.is_err() {
            let _ = self.directory.remove(&self.own_name("new"));
        }
        put
    }

    fn exchange(&self, seen: Option<&Seen>, must: Must) -> Result<Displaced, ConfinedError> {
        let (staged, displaced) = (self.own_name("new"), self.own_name("old"));
        let now = self.directory.look(self.name)?;
        if !is_same(seen, now.as_ref()) {
            return Err(ConfinedError::Meanwhile(self.directory.path().join(self.name)));
        }
        let (was, existing) = match seen {
            None => (Displaced::Nothing, Existing::Keep),
            Some(_) => match self.directory.link(self.name, &displaced) {
                Ok(()) => (Displaced::Kept, Existing::Replace),
                Err(error) if must == Must::Keep => return Err(error),
                Err(_) => (Displaced::Lost, Existing::Replace),
            },
        };
        let put = self.directory.rename(&staged, self.name, existing);
        if let Err(error) = put {
            if was == Displaced::Kept {
                let _ = self.directory.remove(&displaced);
            }
            return Err(error);
        }
        self.directory.sync()?;
        Ok(was)
    }

    /// Takes the file out of the place, if that is as it was seen; it stands beside it then.
    ///
    /// # Errors
    /// If it is not, or cannot be moved; then the place is as it was.
    pub fn displace(&self, seen: Option<&Seen>) -> Result<(), ConfinedError> {
        let now = self.directory.look(self.name)?;
        if !is_same(seen, now.as_ref()) {
            return Err(ConfinedError::Meanwhile(self.directory.path().join(self.name)));
        }
        self.directory.rename(self.name, &self.own_name("old"), Existing::Replace)?;
        self.directory.sync()
    }

    /// Puts back what was in the place.
    ///
    /// # Errors
    /// If it cannot be put back.
    pub fn put_back(&self, was: Displaced) -> Result<(), ConfinedError> {
        match was {
            Displaced::Kept => self.directory.rename(&self.own_name("old"), self.name, Existing::Replace)?,
            Displaced::Nothing => drop(self.directory.remove(self.name)?),
            Displaced::Lost => {
                return Err(ConfinedError::new(
                    "putting back",
                    &self.directory.path().join(self.name),
                    Errno::ENOENT,
                ));
            }
        }
        self.directory.sync()
    }

    /// What was in the place, if it is beside it.
    ///
    /// # Errors
    /// If it cannot be looked at.
    pub fn look_displaced(&self) -> Result<Option<Seen>, ConfinedError> {
        self.directory.look(&self.own_name("old"))
    }

    /// Removes what is left beside the place: a new file that was never put there, and the one that was there before, which is
    /// kept under a name with this time if one is given. That name.
    ///
    /// # Errors
    /// If something cannot be removed or kept.
    pub fn settle(&self, keep: Option<&str>) -> Result<Option<OsString>, ConfinedError> {
        self.directory.remove(&self.own_name("new"))?;
        let displaced = self.own_name("old");
        let Some(old) = self.directory.look(&displaced)? else { return Ok(None) };
        let now = self.directory.look(self.name)?;
        let is_there = now.is_some_and(|now| identity(&now.metadata) == identity(&old.metadata));
        let kept = match keep {
            // It is in its place as well: it was never replaced.
            Some(time) if !is_there => Some(self.keep(&displaced, time)?),
            _ => {
                self.directory.remove(&displaced)?;
                None
            }
        };
        self.directory.sync()?;
        Ok(kept)
    }

    /// Keeps the file of this name under a name with the time, behind all that are kept already. It is no program that runs as
    /// its owner any more.
    ///
    /// # Errors
    /// If it cannot be renamed.
    pub fn keep(&self, from: &OsStr, time: &str) -> Result<OsString, ConfinedError> {
        let seen = self.directory.look(from)?;
        let prefix = self.kept_prefix();
        let first = [prefix.as_bytes(), time.as_bytes()].concat();
        let last = self.read_kept()?.pop().unwrap_or_default().into_vec();
        let name = if last < first { first } else { behind(&last) };
        let name = OsString::from_vec(name);
        self.directory.rename(from, &name, Existing::Keep)?;
        if let Some(Seen { path, handle, metadata }) = seen {
            let plain = Attributes { mode: Some(metadata.mode() & 0o1777), ..Attributes::default() };
            plain.ensure(&handle).map_err(|error| ConfinedError::new("setting the mode of", &path, error))?;
        }
        Ok(name)
    }

    /// The name of the file that was kept last.
    ///
    /// # Errors
    /// If the directory cannot be read.
    pub fn last_kept(&self) -> Result<Option<OsString>, ConfinedError> {
        Ok(self.read_kept()?.pop())
    }

    /// Removes the oldest of the kept files, so that so many are left; how many were removed.
    ///
    /// # Errors
    /// If one cannot be removed.
    pub fn ensure_few_kept(&self, most: usize) -> Result<usize, ConfinedError> {
        let kept = self.read_kept()?;
        let oldest = kept.len().saturating_sub(most);
        for name in kept.iter().take(oldest) {
            self.directory.remove(name)?;
        }
        Ok(oldest)
    }

    /// The names of the kept files, the oldest first.
    fn read_kept(&self) -> Result<Vec<OsString>, ConfinedError> {
        let prefix = self.kept_prefix();
        let mut kept = Vec::new();
        self.directory.read_names(|name| {
            if name.as_bytes().starts_with(prefix.as_bytes()) {
                kept.push(name.to_owned());
            }
            true
        })?;
        kept.sort();
        Ok(kept)
    }

    /// A name beside the place that is ours.
    fn own_name(&self, what: &str) -> OsString {
        format!(".fleetward-{}.{what}", short(self.name)).into()
    }

    /// How the names of kept files begin. What looks for all names in a directory passes over those that begin with a dot.
    fn kept_prefix(&self) -> OsString {
        let mut prefix = b".".to_vec();
        match self.name.as_bytes() {
            long if long.len() > MAX_NAMED => prefix.extend(short(self.name).bytes()),
            name => prefix.extend(name),
        }
        prefix.extend(b".fleetward-");
        OsString::from_vec(prefix)
    }
}

/// The next name behind that of a kept file: of the same second, or of one that a clock which was set back had shown.
fn behind(last: &[u8]) -> Vec<u8> {
    let numbered = last.len().checked_sub(4).and_then(|at| last.split_at_checked(at));
    let number = numbered.and_then(|(stem, end)| {
        let digits = str::from_utf8(end.strip_prefix(b"-")?).ok()?;
        digits.parse::<u16>().ok().map(|number| (stem, number))
    });
    match number {
        Some((stem, number)) if number < 999 => [stem, format!("-{:03}", number + 1).as_bytes()].concat(),
        _ => [last, b"-002"].concat(),
    }
}

fn short(name: &OsStr) -> String {
    Digest::of(name.as_bytes()).to_string().chars().take(16).collect()
}

fn identity(metadata: &Metadata) -> (u64, u64) {
    (metadata.dev(), metadata.ino())
}

/// Whether nothing was changed between two looks.
fn is_same(before: Option<&Seen>, now: Option<&Seen>) -> bool {
    let of = |seen: &Seen| {
        let found = &seen.metadata;
        (
            identity(found),
            found.len(),
            (found.mtime(), found.mtime_nsec()),
            (found.ctime(), found.ctime_nsec()),
        )
    };
    before.map(of) == now.map(of)
}
