//! `unit list` and `unit failed`.

use clap::Args;
use fleetward_api::time::Time;
use fleetward_api::work::kind::Family;
use fleetward_api::work::kind::schema;
use fleetward_api::work::query::QueryCreate;
use fleetward_protocol::time::Timestamp;
use serde_json::{Map, Value, json};

use crate::app::App;
use crate::config::Format;
use crate::failure::{Exit, Failure};
use crate::kind;
use crate::query::{self, Changes, Items};
use crate::render::table::{Cell, Tone, WideTable};
use crate::render::time::span;
use crate::render::{Out, neutral, size};
use crate::start::{TARGETS, Targets};

const KIND: &str = "units";

/// List units with their states and what they use
#[derive(Debug, Args)]
#[command(after_help = format!("\
A pattern has `*` for any characters and `?` for one; its type may be left out, and services are meant then. Units that run, \
failed, or are wanted by others are listed; `fleetward unit show` also shows one that is a file only.

{TARGETS}

Examples:
  fleetward unit list --on web-1
  fleetward unit list 'nginx*' --on 'web-*'
  fleetward unit list --type timer --type socket --state active --on all
  fleetward unit list nginx --on tag:web --follow
  fleetward unit list --on all --output json | jq -c 'select(.event == \"item\").data'"))]
pub(crate) struct List {
    /// Only units with such a name
    #[arg(value_name = "PATTERN")]
    pattern: Option<String>,
    /// Only units of this type; services when absent
    #[arg(long = "type", value_name = "TYPE")]
    types: Vec<String>,
    /// Only units in this state: active, inactive, failed, activating, …
    #[arg(long = "state", value_name = "STATE")]
    states: Vec<String>,
    #[command(flatten)]
    targets: Targets,
    /// Go on to tell what changes
    #[arg(long, short)]
    follow: bool,
}

/// List the units that have failed
#[derive(Debug, Args)]
#[command(after_help = format!("\
Units of every type are meant.

{TARGETS}

Examples:
  fleetward unit failed --on all --skip-not-enrolled
  fleetward unit failed --on tag:web --follow"))]
pub(crate) struct Failed {
    #[command(flatten)]
    targets: Targets,
    /// Go on to tell what changes
    #[arg(long, short)]
    follow: bool,
}

/// The types that can fail: those of which `systemctl --state=help` knows a state `failed`. Targets, slices and devices have none.
const FAILING: [&str; 8] = ["service", "socket", "mount", "automount", "swap", "timer", "path", "scope"];

/// `fleetward unit list`.
pub(super) async fn list(command: List, app: &App) -> Result<Exit, Failure> {
    let List { pattern, types, states, targets, follow } = command;
    let mut params = Map::new();
    params.extend(pattern.map(|pattern| ("pattern".to_owned(), json!(pattern))));
    params.extend((!types.is_empty()).then(|| ("types".to_owned(), json!(types))));
    params.extend((!states.is_empty()).then(|| ("states".to_owned(), json!(states))));
    ask(params, targets, follow, app).await
}

/// `fleetward unit failed`.
pub(super) async fn failed(command: Failed, app: &App) -> Result<Exit, Failure> {
    let params = json!({ "types": FAILING, "states": ["failed"] });
    let params = params.as_object().cloned().unwrap_or_default();
    ask(params, command.targets, command.follow, app).await
}

async fn ask(params: Map<String, Value>, targets: Targets, follow: bool, app: &App) -> Result<Exit, Failure> {
    let known = kind::get(app, KIND, Family::Query).await?;
    let Targets { on, skip_not_enrolled } = targets;
    let is_named = params.contains_key("pattern");
    let asked = QueryCreate { kind: KIND.to_owned(), params, on, skip_not_enrolled, follow };
    let fields = schema::fields(&known.kind.answer);
    if follow && app.out.format == Format::Table {
        return query::tell(app, &asked, &mut Changes::new(&app.out, &fields).with(line)).await;
    }
    let mut is_empty = false;
    let layout = |items: &Items, out: &Out| {
        is_empty = items.is_empty();
        table(items, out)
    };
    let exit = query::show(app, &asked, &fields, layout).await?;
    if is_empty && is_named && app.out.format == Format::Table {
        app.out.note(
            "Only units that systemd has loaded are listed; `fleetward unit show NAME` also shows one that is a file only.",
        );
    }
    Ok(exit)
}

