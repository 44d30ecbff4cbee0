//! Starting an operation: its targets are shown, somebody agrees, it is created and followed.

use std::path::PathBuf;
use std::pin::pin;
use std::time::Instant;

use clap::Args;
use fleetward_api::fleet::host::{Enrolment, Status};
use fleetward_api::work::operation::{Offline, Operation, OperationCreate};
use fleetward_api::work::target::{Target, TargetPreview, TargetPreviewRequest};
use fleetward_protocol::id::OperationId;
use hyper::Method;
use uuid::Uuid;

use crate::app::App;
use crate::config::Format;
use crate::failure::{Exit, Failure};
use crate::live::json::JsonLines;
use crate::live::screen::{Options, Screen};
use crate::live::{self, Ending, Following, Interrupt, Interrupts, Until};
use crate::operation::{detached, exit_of};
use crate::plan;
use crate::prompt;
use crate::render::table::Tone;
use crate::render::{Out, neutral, words};

/// How many host names are shown before the rest is only counted.
const NAMES_SHOWN: usize = 10;

/// Where an operation is carried out.
#[derive(Debug, Args)]
pub(crate) struct Targets {
    /// Where: a target expression, as below; `fleetward host list --on EXPR` shows what it selects
    #[arg(long, value_name = "EXPR")]
    pub(crate) on: String,
    /// Leave out hosts that are not enrolled; without it, one of them is a refusal. Offline hosts stay
    #[arg(long)]
    pub(crate) skip_not_enrolled: bool,
}

/// What help texts say of targets.
pub(crate) const TARGETS: &str = "\
Targets: names (web-1), globs (web-*, web-[1-20], web-[01-20], {web,db}-1), all, tag:prod, type:VM, status:offline, \
enrolment:pending, os:debian and other facts, combined with & (and), | (or), ! (not) and parentheses. Quote them: the \
shell knows these characters too.";

/// How this program goes about it.
#[derive(Debug, Args)]
pub(crate) struct Manner {
    /// Do not ask
    #[arg(long, short)]
    pub(crate) yes: bool,
    /// Start it and do not wait
    #[arg(long)]
    detach: bool,
    /// Ctrl-C stops the operation; a second one leaves
    #[arg(long, conflicts_with = "detach")]
    stop_on_interrupt: bool,
}

/// What is made of what is asked for.
#[derive(Debug, Args)]
pub(crate) struct Making {
    /// Write the plan to a file that is not there yet (`-`: to standard output) and start nothing; `fleetward submit`
    /// starts it
    #[arg(long, value_name = "FILE", conflicts_with_all = ["detach", "stop_on_interrupt"])]
    plan: Option<PathBuf>,
    /// The operation's id, to ask again for the same one: whatever became of the first answer, nothing is done twice
    #[arg(long, value_name = "ID")]
    id: Option<OperationId>,
}

impl Making {
    /// As [`Manner::check`], where something is started.
    ///
    /// # Errors
    /// If nobody is at a terminal, and no option says that nobody has to be asked.
    pub(crate) fn check(&self, manner: &Manner) -> Result<(), Failure> {
        if self.plan.is_some() { Ok(()) } else { manner.check() }
    }
}

impl Manner {
    /// Whether the targets are shown to somebody.
    pub(crate) fn shows(&self, out: &Out) -> bool {
        out.format == Format::Table || !self.yes
    }

    /// Refuses what would end with a question to nobody.
    ///
    /// # Errors
    /// If nobody is at a terminal, and no option says that nobody has to be asked.
    pub(crate) fn check(&self) -> Result<(), Failure> {
        if self.yes || prompt::is_possible() {
            return Ok(());
        }
        Err(Failure::Usage(
            "nobody is at a terminal to agree to the targets; pass --yes to run without asking".to_owned(),
        ))
    }
}

/// Asks for the targets of an operation, and shows them with what it does: `what`, or the steps' subjects, which the
/// controller tells. Parameters are never shown here: only their kind knows which of them are secret.
///
/// # Errors
/// If the controller would not take it.
pub(crate) async fn preview(
    app: &App,
    asked: &OperationCreate,
    what: Option<&str>,
    manner: &Manner,
) -> Result<TargetPreview, Failure> {
    let body = TargetPreviewRequest {
        on: asked.on.clone(),
        steps: asked.steps.clone(),
        scripts: asked.scripts.clone(),
        environment: asked.environment.clone(),
        directory: asked.directory.clone(),
        user: asked.user.clone(),
    };
    let answer = app.client.send(Method::POST, "targets/preview", &body).await?;
    let preview: TargetPreview = app.client.read(&answer)?;
    if manner.shows(&app.out) {
        show(asked, what, &preview, &app.out);
    }
    Ok(preview)
}

/// Asks whether to go ahead, creates the operation and follows it to its end; or writes its plan.
///
/// # Errors
/// If the answer is no, or the controller's; and if it stays away.
pub(crate) async fn carry_out(
    app: &App,
    mut asked: OperationCreate,
    preview: TargetPreview,
    (manner, making): (&Manner, &Making),
    begun: Instant,
) -> Result<Exit, Failure> {
    // With its id it can be sent again, whatever became of the first answer.
    let id = making.id.unwrap_or_else(|| OperationId::from_uuid(Uuid::now_v7()));
    asked.id = Some(id);
    if let Some(file) = &making.plan {
        return plan::write(app, &asked, file).await;
    }
    if !manner.yes && !asked.dry_run {
        prompt::confirm("Run it?")?;
    }
    let hosts = preview.hosts.into_iter().map(|target| target.name.into()).collect();
    create(app, &asked, hosts, &format!("The same command with `--id {id}`"), manner, begun).await
}

