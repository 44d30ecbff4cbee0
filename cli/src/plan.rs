//! Plans: `--plan` of the commands that start something, and `submit`.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::fs::OpenOptions;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Instant;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use clap::Args;
use fleetward_api::error::code;
use fleetward_api::work::operation::{Operation, OperationCreate, OperationStep};
use fleetward_api::work::plan::Plan;
use fleetward_protocol::client_id::ClientId;
use fleetward_protocol::digest::Digest;
use fleetward_protocol::name::HostName;
use fleetward_protocol::order::{self, Draft, Planned, Target};
use fleetward_protocol::text::List;
use hyper::Method;

use crate::app::App;
use crate::failure::{Exit, Failure};
use crate::input;
use crate::prompt;
use crate::render::table::Sheet;
use crate::render::{Out, neutral, words};
use crate::start::{self, Manner};

/// The largest plan that is read, in bytes: one of 200,000 hosts is smaller.
const MAX_PLAN: usize = 64 << 20;
/// How many host names are shown before the rest is only counted.
const NAMES_SHOWN: usize = 10;

/// Start exactly what was planned, and follow it live
#[derive(Debug, Args)]
#[command(after_help = "\
A plan is what `fleetward run` or `fleetward do` would start, written to a file by `--plan FILE`. Its digest covers the \
operation, who asked, the times, the rollout, and every host with every step. Submitting it starts exactly that: if \
hosts, scripts or settings have changed since, it is refused. Who made the plan submits it, once, within a day.

What is shown before it starts is what the controller says of the plan's request now. If the file says otherwise, such as \
another host name or another subject of a step, nothing is started, and the difference is named.

Exits as `fleetward run` does.

Examples:
  fleetward run patch --on tag:web --plan patch.json
  fleetward submit patch.json
  fleetward submit patch.json --yes --detach")]
pub(crate) struct Submit {
    /// The plan; `-` reads standard input
    #[arg(value_name = "FILE")]
    file: PathBuf,
    #[command(flatten)]
    manner: Manner,
}

/// `fleetward submit`.
pub(crate) async fn submit(command: Submit, app: &App) -> Result<Exit, Failure> {
    command.manner.check()?;
    let begun = Instant::now();
    let name = command.file.display().to_string();
    let plan = parse(&name, &input::read(&command.file, MAX_PLAN)?)?;
    let hosts = plan.hosts.iter().map(|host| host.name.as_str().to_owned()).collect();
    let again = format!("`fleetward submit {name}`");
    let started = find_started(app, &plan).await?.map(|operation| neutral::text(&operation.number));
    if let Some(number) = &started {
        app.out.note(format_args!("{number} was started from this plan before; nothing more is started."));
    } else {
        let shown = compared(&name, plan.clone(), planned_now(app, &plan).await?)?;
        if command.manner.shows(&app.out) {
            app.out.note(sheet(&shown, &app.out).trim_end());
        }
        if !command.manner.yes {
            prompt::confirm("Run it?")?;
        }
    }
    let followed = start::create(app, &plan.operation, hosts, &again, &command.manner, begun).await;
    match (followed, started) {
        (Err(Failure::Refused { body, .. }), Some(number)) if body.code == code::ID_TAKEN => {
            Err(Failure::Usage(format!(
                "{name} is not what {number} was started from: the file was changed since, or it was somebody else's. \
                 `fleetward op show {number}` shows that operation; make a new plan for a new request"
            )))
        }
        (followed, _) => followed,
    }
}

/// The plan's operation, if it is there already: then nothing more is started, whatever has changed since.
async fn find_started(app: &App, plan: &Plan) -> Result<Option<Operation>, Failure> {
    let Some(id) = plan.operation.id else { return Ok(None) };
    match app.client.get(&format!("operations/{id}")).await {
        Ok(answer) => app.client.read(&answer).map(Some),
        Err(Failure::Refused { status: 404, .. }) => Ok(None),
        Err(failure) => Err(failure),
    }
}

