//! `ask`.

mod answer;
mod changes;
mod entries;
mod items;
mod listen;
mod look_up;
mod stream;

use std::collections::BTreeSet;

use clap::Args;
use fleetward_api::work::kind::schema::{Field, fields};
use fleetward_api::work::kind::{Family, Kind, Shows};
use fleetward_api::work::query::{QueryCreate, QueryEnd, QueryItem};
use fleetward_protocol::name::HostName;
use fleetward_protocol::query::Contract;
use serde_json::{Map, Value, json};

use crate::app::App;
use crate::client::sse::ServerEvent;
use crate::config::Format;
use crate::failure::{Exit, Failure};
use crate::kind::{self, Call};
use crate::live::View as _;
use crate::live::json::JsonLines;
use crate::render::{Out, words};
use crate::start::{TARGETS, Targets};

use answer::Answer;

pub(crate) use answer::News;
pub(crate) use changes::Changes;
pub(crate) use entries::{Entries, flat_lines};
pub(crate) use items::Items;
use listen::{Ending, listen};

/// Ask hosts what is there, now
#[derive(Debug, Args)]
#[command(after_help = format!("\
Hosts answer at once, and nothing is kept: it changes nothing and is no operation. Hosts that are not connected do not \
answer; they are named. A host that is not enrolled is a refusal, as with `fleetward run` and `fleetward do`; \
--skip-not-enrolled leaves it out.

With --follow, what changes is told as it changes, line by line, until Ctrl-C: `name=new (was old)`, and `gone` for what \
a host no longer lists; `fleetward kind show KIND` tells what that means. When the connection to the controller or to a \
host breaks, those hosts are asked again until they answer, for up to ten minutes when nobody else is left, and what \
changed meanwhile is told then. A host that may not be asked any more, such as one that left the inventory, is told as \
refused, and the others go on. In JSON the event `again` names the hosts that were asked again (all, if it names none): all \
there is on them follows once more. It ends by itself after 12 hours, and says so.

{}

{TARGETS}

Exits with 0 if every host answered, 1 if some did not. With --follow a host has answered if it told all there was and did \
not break off for good; Ctrl-C exits with 130.

Examples:
  fleetward ask units --on 'web-*'
  fleetward ask units states=failed --on all --skip-not-enrolled
  fleetward ask units --on all --output json | jq -c 'select(.event == \"item\").data'
  fleetward ask units pattern=nginx --on web-1 --follow", kind::FORMS))]
pub(crate) struct Ask {
    #[command(flatten)]
    call: Call,
    #[command(flatten)]
    targets: Targets,
    /// Go on to tell what changes; only for kinds that can
    #[arg(long, short)]
    follow: bool,
}

/// `fleetward ask`.
pub(crate) async fn execute(command: Ask, app: &App) -> Result<Exit, Failure> {
    let known = kind::get(app, &command.call.kind, Family::Query).await?;
    let params = command.call.params(&known)?;
    let kind = known.kind;
    if command.follow && !kind.follows {
        return Err(Failure::Usage(format!("`{}` cannot be followed; ask without --follow", kind.name)));
    }
    answer(kind, params, command.targets, command.follow, app).await
}

/// Asks what these parameters say.
///
/// # Errors
/// If they are none of this kind's, or the controller does not know it.
pub(crate) async fn ask<C: Contract>(asked: &C, targets: Targets, app: &App) -> Result<Exit, Failure> {
    asked.validate().map_err(Failure::Usage)?;
    let known = kind::get(app, C::KIND, Family::Query).await?;
    let params = serde_json::to_value(asked).map_err(|error| Failure::Other(error.into()))?;
    let Value::Object(params) = params else {
        return Err(Failure::Usage("nothing was asked for".to_owned()));
    };
    answer(known.kind, params, targets, false, app).await
}

/// Asks for entries, and tells each as `write` has it.
///
/// # Errors
/// As [`ask`].
pub(crate) async fn ask_entries<C: Contract>(
    asked: &C,
    targets: Targets,
    write: impl FnMut(&HostName, &Map<String, Value>, &mut String),
    app: &App,
) -> Result<Exit, Failure> {
    asked.validate().map_err(Failure::Usage)?;
    let params = serde_json::to_value(asked).map_err(|error| Failure::Other(error.into()))?;
    let Targets { on, skip_not_enrolled } = targets;
    let params = params.as_object().cloned().unwrap_or_default();
    let asked = QueryCreate { kind: C::KIND.to_owned(), params, on, skip_not_enrolled, follow: false };
    tell(app, &asked, &mut Entries::new(&app.out, write)).await
}

async fn answer(
    kind: Kind,
    params: Map<String, Value>,
    targets: Targets,
    follow: bool,
    app: &App,
) -> Result<Exit, Failure> {
    let asked = QueryCreate {
        kind: kind.name.clone(),
        params,
        on: targets.on,
        skip_not_enrolled: targets.skip_not_enrolled,
        follow,
    };
    let fields = fields(&kind.answer);
    match kind.shows {
        Some(Shows::Entries) => {
            tell(app, &asked, &mut Entries::new(&app.out, flat_lines(&fields, &app.out))).await
        }
        Some(Shows::Table) | None => show(app, &asked, &fields, |items, out| items.table(&fields, out)).await,
    }
}

