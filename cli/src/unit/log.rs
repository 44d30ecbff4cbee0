//! `unit log`.

use std::fmt::Write as _;

use clap::{Args, ValueEnum};
use fleetward_api::work::query::{QueryCreate, QueryItem};
use fleetward_protocol::name::HostName;
use serde_json::{Map, Value, json};

use super::list::moment;
use crate::app::App;
use crate::failure::{Exit, Failure};
use crate::moment::{self, Moment};
use crate::query::{self, Entries, Sink};
use crate::render::table::Tone;
use crate::render::{Out, neutral};
use crate::start::{TARGETS, Targets};

const KIND: &str = "unit-log";
/// The most entries that are sorted.
const MAX_SORTED: usize = 200_000;

/// Show what units, or whole hosts, have logged
#[derive(Debug, Args)]
#[command(after_help = format!("\
The last entries that fit are shown, of several hosts by their times; with --follow then each that is written, until Ctrl-C. \
Without a unit it is the whole journal of each host. --grep takes a pattern as Perl has it (PCRE2); capitals count only if there is \
one in it.

{}

{TARGETS}

Examples:
  fleetward unit log nginx --on web-1
  fleetward unit log nginx php8.2-fpm --on 'web-*' --since 2h --priority warning
  fleetward unit log nginx --on tag:web --follow
  fleetward unit log --on web-1 --boot=-1 --lines 1000 --grep 'out of memory'
  fleetward unit log nginx --on web-1 --output json | jq -r 'select(.event == \"item\").data.item.message[]'", moment::FORMS))]
pub(crate) struct Log {
    /// Of these units; without a type a service is meant
    #[arg(value_name = "UNIT")]
    units: Vec<String>,
    #[command(flatten)]
    targets: Targets,
    /// Not older than this
    #[arg(long, value_name = "TIME")]
    since: Option<Moment>,
    /// Not newer than this
    #[arg(long, value_name = "TIME", conflicts_with = "follow")]
    until: Option<Moment>,
    /// The last so many of each host, up to 10000; 100 when absent
    #[arg(long, short = 'n', value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    lines: Option<u32>,
    /// Of this priority, or worse
    #[arg(long, short, value_name = "PRIORITY")]
    priority: Option<PriorityChoice>,
    /// With a message in which this is found
    #[arg(long, short, value_name = "PATTERN")]
    grep: Option<String>,
    /// Of this boot: 0 for the present one, -1 for the one before, and so on
    #[arg(long, short, value_name = "NUMBER", allow_negative_numbers = true, value_parser = clap::value_parser!(i32).range(-9999..=0))]
    boot: Option<i32>,
    /// Go on with what is written
    #[arg(long, short)]
    follow: bool,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum PriorityChoice {
    Emerg,
    Alert,
    Crit,
    Err,
    Warning,
    Notice,
    Info,
    Debug,
}

/// `fleetward unit log`.
pub(super) async fn execute(command: Log, app: &App) -> Result<Exit, Failure> {
    let (since, until) = (app.resolve(command.since.as_ref())?, app.resolve(command.until.as_ref())?);
    let priority = command.priority.and_then(|priority| priority.to_possible_value());
    let given = [
        ("units", (!command.units.is_empty()).then(|| json!(command.units))),
        ("since", since.map(|since| json!(since.to_string()))),
        ("until", until.map(|until| json!(until.to_string()))),
        ("lines", command.lines.map(|lines| json!(lines))),
        ("priority", priority.map(|priority| json!(priority.get_name()))),
        ("grep", command.grep.map(|pattern| json!(pattern))),
        ("boot", command.boot.map(|boot| json!(boot))),
    ];
    let params =
        given.into_iter().filter_map(|(name, value)| value.map(|value| (name.to_owned(), value))).collect();
    let Targets { on, skip_not_enrolled } = command.targets;
    // Of one host it need not be said which.
    let names = if on != "all" && on.parse::<HostName>().is_ok() { Names::Hidden } else { Names::Shown };
    let asked = QueryCreate { kind: KIND.to_owned(), params, on, skip_not_enrolled, follow: command.follow };
    let write = |host: &HostName, item: &Map<String, Value>, text: &mut String| {
        line(host, item, names, &app.out, text);
    };
    if command.follow || names == Names::Hidden {
        return query::tell(app, &asked, &mut Entries::new(&app.out, write)).await;
    }
    let mut sorted = Sorted::default();
    let exit = query::tell(app, &asked, &mut sorted).await?;
    let mut text = String::new();
    for (host, item) in sorted.finish() {
        write(&host, &item, &mut text);
    }
    app.out.print(text)?;
    Ok(exit)
}

/// Whether an entry is shown with the name of its host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Names {
    Shown,
    Hidden,
}

/// Entries of several hosts, kept until all are there.
#[derive(Debug, Default)]
pub(super) struct Sorted(Vec<(HostName, Map<String, Value>)>);

impl Sink for Sorted {
    fn item(&mut self, QueryItem { host, key: _, item }: QueryItem) -> Result<(), Failure> {
        self.0.extend(item.map(|item| (host, item)));
        if self.0.len() > MAX_SORTED {
            return Err(Failure::Usage(format!(
                "there are more than {MAX_SORTED} entries; ask fewer hosts or for fewer --lines, or read them with --output json"
            )));
        }
        Ok(())
    }
}

impl Sorted {
    /// By their times; entries of one moment as their host told them.
    pub(super) fn finish(mut self) -> Vec<(HostName, Map<String, Value>)> {
        self.0.sort_by_key(|(_, item)| item.get("time").and_then(Value::as_i64));
        self.0
    }
}

/// The lines of an entry, as journalctl(1) has them.
pub(super) fn line(host: &HostName, item: &Map<String, Value>, names: Names, out: &Out, shown: &mut String) {
    let text = |name: &str| item.get(name).and_then(Value::as_str).unwrap_or_default();
    let mut head = moment(item, "time").map(|time| out.clock.day_and_time(time)).unwrap_or_default();
    if names == Names::Shown {
        head.push(' ');
        head.push_str(host.as_str());
    }
    let who = match text("identifier") {
        "" => "?",
        identifier => identifier,
    };
    head.push(' ');
    head.push_str(&neutral::text(who));
    if let Some(pid) = item.get("pid").and_then(Value::as_u64) {
        head.push_str(&format!("[{pid}]"));
    }
    head.push_str(": ");
    let tone = match text("priority") {
        "emerg" | "alert" | "crit" | "err" => Tone::Bad,
        "warning" => Tone::Warn,
        "debug" => Tone::Dim,
        _ => Tone::Plain,
    };
    let mut lines: Vec<&str> = item
        .get("message")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    if lines.is_empty() {
        lines.push("");
    }
    let more = if item.get("truncated") == Some(&Value::Bool(true)) { "…" } else { "" };
    let last = lines.len() - 1;
    for (number, line) in lines.into_iter().enumerate() {
        // What follows stands below what is first.
        let before = match number {
            0 => head.clone(),
            _ if line.is_empty() => String::new(),
            _ => " ".repeat(console::measure_text_width(&head)),
        };
        let line = tone.paint(&neutral::text(line), out.colour);
        // Writing to a string cannot fail.
        let _ = writeln!(shown, "{before}{line}{}", if number == last { more } else { "" });
    }
}
