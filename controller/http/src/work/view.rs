//! Operations and runs as the API shows them, in words that a person understands.

use std::iter;

use fleetward_api::work::operation::{self as api, Operation, OperationStatus, OperationStep, StateCount};
use fleetward_api::work::run::{Fate, Left, Run, RunState};
use fleetward_app::App;
use fleetward_app::people::access::{Need, Permit};
use fleetward_app::work::operation::Overview;
use fleetward_app::work::run;
use fleetward_domain::people::permission::Permission;
use fleetward_domain::work::operation::{self as domain, RunCounts};
use fleetward_domain::work::run::{Custody, Failure, RunState as State, RunStatus, describe_left};
use fleetward_protocol::id::OperationId;
use fleetward_protocol::name::UserName;
use fleetward_protocol::run as wire;
use fleetward_store as store;
use fleetward_store::work::step::Step;
use serde_json::{Map, Value};

use crate::error::ApiError;
use crate::work::rollout::rollout_view;

/// An operation.
///
/// What is stored of its steps or its rollout and cannot be read (another version wrote it, or somebody else) is left out:
/// one operation must not hide all others.
///
/// # Errors
/// If the name of whoever asked is none.
pub(crate) fn operation_view(overview: &Overview) -> Result<Operation, ApiError> {
    let Overview { operation, steps, counts } = overview;
    let per_host = steps.len().max(1) as u64;
    let created_by: UserName =
        operation.created_by_name.parse().map_err(|error| ApiError::internal(&error))?;
    Ok(Operation {
        id: operation.id,
        number: format!("OP-{}", operation.number),
        steps: steps.iter().map(|step| step_view(operation.id, step)).collect(),
        on: operation.targets.clone(),
        left_out: operation.left_out,
        dry_run: operation.policy.as_ref().is_ok_and(|policy| policy.dry_run),
        rollout: operation.policy.as_ref().map(rollout_view).unwrap_or_default(),
        status: status(operation.status),
        status_detail: status_detail(operation, counts, steps.len()),
        counts: RunStatus::ALL
            .into_iter()
            .map(|status| StateCount { state: state(status), count: narrow(counts.get(status)) })
            .filter(|counted| counted.count > 0)
            .collect(),
        hosts: narrow(counts.total() / per_host),
        created_by,
        reason: operation.reason.clone(),
        created_at: operation.created_at.into(),
        started_at: operation.started_at.map(Into::into),
        ended_at: operation.ended_at.map(Into::into),
        deadline: operation.deadline.into(),
        seq: operation.seq,
    })
}

pub(crate) fn step_view(operation: OperationId, step: &Step) -> OperationStep {
    let params = serde_json::from_str(&step.params).unwrap_or_else(|error| {
        tracing::error!(%operation, %error, "operation.step_unreadable");
        Map::new()
    });
    OperationStep { kind: step.kind.clone(), subject: step.subject.clone(), digest: step.digest, params }
}

/// Why a rollout starts nothing more: the only two reasons there are.
fn halted(policy: &domain::RolloutPolicy, ended: bool) -> String {
    let canary = "a canary failed".to_owned();
    let why = match policy.max_failures {
        None => canary,
        Some(share) => {
            let failed = match share {
                domain::Share::Count(0) | domain::Share::Percent(0) => {
                    "a host failed and none may".to_owned()
                }
                domain::Share::Count(1) => "more than 1 host failed".to_owned(),
                domain::Share::Count(count) => format!("more than {count} hosts failed"),
                domain::Share::Percent(percent) => format!("more than {percent}% of the hosts failed"),
            };
            let failed = format!("{failed} (max failures {share})");
            if policy.canary > 0 { format!("{canary}, or {failed}") } else { failed }
        }
    };
    match ended {
        true => format!("ended early: {why}; nothing more was started, and what was under way went on"),
        false => format!("starts nothing more: {why}; what is under way goes on"),
    }
}

fn status_detail(
    operation: &store::work::operation::Operation,
    counts: &RunCounts,
    steps: usize,
) -> Option<String> {
    let ended = operation.status.is_final();
    let by = operation.stop_requested_by.as_deref().unwrap_or("somebody");
    let count = |status| counts.get(status);
    let under_way = count(RunStatus::Dispatched) + count(RunStatus::Accepted) + count(RunStatus::Running);
    let policy = match &operation.policy {
        Ok(policy) => policy,
        Err(error) => {
            // Whoever reads it is told; that it cannot be taken up the dispatcher has logged.
            tracing::debug!(operation = %operation.id, %error, "operation.policy_unreadable");
            return Some(unreadable(operation));
        }
    };
    match operation.status {
        _ if operation.halted_at.is_some() => Some(halted(policy, ended)),
        domain::OperationStatus::Stopped => Some(format!("stopped by {by}")),
        _ if operation.stop_requested_at.is_some() && !ended => Some(format!("being stopped by {by}")),
        _ if ended && operation.stop_requested_at.is_some() => {
            Some(format!("the stop that {by} asked for came after the end of every run"))
        }
        _ if ended => {
            let skips = policy.offline == domain::Offline::Skip;
            let cancelled = count(RunStatus::Cancelled);
            (skips && cancelled > 0).then(|| skipped(cancelled, steps))
        }
        _ if under_way == 0 => waiting(count(RunStatus::Queued)),
        _ => None,
    }
}