/// Asks, and shows the items when all are there, as `layout` has them (with the columns for which there was no room); what is
/// followed is told line by line, and in JSON everything as it comes.
pub(crate) async fn show(
    app: &App,
    asked: &QueryCreate,
    fields: &[Field],
    layout: impl FnOnce(&Items, &Out) -> (String, Vec<String>),
) -> Result<Exit, Failure> {
    if app.out.format == Format::Json || asked.follow {
        return tell(app, asked, &mut Changes::new(&app.out, fields)).await;
    }
    let (mut answer, mut items) = (Answer::default(), Items::default());
    let ending = listen(app, asked, &mut answer, &mut items).await?;
    let (text, left_out) = layout(&items, &app.out);
    app.out.print(text)?;
    app.out.note_left_out(&left_out);
    if items.is_empty() && answer.answered() > 0 {
        let hosts = words::count(answer.answered(), "host");
        app.out.note(format_args!("{}: nothing matches on {hosts}.", asked.kind));
    }
    answer.tell(&app.out);
    Ok(conclude(&answer, ending, app))
}

/// Asks, and gives what comes to `sink`, who tells people of it; in JSON everything as it comes.
pub(crate) async fn tell(app: &App, asked: &QueryCreate, sink: &mut impl Sink) -> Result<Exit, Failure> {
    let mut answer = Answer::default();
    let ending = match app.out.format {
        Format::Json => {
            let mut json = Json { lines: JsonLines::default(), noting: sink.noting() };
            listen(app, asked, &mut answer, &mut json).await?
        }
        Format::Table => listen(app, asked, &mut answer, sink).await?,
    };
    if app.out.format == Format::Json || !sink.tells_of_hosts() {
        answer.tell(&app.out);
    }
    Ok(conclude(&answer, ending, app))
}

fn conclude(answer: &Answer, ending: Ending, app: &App) -> Exit {
    answer.sum_up(&app.out);
    match ending {
        Ending::Left => Exit::Interrupted,
        Ending::Ended if answer.is_whole() => Exit::Success,
        Ending::Ended => Exit::Failed,
    }
}

/// What is done with what comes.
pub(crate) trait Sink {
    /// Takes an event as it came.
    fn event(&mut self, _event: &ServerEvent) -> Result<(), Failure> {
        Ok(())
    }
    /// Takes an item.
    fn item(&mut self, item: QueryItem) -> Result<(), Failure>;
    /// Whether it tells people what became of hosts as it hears of it; else that is told at the end.
    fn tells_of_hosts(&self) -> bool {
        false
    }
    /// Who takes note of what is told in JSON; it must not write any of it.
    fn noting(&mut self) -> Option<&mut dyn Sink> {
        None
    }
    /// Takes what became of a host.
    fn host(&mut self, _news: &News) -> Result<(), Failure> {
        Ok(())
    }
    /// All there is will be told once more: all hosts were asked again, or these.
    fn again(&mut self, _hosts: Option<&BTreeSet<HostName>>) -> Result<(), Failure> {
        Ok(())
    }
    /// Takes the end of what was followed.
    fn end(&mut self, _end: &QueryEnd) -> Result<(), Failure> {
        Ok(())
    }
    /// Shows what was taken so far.
    fn flush(&mut self) -> Result<(), Failure> {
        Ok(())
    }
}

/// The answer for programs: a line of JSON for each event.
struct Json<'a> {
    lines: JsonLines,
    noting: Option<&'a mut dyn Sink>,
}

impl Json<'_> {
    /// An event that is made here.
    fn made(&mut self, name: &str, data: &impl serde::Serialize) -> Result<(), Failure> {
        let data = serde_json::to_string(data).map_err(|error| Failure::Other(error.into()))?;
        self.lines.event(&ServerEvent { name: name.to_owned(), data, id: None })?;
        self.lines.flush()
    }
}

impl Sink for Json<'_> {
    fn event(&mut self, event: &ServerEvent) -> Result<(), Failure> {
        self.lines.event(event)
    }

    fn item(&mut self, item: QueryItem) -> Result<(), Failure> {
        // What was written as it came.
        self.noting.as_mut().map_or(Ok(()), |noting| noting.item(item))
    }

    fn host(&mut self, news: &News) -> Result<(), Failure> {
        // What the controller told was written as it came.
        let News::LeftOut(host, why) = news else { return Ok(()) };
        self.made("host", &json!({ "host": host, "state": "refused", "detail": why }))
    }

    fn again(&mut self, hosts: Option<&BTreeSet<HostName>>) -> Result<(), Failure> {
        if let Some(noting) = &mut self.noting {
            noting.again(hosts)?;
        }
        self.made("again", &hosts.map_or(json!({}), |hosts| json!({ "hosts": hosts })))
    }

    fn end(&mut self, end: &QueryEnd) -> Result<(), Failure> {
        self.made("end", end)
    }

    fn flush(&mut self) -> Result<(), Failure> {
        self.lines.flush()
    }
}

#[cfg(test)]
mod tests;
