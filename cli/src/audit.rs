//! `audit`.

use clap::{Args, Subcommand};
use fleetward_api::people::audit::{AuditEvent, AuditQuery};

use crate::app::App;
use crate::failure::{Exit, Failure};
use crate::moment::{self, Moment};
use crate::render::table::{Cell, Table, Tone};
use crate::render::words;

/// How many events are shown when nothing else is asked.
const SHOWN: u32 = 50;

/// What was changed, by whom; lists it unless told otherwise
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Audit {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    list: List,
}

/// What was changed, by whom
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// List audit events, the newest first
    List(List),
}

/// List audit events, the newest first
#[derive(Debug, Args)]
#[command(after_help = format!("\
{}

Examples:
  fleetward audit
  fleetward audit list --action login. --limit 200
  fleetward audit list --subject web-1 --since yesterday
  fleetward audit list --output json > audit.json", moment::FORMS))]
pub(crate) struct List {
    /// Only events of this action, such as login.refused; with a dot at its end all that begin with it: host.
    #[arg(long)]
    action: Option<String>,
    /// Only events of this user, host:NAME or system
    #[arg(long)]
    actor: Option<String>,
    /// Only events about this host, operation or user
    #[arg(long)]
    subject: Option<String>,
    /// Only events since then: a time, a date, today, yesterday, or how long ago (2h, 1w)
    #[arg(long, value_name = "TIME")]
    since: Option<Moment>,
    /// Only events before then, said in the same ways
    #[arg(long, value_name = "TIME")]
    until: Option<Moment>,
    /// Events at most; 50 when absent, all in JSON
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..))]
    limit: Option<u32>,
}

/// `fleetward audit …`.
pub(crate) async fn execute(audit: Audit, app: &App) -> Result<Exit, Failure> {
    let list = match audit.command {
        Some(Command::List(list)) => list,
        None => audit.list,
    };
    let limit = list.limit;
    let most = app.newest(limit, SHOWN);
    let query = AuditQuery {
        action: list.action,
        actor: list.actor,
        subject: list.subject,
        from: app.resolve(list.since.as_ref())?,
        to: app.resolve(list.until.as_ref())?,
        limit: None,
        cursor: None,
    };
    let exit = app.list::<AuditEvent>("audit", &query, most, |events| {
        if events.is_empty() {
            app.out.note("No event is like that.");
            return String::new();
        }
        // Details are JSON of any length: `--output json` has them whole.
        let mut table =
            Table::new(&app.out, ["TIME", "WHO", "WHAT", "ABOUT", "FROM", "DETAILS"]).one_line_rows();
        for event in events {
            let details: Vec<String> = event
                .details
                .iter()
                .filter(|(key, _)| *key != "remote")
                .map(|(key, value)| match value.as_str() {
                    Some(text) => format!("{key}={text}"),
                    None => format!("{key}={value}"),
                })
                .collect();
            let refused = event.action.ends_with("refused") || event.action.ends_with("failed");
            table.row([
                app.out.clock.at(event.at).into(),
                event.actor.as_str().into(),
                Cell::new(&event.action).tone(if refused { Tone::Bad } else { Tone::Plain }),
                event.subject.as_deref().unwrap_or_default().into(),
                words::peer(event.remote.as_deref().unwrap_or_default()).into(),
                Cell::new(details.join(" ")).tone(Tone::Dim),
            ]);
        }
        app.note_newest(limit, SHOWN, events.len());
        table.finish()
    });
    exit.await
}
