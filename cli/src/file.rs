//! `file`.

mod cat;
mod change;

use std::str::FromStr;

use clap::{Args, Subcommand};
use fleetward_api::work::kind::Family;
use fleetward_api::work::kind::schema::fields;
use fleetward_api::work::query::QueryCreate;
use fleetward_protocol::name::{HostName, LinuxUser};
use fleetward_protocol::path::HostPath;
use serde_json::{Map, Value, json};

use crate::app::App;
use crate::failure::{Exit, Failure};
use crate::start::TARGETS;
use crate::{kind, query};

/// Files on hosts: ls, cat, stat, put, rm
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// List what is in a directory
    Ls(Ls),
    /// Read a file, or follow it
    Cat(cat::Cat),
    /// Show what a file or directory is like
    Stat(Stat),
    /// Write a file
    Put(change::Put),
    /// Remove a file or a directory
    Rm(change::Rm),
}

/// Which path, and on which hosts.
#[derive(Debug, Args)]
pub(crate) struct Where {
    /// The host and the path on it, from the root on; with --on the path alone. `base64:` and its bytes stand for a path that is
    /// no text
    #[arg(value_name = "HOST:PATH")]
    place: String,
    /// Where, instead of one host: a target expression, as below
    #[arg(long, value_name = "EXPR")]
    on: Option<String>,
    /// Leave out hosts that are not enrolled; without it, one of them is a refusal. Offline hosts stay
    #[arg(long)]
    skip_not_enrolled: bool,
}

/// List what is in a directory
#[derive(Debug, Args)]
#[command(after_help = format!("\
The directory itself comes first, as `.`. A name that is no text is shown with \\xNN for each byte that nobody could read, and \
has a path to ask for it. When there are too many names, `.` says how many are left out, and `next` what to pass to --after.

{TARGETS}

Examples:
  fleetward file ls web-1:/etc/nginx
  fleetward file ls --on tag:web /etc/nginx/conf.d --all
  fleetward file ls web-1:/home/ann --as ann --output json"))]
pub(crate) struct Ls {
    #[command(flatten)]
    at: Where,
    /// Also names that begin with a dot
    #[arg(long, short)]
    all: bool,
    /// Only names behind this one
    #[arg(long, value_name = "NAME")]
    after: Option<String>,
    /// As whom to look; root when absent
    #[arg(long = "as", value_name = "USER")]
    user: Option<LinuxUser>,
}

/// Show what a file or directory is like
#[derive(Debug, Args)]
#[command(after_help = format!("\
{TARGETS}

Examples:
  fleetward file stat web-1:/etc/shadow
  fleetward file stat --on all /usr/bin/python3 --dereference"))]
pub(crate) struct Stat {
    #[command(flatten)]
    at: Where,
    /// If it is a link, what it leads to
    #[arg(long, short = 'L')]
    dereference: bool,
    /// As whom to look; root when absent
    #[arg(long = "as", value_name = "USER")]
    user: Option<LinuxUser>,
}

/// `fleetward file …`.
pub(crate) async fn execute(command: Command, app: &App) -> Result<Exit, Failure> {
    match command {
        Command::Ls(Ls { at, all, after, user }) => {
            let mut params = Map::new();
            if all {
                params.insert("hidden".to_owned(), true.into());
            }
            params.extend(after.map(|after| ("after".to_owned(), after.into())));
            ask(app, "file-list", at, params, user).await
        }
        Command::Stat(Stat { at, dereference, user }) => {
            let mut params = Map::new();
            if dereference {
                params.insert("dereference".to_owned(), true.into());
            }
            ask(app, "file-stat", at, params, user).await
        }
        Command::Cat(command) => cat::execute(command, app).await,
        Command::Put(command) => change::put(command, app).await,
        Command::Rm(command) => change::remove(command, app).await,
    }
}

/// Asks a query that is shown as any other.
async fn ask(
    app: &App,
    kind: &str,
    at: Where,
    mut params: Map<String, Value>,
    user: Option<LinuxUser>,
) -> Result<Exit, Failure> {
    let skip_not_enrolled = at.skip_not_enrolled;
    let (on, path) = at.resolve()?;
    params.insert("path".to_owned(), json!(path));
    params.extend(user.map(|user| ("user".to_owned(), json!(user))));
    let known = kind::get(app, kind, Family::Query).await?;
    let asked = QueryCreate { kind: known.kind.name.clone(), params, on, skip_not_enrolled, follow: false };
    let fields = fields(&known.kind.answer);
    query::show(app, &asked, &fields, |items, out| items.table(&fields, out)).await
}

impl Where {
    /// The target expression, and the path.
    fn resolve(self) -> Result<(String, HostPath), Failure> {
        let Self { place, on, .. } = self;
        match on {
            Some(on) => Ok((on, path(&place)?)),
            None => {
                let Place { host, path } = place.parse().map_err(Failure::Usage)?;
                Ok((host.to_string(), path))
            }
        }
    }
}

/// A path on one host.
#[derive(Debug, Clone, PartialEq)]
struct Place {
    host: HostName,
    path: HostPath,
}

impl FromStr for Place {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let Some((host, path)) =
            text.split_once(':').filter(|(host, _)| !host.contains('/') && *host != "base64")
        else {
            return Err(format!(
                "`{}` names no host: write HOST:PATH, or --on EXPR and the path",
                text.escape_debug()
            ));
        };
        let host = host.parse().map_err(|error: fleetward_protocol::name::InvalidName| error.to_string())?;
        let path = path.parse().map_err(|error: fleetward_protocol::path::InvalidPath| error.to_string())?;
        Ok(Self { host, path })
    }
}

fn path(text: &str) -> Result<HostPath, Failure> {
    text.parse().map_err(|error: fleetward_protocol::path::InvalidPath| {
        // Somebody who names hosts twice means one of them.
        let hint = text.parse::<Place>().map(|_| "; with --on, give the path alone").unwrap_or_default();
        Failure::Usage(format!("{error}{hint}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_a_host_and_a_path() {
        let place: Place = "web-1:/etc/a:b".parse().unwrap();
        assert_eq!((place.host.as_str(), place.path.to_string().as_str()), ("web-1", "/etc/a:b"));
        let place: Place = "web-1:base64:L/8=".parse().unwrap();
        assert_eq!(place.path.as_bytes(), b"/\xff");
        for (text, told) in [
            ("/etc/hosts", "names no host"),
            ("/etc/a:b", "names no host"),
            ("base64:L2E=", "names no host"),
            ("web-1", "names no host"),
            ("web 1:/a", "host name"),
            ("web-1:etc", "from the root on"),
            ("web-1:/a/../b", "without `..`"),
        ] {
            let error = text.parse::<Place>().unwrap_err();
            assert!(error.contains(told), "{error}");
        }
        let twice = Where { place: "web-1:/a".into(), on: Some("all".into()), skip_not_enrolled: false };
        assert!(twice.resolve().unwrap_err().to_string().contains("with --on, give the path alone"));
    }
}
