//! `op`.

mod name;
mod report;
mod sheet;

use std::time::Instant;

use anyhow::Context as _;
use clap::{Args, Subcommand, ValueEnum};
use fleetward_api::work::operation::{Operation, OperationQuery, OperationStatus};
use fleetward_api::work::run::{OutputQuery, OutputStream, Run, RunQuery, RunState};
use fleetward_protocol::name::HostName;
use hyper::Method;
use serde_json::value::RawValue;
use std::io::Write as _;

use name::OperationName;
use sheet::sheet;

use crate::app::App;
use crate::client::{Patience, with_query};
use crate::config::Format;
use crate::failure::{Exit, Failure, output};
use crate::live::json::JsonLines;
use crate::live::screen::{Options, Screen, Times};
use crate::live::{self, Ending, Following, Interrupt, Interrupts, Until};
use crate::moment::{self, Moment};
use crate::render::table::{Cell, Table, Tone};
use crate::render::time::span;
use crate::render::{Out, neutral, size, words};

/// How many operations are listed when nothing else is asked.
const SHOWN: u32 = 50;
/// How many runs are shown where nobody says how many.
const RUNS_SHOWN: u32 = 1000;

/// Operations: list, show, logs, stop
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// List operations, the newest first
    List(List),
    /// Show where an operation and its runs stand
    Show(Show),
    /// List an operation's runs
    Runs(Show),
    /// Show what an operation's runs wrote
    Logs(Logs),
    /// Stop an operation: nothing more is started, and what runs is ended
    Stop(Stop),
}

/// List operations, the newest first
#[derive(Debug, Args)]
#[command(after_help = format!("\
{}

Examples:
  fleetward op list
  fleetward op list --status failed --since 2d
  fleetward op list --since yesterday --until today
  fleetward op list --since 2026-01-02 --until '2026-01-02 18:00'
  fleetward op list --subject baseline --host web-1
  fleetward op list --kind unit --subject nginx
  fleetward op list --output json | jq -r '.[] | select(.status == \"partial\") | .number'", moment::FORMS))]
pub(crate) struct List {
    /// Only operations in this status
    #[arg(long)]
    status: Option<StatusChoice>,
    /// Only operations with a step of this kind
    #[arg(long)]
    kind: Option<String>,
    /// Only operations with a step in whose subject this is found, such as the name of a script or of a unit
    #[arg(long, value_name = "TEXT")]
    subject: Option<String>,
    /// Only operations with a run on this host
    #[arg(long)]
    host: Option<HostName>,
    /// Only operations created since then: a time, a date, today, yesterday, or how long ago (2h, 1w)
    #[arg(long, value_name = "TIME")]
    since: Option<Moment>,
    /// Only operations created before then, said in the same ways
    #[arg(long, value_name = "TIME")]
    until: Option<Moment>,
    /// Operations at most; 50 when absent, all in JSON
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..))]
    limit: Option<u32>,
}

/// An operation and which of its runs
#[derive(Debug, Args)]
#[command(after_help = "\
In JSON, `show` is the operation with the chosen runs as its `runs`, and `runs` is the list of them. A run has what it \
reported as its `report`.

Examples:
  fleetward op show OP-17
  fleetward op show OP-17 --state failed
  fleetward op show OP-17 --output json | jq '.runs[].report'
  fleetward op runs OP-17 --output json | jq -r '.[] | select(.exit_code != 0) | .host'")]
pub(crate) struct Show {
    /// The operation: OP-17, or its id
    #[arg(value_name = "OP")]
    operation: OperationName,
    /// Only runs in this state
    #[arg(long)]
    state: Option<StateChoice>,
    /// Only runs on this host
    #[arg(long)]
    host: Option<HostName>,
    /// Runs at most; 1000 when absent, all in JSON
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..))]
    limit: Option<u32>,
}

/// Show what an operation's runs wrote
#[derive(Debug, Args)]
#[command(after_help = "\
`|` stands between a host and its standard output, `!` between it and its standard error, `+` before the rest of a \
line of which a part was shown already. Control characters from hosts are shown, not obeyed; --raw gives the bytes \
as they were written.

With --follow, ends when the operation does and exits as `fleetward run` would. Ctrl-C leaves; the operation goes on.

Examples:
  fleetward op logs OP-17
  fleetward op logs OP-17 --follow
  fleetward op logs OP-17 --host web-1 --stream stderr --timestamps
  fleetward op logs OP-17 --host web-1 --stream stdout --raw > dump.sql")]
