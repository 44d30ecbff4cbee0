//! `unit show`.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use clap::Args;
use fleetward_api::work::kind::Family;
use fleetward_api::work::kind::schema;
use fleetward_api::work::query::QueryCreate;
use fleetward_protocol::name::HostName;
use serde_json::{Map, Value, json};

use super::list::{moment, tone};
use crate::app::App;
use crate::failure::{Exit, Failure};
use crate::kind;
use crate::query::{self, Items};
use crate::render::table::{Sheet, Tone};
use crate::render::time::span;
use crate::render::{Out, neutral, size, value};
use crate::start::{TARGETS, Targets};

const KIND: &str = "unit-show";

/// Show one unit: its state, files and dependencies
#[derive(Debug, Args)]
#[command(after_help = format!("\
Files are shown as they are on the disk, as far as every user of the host may read them. Without a type a service is meant.

{TARGETS}

Examples:
  fleetward unit show nginx --on web-1
  fleetward unit show backup.timer --on 'db-*'
  fleetward unit show nginx --on web-1 --properties
  fleetward unit show nginx --on web-1 --output json | jq -c 'select(.event == \"item\").data.item'"))]
pub(crate) struct Show {
    /// The unit
    unit: String,
    #[command(flatten)]
    targets: Targets,
    /// All that systemd knows of it, too: what `systemctl show` prints
    #[arg(long)]
    properties: bool,
}

/// `fleetward unit show`.
pub(super) async fn execute(command: Show, app: &App) -> Result<Exit, Failure> {
    let Show { unit, targets: Targets { on, skip_not_enrolled }, properties } = command;
    let known = kind::get(app, KIND, Family::Query).await?;
    let mut params = Map::from_iter([("unit".to_owned(), json!(unit))]);
    if !properties {
        params.insert("parts".to_owned(), json!(["about", "file", "dependency"]));
    }
    let asked = QueryCreate { kind: KIND.to_owned(), params, on, skip_not_enrolled, follow: false };
    let layout = |items: &Items, out: &Out| (sections(items, out), Vec::new());
    query::show(app, &asked, &schema::fields(&known.kind.answer), layout).await
}

/// What is shown of a unit on each host, one after the other.
pub(super) fn sections(items: &Items, out: &Out) -> String {
    let mut hosts: BTreeMap<&HostName, Vec<&Map<String, Value>>> = BTreeMap::new();
    for (host, item) in items.iter() {
        hosts.entry(host).or_default().push(item);
    }
    let each = hosts.into_iter().map(|(host, parts)| section(host, &parts, out));
    each.collect::<Vec<_>>().join("\n")
}

fn section(host: &HostName, parts: &[&Map<String, Value>], out: &Out) -> String {
    let of = |part: &str| {
        let part = part.to_owned();
        parts.iter().filter(move |item| text(item, "part") == part).copied()
    };
    let about = |name: &str| of("about").find(|item| text(item, "name") == name);
    let words =
        |name: &str| about(name).and_then(|item| item.get("value")).map(value::plain).unwrap_or_default();
    let number = |name: &str| about(name).and_then(|item| item.get("value")).and_then(Value::as_u64);
    // Writing to a string cannot fail.
    let mut shown = String::new();
    let title = [words("name"), words("description")].into_iter().filter(|word| !word.is_empty());
    let title = neutral::text(&title.collect::<Vec<_>>().join(" - "));
    let _ = writeln!(shown, "{host}: {title}");
    let mut sheet = Sheet::default();
    let both = |one: String, other: String| if other.is_empty() { one } else { format!("{one} ({other})") };
    sheet.row("  Loaded", both(words("load"), words("file")));
    sheet.toned(out, "  Active", both(words("active"), words("sub")), tone(&words("active")));
    let since = about("since").and_then(|item| moment(item, "at"));
    sheet.row("  Since", since.map(|since| out.clock.at_and_ago(since)).unwrap_or_default());
    sheet.row("  Result", words("result"));
    sheet.row("  Main process", words("main_pid"));
    sheet.row("  Memory", number("memory").map(size::bytes).unwrap_or_default());
    sheet.row("  CPU", number("cpu_ms").map(span).unwrap_or_default());
    sheet.row("  Tasks", words("tasks"));
    sheet.row("  Restarts", words("restarts"));
    sheet.row("  Status", words("status"));
    if words("needs_daemon_reload") == "yes" {
        sheet.row("  Note", "a file was changed since systemd read it; `systemctl daemon-reload` reads it");
    }
    shown.push_str(&sheet.finish());
    let mut file = None;
    for item in of("file") {
        let number = item.get("file").and_then(Value::as_u64);
        if number != file {
            file = number;
            let name = neutral::text(text(item, "name"));
            let _ = writeln!(shown, "\n{}", Tone::Dim.paint(&format!("# {name}"), out.colour));
        }
        let why = item.get("value").map(value::plain).unwrap_or_default();
        if !why.is_empty() {
            let _ = writeln!(shown, "({})", neutral::text(&why));
        }
        for line in list(item, "lines") {
            let _ = writeln!(shown, "{}", neutral::text(line));
        }
        if item.get("truncated") == Some(&Value::Bool(true)) {
            let _ = writeln!(shown, "(long lines above are cut)");
        }
    }
    let mut sheet = Sheet::default();
    let mut units: Vec<(&str, Vec<&str>)> = Vec::new();
    for item in of("dependency") {
        let name = text(item, "name");
        match units.last_mut().filter(|(last, _)| *last == name) {
            Some((_, all)) => all.extend(list(item, "units")),
            None => units.push((name, list(item, "units").collect())),
        }
    }
    for (name, units) in &units {
        sheet.row(format!("  {name}"), units.join(" "));
    }
    headed(&mut shown, "Dependencies", &sheet.finish());
    let mut sheet = Sheet::default();
    for item in of("property") {
        let at = moment(item, "at").map(|at| out.clock.at(at));
        let value = at.or_else(|| item.get("value").map(value::plain)).unwrap_or_default();
        let more = if item.get("truncated") == Some(&Value::Bool(true)) { "…" } else { "" };
        sheet.row(format!("  {}", text(item, "name")), format!("{value}{more}"));
    }
    headed(&mut shown, "Properties", &sheet.finish());
    shown
}

fn headed(shown: &mut String, heading: &str, sheet: &str) {
    if !sheet.is_empty() {
        // Writing to a string cannot fail.
        let _ = write!(shown, "\n{heading}:\n{sheet}");
    }
}

fn text<'a>(item: &'a Map<String, Value>, name: &str) -> &'a str {
    item.get(name).and_then(Value::as_str).unwrap_or_default()
}

fn list<'a>(item: &'a Map<String, Value>, name: &str) -> impl Iterator<Item = &'a str> {
    item.get(name).and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str)
}
