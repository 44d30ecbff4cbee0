//! The part of the audit that is about typed actions: what their runs report, and what their unit recorded.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};
use fleetward_api::work::run::RunState;

use super::{Operation, Run, Scene, span};
use crate::chaos::Chaos;
use crate::chaos::action::{Action, STARTS};
use crate::chaos::diary::{Injected, Span};
use crate::chaos::table::Account;
use crate::chaos::typed::{Facts, Neighbours, judge, judge_starts};
use crate::chaos::verdict::Refusal;

/// How long what a run that was ended from outside asked systemd for may go on or come still, in milliseconds.
const SETTLES: i64 = 10_000;

/// A run of a typed action, with what is known of it.
struct Typed<'a> {
    operation: &'a Operation,
    run: &'a Run,
    span: Span,
    facts: Facts,
}

/// Judges every run of a typed action, and what their units recorded.
pub(super) fn audit(
    chaos: &Chaos,
    runs: &[(&Operation, Run)],
    faults: &[Injected],
    account: &mut Account,
) -> Result<()> {
    let all: Vec<Typed<'_>> =
        runs.iter().map(|(operation, run)| read(operation, run)).collect::<Result<_>>()?;
    let mut hosts: BTreeMap<&str, Vec<Facts>> = BTreeMap::new();
    for typed in &all {
        let Typed { operation, run, span, facts } = typed;
        let scene = Scene::of(chaos, operation, run, *span, faults);
        let facts = Facts { cut_off: scene.around.rebooted, ..facts.clone() };
        let wrong = judge(&facts, &scene.around, neighbours(typed, &all)).err();
        scene.account_for(wrong, account);
        account.typed_runs += 1;
        hosts.entry(&run.host).or_default().push(facts);
    }
    for host in chaos.fleet.lab.hosts() {
        let recorded = read_starts(&host.root())?;
        account.unit_starts += recorded;
        let runs = hosts.get(host.name()).map_or(&[][..], Vec::as_slice);
        account
            .wrong
            .extend(judge_starts(recorded, runs).err().map(|wrong| format!("{}: {wrong}", host.name())));
    }
    Ok(())
}

fn read<'a>(operation: &'a Operation, run: &'a Run) -> Result<Typed<'a>> {
    let action = Action::of(&run.kind, &run.subject)
        .with_context(|| format!("nobody asks for `{}` `{}`", run.kind, run.subject))?;
    let detail = run.state_detail.as_deref().unwrap_or_default();
    let facts = Facts {
        action,
        state: run.state,
        refusal: (run.state == RunState::Refused).then(|| Refusal::told(detail)),
        started: run.started_at.is_some(),
        cut_off: false,
        dropped: run.output_dropped,
        report: run.report.clone(),
    };
    Ok(Typed { operation, run, span: span(run)?, facts })
}

/// What other runs on the same unit of the host may have left to systemd while this one was under way.
fn neighbours(of: &Typed<'_>, all: &[Typed<'_>]) -> Neighbours {
    let is_near = |other: &&Typed<'_>| {
        other.run.id != of.run.id
            && other.run.host == of.run.host
            && other.facts.action.unit() == of.facts.action.unit()
            && other.span.wider(SETTLES).meets(&of.span)
    };
    match all.iter().filter(is_near).any(|other| other.facts.leaves_work()) {
        true => Neighbours::Unsettled,
        false => Neighbours::Settled,
    }
}

/// How many starts the unit recorded on a host.
fn read_starts(root: &std::path::Path) -> Result<usize> {
    let file = root.join(STARTS.trim_start_matches('/'));
    match std::fs::read_to_string(&file) {
        Ok(text) => Ok(text.lines().count()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(0),
        Err(error) => Err(error).with_context(|| file.display().to_string()),
    }
}
