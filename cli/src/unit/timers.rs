//! `unit timers`.

use clap::Args;
use fleetward_api::work::kind::Family;
use fleetward_api::work::kind::schema;
use fleetward_api::work::query::QueryCreate;
use serde_json::{Map, Value, json};

use super::list::{moment, tone};
use crate::app::App;
use crate::failure::{Exit, Failure};
use crate::kind;
use crate::query::{self, Items};
use crate::render::Out;
use crate::render::table::{Cell, Tone, WideTable};
use crate::start::{TARGETS, Targets};

const KIND: &str = "timers";

/// List timers: when they were due, when they will be, and what they start
#[derive(Debug, Args)]
#[command(after_help = format!("\
{TARGETS}

Examples:
  fleetward unit timers --on all
  fleetward unit timers 'backup*' --on tag:db"))]
pub(crate) struct Timers {
    /// Only timers with such a name: `*` stands for any characters, `?` for one
    #[arg(value_name = "PATTERN")]
    pattern: Option<String>,
    #[command(flatten)]
    targets: Targets,
}

/// `fleetward unit timers`.
pub(super) async fn execute(command: Timers, app: &App) -> Result<Exit, Failure> {
    let known = kind::get(app, KIND, Family::Query).await?;
    let Targets { on, skip_not_enrolled } = command.targets;
    let params: Map<String, Value> =
        command.pattern.into_iter().map(|pattern| ("pattern".to_owned(), json!(pattern))).collect();
    let asked = QueryCreate { kind: KIND.to_owned(), params, on, skip_not_enrolled, follow: false };
    query::show(app, &asked, &schema::fields(&known.kind.answer), table).await
}

pub(super) fn table(items: &Items, out: &Out) -> (String, Vec<String>) {
    if items.is_empty() {
        return (String::new(), Vec::new());
    }
    let titles = ["HOST", "TIMER", "ACTIVE", "NEXT", "LAST", "STARTS", "RESULT", "BOOT", "DESCRIPTION"];
    let mut table = WideTable::new(out, titles.map(str::to_owned));
    for (host, item) in items.iter() {
        let text = |name: &str| item.get(name).and_then(Value::as_str).unwrap_or_default();
        let ago = |name: &str| moment(item, name).map(|at| out.clock.ago(at)).unwrap_or_default();
        let result = match (text("starts_active"), text("result")) {
            ("active" | "activating", _) => Cell::new("running").tone(Tone::Warn),
            (_, "success") => Cell::new("success").tone(Tone::Good),
            (_, result) => Cell::new(result).tone(Tone::Bad),
        };
        table.push([
            Cell::new(host.as_str()),
            Cell::new(text("name")),
            Cell::new(text("active")).tone(tone(text("active"))),
            Cell::new(ago("next")),
            Cell::new(ago("last")),
            Cell::new(text("starts")),
            result,
            Cell::new(text("file")),
            Cell::new(text("description")).tone(Tone::Dim),
        ]);
    }
    table.finish()
}