/// What the controller makes now of the request in a plan.
async fn planned_now(app: &App, plan: &Plan) -> Result<Plan, Failure> {
    let asked = OperationCreate { plan: None, ..plan.operation.clone() };
    let answer = app.client.send(Method::POST, "plans", &asked).await?;
    app.client.read(&answer)
}

/// The plan as the controller makes it now, with the file's times, if the file says the same.
///
/// A plan's bytes cover client IDs and digests. What a person reads is names and subjects: they are taken from the
/// controller, never from the file.
fn compared(name: &str, file: Plan, now: Plan) -> Result<Plan, Failure> {
    match difference(&file, &now) {
        None => Ok(Plan { not_before: file.not_before, deadline: file.deadline, digest: file.digest, ..now }),
        Some(difference) => Err(Failure::Usage(format!(
            "{name} is not what the controller would start now: {}; nothing was started. Hosts, scripts, groups or settings have \
             changed since it was made, or the file has; make a new plan",
            neutral::text(&difference)
        ))),
    }
}

/// The first thing that a plan says otherwise than the one that the controller makes now.
fn difference(file: &Plan, now: &Plan) -> Option<String> {
    let differ = |what: &str, file: &dyn Display, now: &dyn Display| {
        Some(format!("the file says {what} {file}, the controller {now}"))
    };
    for (at, (old, new)) in (1..).zip(file.steps.iter().zip(&now.steps)) {
        let (old_step, new_step) = (&old.step, &new.step);
        if (&old_step.kind, &old_step.subject) != (&new_step.kind, &new_step.subject) {
            let said = |step: &OperationStep| format!("`{}` ({})", step.subject, step.kind);
            return differ(&format!("step {at} is"), &said(old_step), &said(new_step));
        }
        if old != new {
            return Some(format!("step {at}, `{}`, has other parameters or contents", new_step.subject));
        }
    }
    if file.steps.len() != now.steps.len() {
        return differ("the number of steps is", &file.steps.len(), &now.steps.len());
    }
    let clients = |plan: &Plan| -> BTreeMap<ClientId, HostName> {
        plan.hosts.iter().map(|host| (host.client_id.clone(), host.name.clone())).collect()
    };
    let (then, today) = (clients(file), clients(now));
    for (client, old) in &then {
        match today.get(client) {
            Some(new) if new == old => {}
            Some(new) => return differ(&format!("the host {client} is"), old, new),
            None => return Some(format!("the host {old} ({client}) is only in the file")),
        }
    }
    if let Some((client, name)) = today.iter().find(|(client, _)| !then.contains_key(*client)) {
        return Some(format!("the host {name} ({client}) is not in the file"));
    }
    if file.hosts != now.hosts {
        return Some("the list of hosts is another".to_owned());
    }
    if file.left_out != now.left_out {
        return differ("the number of hosts that are left out is", &file.left_out, &now.left_out);
    }
    let (Ok((_, old)), Ok((_, new))) = (head(file), head(now)) else {
        return Some("one of the plans cannot be read".to_owned());
    };
    if old.issuer != new.issuer {
        return differ("the plan was made by", &old.issuer, &new.issuer);
    }
    (old.policy != new.policy).then(|| "the rollout is another".to_owned())
}

/// Plans an operation and writes the plan to a file; nothing is started.
///
/// # Errors
/// If the controller would not take it, or the file is there already or cannot be written.
pub(crate) async fn write(app: &App, asked: &OperationCreate, file: &Path) -> Result<Exit, Failure> {
    let answer = app.client.send(Method::POST, "plans", asked).await?;
    let plan: Plan = app.client.read(&answer)?;
    if file == Path::new("-") {
        app.out.json(&answer)?;
        return Ok(Exit::Success);
    }
    let name = file.display();
    // It holds what was asked for, secrets among it. What is there is kept: it may be the plan that somebody agreed to.
    let made = OpenOptions::new().write(true).create_new(true).mode(0o600).open(file);
    let mut made = made.map_err(|error| match error.kind() {
        io::ErrorKind::AlreadyExists => {
            Failure::Usage(format!("{name} exists already; name another file, or remove it"))
        }
        _ => Failure::Usage(format!("cannot write {name}: {error}")),
    })?;
    if let Err(error) = made.write_all(&answer).and_then(|()| made.sync_all()) {
        // Half a plan is none. If it cannot be removed either, the first error is the one to tell.
        let _ = std::fs::remove_file(file);
        return Err(Failure::Other(anyhow::Error::new(error).context(format!("cannot write {name}"))));
    }
    app.out.print(sheet(&plan, &app.out))?;
    app.out.note(format_args!("Start it with `fleetward submit {name}`; nothing has been started."));
    Ok(Exit::Success)
}

