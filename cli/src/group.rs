//! `group`.

use clap::{Args, Subcommand};
use fleetward_api::fleet::group::{Group, GroupUpdate};
use fleetward_api::page::PageQuery;
use fleetward_protocol::name::GroupName;
use hyper::Method;

use crate::app::App;
use crate::client::Patience;
use crate::failure::{Exit, Failure};
use crate::prompt;
use crate::render::table::{Cell, Sheet, Table, Tone};

/// Groups of hosts: list, show, set, delete
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// List the groups
    List(List),
    /// Show a group
    Show(Name),
    /// Set a group, in the place of one of the same name
    Set(Set),
    /// Delete a group; hosts and operations stay
    Delete(Delete),
}

/// List the groups
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  fleetward group list
  fleetward group list --output json | jq -r '.[].name'")]
pub(crate) struct List {
    /// Groups at most; all when absent
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..))]
    limit: Option<u32>,
}

/// A group.
#[derive(Debug, Args)]
pub(crate) struct Name {
    /// The group's name
    name: GroupName,
}

/// Set a group, in the place of one of the same name
#[derive(Debug, Args)]
#[command(after_help = "\
A group is a target expression under a name. It is no list: whoever uses it means the hosts that the expression means at that \
moment. A group cannot name another one.

Examples:
  fleetward group set databases 'tag:db & !tag:retiring' --description 'PostgreSQL, all sites'
  fleetward group set canaries web-1,web-7")]
pub(crate) struct Set {
    /// The group's name
    name: GroupName,
    /// Which hosts are in it, as for `run --on`
    #[arg(value_name = "EXPR")]
    on: String,
    /// What it is for
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    description: String,
}

/// Delete a group; hosts and operations stay
#[derive(Debug, Args)]
pub(crate) struct Delete {
    /// The group's name
    name: GroupName,
    /// Do not ask
    #[arg(long, short)]
    yes: bool,
}

/// `fleetward group …`.
pub(crate) async fn execute(command: Command, app: &App) -> Result<Exit, Failure> {
    match command {
        Command::List(List { limit }) => {
            let query = PageQuery { limit: None, cursor: None };
            app.list::<Group>("groups", &query, limit, |groups| table(groups, app)).await
        }
        Command::Show(Name { name }) => {
            let answer = app.client.get(&format!("groups/{name}")).await?;
            app.show::<Group>(&answer, |group| sheet(group, app))
        }
        Command::Set(Set { name, on, description }) => {
            let body = GroupUpdate { on, description };
            let answer = app.client.send(Method::PUT, &format!("groups/{name}"), &body).await?;
            app.show::<Group>(&answer, |group| sheet(group, app))
        }
        Command::Delete(Delete { name, yes }) => {
            if !yes {
                prompt::confirm(&format!("Delete the group {name}? Its hosts stay."))?;
            }
            app.client.act(Method::DELETE, &format!("groups/{name}"), Patience::Usual).await?;
            app.out.note(format_args!("The group {name} is deleted."));
            Ok(Exit::Success)
        }
    }
}

fn table(groups: &[Group], app: &App) -> String {
    if groups.is_empty() {
        app.out.note("There are no groups yet. Make one with `fleetward group set NAME EXPR`.");
        return String::new();
    }
    let mut table = Table::new(&app.out, ["NAME", "ON", "DESCRIPTION", "CHANGED", "BY"]);
    for group in groups {
        table.row([
            group.name.as_str().into(),
            group.on.as_str().into(),
            group.description.as_str().into(),
            Cell::new(app.out.clock.ago(group.updated_at)).tone(Tone::Dim),
            Cell::new(group.updated_by.as_str()).tone(Tone::Dim),
        ]);
    }
    table.finish()
}

fn sheet(group: &Group, app: &App) -> String {
    let mut sheet = Sheet::default();
    sheet.row("Name", group.name.as_str());
    sheet.row("On", &group.on);
    sheet.row("Description", &group.description);
    sheet.row("Tenant", group.tenant.as_str());
    sheet.row("Changed", format!("{} by {}", app.out.clock.at_and_ago(group.updated_at), group.updated_by));
    sheet.finish()
}
