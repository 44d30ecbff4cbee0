//! `ask`.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::io;
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use fleetward_api::work::kind::{Family, Kind};
use fleetward_api::work::query::{QueryCreate, QueryEnd, QueryHost, QueryItem, QueryState};
use fleetward_protocol::name::HostName;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use tokio::signal::unix::{SignalKind, signal};

use crate::app::App;
use crate::client::sse::{Parser, ServerEvent};
use crate::config::Format;
use crate::failure::{Exit, Failure};
use crate::kind::schema::fields;
use crate::kind::{self, Call};
use crate::live::View as _;
use crate::live::json::JsonLines;
use crate::render::table::{Cell, Table, Tone};
use crate::render::{Out, neutral, value, words};
use crate::start::TARGETS;

/// The controller writes at least a comment more often than this; a silent connection is a dead one.
const SILENCE: Duration = Duration::from_secs(45);
/// How often silence is measured.
const TICK: Duration = Duration::from_secs(1);
/// The most items that are kept to be shown in a table.
const MAX_ITEMS: usize = 200_000;
/// The most columns of a table.
const MAX_COLUMNS: usize = 64;
/// The most hosts that are named when they did not answer.
const MAX_NAMED: usize = 50;

/// Ask hosts what is there, now
#[derive(Debug, Args)]
#[command(after_help = format!("\
Hosts answer at once, and nothing is kept: it changes nothing and is no operation. Hosts that are not connected do not \
answer; they are named at the end.

With --follow, what changes is told as it changes, line by line, until Ctrl-C.

{}

{TARGETS}

Exits with 0 if every host answered, 1 if some did not.

Examples:
  fleetward ask units --on 'web-*'
  fleetward ask units --on all --output json | jq -c 'select(.event == \"item\").data'
  fleetward ask units --on web-1 --follow", kind::FORMS))]
pub(crate) struct Ask {
    #[command(flatten)]
    call: Call,
    /// Where: a target expression, as below; `fleetward host list --on EXPR` shows what it selects
    #[arg(long, value_name = "EXPR")]
    on: String,
    /// Go on to tell what changes; only for kinds that can
    #[arg(long, short)]
    follow: bool,
}

/// `fleetward ask`.
pub(crate) async fn execute(command: Ask, app: &App) -> Result<Exit, Failure> {
    let kind = kind::get(app, &command.call.kind, Family::Query).await?;
    let params = command.call.params(&kind)?;
    if command.follow && !kind.follows {
        return Err(Failure::Usage(format!("`{}` cannot be followed; ask without --follow", kind.name)));
    }
    let asked = QueryCreate { kind: kind.name.clone(), params, on: command.on, follow: command.follow };
    let mut answer = Answer::default();
    let ending = match (app.out.format, command.follow) {
        (Format::Json, _) => listen(app, &asked, &mut answer, &mut Json::default()).await?,
        (Format::Table, true) => listen(app, &asked, &mut answer, &mut Changes::new(&app.out)).await?,
        (Format::Table, false) => {
            let mut items = Items::default();
            let ending = listen(app, &asked, &mut answer, &mut items).await?;
            app.out.print(items.table(&kind, &app.out))?;
            // Whether there is, is not known where somebody did not answer.
            if items.0.is_empty() && answer.is_whole() {
                app.out.note("There is nothing like that.");
            }
            ending
        }
    };
    answer.tell(&app.out);
    Ok(match ending {
        Ending::Left => Exit::Interrupted,
        Ending::Ended if answer.is_whole() => Exit::Success,
        Ending::Ended => Exit::Failed,
    })
}

/// Why listening ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ending {
    Ended,
    Left,
}

/// What is done with what comes.
trait Sink {
    /// Takes an event as it came.
    fn event(&mut self, _event: &ServerEvent) -> Result<(), Failure> {
        Ok(())
    }
    /// Takes an item.
    fn item(&mut self, item: QueryItem) -> Result<(), Failure>;
    /// Shows what was taken so far.
    fn flush(&mut self) -> Result<(), Failure> {
        Ok(())
    }
}

