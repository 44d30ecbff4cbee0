//! What an earlier life of the agent left: runs that wait, run, ended, or were cut off.

use std::collections::BTreeSet;
use std::io::{self, ErrorKind};
use std::path::Path;
use std::sync::Arc;

use fleetward_protocol::id::{BootId, RunId};
use fleetward_protocol::run::LostCause;
use fleetward_protocol::time::Timestamp;
use tokio::sync::oneshot;

use super::attach::Attachment;
use super::drive::{Drive, stage_of};
use super::outcome::{self, End};
use super::resume::{self, CutOff};
use super::spec::{STARTED, Spec};
use super::{Shared, Stage, Watched, spool};
use crate::journal::{Contents, Entry, Known, Phase, Recovery};
use crate::platform::clock;

/// Takes up every run of the journal; returns what an operator should know.
pub(super) fn recover(shared: &Arc<Shared>, contents: &Contents) -> Vec<String> {
    for (run, known) in &contents.runs {
        recover_run(shared, *run, known);
    }
    shared.host.delegated.ensure_empty_groups_absent();
    shared.ensure_drains_within_limits();
    orphans(shared, contents)
}

fn recover_run(shared: &Arc<Shared>, run: RunId, known: &Known) {
    let directory = shared.directory(run);
    match &known.phase {
        Phase::Refused(refusal) => {
            let stage = Stage::Refused { refusal: refusal.clone(), accepted: true };
            drop(shared.hold(run, stage, 0, known.deadline, None));
        }
        Phase::Accepted if may_have_started(&directory) => {
            tracing::error!(run_id = %run, "start_not_in_the_journal");
            let at = clock::now();
            let started = Entry::Started { run, at, boot: shared.host.boot, resumable: false };
            // It begins at once. Should it fail, the directory tells the next life the same.
            drop(shared.journal.append(vec![started], at));
            let begun = Begun { at, boot: shared.host.boot, taken_up: None };
            take_up(shared, run, known.deadline, begun);
        }
        Phase::Accepted => {
            // A directory without `started` in the journal: its supervisor was never told to go.
            shared.remove_directory(run);
            let drive = hold(shared, run, Stage::Waiting, known.deadline);
            let (word, confirmed) = oneshot::channel();
            shared.table().unconfirmed.insert(run, word);
            shared.spawn(drive.resume(confirmed, known.deadline));
        }
        Phase::Started { at, boot, taken_up } => {
            let begun = Begun { at: *at, boot: *boot, taken_up: *taken_up };
            take_up(shared, run, known.deadline, begun);
        }
    }
}

/// What the journal knows of a run that was started.
#[derive(Debug, Clone, Copy)]
struct Begun {
    at: Timestamp,
    boot: BootId,
    taken_up: Option<u8>,
}

/// Takes up a run that was started: tells its end, watches it, lets it go on, or tells that nobody can know.
fn take_up(shared: &Arc<Shared>, run: RunId, deadline: Timestamp, Begun { at, boot, taken_up }: Begun) {
    let directory = shared.directory(run);
    let told = End::read(&directory);
    let has_ended = !matches!(told, Ok(None));
    if let Ok(Some(end)) = told
        && spool::vouches(&directory, &end)
    {
        let (stage, output) = stage_of(resume::settle(&directory, at, end), at);
        drop(shared.hold(run, stage, output, deadline, None));
        return;
    }
    let same = boot == shared.host.boot;
    // A journal that lost its last record may not know that it was taken up in this boot.
    let attachment = (same || taken_up.is_some()).then(|| Attachment::connect(&directory).ok()).flatten();
    let drive = hold(shared, run, Stage::Running { at }, deadline);
    match (attachment, taken_up) {
        (Some(attachment), _) => {
            let resources = Spec::read(&directory).map(|spec| spec.resources).unwrap_or_default();
            shared.table().queue.adopt(run, resources);
            shared.spawn(drive.reattach(attachment, at));
        }
        // One that has ended does not go on, though its end cannot be told.
        (None, Some(taken_up)) if !same && !has_ended => {
            // Nobody else touches what it was about. Where the power took this file, its task asks the journal.
            let resources = Spec::read(&directory).map(|spec| spec.resources).unwrap_or_default();
            shared.table().queue.adopt(run, resources);
            let (word, opened) = oneshot::channel();
            shared.table().cut_off.insert(run, word);
            shared.spawn(drive.take_up(opened, CutOff { at, deadline, taken_up }));
        }
        (None, _) => {
            let cause = if same { LostCause::SupervisorGone } else { LostCause::Reboot };
            drive.conclude(&directory, at, cause);
        }
    }
}

