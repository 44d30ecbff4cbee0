//! The part of the audit that is about typed actions: what their runs report, what their unit recorded, and what is on their
//! hosts.

mod remains;

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};
use fleetward_api::work::run::RunState;

use super::{Operation, Run, Scene, Stay, span};
use crate::chaos::Chaos;
use crate::chaos::action::{Action, Object, STARTS};
use crate::chaos::boots;
use crate::chaos::diary::{Injected, Span};
use crate::chaos::fault::BRINGS_A_BOOT;
use crate::chaos::plan::Call;
use crate::chaos::remains::Deed;
use crate::chaos::table::Account;
use crate::chaos::typed::{Facts, Neighbours, SETTLES, judge, judge_starts};
use crate::chaos::verdict::{Around, Refusal};
use crate::lab::Host;

/// A run of a typed action, with what is known of it.
struct Typed<'a> {
    operation: &'a Operation,
    run: &'a Run,
    span: Span,
    facts: Facts,
}

/// Judges every run of a typed action, what their unit recorded, and what they left on their hosts.
pub(super) fn audit(
    chaos: &Chaos,
    runs: &[(&Operation, Run)],
    stays: &[Stay],
    faults: &[Injected],
    account: &mut Account,
) -> Result<()> {
    let asked = asked(chaos);
    let all: Vec<Typed<'_>> =
        runs.iter().map(|(operation, run)| read(operation, run, &asked)).collect::<Result<_>>()?;
    let mut hosts: BTreeMap<&str, (Vec<Facts>, Vec<Deed>)> = BTreeMap::new();
    for typed in &all {
        let Typed { operation, run, span, facts } = typed;
        let scene = Scene::of(chaos, operation, run, *span, faults);
        let facts = Facts { cut_off: scene.around.rebooted, ..facts.clone() };
        let around = Around { others_at_work: others_at_work(run, *span, stays), ..scene.around };
        let wrong = judge(&facts, &around, neighbours(typed, &all)).err();
        scene.account_for(wrong, account);
        *account.typed_runs.entry(facts.action.kind()).or_default() += 1;
        let Facts { action, cut_off, .. } = facts;
        let (effect, reloaded) = (facts.effect(), facts.is_reloaded());
        let deed = Deed { action, span: *span, effect, cut_off, reloaded };
        let (all, deeds) = hosts.entry(&run.host).or_default();
        all.push(facts);
        deeds.push(deed);
    }
    for host in chaos.fleet.lab.hosts() {
        let recorded = read_starts(&host.root())?;
        account.unit_starts += recorded;
        let (runs, deeds) = hosts.remove(host.name()).unwrap_or_default();
        let starts = judge_starts(recorded, &runs).err();
        let remains = remains::audit(host, &deeds)?;
        let boots = audit_boots(host, faults, &runs)?;
        let wrong = starts.into_iter().chain(boots).chain(remains);
        account.wrong.extend(wrong.map(|wrong| format!("{}: {wrong}", host.name())));
    }
    Ok(())
}

/// What operators asked for, by the reason that they gave: what a run says of itself does not say what it writes.
fn asked(chaos: &Chaos) -> BTreeMap<String, Action> {
    let ledger = chaos.ledger();
    let typed = ledger.asked.iter().filter_map(|asked| match asked.call {
        Call::Typed(action) => Some((asked.reason.clone(), action)),
        Call::Scripts(_) => None,
    });
    typed.collect()
}

fn read<'a>(operation: &'a Operation, run: &'a Run, asked: &BTreeMap<String, Action>) -> Result<Typed<'a>> {
    let action = asked
        .get(operation.reason.as_deref().unwrap_or_default())
        .copied()
        .filter(|action| action.kind() == run.kind && action.to_string() == run.subject)
        .with_context(|| format!("nobody asked for `{}` `{}`", run.kind, run.subject))?;
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

/// What other runs on the same object of the host may have left behind while this one was under way.
fn neighbours(of: &Typed<'_>, all: &[Typed<'_>]) -> Neighbours {
    let is_near = |other: &&Typed<'_>| {
        other.run.id != of.run.id
            && other.run.host == of.run.host
            && other.facts.action.object() == of.facts.action.object()
            && other.span.wider(SETTLES).meets(&of.span)
    };
    match all.iter().filter(is_near).any(|other| other.facts.leaves_work()) {
        true => Neighbours::Unsettled,
        false => Neighbours::Settled,
    }
}

/// What is wrong with how often a host was booted.
fn audit_boots(host: &Host, faults: &[Injected], runs: &[Facts]) -> Result<Option<String>> {
    let is_one = |fault: &&Injected| fault.host == host.name() && BRINGS_A_BOOT.contains(&fault.kind);
    let by_faults = faults.iter().filter(is_one).count();
    let reboots: Vec<Facts> =
        runs.iter().filter(|run| run.action.object() == Object::Host).cloned().collect();
    Ok(boots::judge(&boots::read(&host.root())?, by_faults, &reboots).err())
}

/// Whether another run was under way on the host.
fn others_at_work(run: &Run, span: Span, stays: &[Stay]) -> bool {
    let is_other = |stay: &&Stay| stay.run != run.id && stay.host == run.host;
    stays.iter().filter(is_other).any(|stay| stay.span.meets(&span))
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