/// Reads the answer to its end, or until the user leaves.
async fn listen(
    app: &App,
    asked: &QueryCreate,
    answer: &mut Answer,
    sink: &mut impl Sink,
) -> Result<Ending, Failure> {
    let mut interrupts =
        signal(SignalKind::interrupt()).context("cannot listen for Ctrl-C").map_err(Failure::Other)?;
    let mut stream = tokio::select! {
        stream = app.client.ask("queries", asked) => stream?,
        _ = interrupts.recv() => return Ok(Ending::Left),
    };
    let url = || app.client.address().to_string();
    let gone = |source| Failure::Unreachable { url: url(), source };
    let (mut parser, mut events) = (Parser::default(), Vec::new());
    // Counted in ticks: time in which this process was stopped is nobody's silence.
    let mut silence = Duration::ZERO;
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
    loop {
        tokio::select! {
            // Items may come without end: Ctrl-C goes first.
            biased;
            _ = interrupts.recv() => return Ok(Ending::Left),
            _ = ticks.tick() => {
                silence += TICK;
                if silence > SILENCE {
                    let what = format!("nothing was heard for {} s", SILENCE.as_secs());
                    return Err(gone(io::Error::new(io::ErrorKind::TimedOut, what)));
                }
            }
            bytes = stream.next() => {
                silence = Duration::ZERO;
                let broken = || io::Error::new(io::ErrorKind::UnexpectedEof, "the answer broke off");
                let bytes = bytes.ok_or_else(|| gone(broken()))?.map_err(gone)?;
                parser
                    .push(&bytes, &mut events)
                    .map_err(|error| Failure::NotAController { url: url(), problem: error.to_string() })?;
                let mut ended = false;
                for event in events.drain(..) {
                    sink.event(&event)?;
                    ended |= answer.take(&event, sink)?;
                }
                sink.flush()?;
                if ended {
                    return Ok(Ending::Ended);
                }
            }
        }
    }
}

/// Who has answered, as far as it was told.
#[derive(Debug, Default)]
struct Answer {
    failed: BTreeMap<HostName, (QueryState, String)>,
    end: Option<QueryEnd>,
}

impl Answer {
    /// Takes an event; true if it is the last.
    fn take(&mut self, event: &ServerEvent, sink: &mut impl Sink) -> Result<bool, Failure> {
        match event.name.as_str() {
            "item" => sink.item(read(event)?)?,
            "host" => {
                let QueryHost { host, state, detail } = read(event)?;
                match state {
                    QueryState::Complete | QueryState::Ended => drop(self.failed.remove(&host)),
                    QueryState::Offline | QueryState::Refused | QueryState::Failed => {
                        self.failed.insert(host, (state, detail.unwrap_or_default()));
                    }
                }
            }
            "end" => {
                self.end = Some(read(event)?);
                return Ok(true);
            }
            // A newer controller may say more.
            _ => {}
        }
        Ok(false)
    }

    fn is_whole(&self) -> bool {
        self.failed.is_empty() && self.end.is_some_and(|end| end.answered >= end.hosts)
    }

    /// Names the hosts that did not answer, and why.
    fn tell(&self, out: &Out) {
        for (host, (state, detail)) in self.failed.iter().take(MAX_NAMED) {
            let state = match state {
                QueryState::Complete | QueryState::Ended => continue,
                QueryState::Offline => "offline",
                QueryState::Refused => "refused",
                QueryState::Failed => "failed",
            };
            let detail =
                if detail.is_empty() { String::new() } else { format!(": {}", neutral::quote(detail)) };
            out.warn(Tone::Bad.paint(&format!("{host} {state}{detail}"), out.colour_notes));
        }
        if self.failed.len() > MAX_NAMED {
            out.warn(format_args!("and {} more", self.failed.len() - MAX_NAMED));
        }
        if let Some(end) = self.end.filter(|end| end.answered < end.hosts) {
            out.note(format_args!(
                "{} of {} answered.",
                end.answered,
                words::count(end.hosts as usize, "host")
            ));
        }
    }
}

fn read<T: DeserializeOwned>(event: &ServerEvent) -> Result<T, Failure> {
    serde_json::from_str(&event.data).map_err(|error| {
        let what = format!("cannot read the controller's `{}` event", neutral::text(&event.name));
        Failure::Other(anyhow::Error::new(error).context(what))
    })
}

/// The answer for programs: a line of JSON for each event.
#[derive(Debug, Default)]
struct Json(JsonLines);

impl Sink for Json {
    fn event(&mut self, event: &ServerEvent) -> Result<(), Failure> {
        self.0.event(event)
    }

    fn item(&mut self, _item: QueryItem) -> Result<(), Failure> {
        Ok(())
    }

