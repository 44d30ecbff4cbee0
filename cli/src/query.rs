//! `ask`.

mod answer;
mod changes;
mod items;
mod listen;

use clap::Args;
use fleetward_api::work::kind::Family;
use fleetward_api::work::query::{QueryCreate, QueryItem};

use crate::app::App;
use crate::client::sse::ServerEvent;
use crate::config::Format;
use crate::failure::{Exit, Failure};
use crate::kind::schema::fields;
use crate::kind::{self, Call};
use crate::live::View as _;
use crate::live::json::JsonLines;
use crate::render::words;
use crate::start::{TARGETS, Targets};

use answer::{Answer, News};
use changes::Changes;
use items::Items;
use listen::{Ending, follow, once};

/// Ask hosts what is there, now
#[derive(Debug, Args)]
#[command(after_help = format!("\
Hosts answer at once, and nothing is kept: it changes nothing and is no operation. Hosts that are not connected do not \
answer; they are named. A host that is not enrolled is a refusal, as with `fleetward run` and `fleetward do`; \
--skip-not-enrolled leaves it out.

With --follow, what changes is told as it changes, line by line, until Ctrl-C: `name=new (was old)`, and `gone` for what \
a host no longer lists; `fleetward kind show KIND` tells what that means. When the connection to the controller or to a \
host breaks, the hosts are asked again until they answer, and what changed meanwhile is told then. In JSON the event \
`again` says so: all there is follows once more.

{}

{TARGETS}

Exits with 0 if every host answered, 1 if some did not.

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
    let asked = QueryCreate {
        kind: kind.name.clone(),
        params,
        on: command.targets.on,
        skip_not_enrolled: command.targets.skip_not_enrolled,
        follow: command.follow,
    };
    let fields = fields(&kind.answer);
    let mut answer = Answer::default();
    let ending = match (app.out.format, command.follow) {
        (Format::Json, false) => once(app, &asked, &mut answer, &mut Json::default()).await?,
        (Format::Json, true) => follow(app, &asked, &mut answer, &mut Json::default()).await?,
        (Format::Table, true) => {
            follow(app, &asked, &mut answer, &mut Changes::new(&app.out, &fields)).await?
        }
        (Format::Table, false) => {
            let mut items = Items::default();
            let ending = once(app, &asked, &mut answer, &mut items).await?;
            let (table, left_out) = items.table(&fields, &app.out);
            app.out.print(table)?;
            app.out.note_left_out(&left_out);
            if items.is_empty() && answer.answered() > 0 {
                let hosts = words::count(answer.answered(), "host");
                app.out.note(format_args!("{}: nothing matches on {hosts}.", kind.name));
            }
            ending
        }
    };
    if !(command.follow && app.out.format == Format::Table) {
        answer.tell(&app.out);
    }
    answer.sum_up(&app.out);
    Ok(match ending {
        Ending::Left => Exit::Interrupted,
        Ending::Ended if answer.is_whole() => Exit::Success,
        Ending::Ended => Exit::Failed,
    })
}

/// What is done with what comes.
trait Sink {
    /// Takes an event as it came.
    fn event(&mut self, _event: &ServerEvent) -> Result<(), Failure> {
        Ok(())
    }
    /// Takes an item.
    fn item(&mut self, item: QueryItem) -> Result<(), Failure>;
    /// Takes what became of a host.
    fn host(&mut self, _news: &News) -> Result<(), Failure> {
        Ok(())
    }
    /// All there is will be told once more: the hosts were asked again.
    fn again(&mut self) -> Result<(), Failure> {
        Ok(())
    }
    /// Shows what was taken so far.
    fn flush(&mut self) -> Result<(), Failure> {
        Ok(())
    }
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

    fn again(&mut self) -> Result<(), Failure> {
        self.0.event(&ServerEvent { name: "again".to_owned(), data: "{}".to_owned(), id: None })
    }

    fn flush(&mut self) -> Result<(), Failure> {
        self.0.flush()
    }
}

#[cfg(test)]
mod tests;
