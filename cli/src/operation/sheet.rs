//! What `op show` says of an operation.

use fleetward_api::work::operation::{Operation, OperationStep};

use crate::render::table::Sheet;
use crate::render::{Out, value, words};

pub(super) fn sheet(operation: &Operation, out: &Out) -> String {
    let mut sheet = Sheet::default();
    let detail = operation.status_detail.as_ref().map(|text| format!(": {text}")).unwrap_or_default();
    let status = format!("{}{detail}", words::operation_status(operation.status));
    sheet.row("Operation", format!("{} ({})", operation.number, operation.id));
    sheet.toned(out, "Status", status, words::operation_tone(operation.status));
    for step in &operation.steps {
        rows(&mut sheet, step);
    }
    let left_out = match operation.left_out {
        0 => String::new(),
        hosts => format!(", {hosts} not enrolled left out"),
    };
    let hosts = words::count(operation.hosts as usize, "host");
    sheet.row("On", format!("{} ({hosts}{left_out})", operation.on));
    let rollout = words::rollout(&operation.rollout);
    sheet.row("Rollout", if rollout.is_empty() { "cannot be read".to_owned() } else { rollout });
    let counts: Vec<String> = operation
        .counts
        .iter()
        .filter(|each| each.count > 0)
        .map(|each| format!("{} {}", each.count, words::run_state(each.state)))
        .collect();
    sheet.row("Runs", counts.join(", "));
    sheet.row("By", operation.created_by.as_str());
    sheet.row("Reason", operation.reason.as_deref().unwrap_or_default());
    sheet.row("Created", out.clock.at_and_ago(operation.created_at));
    sheet.row("Started", operation.started_at.map(|time| out.clock.at(time)).unwrap_or_default());
    match operation.ended_at {
        Some(time) => sheet.row("Ended", out.clock.at(time)),
        None => sheet.row("Deadline", out.clock.at_and_ago(operation.deadline)),
    }
    sheet.finish()
}

/// A step, and below it its parameters as they may be shown.
fn rows(sheet: &mut Sheet, step: &OperationStep) {
    sheet.row("Step", format!("{} ({}, {})", step.subject, step.kind, step.digest.short()));
    for (name, value) in value::rows(&step.params) {
        sheet.row(format!("  {name}"), value);
    }
}
