//! The place of a unit's file, and what was in it before.

use std::ffi::OsString;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use fleetward_protocol::action::unit_content::{ContentVerb, UnitContent};
use fleetward_protocol::text::{Line, Text};

use crate::action::file::stamp;
use crate::perform::{Problem, Steps};
use crate::platform::confined::attributes::Attributes;
use crate::platform::confined::directory::Directory;
use crate::platform::confined::replace::{Displaced, Must, Place};
use crate::platform::confined::{ConfinedError, Confines, Seen, shown};
use crate::platform::systemd::{Systemd, SystemdError};

/// The longest file of a unit that is read, in bytes.
const MAX_FILE: u64 = 1 << 20;
/// How many earlier versions of a file are kept.
const MAX_KEPT: usize = 5;
const FILE_MODE: u32 = 0o644;

/// What is to be in the place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Wanted {
    Content(Vec<u8>),
    Nothing,
}

/// The place of a unit's file.
pub(super) struct FilePlace {
    directory: Directory,
    /// The drop-in directory, where it is not there yet.
    missing: Option<OsString>,
    name: OsString,
    seen: Option<Seen>,
    /// What is in it; `None` if there is no file.
    pub(super) content: Option<Vec<u8>>,
}

impl FilePlace {
    /// The place, and what is in it now.
    pub(super) fn open(own: &Path, asked: &UnitContent) -> Result<Self, Problem> {
        let path = path_of(own, asked);
        let (directory, mut missing) =
            Confines::everywhere().open_parent(&path).map_err(|error| problem(&error))?;
        if missing.len() > 1 {
            return Err(Problem::new(
                format_args!("{} is not there", shown(own)),
                "this kind needs a host that runs systemd: see `systemctl show --property=UnitPath`",
            ));
        }
        ensure_not_anothers(own, asked)?;
        let name = path.file_name().unwrap_or_default().to_owned();
        let seen =
            if missing.is_empty() { directory.look(&name).map_err(|error| problem(&error))? } else { None };
        if let Some(seen) = seen.as_ref().filter(|seen| !seen.metadata.is_file()) {
            return Err(linked(&seen.path));
        }
        let content = match &seen {
            Some(_) => {
                Some(directory.open_file(&name).map_err(|error| problem(&error)).and_then(|(file, _)| {
                    let mut content = Vec::new();
                    let read = file.take(MAX_FILE + 1).read_to_end(&mut content);
                    match read {
                        Ok(_) if content.len() as u64 <= MAX_FILE => Ok(content),
                        Ok(_) => Err(Problem::new(
                            format_args!("{} is too large to be a unit's file", shown(&path)),
                            "look at it on the host",
                        )),
                        Err(error) => Err(problem(&ConfinedError::new("reading", &path, error))),
                    }
                })?)
            }
            None => None,
        };
        Ok(Self { directory, missing: missing.pop(), name, seen, content })
    }

    pub(super) fn path(&self) -> PathBuf {
        let directory = self.directory.path();
        match &self.missing {
            Some(missing) => directory.join(missing).join(&self.name),
            None => directory.join(&self.name),
        }
    }

    /// What is to be in it.
    pub(super) fn wanted(&self, asked: &UnitContent, steps: &Steps) -> Result<Wanted, Problem> {
        match asked.verb {
            ContentVerb::Remove => Ok(Wanted::Nothing),
            ContentVerb::Write => Ok(Wanted::Content(asked.wanted().unwrap_or_default().into_bytes())),
            ContentVerb::Revert => {
                let path = self.directory.path().join(self.reverted(steps)?);
                let content = read(&path);
                content
                    .map(Wanted::Content)
                    .map_err(|error| problem(&ConfinedError::new("reading", &path, error)))
            }
        }
    }

    /// The kept file that is to be brought back: the last one, or what was the last before this run was cut off.
    pub(super) fn reverted(&self, steps: &Steps) -> Result<OsString, Problem> {
        if let Some(name) = steps.recall::<String>() {
            return Ok(name.into());
        }
        let kept = match &self.missing {
            None => self.place().last_kept().map_err(|error| problem(&error))?,
            Some(_) => None,
        };
        kept.ok_or_else(|| {
            Problem::new(
                format_args!("no earlier version of {} is kept", shown(&self.path())),
                "write the text that it should have",
            )
        })
    }

    /// Whether what is in it can be changed at all.
    pub(super) fn ensure_writable(&self) -> Result<(), Problem> {
        self.directory.ensure_writable().map_err(|error| problem(&error))
    }

    /// Whether this is in it.
    pub(super) fn has(&self, wanted: &Wanted) -> bool {
        match wanted {
            Wanted::Content(content) => self.content.as_ref() == Some(content),
            Wanted::Nothing => self.content.is_none(),
        }
    }

    /// Puts this into it; what became of what was there.
    pub(super) fn put(&mut self, wanted: &Wanted) -> Result<Displaced, Problem> {
        self.put_in(wanted).map_err(|error| problem(&error))
    }