/// Creates the operation and follows it to its end; `again` is what asks for the same one again.
///
/// # Errors
/// The controller's; and if it stays away.
pub(crate) async fn create(
    app: &App,
    asked: &OperationCreate,
    hosts: Vec<String>,
    again: &str,
    manner: &Manner,
    begun: Instant,
) -> Result<Exit, Failure> {
    let interrupt = if manner.stop_on_interrupt { Interrupt::Stop } else { Interrupt::Detach };
    // From before it is asked for: what is asked for may be taken, and then it is to be stopped.
    let mut interrupts = Interrupts::listen(interrupt)?;
    let perhaps =
        || app.out.warn(format_args!("Perhaps it was started. {again} asks again for the same operation."));
    let mut made = pin!(app.client.make("operations", asked));
    let answer = loop {
        tokio::select! {
            answer = &mut made => break answer.inspect_err(|failure| {
                if failure.is_passing() {
                    perhaps();
                }
            })?,
            () = interrupts.recv() => {
                if interrupts.leaves() {
                    perhaps();
                    return Ok(Exit::Interrupted);
                }
                app.out.warn("It is stopped as soon as it is there; press Ctrl-C again to leave.");
            }
        }
    };
    let operation: Operation = app.client.read(&answer)?;
    if manner.detach {
        return app.show::<Operation>(&answer, |operation| {
            app.out.note(format_args!("Follow it with `fleetward op logs {} --follow`.", operation.number));
            format!("{}\n", neutral::text(&operation.number))
        });
    }
    let following = Following { operation: &operation.id.to_string(), host: None, until: Until::End };
    match app.out.format {
        Format::Json => follow_json(app, &following, interrupts, &operation).await,
        Format::Table => {
            let names = hosts.iter().map(String::as_str);
            let mut screen = Screen::new(&app.out, Options::default(), names, begun).of(operation.clone());
            let ending = live::follow(app, &following, interrupts, &mut screen).await?;
            let status = screen.operation().map_or(operation.status, |operation| operation.status);
            if ending == Ending::Detached {
                screen.leave()?;
                detached(&app.out, &operation.number);
                return Ok(Exit::Interrupted);
            }
            screen.finish()?;
            Ok(exit_of(status))
        }
    }
}

async fn follow_json(
    app: &App,
    following: &Following<'_>,
    interrupts: Interrupts,
    operation: &Operation,
) -> Result<Exit, Failure> {
    let mut lines = JsonLines::default();
    if live::follow(app, following, interrupts, &mut lines).await? == Ending::Detached {
        detached(&app.out, &operation.number);
        return Ok(Exit::Interrupted);
    }
    let end: Option<Operation> = lines.end.map(|data| app.client.read(data.as_bytes())).transpose()?;
    Ok(exit_of(end.map_or(operation.status, |operation| operation.status)))
}

/// What is done, and where.
pub(crate) fn heading(asked: &OperationCreate, what: Option<&str>, preview: &TargetPreview) -> String {
    let dry_run = if asked.dry_run { "dry run: " } else { "" };
    format!(
        "{dry_run}{} on {}: {}",
        what.map_or_else(|| subjects(asked, preview), neutral::text),
        words::count(preview.hosts.len(), "host"),
        names(&preview.hosts.iter().collect::<Vec<_>>())
    )
}

fn show(asked: &OperationCreate, what: Option<&str>, preview: &TargetPreview, out: &Out) {
    out.note(heading(asked, what, preview));
    let rollout = words::rollout(&asked.rollout);
    if !rollout.is_empty() {
        out.note(format_args!("  {rollout}"));
    }
    let offline: Vec<&Target> = preview
        .hosts
        .iter()
        .filter(|target| target.status == Status::Offline && target.enrolment == Enrolment::Enrolled)
        .collect();
    if !offline.is_empty() {
        let fate = match asked.rollout.offline {
            Some(Offline::Skip) => "left out",
            _ => "waited for",
        };
        let text = format!("  {} offline ({fate}): {}", offline.len(), names(&offline));
        out.note(Tone::Warn.paint(&text, out.colour_notes));
    }
    let barred: Vec<&Target> =
        preview.hosts.iter().filter(|target| target.enrolment != Enrolment::Enrolled).collect();
    if !barred.is_empty() {
        let (fate, tone) = match asked.skip_not_enrolled {
            true => ("left out", Tone::Warn),
            false => ("--skip-not-enrolled leaves them out", Tone::Bad),
        };
        let text = format!("  {} not enrolled ({fate}): {}", barred.len(), names(&barred));
        out.note(tone.paint(&text, out.colour_notes));
    }
}

/// What the steps are about; the kinds alone where a controller tells no more.
fn subjects(asked: &OperationCreate, preview: &TargetPreview) -> String {
    let kinds = || asked.steps.iter().map(|step| step.kind.as_str()).collect();
    let subjects: Vec<&str> = match preview.subjects.is_empty() {
        true => kinds(),
        false => preview.subjects.iter().map(String::as_str).collect(),
    };
    neutral::text(&subjects.join(", "))
}

fn names(targets: &[&Target]) -> String {
    let shown: Vec<&str> = targets.iter().take(NAMES_SHOWN).map(|target| target.name.as_str()).collect();
    match targets.len().saturating_sub(NAMES_SHOWN) {
        0 => shown.join(" "),
        more => format!("{} and {more} more", shown.join(" ")),
    }
}

#[cfg(test)]
mod tests;
