//! What a change of a site is made of: files and links, each with what it was.

use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown, symlink};
use std::path::{Path, PathBuf};

use fleetward_protocol::digest::Digest;
use serde::{Deserialize, Serialize};

use crate::platform::files::{self, FileError};

/// The largest file that is read, written or put back, in bytes.
pub const MAX_FILE: u64 = 112 << 10;

/// What stands at a path.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Thing {
    /// Nothing.
    Nothing,
    /// A file: its content, its mode, and its group.
    File {
        /// What is in it.
        #[serde(with = "base64")]
        content: Vec<u8>,
        /// Its mode.
        mode: u32,
        /// Its group.
        group: u32,
    },
    /// A link to this path.
    Link(PathBuf),
    /// Something else, which is not touched.
    Other,
}

/// What a path holds, and what it is to hold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Piece {
    /// Where.
    pub path: PathBuf,
    /// What was there.
    pub was: Thing,
    /// What is to be there.
    pub wanted: Thing,
}

mod base64 {
    use ::base64::Engine as _;
    use ::base64::engine::general_purpose::STANDARD;
    use serde::{Deserialize as _, Deserializer, Serializer, de};

    pub(super) fn serialize<S: Serializer>(bytes: &[u8], to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&STANDARD.encode(bytes))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<u8>, D::Error> {
        STANDARD.decode(String::deserialize(from)?).map_err(de::Error::custom)
    }
}

impl Thing {
    /// What stands at this path now.
    ///
    /// # Errors
    /// If it cannot be read, or is too large.
    pub fn read(path: &Path) -> Result<Self, FileError> {
        let metadata = match fs::symlink_metadata(path) {
            Ok(metadata) => metadata,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::Nothing),
            Err(error) => return Err(FileError::new("look at", path, error)),
        };
        let kind = metadata.file_type();
        if kind.is_symlink() {
            return fs::read_link(path).map(Self::Link).map_err(|error| FileError::new("read", path, error));
        }
        if !kind.is_file() {
            return Ok(Self::Other);
        }
        let content = files::read_file(path, MAX_FILE)?;
        Ok(Self::File { content, mode: metadata.mode() & 0o7777, group: metadata.gid() })
    }

    /// Has it stand at this path, in one step.
    ///
    /// # Errors
    /// If it cannot; what was there is there still.
    pub fn ensure(&self, path: &Path) -> Result<(), FileError> {
        match self {
            Self::Nothing => files::ensure_absent(path).and_then(|()| ensure_kept(path)),
            Self::File { content, mode, group } => {
                let beside = hidden(path);
                // Whoever looks at the directory meanwhile finds the old file or the new one, never half of one.
                files::ensure_file(&beside, *mode, content)?;
                let set = || {
                    if fs::metadata(&beside)?.gid() != *group {
                        chown(&beside, None, Some(*group))?;
                        fs::set_permissions(&beside, fs::Permissions::from_mode(*mode))?;
                    }
                    Ok(())
                };
                set().map_err(|error| FileError::new("give the group to", &beside, error))?;
                files::ensure_renamed(&beside, path)
            }
            Self::Link(target) => {
                let beside = hidden(path);
                files::ensure_absent(&beside)?;
                symlink(target, &beside).map_err(|error| FileError::new("link", path, error))?;
                files::ensure_renamed(&beside, path)
            }
            Self::Other => Ok(()),
        }
    }

    /// Whether what stands there is as it is wanted.
    #[must_use]
    pub fn is(&self, wanted: &Self) -> bool {
        match (self, wanted) {
            // Whose group a file has is not asked of one that is read by everybody.
            (Self::File { content, .. }, Self::File { content: wanted, mode, .. }) if mode & 0o004 != 0 => {
                content == wanted
            }
            (there, wanted) => there == wanted,
        }
    }

    /// In words.
    #[must_use]
    pub fn words(&self) -> String {
        match self {
            Self::Nothing => "nothing".to_owned(),
            Self::File { content, .. } => {
                let digest = Digest::of(content).to_string();
                format!("{} bytes, SHA-256 {}", content.len(), digest.get(..12).unwrap_or_default())
            }
            Self::Link(target) => format!("a link to {}", target.display()),
            Self::Other => "no file".to_owned(),
        }
    }
}

impl Piece {
    /// Whether nothing is to be done.
    #[must_use]
    pub fn is_as_wanted(&self) -> bool {
        self.was.is(&self.wanted)
    }
}

/// A name beside that no pattern of nginx means, for it begins with a dot.
fn hidden(path: &Path) -> PathBuf {
    let mut name = std::ffi::OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(".fleetward");
    path.with_file_name(name)
}

/// Has the removal of a name reach the disk.
fn ensure_kept(path: &Path) -> Result<(), FileError> {
    let directory = path.parent().unwrap_or(Path::new("/"));
    match fs::File::open(directory).and_then(|directory| directory.sync_all()) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(FileError::new("write", directory, error))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_there_can_be_put_back() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("site");
        let group = fs::metadata(directory.path()).unwrap().gid();
        let file = |text: &str, mode| Thing::File { content: text.into(), mode, group };
        for thing in [
            file("one", 0o644),
            file("two", 0o640),
            Thing::Link("/nowhere".into()),
            file("three", 0o644),
            Thing::Nothing,
            Thing::Nothing,
            Thing::Link("../a".into()),
        ] {
            thing.ensure(&path).unwrap();
            assert_eq!(Thing::read(&path).unwrap(), thing);
            let kept: Thing = serde_json::from_str(&serde_json::to_string(&thing).unwrap()).unwrap();
            assert_eq!(kept, thing);
        }
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1, "nothing is left beside it");
        assert_eq!(Thing::read(directory.path()).unwrap(), Thing::Other);
    }
}