/// What is told of a unit that is followed: first what it is, then what has changed. What it uses changes all the time.
pub(super) fn line(
    before: Option<&Map<String, Value>>,
    item: &Map<String, Value>,
    out: &Out,
) -> Option<String> {
    let text = |item: &Map<String, Value>, name: &str| {
        item.get(name).and_then(Value::as_str).unwrap_or_default().to_owned()
    };
    let state = |item: &Map<String, Value>| match (active(item), text(item, "sub")) {
        (active, sub) if sub.is_empty() || active.starts_with(&sub) => active,
        (active, sub) => format!("{active}, {sub}"),
    };
    let restarts = |item: &Map<String, Value>| item.get("restarts").and_then(Value::as_u64).unwrap_or(0);
    let boot = |item: &Map<String, Value>| text(item, "file");
    let painted = |item: &Map<String, Value>| {
        tone(&text(item, "active")).paint(&neutral::text(&state(item)), out.colour)
    };
    let Some(before) = before else {
        let description = text(item, "description");
        let description = if description.is_empty() { description } else { format!("  {description}") };
        let description = Tone::Dim.paint(&neutral::text(&description), out.colour);
        return Some(format!("{}{description}", painted(item)));
    };
    let mut told = Vec::new();
    if state(before) != state(item) {
        told.push(format!("{} (was {})", painted(item), neutral::text(&state(before))));
    } else if item.get("since") != before.get("since") {
        told.push(format!("{} once more", painted(item)));
    }
    if restarts(item) > restarts(before) {
        told.push(format!("restarted by systemd, {} in all", restarts(item)));
    }
    if boot(before) != boot(item) {
        told.push(neutral::text(&format!("at boot: {} (was {})", boot(item), boot(before))));
    }
    (!told.is_empty()).then(|| told.join("; "))
}

/// A row for each unit.
pub(super) fn table(items: &Items, out: &Out) -> (String, Vec<String>) {
    if items.is_empty() {
        return (String::new(), Vec::new());
    }
    let titles = [
        "HOST",
        "UNIT",
        "ACTIVE",
        "SUB",
        "MEMORY",
        "CPU",
        "TASKS",
        "RESTARTS",
        "SINCE",
        "BOOT",
        "DESCRIPTION",
    ];
    let mut table = WideTable::new(out, titles.map(str::to_owned));
    for (host, item) in items.iter() {
        let text = |name: &str| item.get(name).and_then(Value::as_str).unwrap_or_default();
        let number = |name: &str| item.get(name).and_then(Value::as_u64);
        let plain = |number: Option<u64>| number.map(|number| number.to_string()).unwrap_or_default();
        table.push([
            Cell::new(host.as_str()),
            Cell::new(text("name")),
            Cell::new(active(item)).tone(tone(text("active"))),
            Cell::new(text("sub")),
            Cell::new(number("memory").map(size::bytes).unwrap_or_default()),
            Cell::new(number("cpu_ms").map(span).unwrap_or_default()),
            Cell::new(plain(number("tasks"))),
            Cell::new(plain(number("restarts").filter(|restarts| *restarts > 0))),
            Cell::new(moment(item, "since").map(|since| out.clock.ago(since)).unwrap_or_default()),
            Cell::new(text("file")),
            Cell::new(text("description")).tone(Tone::Dim),
        ]);
    }
    table.finish()
}

/// The active state; of what cannot be loaded also why.
fn active(item: &Map<String, Value>) -> String {
    let text = |name: &str| item.get(name).and_then(Value::as_str).unwrap_or_default();
    match (text("load"), text("result")) {
        ("loaded" | "", "success" | "") => text("active").to_owned(),
        ("loaded" | "", result) if text("active") == "failed" => format!("failed ({result})"),
        ("loaded" | "", _) => text("active").to_owned(),
        (load, _) => format!("{} ({load})", text("active")),
    }
}

/// A field that is a time.
pub(super) fn moment(item: &Map<String, Value>, name: &str) -> Option<Time> {
    item.get(name)?.as_i64().map(|millis| Timestamp::from_millis(millis).into())
}

/// What a state says.
pub(super) fn tone(active: &str) -> Tone {
    match active {
        "active" => Tone::Good,
        "failed" => Tone::Bad,
        "inactive" => Tone::Dim,
        _ => Tone::Warn,
    }
}