    fn put_in(&mut self, wanted: &Wanted) -> Result<Displaced, ConfinedError> {
        if let Some(missing) = self.missing.take() {
            let directory = self.directory.create_directory(&missing)?;
            Attributes { mode: Some(0o755), ..Attributes::default() }
                .ensure(directory.handle())
                .map_err(|error| ConfinedError::new("setting the mode of", directory.path(), error))?;
            self.directory.sync()?;
            self.directory = directory;
        }
        let place = self.place();
        match wanted {
            Wanted::Content(content) => {
                let attributes = Attributes { mode: Some(FILE_MODE), ..Attributes::default() };
                place.stage(content, attributes, self.seen.as_ref())?;
                place.put(self.seen.as_ref(), Must::Keep)
            }
            Wanted::Nothing => {
                place.displace(self.seen.as_ref())?;
                Ok(Displaced::Kept)
            }
        }
    }

    /// What became of what was there before this run was cut off.
    pub(super) fn look_displaced(&self) -> Result<Displaced, Problem> {
        let displaced = match &self.missing {
            Some(_) => None,
            None => self.place().look_displaced().map_err(|error| problem(&error))?,
        };
        Ok(displaced.map_or(Displaced::Nothing, |_| Displaced::Kept))
    }

    /// Puts back what was there, unless something else is there by now.
    pub(super) fn put_back(&self, wanted: &Wanted, was: Displaced) -> Result<(), Problem> {
        let now = self.directory.look(&self.name).map_err(|error| problem(&error))?;
        let is_ours = match (wanted, now) {
            (Wanted::Nothing, now) => now.is_none(),
            (Wanted::Content(content), Some(_)) => read(&self.path()).is_ok_and(|now| now == *content),
            (Wanted::Content(_), None) => false,
        };
        if !is_ours {
            return Err(Problem::new(
                format_args!(
                    "somebody else has changed {} meanwhile: it is left as it is",
                    shown(&self.path())
                ),
                "see what else writes it; what was there before stands beside it",
            ));
        }
        self.place().put_back(was).map_err(|error| problem(&error))
    }

    /// Keeps what was there before under a name of its time; that name.
    pub(super) fn settle(&self, was: Displaced) -> Result<Option<Line>, Problem> {
        if was == Displaced::Nothing {
            return Ok(None);
        }
        let place = self.place();
        let kept = place.settle(Some(&stamp())).map_err(|error| problem(&error))?;
        place.ensure_few_kept(MAX_KEPT).map_err(|error| problem(&error))?;
        Ok(kept.map(|name| Text::of(shown(&self.directory.path().join(name)))))
    }

    fn place(&self) -> Place<'_> {
        Place { directory: &self.directory, name: &self.name }
    }
}

/// Refuses a drop-in of what is a link to another unit, or masked: it would be read for that one, or not at all. A unit that is linked from
/// elsewhere (`systemctl link`) has the name of its file.
fn ensure_not_anothers(own: &Path, asked: &UnitContent) -> Result<(), Problem> {
    let path = own.join(asked.unit.as_str());
    let target = match (&asked.drop_in, asked.verb) {
        (Some(_), ContentVerb::Write | ContentVerb::Revert) => std::fs::read_link(&path).ok(),
        _ => None,
    };
    match target {
        Some(target) if target.file_name() != path.file_name() => Err(linked(&path)),
        _ => Ok(()),
    }
}

fn linked(path: &Path) -> Problem {
    Problem::new(
        format_args!(
            "{} is a link, or no file: the unit is masked, or it is another one's name",
            shown(path)
        ),
        "see `systemctl cat` on the host; `fleetward unit unmask` takes a mask away",
    )
}

/// Keeps what another run has left beside the place, or this one when it was cut off before the new file was in its place. What stands beside a new file that is there stays: it may have to be put back.
pub(super) fn tidy(asked: &UnitContent, steps: &Steps) -> Result<(), Problem> {
    let own = Systemd::connect().and_then(|systemd| systemd.read_own_directory());
    let own = own.map_err(|error: SystemdError| super::problem(asked, &error))?;
    let place = FilePlace::open(&own, asked)?;
    if steps.cut().is_some() && place.has(&place.wanted(asked, steps)?) {
        return Ok(());
    }
    // What takes no changes by now keeps what is there; whoever wants to change something is told.
    if place.missing.is_none() && place.ensure_writable().is_ok() {
        place.place().settle(Some(&stamp())).map_err(|error| problem(&error))?;
        place.place().ensure_few_kept(MAX_KEPT).map_err(|error| problem(&error))?;
    }
    Ok(())
}

fn path_of(own: &Path, asked: &UnitContent) -> PathBuf {
    match &asked.drop_in {
        Some(drop_in) => own.join(format!("{}.d", asked.unit)).join(format!("{drop_in}.conf")),
        None => own.join(asked.unit.as_str()),
    }
}

/// The content of a file, if it is no larger than one may be.
pub(super) fn read(path: &Path) -> std::io::Result<Vec<u8>> {
    crate::platform::files::read_file(path, MAX_FILE).map_err(std::io::Error::other)
}

fn problem(error: &ConfinedError) -> Problem {
    Problem::new(error, error.advice())
}
