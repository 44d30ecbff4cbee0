//! What an earlier life of the agent left: runs that wait, run, ended, or were cut off.

use std::collections::BTreeSet;
use std::sync::Arc;

use fleetward_protocol::id::RunId;
use fleetward_protocol::run::LostCause;

use super::attach::Attachment;
use super::drive::{Drive, stage_of};
use super::outcome::End;
use super::spec::Spec;
use super::{Shared, Stage, Watched, spool};
use crate::journal::{Contents, Known, Phase};

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
            drop(shared.hold(run, stage, 0, known.deadline));
        }
        Phase::Accepted => {
            // A directory without `started` in the journal: its supervisor was never told to go.
            shared.remove_directory(run);
            let drive = hold(shared, run, Stage::Waiting, known);
            shared.spawn(drive.resume(known.deadline));
        }
        Phase::Started { at, boot } => {
            if let Ok(Some(end)) = End::read(&directory)
                && spool::vouches(&directory, &end)
            {
                let (stage, output) = stage_of(end, *at);
                drop(shared.hold(run, stage, output, known.deadline));
                return;
            }
            let attachment =
                (*boot == shared.host.boot).then(|| Attachment::connect(&directory).ok()).flatten();
            let drive = hold(shared, run, Stage::Running { at: *at }, known);
            match attachment {
                Some(attachment) => {
                    let resources = Spec::read(&directory).map(|spec| spec.resources).unwrap_or_default();
                    shared.table().queue.adopt(run, resources);
                    shared.spawn(drive.reattach(attachment, *at));
                }
                None => {
                    let same = *boot == shared.host.boot;
                    let cause = if same { LostCause::SupervisorGone } else { LostCause::Reboot };
                    drive.conclude(&directory, *at, cause);
                }
            }
        }
    }
}

fn hold(shared: &Arc<Shared>, run: RunId, stage: Stage, known: &Known) -> Drive {
    let Watched { progress, cancelled, watched: _ } = shared.hold(run, stage, 0, known.deadline);
    Drive { shared: Arc::clone(shared), run, progress, cancelled }
}

/// Directories of runs that the journal does not know. They are removed, unless someone still supervises them.
fn orphans(shared: &Shared, contents: &Contents) -> Vec<String> {
    let known: BTreeSet<_> = contents.runs.keys().copied().collect();
    let Ok(entries) = std::fs::read_dir(shared.host.paths.runs()) else { return Vec::new() };
    let ids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<RunId>().ok());
    let mut notices = Vec::new();
    for run in ids.filter(|run| !known.contains(run)) {
        if Attachment::connect(&shared.directory(run)).is_ok() {
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