/// What is said of an operation whose rollout cannot be read.
fn unreadable(operation: &store::work::operation::Operation) -> String {
    let what = "what is stored of its rollout cannot be read";
    match &operation.stop_requested_by {
        _ if operation.status.is_final() => what.to_owned(),
        Some(by) => format!("being stopped by {by}; {what}"),
        None => format!(
            "{what}, so this controller starts nothing of it; stop it, or let the version that wrote it carry it out"
        ),
    }
}

/// What runs that were not sent wait for.
fn waiting(queued: u64) -> Option<String> {
    match queued {
        0 => None,
        1 => Some("1 run waits for its turn, or for its host".to_owned()),
        runs => Some(format!("{runs} runs wait for their turn, or for their hosts")),
    }
}

/// Why runs of an operation that skips hosts were never started.
fn skipped(cancelled: u64, steps: usize) -> String {
    let runs = if cancelled == 1 { "1 run was" } else { &format!("{cancelled} runs were") };
    let more = if steps > 1 { ", and no step follows one that failed" } else { "" };
    format!("{runs} cancelled: hosts that are offline are skipped{more}")
}

/// A run, with what is known of its host's connection now, as the permit's holder may see it.
pub(crate) fn run_view(app: &App, permit: &Permit<impl Need>, overview: &run::Overview) -> Run {
    let run::Overview { run, step, report } = overview;
    // Only what is one object is kept.
    let mut report: Option<Map<String, Value>> =
        report.as_deref().and_then(|report| serde_json::from_str(report).ok());
    if let Some(report) = &mut report
        && !permit.allows(run.tenant, Permission::ReadOutput)
    {
        leave_out_lines(report);
    }
    let (exit_code, signal) = match run.state {
        State::Succeeded => (Some(0), None),
        State::Failed(Failure::Exit(code)) => (Some(code), None),
        State::Failed(Failure::Signal(signal)) => (None, Some(signal)),
        _ => (None, None),
    };
    Run {
        id: run.id,
        operation: run.operation,
        host: run.host_name.clone(),
        step: run.step,
        kind: step.kind.clone(),
        subject: step.subject.clone(),
        digest: step.digest,
        state: state(run.state.status()),
        state_detail: state_detail(app, run),
        exit_code,
        signal,
        dispatched_at: run.dispatched_at.map(Into::into),
        started_at: run.started_at.map(Into::into),
        ended_at: run.ended_at.map(Into::into),
        duration_ms: run.duration_ms,
        left: run.left.map(left),
        report,
        output_bytes: run.output_bytes,
        output_dropped: run.output_lost,
        reattached: run.attached,
        seq: run.seq,
    }
}

/// Leaves out what a dry run tells of what is in files ([`Preview`]): it is output, and files hold keys and passwords.
///
/// [`Preview`]: fleetward_protocol::action::Preview
fn leave_out_lines(report: &mut Map<String, Value>) {
    let changes = report.get_mut("changes").and_then(Value::as_array_mut);
    for change in changes.into_iter().flatten().filter_map(Value::as_object_mut) {
        change.remove("diff");
    }
}

fn state_detail(app: &App, run: &store::work::run::Run) -> Option<String> {
    let is_online = app.fleet().presence(run.host).is_some();
    match &run.state {
        State::Queued if is_online => Some("waiting for its turn".to_owned()),
        State::Queued => Some("waiting for host".to_owned()),
        // Nobody but the host can tell whether it has it.
        State::Dispatched(custody) => custody_detail(
            *custody,
            is_online,
            "the host is not connected; it will say whether it has the run",
        ),
        State::Accepted(custody) => custody_detail(
            *custody,
            is_online,
            "the host is not connected; it has the run, and starts it by itself",
        ),
        State::Running(custody) => custody_detail(
            *custody,
            is_online,
            "the host is not connected; the run goes on there, and its output follows",
        ),
        State::Succeeded => run.left.as_ref().map(describe_left),
        ended => {
            let text = ended.to_string();
            // The state itself is said beside it.
            let detail = text.split_once(": ").map_or(text.as_str(), |(_, detail)| detail);
            let left = run.left.iter().map(describe_left).map(|left| format!("; {left}"));
            Some(iter::once(detail.to_owned()).chain(left).collect())
        }
    }
}

