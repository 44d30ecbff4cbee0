//! The step journal of a typed run: which changing steps began and which are done, durable before each goes on.
//!
//! It stands in the run's directory. Whoever takes a run up again (after the process or the host went away) finds in it
//! where the run was: a step that began and is not done may have happened, in part or in whole.
//!
//! A record is the length of its body (two bytes, little-endian), the beginning of the body's SHA-256, and the body. What a
//! crash leaves of the last one is no record, and is cut off before the next is written.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use fleetward_protocol::digest::Digest;
use fleetward_protocol::event::StepName;
use fleetward_protocol::wire;
use serde::{Deserialize, Serialize};

use crate::platform::files;

/// The file's name in the run's directory.
pub const STEPS: &str = "steps";
/// The name of the file beside it with what an action has to remember.
const MEMORY: &str = "memory";
const MAX_MEMORY: u64 = 256 << 10;
const LENGTH: usize = 2;
const CHECK: usize = 8;
const MAX_BODY: usize = 1 << 10;
const MAX_FILE: u64 = 16 << 20;

/// What was written down. Append-only.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Step {
    /// It begins now.
    Began(StepName),
    /// It is done.
    Done(StepName),
    /// What it had done was put back.
    Undone(StepName),
}

/// How far a step had come before its run was cut off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Earlier {
    /// It began: it may have happened, in part or in whole.
    Began,
    /// It was done.
    Done,
}

/// How far the step of this name had come, by the steps of a journal; `None` if it did not begin, or was put back.
#[must_use]
pub fn earlier(steps: &[Step], step: &str) -> Option<Earlier> {
    let of_step = |(name, earlier): (&StepName, _)| (name.as_str() == step).then_some(earlier);
    let last = steps.iter().rev().find_map(|written| {
        of_step(match written {
            Step::Began(name) => (name, Some(Earlier::Began)),
            Step::Done(name) => (name, Some(Earlier::Done)),
            Step::Undone(name) => (name, None),
        })
    });
    last.flatten()
}

/// Where a run stood with these steps, for a sentence.
#[must_use]
pub fn place(steps: &[Step]) -> String {
    match steps.last() {
        None => "before its first change".to_owned(),
        Some(Step::Began(name)) => format!("in its step `{name}`, which may have happened"),
        Some(Step::Done(name)) => format!("behind its step `{name}`, which was done"),
        Some(Step::Undone(name)) => format!("behind its step `{name}`, which was put back"),
    }
}

/// Where the run in this directory stands, for a sentence.
#[must_use]
pub fn read_place(directory: &Path) -> String {
    read_steps(directory)
        .map_or_else(|error| format!("at a place that cannot be read ({error})"), |steps| place(&steps))
}

/// The steps in a run's directory. Where nothing was written there are none.
///
/// # Errors
/// If they cannot be read.
pub fn read_steps(directory: &Path) -> io::Result<Vec<Step>> {
    match files::read_file(&directory.join(STEPS), MAX_FILE) {
        Ok(bytes) => Ok(read(&bytes).0),
        Err(error) if error.is_absent() => Ok(Vec::new()),
        Err(error) => Err(io::Error::other(error)),
    }
}

/// The journal of one run's steps.
#[derive(Debug)]
pub struct StepJournal {
    file: File,
    length: u64,
    directory: PathBuf,
}

impl StepJournal {
    /// Opens the journal in a run's directory, or begins one; with what is in it.
    ///
    /// # Errors
    /// If it can neither be read nor be made.
    pub fn open(directory: &Path) -> io::Result<(Self, Vec<Step>)> {
        let path = directory.join(STEPS);
        let mut options = OpenOptions::new();
        let file = options.read(true).write(true).create(true).truncate(false).mode(0o600).open(&path)?;
        let bytes = files::read_file(&path, MAX_FILE).map_err(io::Error::other)?;
        let (steps, sound) = read(&bytes);
        if bytes.len() > sound {
            file.set_len(sound as u64)?;
        }
        if sound == 0 {
            // The file's own name must not be lost either.
            File::open(directory)?.sync_all()?;
        }
        Ok((Self { file, length: sound as u64, directory: directory.to_owned() }, steps))
    }

    /// The run's directory.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Keeps this for whoever takes the run up again, in the place of what was kept before; it is durable when this returns.
    ///
    /// # Errors
    /// If it cannot be written, or is too long.
    pub fn remember(&self, memory: &[u8]) -> io::Result<()> {
        if memory.len() as u64 > MAX_MEMORY {
            return Err(io::Error::other("it is too long to be remembered"));
        }
        files::ensure_file(&self.directory.join(MEMORY), 0o600, memory).map_err(io::Error::other)
    }

    /// What was kept; `None` if nothing was.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn recall(&self) -> io::Result<Option<Vec<u8>>> {
        match files::read_file(&self.directory.join(MEMORY), MAX_MEMORY) {
            Ok(memory) => Ok(Some(memory)),
            Err(error) if error.is_absent() => Ok(None),
            Err(error) => Err(io::Error::other(error)),
        }
    }

    /// Writes this down; it is durable when this returns.
    ///
    /// # Errors
    /// If it cannot be written: then the step must not begin.
    pub fn append(&mut self, step: &Step) -> io::Result<()> {
        let record = encode(step)?;
        self.file.write_all_at(&record, self.length)?;
        self.file.sync_data()?;
        self.length += record.len() as u64;
        Ok(())
    }
}