/// Whether a run's directory shows that its script may have been started, whatever the journal says: a damaged record is
/// like one that was never written. A supervisor that listens may be about to start it, and is no longer asked.
fn may_have_started(directory: &Path) -> bool {
    match End::read(directory) {
        // Its supervisor was never told to go, or could not: nothing was executed.
        Ok(Some(End::Refused(_))) => return false,
        Ok(Some(End::Finished(_))) | Err(_) => return true,
        Ok(None) => {}
    }
    let exists = |name| directory.join(name).symlink_metadata().is_ok();
    let wrote = std::fs::metadata(directory.join(spool::SPOOL)).is_ok_and(|spool| spool.len() > 0);
    let silent =
        |error: io::Error| matches!(error.kind(), ErrorKind::NotFound | ErrorKind::ConnectionRefused);
    wrote
        || exists(STARTED)
        || exists(outcome::RESULT)
        || Attachment::connect(directory).map_or_else(|error| !silent(error), |_| true)
}

fn hold(shared: &Arc<Shared>, run: RunId, stage: Stage, deadline: Timestamp) -> Drive {
    let Watched { progress, cancelled, watched: _ } = shared.hold(run, stage, 0, deadline, None);
    Drive { shared: Arc::clone(shared), run, progress, cancelled }
}

/// Directories of runs that the journal does not know. They are removed, unless someone still supervises them.
///
/// A journal that goes on under its id may have lost its last records, and the controller may send the same orders again:
/// what may have been started is known as started then. Under a new id no order comes again.
fn orphans(shared: &Arc<Shared>, contents: &Contents) -> Vec<String> {
    let goes_on = matches!(contents.recovery, Recovery::Clean | Recovery::Truncated { .. });
    let known: BTreeSet<_> = contents.runs.keys().copied().collect();
    let Ok(entries) = std::fs::read_dir(shared.host.paths.runs()) else { return Vec::new() };
    let ids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<RunId>().ok());
    let mut notices = Vec::new();
    for run in ids.filter(|run| !known.contains(run)) {
        let unknown = goes_on && !contents.forgotten.contains_key(&run);
        if unknown && may_have_started(&shared.directory(run)) {
            tracing::error!(run_id = %run, "run_not_in_the_journal");
            let (at, boot) = (clock::now(), shared.host.boot);
            let accepted = Entry::Accepted { run, order: Vec::new(), contents: Vec::new(), deadline: at };
            let started = Entry::Started { run, at, boot, resumable: false };
            drop(shared.journal.append(vec![accepted, started], at));
            take_up(shared, run, at, Begun { at, boot, taken_up: None });
        } else if Attachment::connect(&shared.directory(run)).is_ok() {
            tracing::warn!(run_id = %run, "orphan_supervisor");
            notices.push(format!(
                "run {run} is not in this host's journal, but a supervisor still runs it; its output stays in {}",
                shared.directory(run).display()
            ));
        } else {
            // Forgotten runs whose removal a crash interrupted are the usual case: not worth a notice.
            tracing::info!(run_id = %run, "orphan_removed");
            shared.remove_directory(run);
        }
    }
    notices
}