    fn flush(&mut self) -> Result<(), Failure> {
        self.0.flush()
    }
}

/// The answer of hosts that are asked once, kept until all of it is there.
#[derive(Debug, Default)]
struct Items(BTreeMap<(HostName, String), Map<String, Value>>);

impl Sink for Items {
    fn item(&mut self, QueryItem { host, key, item }: QueryItem) -> Result<(), Failure> {
        match item {
            Some(item) => drop(self.0.insert((host, key), item)),
            None => drop(self.0.remove(&(host, key))),
        }
        if self.0.len() > MAX_ITEMS {
            return Err(Failure::Usage(format!(
                "the answer has more than {MAX_ITEMS} items; ask fewer hosts, or read it with --output json"
            )));
        }
        Ok(())
    }
}

impl Items {
    /// A row for each item; the columns are the properties that the schema declares, as far as one item has them.
    fn table(&self, kind: &Kind, out: &Out) -> String {
        if self.0.is_empty() {
            return String::new();
        }
        let is_filled = |(name, value): (_, &Value)| (!value::plain(value).is_empty()).then_some(name);
        let filled: BTreeSet<&String> =
            self.0.values().flat_map(|item| item.iter().filter_map(is_filled)).collect();
        let declared: Vec<String> = fields(&kind.answer).into_iter().map(|field| field.name).collect();
        let ordered = declared.iter().filter(|name| filled.contains(name));
        let others = filled.iter().copied().filter(|name| !declared.contains(name));
        let columns: Vec<&String> = ordered.chain(others).take(MAX_COLUMNS).collect();
        // What names an item is shown where none of its properties does.
        let is_named =
            self.0.iter().all(|((_, key), item)| item.values().any(|value| value::plain(value) == *key));
        let mut header = vec!["HOST".to_owned()];
        header.extend((!is_named).then(|| "KEY".to_owned()));
        header.extend(columns.iter().map(|name| name.to_uppercase()));
        let mut table = Table::of_columns(out, &header);
        for ((host, key), item) in &self.0 {
            let key = (!is_named).then(|| Cell::new(key));
            let values =
                columns.iter().map(|name| Cell::new(item.get(*name).map(value::plain).unwrap_or_default()));
            table.push(std::iter::once(Cell::new(host.as_str())).chain(key).chain(values));
        }
        table.finish()
    }
}

/// What is there and what changes, a line each as it comes.
#[derive(Debug)]
struct Changes<'a> {
    out: &'a Out,
    known: BTreeMap<(HostName, String), Map<String, Value>>,
    text: String,
}

impl<'a> Changes<'a> {
    const fn new(out: &'a Out) -> Self {
        Self { out, known: BTreeMap::new(), text: String::new() }
    }
}

impl Sink for Changes<'_> {
    fn item(&mut self, QueryItem { host, key, item }: QueryItem) -> Result<(), Failure> {
        let place = (host, key);
        let (host, key) = &place;
        let told = match (&item, self.known.get(&place)) {
            (Some(item), Some(before)) => changes(before, item),
            (Some(item), None) => changes(&Map::new(), item),
            (None, _) => Tone::Dim.paint("gone", self.out.colour),
        };
        if !told.is_empty() {
            // Writing to a string cannot fail.
            let _ = writeln!(self.text, "{host}  {}  {told}", neutral::text(key));
        }
        match item {
            // What is beyond is told whole each time.
            Some(item) if self.known.len() < MAX_ITEMS || self.known.contains_key(&place) => {
                self.known.insert(place, item);
            }
            _ => drop(self.known.remove(&place)),
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), Failure> {
        let text = std::mem::take(&mut self.text);
        if text.is_empty() { Ok(()) } else { self.out.print(text) }
    }
}

/// The properties that are others than before: `active=failed (was active)`.
fn changes(before: &Map<String, Value>, after: &Map<String, Value>) -> String {
    let names = after.keys().chain(before.keys().filter(|name| !after.contains_key(*name)));
    let told = names.filter_map(|name| {
        let of = |item: &Map<String, Value>| item.get(name).map(value::plain).unwrap_or_default();
        let (old, new) = (of(before), of(after));
        match (old == new, old.is_empty()) {
            (true, _) => None,
            (false, true) => Some(neutral::text(&format!("{name}={new}"))),
            (false, false) => Some(neutral::text(&format!("{name}={new} (was {old})"))),
        }
    });
    told.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests;