fn encode(step: &Step) -> io::Result<Vec<u8>> {
    let body = wire::encode(step, MAX_BODY).map_err(io::Error::other)?;
    let length = u16::try_from(body.len()).map_err(io::Error::other)?;
    Ok([&length.to_le_bytes()[..], &Digest::of(&body).as_bytes()[..CHECK], &body].concat())
}

/// The records at the front of `bytes`, and where they end.
fn read(bytes: &[u8]) -> (Vec<Step>, usize) {
    let (mut steps, mut sound) = (Vec::new(), 0);
    while let Some((step, length)) = read_one(&bytes[sound..]) {
        steps.push(step);
        sound += length;
    }
    (steps, sound)
}

fn read_one(bytes: &[u8]) -> Option<(Step, usize)> {
    let (length, rest) = bytes.split_first_chunk::<LENGTH>()?;
    let (check, rest) = rest.split_first_chunk::<CHECK>()?;
    let length = usize::from(u16::from_le_bytes(*length));
    let body = rest.get(..length)?;
    if Digest::of(body).as_bytes()[..CHECK] != *check {
        return None;
    }
    Some((wire::decode(body, MAX_BODY).ok()?, LENGTH + CHECK + length))
}

#[cfg(test)]
mod tests {
    use fleetward_protocol::text::Text;
    use proptest::prelude::*;

    use super::*;

    fn step() -> impl Strategy<Value = Step> {
        let kind = prop_oneof![
            Just(Step::Began as fn(_) -> _),
            Just(Step::Done as fn(_) -> _),
            Just(Step::Undone as fn(_) -> _)
        ];
        (kind, "[a-z ]{0,70}").prop_map(|(kind, name)| kind(Text::of(name)))
    }

    #[test]
    fn the_last_word_about_a_step_counts() {
        let [stop, start] = ["stop", "start"].map(Text::of);
        let mut steps = vec![Step::Began(stop.clone())];
        assert_eq!((earlier(&steps, "stop"), earlier(&steps, "start")), (Some(Earlier::Began), None));
        assert_eq!(place(&steps), "in its step `stop`, which may have happened");
        steps.extend([Step::Done(stop.clone()), Step::Began(start)]);
        assert_eq!(
            (earlier(&steps, "stop"), earlier(&steps, "start")),
            (Some(Earlier::Done), Some(Earlier::Began))
        );
        steps.push(Step::Undone(stop));
        assert_eq!(earlier(&steps, "stop"), None);
        assert_eq!(place(&[]), "before its first change");
    }

    #[test]
    fn what_is_to_be_remembered_is_there_for_the_next_attempt() {
        let directory = tempfile::tempdir().unwrap();
        let (journal, _) = StepJournal::open(directory.path()).unwrap();
        assert_eq!(journal.recall().unwrap(), None);
        journal.remember(b"first").unwrap();
        journal.remember(b"second").unwrap();
        let (journal, _) = StepJournal::open(directory.path()).unwrap();
        assert_eq!(journal.recall().unwrap().as_deref(), Some(&b"second"[..]));
        assert!(journal.remember(&[0; 300 << 10]).is_err());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// Cut anywhere, with anything behind the cut: what was whole is read back, nothing else is, and what is written
        /// next follows it.
        #[test]
        fn a_torn_journal_is_its_whole_beginning(
            steps in prop::collection::vec(step(), 0..8),
            cut in any::<prop::sample::Index>(),
            garbage in prop_oneof![
                Just(Vec::new()),
                prop::collection::vec(Just(0_u8), 1..40),
                prop::collection::vec(any::<u8>(), 1..40),
            ],
            next in step(),
        ) {
            let directory = tempfile::tempdir().unwrap();
            let (mut journal, found) = StepJournal::open(directory.path()).unwrap();
            prop_assert_eq!(found, []);
            let mut ends = vec![0];
            for step in &steps {
                journal.append(step).unwrap();
                ends.push(usize::try_from(journal.length).unwrap());
            }
            let path = directory.path().join(STEPS);
            let written = std::fs::read(&path).unwrap();
            let mut bytes = written.clone();
            bytes.truncate(cut.index(written.len() + 1));
            bytes.extend(&garbage);
            // What stands behind the cut may happen to be what stood there before.
            let cut = bytes.iter().zip(&written).take_while(|(now, before)| now == before).count();
            std::fs::write(&path, &bytes).unwrap();

            let looked = read_steps(directory.path()).unwrap();
            let (mut journal, found) = StepJournal::open(directory.path()).unwrap();
            prop_assert_eq!(&looked, &found);
            let whole = ends.iter().filter(|end| **end <= cut).count() - 1;
            prop_assert_eq!(&found[..], &steps[..whole]);
            journal.append(&next).unwrap();
            let (_, found) = StepJournal::open(directory.path()).unwrap();
            prop_assert_eq!(&found[..whole], &steps[..whole]);
            prop_assert_eq!(&found[whole..], &[next]);
        }
    }
}