pub(crate) struct Logs {
    /// The operation: OP-17, or its id
    #[arg(value_name = "OP")]
    operation: OperationName,
    /// Only this host
    #[arg(long)]
    host: Option<HostName>,
    /// Only this stream
    #[arg(long)]
    stream: Option<StreamChoice>,
    /// Go on until the operation has ended
    #[arg(long, short)]
    follow: bool,
    /// Show when each line was written, by the host's clock
    #[arg(long, short)]
    timestamps: bool,
    /// The bytes exactly as one host wrote them, to standard output
    #[arg(long, requires = "host", conflicts_with_all = ["follow", "timestamps"])]
    raw: bool,
}

/// Stop an operation: nothing more is started, and what runs is ended
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  fleetward op stop OP-17")]
pub(crate) struct Stop {
    /// The operation: OP-17, or its id
    #[arg(value_name = "OP")]
    operation: OperationName,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum StatusChoice {
    Queued,
    Running,
    Success,
    Failed,
    Partial,
    Stopped,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
#[value(rename_all = "snake_case")]
enum StateChoice {
    Queued,
    Dispatched,
    Accepted,
    Running,
    Succeeded,
    Failed,
    TimedOut,
    Cancelled,
    Refused,
    Expired,
    Lost,
}

/// A stream of a run's output, as it is named on the command line.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum StreamChoice {
    Stdout,
    Stderr,
}

/// `fleetward op …`.
pub(crate) async fn execute(command: Command, app: &App) -> Result<Exit, Failure> {
    match command {
        Command::List(command) => list(command, app).await,
        Command::Show(command) => show(command, app).await,
        Command::Runs(command) => {
            let path = format!("operations/{}/runs", command.operation.as_str());
            let query = run_query(&command);
            let most = app.newest(command.limit, RUNS_SHOWN);
            let list = app.list::<Run>(&path, &query, most, |runs| {
                if command.limit.is_none() && runs.len() >= RUNS_SHOWN as usize {
                    app.out.note(format_args!("The first {RUNS_SHOWN}; --limit shows more."));
                }
                table(runs, &app.out)
            });
            list.await
        }
        Command::Logs(command) if command.raw => raw(command, app).await,
        Command::Logs(command) => logs(command, app).await,
        Command::Stop(command) => stop(&command, app).await,
    }
}

/// The exit code that an operation's end deserves.
pub(crate) const fn exit_of(status: OperationStatus) -> Exit {
    match status {
        OperationStatus::Success => Exit::Success,
        OperationStatus::Stopped => Exit::Stopped,
        OperationStatus::Queued
        | OperationStatus::Running
        | OperationStatus::Failed
        | OperationStatus::Partial => Exit::Failed,
    }
}

/// What to say to a user who leaves a live view.
pub(crate) fn detached(out: &Out, operation: &str) {
    out.note(format_args!(
        "Left {operation}; it goes on.\n  follow it:  fleetward op logs {operation} --follow\n  stop it:    fleetward op stop {operation}"
    ));
}

async fn list(command: List, app: &App) -> Result<Exit, Failure> {
    let query = OperationQuery {
        status: command.status.map(|status| match status {
            StatusChoice::Queued => OperationStatus::Queued,
            StatusChoice::Running => OperationStatus::Running,
            StatusChoice::Success => OperationStatus::Success,
            StatusChoice::Failed => OperationStatus::Failed,
            StatusChoice::Partial => OperationStatus::Partial,
            StatusChoice::Stopped => OperationStatus::Stopped,
        }),
        kind: command.kind,
        subject: command.subject,
        host: command.host.map(String::from),
        from: app.resolve(command.since.as_ref())?,
        to: app.resolve(command.until.as_ref())?,
        limit: None,
        cursor: None,
    };
    let empty = query == OperationQuery::default();
    let most = app.newest(command.limit, SHOWN);
    let list = app.list::<Operation>("operations", &query, most, |operations| {
        if operations.is_empty() {
            app.out.note(match empty {
                true => {
                    "There are no operations yet. Start one with `fleetward run SCRIPT --on EXPR`, or with `fleetward do`."
                },
                false => "No operation is like that.",
            });
            return String::new();
        }
        let header = ["OP", "STATUS", "SUBJECT", "ON", "SUCCEEDED", "TOOK", "CREATED", "BY"];
        let mut table = Table::new(&app.out, header).right(4).right(5);
        for operation in operations {
            let took = operation
                .started_at
                .zip(operation.ended_at)
                .map(|(start, end)| end.timestamp().since(start.timestamp()));
            table.row([
                operation.number.as_str().into(),
                Cell::new(words::operation_status(operation.status))
                    .tone(words::operation_tone(operation.status)),
                subjects(operation).into(),
                operation.on.as_str().into(),
                succeeded(operation).into(),
                took.map(|took| span(u64::try_from(took.as_millis()).unwrap_or(u64::MAX)))
                    .unwrap_or_default()
                    .into(),
                app.out.clock.ago(operation.created_at).into(),
                operation.created_by.as_str().into(),
            ]);
        }
        app.note_newest(command.limit, SHOWN, operations.len());
        table.finish()
    });
    list.await
}

async fn show(command: Show, app: &App) -> Result<Exit, Failure> {
    let path = format!("operations/{}", command.operation.as_str());
    let answer = app.client.get(&path).await?;
    let operation: Operation = app.client.read(&answer)?;
    let (runs, query) = (format!("{path}/runs"), run_query(&command));
    if app.out.format == Format::Json {
        let whole: Box<RawValue> = app.client.read(&answer)?;
        let mut shown = Vec::new();
        let take = |run: &RawValue| {
            shown.push(run.to_owned());
            Ok(())
        };
        app.client.pages(&runs, &query, command.limit, take).await?;
        app.out.json(with_runs(&whole, &shown).as_bytes())?;
        return Ok(Exit::Success);
    }
    let mut differs = false;
    let mut shown = Vec::new();
    let take = |run: &RawValue| {
        let mut run: Run = app.client.read(run.get().as_bytes())?;
        differs |= operation.dry_run && report::leave_out_lines(&mut run);
        shown.push(run);
        Ok(())
    };
    // One more tells whether there are more.
    let most = command.limit.unwrap_or(RUNS_SHOWN + 1);
    app.client.pages(&runs, &query, Some(most), take).await?;
    let is_cut = command.limit.is_none() && shown.len() > RUNS_SHOWN as usize;
    if is_cut {
        shown.truncate(RUNS_SHOWN as usize);
    }
    app.out.print(format_args!("{}\n{}", sheet(&operation, &app.out), table(&shown, &app.out)))?;
    if is_cut {
        app.out.note(report::more_runs(&operation, command.state.is_some() || command.host.is_some()));
    }
    report::show(app, &operation, &shown, (command.limit, differs)).await?;
    Ok(Exit::Success)
}

/// An operation as the API wrote it, with its runs as `runs`.
fn with_runs(operation: &RawValue, runs: &[Box<RawValue>]) -> String {
    let runs: Vec<&str> = runs.iter().map(|run| run.get()).collect();
    // It was read as an operation: an object, and not an empty one.
    let fields = operation.get().trim_end();
    let fields = fields.strip_suffix('}').unwrap_or(fields);
    format!("{fields},\"runs\":[{}]}}", runs.join(",\n "))
}

fn table(runs: &[Run], out: &Out) -> String {
    let mut table = Table::new(out, ["HOST", "SUBJECT", "STATE", "TOOK", "OUTPUT", ""]).right(3).right(4);
    for run in runs {
        table.row([
            run.host.as_str().into(),
            run.subject.as_str().into(),
            Cell::new(words::run_in_short(run)).tone(words::run_tone(run.state)),
            run.duration_ms.map(span).unwrap_or_default().into(),
            if run.output_bytes == 0 { String::new() } else { size::bytes(run.output_bytes) }.into(),
            Cell::new(words::run_remarks(run)).tone(Tone::Dim),
        ]);
    }
    let mut text = table.finish();
    let reasons = words::run_reasons(runs);
    if !reasons.is_empty() {
        text.push('\n');
        text.push_str(&reasons);
    }
    text
}

async fn logs(command: Logs, app: &App) -> Result<Exit, Failure> {
    let begun = Instant::now();
    let path = format!("operations/{}", command.operation.as_str());
    let operation: Operation = app.client.read(&app.client.get(&path).await?)?;
    let ended = words::operation_ended(operation.status);
    let following = Following {
        operation: command.operation.as_str(),
        host: command.host.as_ref(),
        until: if command.follow || ended { Until::End } else { Until::Sequence(operation.seq) },
    };
    let interrupts = Interrupts::listen(Interrupt::Detach)?;
    let stream = command.stream.map(stream);
    if app.out.format == Format::Json {
        if stream.is_some() {
            let what = "--stream chooses what people see; in JSON each piece names its stream";
            return Err(Failure::Usage(what.to_owned()));
        }
        let ending = live::follow(app, &following, interrupts, &mut JsonLines::default()).await?;
        return Ok(if ending == Ending::Detached { Exit::Interrupted } else { Exit::Success });
    }
    // The names decide how wide the column of names is.
    let names: Vec<String> = runs_of(app, &command, |run| run.host.into()).await?;
    let times = if command.timestamps { Times::Shown } else { Times::Hidden };
    let options = Options { host: command.host.clone(), stream, times };
    let mut screen =
        Screen::new(&app.out, options, names.iter().map(String::as_str), begun).of(operation.clone());
    match live::follow(app, &following, interrupts, &mut screen).await? {
        Ending::Detached => {
            screen.leave()?;
            if !ended {
                detached(&app.out, &operation.number);
            }
            Ok(Exit::Interrupted)
        }
        Ending::Ended | Ending::CaughtUp => {
            let status = screen.operation().map_or(operation.status, |operation| operation.status);
            screen.finish()?;
            Ok(if command.follow { exit_of(status) } else { Exit::Success })
        }
    }
}

/// What `keep` makes of the runs whose output is asked for: of one at the least. Runs as they are have their reports with them.
async fn runs_of<T>(app: &App, command: &Logs, keep: impl Fn(Run) -> T) -> Result<Vec<T>, Failure> {
    let path = format!("operations/{}/runs", command.operation.as_str());
    let query = RunQuery { host: command.host.clone().map(String::from), ..RunQuery::default() };
    let mut runs = Vec::new();
    let take = |run: &RawValue| {
        runs.push(keep(app.client.read(run.get().as_bytes())?));
        Ok(())
    };
    app.client.pages(&path, &query, None, take).await?;
    match &command.host {
        Some(host) if runs.is_empty() => {
            Err(Failure::Usage(format!("{} has no run on {host}", command.operation.as_str())))
        }
        _ => Ok(runs),
    }
}

async fn raw(command: Logs, app: &App) -> Result<Exit, Failure> {
    let runs = runs_of(app, &command, |run| (run.id, run.output_dropped)).await?;
    let query = OutputQuery { stream: command.stream.map(stream) };
    for (id, dropped) in runs {
        let mut bytes = live::raw_output(app, &with_query(&format!("runs/{id}/output"), &query)?).await?;
        while let Some(bytes) = bytes.next_in_time().await {
            let bytes = bytes.context("the output broke off").map_err(Failure::Other)?;
            std::io::stdout().lock().write_all(&bytes).map_err(output)?;
        }
        if dropped > 0 {
            app.out.warn(words::dropped(dropped));
        }
    }
    std::io::stdout().lock().flush().map_err(output)?;
    Ok(Exit::Success)
}

async fn stop(command: &Stop, app: &App) -> Result<Exit, Failure> {
    let path = format!("operations/{}/stop", command.operation.as_str());
    let answer = app.client.act(Method::POST, &path, Patience::Usual).await?;
    app.show::<Operation>(&answer, |operation| {
        let number = neutral::text(&operation.number);
        app.out.note(match (words::operation_ended(operation.status), operation.status) {
            (_, OperationStatus::Stopped) => format!("{number} is stopped."),
            (true, status) => format!("{number} had ended already: {}.", words::operation_status(status)),
            (false, _) => {
                format!("{number} is being stopped: nothing more is started, and what runs is ended.")
            }
        });
        String::new()
    })
}

fn run_query(command: &Show) -> RunQuery {
    RunQuery {
        state: command.state.map(|state| match state {
            StateChoice::Queued => RunState::Queued,
            StateChoice::Dispatched => RunState::Dispatched,
            StateChoice::Accepted => RunState::Accepted,
            StateChoice::Running => RunState::Running,
            StateChoice::Succeeded => RunState::Succeeded,
            StateChoice::Failed => RunState::Failed,
            StateChoice::TimedOut => RunState::TimedOut,
            StateChoice::Cancelled => RunState::Cancelled,
            StateChoice::Refused => RunState::Refused,
            StateChoice::Expired => RunState::Expired,
            StateChoice::Lost => RunState::Lost,
        }),
        host: command.host.clone().map(String::from),
        limit: None,
        cursor: None,
    }
}

/// What its steps are about.
fn subjects(operation: &Operation) -> String {
    let subjects: Vec<&str> = operation.steps.iter().map(|step| step.subject.as_str()).collect();
    subjects.join(", ")
}

/// `28/30`: runs that succeeded, and all.
fn succeeded(operation: &Operation) -> String {
    let all: u32 = operation.counts.iter().map(|each| each.count).sum();
    let good: u32 =
        operation.counts.iter().filter(|each| each.state == RunState::Succeeded).map(|each| each.count).sum();
    format!("{good}/{all}")
}

const fn stream(choice: StreamChoice) -> OutputStream {
    match choice {
        StreamChoice::Stdout => OutputStream::Stdout,
        StreamChoice::Stderr => OutputStream::Stderr,
    }
}

#[cfg(test)]
pub(crate) mod tests;
