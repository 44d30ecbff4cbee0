//! `session`.

use clap::{Args, Subcommand};
use fleetward_api::people::auth::Session;
use fleetward_protocol::id::SessionId;
use hyper::Method;

use crate::app::App;
use crate::client::Patience;
use crate::failure::{Exit, Failure};
use crate::render::table::{Cell, Table, Tone};

/// Your own logins: list, end
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// List your live logins, the latest first
    List,
    /// End one of your logins, at once
    End(End),
}

/// End one of your logins, at once
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  fleetward session list
  fleetward session end 01890000-0000-7000-8000-000000000001")]
pub(crate) struct End {
    /// The login's id, from `session list`
    id: SessionId,
}

/// `fleetward session …`.
pub(crate) async fn execute(command: Command, app: &App) -> Result<Exit, Failure> {
    match command {
        Command::List => list(app).await,
        Command::End(End { id }) => {
            app.client.act(Method::DELETE, &format!("auth/sessions/{id}"), Patience::Usual).await?;
            app.out.note("Ended.");
            Ok(Exit::Success)
        }
    }
}

async fn list(app: &App) -> Result<Exit, Failure> {
    let clock = &app.out.clock;
    let list = app.list::<Session>("auth/sessions", &(), None, |sessions| {
        let mut table = Table::new(&app.out, ["ID", "CLIENT", "SINCE", "LAST USED", "ENDS", ""]);
        for session in sessions {
            table.row([
                session.id.to_string().into(),
                session.name.as_str().into(),
                clock.at(session.created_at).into(),
                session.last_used_at.map(|time| clock.ago(time)).unwrap_or_default().into(),
                clock.ago(session.expires_at).into(),
                Cell::new(if session.current { "this one" } else { "" }).tone(Tone::Good),
            ]);
        }
        table.finish()
    });
    list.await
}