const fn left(left: wire::Left) -> Left {
    let wire::Left { processes, held_ms, fate } = left;
    let fate = match fate {
        wire::Fate::LetGo => Fate::LetGo,
        wire::Fate::Unkept => Fate::Unkept,
        wire::Fate::CutOff => Fate::CutOff,
        wire::Fate::Stopped => Fate::Stopped,
        wire::Fate::Unstoppable => Fate::Unstoppable,
    };
    Left { processes, held_ms, fate }
}

fn custody_detail(custody: Custody, is_online: bool, away: &str) -> Option<String> {
    let text = match (custody.cancel, is_online) {
        (None, true) => return None,
        (None, false) => away,
        (Some(_), true) => "being stopped",
        (Some(_), false) => "to be stopped when the host returns",
    };
    Some(text.to_owned())
}

fn narrow(count: u64) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

const fn state(status: RunStatus) -> RunState {
    match status {
        RunStatus::Queued => RunState::Queued,
        RunStatus::Dispatched => RunState::Dispatched,
        RunStatus::Accepted => RunState::Accepted,
        RunStatus::Running => RunState::Running,
        RunStatus::Succeeded => RunState::Succeeded,
        RunStatus::Failed => RunState::Failed,
        RunStatus::TimedOut => RunState::TimedOut,
        RunStatus::Cancelled => RunState::Cancelled,
        RunStatus::Refused => RunState::Refused,
        RunStatus::Expired => RunState::Expired,
        RunStatus::Lost => RunState::Lost,
    }
}

/// The other way round, for filters.
pub(crate) const fn stored_state(state: RunState) -> RunStatus {
    match state {
        RunState::Queued => RunStatus::Queued,
        RunState::Dispatched => RunStatus::Dispatched,
        RunState::Accepted => RunStatus::Accepted,
        RunState::Running => RunStatus::Running,
        RunState::Succeeded => RunStatus::Succeeded,
        RunState::Failed => RunStatus::Failed,
        RunState::TimedOut => RunStatus::TimedOut,
        RunState::Cancelled => RunStatus::Cancelled,
        RunState::Refused => RunStatus::Refused,
        RunState::Expired => RunStatus::Expired,
        RunState::Lost => RunStatus::Lost,
    }
}

const fn status(status: domain::OperationStatus) -> OperationStatus {
    match status {
        domain::OperationStatus::Queued => api::OperationStatus::Queued,
        domain::OperationStatus::Running => api::OperationStatus::Running,
        domain::OperationStatus::Success => api::OperationStatus::Success,
        domain::OperationStatus::Failed => api::OperationStatus::Failed,
        domain::OperationStatus::Partial => api::OperationStatus::Partial,
        domain::OperationStatus::Stopped => api::OperationStatus::Stopped,
    }
}

/// The other way round, for filters.
pub(crate) const fn stored_status(status: OperationStatus) -> domain::OperationStatus {
    match status {
        OperationStatus::Queued => domain::OperationStatus::Queued,
        OperationStatus::Running => domain::OperationStatus::Running,
        OperationStatus::Success => domain::OperationStatus::Success,
        OperationStatus::Failed => domain::OperationStatus::Failed,
        OperationStatus::Partial => domain::OperationStatus::Partial,
        OperationStatus::Stopped => domain::OperationStatus::Stopped,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_operation_waits_for_and_what_it_left_is_told_in_words() {
        assert_eq!(waiting(0), None);
        assert_eq!(waiting(1).unwrap(), "1 run waits for its turn, or for its host");
        assert_eq!(waiting(3).unwrap(), "3 runs wait for their turn, or for their hosts");
        assert_eq!(skipped(1, 1), "1 run was cancelled: hosts that are offline are skipped");
        let told =
            "2 runs were cancelled: hosts that are offline are skipped, and no step follows one that failed";
        assert_eq!(skipped(2, 2), told);
        let policy =
            domain::RolloutPolicy { max_failures: Some(domain::Share::Count(0)), ..Default::default() };
        let why = "a host failed and none may (max failures 0)";
        assert_eq!(halted(&policy, false), format!("starts nothing more: {why}; what is under way goes on"));
        let ended = format!("ended early: {why}; nothing more was started, and what was under way went on");
        assert_eq!(halted(&policy, true), ended);
    }
}