/// The plan in a file, if what it shows is what its bytes say.
fn parse(name: &str, bytes: &[u8]) -> Result<Plan, Failure> {
    let odd = |why: &str| {
        Failure::Usage(format!(
            "{name} is no plan: {why}; make one with `fleetward run SCRIPT --on EXPR --plan FILE`"
        ))
    };
    let plan: Plan = serde_json::from_slice(bytes).map_err(|error| odd(&error.to_string()))?;
    let (bytes, head) = head(&plan).map_err(|why| odd(&why))?;
    if !says(&plan, &head, &bytes) {
        return Err(odd("the hosts, steps or times that it shows are not those that it would start"));
    }
    Ok(plan)
}

/// A plan's bytes, and what they say.
fn head(plan: &Plan) -> Result<(Vec<u8>, order::Plan), String> {
    let text = plan.operation.plan.as_deref().ok_or("its request has no `plan`")?;
    let bytes = STANDARD.decode(text).map_err(|error| format!("its `plan` is no Base64 ({error})"))?;
    let head = order::Plan::decode(&bytes).map_err(|error| error.to_string())?;
    Ok((bytes, head))
}

/// Whether a plan's bytes say what is shown of it.
fn says(plan: &Plan, head: &order::Plan, bytes: &[u8]) -> bool {
    let steps: List<Digest, { order::MAX_STEPS }> = List::of(plan.steps.iter().map(|step| step.order_digest));
    let target = |client: &ClientId| Target { client: client.clone(), steps: steps.clone() };
    let targets: Vec<Target> = plan.hosts.iter().map(|host| target(&host.client_id)).collect();
    let draft = Draft {
        operation: head.operation,
        issuer: head.issuer.clone(),
        not_before: plan.not_before.timestamp(),
        deadline: plan.deadline.timestamp(),
        policy: head.policy,
    };
    plan.digest == Digest::of(bytes)
        && plan.operation.id == Some(head.operation)
        && Planned::new(draft, &targets).is_ok_and(|again| again.plan == bytes)
}

fn sheet(plan: &Plan, out: &Out) -> String {
    let mut sheet = Sheet::default();
    sheet.row("Plan", plan.digest.to_string());
    for step in &plan.steps {
        sheet.row(
            "Step",
            format!("{} ({}, {})", step.step.subject, step.step.kind, step.order_digest.short()),
        );
    }
    let names: Vec<&str> = plan.hosts.iter().take(NAMES_SHOWN).map(|host| host.name.as_str()).collect();
    let more = match plan.hosts.len().saturating_sub(NAMES_SHOWN) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    let left_out = match plan.left_out {
        0 => String::new(),
        hosts => format!(", {hosts} not enrolled left out"),
    };
    let count = words::count(plan.hosts.len(), "host");
    sheet.row("On", format!("{} ({count}{left_out}): {}{more}", plan.operation.on, names.join(" ")));
    sheet.row("Rollout", words::rollout(&plan.operation.rollout));
    sheet.row("Reason", plan.operation.reason.as_deref().unwrap_or_default());
    sheet.row("From", out.clock.at(plan.not_before));
    sheet.row("Deadline", out.clock.at_and_ago(plan.deadline));
    sheet.finish()
}

#[cfg(test)]
mod tests;
