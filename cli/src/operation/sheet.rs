//! What `op show` says of an operation.

use fleetward_api::operation::{Operation, OperationVariable};

use crate::render::table::Sheet;
use crate::render::{Out, words};

pub(super) fn sheet(operation: &Operation, out: &Out) -> String {
    let mut sheet = Sheet::default();
    let detail = operation.status_detail.as_ref().map(|text| format!(": {text}")).unwrap_or_default();
    let status = format!("{}{detail}", words::operation_status(operation.status));
    sheet.row("Operation", format!("{} ({})", operation.number, operation.id));
    sheet.toned(out, "Status", status, words::operation_tone(operation.status));
    for script in &operation.scripts {
        let arguments = words::typed(&script.arguments);
        sheet.row("Script", format!("{} ({}) {arguments}", script.name, script.digest.short()).trim());
        sheet.row("Runs as", script.user.as_ref().map_or("root", |user| user.as_str()));
    }
    sheet.row("Directory", operation.directory.as_deref().unwrap_or_default());
    for variable in &operation.environment {
        sheet.row("Variable", self::variable(variable));
    }
    let left_out = match operation.left_out {
        0 => String::new(),
        hosts => format!(", {hosts} not enrolled left out"),
    };
    let hosts = words::count(operation.hosts as usize, "host");
    sheet.row("On", format!("{} ({hosts}{left_out})", operation.on));
    sheet.row("Rollout", words::rollout(&operation.rollout));
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

/// A variable as it may be shown: what is not declared is marked, what may be secret is a digest.
fn variable(variable: &OperationVariable) -> String {
    let OperationVariable { name, value, digest, declared } = variable;
    let value = match (value, digest) {
        (Some(value), _) => words::typed(std::slice::from_ref(value)),
        (None, Some(digest)) => format!("(digest {})", digest.short()),
        (None, None) => String::new(),
    };
    format!("{name}={value}{}", if *declared { "" } else { " (not declared by the script)" })
}
